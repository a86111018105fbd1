//! Who is told where the others are.

use super::*;

#[test]
fn who_met_a_third_only_meets_the_others_and_goes_on_when_that_one_has_gone() {
    let (peers, buckets) = members(3);
    for invited in &peers[1..] {
        invited.knows(&peers[0]);
    }
    eventually("they meet", || peers[1].is_connected_to(&peers[2]));
    peers[0].net.stop();
    buckets[1].add(b"from b, without a");
    eventually("c has what b wrote", || buckets[2].has(b"from b, without a"));
    // Found there, so that it is kept.
    let kept = || peers[1..].iter().zip(peers[1..].iter().rev());
    assert!(kept().any(|(one, other)| one.net.addresses.known(&other.key())[0] == other.address()));
}

#[test]
fn a_device_that_becomes_a_member_after_it_was_told_of_is_met() {
    let (peers, buckets) = members(2);
    peers[1].knows(&peers[0]);
    eventually("the first two meet", || peers[1].is_connected_to(&peers[0]));
    // It learns only later that there is a third one, and is not to be found by that.
    buckets[1].set_fails(Some(CoreError::NoSpace));
    peers[1].net.listener.stop();
    let third = Peer::new();
    buckets[0].set_member(third.key(), "third", Some(Role::Writer)).unwrap();
    third.serve(&buckets[0].copy_for(third.key()));
    third.knows(&peers[0]);
    eventually("it is told of", || peers[1].is_told_of(&third));
    assert!(peers[1].net.addresses.of(&third.key()).is_empty(), "it is nobody yet");
    buckets[1].set_fails(None);
    eventually("they meet", || peers[1].is_connected_to(&third));
}

#[test]
fn nobody_is_told_of_the_members_of_a_bucket_that_is_not_theirs() {
    let [a, b, c] = [(); 3].map(|()| Peer::new());
    let shared_with = |other: &Peer, id: u8, bucket: &str| {
        let mine = FakeBucket::create(a.key(), id);
        mine.set_member(other.key(), "member", Some(Role::Writer)).unwrap();
        let theirs = mine.copy_for(other.key());
        for (peer, bucket_there) in [(&a, &mine), (other, &theirs)] {
            let replica: Arc<dyn Replica> = Arc::new(bucket_there.clone());
            peer.net.serve_replica(&bucket.parse().unwrap(), &replica, Serving::Both);
        }
        (mine, theirs)
    };
    let (of_b, at_b) = shared_with(&b, 1, "one");
    let (of_c, at_c) = shared_with(&c, 2, "other");
    b.knows(&a);
    c.knows(&a);
    for (there, here) in [(&at_b, &of_b), (&at_c, &of_c)] {
        there.add(b"there");
        eventually("they share it", || here.has(b"there"));
        here.add(b"here");
        eventually("in both directions", || there.has(b"here"));
    }
    assert!(!b.is_told_of(&c) && !c.is_told_of(&b));
    assert!(b.net.addresses.of(&c.key()).is_empty());
}

#[test]
fn what_a_member_says_of_others_displaces_nothing_and_is_not_kept() {
    let (peers, buckets) = members(3);
    let [victim, liar, other] = &peers[..] else { panic!("three") };
    let right: SocketAddr = "127.0.0.1:7".parse().unwrap();
    victim.net.addresses.found(&other.key(), right);
    // Of two connections that cross one is cut, and what was said on it forgotten.
    liar.net.listener.stop();
    liar.knows(victim);
    buckets[1].add(b"to be sure");
    eventually("they share it", || buckets[0].has(b"to be sure"));
    let bucket = victim.net.roster.lock().offered[&name()].sides()[0].session.clone();
    let sides = liar.net.roster.lock().offered[&name()].sides();
    for round in 0..200_u8 {
        let address: SocketAddr = format!("127.0.0.9:{}", 1 + u16::from(round)).parse().unwrap();
        let strangers =
            (0..63_u8).map(|one| PeerKey([round.wrapping_mul(63).wrapping_add(one); 32]));
        let others = strangers
            .chain([other.key()])
            .map(|device| crate::net::message::Whereabouts { device, addresses: vec![address; 4] });
        sides[0].say_where(others.collect());
    }
    let last: SocketAddr = "127.0.0.9:200".parse().unwrap();
    eventually("all was heard", || bucket.said_of(&other.key()) == [last; 4]);
    let known = victim.net.addresses.of(&other.key());
    assert_eq!(known[0], right);
    assert!(known.len() <= 5, "{known:?}");
    assert!(victim.net.addresses.of(&PeerKey([5; 32])).is_empty());
    let kept = std::fs::read_to_string(victim.dir.path().join("peers.toml")).unwrap();
    assert!(!kept.contains("127.0.0.9"), "{kept}");
    let strangers =
        (0..=255_u8).filter(|one| !bucket.said_of(&PeerKey([*one; 32])).is_empty()).count();
    assert!(strangers < 64, "{strangers}");
}
