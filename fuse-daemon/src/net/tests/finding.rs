//! Members that find each other again by a ticket.

use std::time::UNIX_EPOCH;

use cairnfs_mount_core::BucketId;

use super::*;
use crate::{
    exit::{Code, Result},
    net::{
        report::{Inviter, JoinProgress},
        ticket::Ticket,
    },
};

pub(super) fn ticket_of(peer: &Peer) -> Ticket {
    let hour = Duration::from_secs(3600);
    peer.net.invite(&name(), Role::Writer, hour, 1).unwrap().ticket.parse().unwrap()
}

pub(super) fn find(peer: &Peer, ticket: &Ticket) -> Result<Inviter> {
    peer.net.find_inviter(&name(), &ticket.to_line(), &mut |_| true)
}

#[test]
fn two_that_have_moved_meet_again_by_a_ticket_which_stays_good() {
    let (mut peers, buckets) = members(2);
    let ticket = ticket_of(&peers[0]);
    let found = find(&peers[1], &ticket).unwrap();
    let address = peers[0].address();
    assert_eq!(
        found,
        Inviter { key: peers[0].key(), name: "first".into(), address: Some(address) }
    );
    buckets[1].add(b"after the move");
    eventually("it has come", || buckets[0].has(b"after the move"));
    assert_eq!(find(&peers[1], &ticket), Ok(found), "it is connected");
    let new = Peer::new();
    assert!(new.net.join(&ticket.to_line(), &mut |_| true).is_ok());
    // It is known from then on.
    peers[1].restart();
    peers[1].serve(&buckets[1]);
    eventually("they meet by themselves", || peers[1].is_connected_to(&peers[0]));
}

#[test]
fn an_expired_ticket_shows_the_way_all_the_same() {
    let (peers, _buckets) = members(2);
    let ticket = Ticket { until: UNIX_EPOCH, ..ticket_of(&peers[0]) };
    assert!(find(&peers[1], &ticket).is_ok());
    assert!(peers[1].is_connected_to(&peers[0]));
}

#[test]
fn what_is_no_ticket_of_a_member_for_that_bucket_is_refused_and_nothing_noted() {
    let (peers, _buckets) = members(2);
    let stranger = Peer::new();
    let (right, key) = (ticket_of(&peers[0]), peers[1].key());
    for (wrong, says) in [
        (Ticket { bucket: BucketId([9; 16]), ..right.clone() }, "of another bucket"),
        (
            Ticket { device: key, ..right.clone() },
            "with the key of this device: one of the two homes",
        ),
        (Ticket { device: key, until: UNIX_EPOCH, ..right.clone() }, "was made by this device"),
        (Ticket { device: stranger.key(), ..right.clone() }, "is no member of bucket 'shared'"),
    ] {
        let failure = find(&peers[1], &wrong).unwrap_err();
        assert_eq!(failure.code, Code::WrongKey);
        assert!(failure.message.contains(says), "{}", failure.message);
        assert!(peers[1].net.addresses.of(&wrong.device).is_empty());
    }
}

#[test]
fn who_made_a_ticket_is_told_just_that() {
    let (peers, _buckets) = members(2);
    let failure = find(&peers[0], &ticket_of(&peers[0])).unwrap_err();
    assert_eq!(failure.message, "this ticket was made by this device");
}

#[test]
fn where_nobody_answers_it_is_tried_again_but_nothing_kept() {
    let (mut peers, buckets) = members(2);
    let port = own_port();
    let mut ticket = ticket_of(&peers[0]);
    ticket.addresses = vec![(Ipv4Addr::LOCALHOST, port).into()];
    let mut tried = Vec::new();
    let failure = peers[1].net.find_inviter(&name(), &ticket.to_line(), &mut |progress| {
        let JoinProgress::Connecting(address) = progress else { panic!("{progress:?}") };
        tried.push(address);
        true
    });
    let failure = failure.unwrap_err();
    tried.dedup();
    assert_eq!((failure.code, &tried), (Code::NoPeer, &ticket.addresses));
    let said = format!("cannot reach the device that made the ticket (127.0.0.1:{port}: ");
    assert!(failure.message.starts_with(&said), "{}", failure.message);
    assert!(peers[1].net.addresses.known(&peers[0].key()).is_empty());
    peers[0].restart_at(port);
    peers[0].serve(&buckets[0]);
    peers[1].net.roster.lock().hurry(&peers[0].key());
    peers[1].net.wake.notify_all();
    eventually("it is there now", || peers[1].is_connected_to(&peers[0]));
}

#[test]
fn somebody_else_at_the_address_is_not_taken_for_the_member() {
    let (peers, _buckets) = members(2);
    let stranger = Peer::new();
    let ticket = Ticket { addresses: vec![stranger.address()], ..ticket_of(&peers[0]) };
    let failure = find(&peers[1], &ticket).unwrap_err();
    assert!(failure.message.contains("another device answers there"), "{}", failure.message);
    assert!(!peers[1].is_connected());
}

#[test]
fn who_was_removed_is_told_to_drop_the_bucket_before_the_ticket_lets_it_in() {
    let (peers, buckets) = members(2);
    buckets[0].set_member(peers[1].key(), "", None).unwrap();
    let failure = find(&peers[1], &ticket_of(&peers[0])).unwrap_err();
    assert_eq!(failure.code, Code::WrongKey);
    assert!(failure.message.contains("'cairnfs drop shared'"), "{}", failure.message);
}
