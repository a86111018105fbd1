//! Peers that are slow, by nature or by will, and others that have something too.

use std::sync::atomic::AtomicUsize;

use super::{
    hostile::{Scene, next_ask, offer},
    *,
};
use crate::net::{
    fake::name_of,
    message::{Answer, Ask, Say},
    session::Opened,
};

/// How long it takes the slow member to give one blob.
const PACE: Duration = Duration::from_millis(100);

fn items(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|n| n.to_le_bytes().repeat(50)).collect()
}

/// Gives what `bucket` has, one blob at a time; counts them. Ends when nobody takes them any more.
fn trickle(mut opened: Opened, bucket: &FakeBucket, given: &AtomicUsize) {
    loop {
        let Ok(say) = opened.receive(1 << 20, Instant::now() + PATIENCE) else { return };
        let Say::Ask { request, ask, .. } = say else { continue };
        let ids = match ask {
            Ask::Ancestry { .. } => Vec::new(),
            Ask::Blobs(ids) => ids,
            Ask::Secrets(_) => panic!("no secret is lacking"),
        };
        if ids.is_empty() && opened.send(&Say::Answer { request, answer: Answer::Refused }).is_err()
        {
            return;
        }
        for (left, id) in (0..ids.len()).rev().zip(&ids) {
            let blobs = vec![bucket.sealed(id).unwrap().unwrap().into()];
            let answer = Answer::Blobs { blobs, missing: vec![], more: left > 0 };
            if opened.send(&Say::Answer { request, answer }).is_err() {
                return;
            }
            given.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PACE);
        }
    }
}

/// Has the hostile member offer what `theirs` has, and trickle what it is asked for, which is counted.
/// By itself the trickle lasts longer than any patience.
fn with_trickle(scene: &Scene, theirs: &FakeBucket, meanwhile: impl FnOnce(&AtomicUsize)) {
    let opened = scene.admitted();
    opened.send(&offer(scene, &opened)).unwrap();
    opened.send(&Say::Head { bucket: 5, version: theirs.head().unwrap() }).unwrap();
    let given = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _end = EndOfTrickle(&scene.peers[0]);
        scope.spawn(|| trickle(opened, theirs, &given));
        meanwhile(&given);
    });
}

/// The same; `meanwhile` goes on once some has come.
fn while_trickling(scene: &Scene, theirs: &FakeBucket, meanwhile: impl FnOnce()) {
    with_trickle(scene, theirs, |given| {
        eventually("it trickles", || given.load(Ordering::Relaxed) > 3);
        meanwhile();
        let before = given.load(Ordering::Relaxed);
        eventually("it goes on", || given.load(Ordering::Relaxed) > before + 3);
        assert_eq!(scene.error_of_hostile(), "");
    });
}

/// Ends the connection, and so the thread that trickles, also if the test has failed.
struct EndOfTrickle<'a>(&'a Peer);

impl Drop for EndOfTrickle<'_> {
    fn drop(&mut self) {
        self.0.net.stop();
    }
}

/// Merges that do not end as long as this is there, so that they do also if the test has failed.
struct HeldMerges<'a>(&'a FakeBucket);

impl<'a> HeldMerges<'a> {
    fn of(bucket: &'a FakeBucket) -> Self {
        bucket.hold_merges(true);
        Self(bucket)
    }
}

impl Drop for HeldMerges<'_> {
    fn drop(&mut self) {
        self.0.hold_merges(false);
    }
}

/// Gives versions, and talks instead of giving the secrets that open them. Ends when nobody listens.
fn chatter(mut opened: Opened, bucket: &FakeBucket, words: &AtomicUsize) {
    loop {
        let (request, answer) = match next_ask(&mut opened) {
            (request, Ask::Ancestry { .. }) => (request, Answer::Refused),
            (request, Ask::Blobs(ids)) => {
                let blobs = ids.iter().map(|id| bucket.sealed(id).unwrap().unwrap().into());
                (request, Answer::Blobs { blobs: blobs.collect(), missing: vec![], more: false })
            }
            (_, Ask::Secrets(_)) => break,
        };
        if opened.send(&Say::Answer { request, answer }).is_err() {
            return;
        }
    }
    // More than enough bytes for a slow link.
    while opened.send(&Say::Ping).is_ok() {
        words.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn who_offers_a_bucket_again_while_it_is_asked_for_it_is_asked_anew() {
    let scene = Scene::new(true);
    let theirs = scene.buckets[0].copy_for(scene.hostile.key());
    let item = vec![7; 1000];
    theirs.add(&item);
    let mut opened = scene.admitted();
    let offered = offer(&scene, &opened);
    let head = Say::Head { bucket: 5, version: theirs.head().unwrap() };
    opened.send(&offered).unwrap();
    opened.send(&head).unwrap();
    // Which versions there are, and the newest one: it forgets both.
    next_ask(&mut opened);
    next_ask(&mut opened);
    scene.honest_go_on("and it stands back");
    opened.send(&Say::Withdraw { bucket: 5 }).unwrap();
    opened.send(&offered).unwrap();
    opened.send(&head).unwrap();
    let given = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _end = EndOfTrickle(&scene.peers[0]);
        scope.spawn(|| trickle(opened, &theirs, &given));
        eventually("its item arrives", || {
            assert_eq!(scene.error_of_hostile(), "");
            scene.buckets[0].has(&item)
        });
    });
}

#[test]
fn who_talks_instead_of_giving_a_secret_keeps_no_others_waiting() {
    let scene = Scene::impatient();
    let theirs = scene.buckets[0].copy_for(scene.hostile.key());
    theirs.rotate();
    let opened = scene.admitted();
    opened.send(&offer(&scene, &opened)).unwrap();
    opened.send(&Say::Head { bucket: 5, version: theirs.head().unwrap() }).unwrap();
    let words = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _end = EndOfTrickle(&scene.peers[0]);
        scope.spawn(|| chatter(opened, &theirs, &words));
        eventually("it talks", || words.load(Ordering::Relaxed) > 3);
        scene.honest_go_on("meanwhile");
        eventually("the reason is told", || scene.error_of_hostile().contains("does not answer"));
    });
}

#[test]
fn who_brings_a_blob_now_and_then_keeps_no_others_waiting() {
    let scene = Scene::new(true);
    let theirs = scene.buckets[0].copy_for(scene.hostile.key());
    theirs.add_all(&items(600));
    while_trickling(&scene, &theirs, || {
        for text in ["once", "and again"] {
            let began = Instant::now();
            scene.honest_go_on(text);
            assert!(began.elapsed() < PATIENCE / 2);
        }
    });
}

#[test]
fn what_a_slow_one_has_comes_from_another_that_has_the_same() {
    let scene = Scene::new(true);
    scene.peers[1].net.withdraw(&name());
    let items = items(600);
    scene.buckets[1].add_all(&items);
    let theirs = scene.buckets[1].copy_for(scene.hostile.key());
    while_trickling(&scene, &theirs, || {
        scene.peers[1].serve(&scene.buckets[1]);
        eventually("all arrives", || items.iter().all(|item| scene.buckets[0].has(item)));
        // It is over before all has come that was asked of the slow one.
        assert!(scene.buckets[0].head() == theirs.head());
    });
}

#[test]
fn who_trickles_what_is_to_be_mended_keeps_neither_others_nor_the_mend_waiting() {
    let scene = Scene::new(true);
    let items = items(600);
    scene.buckets[1].add_all(&items);
    eventually("both have all", || scene.buckets[0].head() == scene.buckets[1].head());
    let theirs = scene.buckets[0].copy_for(scene.hostile.key());
    let net = &scene.peers[0].net;
    // Only the slow one is there when it begins.
    scene.peers[1].net.withdraw(&name());
    with_trickle(&scene, &theirs, |given| {
        eventually("it is there alone", || {
            let sides = net.served(&name()).unwrap().sides();
            sides.len() == 1 && sides[0].session.key == scene.hostile.key()
        });
        scene.buckets[0].damage(&items);
        let until = Instant::now() + PATIENCE;
        thread::scope(|scope| {
            let mending = scope.spawn(|| net.mend(&name(), &mut |_| Instant::now() < until));
            eventually("it trickles", || given.load(Ordering::Relaxed) > 3);
            scene.peers[1].serve(&scene.buckets[1]);
            scene.honest_go_on("meanwhile");
            assert_eq!(mending.join().unwrap().unwrap().lacking, 0);
        });
        assert!(items.iter().all(|item| scene.buckets[0].has(item)));
        assert!(given.load(Ordering::Relaxed) < items.len());
    });
}

#[test]
fn who_trickles_does_not_hold_up_that_space_is_found() {
    let scene = Scene::with(Timing { trouble: LIMIT, ..QUICK }, true);
    let theirs = scene.buckets[0].copy_for(scene.hostile.key());
    theirs.add_all(&items(600));
    with_trickle(&scene, &theirs, |given| {
        eventually("it trickles", || given.load(Ordering::Relaxed) > 3);
        assert_eq!(scene.buckets[0].open_fetches(), 1);
        scene.buckets[0].set_starves();
        eventually("it is let go of", || scene.buckets[0].open_fetches() == 0);
        eventually("that is told", || scene.error_of_hostile().contains("no space"));
    });
}

#[test]
fn of_many_slow_ones_few_fetches_stand_back_and_all_arrives() {
    let (peers, buckets) = members(9);
    let items = |of: usize| (0..150).map(move |n| [of, n].map(usize::to_le_bytes).concat());
    for of in 1..peers.len() {
        // They are told of each other, and cannot be reached.
        peers[of].net.listener.stop();
        buckets[of].hold(true);
        buckets[of].add_all(&items(of).collect::<Vec<_>>());
        peers[of].knows(&peers[0]);
    }
    // One is under way.
    eventually("four stand back", || buckets[0].most_open_fetches() == 4 + 1);
    buckets[1..].iter().for_each(|bucket| bucket.hold(false));
    eventually("all arrives", || {
        (1..peers.len()).all(|of| items(of).all(|item| buckets[0].has(&item)))
    });
    assert_eq!(buckets[0].most_open_fetches(), 4 + 1);
}

#[test]
fn what_stands_back_arrives_in_the_end_and_nothing_of_it_comes_twice() {
    let (peers, buckets) = members(3);
    // The other two are told of each other, and cannot be reached.
    for outer in &peers[1..] {
        outer.net.listener.stop();
    }
    peers[2].knows(&peers[0]);
    eventually("they are connected", || peers[0].is_connected_to(&peers[2]));
    let items = items(300);
    buckets[1].set_pace(Duration::from_millis(10));
    buckets[1].hold_after(250);
    buckets[1].add_all(&items);
    let has_all = || items.iter().all(|item| buckets[0].has(item));
    peers[1].knows(&peers[0]);
    eventually("some has come", || buckets[0].blobs() > 10);
    for n in 0..5_u8 {
        buckets[2].add(&[n; 9]);
        eventually("the other's item arrives", || buckets[0].has(&[n; 9]));
        assert!(!has_all(), "the slow one was waited for");
    }
    buckets[1].hold(false);
    eventually("all arrives", has_all);
    let given = buckets[1].given();
    let times = |item: &Vec<u8>| given.iter().filter(|id| **id == name_of(item)).count();
    assert!(items.iter().all(|item| times(item) == 1));
}

/// Has a peer stand back with these items on their way while something of another one is merged, and
/// says something in another bucket meanwhile. Returns how many of them came twice.
fn stand_back_during_a_merge(items: &[Vec<u8>]) -> usize {
    let (peers, buckets) = members(3);
    // The other two are told of each other, and cannot be reached.
    for outer in &peers[1..] {
        outer.net.listener.stop();
    }
    let theirs = FakeBucket::create(peers[1].key(), 9);
    theirs.set_member(peers[0].key(), "member", Some(Role::Writer)).unwrap();
    let ours = theirs.copy_for(peers[0].key());
    for (peer, bucket) in [(&peers[0], &ours), (&peers[1], &theirs)] {
        let replica: Arc<dyn Replica> = Arc::new(bucket.clone());
        peer.net.serve_replica(&"other".parse().unwrap(), &replica, Serving::Both);
    }
    for outer in &peers[1..] {
        outer.knows(&peers[0]);
    }
    eventually("they meet", || peers[1..].iter().all(|peer| peers[0].is_connected_to(peer)));
    buckets[1].set_pace(Duration::from_millis(1));
    buckets[1].hold_after(251);
    buckets[1].add_all(items);
    eventually("much comes", || buckets[1].given().len() == 251);
    let merges = HeldMerges::of(&buckets[0]);
    buckets[2].add(b"small");
    eventually("it stands back", || buckets[0].is_merging());
    buckets[1].hold(false);
    theirs.add(b"in the other bucket");
    eventually("the other bucket goes on", || ours.has(b"in the other bucket"));
    assert!(buckets[0].is_merging());
    drop(merges);
    eventually("all arrives", || items.iter().all(|item| buckets[0].has(item)));
    let given = buckets[1].given();
    let again =
        items.iter().filter(|item| given.iter().filter(|id| **id == name_of(item)).count() > 1);
    again.count()
}

#[test]
fn who_stands_back_is_heard_in_another_bucket_while_something_is_merged() {
    let items: Vec<_> = (0..900_u32).map(|n| n.to_le_bytes().repeat(16 << 10)).collect();
    assert_eq!(stand_back_during_a_merge(&items), 0, "of what it brought nothing came twice");
}

#[test]
fn who_stands_back_with_more_than_can_be_kept_is_heard_in_another_bucket_too() {
    // Small ones are asked for first, so that many of the large ones are asked for ahead.
    let is_first = |item: &Vec<u8>| name_of(item)[0] >= 0x80;
    let small = (0..).map(|n: u32| n.to_le_bytes().repeat(50)).filter(is_first).take(300);
    let large = (0..).map(|n: u32| n.to_le_bytes().repeat(32 << 10));
    let large = large.filter(|item| !is_first(item)).take(300);
    let items: Vec<_> = small.chain(large).collect();
    assert!(stand_back_during_a_merge(&items) > 0, "so much is not kept");
}
