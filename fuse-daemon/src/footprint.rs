//! What a daemon takes besides what it is told to: what the allocator keeps for later.

use std::{env, os::unix::process::CommandExt, process::Command};

/// How glibc's allocator is to deal with memory; it reads them when a program starts.
const SETTINGS: [(&str, &str); 3] = [
    // Each thread that allocates gets an arena of its own, up to eight for each core, and what one
    // has freed another cannot use: writing a large file took 97 MiB without a limit and 66 MiB with
    // two arenas (release build, 2 cores, 2026-11).
    ("MALLOC_ARENA_MAX", "2"),
    // What is free at the end of an arena goes back to the kernel beyond so much. Left alone, glibc
    // doubles it for each larger buffer that is given back, up to 64 MiB, and a mount's end gives
    // buffers of 16 MiB back.
    ("MALLOC_TRIM_THRESHOLD_", "4194304"),
    // To set one of the two stops both from growing, and those buffers must lie outside the arenas.
    ("MALLOC_MMAP_THRESHOLD_", "8388608"),
];

/// Makes this process one that is meant to run for long: starts the program again with an allocator
/// that keeps little, unless somebody has chosen what it does.
pub(crate) fn settle() {
    if SETTINGS.iter().all(|(name, _)| env::var_os(name).is_none())
        && let Ok(program) = env::current_exe()
    {
        let mut args = env::args_os();
        let name = args.next().unwrap_or_else(|| "cairnfs".into());
        // Returns only if it fails, and then this process does as well, with more memory.
        let err = Command::new(program).arg0(name).args(args).envs(SETTINGS).exec();
        log::warn!("allocator settled=no reason={err}");
    }
}
