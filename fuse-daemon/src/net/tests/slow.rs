//! Links on which little comes at a time.

use super::{
    hostile::{Scene, heard_ask, offer},
    *,
};
use crate::net::{
    frame,
    message::{Answer, Ask, Say},
    session::Opened,
};

/// How long a device waits for something to come.
const STALL: Duration = Duration::from_secs(2);

/// How often a test begins anew that was itself kept waiting, so that it was what stalled.
const TRIES: usize = 5;

/// A victim that soon loses its patience has been told of an item, and has asked for it. Returns
/// the connection that it asks on, and the answer; nothing if the test was kept waiting.
fn asked_for(item: &[u8]) -> Option<(Scene, Opened, Vec<u8>)> {
    let scene = Scene::with(Timing { stall: STALL, ..QUICK }, true);
    let mut opened = scene.admitted();
    opened.send(&offer(&scene, &opened)).unwrap();
    let theirs = scene.buckets[0].copy_for(scene.hostile.key());
    theirs.add(item);
    let version = theirs.head().unwrap();
    opened.send(&Say::Head { bucket: 5, version }).unwrap();
    let mut said = Instant::now();
    loop {
        let heard = heard_ask(&mut opened);
        if said.elapsed() > STALL / 2 {
            return None;
        }
        let (request, ask) = heard.unwrap();
        let answer = match ask {
            Ask::Ancestry { .. } => Answer::Refused,
            Ask::Secrets(_) => panic!("no secret is lacking"),
            Ask::Blobs(ids) => {
                let blobs = ids.iter().map(|id| theirs.sealed(id).unwrap().unwrap().into());
                Answer::Blobs { blobs: blobs.collect(), missing: vec![], more: false }
            }
        };
        let is_item = answer.weight() > item.len();
        let answer = Say::Answer { request, answer };
        if is_item {
            return Some((scene, opened, frame::encode(&answer)));
        }
        opened.send(&answer).unwrap();
        said = Instant::now();
    }
}

/// Sends so many bytes at a time, every 20 ms, while the other side takes them. Returns the longest time
/// in which it sent nothing.
fn trickle(opened: &Opened, bytes: &[u8], at_a_time: usize) -> Duration {
    let (mut sent, mut longest) = (Instant::now(), Duration::ZERO);
    for piece in bytes.chunks(at_a_time) {
        let taken = opened.link.send(piece);
        longest = longest.max(sent.elapsed());
        sent = Instant::now();
        if taken.is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    longest
}

#[test]
fn what_takes_longer_than_anybody_waits_arrives_if_its_bytes_do() {
    let item = vec![7; 240_000];
    let arrives = (0..TRIES).any(|_| {
        let Some((scene, opened, answer)) = asked_for(&item) else { return false };
        let began = Instant::now();
        if trickle(&opened, &answer, 1_000) > STALL / 2 {
            return false;
        }
        assert!(began.elapsed() > STALL * 2);
        eventually("it arrives", || scene.buckets[0].has(&item));
        true
    });
    assert!(arrives, "this test was kept waiting each time");
}

#[test]
fn bytes_that_come_one_by_one_are_not_waited_for() {
    let item = vec![7; 60_000];
    let asked = (0..TRIES).find_map(|_| asked_for(&item));
    let (scene, opened, answer) = asked.expect("this test was not kept waiting each time");
    let began = Instant::now();
    for byte in answer {
        if opened.link.send(&[byte]).is_err() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it is waited for all the while");
        thread::sleep(Duration::from_millis(100));
    }
    eventually("the reason is told", || scene.error_of_hostile().contains("does not answer"));
    scene.honest_go_on("after a trickle");
}
