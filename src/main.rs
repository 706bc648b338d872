//! The `postern` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    postern::app::main()
}
