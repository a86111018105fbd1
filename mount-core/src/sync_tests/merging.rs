//! What a merge makes of two trees, also while others write and when the power goes.

use cairnfs_store::sim;

use super::{ME, Peer, WRITE, sync, tell_secrets, two};
use crate::{Fh, Ino, MergeStep, Published, RenameMode, Role, Settings, Strategy};

#[test]
fn two_files_of_one_name_both_stand_and_survive_restarts() {
    let (mut a, mut b) = two();
    a.write("test.txt", "local content");
    b.write("test.txt", "remote content");
    sync(&a, &b);
    let names = a.names("test.txt");
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].starts_with("test.txt@") && names[1].len() == "test.txt@".len() + 8);
    let before = a.tree();
    assert!(before.iter().any(|line| line.ends_with("=local content")));
    assert!(before.iter().any(|line| line.ends_with("=remote content")));
    a.restart(true);
    b.restart(false);
    assert_eq!((a.tree(), b.tree()), (before.clone(), before));
    assert_eq!(a.mount().conflicts(None).unwrap(), {
        let mut theirs = b.mount().conflicts(None).unwrap();
        theirs
            .iter_mut()
            .flat_map(|it| &mut it.sides)
            .for_each(|side| side.author.ours = !side.author.ours);
        theirs
    });
    sync(&a, &b);
}

#[test]
fn edits_moves_and_removals_meet() {
    let (a, b) = two();
    a.mkdir("d");
    a.write("d/f", "1");
    a.write("gone", "x");
    sync(&a, &b);
    a.rename("d", "e");
    a.unlink("gone");
    b.write("d/f", "2");
    b.write("d/new", "3");
    sync(&a, &b);
    assert_eq!(a.tree(), ["e/", "e/f=2", "e/new=3", "old=0"]);
}

#[test]
fn unsaved_bytes_in_an_open_file_are_merged_and_not_lost() {
    let (a, b) = two();
    let (ino, fh) = a.open("old", WRITE);
    a.write_to(ino, fh, 0, "mine").unwrap();
    b.write("old", "theirs");
    a.pull(&b).unwrap();
    a.write_to(ino, fh, 4, " and more").unwrap();
    a.close(ino, fh);
    sync(&a, &b);
    let tree = a.tree();
    assert!(tree.iter().any(|line| line.ends_with("=mine and more")), "{tree:?}");
    assert!(tree.iter().any(|line| line.ends_with("=theirs")), "{tree:?}");
}

#[test]
fn a_chain_of_devices_agrees() {
    let (a, b) = two();
    let c = a.invite(Role::Writer);
    b.pull(&a).unwrap();
    a.write("x", "a");
    c.write("x", "c");
    for _ in 0..3 {
        b.pull(&a).unwrap();
        c.pull(&b).unwrap();
        b.pull(&c).unwrap();
        a.pull(&b).unwrap();
    }
    assert_eq!((a.tree(), b.tree()), (b.tree(), c.tree()));
    assert_eq!(a.names("x").len(), 2);
}

#[test]
fn merging_the_same_from_both_sides_needs_no_third_version() {
    let (a, b) = two();
    a.write("x", "a");
    b.write("x", "b");
    a.mount().publish().unwrap();
    b.mount().publish().unwrap();
    let (head_a, head_b) = (a.mount().head().unwrap(), b.mount().head().unwrap());
    let (for_a, for_b) = (a.fetch(&b, head_b).unwrap().0, b.fetch(&a, head_a).unwrap().0);
    assert_eq!(a.mount().merge_from(for_a).unwrap().step, MergeStep::Merged);
    assert_eq!(b.mount().merge_from(for_b).unwrap().step, MergeStep::Merged);
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Nothing, "what both know is equal");
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Nothing);
    assert_eq!(a.tree(), b.tree());
}

#[test]
fn what_is_open_on_a_device_put_back_to_an_older_state_goes_on() {
    let (mut a, b) = two();
    let backup = a.backup();
    a.write("one", "1");
    sync(&a, &b);
    a.put_back(backup);
    a.mkdir("dir");
    a.write("dir/two", "2");
    let (ino, fh) = a.open("dir/two", WRITE);
    let dir = a.walk("dir").unwrap();
    a.mount().publish().unwrap();
    // Neither in a version nor saved when the names change.
    let (tell, told) = crossbeam_channel::bounded(1);
    a.write("more", "3");
    let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
    write_in_merge(&a, ino, fh);
    a.mount().save(Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap().unwrap();
    assert_eq!(a.mount().merge_from(fetch).unwrap().step, MergeStep::Merged);
    assert_eq!(a.read_from(fh), "2 and more");
    assert_eq!((a.walk("dir/two").unwrap(), a.walk("dir").unwrap()), (ino, dir));
    a.write_to(ino, fh, 0, "4").unwrap();
    a.close(ino, fh);
    a.mount().mkdir(ME, dir, b"sub", 0o755).unwrap();
    sync(&a, &b);
    assert_eq!(b.tree(), ["dir/", "dir/sub/", "dir/two=4 and more", "more=3", "old=0", "one=1"]);
    a.restart(false);
    sync(&a, &b);
    assert_eq!(a.tree().len(), 6);
}

#[test]
fn who_joins_again_from_one_that_lacks_what_it_did_before_loses_nothing_of_that() {
    let (a, b) = two();
    let c = a.invite(Role::Writer);
    b.write("before", "1");
    c.pull(&b).unwrap();
    let b = b.join_again(&a);
    b.write("since", "2");
    sync(&a, &b);
    a.write("more", "3");
    sync(&a, &b);
    sync(&a, &c);
    sync(&a, &b);
    assert_eq!(b.tree(), ["before=1", "more=3", "old=0", "since=2"]);
}

#[test]
fn members_and_settings_of_a_device_put_back_to_an_older_state_are_kept() {
    let (mut a, b) = two();
    let c = a.invite(Role::Writer);
    let backup = a.backup();
    a.write("one", "1");
    sync(&a, &b);
    a.put_back(backup);
    a.mount().set_member(c.key.public(), "", None).unwrap();
    let settings = Settings { strategy: Strategy::LastWriteWins, rules: Vec::new() };
    a.mount().set_settings(settings.clone()).unwrap();
    tell_secrets(&a, &b);
    sync(&a, &b);
    for peer in [&a, &b] {
        assert!(peer.mount().members().iter().all(|member| member.key != c.key.public()));
        assert_eq!(peer.mount().settings(), settings);
    }
    assert_eq!(b.tree(), ["old=0", "one=1"]);
}

#[test]
fn changes_made_while_others_merge_are_kept() {
    let (a, b) = two();
    for n in 0..30 {
        b.write(&format!("b{n}"), "b");
    }
    b.mount().publish().unwrap();
    let head = b.mount().head().unwrap();
    let (fetch, _) = a.fetch(&b, head).unwrap();
    let writer = a.mount().clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..200 {
                let name = format!("a{n}");
                writer.mkdir(ME, Ino::ROOT, name.as_bytes(), 0o755).unwrap();
            }
        });
        a.mount().merge_from(fetch).unwrap();
    });
    sync(&a, &b);
    assert_eq!(b.tree().len(), 231);
}

#[test]
fn what_was_changed_is_known_to_be_in_no_version_until_it_is_published() {
    let (a, _b) = two();
    let is_published = || a.mount().published().holds_all;
    a.mount().publish().unwrap();
    assert!(is_published() && !a.mount().status().unpublished);
    a.write("f", "1");
    assert!(!is_published() && a.mount().status().unpublished);
    let head = a.mount().publish().unwrap();
    assert_eq!(a.mount().published(), Published { head: Some(head), holds_all: true });
    assert!(a.mount().time_of(&head).unwrap().is_some());
    assert_eq!(a.mount().time_of(&[7; 32]).unwrap(), None);
}

#[test]
fn a_device_put_back_to_an_older_state_loses_nothing() {
    let (a, mut b) = two();
    b.write("one", "1");
    b.mount().publish().unwrap();
    let backup = b.backup();
    b.write("two", "2");
    sync(&a, &b);
    b.put_back(backup);
    b.write("three", "3");
    b.mkdir("d");
    b.write("d/four", "4");
    b.write("old", "changed here");
    a.write("old", "changed there");
    // Its peer knows more of it than it does itself, and waits for it to put that right.
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Forgotten);
    sync(&b, &a);
    let tree = a.tree();
    for line in ["one=1", "two=2", "three=3", "d/four=4"] {
        assert!(tree.contains(&line.to_owned()), "{line} in {tree:?}");
    }
    assert_eq!(a.names("old").len(), 2, "{tree:?}");
    b.restart(false);
    b.write("five", "5");
    sync(&a, &b);
    assert_eq!(a.mount().conflicts(None).unwrap().len(), 1);
}

#[test]
fn a_power_cut_in_a_merge_loses_nothing_and_the_next_merge_completes() {
    let mut cut_in_merges = 0;
    for calls in 1..40 {
        let (mut a, b) = two();
        a.write("mine", "saved here");
        b.write("theirs", "made there");
        b.write("old", "changed there");
        a.write("both", "a");
        b.write("both", "b");
        b.mount().publish().unwrap();
        let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
        a.disk.inject(sim::Fault::PowerOff { after_calls: calls });
        let merged = a.mount().merge_from(fetch);
        cut_in_merges += u32::from(merged.is_err());
        a.restart(false);
        let tree = a.tree();
        assert!(tree.contains(&"mine=saved here".to_owned()), "cut after {calls}: {tree:?}");
        assert!(tree.iter().any(|line| line.starts_with("both") && line.ends_with("=a")));
        if merged.is_ok() {
            assert!(tree.contains(&"theirs=made there".to_owned()), "cut after {calls}: {tree:?}");
        }
        sync(&a, &b);
        let tree = b.tree();
        assert_eq!(tree.len(), 5, "cut after {calls}: {tree:?}");
        if merged.is_ok() {
            break;
        }
    }
    assert!(cut_in_merges >= 3, "{cut_in_merges} merges were cut");
}

/// Writes through an open handle in a merge, between its first step and the third.
fn write_in_merge(peer: &Peer, ino: Ino, fh: Fh) {
    peer.once_published(move |mount| {
        mount.write(ino, fh, 1, b" and more", false, Box::new(|_| ()));
    });
}

/// The power goes at each call from the merge on, in which a file is made and another one written to and
/// renamed; they are closed after it.
#[test]
fn a_power_cut_in_or_after_a_merge_takes_nothing_whose_close_has_returned() {
    let mut kept = 0;
    for calls in 1..100 {
        let (mut a, b) = two();
        a.write("f", "ours");
        // Of the two theirs is the newer one, and keeps the name.
        for text in ["theirs", "theirs, again", "theirs, and newer"] {
            b.write("f", text);
            b.mount().publish().unwrap();
        }
        let (ino, fh) = a.open("f", WRITE);
        let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
        let (tell, made) = crossbeam_channel::bounded(1);
        a.once_published(move |mount| {
            let (attr, new) = mount.create(ME, Ino::ROOT, b"new", 0o644, WRITE).unwrap();
            mount.write(attr.ino, new, 0, b"in the merge", false, Box::new(|_| ()));
            mount.write(ino, fh, 4, b" and more", false, Box::new(|_| ()));
            mount.rename(Ino::ROOT, b"f", Ino::ROOT, b"moved", RenameMode::Replace).unwrap();
            tell.send((attr.ino, new)).unwrap();
        });
        a.disk.inject(sim::Fault::PowerOff { after_calls: calls });
        let merged = a.mount().merge_from(fetch).is_ok();
        let new = made.try_recv().ok().filter(|_| merged);
        let new_is_closed = new.is_some_and(|(ino, new)| a.flush(ino, new).is_ok());
        let moved_is_closed = new.is_some() && a.flush(ino, fh).is_ok();
        let is_off = a.mount().mkdir(ME, Ino::ROOT, b"after", 0o755).is_err()
            || a.mount().publish().is_err();
        a.restart(false);
        let tree = a.tree();
        let has = |line: &str| tree.iter().any(|found| found == line);
        assert!(!new_is_closed || has("new=in the merge"), "cut after {calls}: {tree:?}");
        assert!(!moved_is_closed || has("moved=ours and more"), "cut after {calls}: {tree:?}");
        kept += u32::from(is_off && new_is_closed && moved_is_closed);
        if !is_off {
            assert!(new_is_closed && moved_is_closed, "not cut: {tree:?}");
            break;
        }
    }
    assert!(kept >= 2, "kept {kept} times");
}

#[test]
fn a_power_cut_leaves_what_was_written_in_a_merge_beside_what_it_brought() {
    let mut kept = 0;
    for calls in 1..60 {
        let (mut a, b) = two();
        let (ino, fh) = a.open("old", WRITE);
        a.write_to(ino, fh, 0, "1").unwrap();
        b.write("other", "later");
        b.mount().publish().unwrap();
        b.write("old", "changed there");
        b.mount().publish().unwrap();
        let (fetch, _) = a.fetch(&b, b.mount().head().unwrap()).unwrap();
        write_in_merge(&a, ino, fh);
        a.disk.inject(sim::Fault::PowerOff { after_calls: calls });
        let merged = a.mount().merge_from(fetch).is_ok();
        let after = a.mount().mkdir(ME, Ino::ROOT, b"after", 0o755);
        let is_off = after.is_err() || a.mount().publish().is_err();
        a.restart(false);
        sync(&a, &b);
        let tree = b.tree();
        let ends = |end: &str| tree.iter().any(|line| line.ends_with(end));
        assert!(ends("=changed there"), "cut after {calls}: {tree:?}");
        let is_kept = merged || ends("=1") || ends("more");
        let dirs = usize::from(ends("/"));
        assert_eq!(tree.len(), 2 + dirs + usize::from(is_kept), "cut after {calls}: {tree:?}");
        kept += u32::from(is_off && ends("=1 and more"));
        if !is_off {
            assert!(ends("=1 and more"), "not cut: {tree:?}");
            break;
        }
    }
    assert!(kept >= 2, "kept {kept} times");
}
