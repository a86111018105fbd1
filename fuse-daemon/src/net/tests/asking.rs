//! How much is asked of one peer at once, whatever it answers and however many buckets are shared.

use super::{
    hostile::{Scene, offer},
    *,
};
use crate::net::message::{Answer, Ask, Say};

#[test]
fn two_devices_that_share_many_buckets_bring_all_of_them() {
    let peers = [Peer::new(), Peer::new()];
    let buckets: Vec<_> = (0..80_u8)
        .map(|n| {
            let theirs = FakeBucket::create(peers[0].key(), n);
            theirs.set_member(peers[1].key(), "member", Some(Role::Writer)).unwrap();
            let ours = theirs.copy_for(peers[1].key());
            theirs.add_all(&(0..100).map(|i| [n, i].repeat(1000)).collect::<Vec<_>>());
            for (peer, bucket) in peers.iter().zip([&theirs, &ours]) {
                let replica: Arc<dyn Replica> = Arc::new(bucket.clone());
                let name = format!("b{n}").parse().unwrap();
                peer.net.serve_replica(&name, &replica, Serving::Both);
            }
            // Nothing is asked for before it can be of all of them.
            ours.set_endless(true);
            (theirs, ours)
        })
        .collect();
    peers[1].knows(&peers[0]);
    eventually("all are to be fetched", || buckets.iter().all(|(_, ours)| ours.fetches() > 0));
    buckets.iter().for_each(|(_, ours)| ours.set_endless(false));
    eventually("all arrive", || {
        let known = peers.iter().flat_map(|peer| peer.net.peers());
        let wrong: Vec<_> = known.filter_map(|peer| peer.last_error).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        buckets.iter().all(|(theirs, ours)| theirs.head() == ours.head())
    });
}

#[test]
fn who_leaves_much_unanswered_is_asked_for_nothing_more() {
    let scene = Scene::impatient();
    let mut opened = scene.admitted();
    opened.send(&offer(&scene, &opened)).unwrap();
    let mut unanswered = 0;
    for n in 0..1000_u32 {
        let mut version = [7; 32];
        version[..4].copy_from_slice(&n.to_le_bytes());
        if opened.send(&Say::Head { bucket: 5, version }).is_err() {
            break;
        }
        // The list of versions is never given; the version itself is garbage.
        let asked = loop {
            let Ok(say) = opened.receive(1 << 20, Instant::now() + PATIENCE) else { break None };
            match say {
                Say::Ask { ask: Ask::Ancestry { .. }, .. } => unanswered += 1,
                Say::Ask { request, ask: Ask::Blobs(ids), .. } if ids == [version] => {
                    break Some(request);
                }
                _ => (),
            }
        };
        let Some(request) = asked else { break };
        let (blobs, missing) = (vec![vec![1; 9].into()], vec![]);
        let answer = Answer::Blobs { blobs, missing, more: false };
        if opened.send(&Say::Answer { request, answer }).is_err() {
            break;
        }
    }
    assert!(unanswered < 64, "{unanswered} requests were remembered");
    eventually("why is told", || scene.error_of_hostile().contains("does not answer"));
    scene.honest_go_on("after that");
}
