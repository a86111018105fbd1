//! What the saves since the last version amount to.

use std::{sync::Arc, time::Duration};

use cairnfs_store::{DeviceKey, sim::SimDisk};

use crate::{
    Ino, Kind, Limits, Mount, Options,
    random_load::{ME, bucket_on, fresh, save, write_all},
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
    const DIRTY: u64 = 1 << 20;
    const SAVED: u64 = 100_000;
    let (disk, device, _) = fresh(1);
    let mounted = mount(&disk, &device, DIRTY);
    let file = make(&mounted);
    for n in 0..100_u8 {
        write_all(&mounted, file, 0, &[n; SAVED as usize]).unwrap();
        save(&mounted).unwrap();
    }
    let bucket = bucket_on(Arc::new(disk.kill()), &device).unwrap();
    let journal: usize = bucket.saves.iter().map(Vec::len).sum();
    assert!(journal > 0, "nothing is told");
    assert!(journal as u64 <= DIRTY + 2 * SAVED, "10 MB saved, {journal} of them to be replayed");
}
