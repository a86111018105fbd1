//! Any bytes as a state: refused, or joined and shown without a panic.

#![no_main]

use cairnfs_merge::{Indexed, State, View, conflicts, join, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(state) = postcard::from_bytes::<State<Vec<u8>>>(bytes) else { return };
    if verify::state(&state).is_ok() {
        assert_eq!(join(&state, &state), state);
        let tree = Indexed::new(state);
        let view = View::new(&tree);
        let (Ok(_), Ok(_)) = (view.render(), conflicts(&view));
    }
});
