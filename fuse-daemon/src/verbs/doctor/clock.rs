//! Does the clock make sense? Versions bear its time, and people compare them.

use std::{env, fs, time::SystemTime};

use super::Finding;
use crate::when;

/// The clock, against a file that cannot be younger than now: this program's own.
pub(super) fn now() -> Finding {
    let now = SystemTime::now();
    let program = env::current_exe().and_then(fs::metadata).and_then(|meta| meta.modified());
    match program {
        Ok(built) if built > now => Finding::doubtful(
            format_args!(
                "clock: {}, which is before this program was installed ({})",
                when::local(now),
                when::local(built)
            ),
            "set it, and keep it right: 'timedatectl set-ntp true'",
        ),
        _ => Finding::good(format_args!("clock: {}", when::local(now))),
    }
}
