//! Any texts: merged the same in both orders, or not at all.

#![no_main]

use cairnfs_merge::text::merge_lines;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&[u8], &[u8], &[u8])| {
    let (base, a, b) = texts;
    assert_eq!(merge_lines(base, &[a, b]), merge_lines(base, &[b, a]));
    assert_eq!(merge_lines(base, &[a]).as_deref(), Some(a));
});
