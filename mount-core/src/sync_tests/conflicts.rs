//! Conflicts, settled by hand and by strategies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use cairnfs_store::sim::Call;

use super::{NO_CACHE, WRITE, comes, sync, two};
use crate::{
    Error, Keep, MergeStep, Settings, Strategy,
    slow_disk::{Gate, SlowDisk},
};

#[test]
fn conflicts_are_settled_on_all_devices() {
    for (keep, expected) in
        [(Keep::Ours, vec!["x=a"]), (Keep::Theirs, vec!["x=b"]), (Keep::Shown, vec!["x=b"])]
    {
        let (a, b) = two();
        a.unlink("old");
        sync(&a, &b);
        a.write("x", "a");
        b.write("pad", "1");
        b.mount().publish().unwrap();
        b.unlink("pad");
        b.write("x", "b");
        sync(&a, &b);
        let found = a.mount().conflicts(Some(b"x")).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].sides.len(), 2, "{found:?}");
        assert_eq!(found[0].sides.iter().filter(|side| side.ours).count(), 1);
        a.mount().resolve(b"x", &keep).unwrap();
        sync(&a, &b);
        assert_eq!(b.tree(), expected, "{keep:?}");
        assert!(b.mount().conflicts(None).unwrap().is_empty());
    }
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
    b.mount().resolve(b"x", &Keep::Ours).unwrap();
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
        [&|| mount.conflicts(None).unwrap().len() as u64, &|| mount.status().conflicts];
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
fn keeping_both_makes_two_files_of_a_conflict() {
    let (a, b) = two();
    a.write("x", "a");
    b.write("x", "b");
    sync(&a, &b);
    let names = a.names("x");
    a.mount().resolve(names[1].as_bytes(), &Keep::Both).unwrap();
    sync(&a, &b);
    assert_eq!(b.names("x"), names);
    assert!(b.mount().conflicts(None).unwrap().is_empty());
    assert!(matches!(a.mount().resolve(b"x", &Keep::Both), Err(Error::NotFound)));
}

#[test]
fn a_copy_that_is_opened_for_writing_is_saved_and_published_as_a_file_of_its_own() {
    let (a, b) = two();
    a.write("x", "a");
    b.write("x", "b");
    sync(&a, &b);
    let [_, copy] = a.names("x").try_into().unwrap();
    let before = a.mount().head();
    a.open(&copy, WRITE);
    assert!(comes(|| a.mount().status().unsaved_changes == 0), "it is not saved");
    a.mount().peers_wait(true);
    assert!(comes(|| a.mount().head() != before), "it is not published");
    let (fetch, _) = b.fetch(&a, a.mount().head().unwrap()).unwrap();
    b.mount().merge_from(fetch).unwrap();
    assert!(b.mount().conflicts(None).unwrap().is_empty());
}

#[test]
fn keeping_both_of_a_file_and_a_folder_keeps_both() {
    let (a, b) = two();
    a.mkdir("m");
    a.write("m/notes", "0");
    sync(&a, &b);
    a.write("m/notes", "edit");
    b.unlink("m/notes");
    b.mkdir("m/notes");
    b.write("m/notes/a", "n");
    sync(&a, &b);
    let tree = a.tree();
    assert!(tree.contains(&"m/notes/a=n".to_owned()), "{tree:?}");
    a.mount().resolve(b"m/notes", &Keep::Both).unwrap();
    sync(&a, &b);
    assert_eq!(b.tree(), tree);
    assert!(b.mount().conflicts(None).unwrap().is_empty());
}

#[test]
fn the_strategy_travels_and_decides() {
    let (a, b) = two();
    let rules = vec![("*.txt".to_owned(), Strategy::MergeText)];
    let settings = Settings { strategy: Strategy::LastWriteWins, rules };
    assert!(matches!(b.mount().set_settings(settings.clone()), Err(Error::NotPermitted)));
    a.mount().set_settings(settings.clone()).unwrap();
    a.write("notes.txt", "one\ntwo\nthree\nfour\nfive\n");
    sync(&a, &b);
    assert_eq!(b.mount().settings(), settings);
    a.write("x", "a");
    a.write("notes.txt", "ONE\ntwo\nthree\nfour\nfive\n");
    b.write("x", "b");
    b.write("notes.txt", "one\ntwo\nthree\nfour\nFIVE\n");
    sync(&a, &b);
    let tree = a.tree();
    assert!(tree.contains(&"notes.txt=ONE\ntwo\nthree\nfour\nFIVE\n".to_owned()), "{tree:?}");
    assert_eq!(a.names("x").len(), 1, "{tree:?}");
    assert!(a.mount().conflicts(None).unwrap().is_empty());
}

#[test]
fn what_is_written_after_a_merge_that_settled_something_is_no_part_of_it() {
    let (a, b) = two();
    let settings = Settings { strategy: Strategy::LastWriteWins, rules: Vec::new() };
    a.mount().set_settings(settings).unwrap();
    a.write("x", "0");
    sync(&a, &b);
    // The clock here is far ahead of the one there.
    for n in 0..5 {
        a.write("pad", &n.to_string());
        a.mount().publish().unwrap();
    }
    a.write("x", "a");
    b.write("x", "b");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
    assert_eq!(b.pull(&a).unwrap(), MergeStep::FastForward);
    a.write("after", "1");
    sync(&a, &b);
    assert_eq!(b.tree(), ["after=1", "old=0", "pad=4", "x=a"]);
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
