//! `postern completions`.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{Cli, Exit, print_error_text};

pub(super) const EXAMPLES: &str = "\
Examples:
  postern completions bash > ~/.local/share/bash-completion/completions/postern
  postern completions zsh > ~/.zfunc/_postern";

/// What to print.
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArgs) -> Exit {
    // Into memory first: the generator panics on a closed pipe.
    let mut script = Vec::new();
    generate(arguments.shell, &mut Cli::command(), "postern", &mut script);
    match String::from_utf8(script) {
        Ok(script) => {
            super::print(&script);
            Exit::Yes
        }
        Err(_) => {
            print_error_text("the script is no text\n");
            Exit::Failed
        }
    }
}
