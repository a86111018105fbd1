//! Every decoder of the store; the first byte says which. Run, on a stable toolchain, with
//! `cargo fuzz run -s none decoders`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((&which, bytes)) = bytes.split_first() {
        let _accepted: bool = cairnfs_store::decoders::decode(which, bytes);
    }
});
