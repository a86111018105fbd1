//! What is written while a merge is made, and while a version is: it is saved, and published later.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use cairnfs_store::sim::Call;

use super::{WRITE, comes, sync, two};
use crate::{
    Limits,
    slow_disk::{Gate, SlowDisk},
};

#[test]
fn close_of_what_was_written_in_a_merge_waits_for_the_barrier_of_the_merge() {
    let (mut a, b) = two();
    let (gate, is_written) = (Arc::new(Gate::default()), Arc::new(AtomicBool::default()));
    let (at, pass_after) = (Arc::clone(&gate), Arc::clone(&is_written));
    let barrier = move || {
        if pass_after.load(Ordering::SeqCst) {
            at.pass();
        }
    };
    a.restart_with(SlowDisk::new(&a.disk, "writer", Call::Barrier, barrier), Limits::default());
    let (ino, fh) = a.open("old", WRITE);
    a.write("mine", "published before the merge");
    b.write("theirs", "merged");
    b.mount().publish().unwrap();
    let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
    a.once_published(move |mount| {
        mount.write(ino, fh, 0, b"in the merge", false, Box::new(|_| ()));
        is_written.store(true, Ordering::SeqCst);
    });
    thread::scope(|scope| {
        let held = gate.hold();
        let merge = scope.spawn(|| a.mount().merge_from(fetch));
        assert!(comes(|| gate.is_waited_for()), "no merge is written");
        let (tell, told) = crossbeam_channel::bounded(1);
        a.mount().flush(ino, fh, Box::new(move |result| tell.send(result).unwrap()));
        assert!(told.try_recv().is_err(), "close has returned before the barrier");
        drop(held);
        merge.join().unwrap().unwrap();
        told.recv().unwrap().unwrap();
    });
    a.restart(false);
    sync(&a, &b);
    assert_eq!(b.tree(), ["mine=published before the merge", "old=in the merge", "theirs=merged"]);
}
