//! The `postern` binary.

use std::process::ExitCode;

/// Reading a large policy directory takes many times the memory that the compiled policy keeps; this allocator gives
/// it back to the system, where the C library's would keep it in its free lists.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    postern::app::main()
}
