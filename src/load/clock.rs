//! Waiting for a moment as exactly as the machine can: the timers of the runtime tick in milliseconds, which is longer
//! than most calls take.

use std::io;
use std::time::{Duration, Instant};

/// Waits for moments, one at a time.
pub(super) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: tokio::io::unix::AsyncFd<rustix::fd::OwnedFd>,
}

#[cfg(target_os = "linux")]
impl Alarm {
    /// Wants a runtime around it.
    pub(super) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; this descriptor is owned, so it stays open and its own"
        )]
        let timer = tokio::io::unix::AsyncFd::new(timer)?;
        Ok(Self { timer })
    }

    /// Comes back at that moment or soon after, never before.
    pub(super) async fn wait_until(&mut self, moment: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let it_value = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            let mut ready = self.timer.readable().await?;
            let mut rings = [0_u8; 8];
            let _none_yet = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut rings)?));
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// Wants a runtime around it.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Comes back at that moment or soon after, never before.
    pub(super) async fn wait_until(&mut self, moment: Instant) -> io::Result<()> {
        tokio::time::sleep_until(moment.into()).await;
        Ok(())
    }
}

/// What this thread has spent of the processor.
pub(super) fn thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}
