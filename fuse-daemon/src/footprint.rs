//! What a daemon takes besides what it is told to: threads that seal, and the allocator's arenas.

use std::{env, os::unix::process::CommandExt, process::Command};

/// Read by glibc's allocator when a program starts. Each thread that allocates gets an arena of its
/// own, up to eight for each core, and what one has freed another cannot use: writing a large file
/// took 97 MiB without a limit and 66 MiB with two arenas (release build, 2 cores, 2026-11).
const ARENAS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// Makes this process one that is meant to run for long: starts the program again with few arenas,
/// unless somebody has chosen their number, and names the threads that seal.
pub(crate) fn settle() {
    if env::var_os(ARENAS.0).is_none()
        && let Ok(program) = env::current_exe()
    {
        let mut args = env::args_os();
        let name = args.next().unwrap_or_else(|| "cairnfs".into());
        // Returns only if it fails, and then this process does as well, with more memory.
        let err = Command::new(program).arg0(name).args(args).env(ARENAS.0, ARENAS.1).exec();
        log::warn!("arenas not-limited reason={err}");
    }
    let pool = rayon::ThreadPoolBuilder::new().thread_name(|index| format!("seal-{index}"));
    if let Err(err) = pool.build_global() {
        log::warn!("pool reason={err}");
    }
}
