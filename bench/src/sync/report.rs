//! Numbers as the tables have them.

use crate::sample::Spread;

/// How many times as much: without decimals where they say nothing.
pub(super) fn factor(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    if median < 100.0 { spread.to_string() } else { format!("{median:.0} ({min:.0}-{max:.0})") }
}

/// As a number to divide by or with.
#[allow(clippy::cast_precision_loss, reason = "bytes of a file are far below 2^52")]
pub(super) const fn count(bytes: u64) -> f64 {
    bytes as f64
}
