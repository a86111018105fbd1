//! A version whose past is not here gives nobody a right that it has not by ours.

use std::sync::Arc;

use cairnfs_merge::OpId;
use cairnfs_store::{Appender, BlobId, DeviceKey, DevicePublicKey, Kind};

use super::{
    Peer,
    forging::{is_refused, without_past},
    tell_secrets, two,
};
use crate::{
    Error, MergeStep, Role,
    charter::{Charter, Origin},
    manifest::{Manifest, Member},
};

/// Makes `key` an owner in `version`, by a change of its author's.
fn make_owner(version: &mut Manifest, key: DevicePublicKey) {
    let at = OpId { lamport: version.vv.max_lamport(), device: version.device() };
    let origin = Origin { by: version.author, at };
    version.charter.set_member(origin, key, "evil", Some(Role::Owner)).unwrap();
}

/// An owner, a writer, and a reader who was an owner; and a charter that was never, in which it is
/// one still.
fn with_former_owner() -> (Peer, Peer, Peer, Charter) {
    let (a, b) = two();
    let c = a.invite(Role::Owner);
    a.mount().set_member(c.key.public(), "", Some(Role::Reader)).unwrap();
    a.mount().set_member(DevicePublicKey([8; 32]), "", Some(Role::Reader)).unwrap();
    b.pull(&a).unwrap();
    c.pull(&a).unwrap();
    let lie = a.mount().shared().core.read().head.charter.forgetting(&c.key.public());
    (a, b, c, lie)
}

/// Has a version say something else of members, and nothing of where it knows that from.
fn lie_in(version: &mut Manifest, lie: &Charter) {
    without_past(version);
    version.charter = lie.clone();
}

impl Peer {
    fn manifest(&self, id: [u8; 32]) -> Manifest {
        let found = self.mount().shared().vault.manifest(&BlobId(id)).unwrap();
        found.expect("it is here").as_ref().clone()
    }
}

impl Manifest {
    fn next_op(&self) -> OpId {
        OpId { lamport: self.vv.max_lamport() + 1, device: self.device() }
    }

    /// Makes it one in which its author, as an owner by the charter of `first`, goes on from there.
    fn follow(&mut self, first: &Self, author: &DeviceKey, appender: &mut Appender) {
        let blob = appender.put(Kind::Manifest, &first.sign(author)).unwrap();
        self.parents = vec![blob.id];
        self.charter = first.charter.clone();
        self.vv = first.vv.clone();
        self.ops = 1;
        self.vv.learn(&self.next_op());
        make_owner(self, self.author);
    }
}

#[test]
fn nobody_becomes_an_owner_by_a_version_whose_past_is_gone() {
    for (role, says) in [(Role::Reader, "may only read"), (Role::Writer, "may not change members")]
    {
        let (a, _) = two();
        let mut c = a.invite(role);
        c.forge(|_, version| {
            without_past(version);
            make_owner(version, version.author);
        });
        is_refused(&a, &c, says);
    }
}

#[test]
fn who_was_removed_does_not_come_back_by_a_version_whose_past_is_gone() {
    for role in [Role::Writer, Role::Owner] {
        let (a, _) = two();
        let mut c = a.invite(role);
        a.mount().set_member(c.key.public(), "", None).unwrap();
        c.forge(|_, version| {
            without_past(version);
            make_owner(version, version.author);
        });
        is_refused(&a, &c, "is no member");
    }
}

#[test]
fn who_may_only_read_or_was_removed_does_not_write_by_a_version_whose_past_is_gone() {
    let a = Peer::first();
    let (mut c, mut d) = (a.invite(Role::Reader), a.invite(Role::Writer));
    a.mount().set_member(d.key.public(), "", None).unwrap();
    for (hostile, says) in [(&mut c, "may only read"), (&mut d, "is no member")] {
        hostile.forge(|_, version| {
            without_past(version);
            let at = OpId { lamport: version.vv.max_lamport(), device: version.device() };
            let by = version.author;
            version.charter.set_member(Origin { by, at }, by, "", Some(Role::Writer)).unwrap();
        });
        is_refused(&a, hostile, says);
    }
}

/// All its operations are known, so that it looks as if it had been verified long ago.
#[test]
fn a_version_that_knows_nothing_new_gives_no_right_to_those_that_follow_from_it() {
    for (role, says) in [(Role::Reader, "may only read"), (Role::Writer, "may not change members")]
    {
        let (a, _) = two();
        let mut c = a.invite(role);
        let known = c.mount().shared().core.read().head.vv.clone();
        c.forge(|_, version| {
            make_owner(version, version.author);
            (version.vv, version.ops) = (known, 0);
        });
        c.forge(|_, _| ());
        is_refused(&a, &c, says);
    }
}

/// What is older than what is known here changes nothing here; nor may it decide who writes.
#[test]
fn what_a_version_without_a_past_says_of_former_times_gives_no_right() {
    let (a, mut b, mut c, lie) = with_former_owner();
    let writer = Arc::clone(&b.key);
    c.forge(|appender, version| {
        let mut first = version.clone();
        first.author = writer.public();
        lie_in(&mut first, &lie);
        first.vv.learn(&first.next_op());
        version.follow(&first, &writer, appender);
    });
    is_refused(&a, &c, "may only read");
    // Nor is it taken over as it is by who has changed nothing since.
    b.forge(|_, version| lie_in(version, &lie));
    is_refused(&a, &b, "claims to know");
}

/// It was believed, as it changed nothing, and comes before our own version now.
#[test]
fn what_a_version_before_ours_says_of_former_times_gives_no_right_later() {
    let (a, mut b, mut c, lie) = with_former_owner();
    let writer = Arc::clone(&b.key);
    b.forge(|_, version| lie_in(version, &lie));
    a.write("y", "2");
    let members = a.mount().members();
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
    assert_eq!(a.mount().members(), members);
    let first = a.manifest(b.mount().head().unwrap());
    c.forge(|appender, version| version.follow(&first, &writer, appender));
    is_refused(&a, &c, "may only read");
}

/// Of what a writer makes up of the beginning, too, nothing is believed.
#[test]
fn nobody_says_anew_with_whom_a_bucket_began() {
    let (a, mut b) = two();
    b.forge(|_, version| {
        without_past(version);
        let me = Member { key: version.author, role: Role::Owner, name: String::new() };
        version.charter = Charter::of_members(vec![me], version.next_op());
    });
    is_refused(&a, &b, "may not change members");
    let mut c = a.invite(Role::Owner);
    c.forge(|_, version| {
        let me = Member { key: version.author, role: Role::Owner, name: String::new() };
        version.charter.join(&Charter::of_members(vec![me], version.next_op()));
    });
    is_refused(&a, &c, "changed by nobody");
}

#[test]
fn who_was_away_while_members_changed_is_merged_although_its_past_is_gone() {
    let (a, mut b) = two();
    let c = a.invite(Role::Owner);
    a.mount().set_member(c.key.public(), "", Some(Role::Reader)).unwrap();
    let d = a.invite(Role::Writer);
    b.forge(|_, version| without_past(version));
    let members = a.mount().members();
    // One that has seen all of it, and one that joined afterwards and has no past itself.
    for peer in [&a, &d] {
        peer.write("here", "x");
        assert_eq!(peer.pull(&b).unwrap(), MergeStep::Merged);
        assert_eq!(peer.mount().members(), members);
    }
}

#[test]
fn who_an_owner_has_merged_is_believed_although_its_past_is_gone() {
    let (a, b) = two();
    let mut c = a.invite(Role::Writer);
    c.forge(|_, version| without_past(version));
    is_refused(&b, &c, "is no member");
    a.write("here", "x");
    assert_eq!(a.pull(&c).unwrap(), MergeStep::Merged);
    a.mount().set_member(c.key.public(), "", Some(Role::Reader)).unwrap();
    assert_eq!(b.pull(&a).unwrap(), MergeStep::FastForward);
    assert_eq!(b.mount().members(), a.mount().members());
}

#[test]
fn an_owner_changes_members_by_a_version_whose_past_is_gone() {
    let (a, b) = two();
    let mut c = a.invite(Role::Owner);
    b.pull(&a).unwrap();
    c.forge(|_, version| {
        without_past(version);
        make_owner(version, DevicePublicKey([9; 32]));
    });
    b.write("here", "x");
    assert_eq!(b.pull(&c).unwrap(), MergeStep::Merged);
    assert!(b.mount().members().iter().any(|it| it.key == DevicePublicKey([9; 32])));
}

/// Two merged the same apart: what the other's merge knows is known here, and it comes before
/// nothing of ours.
#[test]
fn what_was_written_on_anothers_merge_of_the_same_before_it_learned_that_it_may_not_is_kept() {
    let (a, b) = two();
    for (peer, name) in [(&a, "x"), (&b, "y")] {
        peer.write(name, "1");
        peer.mount().publish().unwrap();
    }
    let heads = [&a, &b].map(|peer| peer.mount().head().unwrap());
    let (of_a, _) = a.fetch(&b, heads[1]).unwrap();
    let (of_b, _) = b.fetch(&a, heads[0]).unwrap();
    a.mount().merge_from(of_a).unwrap();
    b.mount().merge_from(of_b).unwrap();
    assert_ne!(a.mount().head(), b.mount().head());
    a.mount().set_member(b.key.public(), "b", Some(Role::Reader)).unwrap();
    b.write("z", "2");
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
    assert_eq!(a.names("z"), ["z"]);
}

/// What two owners changed apart was put together by one who is no owner, and all stood on that.
#[test]
fn what_was_written_on_a_writers_merge_of_two_owners_changes_is_kept_as_well() {
    let (a, b) = two();
    let (c, d) = (a.invite(Role::Owner), a.invite(Role::Writer));
    for (owner, key) in [(&a, DevicePublicKey([8; 32])), (&c, DevicePublicKey([9; 32]))] {
        owner.mount().set_member(key, "", Some(Role::Reader)).unwrap();
        b.pull(owner).unwrap();
    }
    for peer in [&a, &d] {
        assert_eq!(peer.pull(&b).unwrap(), MergeStep::FastForward);
    }
    a.mount().set_member(d.key.public(), "", Some(Role::Reader)).unwrap();
    d.write("z", "2");
    assert_eq!(a.pull(&d).unwrap(), MergeStep::Merged);
    assert_eq!(a.names("z"), ["z"]);
}

impl Peer {
    /// Goes on from where it is an owner, as if it knew of nothing else: much later makes these
    /// devices owners.
    fn go_on_as_owner(&mut self, keys: &[DevicePublicKey]) {
        self.forge(|_, version| {
            for key in keys {
                version.ops += 100;
                let lamport = version.vv.max_lamport() + 100;
                version.vv.learn(&OpId { lamport, device: version.device() });
                make_owner(version, *key);
            }
        });
    }
}

#[test]
fn an_owner_who_was_removed_stays_so_if_it_goes_on_from_where_it_was_one() {
    let a = Peer::first();
    let mut c = a.invite(Role::Owner);
    let key = c.key.public();
    a.mount().set_member(key, "", None).unwrap();
    let members = a.mount().members();
    c.go_on_as_owner(&[key, DevicePublicKey([9; 32])]);
    assert_eq!(a.pull(&c).unwrap(), MergeStep::Merged);
    assert_eq!(a.mount().members(), members);
    a.mount().set_member(key, "", Some(Role::Writer)).unwrap();
    assert_eq!(a.mount().members().len(), 2, "an owner who knows of it may invite it again");
}

#[test]
fn an_owner_who_was_removed_stays_so_also_if_a_member_passes_on_what_it_did() {
    let (a, b) = two();
    let mut c = a.invite(Role::Owner);
    let key = c.key.public();
    a.mount().set_member(key, "", None).unwrap();
    c.go_on_as_owner(&[key, DevicePublicKey([9; 32])]);
    b.pull(&c).unwrap();
    assert!(
        b.mount().members().iter().any(|it| it.key == DevicePublicKey([9; 32])),
        "it does not know yet"
    );
    let members = a.mount().members();
    assert_eq!(a.pull(&b).unwrap(), MergeStep::Merged);
    assert_eq!(a.mount().members(), members);
    tell_secrets(&a, &b);
    assert_eq!(b.pull(&a).unwrap(), MergeStep::FastForward);
    assert_eq!(b.mount().members(), members);
}

/// What our own version says of members may change while a version is being fetched.
#[test]
fn who_is_removed_while_its_version_is_fetched_is_not_merged_if_its_past_is_gone() {
    let (a, _) = two();
    let mut c = a.invite(Role::Writer);
    c.forge(|_, version| without_past(version));
    let (fetch, _) = a.fetch(&c, c.mount().head().unwrap()).unwrap();
    a.mount().set_member(c.key.public(), "", None).unwrap();
    let merged = a.mount().merge_from(fetch);
    assert!(matches!(&merged, Err(Error::Rejected { why }) if why.contains("is no member")));
}
