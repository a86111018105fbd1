//! Two machines with one key.

use super::*;

/// What a peer last said of another one.
fn error_of(peer: &Peer, other: &Peer) -> Option<String> {
    let peers = peer.net.peers();
    let found = peers.into_iter().find(|it| it.key == other.key());
    found.and_then(|it| it.last_error).map(|(why, _)| why)
}

fn says(peer: &Peer, other: &Peer, what: &str) -> bool {
    error_of(peer, other).is_some_and(|why| why.contains(what))
}

#[test]
fn of_a_home_that_was_copied_the_peers_and_both_machines_learn() {
    let (peers, buckets) = members(2);
    let (peer, one) = (&peers[0], &peers[1]);
    let copy = one.copied();
    copy.serve(&buckets[1].copy_for(one.key()));
    one.knows(peer);
    copy.knows(peer);
    eventually("the peer says so", || says(peer, one, "two machines, both at 127.0.0.1,"));
    for machine in [one, &copy] {
        eventually("each of the two says so", || {
            says(machine, peer, "another machine that has the key of this device, at 127.0.0.1:")
        });
    }
    assert!(says(peer, one, "one of the two homes is a copy"), "and what to do");
}

#[test]
fn a_device_that_starts_again_and_again_is_not_taken_for_two() {
    let (mut peers, buckets) = members(2);
    for round in 0..6_u8 {
        peers[1].knows(&peers[0]);
        eventually("it is connected", || peers[1].shares_with(&peers[0]));
        buckets[1].add(&[round]);
        eventually("and heard", || buckets[0].has(&[round]));
        peers[1].restart();
        peers[1].serve(&buckets[1]);
    }
    for said in [error_of(&peers[0], &peers[1]), error_of(&peers[1], &peers[0])] {
        assert!(!said.as_ref().is_some_and(|why| why.contains("machine")), "{said:?}");
    }
}
