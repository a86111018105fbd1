//! Whoever changes names and attributes faster than they can be saved waits, and nobody else.

use std::{
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

use cairnfs_store::sim::Call;

use crate::{
    Done, Fallocate, Fh, FilePos, Ino, Kind, Mount, OpenFlags, RenameMode,
    random_load::{ME, fresh, mount_on, mount_publishing},
    slow_disk::{Gate, SlowDisk},
};

const HOUR: Duration = Duration::from_secs(3600);

fn make(mount: &Mount, n: u64) {
    mount.mknod(ME, Ino::ROOT, format!("f{n}").as_bytes(), Kind::File, 0o644, 0).unwrap();
}

fn move_on(mount: &Mount, n: u64) {
    let (from, to) = (format!("f{}", n - 1), format!("f{n}"));
    let replace = RenameMode::Replace;
    mount.rename(Ino::ROOT, from.as_bytes(), Ino::ROOT, to.as_bytes(), replace).unwrap();
}

/// As [`calls_in_a_barrier`], of a change that names the file of its number.
fn changes_in_a_barrier(change: impl Fn(&Mount, u64)) -> u64 {
    calls_in_a_barrier(|mount, n, done| {
        change(mount, n);
        mount.answer_when_room(move |_| done(Ok(())));
        n
    })
}

/// Has `call` made again and again while a barrier lasts, with a number that begins with 1 and what it
/// is to answer; it says the number of a file that is there then. Says how often it was called before
/// an answer was held back.
fn calls_in_a_barrier(call: impl Fn(&Mount, u64, Done) -> u64) -> u64 {
    let (disk, device, _) = fresh(1);
    let gate = Arc::new(Gate::default());
    let at = Arc::clone(&gate);
    let slow = SlowDisk::new(&disk, "writer", Call::Barrier, move || at.pass());
    let mount = mount_on(slow, &device, HOUR, HOUR).unwrap();
    make(&mount, 0);
    let held = gate.hold();
    mount.save(Box::new(|_| ()));
    while !gate.is_waited_for() {
        thread::yield_now();
    }
    let (tell, told) = mpsc::channel();
    let mut calls = 0;
    let last = loop {
        calls += 1;
        let tell = tell.clone();
        let file = call(&mount, calls, Box::new(move |result| tell.send(result).unwrap()));
        match told.try_recv() {
            Ok(result) => result.unwrap(),
            Err(_) => break format!("f{file}"),
        }
        assert!(calls < 10_000, "nothing ever waits");
    };
    let limit = mount.shared().options.limits.dirty_bytes;
    assert!(mount.shared().room.held_bytes() <= limit);
    mount.lookup(Ino::ROOT, last.as_bytes()).unwrap();
    assert!(told.try_recv().is_err(), "who reads has not let it go on");
    drop(held);
    // The writer makes a version, and with it room.
    told.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    assert!(!mount.shared().room.is_pressed());
    mount.stop().unwrap();
    // The bucket is let go with the last clone.
    drop(mount);
    let mount = mount_publishing(&disk, &device, HOUR, HOUR).unwrap();
    mount.lookup(Ino::ROOT, last.as_bytes()).unwrap();
    mount.stop().unwrap();
    calls
}

#[test]
fn who_makes_files_without_end_waits_for_the_barrier_when_memory_is_short() {
    // A mount that has 256 KiB, and a kilobyte for each.
    let made = changes_in_a_barrier(make);
    assert!((50..500).contains(&made), "{made} files");
}

#[test]
fn who_renames_one_file_without_end_waits_too() {
    let moved = changes_in_a_barrier(move_on);
    assert!((50..2_000).contains(&moved), "{moved} renames");
}

#[test]
fn who_zeroes_ranges_without_end_waits_too() {
    let handle = OnceLock::new();
    let zeroed = calls_in_a_barrier(|mount, n, done| {
        let (ino, fh) = *handle.get_or_init(|| open(mount));
        mount.fallocate(ino, fh, Fallocate::Zero { keep_size: false }, (n * 8_192, 4_096), done);
        0
    });
    assert!((50..5_000).contains(&zeroed), "{zeroed} ranges");
}

/// The thread of the kernel's that brought the call goes on: there are only a few.
#[test]
fn who_copies_without_end_waits_too_and_holds_no_thread_up() {
    let handle = OnceLock::new();
    let copied = calls_in_a_barrier(|mount, n, done| {
        let (ino, fh) = *handle.get_or_init(|| {
            let (ino, fh) = open(mount);
            mount.write(ino, fh, 0, &[1; 4_096], false, Box::new(|result| assert!(result.is_ok())));
            (ino, fh)
        });
        let [from, to] = [0, n * 8_192].map(|offset| FilePos { ino, fh, offset });
        mount.copy_range(from, to, 4_096, Box::new(move |result| done(result.map(drop))));
        0
    });
    assert!((10..100).contains(&copied), "{copied} copies");
}

fn open(mount: &Mount) -> (Ino, Fh) {
    let ino = mount.lookup(Ino::ROOT, b"f0").unwrap().ino;
    (ino, mount.open(ino, OpenFlags { write: true, ..OpenFlags::default() }).unwrap())
}

#[test]
fn who_waits_for_memory_is_answered_when_the_mount_ends() {
    let (disk, device, _) = fresh(1);
    let mount = mount_publishing(&disk, &device, HOUR, HOUR).unwrap();
    make(&mount, 0);
    mount.stop().unwrap();
    let (tell, told) = mpsc::channel();
    mount.answer_when_room(move |_| tell.send(()).unwrap());
    told.try_recv().unwrap();
}
