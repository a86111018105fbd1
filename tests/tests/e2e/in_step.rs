//! Whether other devices have everything: what `status` and `peers` say, and when they know it.

use std::time::Duration;

use cairnfs_tests::{Home, Pair, Peer, eventually, peer::BUCKET};
use serde_json::Value;

/// How long devices may take to meet, or to notice that one has gone.
const MEET: Duration = Duration::from_secs(60);

fn status(of: &Peer) -> Value {
    let status = of.home().cairnfs(&["status", BUCKET, "--json"]).succeeds().json();
    status["buckets"][0].clone()
}

/// What is known of the bucket on each other device.
fn met(of: &Peer) -> Vec<Value> {
    let peers = of.home().cairnfs(&["peers", "--json"]).succeeds().json();
    let peers = peers["peers"].as_array().unwrap().clone();
    peers.into_iter().map(|peer| peer["met"][0].clone()).collect()
}

/// What `status` and `peers` say to people.
fn said(by: &Peer) -> String {
    let text = |verb| by.home().cairnfs(&[verb]).succeeds().stdout;
    text("status") + &text("peers")
}

#[track_caller]
fn is_in_step_with(peer: &Peer, count: usize) {
    eventually("it is in step with all", MEET, || {
        let status = status(peer);
        status["in_step"] == true && status["in_step_with"].as_array().unwrap().len() == count
    });
}

/// Cut off and changed on either side, then together again.
#[test]
fn who_has_everything_is_said_and_of_who_is_away_what_it_had() {
    let pair = Pair::new();
    let (one, other) = (&pair.one, &pair.other);
    one.write("f", "x");
    for peer in pair.both() {
        is_in_step_with(peer, 1);
    }
    let text = said(one);
    assert!(text.contains("in step with 1 device: "), "{text}");
    assert!(text.contains("has all that is here, and has published nothing else"), "{text}");

    let third = Peer::joining(Home::new(), one, &[]);
    for peer in [one, other, &third] {
        is_in_step_with(peer, 2);
    }
    let head = status(one)["head"].clone();
    third.stop();
    eventually("one of two is away", MEET, || {
        said(one).contains("in step with 1 of 2 devices: ") && status(one)["in_step"] == false
    });
    let text = said(one);
    assert!(text.contains("not connected: at ") && text.contains(" it had all that is"), "{text}");

    one.write("g", "which the third one lacks");
    let is_behind = |met: &Value| {
        met["has_all"] == false && met["has_up_to"] == head && met["as_of"].is_string()
    };
    eventually("the third one lacks it", MEET, || met(one).iter().any(is_behind));
    assert!(said(one).contains("but not what is new here since version "), "{}", said(one));
    other.stop();
    third.mount();
    third.write("h", "which the second one lacks");
    for peer in [one, &third] {
        eventually("these two meet", MEET, || {
            status(peer)["in_step_with"].as_array().unwrap().len() == 1
        });
    }
    other.mount();
    for peer in [one, other, &third] {
        is_in_step_with(peer, 2);
        assert!(met(peer).iter().all(|met| met["in_step"] == true), "{:?}", met(peer));
    }
}

/// A device of which nothing was heard since the daemon was started.
#[test]
fn what_is_not_known_is_not_said() {
    let pair = Pair::new();
    pair.other.stop();
    pair.one.stop();
    pair.one.mount();
    assert_eq!(status(&pair.one)["in_step"], false);
    let met = &met(&pair.one)[0];
    assert!(met["has_all"].is_null() && met["all_is_here"].is_null(), "{met}");
    let text = said(&pair.one);
    assert!(text.contains("in step with none; "), "{text}");
    assert!(text.contains("not connected: not known what it has"), "{text}");
}

#[test]
fn a_device_that_was_removed_is_in_step_with_nobody() {
    let pair = Pair::new();
    is_in_step_with(&pair.other, 1);
    let key = pair.other.home().cairnfs(&["id", "--json"]).succeeds().json()["key"].clone();
    pair.one.home().cairnfs(&["remove", BUCKET, &key.as_str().unwrap()[..16]]).succeeds();
    eventually("the owner has it alone", MEET, || status(&pair.one)["in_step"].is_null());
    assert!(said(&pair.one).contains("no other device has this bucket"), "{}", said(&pair.one));
    eventually("it is told", MEET, || status(&pair.other)["removed"] == true);
    assert_eq!(status(&pair.other)["in_step"], false);
    assert!(said(&pair.other).contains("in step with none; "), "{}", said(&pair.other));
}
