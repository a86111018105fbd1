//! What is published here gets there.

use super::*;
use crate::exit::Code;

#[test]
fn what_one_publishes_the_other_gets() {
    let (peers, buckets) = members(2);
    peers[0].knows(&peers[1]);
    for (index, text) in [b"from one", b"from two", b"more one", b"more two"].iter().enumerate() {
        buckets[index % 2].add(*text);
        eventually("the item arrives", || buckets[(index + 1) % 2].has(*text));
    }
    eventually("both stand on one version", || buckets[0].head() == buckets[1].head());
    assert!(buckets.iter().all(FakeBucket::is_waited_for));
}

/// As right after a join, if the other one has the bucket and has not opened it.
#[test]
fn a_device_that_has_not_opened_the_bucket_is_said_to_be_just_that() {
    let (peers, buckets) = members(2);
    peers[1].net.withdraw(&name());
    peers[0].knows(&peers[1]);
    let error = || peers[0].net.peers()[0].last_error.clone().map(|(why, _)| why);
    eventually("it is said", || {
        error().is_some_and(|why| why.ends_with("it has not opened a bucket that both have"))
    });
    peers[1].serve(&buckets[1]);
    eventually("they meet", || peers[0].shares_with(&peers[1]));
}

#[test]
fn what_was_changed_apart_is_merged_on_both() {
    let (peers, buckets) = members(2);
    buckets[0].add(b"here");
    buckets[1].add(b"there");
    peers[1].knows(&peers[0]);
    for bucket in &buckets {
        eventually("both items are there", || bucket.has(b"here") && bucket.has(b"there"));
    }
    assert_eq!(peers[0].sync().unwrap().peers, 1);
    assert_eq!(peers[1].sync().unwrap().peers, 1);
}

#[test]
fn two_who_never_meet_sync_through_a_third() {
    let (peers, buckets) = members(3);
    // As behind two routers: they are told of each other, and cannot be reached.
    for outer in [&peers[0], &peers[2]] {
        outer.net.listener.stop();
        outer.knows(&peers[1]);
    }
    buckets[0].add(b"from a");
    buckets[2].add(b"from c");
    eventually("c has what a wrote", || buckets[2].has(b"from a"));
    eventually("a has what c wrote", || buckets[0].has(b"from c"));
    assert!(!peers[0].is_connected_to(&peers[2]));
}

#[test]
fn two_that_dial_each_other_at_once_keep_one_connection() {
    let (peers, buckets) = members(2);
    peers[0].knows(&peers[1]);
    peers[1].knows(&peers[0]);
    for round in 0..10_u8 {
        buckets[usize::from(round) % 2].add(&[round; 8]);
        let other = &buckets[usize::from(round + 1) % 2];
        eventually("the item arrives", || other.has(&[round; 8]));
    }
    // Of a connection that is kept, once none is being made any more: whether it was dialled here.
    let kept = |peer: &Peer| {
        let roster = peer.net.roster.lock();
        let is_made = roster.contacts.values().any(|it| it.busy || it.next.is_some());
        roster.sessions.values().next().filter(|_| !is_made).map(|session| session.dialled)
    };
    let same_one = || matches!([0, 1].map(|it| kept(&peers[it])), [Some(a), Some(b)] if a != b);
    eventually("they keep the same one", same_one);
    for (here, there) in [(0, 1), (1, 0)] {
        buckets[here].add(&[10, u8::from(here == 0)]);
        eventually("the item arrives", || buckets[there].has(&[10, u8::from(here == 0)]));
    }
    assert!(same_one(), "and go on with it");
    // As when one announces itself while it is connected: there is nothing to try.
    peers[0].knows(&peers[1]);
    assert_eq!(peers[0].net.peers()[0].next_try, None);
    assert_eq!(peers[0].net.roster.lock().contacts[&peers[1].key()].next, None);
}

#[test]
fn a_device_that_was_started_anew_is_back_at_once() {
    let (mut peers, buckets) = members(2);
    peers[0].knows(&peers[1]);
    eventually("connected", || peers[0].is_connected() && peers[1].is_connected());
    buckets[1].add(b"before");
    // It listens at another port now, and tells the other one when it dials.
    peers[1].restart();
    peers[1].serve(&buckets[1]);
    buckets[1].add(b"after");
    eventually("the item arrives", || buckets[0].has(b"after"));
}

#[test]
fn only_what_is_lacking_is_sent() {
    let (peers, buckets) = members(2);
    let many: Vec<_> = (0..3000_u32).map(|n| n.to_le_bytes().to_vec()).collect();
    buckets[0].add_all(&many);
    peers[1].knows(&peers[0]);
    eventually("all arrive", || buckets[1].has(&many[2999]) && buckets[1].has(&many[0]));
    let before = buckets[0].given().len();
    assert!(before >= 3001, "{before}");
    buckets[0].add(b"one more");
    eventually("it arrives", || buckets[1].has(b"one more"));
    assert!(buckets[0].given().len() <= before + 4, "one version and one item, and a little");
}

#[test]
fn what_came_before_a_cut_is_not_sent_again() {
    let (peers, buckets) = members(2);
    let large: Vec<_> = (0..64_u8).map(|n| vec![n; 300_000]).collect();
    buckets[0].add_all(&large);
    buckets[0].hold_after(50);
    peers[1].knows(&peers[0]);
    eventually("some arrive", || buckets[0].given().len() == 50 && buckets[1].blobs() > 30);
    // Of two connections that cross one is cut, and what is on its way there sent again.
    peers[1].net.listener.stop();
    for session in peers[0].net.roster.lock().sessions.values() {
        session.end(crate::net::Ended::Gone);
    }
    buckets[0].hold(false);
    eventually("all arrive", || large.iter().all(|item| buckets[1].has(item)));
    assert!(buckets[1].fetches() >= 2);
    // What was on its way may be sent twice.
    let given = buckets[0].given().len();
    assert!(given < 64 + 45, "{given} of 64 items were given");
}

#[test]
fn much_in_both_directions_at_once_locks_nobody_up() {
    let (peers, buckets) = members(2);
    for (which, bucket) in buckets.iter().enumerate() {
        let item = |n| [vec![n, u8::from(which == 0)], vec![9; 200_000]].concat();
        bucket.add_all(&(0..100).map(item).collect::<Vec<_>>());
    }
    peers[0].knows(&peers[1]);
    let last = |which: u8| [vec![99, which], vec![9; 200_000]].concat();
    eventually("all arrive", || buckets[0].has(&last(0)) && buckets[1].has(&last(1)));
    assert_eq!(peers[0].sync().unwrap().peers, 1);
}

#[test]
fn a_blob_as_large_as_they_get_arrives() {
    let (peers, buckets) = members(2);
    let largest = vec![5; 16 << 20];
    buckets[0].add(&largest);
    peers[0].knows(&peers[1]);
    eventually("it arrives", || buckets[1].has(&largest));
}

/// Found with two daemons: the bound of what may come was taken before the wait for it, when
/// nothing had been asked for yet.
#[test]
fn an_answer_may_be_long_though_it_is_the_first_thing_that_comes() {
    for _ in 0..10 {
        let (peers, buckets) = members(2);
        let items: Vec<_> = (0..40_u8).map(|n| vec![n; 60_000]).collect();
        buckets[0].add_all(&items);
        peers[1].knows(&peers[0]);
        eventually("all arrive", || items.iter().all(|item| buckets[1].has(item)));
        let error = peers[1].net.peers()[0].last_error.clone();
        assert!(error.is_none_or(|(error, _)| !error.contains("a message of")));
    }
}

#[test]
fn a_full_disk_is_said_and_tried_again() {
    let (peers, buckets) = members(2);
    buckets[1].set_fails(Some(CoreError::NoSpace));
    buckets[0].add(b"no room for this");
    peers[0].knows(&peers[1]);
    eventually("connected", || peers[1].is_connected());
    eventually("it is said", || peers[1].sync().is_err_and(|err| err.code == Code::NoSpace));
    buckets[1].set_fails(None);
    eventually("it arrives", || buckets[1].has(b"no room for this"));
}

#[test]
fn sync_ends_when_a_peer_says_that_it_cannot_store_what_it_is_sent() {
    let (peers, buckets) = members(3);
    buckets[1].set_fails(Some(CoreError::NoSpace));
    buckets[0].add(b"no room for this");
    peers[0].knows(&peers[1]);
    eventually("connected", || peers[0].is_connected());
    let failure = peers[0].sync().unwrap_err();
    assert_eq!(failure.code, Code::Failed);
    assert!(failure.message.contains("it has no space left"), "{}", failure.message);
    // One that can still be met is waited for, and in the meantime it is said what is wrong.
    buckets[2].set_endless(true);
    peers[0].knows(&peers[2]);
    eventually("both share it", || peers[0].net.served(&name()).unwrap().sides().len() == 2);
    let mut said = None;
    let stopped =
        peers[0].net.sync(Some(&name()), Some(Instant::now() + PATIENCE), &mut |progress| {
            if let crate::net::SyncProgress::Waiting { why: Some(why), .. } = progress {
                said = Some(why);
            }
            said.is_none()
        });
    assert_eq!(stopped.unwrap_err().code, Code::Interrupted);
    assert!(said.unwrap().contains("no space left"));
    buckets[2].set_endless(false);
    buckets[1].set_fails(None);
    eventually("all have it", || peers[0].sync().is_ok_and(|met| met.peers == 2));
    assert!(buckets[1].has(b"no room for this"));
}

/// Who waits hears why it waits in vain, in one line.
#[test]
fn who_publishes_hears_why_a_peer_does_not_take_it() {
    let rejected = || CoreError::Rejected { why: "as a test wants it".into() };
    let damaged = || CoreError::Damaged { what: "as a test wants it".into() };
    for (err, says) in [
        (rejected(), "it does not believe what was published here"),
        (CoreError::ReadOnly { reason: "as a test wants it" }, "it is read-only there"),
        (damaged(), "it cannot store what was published here"),
    ] {
        let (peers, buckets) = members(2);
        buckets[1].set_fails(Some(err));
        buckets[0].add(b"not taken");
        peers[0].knows(&peers[1]);
        eventually("connected", || peers[0].is_connected());
        let failure = peers[0].sync().unwrap_err();
        assert_eq!(failure.code, Code::Failed);
        assert!(failure.message.contains(says), "{}", failure.message);
        assert!(failure.message.contains(&peers[1].key().to_string()), "{}", failure.message);
        // The next one is another matter.
        buckets[1].set_fails(None);
        buckets[0].add(b"taken");
        eventually("it arrives", || buckets[1].has(b"taken"));
    }
}

#[test]
fn what_a_peer_could_not_give_once_is_asked_for_again() {
    let (peers, buckets) = members(2);
    buckets[0].set_lost(Some(b"lost"));
    buckets[0].add(b"lost");
    peers[0].knows(&peers[1]);
    eventually("it is said", || {
        let error = peers[1].net.peers()[0].last_error.clone();
        error.is_some_and(|(why, _)| why.contains("does not give what it says it has"))
    });
    let failure = peers[1].sync().unwrap_err();
    assert!(failure.message.contains("does not give what it says"), "{}", failure.message);
    buckets[0].set_lost(None);
    assert_eq!(peers[1].sync().unwrap().peers, 1);
    assert!(buckets[1].has(b"lost"));
    assert_eq!(peers[0].sync().unwrap().peers, 1);
    // Also if it is the one that could not give it who asks.
    buckets[0].set_lost(Some(b"again"));
    buckets[0].add(b"again");
    let failure = peers[0].sync().unwrap_err();
    assert!(failure.message.contains("it did not get all of"), "{}", failure.message);
    buckets[0].set_lost(None);
    assert_eq!(peers[0].sync().unwrap().peers, 1);
    assert!(buckets[1].has(b"again"));
}

#[test]
fn what_a_peer_cannot_give_for_a_moment_comes_without_being_asked_to() {
    let gone = CoreError::Io("too many open files".into());
    let damaged = CoreError::Damaged { what: "as a test wants it".into() };
    for (nth, how) in [gone, damaged].into_iter().enumerate() {
        let (peers, buckets) = members(2);
        buckets[0].add(b"not given at once");
        buckets[0].fail_once(how);
        peers[0].knows(&peers[1]);
        eventually("it is said", || {
            let error = peers[1].net.peers()[0].last_error.clone();
            error.is_some_and(|(why, _)| why.contains("does not give what it says it has"))
        });
        eventually("it arrives", || buckets[1].has(b"not given at once"));
        let met = || peers[0].net.peers()[0].step(&name()).unwrap().is_in_step();
        eventually("they are in step", met);
        assert_eq!(buckets[1].fetches(), 2, "error {nth}");
    }
}

#[test]
fn a_peer_whose_version_cannot_be_stored_here_keeps_no_others_waiting() {
    let (peers, buckets) = members(3);
    // The one that is first in order has what is too large.
    let (large, small) = if peers[1].key() < peers[2].key() { (1, 2) } else { (2, 1) };
    for index in [0, small] {
        buckets[index].set_too_large(b"too large");
    }
    buckets[large].add(b"too large");
    peers[0].knows(&peers[large]);
    let large_key = peers[large].key();
    let said = || {
        let peers = peers[0].net.peers().into_iter().filter(|it| it.key == large_key);
        peers.filter_map(|it| it.last_error).any(|(why, _)| why.contains("no space"))
    };
    eventually("it is said of that peer", said);
    peers[0].knows(&peers[small]);
    for item in [b"one", b"two"] {
        buckets[small].add(item);
        eventually("what the other has comes", || buckets[0].has(item));
    }
    assert!(!buckets[0].has(b"too large"));
    let failure = peers[0].sync().unwrap_err();
    assert_eq!(failure.code, Code::NoSpace, "{}", failure.message);
}

#[test]
fn a_long_fetch_keeps_no_news_and_no_new_member_waiting() {
    let (peers, buckets) = members(3);
    peers[2].knows(&peers[0]);
    eventually("the third one is there", || peers[0].is_connected_to(&peers[2]));
    buckets[1].add(b"long in coming");
    buckets[1].hold(true);
    peers[0].knows(&peers[1]);
    eventually("it is being fetched", || buckets[0].fetches() > 0);
    buckets[0].add(b"published meanwhile");
    eventually("it is announced", || buckets[2].has(b"published meanwhile"));
    let new = Peer::new();
    buckets[0].set_member(new.key(), "new", Some(Role::Writer)).unwrap();
    new.serve(&buckets[0].copy_for(new.key()));
    new.knows(&peers[0]);
    eventually("the new one meets the others", || new.is_connected_to(&peers[2]));
    assert!(!buckets[0].has(b"long in coming"));
    buckets[1].hold(false);
    eventually("the fetch goes on", || buckets[0].has(b"long in coming"));
    assert!(peers[0].net.peers().iter().all(|peer| peer.last_error.is_none()));
}

#[test]
fn nothing_is_said_between_idle_peers_but_a_keep_alive() {
    let (peers, buckets) = members(2);
    peers[0].knows(&peers[1]);
    buckets[0].add(b"x");
    eventually("the item arrives", || buckets[1].has(b"x"));
    assert_eq!(peers[0].sync().unwrap().peers, 1);
    let sent = || peers[0].net.peers()[0].sent_bytes;
    // The last of what they have to say of their meeting may be on its way.
    let (mut began, mut before) = (Instant::now(), sent());
    eventually("nothing is said any more", || {
        let (now, sent) = (Instant::now(), sent());
        if sent != before {
            (began, before) = (now, sent);
        }
        now - began >= QUICK.keep_alive / 5
    });
    thread::sleep(QUICK.keep_alive * 3);
    let more = sent() - before;
    let pings = began.elapsed().as_millis() / QUICK.keep_alive.as_millis() + 1;
    assert!(more <= u64::try_from(pings).unwrap() * 40, "{more} bytes in {pings} keep-alives");
    assert!(more > 0 && peers[1].is_connected());
}

#[test]
fn nobody_to_sync_with_is_its_own_error() {
    let (peers, _buckets) = members(2);
    let failure = peers[0].sync().unwrap_err();
    assert_eq!(failure.code, Code::NoPeer);
    // Also if there was no time to look for all.
    let at_once = peers[0].net.sync(Some(&name()), Some(Instant::now()), &mut |_| true);
    assert_eq!(at_once.unwrap_err().code, Code::NoPeer);
    let alone = Peer::new();
    alone.serve(&FakeBucket::create(alone.key(), 1));
    let failure = alone.sync().unwrap_err();
    assert!(failure.message.contains("no other device has the bucket"), "{}", failure.message);
    let other = "other".parse().unwrap();
    let failure = alone.net.sync(Some(&other), None, &mut |_| true).unwrap_err();
    assert_eq!(failure.code, Code::NotFound);
}

#[test]
fn a_withdrawn_bucket_is_used_no_more() {
    let (peers, buckets) = members(2);
    peers[0].knows(&peers[1]);
    eventually("connected", || peers[1].is_connected());
    let weak = Arc::downgrade(&peers[0].net.roster.lock().offered[&name()]);
    peers[0].net.withdraw(&name());
    assert!(weak.upgrade().is_none_or(|offered| offered.is_closed()));
    buckets[0].add(b"not told");
    eventually("the connection ends", || !peers[0].is_connected() && !peers[1].is_connected());
    assert!(!buckets[1].has(b"not told"));
    peers[0].serve(&buckets[0]);
    eventually("it is told when it is served again", || buckets[1].has(b"not told"));
}

/// Withdraws the bucket when it is dropped, so that nobody waits for it if the test has failed.
struct Withdrawn<'a>(&'a Peer);

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        self.0.net.withdraw(&name());
    }
}

#[test]
fn a_bucket_can_be_withdrawn_while_all_of_it_is_read() {
    let (peers, buckets) = members(2);
    peers[0].knows(&peers[1]);
    eventually("they meet", || peers[1].sync().is_ok_and(|met| met.peers == 1));
    buckets[0].set_endless(true);
    let fetches = buckets[0].fetches();
    let failure = thread::scope(|scope| {
        let mend = || peers[0].net.mend(&name(), &mut |_| true);
        let mending = thread::Builder::new().name("mend".into()).spawn_scoped(scope, mend).unwrap();
        let withdrawn = Withdrawn(&peers[0]);
        eventually("it is read", || buckets[0].fetches() > fetches);
        drop(withdrawn);
        mending.join().unwrap().unwrap_err()
    });
    assert!(failure.message.contains("was unmounted meanwhile"), "{}", failure.message);
}

#[test]
fn a_bucket_whose_thread_panicked_can_be_withdrawn_and_is_shared_no_more() {
    let (peers, buckets) = members(2);
    peers[0].knows(&peers[1]);
    eventually("they meet", || peers[1].sync().is_ok_and(|met| met.peers == 1));
    buckets[0].set_panics();
    buckets[1].add(b"one that it panics at");
    let offered = Arc::clone(&peers[0].net.roster.lock().offered[&name()]);
    eventually("it is closed", || offered.is_closed());
    eventually("the connection ends", || !peers[0].is_connected() && !peers[1].is_connected());
    let failure = peers[0].sync().unwrap_err();
    assert!(failure.message.contains("not shared any more"), "{}", failure.message);
    peers[0].net.withdraw(&name());
}

#[test]
fn a_connection_that_has_ended_takes_no_place_of_a_newer_one() {
    let (peers, _buckets) = members(2);
    peers[0].knows(&peers[1]);
    let session = || peers[0].net.roster.lock().sessions.values().next().cloned();
    eventually("connected", || session().is_some());
    let old = session().unwrap();
    old.end(crate::net::Ended::Gone);
    let offered = Arc::clone(&peers[0].net.roster.lock().offered[&name()]);
    let is_new = |it: &Arc<crate::net::Session>| !Arc::ptr_eq(it, &old);
    let new_side = || matches!(&offered.sides()[..], [side] if is_new(&side.session));
    eventually("connected anew", new_side);
    // As when a member's change is looked at just then.
    offered.link(&old, 0);
    assert!(offered.sides().iter().all(|side| is_new(&side.session)));
}

#[test]
fn an_address_that_a_peer_names_is_tried_after_one_where_it_was_found() {
    let (peers, _buckets) = members(2);
    let found = "127.0.0.1:9".parse().unwrap();
    peers[0].net.addresses.found(&peers[1].key(), found);
    peers[1].knows(&peers[0]);
    let known = || peers[0].net.addresses.of(&peers[1].key());
    eventually("it is named", || known().len() == 2);
    assert_eq!(known(), [found, peers[1].address()]);
}

#[test]
fn a_taken_port_is_said_if_it_was_asked_for() {
    let taken = Peer::new();
    let dir = tempfile::tempdir().unwrap();
    let home = Home::locate(Some(dir.path())).unwrap();
    home.prepare().unwrap();
    let device = Arc::new(DeviceKey::generate().unwrap());
    let options = NetOptions { listen: Some(taken.address()), ..NetOptions::default() };
    let failure = Net::start_with(&home, device, options, QUICK).unwrap_err();
    assert_eq!(failure.code, Code::InUse);
    assert!(failure.message.contains("the port is in use"), "{}", failure.message);
}

#[test]
fn a_device_without_the_address_at_which_it_is_to_listen_starts_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::locate(Some(dir.path())).unwrap();
    home.prepare().unwrap();
    let device = Arc::new(DeviceKey::generate().unwrap());
    // One for documentation: no machine has it.
    let listen = Some("192.0.2.1:1".parse().unwrap());
    let options = NetOptions { listen, ..NetOptions::default() };
    let net = Net::start_with(&home, Arc::clone(&device), options, QUICK).unwrap();
    let bucket = FakeBucket::create(device.public(), 1);
    bucket.set_member(PeerKey([9; 32]), "somebody", Some(Role::Writer)).unwrap();
    serve(&net, &bucket);
    // It listens nowhere else, and says so.
    assert_eq!(net.listening(), None);
    assert!(net.not_listening().unwrap().contains("no address 192.0.2.1"));
    let failure = net.invite(&name(), Role::Writer, Duration::from_secs(60), 1).unwrap_err();
    assert!(failure.message.contains("no address 192.0.2.1"), "{}", failure.message);
    net.stop();
}

#[test]
fn a_device_listens_once_it_has_the_address_at_which_it_is_to() {
    let mut peer = Peer::new();
    let port = own_port();
    peer.restart_at(port);
    let address = peer.address();
    // As it was before there was that address.
    peer.net.listener.stop();
    let mut roster = peer.net.roster.lock();
    roster.listening = None;
    drop(roster);
    peer.net.listen_again();
    assert_eq!((peer.net.listening(), peer.net.not_listening()), (Some(address), None));
    peer.net.listener.stop();
    let mut roster = peer.net.roster.lock();
    (roster.listening, roster.listen_again) = (None, Some(Instant::now() + QUICK.trouble));
    drop(roster);
    peer.net.wake.notify_all();
    eventually("it listens", || peer.net.listening() == Some(address));
}

#[test]
fn those_that_were_not_reached_are_named() {
    let (peers, _buckets) = members(3);
    peers[0].knows(&peers[1]);
    peers[2].net.stop();
    eventually("one is reached", || peers[0].shares_with(&peers[1]));
    let met = peers[0].sync().unwrap();
    assert_eq!((met.peers, met.unreached), (1, vec!["member".to_owned()]));
}

#[test]
fn who_has_invited_somebody_listens_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::locate(Some(dir.path())).unwrap();
    home.prepare().unwrap();
    let device = Arc::new(DeviceKey::generate().unwrap());
    let net = Net::start_with(&home, Arc::clone(&device), NetOptions::default(), QUICK).unwrap();
    serve(&net, &FakeBucket::create(device.public(), 1));
    assert_eq!(net.listening(), None);
    net.addresses.set_port(own_port());
    net.invite(&name(), Role::Writer, Duration::from_millis(1), 1).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], net.listening().unwrap().port()));
    // The invitation is over, and nothing is served: the port is kept all the same.
    thread::sleep(Duration::from_millis(2));
    net.withdraw(&name());
    std::net::TcpStream::connect(address).unwrap();
    net.stop();
    assert!(std::net::TcpStream::connect(address).is_err());
}

/// A device that may listen anywhere, and serves a bucket of its own. Its home goes with the directory.
fn serving_alone() -> (TempDir, Home, Arc<DeviceKey>, Arc<Net>, FakeBucket) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::locate(Some(dir.path())).unwrap();
    home.prepare().unwrap();
    let device = Arc::new(DeviceKey::generate().unwrap());
    let net = Net::start_with(&home, Arc::clone(&device), NetOptions::default(), QUICK).unwrap();
    let bucket = FakeBucket::create(device.public(), 1);
    serve(&net, &bucket);
    (dir, home, device, net, bucket)
}

#[test]
fn nothing_listens_while_nothing_is_shared() {
    let (_dir, home, device, net, bucket) = serving_alone();
    eventually("it is served", || !net.roster.lock().offered.is_empty());
    assert_eq!(net.listening(), None);
    let port = own_port();
    net.addresses.set_port(port);
    bucket.set_member(PeerKey([9; 32]), "somebody", Some(Role::Writer)).unwrap();
    eventually("it listens", || net.listening().is_some());
    net.stop();
    // And then at the port of last time.
    let net = Net::start_with(&home, device, NetOptions::default(), QUICK).unwrap();
    serve(&net, &bucket);
    eventually("it listens", || net.listening().is_some());
    assert_eq!(net.listening().unwrap().port(), port);
    net.stop();
}

#[test]
fn a_device_that_shares_something_and_gets_no_port_does_not_say_that_nothing_is_shared() {
    let (_dir, _home, _device, net, bucket) = serving_alone();
    assert_eq!(net.not_listening(), None, "it is not to");
    bucket.set_member(PeerKey([9; 32]), "somebody", Some(Role::Writer)).unwrap();
    eventually("it is shared", || !net.roster.lock().contacts.is_empty());
    assert_eq!(net.not_listening(), None);
    // As if all had been taken.
    let address = net.roster.lock().listening.take();
    assert_eq!(net.not_listening().unwrap(), "no port can be had to be reached at");
    net.roster.lock().listening = address;
    net.stop();
}

#[test]
fn what_went_wrong_is_not_said_any_more_once_it_has_gone_well() {
    let (peers, buckets) = members(2);
    let said = || peers[1].net.peers()[0].last_error.clone().map(|(why, _)| why);
    let nobody: SocketAddr = (Ipv4Addr::LOCALHOST, own_port()).into();
    peers[1].net.addresses.add(&peers[0].key(), &[nobody]);
    peers[1].net.roster.lock().hurry(&peers[0].key());
    peers[1].net.wake.notify_all();
    eventually("nobody is there", || said().is_some_and(|why| why.contains(&nobody.to_string())));
    peers[1].knows(&peers[0]);
    eventually("it is reached", || peers[1].is_connected_to(&peers[0]));
    assert_eq!(said(), None);
    buckets[1].set_fails(Some(CoreError::NoSpace));
    buckets[0].add(b"too much");
    eventually("there is no space", || said().is_some_and(|why| why.contains("no space")));
    buckets[1].set_fails(None);
    eventually("there is space", || buckets[1].has(b"too much"));
    eventually("that is over", || said().is_none());
}
