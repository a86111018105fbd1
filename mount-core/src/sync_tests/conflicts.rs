//! Conflicts, as they are listed and shown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::SystemTime,
};

use cairnfs_store::sim::Call;

use super::{NO_CACHE, Peer, WRITE, comes, sync, two};
use crate::{
    ConflictKind, Keep, SetAttr, SetXattr, Setting, Time, TimeOrNow,
    slow_disk::{Gate, SlowDisk},
};

pub(super) fn chmod(peer: &Peer, path: &str, mode: u32) {
    let changes = SetAttr { mode: Some(mode), ..SetAttr::default() };
    peer.mount().setattr(peer.walk(path).unwrap(), None, changes).unwrap();
}

pub(super) fn mode(peer: &Peer, path: &str) -> u32 {
    peer.mount().getattr(peer.walk(path).unwrap()).unwrap().mode & 0o7777
}

fn mtime(peer: &Peer, path: &str) -> Time {
    peer.mount().getattr(peer.walk(path).unwrap()).unwrap().mtime
}

fn touch(peer: &Peer, time: TimeOrNow) {
    let changes = SetAttr { mtime: Some(time), ..SetAttr::default() };
    peer.mount().setattr(peer.walk("old").unwrap(), None, changes).unwrap();
}

fn set_xattr(peer: &Peer, path: &str, value: &[u8]) {
    let ino = peer.walk(path).unwrap();
    peer.mount().setxattr(ino, b"user.by", value, SetXattr::Any).unwrap();
}

fn xattr(peer: &Peer, path: &str) -> Vec<u8> {
    peer.mount().getxattr(peer.walk(path).unwrap(), b"user.by").unwrap()
}

#[test]
fn what_a_device_wrote_before_it_was_put_back_is_its_own_still() {
    let (a, mut b) = two();
    a.write("x", "a");
    b.write("x", "b");
    sync(&a, &b);
    let backup = b.backup();
    b.write("later", "1");
    sync(&a, &b);
    b.put_back(backup);
    b.write("other", "2");
    sync(&b, &a);
    // It has another name now, and is the same device.
    b.resolve(b"x", &Keep::Ours).unwrap();
    sync(&a, &b);
    assert_eq!(a.names("x"), ["x"]);
    assert!(a.tree().contains(&"x=b".to_owned()), "{:?}", a.tree());
}

#[test]
fn conflicts_are_listed_by_the_folder_that_they_are_in_and_not_by_one_beside_it() {
    let (a, b) = two();
    a.mkdir("notes");
    sync(&a, &b);
    a.write("notes/a", "a");
    b.write("notes/a", "b");
    sync(&a, &b);
    let at = |path: &str| a.mount().conflicts(Some(path.as_bytes())).unwrap();
    let copy = String::from_utf8(at("notes")[0].sides[1].path.clone()).unwrap();
    for (path, listed) in [
        ("", true),
        ("notes", true),
        ("notes/a", true),
        (&*copy, true),
        ("n", false),
        ("notes2", false),
        ("notes/a/b", false),
    ] {
        assert_eq!(at(path).len(), usize::from(listed), "{path}");
    }
}

#[test]
fn who_opens_something_does_not_wait_while_conflicts_are_listed() {
    let (mut a, b) = two();
    a.write("x", "a");
    b.write("x", "b");
    sync(&a, &b);
    let gate = Arc::new(Gate::default());
    let at = Arc::clone(&gate);
    a.restart_with(SlowDisk::new(&a.disk, "lister", Call::Read, move || at.pass()), NO_CACHE);
    let (mount, old) = (a.mount(), a.walk("old").unwrap());
    let listed: [&(dyn Fn() -> u64 + Sync); 2] =
        [&|| mount.conflicts(None).unwrap().len() as u64, &|| mount.status().conflicts.unwrap()];
    for list in listed {
        let is_open = AtomicBool::default();
        thread::scope(|scope| {
            let held = gate.hold();
            let lister = thread::Builder::new().name("lister".into()).spawn_scoped(scope, list);
            assert!(comes(|| gate.is_waited_for()), "nothing is read");
            scope.spawn(|| {
                mount.open(old, WRITE).unwrap();
                is_open.store(true, Ordering::SeqCst);
            });
            let is_free = comes(|| is_open.load(Ordering::SeqCst));
            drop(held);
            assert_eq!(lister.unwrap().join().unwrap(), 1);
            assert!(is_free, "whoever opens something waits for the disk");
        });
    }
}

#[test]
fn a_copy_that_is_written_to_is_saved_and_published_as_a_file_of_its_own() {
    let (a, b) = two();
    a.write("x", "a");
    b.write("x", "b");
    sync(&a, &b);
    let [_, copy] = a.names("x").try_into().unwrap();
    let before = a.mount().head();
    let ino = a.walk(&copy).unwrap();
    a.mount().setattr(ino, None, SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
    assert!(comes(|| a.mount().status().unsaved_changes == 0), "it is not saved");
    a.mount().peers_wait(true);
    assert!(comes(|| a.mount().head() != before), "it is not published");
    let (fetch, _) = b.fetch(&a, a.mount().head().unwrap()).unwrap();
    b.mount().merge_from(fetch).unwrap();
    assert!(b.mount().conflicts(None).unwrap().is_empty());
    assert!(b.tree().contains(&format!("{copy}=")), "{:?}", b.tree());
}

#[test]
fn a_copy_stays_one_until_something_about_it_is_changed() {
    let (a, b) = two();
    a.write("old", "a");
    b.write("old", "b");
    sync(&a, &b);
    let [name, copy] = a.names("old").try_into().unwrap();
    let (ino, fh) = a.open(&copy, WRITE);
    // As a recursive chmod and chown do it, the name first.
    chmod(&a, &name, 0o664);
    chmod(&a, &copy, 0o664);
    let is = a.mount().getattr(ino).unwrap();
    let same = SetAttr { uid: Some(is.uid), gid: Some(is.gid), ..SetAttr::default() };
    a.mount().setattr(ino, None, same).unwrap();
    assert_eq!([mode(&a, &name), mode(&a, &copy)], [0o664; 2]);
    assert_eq!(a.mount().conflicts(None).unwrap().len(), 1);
    a.write_to(ino, fh, 0, "c").unwrap();
    a.close(ino, fh);
    assert_eq!(a.mount().conflicts(None).unwrap(), []);
    sync(&a, &b);
    assert!(b.tree().contains(&format!("{copy}=c")), "{:?}", b.tree());
    assert_eq!(a.tree(), b.tree());
}

#[test]
fn a_version_that_lost_its_name_is_as_its_author_left_it() {
    let (a, b) = two();
    a.write("old", "a");
    chmod(&a, "old", 0o600);
    set_xattr(&a, "old", b"a");
    b.write("old", "b");
    chmod(&b, "old", 0o644);
    set_xattr(&b, "old", b"b");
    let left =
        [(0o600, mtime(&a, "old"), xattr(&a, "old")), (0o644, mtime(&b, "old"), xattr(&b, "old"))];
    sync(&a, &b);
    let names = a.names("old");
    let version =
        |peer: &Peer, name: &str| (mode(peer, name), mtime(peer, name), xattr(peer, name));
    let [shown, lost] = [0, 1].map(|at| version(&a, &names[at]));
    assert!([[shown.clone(), lost.clone()], [lost.clone(), shown.clone()]].contains(&left));
    assert_eq!([0, 1].map(|at| version(&b, &names[at])), [shown.clone(), lost.clone()]);
    let found = a.mount().conflicts(None).unwrap();
    assert_eq!(found.len(), 1, "what came with a version is no conflict of its own: {found:?}");
    let times: Vec<_> = found[0].sides.iter().map(|side| side.time).collect();
    assert_eq!(times, [shown.1.into(), lost.1.into()]);
    // A file of its own by a change of its attributes, and the other as it was.
    chmod(&a, &names[1], 0o640);
    sync(&a, &b);
    assert_eq!(version(&b, &names[0]), shown);
    assert_eq!(version(&b, &names[1]), (0o640, lost.1, lost.2));
    assert_eq!(b.mount().conflicts(None).unwrap(), []);
}

#[test]
fn what_is_written_to_the_name_changes_no_time_of_the_version_that_lost_it() {
    let (a, b) = two();
    a.write("old", "a");
    b.write("old", "b");
    sync(&a, &b);
    let [_, lost] = a.names("old").try_into().unwrap();
    let time = mtime(&a, &lost);
    for text in ["more", "more", "and more"] {
        for peer in [&a, &b] {
            let before = mtime(peer, "old");
            peer.write("old", text);
            sync(&a, &b);
            assert_eq!((mtime(&a, &lost), mtime(&b, &lost)), (time, time));
            assert!(mtime(&a, "old") > before && mtime(&b, "old") > before);
        }
    }
}

/// As an editor saves whose temporary file a version has seen.
fn save_slowly(peer: &Peer, path: &str, text: &str) {
    peer.write("temp", text);
    peer.mount().publish().unwrap();
    peer.rename("temp", path);
}

#[test]
fn a_save_by_rename_is_an_edit_of_the_file_though_a_version_has_seen_the_temporary_one() {
    let (mut a, b) = two();
    save_slowly(&a, "old", "a");
    b.write("old", "b");
    sync(&a, &b);
    let found = a.mount().conflicts(None).unwrap();
    assert_eq!((found.len(), found[0].kind), (1, ConflictKind::Content), "it is another file");
    for round in 1..4 {
        save_slowly(&a, "old", &format!("a{round}"));
        save_slowly(&b, "old", &format!("b{round}"));
        sync(&a, &b);
        let found = a.mount().conflicts(None).unwrap();
        let names = a.names("old");
        assert_eq!((found.len(), found[0].sides.len()), (1, names.len()), "{names:?}");
        assert!(names.len() > round, "a version was lost: {names:?}");
    }
    save_slowly(&a, "old", "last");
    let (ino, fh) = a.open("old", WRITE);
    a.flush(ino, fh).unwrap();
    let tree = a.tree();
    a.restart(false);
    assert_eq!(a.tree(), tree);
    assert!(tree.contains(&"old=last".to_owned()), "{tree:?}");
    sync(&a, &b);
}

#[test]
fn what_another_device_knows_is_no_temporary_file() {
    let (a, b) = two();
    a.write("mine", "a");
    b.write("theirs", "b");
    sync(&a, &b);
    for name in ["mine", "theirs"] {
        a.rename(name, "old");
        b.write(name, "goes with it");
        sync(&a, &b);
        let tree = a.tree();
        let [old, gone] = ["old", name].map(|name| format!("{name}=goes with it"));
        assert!(tree.contains(&old) && !tree.contains(&gone), "{tree:?}");
    }
}

#[test]
fn a_save_by_rename_changes_no_time_of_the_versions_that_lost_the_name() {
    let (a, b) = two();
    a.write("old", "a");
    b.write("old", "b");
    sync(&a, &b);
    for (round, peer) in [&a, &b, &a].into_iter().enumerate() {
        let names = a.names("old");
        let times = |peer: &Peer| names[1..].iter().map(|name| mtime(peer, name)).collect();
        let before: Vec<Time> = times(&a);
        peer.write("temp", &format!("more {round}"));
        peer.rename("temp", "old");
        assert_eq!(times(peer), before);
        sync(&a, &b);
        assert_eq!((times(&a), times(&b)), (before.clone(), before));
        // One more, of which each wrote one.
        a.write("old", &format!("a{round}"));
        b.write("old", &format!("b{round}"));
        sync(&a, &b);
    }
}

#[test]
fn an_edit_here_and_a_touch_there_are_no_conflict_and_nor_are_two_touches() {
    let past = TimeOrNow::At(Time { seconds: 1_000_000, nanos: 0 });
    let (a, b) = two();
    touch(&a, past);
    sync(&a, &b);
    for time in [TimeOrNow::Now, TimeOrNow::At(Time { seconds: 2_000_000, nanos: 0 })] {
        a.write("old", "edited");
        touch(&b, time);
        sync(&a, &b);
        assert_eq!(a.mount().conflicts(None).unwrap(), []);
        touch(&b, past);
        sync(&a, &b);
    }
    // As git does with an object that it has already.
    touch(&a, TimeOrNow::Now);
    touch(&b, TimeOrNow::Now);
    sync(&a, &b);
    assert_eq!(a.mount().conflicts(None).unwrap(), []);
    touch(&a, past);
    touch(&b, TimeOrNow::At(Time { seconds: 3_000_000, nanos: 0 }));
    sync(&a, &b);
    assert_eq!(a.mount().conflicts(None).unwrap().len(), 1, "two times that were chosen");
}

#[test]
fn both_sides_of_two_renames_and_of_two_modes_are_told() {
    let (a, b) = two();
    a.write("other", "0");
    sync(&a, &b);
    let start = SystemTime::now();
    a.rename("old", "ours");
    b.rename("old", "theirs");
    chmod(&a, "other", 0o600);
    chmod(&b, "other", 0o640);
    sync(&a, &b);
    for (peer, other) in [(&a, &b), (&b, &a)] {
        let found = peer.mount().conflicts(None).unwrap();
        let told: Vec<_> = found.iter().flat_map(|one| &one.settings).collect();
        let by = |ours: bool| -> Vec<_> {
            let of = told.iter().filter(|it| it.author.ours == ours);
            of.map(|it| it.what.clone()).collect()
        };
        let mut sides = [
            vec![Setting::Path(b"ours".to_vec()), Setting::Mode(0o600)],
            vec![Setting::Path(b"theirs".to_vec()), Setting::Mode(0o640)],
        ];
        if std::ptr::eq(peer, &raw const b) {
            sides.reverse();
        }
        let mut told_by = [by(true), by(false)];
        told_by.iter_mut().for_each(|side| side.sort_by_key(|it| matches!(it, Setting::Mode(_))));
        assert_eq!(told_by, sides);
        let now = SystemTime::now();
        assert!(told.iter().all(|it| it.time.is_some_and(|time| time >= start && time <= now)));
        for one in &found {
            let shown: Vec<_> = one.settings.iter().filter(|it| it.shown).collect();
            let [shown] = shown.as_slice() else { panic!("{one:?}") };
            match &shown.what {
                Setting::Path(path) => assert_eq!(*path, one.path),
                Setting::Mode(shown) => assert_eq!(*shown, mode(other, "other")),
                what => panic!("{what:?}"),
            }
        }
    }
}

#[test]
fn who_changed_what_another_removed_is_told_on_both_devices() {
    for a_removes in [true, false] {
        let (a, b) = two();
        let (removes, changes) = if a_removes { (&a, &b) } else { (&b, &a) };
        removes.unlink("old");
        changes.write("old", "1");
        sync(&a, &b);
        for (peer, ours) in [(removes, false), (changes, true)] {
            let [one] = peer.mount().conflicts(None).unwrap().try_into().unwrap();
            assert_eq!(one.kind, ConflictKind::DeleteModify);
            assert_eq!(one.sides.len(), 1);
            assert_eq!((one.sides[0].removed, one.sides[0].author.ours), (true, ours));
            assert_eq!(one.remover.map(|author| author.ours), Some(!ours));
        }
    }
}

#[test]
fn a_copy_of_what_once_was_a_copy_is_found_under_the_name_it_is_listed_with() {
    let (a, b) = two();
    a.write("old", "1");
    b.write("old", "2");
    sync(&a, &b);
    let [_, copy] = a.names("old").try_into().unwrap();
    // A file of its own from here on, and its copies still called after `old`.
    a.write(&copy, "3");
    sync(&a, &b);
    a.write(&copy, "4");
    b.write(&copy, "5");
    sync(&a, &b);
    for peer in [&a, &b] {
        let names = peer.names("old");
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[1..].iter().all(|name| name.len() == "old@12345678".len()), "{names:?}");
        assert!(names.iter().all(|name| peer.walk(name).is_ok()));
    }
}
