//! What a merge costs, counted.

use super::{ME, two};
use crate::{Keep, MergeStep};

#[test]
fn what_a_merge_reads_does_not_grow_with_the_history() {
    let (a, b) = two();
    b.write("mine", "the last that was made here");
    a.pull(&b).unwrap();
    let reads = |n: usize| {
        a.write("theirs", &n.to_string());
        a.mount().publish().unwrap();
        let (fetch, _) = b.fetch(&a, a.mount().head().unwrap()).unwrap();
        let before = b.disk.counters().reads;
        assert_eq!(b.mount().merge_from(fetch).unwrap().step, MergeStep::FastForward);
        b.disk.counters().reads - before
    };
    let early = (0..10).map(reads).max().unwrap();
    let late = (10..200).map(reads).max().unwrap();
    assert!(late <= early + 20, "{early} reads at first, {late} after 200 versions");
}

/// Each name would cost what all of them cost, several times: this would not end.
#[test]
fn thousands_of_contested_names_in_one_directory_are_merged_found_and_settled() {
    const COUNT: usize = 3_000;
    let (a, b) = two();
    a.mkdir("n");
    b.pull(&a).unwrap();
    for (peer, target) in [(&a, "a"), (&b, "b")] {
        let dir = peer.walk("n").unwrap();
        for n in 0..COUNT {
            let name = format!("f{n}");
            peer.mount().symlink(ME, dir, name.as_bytes(), target.as_bytes()).unwrap();
        }
    }
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Merged);
    let dir = b.walk("n").unwrap();
    let fh = b.mount().opendir(dir).unwrap();
    let mut names = Vec::new();
    let mut take = |entry: crate::DirEntry| {
        names.push(entry.name);
        true
    };
    b.mount().readdir(dir, fh, 2, true, &mut take).unwrap();
    assert_eq!(names.len(), 2 * COUNT);
    for name in &names {
        b.mount().lookup(dir, name).unwrap();
    }
    assert_eq!(b.mount().conflicts(None).unwrap().len(), COUNT);
    for n in 0..COUNT {
        b.mount().resolve(format!("n/f{n}").as_bytes(), &Keep::Shown).unwrap();
    }
    assert!(b.mount().conflicts(None).unwrap().is_empty());
    assert_eq!(a.pull(&b).unwrap(), MergeStep::FastForward);
    assert!(a.mount().conflicts(None).unwrap().is_empty());
}
