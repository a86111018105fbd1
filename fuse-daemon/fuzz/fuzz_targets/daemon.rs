//! Every decoder of the program; the first byte says which.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((&which, bytes)) = bytes.split_first() {
        let _accepted: bool = cairnfs::decoders::decode(which, bytes);
    }
});
