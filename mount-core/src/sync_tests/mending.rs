//! What is damaged on one device is there on another.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use super::{DIR, Peer, keys, start, sync, two};
use crate::Error;

/// What a check finds.
fn damage(peer: &Peer) -> Vec<String> {
    let mut damage = Vec::new();
    let mut found = |path: Option<&[u8]>, what: &str| {
        let path = path.map(|path| String::from_utf8_lossy(path).into_owned());
        damage.push(format!("{path:?} {what}"));
    };
    peer.mount().check(&mut |_, _| true, &mut found).unwrap();
    damage
}

/// How long the log in `pack` is. It is written ahead with zeros if there was a pause.
fn written_bits(peer: &Peer, pack: &Path) -> u64 {
    let bytes = peer.disk.content(pack).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 * 8
}

/// Two devices with the same files, two versions of each; the one that is to suffer has stopped.
fn filled() -> (Peer, Peer) {
    let (mut a, b) = two();
    for round in 0..2 {
        a.mkdir(&format!("d{round}"));
        for n in 0..40 {
            // Some lie in the tree, some in chunks of their own.
            a.write(&format!("d{round}/f{n}"), &n.to_string().repeat(20 + n * 100));
            a.write(&format!("g{n}"), &format!("{round}{n:0>3000}"));
        }
        sync(&a, &b);
    }
    a.mount().stop().unwrap();
    a.mount = None;
    (a, b)
}

#[test]
fn what_is_damaged_here_is_mended_from_another_device() {
    let (mut a, b) = filled();
    let (disk, whole) = (a.disk.clone(), b.tree());
    let pack = Path::new(DIR).join("packs/00000001.pack");
    let bits = disk.content(&pack).unwrap().len() as u64 * 8;
    let mut mended = 0;
    // How many places hold what a check misses depends on the keys; far fewer than these do for it.
    for n in (0..295).map(|n| 5 + n * 37 % 295) {
        if mended > 20 {
            break;
        }
        let rotten = disk.crash(1);
        // Behind the header of the pack, and before what is read anew at each opening.
        rotten.flip_bit(&pack, 88 * 8 + (bits / 2) / 300 * n);
        let Ok(mount) = start(&rotten, &a.key, keys()) else { continue };
        a.mount = Some(mount);
        let found = damage(&a);
        if !found.is_empty() {
            let mut fetch = a.mount().mend().unwrap();
            b.serve(&mut fetch).unwrap();
            let progress = fetch.progress();
            assert_eq!(progress.unavailable, 0, "{found:?}");
            assert_eq!(a.tree(), whole, "{found:?}");
            // A record whose header is lost goes with its pack.
            let left: Vec<_> =
                damage(&a).into_iter().filter(|it| !it.starts_with("None")).collect();
            assert!(left.is_empty(), "{found:?} left {left:?}");
            mended += progress.blobs;
            a.restart(false);
            assert_eq!(a.tree(), whole, "after a restart: {found:?}");
        }
        a.mount().stop().unwrap();
        a.mount = None;
    }
    assert!(mended > 20, "{mended}");
}

#[test]
fn damage_below_damage_is_mended_too() {
    let (mut a, b) = filled();
    let (disk, whole) = (a.disk.clone(), b.tree());
    let pack = Path::new(DIR).join("packs/00000001.pack");
    let bits = disk.content(&pack).unwrap().len() as u64 * 8;
    let mut mended = 0;
    for n in 0..20 {
        let rotten = disk.crash(1);
        a.start_on(rotten.clone());
        // It is open already: so whole paths of the tree may be hit, down from the newest version.
        for place in 0..200 {
            rotten.flip_bit(&pack, 88 * 8 + (bits - 88 * 8) / 200 * place + n * 37);
        }
        let mut fetch = a.mount().mend().unwrap();
        b.serve(&mut fetch).unwrap();
        let progress = fetch.progress();
        mended += progress.blobs;
        // Of the versions before it joined the other one has none.
        assert!(progress.unavailable <= 8, "places {n}: {progress:?}");
        let left = a.mount().mend().unwrap().wanted(1_000).unwrap().len() as u64;
        assert_eq!(left, progress.unavailable, "places {n}");
        assert_eq!(a.tree(), whole, "places {n}");
    }
    assert!(mended > 500, "{mended}");
}

#[test]
fn what_the_other_device_lacks_too_is_passed_over() {
    let (mut a, b) = filled();
    let pack = Path::new(DIR).join("packs/00000001.pack");
    a.disk.flip_bit(&pack, written_bits(&a, &pack) / 2);
    a.start_on(a.disk.clone());
    let mut fetch = a.mount().mend().unwrap();
    let mut lacking = 0;
    while !fetch.is_complete() {
        let wanted = fetch.wanted(16).unwrap();
        lacking += wanted.len() as u64;
        fetch.unavailable(&wanted).unwrap();
    }
    assert!(lacking > 0);
    assert_eq!(fetch.progress().unavailable, lacking);
    drop(fetch);
    let mut fetch = a.mount().mend().unwrap();
    b.serve(&mut fetch).unwrap();
    assert_eq!(fetch.progress().blobs, lacking);
}

/// A device that catches up gets the newest version only, and a list of those before it.
#[test]
fn what_older_versions_lack_here_is_not_taken_for_damage() {
    let (a, b) = two();
    for round in 0..3 {
        a.write("f", &round.to_string().repeat(3000));
        a.mount().publish().unwrap();
    }
    sync(&a, &b);
    let whole = || -> Vec<bool> {
        b.mount().log(None, 9, 9).unwrap().iter().map(|version| version.is_whole).collect()
    };
    assert_eq!(whole()[..3], [true, false, false]);
    assert!(damage(&b).is_empty());
    let mut fetch = b.mount().mend().unwrap();
    while !fetch.is_complete() {
        let wanted = fetch.wanted(16).unwrap();
        fetch.unavailable(&wanted).unwrap();
    }
    assert_eq!(fetch.progress().unavailable, 0, "nothing is damaged");
    drop(fetch);
    let mut fetch = b.mount().mend().unwrap();
    a.serve(&mut fetch).unwrap();
    let progress = fetch.progress();
    assert!(progress.absent > 0 && progress.absent == progress.blobs, "{progress:?}");
    assert_eq!(whole()[..3], [true, true, true]);
}

/// What is here of a version that is fetched, since the fetch before this one was cut off, has rotted.
#[test]
fn what_is_damaged_here_of_a_version_is_fetched_anew_and_not_blamed_on_the_peer() {
    let (mut a, b) = two();
    for n in 0..300 {
        b.write(&format!("file-{n}"), &format!("small {n}"));
    }
    b.mount().publish().unwrap();
    let head = b.mount().head().unwrap();
    let pack = Path::new(DIR).join("packs/00000001.pack");
    let begin = written_bits(&a, &pack);
    drop(a.fetch(&b, head).unwrap());
    // A save covers what came.
    a.write("own", "a");
    a.mount().stop().unwrap();
    a.mount = None;
    let disk = a.disk.clone();
    let end = written_bits(&a, &pack);
    let mut healed = 0;
    for n in 0..60 {
        let rotten = disk.crash(1);
        rotten.flip_bit(&pack, begin + (end - begin) / 60 * n);
        let Ok(mount) = start(&rotten, &a.key, keys()) else { continue };
        a.mount = Some(mount);
        match a.fetch(&b, head) {
            Ok((fetch, blobs)) => {
                healed += blobs;
                a.mount().merge_from(fetch).unwrap();
                assert_eq!(a.names("file-").len(), 300, "place {n}");
                assert_eq!(a.fetch(&b, head).unwrap().1, 0, "place {n}");
            }
            // Our own version is hit.
            Err(err) => assert!(err.is_damage(), "place {n}: {err}"),
        }
        a.mount().stop().unwrap();
        a.mount = None;
    }
    assert!(healed > 20, "{healed}");
}

#[test]
fn reading_everything_ends_when_nobody_wants_it_any_more() {
    let (mut a, _b) = filled();
    a.start_on(a.disk.clone());
    let mut fetch = a.mount().mend().unwrap();
    fetch.give_up_when(Arc::new(AtomicBool::new(true)));
    assert!(matches!(fetch.wanted(1_000), Err(Error::Stopped)));
}
