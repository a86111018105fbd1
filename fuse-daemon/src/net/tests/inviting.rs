//! Tickets that are presented while something else happens.

use cairnfs_mount_core::BucketId;

use super::*;
use crate::net::{
    message::{Admission, Knock, Refusal},
    ticket::Ticket,
};

/// An owner, what it serves, and a ticket for one use.
fn inviting() -> (Peer, FakeBucket, String) {
    let owner = Peer::new();
    let bucket = FakeBucket::create(owner.key(), 7);
    owner.serve(&bucket);
    let hour = Duration::from_secs(3600);
    let ticket = owner.net.invite(&name(), Role::Writer, hour, 1).unwrap().ticket;
    (owner, bucket, ticket)
}

/// Whether `by` is let in.
fn present(to: &Peer, by: &Peer, ticket: &str) -> Result<(), Refusal> {
    let ticket: Ticket = ticket.parse().unwrap();
    let mut opened = by.net.connect(to.key(), to.address()).unwrap();
    opened.send(&Knock::Ticket { secret: *ticket.secret, name: "x".into(), port: None }).unwrap();
    match opened.receive(1 << 20, Instant::now() + PATIENCE).unwrap() {
        Admission::Joined { .. } => Ok(()),
        Admission::Refused(why) => Err(why),
        _ => panic!("a ticket is answered otherwise"),
    }
}

/// Removes a member, which has new secrets, just before secrets are next given away.
fn remove_before_secrets(bucket: &FakeBucket, member: PeerKey) {
    let it = bucket.clone();
    bucket.before_secrets(move || {
        it.set_member(member, "", None).unwrap();
        it.rotate();
    });
}

#[test]
fn who_is_removed_as_it_presents_its_ticket_again_gets_no_secret() {
    let (owner, bucket, ticket) = inviting();
    let member = Peer::new();
    assert_eq!(present(&owner, &member, &ticket), Ok(()));
    remove_before_secrets(&bucket, member.key());
    assert_eq!(present(&owner, &member, &ticket), Err(Refusal::Removed));
}

#[test]
fn who_is_removed_as_it_is_let_in_has_used_its_ticket_up() {
    let (owner, bucket, ticket) = inviting();
    let (member, another) = (Peer::new(), Peer::new());
    remove_before_secrets(&bucket, member.key());
    assert_eq!(present(&owner, &member, &ticket), Err(Refusal::Removed));
    assert_eq!(present(&owner, &another, &ticket), Err(Refusal::UsedUp));
}

#[test]
fn who_lets_this_device_in_is_found_also_if_another_bucket_goes_meanwhile() {
    let (owner, _bucket, ticket) = inviting();
    let joiner = Peer::new();
    let joining = joiner.net.join(&ticket, &mut |_| true).unwrap();
    joiner.net.forget(BucketId([9; 16]));
    assert!(joiner.net.addresses.of(&owner.key()).contains(&owner.address()));
    drop(joining);
}
