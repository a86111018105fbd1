//! Any bytes as a log: refused, or merged without a panic.

#![no_main]

use cairnfs_merge::{DeviceId, PathOpLog};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(log) = postcard::from_bytes::<PathOpLog<Vec<u8>>>(bytes) else { return };
    let mut own = PathOpLog::new(DeviceId([1; 16]));
    if own.merge(&log).is_ok() {
        assert_eq!(own.tree(), log.tree());
    }
});
