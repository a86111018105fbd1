//! Buckets that come while others are looked at.

use super::*;

#[test]
fn a_bucket_that_is_served_while_the_members_of_another_are_asked_for_is_shared() {
    let (peers, buckets) = members(2);
    let another: BucketName = "another".parse().unwrap();
    let theirs = FakeBucket::create(peers[1].key(), 8);
    theirs.set_member(peers[0].key(), "member", Some(Role::Writer)).unwrap();
    let third = Peer::new();
    theirs.set_member(third.key(), "third", Some(Role::Writer)).unwrap();
    let [ours, thirds] = [peers[0].key(), third.key()].map(|key| theirs.copy_for(key));
    let offer = |peer: &Peer, bucket: &FakeBucket| {
        let replica: Arc<dyn Replica> = Arc::new(bucket.clone());
        peer.net.serve_replica(&another, &replica, Serving::Both);
    };
    offer(&peers[1], &theirs);
    offer(&third, &thirds);
    peers[0].knows(&peers[1]);
    eventually("they meet", || peers[0].shares_with(&peers[1]));
    buckets[0].hold_members(true);
    buckets[0].add(b"something new");
    eventually("its members are asked for", || buckets[0].is_asked_for_members());
    let net = &peers[0].net;
    // What came before was done by then.
    let has_told = |name: &BucketName, head| {
        net.served(name).is_ok_and(|it| it.sides().iter().any(|side| side.told == head))
    };
    thread::scope(|scope| {
        let serving = thread::Builder::new().name("serving".into());
        serving.spawn_scoped(scope, || offer(&peers[0], &ours)).unwrap();
        eventually("it is served, or waits for its turn", || {
            let is_served = net.served(&another).is_ok();
            let waits = is_served && net.contacts.try_lock().is_none();
            waits || has_told(&another, ours.head())
        });
        buckets[0].hold_members(false);
    });
    eventually("the other one is done", || has_told(&name(), buckets[0].head()));
    assert!(net.roster.lock().contacts.contains_key(&third.key()));
    third.knows(&peers[0]);
    eventually("it is shared with all", || net.served(&another).unwrap().sides().len() == 2);
}
