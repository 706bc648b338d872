//! The command line: one file for each command. The exit codes are the same everywhere: 0 yes, 1 could not,
//! 2 wrong usage, and 3 no: for `check` and `explain` not allowed, for `bundle diff` not the same.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{self, Config, ServeArgs};

mod ask;
mod bundle;
mod completions;
mod inject;
mod publish;
mod replay;
mod repo;
mod report;
mod serve;
mod traced;
mod validate;

use ask::{check, explain, status, what_can, who_can};
pub use inject::InjectServe;
pub(crate) use serve::print_refused;

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("POSTERN_COMMIT"), ")");

const EXAMPLES: &str = "\
Examples:
  postern serve --policy examples/contoso
  postern check --policy examples/contoso --principal 00000000-0000-4000-a002-000000000002 \\
      --action Microsoft.KeyVault/vaults/read \\
      --scope /subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod
  postern validate examples/contoso";

/// A gRPC sidecar authorizer with the exact semantics of Azure RBAC
#[derive(Debug, Parser)]
#[command(name = "postern", version = VERSION, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer authorization requests over gRPC
    #[command(after_help = serve::EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Ask one question, of a policy directory or of a running sidecar
    #[command(after_help = check::EXAMPLES)]
    Check(Box<check::CheckArgs>),
    /// Say why `check` answers a question as it does: everything that was looked at
    #[command(after_help = explain::EXAMPLES)]
    Explain(Box<check::CheckArgs>),
    /// List what a principal may do at a scope
    #[command(after_help = what_can::EXAMPLES)]
    WhatCan(Box<what_can::WhatCanArgs>),
    /// List who may do an action at a scope, and through what
    #[command(after_help = who_can::EXAMPLES)]
    WhoCan(Box<who_can::WhoCanArgs>),
    /// Ask recorded decisions again of another policy, and say what it would decide otherwise
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::ReplayArgs),
    /// Say which policy a running sidecar answers by, and how fresh it is
    #[command(after_help = status::EXAMPLES)]
    Status(status::StatusArgs),
    /// Say everything that is wrong with a policy directory
    #[command(after_help = validate::EXAMPLES)]
    Validate(validate::ValidateArgs),
    /// Build, look at and compare bundles: a compiled policy as one file
    #[command(after_help = bundle::EXAMPLES)]
    Bundle(bundle::BundleArgs),
    /// Make a policy the current publication of a repository
    #[command(after_help = publish::EXAMPLES)]
    Publish(Box<publish::PublishArgs>),
    /// Begin a repository of signed publications and look after it
    #[command(after_help = repo::EXAMPLES)]
    Repo(Box<repo::RepoArgs>),
    /// Put the sidecar into the pods that ask for it: a webhook for Kubernetes
    #[command(after_help = inject::EXAMPLES)]
    Inject(Box<inject::InjectArgs>),
    /// Print a completion script for a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Done, valid, allowed.
    Yes = 0,
    /// Could not.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// Not allowed or denied; of two policies or of records, not the same.
    No = 3,
}

/// What is left to do after the command line.
#[derive(Debug)]
pub enum Next {
    /// Nothing.
    Exit(ExitCode),
    /// Serve: the wiring is a layer above this one.
    Serve(Box<Config>),
    /// Serve the webhook.
    InjectServe(Box<InjectServe>),
}

/// Reads the arguments and runs every command but those that serve.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Next {
    let command = Cli::command();
    let matches = match command.clone().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version end here too; a closed pipe is nobody's error.
            let _closed = error.print();
            return Next::Exit(u8::try_from(error.exit_code()).unwrap_or(2).into());
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => {
            let _closed = error.print();
            return Next::Exit(Exit::Usage.into());
        }
    };
    let exit = match (cli.command, matches.subcommand()) {
        (Command::Serve(_), Some((name, matches))) => match command.find_subcommand(name) {
            Some(command) => match serve::run(command, matches) {
                Ok(config) => return Next::Serve(config),
                Err(exit) => exit,
            },
            None => Exit::Usage,
        },
        (Command::Check(arguments), Some((_, matches))) => check::run(&arguments, matches),
        (Command::Explain(arguments), Some((_, matches))) => explain::run(&arguments, matches),
        (Command::WhatCan(arguments), Some((_, matches))) => what_can::run(&arguments, matches),
        (Command::WhoCan(arguments), Some((_, matches))) => who_can::run(&arguments, matches),
        (Command::Replay(arguments), _) => replay::run(&arguments),
        (Command::Status(arguments), _) => status::run(&arguments),
        (Command::Validate(arguments), _) => validate::run(&arguments),
        (Command::Bundle(arguments), _) => bundle::run(&arguments),
        (Command::Publish(arguments), _) => publish::run(&arguments),
        (Command::Repo(arguments), _) => repo::run(&arguments),
        (Command::Inject(arguments), _) => match inject::run(*arguments) {
            Ok(serve) => return Next::InjectServe(serve),
            Err(exit) => exit,
        },
        (Command::Completions(arguments), _) => completions::run(&arguments),
        (_, None) => Exit::Usage,
    };
    Next::Exit(exit.into())
}

/// The table of settings between the markers in the README.
pub fn settings_table() -> String {
    config::settings_table(&ServeArgs::augment_args(clap::Command::new("serve")))
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

// === output ===

const ERROR: Style = AnsiColor::Red.on_default().bold();

/// Writes to standard output: colours only on a terminal, and a reader that has gone is no error.
fn print(text: &str) {
    let mut out = anstream::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard error in the same way.
fn print_error_text(text: &str) {
    let mut out = anstream::stderr().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// One error, as clap shows its own.
pub(crate) fn print_error(message: &dyn Display) {
    print_error_text(&format!("{ERROR}error:{ERROR:#} {message}\n"));
}

/// One JSON document on standard output.
fn print_json(value: &impl serde::Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_table_has_every_setting() {
        let table = settings_table();
        assert!(table.contains("| `policy` | `POSTERN_POLICY` |  |"), "{table}");
        assert!(table.contains("| `cache` | `POSTERN_CACHE` | `256` |"), "{table}");
        let settings = ServeArgs::augment_args(clap::Command::new("serve")).get_arguments().count();
        assert_eq!(table.lines().count(), 2 + settings, "{table}");
    }
}
