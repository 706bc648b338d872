//! How much memory the process holds.
#![allow(unsafe_code, reason = "the C library's word to give freed memory back")]

/// Resident bytes of the process, from `/proc`; 0 where there is none.
pub(crate) fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}

/// Gives freed memory back to the system, so that [`resident`] counts what is held.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: takes a number, touches only the allocator's own free lists, and may be called at any time.
        unsafe { malloc_trim(0) };
    }
}
