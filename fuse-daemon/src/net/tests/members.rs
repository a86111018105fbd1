//! Who gets what.

use super::*;
use crate::{exit::Code, net::JoinProgress};

const HOUR: Duration = Duration::from_secs(3600);

/// A device that has a bucket alone.
fn owner() -> (Peer, FakeBucket) {
    let peer = Peer::new();
    let bucket = FakeBucket::create(peer.key(), 7);
    peer.serve(&bucket);
    (peer, bucket)
}

fn join(peer: &Peer, ticket: &str) -> crate::exit::Result<crate::net::joining::Joining> {
    peer.net.join(ticket, &mut |_: JoinProgress| true)
}

#[test]
fn a_device_with_a_ticket_becomes_a_member_and_gets_the_bucket() {
    let (inviter, bucket) = owner();
    let invite = inviter.net.invite(&name(), Role::Writer, HOUR, 1).unwrap();
    let invited = Peer::new();
    let joining = join(&invited, &invite.ticket).unwrap();
    assert_eq!(joining.suggested(), Some(name()));
    assert_eq!(joining.bucket(), bucket.bucket_id());
    let member = bucket.members().into_iter().find(|member| member.key == invited.key()).unwrap();
    assert_eq!((member.role, &*member.name), (Role::Writer, "a test"));
    // What comes next is done by `finish_join` with a real bucket.
    let secrets = bucket.secrets(&[]).iter().map(|(epoch, it)| (*epoch, **it)).collect::<Vec<_>>();
    let theirs = FakeBucket::empty(invited.key(), 7, &secrets);
    invited.net.addresses.set_inviter(theirs.bucket_id(), &inviter.key());
    invited.serve(&theirs);
    eventually("the first version comes", || theirs.has(b"root"));
    theirs.add(b"hello");
    eventually("and goes back", || bucket.has(b"hello"));
}

#[test]
fn a_ticket_that_is_no_good_is_refused_with_a_plain_line() {
    let (inviter, _bucket) = owner();
    let line =
        |role, lifetime, uses| inviter.net.invite(&name(), role, lifetime, uses).unwrap().ticket;
    let once = line(Role::Reader, HOUR, 1);
    let [first, second] = [Peer::new(), Peer::new()];
    assert!(join(&first, &once).is_ok());
    assert!(join(&first, &once).is_ok(), "its first try might have been cut");
    let late = line(Role::Writer, Duration::ZERO, 1);
    let mut mistyped = line(Role::Writer, HOUR, 1);
    let letter = if mistyped.ends_with('a') { 'b' } else { 'a' };
    mistyped.pop();
    mistyped.push(letter);
    // Another device answers where the one should be that made this ticket.
    let other = {
        let (gone, bucket) = owner();
        let ticket = gone.net.invite(&name(), Role::Writer, HOUR, 1).unwrap().ticket;
        drop((gone, bucket));
        ticket
    };
    for (ticket, code, says) in [
        (&*once, Code::WrongKey, "used up"),
        (&*late, Code::WrongKey, "expired"),
        (&*mistyped, Code::WrongKey, "mistyped"),
        ("photos", Code::WrongKey, "no ticket"),
        (&*other, Code::NoPeer, "cannot reach"),
    ] {
        let failure = join(&second, ticket).unwrap_err();
        assert_eq!(failure.code, code, "{}", failure.message);
        assert!(failure.message.contains(says), "{}", failure.message);
    }
    let own = join(&inviter, &line(Role::Writer, HOUR, 1)).unwrap_err();
    assert!(own.message.contains("by this device"), "{}", own.message);
}

#[test]
fn a_ticket_that_is_presented_again_in_vain_lets_nobody_else_in() {
    let (inviter, bucket) = owner();
    let ticket = inviter.net.invite(&name(), Role::Writer, HOUR, 1).unwrap().ticket;
    let [first, second] = [Peer::new(), Peer::new()];
    assert!(join(&first, &ticket).is_ok());
    inviter.net.withdraw(&name());
    assert_eq!(join(&first, &ticket).unwrap_err().code, Code::NoPeer);
    inviter.serve(&bucket);
    let failure = join(&second, &ticket).unwrap_err();
    assert!(failure.message.contains("used up"), "{}", failure.message);
    assert!(bucket.members().iter().all(|member| member.key != second.key()));
    assert!(join(&first, &ticket).is_ok());
}

#[test]
fn a_ticket_makes_no_member_again_of_who_was_removed_by_another_owner() {
    let (inviter, bucket) = owner();
    let ticket = inviter.net.invite(&name(), Role::Writer, HOUR, 3).unwrap().ticket;
    let [removed, other] = [Peer::new(), Peer::new()];
    assert!(join(&removed, &ticket).is_ok());
    // The inviter hears of it as of any change that was merged.
    bucket.set_member(removed.key(), "", None).unwrap();
    let failure = join(&removed, &ticket).unwrap_err();
    assert!(failure.message.contains("used up"), "{}", failure.message);
    assert!(bucket.members().iter().all(|member| member.key != removed.key()));
    // It may come with another key.
    let failure = join(&other, &ticket).unwrap_err();
    assert!(failure.message.contains("does not know it any more"), "{}", failure.message);
    assert!(bucket.members().iter().all(|member| member.key != other.key()));
}

#[test]
fn a_removed_device_comes_back_by_a_ticket_that_was_made_knowing_of_it() {
    let (inviter, bucket) = owner();
    let ticket = || inviter.net.invite(&name(), Role::Writer, HOUR, 3).unwrap().ticket;
    let (first, unused) = (ticket(), ticket());
    let removed = Peer::new();
    let refused = |ticket: &str| {
        let failure = join(&removed, ticket).unwrap_err();
        assert_eq!(failure.code, Code::WrongKey);
        assert!(failure.message.contains("from before that"), "{}", failure.message);
        assert!(bucket.members().iter().all(|member| member.key != removed.key()));
    };
    assert!(join(&removed, &first).is_ok());
    bucket.set_member(removed.key(), "", None).unwrap();
    refused(&unused);
    let anew = ticket();
    assert!(join(&removed, &anew).is_ok());
    // Another time it is another removal.
    let unused = ticket();
    bucket.set_member(removed.key(), "", None).unwrap();
    refused(&unused);
    assert!(join(&removed, &ticket()).is_ok());
}

#[test]
fn an_invitation_outlives_a_restart_but_needs_its_bucket() {
    let (mut inviter, bucket) = owner();
    let port = own_port();
    inviter.restart_at(port);
    inviter.serve(&bucket);
    let ticket = inviter.net.invite(&name(), Role::Writer, HOUR, 1).unwrap().ticket;
    inviter.restart_at(port);
    let invited = Peer::new();
    let failure = join(&invited, &ticket).unwrap_err();
    assert_eq!(failure.code, Code::NoPeer);
    assert!(failure.message.contains("mount it there"), "{}", failure.message);
    inviter.serve(&bucket);
    assert!(join(&invited, &ticket).is_ok(), "the try before did not use it up");
}

#[test]
fn only_an_owner_invites_and_only_to_what_is_there() {
    let (peers, _buckets) = members(2);
    let failure = peers[1].net.invite(&name(), Role::Writer, HOUR, 1).unwrap_err();
    assert!(failure.message.contains("only an owner"), "{}", failure.message);
    let other = "other".parse().unwrap();
    let failure = peers[0].net.invite(&other, Role::Writer, HOUR, 1).unwrap_err();
    assert_eq!(failure.code, Code::NotFound);
}

#[test]
fn a_removed_member_gets_nothing_more_and_cannot_come_back() {
    let (peers, buckets) = members(2);
    peers[0].knows(&peers[1]);
    peers[1].knows(&peers[0]);
    eventually("they share it", || peers[1].shares_with(&peers[0]));
    assert_eq!(peers[1].sync().unwrap().peers, 1);
    buckets[0].set_member(peers[1].key(), "", None).unwrap();
    buckets[0].add(b"not for you");
    eventually("the connection ends", || !peers[0].is_connected() && !peers[1].is_connected());
    let failure = peers[1].sync().unwrap_err();
    assert_eq!(failure.code, Code::NoPeer);
    let said = "this device was removed from bucket 'shared' by its members";
    assert!(failure.message.contains(said), "{}", failure.message);
    assert!(!buckets[1].has(b"not for you"));
}

#[test]
fn a_removed_member_knows_it_also_after_a_restart_until_it_is_one_again() {
    let (mut peers, buckets) = members(3);
    peers[1].knows(&peers[0]);
    let removed_from = |peer: &Peer| {
        let peers = peer.net.peers();
        peers.into_iter().flat_map(|peer| peer.removed_from).collect::<Vec<_>>()
    };
    eventually("connected", || peers[1].is_connected());
    assert!(removed_from(&peers[1]).is_empty());
    let key = peers[1].key();
    buckets[0].set_member(key, "", None).unwrap();
    eventually("it is told", || removed_from(&peers[1]) == [name()]);
    peers[1].restart();
    peers[1].serve(&buckets[1]);
    assert_eq!(removed_from(&peers[1]), [name()]);
    buckets[0].set_member(key, "again", Some(Role::Writer)).unwrap();
    peers[1].knows(&peers[0]);
    eventually("it is a member again", || removed_from(&peers[1]).is_empty());
    // Who never was one hears nothing.
    let stranger = Peer::new();
    stranger.serve(&buckets[0].copy_for(stranger.key()));
    stranger.knows(&peers[0]);
    eventually("it is refused", || {
        let peers = stranger.net.peers();
        peers.iter().any(|peer| peer.last_error.is_some())
    });
    assert!(removed_from(&stranger).is_empty());
}

#[test]
fn a_new_member_is_known_to_all_and_gets_new_secrets() {
    let (peers, buckets) = members(2);
    peers[0].knows(&peers[1]);
    let third = Peer::new();
    buckets[0].set_member(third.key(), "third", Some(Role::Writer)).unwrap();
    buckets[0].rotate();
    buckets[0].add(b"under a new secret");
    eventually("the second has it", || buckets[1].has(b"under a new secret"));
    let theirs = FakeBucket::empty(third.key(), 7, &[(0, [7; 32])]);
    third.net.addresses.set_inviter(theirs.bucket_id(), &peers[1].key());
    third.serve(&theirs);
    third.knows(&peers[1]);
    eventually("the third has it, through the second", || theirs.has(b"under a new secret"));
    assert_eq!(theirs.epochs(), [0, 1]);
}

#[test]
fn what_a_reader_publishes_is_rejected_and_not_asked_for_again() {
    let (peers, buckets) = members(2);
    buckets[0].set_member(peers[1].key(), "reader", Some(Role::Reader)).unwrap();
    peers[0].knows(&peers[1]);
    eventually("they meet", || buckets[0].head() == buckets[1].head());
    // So that a connection that was cut is made anew by one of them: of two that cross one is cut again.
    peers[0].net.listener.stop();
    buckets[1].add(b"from a reader");
    eventually("it is said", || {
        let peers = peers[0].net.peers();
        peers[0].last_error.as_ref().is_some_and(|(why, _)| why.contains("may not write"))
    });
    assert!(!buckets[0].has(b"from a reader"));
    // Who wants it looked at again has just that.
    let fetches = buckets[0].fetches();
    assert!(peers[0].sync().unwrap_err().message.contains("was rejected"));
    assert_eq!(buckets[0].fetches(), fetches + 1);
    let fetches = fetches + 1;
    // It still gets what others write, and a new connection changes nothing.
    for session in peers[0].net.roster.lock().sessions.values() {
        session.end(crate::net::Ended::Gone);
    }
    buckets[0].add(b"from the owner");
    eventually("the reader reads", || buckets[1].has(b"from the owner"));
    eventually("connected", || peers[0].is_connected());
    assert!(!buckets[0].has(b"from a reader"));
    assert!(buckets[0].fetches() <= fetches + 1, "a merge of the reader's is a new version");
}

/// Waits until something is said of what another one has.
#[track_caller]
fn says(peer: &Peer, of: &Peer, what: &str) {
    eventually(what, || {
        let mut peers = peer.net.peers().into_iter().filter(|it| it.key == of.key());
        peers.any(|it| it.last_error.is_some_and(|(why, _)| why.contains(what)))
    });
}

#[test]
fn what_was_rejected_is_looked_at_again_when_its_author_may_write() {
    let (peers, buckets) = members(2);
    buckets[0].set_member(peers[1].key(), "reader", Some(Role::Reader)).unwrap();
    // It makes no other version by merging what it gets.
    buckets[1].set_fails(Some(CoreError::NoSpace));
    buckets[1].add(b"from a reader");
    peers[0].knows(&peers[1]);
    says(&peers[0], &peers[1], "its author may not write");
    buckets[0].set_member(peers[1].key(), "writer", Some(Role::Writer)).unwrap();
    eventually("it is believed", || buckets[0].has(b"from a reader"));
}

#[test]
fn what_was_rejected_is_looked_at_again_when_something_was_learnt_from_a_third() {
    let peers = [Peer::new(), Peer::new(), Peer::new()];
    let first = FakeBucket::create(peers[0].key(), 7);
    first.set_member(peers[1].key(), "member", Some(Role::Writer)).unwrap();
    first.set_member(peers[2].key(), "reader", Some(Role::Reader)).unwrap();
    let ours = first.copy_for(peers[1].key());
    first.set_member(peers[2].key(), "writer", Some(Role::Writer)).unwrap();
    let theirs = first.copy_for(peers[2].key());
    theirs.add(b"from a new writer");
    // It does not pass that on.
    first.set_fails(Some(CoreError::NoSpace));
    peers[1].serve(&ours);
    peers[2].serve(&theirs);
    peers[1].knows(&peers[2]);
    says(&peers[1], &peers[2], "its author may not write");
    peers[0].serve(&first);
    peers[1].knows(&peers[0]);
    eventually("it is believed", || ours.has(b"from a new writer"));
}

#[test]
fn what_was_rejected_is_looked_at_again_by_who_syncs() {
    let (peers, buckets) = members(2);
    buckets[1].set_fails(Some(CoreError::Rejected { why: "as a test wants it".into() }));
    buckets[0].add(b"not believed yet");
    peers[0].knows(&peers[1]);
    says(&peers[1], &peers[0], "was rejected");
    buckets[1].set_fails(None);
    assert_eq!(peers[1].sync().unwrap().peers, 1);
    assert!(buckets[1].has(b"not believed yet"));
}

#[test]
fn what_is_sealed_under_a_secret_that_is_not_given_comes_once_it_is() {
    let (peers, buckets) = members(2);
    buckets[0].rotate();
    buckets[0].keep_secrets(true);
    buckets[0].add(b"under a new secret");
    peers[0].knows(&peers[1]);
    says(&peers[1], &peers[0], "under a secret that the peer does not give");
    buckets[0].keep_secrets(false);
    eventually("it comes", || buckets[1].has(b"under a new secret"));
}

#[test]
fn who_knows_the_key_of_a_member_but_not_the_secret_shares_nothing() {
    let (peers, buckets) = members(2);
    let liar = Peer::new();
    // A member's device, with another bucket under the id of this one.
    buckets[0].set_member(liar.key(), "liar", Some(Role::Writer)).unwrap();
    let other = FakeBucket::create(liar.key(), 8);
    other.set_member(peers[0].key(), "victim", Some(Role::Writer)).unwrap();
    liar.serve(&other);
    liar.knows(&peers[0]);
    eventually("connected", || liar.is_connected() && peers[0].is_connected_to(&liar));
    other.add(b"forged");
    buckets[0].add(b"secret");
    // Who comes after the liar gets it, so the liar had its chance.
    peers[1].knows(&peers[0]);
    eventually("a rightful one has it", || buckets[1].has(b"secret"));
    // Only to whom it is shared with it is given.
    let sides = peers[0].net.served(&name()).unwrap().sides();
    assert!(!sides.is_empty() && sides.iter().all(|side| side.session.key == peers[1].key()));
    assert_eq!(other.given().len(), 0);
    assert!(!buckets[0].has(b"forged") && !other.has(b"secret"));
}
