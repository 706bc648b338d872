//! A process seen from outside: what it holds and what it has computed, as `/proc` tells it, and the `postern` that
//! benchmarks run as one.

use std::process::Command;

/// Mebibytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All pages that it has in memory, those of the program's file included.
    pub(crate) resident: f64,
    /// The same with a page that n processes share counted as one nth.
    pub(crate) proportional: f64,
    /// Pages that nobody else has, also those of files.
    pub(crate) private: f64,
    /// Pages of no file, which the kernel cannot take back.
    pub(crate) anonymous: f64,
}

impl Memory {
    pub(crate) fn of(process: u32) -> Self {
        let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
        Self {
            resident: mebibytes(&rollup, &["Rss:"]),
            proportional: mebibytes(&rollup, &["Pss:"]),
            private: mebibytes(&rollup, &["Private_Clean:", "Private_Dirty:"]),
            anonymous: mebibytes(&rollup, &["Anonymous:"]),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "residentMiB": self.resident,
            "proportionalMiB": self.proportional,
            "privateMiB": self.private,
            "anonymousMiB": self.anonymous,
        })
    }
}

/// The most that was resident at a time so far, in mebibytes.
pub(crate) fn peak(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    mebibytes(&status, &["VmHWM:"])
}

/// The sum of the lines that begin with one of these names, which `/proc` tells in kibibytes.
pub(crate) fn mebibytes(text: &str, names: &[&str]) -> f64 {
    let lines = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
    lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()).sum::<f64>() / 1024.0
}

/// Seconds of user and system time so far.
pub(crate) fn cpu(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name of the program may hold anything; what follows its last parenthesis is numbers.
    let numbers: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = numbers[11].parse::<f64>().unwrap() + numbers[12].parse::<f64>().unwrap();
    // Linux counts in hundredths of a second on every architecture Rust supports it on.
    ticks / 100.0
}

/// The sidecar's program: that of this build, or what `POSTERN_BENCH_BINARY` names, such as the static one of the
/// image. No variable of whoever measures reaches it.
pub(crate) fn postern() -> Command {
    let program = std::env::var_os("POSTERN_BENCH_BINARY").unwrap_or(env!("CARGO_BIN_EXE_postern").into());
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("POSTERN_") || text.starts_with("OTEL_") {
            command.env_remove(&name);
        }
    }
    command
}

/// A TCP address that nobody listens on.
pub(crate) fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
