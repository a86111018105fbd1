//! Connections whose other end does not say any more what becomes of it.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::atomic::AtomicBool,
};

use super::{
    finding::{find, ticket_of},
    *,
};
use crate::net::ticket::Ticket;

/// Passes on what comes, both ways, of any number of connections.
struct Proxy {
    address: SocketAddr,
    /// That there have been.
    connections: Arc<parking_lot::Mutex<Vec<Arc<Connection>>>>,
}

#[derive(Default)]
struct Connection {
    /// Whether what comes is swallowed.
    swallows: AtomicBool,
    /// Into how many directions something was.
    swallowed: AtomicU32,
}

impl Proxy {
    fn to(peer: &Peer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, to) = (listener.local_addr().unwrap(), peer.address());
        let connections = Arc::<parking_lot::Mutex<Vec<Arc<Connection>>>>::default();
        let all = Arc::clone(&connections);
        start_thread(move || {
            for from in listener.incoming() {
                let (from, to) = (from.unwrap(), TcpStream::connect(to).unwrap());
                let connection = Arc::<Connection>::default();
                all.lock().push(Arc::clone(&connection));
                for (from, to) in [(&from, &to), (&to, &from)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let connection = Arc::clone(&connection);
                    start_thread(move || {
                        // It ends with either of the two.
                        pass_on(from, to, &connection).ok();
                    });
                }
            }
        });
        Self { address, connections }
    }

    /// From here on nothing is passed on of the connections that there are. What was before has arrived
    /// when this returns, as each side says something now and then.
    fn swallow(&self) {
        let connections = self.connections.lock().clone();
        connections.iter().for_each(|it| it.swallows.store(true, Ordering::Relaxed));
        let last = connections.last().unwrap();
        eventually("all is swallowed", || last.swallowed.load(Ordering::Relaxed) == 2);
    }
}

/// One that ends with the process.
fn start_thread(run: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("proxy".into()).spawn(run).unwrap();
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, connection: &Connection) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let len = from.read(&mut bytes)?;
        if connection.swallows.load(Ordering::Relaxed) {
            connection.swallowed.fetch_add(1, Ordering::Relaxed);
            // Nor does either hear of the other one's end.
            continue_until_end(&mut from, len);
            return Ok(());
        }
        if len == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        to.write_all(&bytes[..len])?;
    }
}

fn continue_until_end(from: &mut TcpStream, mut len: usize) {
    let mut bytes = [0; 4096];
    while len > 0 {
        len = from.read(&mut bytes).unwrap_or(0);
    }
}

/// Two members, of which the first reaches the other through a proxy alone.
fn in_step_through_a_proxy() -> (Vec<Peer>, Vec<FakeBucket>, Proxy) {
    let (mut peers, buckets) = members(2);
    let timing = Timing { handshake: Duration::from_secs(3), ..QUICK };
    peers[0].become_with(timing, &buckets[0]);
    // The other cannot come by itself.
    peers[0].net.listener.stop();
    let proxy = Proxy::to(&peers[1]);
    peers[0].net.addresses.add(&peers[1].key(), &[proxy.address]);
    eventually("they are in step", || peers[0].sync().is_ok_and(|met| met.peers == 1));
    (peers, buckets, proxy)
}

#[test]
fn who_syncs_over_a_connection_that_is_dead_meets_the_peer_on_another() {
    let (peers, buckets, proxy) = in_step_through_a_proxy();
    proxy.swallow();
    buckets[1].add(b"unheard of");
    assert_eq!(peers[0].sync().unwrap().peers, 1);
    assert!(buckets[0].has(b"unheard of"));
}

#[test]
fn who_looks_for_a_member_over_a_connection_that_is_dead_finds_it_by_the_ticket() {
    let (peers, buckets, proxy) = in_step_through_a_proxy();
    let addresses = vec![peers[1].address()];
    let ticket = Ticket { device: peers[1].key(), addresses, ..ticket_of(&peers[0]) };
    let connection = || peers[0].net.roster.lock().sessions[&peers[1].key()].clone();
    let dead = connection();
    proxy.swallow();
    find(&peers[0], &ticket).unwrap();
    assert!(!Arc::ptr_eq(&dead, &connection()));
    buckets[1].add(b"unheard of");
    eventually("it has come", || buckets[0].has(b"unheard of"));
}
