//! Older versions that are shown: their names, and what space may be taken from them.

use super::{
    Peer, comes,
    searching::{noise, two_with_a_past},
    sync, two,
};
use crate::{
    Attr, Error, Ino, Kind, Limits, PastItem, PastView, Result, Wanted, Which, peers::hex,
    random_load::Rng, slow_disk::SlowDisk,
};

impl Peer {
    fn show(&self, id: &[u8; 32]) -> Option<PastView> {
        self.mount().past(&Which::Id(hex(id))).unwrap().map(PastView::new)
    }

    /// All versions but the newest, as far as they are kept; the newest first.
    fn older(&self) -> Vec<PastView> {
        let versions = self.mount().log(None, usize::MAX, 0).unwrap();
        versions.iter().skip(1).filter_map(|version| self.show(&version.id)).collect()
    }

    /// Has it give up what nothing refers to.
    #[track_caller]
    fn gives_space(&self) {
        let before = self.disk.used_bytes();
        assert!(comes(|| {
            // Either there is room at once, or what it waits for makes some.
            let _either = self.look_for_space().is_ok();
            self.disk.used_bytes() + (1 << 20) < before
        }));
    }

    /// The version that holds the file `lost`, but not yet `more`.
    fn with_lost(&self) -> PastView {
        let mut older = self.older().into_iter();
        older.find(|view| has(view, "lost") && !has(view, "more")).unwrap()
    }
}

fn has(view: &PastView, name: &str) -> bool {
    view.lookup(Ino::ROOT, name.as_bytes()).is_ok()
}

fn read(view: &PastView, name: &str) -> Result<String> {
    let attr = view.lookup(Ino::ROOT, name.as_bytes())?;
    let fh = view.open(attr.ino)?;
    let bytes = view.read(fh, 0, u32::try_from(attr.size).unwrap());
    view.release(fh);
    Ok(String::from_utf8(bytes?).unwrap())
}

/// What is listed of the root, but for the numbers.
fn listed(view: &PastView) -> Vec<(Vec<u8>, Attr)> {
    let (mut found, fh) = (Vec::new(), view.opendir(Ino::ROOT).unwrap());
    let take = &mut |entry: crate::DirEntry| {
        found.push((entry.name, Attr { ino: Ino(0), ..entry.attr.unwrap() }));
        true
    };
    view.readdir(Ino::ROOT, fh, 2, true, take).unwrap();
    found
}

#[test]
fn a_version_is_shown_under_the_names_and_numbers_of_the_live_tree() {
    let (a, b) = two();
    a.mkdir("both");
    b.mkdir("both");
    a.write("both/a", "from a");
    b.write("both/b", "from b");
    a.write("contested", "ours");
    b.write("contested", "theirs!");
    a.write("plain", "as ever");
    sync(&a, &b);
    let view = a.show(&a.mount().publish().unwrap()).unwrap();
    let mut live = Vec::new();
    let fh = a.mount().opendir(Ino::ROOT).unwrap();
    let take = &mut |entry: crate::DirEntry| {
        live.push((entry.name, Attr { ino: Ino(0), ..entry.attr.unwrap() }));
        true
    };
    a.mount().readdir(Ino::ROOT, fh, 2, true, take).unwrap();
    assert_eq!(listed(&view), live);
    let copies = a.names("contested");
    assert_eq!(copies.len(), 2, "{copies:?}");
    for name in &copies {
        let (_, fh) = a.open(name, super::READ);
        assert_eq!(read(&view, name).unwrap(), a.read_from(fh));
    }
    let plain = view.lookup(Ino::ROOT, b"plain").unwrap().ino;
    assert_eq!(plain, a.walk("plain").unwrap());
    let both = view.lookup(Ino::ROOT, b"both").unwrap();
    assert_eq!((both.kind, both.nlink), (Kind::Dir, 2));
    for (name, content) in [("a", 6), ("b", 6)] {
        assert_eq!(view.lookup(both.ino, name.as_bytes()).unwrap().size, content);
    }

    // It stays so when the conflict is settled, and its copies keep their numbers.
    let before = view.lookup(Ino::ROOT, copies[1].as_bytes()).unwrap();
    a.unlink(&copies[1]);
    a.unlink("plain");
    a.mount().publish().unwrap();
    assert_eq!(listed(&view), live);
    assert_eq!(view.lookup(Ino::ROOT, copies[1].as_bytes()).unwrap(), before);
    assert_eq!(view.getattr(before.ino).unwrap(), before);
    // What the kernel has forgotten has no number any more.
    view.forget(before.ino, u64::MAX);
    assert!(matches!(view.getattr(before.ino), Err(Error::Stale)));
}

#[test]
fn a_copy_that_becomes_a_file_while_its_directory_is_listed_is_listed_once() {
    let (a, b) = two();
    a.write("x", "a");
    b.write("x", "b");
    b.pull(&a).unwrap();
    let copy = b.names("x@").pop().unwrap();
    let fh = b.mount().opendir(Ino::ROOT).unwrap();
    let (mut names, mut next) = (Vec::new(), 2);
    for count in [1, 10] {
        let from = next;
        let mut take = |entry: crate::DirEntry| {
            let is_room = names.len() < count;
            if is_room {
                next = entry.next;
                names.push(String::from_utf8(entry.name).unwrap());
            }
            is_room
        };
        b.mount().readdir(Ino::ROOT, fh, from, false, &mut take).unwrap();
        b.write(&copy, "a file of its own");
    }
    names.sort();
    assert_eq!(names, ["old".to_owned(), "x".to_owned(), copy]);
}

#[test]
fn what_a_shown_version_holds_stays_and_what_only_others_hold_is_given_up() {
    let (mut a, _b, lost) = two_with_a_past();
    a.restart_without_cache();
    let view = a.with_lost();
    let root = {
        let (pinned, _) = a.mount().shared().pins.all();
        assert_eq!(pinned.len(), 1, "the others were let go");
        pinned[0].tree.root.0.unwrap().id
    };
    let is_here = || a.mount().shared().vault.blobs().contains(&root).unwrap();
    a.gives_space();
    assert!(is_here());
    assert_eq!(read(&view, "lost").unwrap(), lost);
    // It goes when nobody looks at it any more.
    view.end();
    assert!(comes(|| {
        let _either = a.look_for_space().is_ok();
        !is_here()
    }));
}

#[test]
fn a_version_that_is_shown_while_space_is_looked_for_stays() {
    let (mut a, _b, lost) = two_with_a_past();
    let (slow, gate) = SlowDisk::for_search(&a.disk);
    a.restart_with(slow, Limits { cache_bytes: 0, ..Limits::default() });
    let held = gate.hold();
    assert!(matches!(a.look_for_space(), Err(Error::NoSpace)));
    assert!(comes(|| gate.is_waited_for()), "no space is looked for");
    let before = a.disk.used_bytes();
    let view = a.with_lost();
    assert!(gate.is_waited_for(), "the search is over");
    drop(held);
    assert!(comes(|| a.disk.used_bytes() + (1 << 20) < before), "nothing is given up");
    assert_eq!(read(&view, "lost").unwrap(), lost);
}

#[test]
fn a_shown_version_of_which_a_part_is_gone_does_not_keep_the_rest_from_being_given_up() {
    let (mut a, _b) = two();
    let mut rng = Rng(11);
    a.disk.set_capacity_bytes(32 << 20);
    a.restart_without_cache();
    a.write("more", &noise(&mut rng, 4_000_000));
    // What is written around it keeps the version's own pack.
    a.write("kept", &noise(&mut rng, 900_000));
    let version = a.mount().publish().unwrap();
    a.write("also", &noise(&mut rng, 900_000));
    a.unlink("more");
    a.mount().publish().unwrap();
    a.gives_space();
    let view = a.show(&version).unwrap();
    assert!(matches!(read(&view, "more"), Err(Error::Damaged { .. })));
    let (_, fh) = a.open("kept", super::READ);
    assert_eq!(read(&view, "kept").unwrap(), a.read_from(fh), "what is whole can be read");
    let past = a.mount().past(&Which::Id(hex(&version))).unwrap().unwrap();
    let mut walked = Vec::new();
    let take = &mut |item: PastItem<'_>| {
        match item {
            PastItem::Entry(entry) => walked.push((entry.path.clone(), entry.is_here, 0)),
            PastItem::Bytes { bytes, .. } => walked.last_mut().unwrap().2 += bytes.len(),
        }
        true
    };
    let wanted = Wanted { contents: true, than: None };
    past.walk(b"kept", wanted, take).unwrap();
    past.walk(b"more", wanted, take).unwrap();
    assert_eq!(walked, [(b"kept".to_vec(), true, 900_000), (b"more".to_vec(), false, 0)]);
    assert!(!past.is_whole().unwrap());
    let log = a.mount().log(None, 9, 9).unwrap();
    let is_whole = |id: &[u8; 32]| log.iter().find(|it| it.id == *id).unwrap().is_whole;
    assert!(!is_whole(&version) && is_whole(&log[0].id), "{log:?}");
    a.write("again", &noise(&mut rng, 4_000_000));
    a.mount().publish().unwrap();
    a.unlink("again");
    a.mount().publish().unwrap();
    a.gives_space();
}

/// Else a restore would make a link to the wrong version of it.
#[test]
fn a_walk_tells_the_versions_of_a_file_with_several_names_apart() {
    let (a, b) = two();
    a.write("f", "base");
    a.mount().link(a.walk("f").unwrap(), Ino::ROOT, b"g").unwrap();
    sync(&a, &b);
    a.write("f", "from a");
    b.write("f", "from b");
    sync(&a, &b);
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let take = &mut |item: PastItem<'_>| {
        match item {
            PastItem::Entry(entry) => {
                let of =
                    |path: &Vec<u8>| found.iter().find(|(at, _)| at == path).unwrap().1.clone();
                let bytes = entry.same_as.as_ref().map_or_else(Vec::new, of);
                found.push((entry.path.clone(), bytes));
            }
            PastItem::Bytes { bytes, .. } => found.last_mut().unwrap().1.extend_from_slice(bytes),
        }
        true
    };
    let wanted = Wanted { contents: true, than: None };
    a.mount().newest().unwrap().walk(b"", wanted, take).unwrap();
    let walked = |line: &String| {
        let (path, text) = line.split_once('=')?;
        Some((path.as_bytes().to_vec(), text.as_bytes().to_vec()))
    };
    for file in a.tree().iter().filter_map(walked) {
        assert!(found.contains(&file), "{file:?} is not in {found:?}");
    }
}
