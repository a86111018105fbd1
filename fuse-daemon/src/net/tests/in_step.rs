//! What is known of how far devices have met.

use super::{mounts::Device, *};
use crate::net::{Known, Step};

/// What `of` knows of `other`.
#[track_caller]
fn step(of: &Device, other: &Device) -> Step {
    let peers = of.peer.net.peers();
    let report = peers.iter().find(|report| report.key == other.peer.key()).unwrap();
    report.step(&name()).unwrap().clone()
}

#[test]
fn what_a_device_had_is_remembered_while_it_is_away() {
    let one = Device::owner();
    let other = Device::invited_by(&one, Role::Writer);
    one.write("first", b"1");
    for (it, its_peer) in [(&one, &other), (&other, &one)] {
        eventually("they are in step", || step(it, its_peer).is_in_step());
    }
    let head = one.mount.head().unwrap();
    other.peer.net.withdraw(&name());
    eventually("it is away", || matches!(step(&one, &other).known, Known::Then(_)));
    let away = step(&one, &other);
    assert_eq!((away.all_there, away.all_here), (Some(true), Some(true)));
    assert!(!away.has_met());

    one.write("second", b"2");
    other.write("third", b"3");
    eventually("something is new here", || step(&one, &other).all_there == Some(false));
    let (version, time) = step(&one, &other).up_to.unwrap();
    assert!(version == head && time.is_some());

    other.peer.net.serve(&name(), &other.mount);
    for (it, its_peer) in [(&one, &other), (&other, &one)] {
        eventually("they are in step again", || step(it, its_peer).is_in_step());
    }
    assert_eq!(step(&one, &other).up_to, None);
}

#[test]
fn a_device_that_takes_nothing_is_not_in_step_and_says_why() {
    let (peers, buckets) = members(2);
    peers[0].knows(&peers[1]);
    let step = || peers[0].net.peers()[0].step(&name()).cloned().unwrap();
    eventually("they are in step", || step().is_in_step());
    let head = buckets[0].head().unwrap();
    buckets[1].set_fails(Some(CoreError::NoSpace));
    buckets[0].add(b"no room for this");
    eventually("it says so, and what it has", || {
        let Step { why, known, all_there, all_here, up_to, .. } = step();
        why.is_some_and(|why| why.contains("no space left"))
            && (known, all_there, all_here) == (Known::Now, Some(false), Some(true))
            && up_to == Some((head, None))
    });
}

#[test]
fn who_may_not_merge_what_it_was_sent_does_not_say_that_it_has_it() {
    let owner = Device::owner();
    let reader = Device::invited_by(&owner, Role::Reader);
    let writer = Device::invited_by(&owner, Role::Writer);
    // It goes on writing, and does not know yet that it no longer may.
    writer.peer.net.withdraw(&name());
    owner.mount.set_member(writer.peer.key(), "", Some(Role::Reader)).unwrap();
    writer.write("own", b"x");
    writer.mount.publish().unwrap();
    let newest = owner.mount.head();
    eventually("the reader has it", || reader.mount.head() == newest);
    owner.peer.net.withdraw(&name());
    writer.peer.net.serve(&name(), &writer.mount);
    writer.peer.knows(&reader.peer);
    for (device, other) in [(&writer, &reader), (&reader, &writer)] {
        let says_so = |failure: crate::exit::Failure| failure.message.contains("read-only there");
        eventually("neither has the other's", || device.peer.sync().is_err_and(says_so));
        let found = device.peer.net.elsewhere(&name(), Vec::new(), &mut |_| true).unwrap();
        assert!(!found.newest);
        let step = step(device, other);
        assert_eq!((step.all_there, step.all_here), (Some(false), Some(false)));
    }
    // Who may write merges the two.
    owner.peer.net.serve(&name(), &owner.mount);
    for device in [&owner, &reader] {
        device.gets("own", b"x");
    }
    eventually("all meet", || writer.peer.sync().is_ok_and(|met| met.peers == 2));
}
