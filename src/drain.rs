//! The end of the process in order: a first signal starts the drain, a second one ends everything at once.
//! A leaf: imports nothing of the crate.
//!
//! ```text
//! SIGTERM ─▶ not ready, health NOT_SERVING ─▶ delay ─▶ GOAWAY ─▶ up to the grace ─▶ cut ─▶ records, traces flushed ─▶ exit 0
//!   └── a second SIGTERM or SIGINT at any point ─▶ exit 128 + its number
//! ```

use std::io;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// What follows the first signal within this is the same order: `timeout` and terminals signal a process and then
/// its whole group, and a wrapper passes on what the process got already.
const SAME_ORDER: Duration = Duration::from_millis(250);

/// How long each part of the drain may take. The sum stays below the grace period of whoever sends SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// Serving goes on for this long after readiness and health turned.
    pub delay: Duration,
    /// What is open after this is cut.
    pub grace: Duration,
}

/// Tells servers and streams that the drain has come to them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Drain(CancellationToken);

/// The first SIGTERM or SIGINT; the second never gets here.
#[derive(Debug)]
pub struct Signals(watch::Receiver<bool>);

// === impls ===

impl Drain {
    /// Not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts it.
    pub fn start(&self) {
        self.0.cancel();
    }

    /// Whether it was started.
    pub fn has_started(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the start.
    pub fn started(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.clone().cancelled_owned()
    }
}

impl Signals {
    /// Catches SIGTERM and SIGINT from now on. The watcher lives on the given runtime: not the serving one, so
    /// that a second signal works even when that one is stuck.
    pub fn install(on: &Handle) -> io::Result<Self> {
        let _context = on.enter();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (send, receive) = watch::channel(false);
        on.spawn(async move {
            let first = next(&mut terminate, &mut interrupt).await;
            tracing::info!(signal = first, "draining; a second signal ends the process at once");
            send.send_replace(true);
            let same = Instant::now() + SAME_ORDER;
            while timeout_at(same, next(&mut terminate, &mut interrupt)).await.is_ok() {}
            let second = next(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal = second, "second signal: not waiting for what is open");
            // Nothing is left to save: an exit without destructors is what was asked for.
            std::process::exit(exit_code(second));
        });
        Ok(Self(receive))
    }

    /// Waits for the first signal.
    pub async fn first(mut self) {
        if self.0.wait_for(|seen| *seen).await.is_err() {
            // The runtime of the watcher is gone, and with it whoever could want a drain.
            std::future::pending::<()>().await;
        }
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// 128 and the number of the signal, as a shell reports it: 143 for SIGTERM, 130 for SIGINT.
fn exit_code(signal: &str) -> i32 {
    if signal == "SIGTERM" { 143 } else { 130 }
}
