//! Space is looked for while others are fetched from.

use std::{io::ErrorKind, path::Path};

use cairnfs_store::{
    disk::Disk,
    sim::{Call, Fault},
};

use super::{DIR, ME, Peer, READ, WRITE, comes, sync, two};
use crate::{Error, Ino, Limits, MergeStep, Result, random_load::Rng, slow_disk::SlowDisk};

pub(super) fn noise(rng: &mut Rng, bytes: u64) -> String {
    rng.bytes(bytes).iter().map(|byte| char::from(b'!' + byte % 64)).collect()
}

/// Two devices. Only older versions hold what is in the first pack of the one that comes first,
/// a file of this noise among that.
pub(super) fn two_with_a_past() -> (Peer, Peer, String) {
    let mut rng = Rng(7);
    let (mut a, b) = two();
    // A disk that is asked at each write what it has left.
    a.disk.set_capacity_bytes(32 << 20);
    a.restart(true);
    let lost = noise(&mut rng, 200_000);
    a.write("lost", &lost);
    a.mount().publish().unwrap();
    a.write("more", &noise(&mut rng, 3_000_000));
    sync(&a, &b);
    a.unlink("lost");
    a.unlink("more");
    sync(&a, &b);
    (a, b, lost)
}

impl Peer {
    /// Has it look for space, as a write finds none; then there is enough. Says what came of that.
    pub(super) fn look_for_space(&self) -> Result<()> {
        self.disk.set_capacity_bytes(self.disk.used_bytes() + (1 << 20));
        let (attr, fh) = self.mount().create(ME, Ino::ROOT, b"refused", 0o644, WRITE).unwrap();
        let written = self.write_to(attr.ino, fh, 0, &"x".repeat(1 << 20));
        self.close(attr.ino, fh);
        self.disk.set_capacity_bytes(32 << 20);
        self.unlink("refused");
        written
    }

    /// Whether the pack that was begun first is still there.
    fn has_first_pack(&self) -> bool {
        let packs = self.disk.list(&Path::new(DIR).join("packs")).unwrap();
        packs.iter().any(|name| name == "00000001.pack")
    }
}

#[test]
fn a_merge_during_a_search_may_bring_back_what_only_an_old_version_holds() {
    let (mut a, b, lost) = two_with_a_past();
    let (slow, gate) = SlowDisk::for_search(&a.disk);
    a.restart_with(slow, Limits::default());
    let held = gate.hold();
    assert!(matches!(a.look_for_space(), Err(Error::NoSpace)));
    assert!(comes(|| gate.is_waited_for()), "no space is looked for");
    b.write("found", &lost);
    b.mount().publish().unwrap();
    let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
    let came = fetch.progress().bytes;
    assert!(came < 50_000, "{came} bytes came, although the content is here");
    assert_eq!(a.mount().merge_from(fetch).unwrap().step, MergeStep::Merged);
    assert!(gate.is_waited_for(), "the search is over");
    drop(held);
    assert!(comes(|| !a.has_first_pack()), "it is not given up");
    a.restart_without_cache();
    sync(&a, &b);
    assert_eq!(a.names("found"), ["found"]);
    let mut damage = Vec::new();
    a.mount()
        .check(&mut |_, _| true, &mut |path, what| damage.push(format!("{path:?} {what}")))
        .unwrap();
    assert!(damage.is_empty(), "{damage:?}");
}

#[test]
fn the_version_that_contents_were_carried_on_stays_until_the_next_one_is_made() {
    let (mut a, b) = two();
    let (ino, fh) = a.open("old", WRITE);
    b.write("theirs", "merged");
    b.mount().publish().unwrap();
    let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
    a.write("mine", "published before the merge");
    a.once_published(move |mount| {
        mount.write(ino, fh, 0, b"in the merge", false, Box::new(|_| ()));
    });
    a.mount().merge_from(fetch).unwrap();
    let carried_on = |a: &Peer| a.mount().shared().core.read().carried_on.as_ref().map(|it| it.id);
    let before = carried_on(&a).unwrap();
    assert!(a.mount().log(None, 10, 0).unwrap().iter().any(|version| version.id == before.0));
    assert_ne!(before.0, a.mount().status().head);
    a.restart(false);
    assert_eq!(carried_on(&a), Some(before), "the next opening after that needs it too");
    a.mount().publish().unwrap();
    assert_eq!(carried_on(&a), None);
    assert!(a.tree().contains(&"old=in the merge".to_owned()), "{:?}", a.tree());
}

#[test]
fn nothing_is_emptied_during_a_fetch_and_its_end_wakes_the_writer() {
    let (a, b, _) = two_with_a_past();
    let fetch = a.mount().fetch(b.mount().head().unwrap()).unwrap();
    // It waits for a second, which is more than enough to find what could be emptied.
    assert!(matches!(a.look_for_space(), Err(Error::NoSpace)));
    assert!(a.has_first_pack(), "it is given up");
    drop(fetch);
    assert!(comes(|| !a.has_first_pack()), "it is not given up");
}

#[test]
fn a_pack_that_cannot_be_removed_does_not_hide_that_its_blobs_are_gone() {
    let (a, ..) = two_with_a_past();
    let drops = a.mount().shared().drops();
    for nth in 1..=1_000 {
        a.disk.inject(Fault::Fail { call: Call::Remove, nth, kind: ErrorKind::Other });
    }
    // The write may find room all the same, as that of the pack is not all.
    let _either = a.look_for_space().is_ok();
    assert!(
        comes(|| a.mount().shared().drops() > drops),
        "a fetch would believe that they are here"
    );
    assert!(a.has_first_pack(), "it was removed");
}

#[test]
fn what_was_saved_last_stays_until_what_took_its_place_is_saved() {
    let mut rng = Rng(7);
    let (mut a, _) = two();
    a.disk.set_capacity_bytes(64 << 20);
    a.restart(true);
    let text = noise(&mut rng, 3_000_000);
    a.write("gone", &noise(&mut rng, 2_000_000));
    a.write("once", &text);
    a.mount().publish().unwrap();
    a.unlink("gone");
    a.unlink("once");
    a.mount().publish().unwrap();
    // Nothing of it is stored anew: an older version has it.
    a.write("again", &text);
    let (more, fh) = a.mount().create(ME, Ino::ROOT, b"more", 0o644, WRITE).unwrap();
    a.write_to(more.ino, fh, 0, &noise(&mut rng, 8_000_000)).unwrap();
    // Somebody else takes the rest of the disk, so that nothing is saved from here on.
    a.disk.set_capacity_bytes(a.disk.used_bytes() + (1 << 20));
    a.unlink("again");
    let refused = a.mount().create(ME, Ino::ROOT, b"refused", 0o644, WRITE);
    assert!(matches!(refused, Err(Error::NoSpace)), "{refused:?}");
    assert!(comes(|| !a.has_first_pack()), "no space is looked for");
    let after = a.disk.crash(7);
    after.set_capacity_bytes(64 << 20);
    a.mount().stop().ok();
    a.start_on(after);
    let (_, fh) = a.open("again", READ);
    let read = (0..3).map(|n| a.mount().read(fh, n << 20, 1 << 20));
    let read: Vec<Vec<u8>> = read.collect::<Result<_>>().unwrap();
    assert!(read.concat() == text.as_bytes());
}
