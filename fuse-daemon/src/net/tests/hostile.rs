//! Peers that lie, stall, flood or send garbage: nothing is merged, nothing grows, and honest
//! peers are served meanwhile.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use super::*;
use crate::net::{
    frame,
    link::{LinkError, Patience},
    message::{Admission, Answer, Ask, Greeting, Knock, PROTOCOL, Say},
    opening::OpenError,
    session::Opened,
};

/// A victim with an honest peer beside it, and a hostile device that is a member if wanted.
pub(super) struct Scene {
    pub(super) peers: Vec<Peer>,
    pub(super) buckets: Vec<FakeBucket>,
    pub(super) hostile: Peer,
}

impl Scene {
    pub(super) fn new(is_member: bool) -> Self {
        Self::with(QUICK, is_member)
    }

    /// The victim soon gives up who says nothing; the hostile device is a member.
    pub(super) fn impatient() -> Self {
        Self::with(IMPATIENT, true)
    }

    pub(super) fn with(timing: Timing, is_member: bool) -> Self {
        let (mut peers, buckets) = members(2);
        peers[0].become_with(timing, &buckets[0]);
        peers[1].knows(&peers[0]);
        let hostile = Peer::new();
        if is_member {
            buckets[0].set_member(hostile.key(), "hostile", Some(Role::Writer)).unwrap();
        }
        eventually("the honest ones meet", || {
            peers[0].is_connected() && buckets[0].head() == buckets[1].head()
        });
        eventually("who is a member is known", || {
            is_member == peers[0].net.roster.lock().contacts.contains_key(&hostile.key())
        });
        Self { peers, buckets, hostile }
    }

    fn connect(&self) -> Opened {
        self.hostile.net.connect(self.peers[0].key(), self.peers[0].address()).unwrap()
    }

    /// A connection on which anything can be said.
    pub(super) fn admitted(&self) -> Opened {
        let mut opened = self.connect();
        opened.send(&Knock::Member { instance: [1; 16], port: None }).unwrap();
        let admission: Admission = opened.receive(1 << 20, Instant::now() + PATIENCE).unwrap();
        assert!(matches!(admission, Admission::Member { .. }));
        opened
    }

    /// An honest change still gets through in both directions.
    pub(super) fn honest_go_on(&self, text: &str) {
        let there = format!("{text}, there");
        self.buckets[0].add(text.as_bytes());
        self.buckets[1].add(there.as_bytes());
        eventually("honest peers sync", || {
            self.buckets[1].has(text.as_bytes()) && self.buckets[0].has(there.as_bytes())
        });
    }

    pub(super) fn error_of_hostile(&self) -> String {
        let peers = self.peers[0].net.peers();
        let it = peers.into_iter().find(|peer| peer.key == self.hostile.key()).unwrap();
        it.last_error.map(|(why, _)| why).unwrap_or_default()
    }
}

/// Waits until the other side has closed; what it says until then is returned.
fn until_closed(mut opened: Opened) -> Vec<Say> {
    let mut heard = Vec::new();
    let patience = Patience::until(Instant::now() + PATIENCE);
    loop {
        match opened.incoming.next(&opened.link, &|| 32 << 20, patience) {
            Ok(body) => heard.push(frame::decode(&body).unwrap()),
            Err(LinkError::Silent | LinkError::Stalled) => panic!("it was not closed: {heard:?}"),
            Err(_) => return heard,
        }
    }
}

#[test]
fn a_stranger_hears_a_greeting_and_not_another_word() {
    let scene = Scene::new(false);
    let mut opened = scene.connect();
    opened.send(&Knock::Member { instance: [1; 16], port: None }).unwrap();
    let answer = opened.receive::<Admission>(1 << 20, Instant::now() + PATIENCE);
    assert!(matches!(answer, Err(OpenError::NotAdmitted)));
    // The same from a device without any bucket: nobody can tell the two apart.
    let empty = Peer::new();
    let mut opened = scene.hostile.net.connect(empty.key(), empty.address()).unwrap();
    opened.send(&Knock::Member { instance: [1; 16], port: None }).unwrap();
    let answer = opened.receive::<Admission>(1 << 20, Instant::now() + PATIENCE);
    assert!(matches!(answer, Err(OpenError::NotAdmitted)));
    scene.honest_go_on("after a stranger");
}

#[test]
fn a_guessed_ticket_is_one_try_for_each_connection() {
    let scene = Scene::new(false);
    let hour = Duration::from_secs(3600);
    scene.peers[0].net.invite(&name(), Role::Writer, hour, 1).unwrap();
    let mut opened = scene.connect();
    let knock = Knock::Ticket { secret: [3; 16], name: "x".into(), port: None };
    opened.send(&knock).unwrap();
    opened.send(&knock).unwrap();
    let deadline = Instant::now() + PATIENCE;
    assert!(matches!(opened.receive(1 << 20, deadline), Ok(Admission::Refused(_))));
    assert!(opened.receive::<Admission>(1 << 20, deadline).is_err());
    assert!(scene.buckets[0].members().iter().all(|member| member.key != scene.hostile.key()));
}

#[test]
fn garbage_in_every_state_ends_that_connection_only() {
    let scene = Scene::new(true);
    let address = scene.peers[0].address();
    // Instead of TLS.
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 500], &[0xff; 500], b"\x16\x03\x01"] {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(garbage).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = Vec::new();
        // It may be reset.
        drop(socket.read_to_end(&mut heard));
        assert!(heard.len() < 100, "an alert at most");
    }
    // Instead of a knock: too long, cut off, of no sense.
    for bytes in [&[0xff; 4][..], &[3, 0, 0, 0, 99, 99, 99], &[100, 0, 0, 0, 1]] {
        let opened = scene.connect();
        opened.link.send(bytes).unwrap();
        opened.link.close_politely();
        until_closed(opened);
    }
    // Instead of a message.
    for (bytes, says) in [
        (&[0xff; 4][..], "a message of 4294967295 bytes"),
        (&[0, 0, 2, 0][..], "a message of 131072 bytes"),
        (&[3, 0, 0, 0, 99, 99, 99][..], "makes no sense"),
    ] {
        let opened = scene.admitted();
        opened.link.send(bytes).unwrap();
        until_closed(opened);
        eventually("the reason is told", || scene.error_of_hostile().contains(says));
    }
    scene.honest_go_on("after garbage");
}

#[test]
fn another_protocol_is_said_in_plain_words() {
    let scene = Scene::new(true);
    let victim = &scene.peers[0];
    let deadline = Instant::now() + PATIENCE;
    let socket = Arc::new(TcpStream::connect(victim.address()).unwrap());
    let tls = scene.hostile.net.tls.dial(victim.key()).unwrap();
    let mut opened = scene.hostile.net.open(socket, tls, victim.address(), true, deadline).unwrap();
    opened.link.send(&Greeting { protocol: PROTOCOL + 1 }.encode()).unwrap();
    let theirs = opened.receive_greeting(deadline).unwrap();
    assert_eq!(theirs, Greeting { protocol: PROTOCOL });
    until_closed(opened);
    let said = OpenError::Protocol { theirs: 4 }.to_string();
    assert_eq!(said, "the peer speaks protocol 4, this program 3: update the older one");
}

#[test]
fn a_stall_in_every_state_ends_in_time() {
    let scene = Scene::impatient();
    let address = scene.peers[0].address();
    // Nothing at all, and half a handshake.
    let silent = TcpStream::connect(address).unwrap();
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).unwrap();
    // No knock; half a knock.
    let knocking = [&[][..], &[10, 0, 0, 0, 1]].map(|bytes| {
        let opened = scene.connect();
        opened.link.send(bytes).unwrap();
        opened
    });
    for mut socket in [silent, half] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = [0; 1000];
        assert!(matches!(socket.read(&mut heard), Ok(0) | Err(_)), "it is closed");
    }
    for opened in knocking {
        until_closed(opened);
    }
    // Half a message; nothing at all, not even a keep-alive.
    for (bytes, says) in [(&[10, 0, 0, 0, 1][..], "in the middle"), (&[][..], "nothing was heard")]
    {
        let opened = scene.admitted();
        opened.link.send(bytes).unwrap();
        until_closed(opened);
        eventually("the reason is told", || scene.error_of_hostile().contains(says));
    }
    scene.honest_go_on("after stalls");
}

/// The mark that shows that the bucket's secret is known, as the side that dialled says it.
pub(super) fn offer(scene: &Scene, opened: &Opened) -> Say {
    let mut challenge = opened.challenge.to_vec();
    challenge.push(1);
    Say::Offer { bucket: 5, mark: scene.buckets[0].recognise(&challenge) }
}

#[test]
fn a_member_that_announces_and_never_answers_is_given_up() {
    let scene = Scene::impatient();
    let opened = scene.admitted();
    opened.send(&offer(&scene, &opened)).unwrap();
    opened.send(&Say::Head { bucket: 5, version: [9; 32] }).unwrap();
    // Keeps the connection alive all the while.
    let pings = thread::scope(|scope| {
        let pinging = scope.spawn(|| {
            (0..1000)
                .take_while(|_| {
                    thread::sleep(Duration::from_millis(100));
                    opened.send(&Say::Ping).is_ok()
                })
                .count()
        });
        pinging.join().unwrap()
    });
    assert!(pings < 1000);
    eventually("the reason is told", || scene.error_of_hostile().contains("does not answer"));
    scene.honest_go_on("after a lie");
}

/// What the victim asks for next, and the number of the request.
pub(super) fn next_ask(opened: &mut Opened) -> (u32, Ask) {
    heard_ask(opened).unwrap()
}

/// The same, unless the connection ends before.
pub(super) fn heard_ask(opened: &mut Opened) -> Result<(u32, Ask), OpenError> {
    loop {
        let say = opened.receive(1 << 20, Instant::now() + PATIENCE)?;
        if let Say::Ask { request, ask, .. } = say {
            return Ok((request, ask));
        }
    }
}

#[test]
fn answers_to_what_was_given_up_make_nobody_wait() {
    let scene = Scene::impatient();
    let mut opened = scene.admitted();
    opened.send(&offer(&scene, &opened)).unwrap();
    let theirs = scene.buckets[0].copy_for(scene.hostile.key());
    theirs.add_all(&[b"one".to_vec(), b"two".to_vec()]);
    let head = theirs.head().unwrap();
    opened.send(&Say::Head { bucket: 5, version: head }).unwrap();
    let (request, _) = next_ask(&mut opened);
    opened.send(&Say::Answer { request, answer: Answer::Refused }).unwrap();
    let (request, _) = next_ask(&mut opened);
    let blobs = vec![theirs.sealed(&head).unwrap().unwrap().into()];
    let answer = Answer::Blobs { blobs, missing: vec![], more: false };
    opened.send(&Say::Answer { request, answer }).unwrap();
    // One of the two items is missing, which ends the fetch; the other one still is to come.
    let (request, ask) = next_ask(&mut opened);
    let Ask::Blobs(ids) = ask else { panic!("{ask:?}") };
    let part = |missing| Answer::Blobs { blobs: vec![], missing, more: true };
    opened.send(&Say::Answer { request, answer: part(vec![ids[0]]) }).unwrap();
    opened.send(&Say::Head { bucket: 5, version: [9; 32] }).unwrap();
    let until = Instant::now() + PATIENCE;
    while opened.send(&Say::Answer { request, answer: part(vec![]) }).is_ok() {
        assert!(Instant::now() < until, "it is waited for all the while");
        thread::sleep(Duration::from_millis(100));
    }
    eventually("the reason is told", || scene.error_of_hostile().contains("does not answer"));
    scene.honest_go_on("after empty answers");
}

#[test]
fn what_was_not_asked_for_ends_the_connection() {
    let scene = Scene::new(true);
    let opened = scene.admitted();
    opened.send(&Say::Answer { request: 77, answer: Answer::Refused }).unwrap();
    until_closed(opened);
    eventually("the reason is told", || scene.error_of_hostile().contains("not asked"));
    let opened = scene.admitted();
    for bucket in 0..2000 {
        if opened.send(&Say::Offer { bucket, mark: [0; 32] }).is_err() {
            break;
        }
    }
    until_closed(opened);
    eventually("the reason is told", || scene.error_of_hostile().contains("too many buckets"));
    scene.honest_go_on("after lies");
}

#[test]
fn a_flood_of_requests_ends_the_connection() {
    let scene = Scene::new(true);
    let opened = scene.admitted();
    opened.send(&offer(&scene, &opened)).unwrap();
    scene.buckets[0].hold(true);
    let ids = vec![scene.buckets[0].head().unwrap(); 100];
    for request in 0..200 {
        let ask = Ask::Blobs(ids.clone());
        if opened.send(&Say::Ask { request, bucket: 5, ask }).is_err() {
            break;
        }
    }
    eventually("the reason is told", || scene.error_of_hostile().contains("too much at once"));
    scene.buckets[0].hold(false);
    until_closed(opened);
    scene.honest_go_on("after a flood");
}

/// What is said until all of this is.
fn until_said(opened: &mut Opened, all: &[Say]) -> Vec<Say> {
    let mut heard = Vec::new();
    while !all.iter().all(|it| heard.contains(it)) {
        heard.push(opened.receive(1 << 20, Instant::now() + PATIENCE).unwrap());
    }
    heard
}

#[test]
fn nothing_is_given_of_a_bucket_whose_mark_was_not_shown() {
    let scene = Scene::new(true);
    let mut opened = scene.admitted();
    opened.send(&Say::Offer { bucket: 5, mark: [0; 32] }).unwrap();
    let given = scene.buckets[0].given().len();
    let ids = vec![scene.buckets[0].head().unwrap()];
    opened.send(&Say::Ask { request: 1, bucket: 5, ask: Ask::Blobs(ids) }).unwrap();
    opened.send(&Say::Ask { request: 2, bucket: 5, ask: Ask::Secrets(vec![]) }).unwrap();
    let refused = |request| Say::Answer { request, answer: Answer::Refused };
    let mut heard = until_said(&mut opened, &[refused(1), refused(2)]);
    // Nor does anything come behind that.
    opened.send(&Say::Ask { request: 3, bucket: 5, ask: Ask::Secrets(vec![]) }).unwrap();
    heard.extend(until_said(&mut opened, &[refused(3)]));
    assert!(!heard.iter().any(|say| matches!(say, Say::Head { .. })), "{heard:?}");
    assert_eq!(scene.buckets[0].given().len(), given);
}

#[test]
fn blobs_whose_bytes_do_not_match_are_rejected() {
    let scene = Scene::new(true);
    let lying = scene.buckets[0].copy_for(scene.hostile.key());
    lying.set_lies(true);
    lying.add(b"these bytes are sent as others");
    scene.hostile.serve(&lying);
    scene.hostile.knows(&scene.peers[0]);
    eventually("it is said", || scene.error_of_hostile().contains("rejected"));
    assert!(!scene.buckets[0].has(b"these bytes are sent as others"));
    scene.honest_go_on("after wrong bytes");
}

#[test]
fn ten_thousand_connections_keep_nobody_out() {
    let scene = Scene::new(false);
    let address = scene.peers[0].address();
    let threads = || scene.peers[0].net.roster.lock().threads;
    let (mut made, mut since) = (Vec::new(), Instant::now());
    for count in 0..10_000 {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(socket) => made.push(socket),
            Err(err) => panic!("connection {count}: {err}"),
        }
        // No more descriptors than a test may have.
        if made.len() == 200 {
            // Those that were sent away end, and not as their time is up.
            while threads() >= 150 {
                assert!(since.elapsed() < QUICK.handshake / 2, "{} threads", threads());
                thread::sleep(Duration::from_millis(1));
            }
            made.clear();
            since = Instant::now();
        }
        if count % 2_500 == 0 {
            scene.honest_go_on(&format!("after {count} connections"));
        }
    }
    // A newcomer gets in as well.
    let newcomer = Peer::new();
    let bucket = scene.buckets[0].copy_for(newcomer.key());
    scene.buckets[0].set_member(newcomer.key(), "new", Some(Role::Writer)).unwrap();
    newcomer.serve(&bucket);
    newcomer.knows(&scene.peers[0]);
    eventually("the newcomer is in", || newcomer.is_connected());
}
