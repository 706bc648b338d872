//! `postern serve`: reads the configuration. Serving itself is `app`, a layer above.

use clap::ArgMatches;

use crate::config::Config;
use crate::source::dir::Refused;

use super::{Exit, print_error, print_error_text, report};

pub(super) const EXAMPLES: &str = "\
Examples:
  postern serve --policy examples/contoso
  postern serve --policy /etc/postern/policy --uds /run/postern/postern.sock
  postern serve --config /etc/postern/config.toml --log-format json

A flag wins over its variable, which wins over the file. Traces go where OTEL_EXPORTER_OTLP_ENDPOINT says.
SIGHUP reloads the policy. SIGTERM drains and ends with 0; a second one ends at once with 143.
Exit codes: 0 drained, 1 could not start or go on, 2 wrong configuration, 130 or 143 second signal.";

pub(super) fn run(command: &clap::Command, matches: &ArgMatches) -> Result<Box<Config>, Exit> {
    Config::from_matches(command, matches).map(Box::new).map_err(|errors| {
        for problem in &errors.0 {
            print_error(problem);
        }
        Exit::Usage
    })
}

/// The full report of a policy that was refused, on standard error.
pub(crate) fn print_refused(refused: &Refused) {
    print_error_text(&report::problems(&refused.problems));
    print_error_text(&format!("{}\n", report::summary(&refused.problems, refused.files)));
}
