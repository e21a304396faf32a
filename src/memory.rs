//! How the C library's allocator is set up: what is freed is kept for the next batch, and handed back from time to time.
//!
//! A batch is built in columns that grow to many megabytes, handed to other threads, and freed there. As it comes, glibc maps
//! each large buffer alone and unmaps it when it is freed, so that the next batch has a page fault for each 4 KiB again: a
//! tenth of decoding. And it gives each thread an arena of its own, up to eight a core, and keeps in each what is freed below
//! something that still lives: after a large snapshot half a gigabyte, and more with every hour. So here buffers come from
//! few arenas that keep what was freed, and what nobody has taken by then goes back to the system twice a minute.
//!
//! jemalloc and mimalloc do the second by themselves, but decoding was 3 to 14 % slower with them: they grow a large buffer by
//! copying it. This is the only place that needs `unsafe` for it.

use std::time::Duration;

/// Time between two hand-backs. One takes milliseconds.
const PERIOD: Duration = Duration::from_secs(30);

/// Sets the allocator up; to be called before threads are started.
pub fn set_up() {
    allocator::set_up();
}

/// Hands memory back until the future is dropped.
pub async fn hand_back_regularly() {
    loop {
        tokio::time::sleep(PERIOD).await;
        if tokio::task::spawn_blocking(allocator::hand_back).await.is_err() {
            return;
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod allocator {
    #![allow(unsafe_code)]

    use libc::c_int;

    /// Arenas for each core: two threads rarely wait for one another.
    const ARENAS_A_CORE: usize = 2;
    /// Larger than any buffer of a batch: the largest batch has a gigabyte.
    const NEVER: c_int = 1 << 30;

    pub(super) fn set_up() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let arenas = c_int::try_from(ARENAS_A_CORE * cores).unwrap_or(c_int::MAX);
        for (setting, value) in
            [(libc::M_ARENA_MAX, arenas), (libc::M_MMAP_THRESHOLD, NEVER), (libc::M_TRIM_THRESHOLD, NEVER)]
        {
            // SAFETY: it sets a number, under the allocator's own lock. Where that is refused, all is as before.
            unsafe { libc::mallopt(setting, value) };
        }
    }

    pub(super) fn hand_back() {
        // SAFETY: it may be called at any time from any thread: it takes the lock of each arena, and touches free memory only.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Elsewhere the allocator is left alone.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod allocator {
    pub(super) fn set_up() {}

    pub(super) fn hand_back() {}
}
