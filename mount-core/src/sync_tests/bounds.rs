//! Versions of which a device that stood on them could not go on: it is not led there.

use cairnfs_merge::{DeviceId, OpId, verify::MAX_OPS};

use super::{
    Peer,
    forging::{is_refused, without_past},
    two,
};
use crate::{
    Error, MergeStep, Role,
    manifest::{DEVICES_MAX, Manifest},
};

/// Has its author be so much later.
fn later(version: &mut Manifest, by: u64) {
    let lamport = version.vv.max_lamport() + by;
    version.ops += by;
    version.vv.learn(&OpId { lamport, device: version.device() });
}

/// Has it know so many devices.
fn know_many(version: &mut Manifest, count: usize) {
    without_past(version);
    for n in 0_u64.. {
        if version.vv.len() == count {
            break;
        }
        let mut device = DeviceId([7; 16]);
        device.0[..8].copy_from_slice(&n.to_le_bytes());
        version.vv.learn(&OpId { lamport: 1, device });
    }
}

/// That it goes on with what it has, and opens with that again.
#[track_caller]
fn goes_on(peer: &mut Peer) {
    peer.write("mine", "1");
    peer.mount().publish().unwrap();
    peer.restart(true);
    assert!(peer.tree().contains(&"mine=1".into()));
}

#[test]
fn a_time_far_ahead_is_refused_and_one_that_years_take_is_not() {
    let (mut a, mut b) = two();
    let years = MAX_OPS - 10;
    b.forge(|_, version| later(version, years));
    a.write("x", "1");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
    for _ in 0..2 {
        b.forge(|_, version| later(version, years));
    }
    is_refused(&a, &b, "far ahead");
    b.forge(|_, version| {
        without_past(version);
        later(version, 1 << 48);
    });
    is_refused(&a, &b, "far ahead");
    goes_on(&mut a);
}

#[test]
fn more_devices_than_a_version_can_name_with_this_one_are_refused() {
    let (a, mut b) = two();
    let mut c = a.invite(Role::Owner);
    b.pull(&a).unwrap();
    c.forge(|_, version| know_many(version, DEVICES_MAX));
    // As it stands, and joined.
    is_refused(&b, &c, "more devices");
    b.write("x", "1");
    is_refused(&b, &c, "more devices");
    goes_on(&mut b);
}

#[test]
fn a_bucket_whose_own_version_is_beyond_what_others_take_is_opened() {
    let (mut a, _) = two();
    a.forge(|_, version| know_many(version, DEVICES_MAX + 1));
    assert_eq!(a.tree(), ["old=0"]);
}

/// As when the connection is cut before the fetch has looked into what came, and it begins anew.
#[test]
fn a_version_that_makes_no_sense_is_its_makers_fault_also_when_it_is_here_already() {
    let (a, mut b) = two();
    a.write("x", "1");
    a.mount().publish().unwrap();
    let known = b.mount().shared().core.read().head.vv.clone();
    // Itself, and then one that it comes before and that claims to bring nothing new.
    b.forge(|_, version| version.parents.push(version.parents[0]));
    let senseless = b.mount().head().unwrap();
    b.forge(|_, version| (version.vv, version.ops) = (known, 0));
    for head in [senseless, b.mount().head().unwrap()] {
        for _ in 0..2 {
            assert!(!a.mount().covers(&head).unwrap());
            let served = b.serve(&mut a.mount().fetch(head).unwrap());
            let is_told = |why: &str| why.contains("out of bounds");
            assert!(matches!(&served, Err(Error::Rejected { why }) if is_told(why)), "{served:?}");
            assert!(a.mount().sealed(&head).unwrap().is_some(), "it is here");
        }
    }
}
