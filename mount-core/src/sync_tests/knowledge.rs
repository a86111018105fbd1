//! A version whose past is not here may claim to know nothing that nobody can tell: what it claims to
//! know of a device looks, where it is not, as if it had been seen and removed.

use cairnfs_merge::{DeviceId, OpId};

use super::{
    Peer,
    forging::{is_refused, without_past},
    sync, two,
};
use crate::{MergeStep, Role, manifest::Manifest};

const UNFOUNDED: &str = "neither that nor what it follows from is here";

impl Peer {
    fn device(&self) -> DeviceId {
        self.mount().shared().core.read().op.device
    }
}

/// Has a version know of a device what that may do in future.
fn foresee(version: &mut Manifest, device: DeviceId) {
    without_past(version);
    version.vv.learn(&OpId { lamport: version.vv.get(&device) + 1000, device });
}

#[test]
fn what_this_device_does_next_is_known_to_nobody() {
    let (a, mut b) = two();
    let here = a.device();
    b.forge(|_, version| foresee(version, here));
    a.write("new", "1");
    is_refused(&a, &b, UNFOUNDED);
    assert_eq!(a.tree(), ["new=1", "old=0"]);
}

#[test]
fn nor_is_what_another_device_does_next() {
    let (a, mut b) = two();
    let c = a.invite(Role::Writer);
    let there = c.device();
    b.forge(|_, version| foresee(version, there));
    is_refused(&a, &b, UNFOUNDED);
    c.write("new", "1");
    assert_eq!(a.pull(&c).unwrap(), MergeStep::FastForward);
    assert_eq!(a.tree(), ["new=1", "old=0"]);
}

/// A writer that knows what another one did, and nothing of where from; and that other one.
fn who_lost_its_past(a: &Peer) -> (Peer, Peer) {
    let (mut b, c) = (a.invite(Role::Writer), a.invite(Role::Writer));
    b.pull(a).unwrap();
    c.write("of c", "1");
    b.pull(&c).unwrap();
    b.forge(|_, version| without_past(version));
    (b, c)
}

#[test]
fn who_lost_its_past_is_believed_of_a_device_that_has_published_since() {
    let (a, _) = two();
    let (b, c) = who_lost_its_past(&a);
    is_refused(&a, &b, UNFOUNDED);
    assert_eq!(c.pull(&b).unwrap(), MergeStep::FastForward);
    c.write("since", "2");
    assert_eq!(a.pull(&c).unwrap(), MergeStep::FastForward);
    assert_eq!(a.tree(), c.tree());
}

#[test]
fn who_lost_its_past_is_believed_once_an_owner_has_merged_it() {
    let (a, _) = two();
    let owner = a.invite(Role::Owner);
    let (b, c) = who_lost_its_past(&a);
    is_refused(&a, &b, UNFOUNDED);
    owner.pull(&c).unwrap();
    owner.pull(&b).unwrap();
    owner.write("since", "2");
    assert_eq!(a.pull(&owner).unwrap(), MergeStep::FastForward);
    assert_eq!(a.tree(), owner.tree());
}

#[test]
fn who_lost_its_past_is_believed_of_itself_also_after_it_began_anew() {
    let (a, mut b) = two();
    let c = a.invite(Role::Writer);
    b.pull(&a).unwrap();
    let backup = b.backup();
    b.write("first", "1");
    c.pull(&b).unwrap();
    b.put_back(backup);
    b.write("second", "2");
    sync(&b, &c);
    b.forge(|_, version| {
        without_past(version);
        version.incarnation = 1;
    });
    assert_eq!(a.pull(&b).unwrap(), MergeStep::FastForward);
    assert_eq!(a.tree(), ["first=1", "old=0", "second=2"]);
}
