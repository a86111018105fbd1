//! Whose word is believed of what others have, before it is dropped here.

use super::*;
use crate::net::{elsewhere::Elsewhere, fake::name_of};

fn elsewhere(peer: &Peer, blobs: Vec<[u8; 32]>) -> Elsewhere {
    let until = Instant::now() + PATIENCE;
    peer.net.elsewhere(&name(), blobs, &mut |_| Instant::now() < until).unwrap()
}

#[test]
fn who_sends_something_else_than_a_blob_does_not_have_it() {
    let (peers, buckets) = members(2);
    buckets[0].add(b"both");
    peers[0].knows(&peers[1]);
    eventually("they meet", || peers[0].sync().is_ok_and(|met| met.peers == 1));
    let (both, nobody) = (name_of(b"both"), [9; 32]);
    let lacking = || elsewhere(&peers[0], vec![both, nobody]).lacking;
    assert_eq!(lacking(), [nobody]);
    buckets[1].set_lies(true);
    assert_eq!(lacking(), [both, nobody]);
}

#[test]
fn the_word_of_a_device_that_may_only_read_has_nothing_dropped() {
    let (peers, buckets) = members(2);
    buckets[0].add(b"both");
    peers[0].knows(&peers[1]);
    let both = name_of(b"both");
    for (role, newest, lacking) in
        [(Role::Reader, false, vec![both]), (Role::Writer, true, Vec::new())]
    {
        buckets[0].set_member(peers[1].key(), "member", Some(role)).unwrap();
        eventually("they meet", || peers[0].sync().is_ok_and(|met| met.peers == 1));
        assert_eq!(elsewhere(&peers[0], vec![both]), Elsewhere { newest, lacking }, "{role:?}");
    }
}
