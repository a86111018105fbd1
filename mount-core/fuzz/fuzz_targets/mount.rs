//! Every decoder of the file system; the first byte says which.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((&which, bytes)) = bytes.split_first() {
        let _accepted: bool = cairnfs_mount_core::decoders::decode(which, bytes);
    }
});
