//! What the saves since the last version amount to.

use std::{path::Path, sync::Arc, time::Duration};

use cairnfs_store::{DeviceKey, sim::SimDisk};

use crate::{
    Ino, Kind, Limits, Mount, OpenFlags, Options,
    random_load::{ME, bucket_on, fresh, read_back, save, write_all},
};

const HOUR: Duration = Duration::from_secs(3600);

/// Mounted by somebody who publishes only if it must be.
fn mount(disk: &SimDisk, device: &Arc<DeviceKey>, dirty_bytes: u64) -> Mount {
    let limits = Limits { dirty_bytes, ..Limits::default() };
    let options = Options { limits, publish_quiet: HOUR, publish_max: HOUR, ..Options::default() };
    Mount::start(bucket_on(Arc::new(disk.clone()), device).unwrap(), options).unwrap()
}

fn make(mount: &Mount) -> Ino {
    mount.mknod(ME, Ino::ROOT, b"file", Kind::File, 0o644, 0).unwrap().ino
}

#[test]
fn who_opens_after_a_crash_holds_a_bounded_journal() {
    const DIRTY: usize = 1 << 20;
    const SAVED: usize = 100_000;
    let (mut disk, device, _) = fresh(1);
    let mounted = mount(&disk, &device, DIRTY as u64);
    make(&mounted);
    save(&mounted).unwrap();
    disk = disk.kill();
    // After a crash it does not begin anew.
    for saves in [100, 8, 8] {
        let mounted = mount(&disk, &device, DIRTY as u64);
        let file = mounted.lookup(Ino::ROOT, b"file").unwrap().ino;
        for n in 0..saves {
            write_all(&mounted, file, 0, &[n; SAVED]).unwrap();
            save(&mounted).unwrap();
        }
        disk = disk.kill();
        let bucket = bucket_on(Arc::new(disk.kill()), &device).unwrap();
        let journal: usize = bucket.saves.iter().map(Vec::len).sum();
        assert!(journal > 0, "nothing is told");
        assert!(journal <= DIRTY + 2 * SAVED, "{journal} bytes are to be replayed");
    }
}

#[test]
fn a_save_of_scattered_bytes_writes_what_was_written() {
    const PLACES: usize = 800;
    let (disk, device, mut rng) = fresh(2);
    let mounted = mount(&disk, &device, 64 << 20);
    let file = make(&mounted);
    let mut content = rng.bytes(16 << 20);
    write_all(&mounted, file, 0, &content).unwrap();
    mounted.publish().unwrap();
    for n in 0..PLACES {
        let data = rng.bytes(4096);
        content[n * 20_000..][..data.len()].copy_from_slice(&data);
        write_all(&mounted, file, n as u64 * 20_000, &data).unwrap();
    }
    let before = disk.counters().written_bytes;
    save(&mounted).unwrap();
    let written = disk.counters().written_bytes - before;
    assert!(written < 2 * 4096 * PLACES as u64, "{written} bytes written for {}", PLACES * 4096);

    let after = mount(&disk.kill(), &device, 64 << 20);
    let is_there = || read_back(&after).unwrap()[&b"file"[..]].as_ref() == Some(&content);
    assert!(is_there(), "after a crash");
    after.publish().unwrap();
    assert!(is_there(), "cut into chunks");
}

/// A file without a name is in no version, which would free its memory.
#[test]
fn a_file_without_a_name_holds_no_writer_up() {
    let (disk, device, _) = fresh(3);
    let mounted = mount(&disk, &device, 256 << 10);
    let file = make(&mounted);
    let fh = mounted.open(file, OpenFlags { write: true, ..OpenFlags::default() }).unwrap();
    mounted.unlink(Ino::ROOT, b"file").unwrap();
    for n in 0..10_000 {
        let (tell, told) = crossbeam_channel::bounded(1);
        let done = Box::new(move |result| drop(tell.send(result)));
        mounted.write(file, fh, n * 64, &[7], false, done);
        let written = told.recv_timeout(Duration::from_secs(30));
        assert!(matches!(written, Ok(Ok(1))), "byte {n}: {written:?}");
    }
    let read = mounted.read(fh, 0, 1 << 20).unwrap();
    assert!(read.iter().enumerate().all(|(at, byte)| *byte == if at % 64 == 0 { 7 } else { 0 }));
    assert_eq!(read.len(), 9_999 * 64 + 1);
}

/// It need not be saved, and must not keep others from it.
#[test]
fn a_damaged_file_without_a_name_keeps_nothing_from_being_saved() {
    let (disk, device, mut rng) = fresh(4);
    let mounted = mount(&disk, &device, 256 << 10);
    write_all(&mounted, make(&mounted), 0, &rng.bytes(2 << 20)).unwrap();
    mounted.stop().unwrap();
    drop(mounted);
    let pack = Path::new("/bucket/packs/00000004.pack");
    let bits = disk.content(pack).unwrap().len() as u64 * 8;
    (1..8).for_each(|part| disk.flip_bit(pack, bits * part / 8));

    let mounted = mount(&disk, &device, 256 << 10);
    let file = mounted.lookup(Ino::ROOT, b"file").unwrap().ino;
    let fh = mounted.open(file, OpenFlags { write: true, ..OpenFlags::default() }).unwrap();
    mounted.unlink(Ino::ROOT, b"file").unwrap();
    for n in 0..2_000 {
        mounted.write(file, fh, n * 1_000, &[7; 100], false, Box::new(|_| ()));
    }
    assert!(mounted.read(fh, 0, 2 << 20).is_err(), "it is not damaged");
    let other = mounted.mknod(ME, Ino::ROOT, b"other", Kind::File, 0o644, 0).unwrap().ino;
    write_all(&mounted, other, 0, b"x").unwrap();
    save(&mounted).unwrap();
}
