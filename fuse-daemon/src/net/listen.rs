//! Who comes by: the thread `accept-peers`, and one thread for each connection until it is known whose
//! it is.
//!
//! # Invariants
//!
//! 1. At most [`STRANGERS_MAX`] connections wait to prove a key and to show that it is known; each
//!    has to within [`Timing::handshake`](super::timing::Timing).
//! 2. When more come, the one that has waited longest goes: who means it needs milliseconds, so
//!    that many who only wait keep nobody out.
//! 3. However many are refused, the log has at most [`REFUSALS_TOLD`] lines of them in each
//!    [`REFUSALS_PER`], and how many it leaves out.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Display,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    Net,
    addresses::reachable_at,
    message::{Admission, KNOCK_BYTES_MAX, Knock},
    opening::OpenError,
    roster::Admitted,
    session::{Ended, Opened, Session},
};
use crate::{
    exit::{Code, Failure, Result, plain},
    order::{self, Condvar, Mutex},
};

/// Connections of nobody in particular.
const STRANGERS_MAX: usize = 64;
/// How long nobody is accepted when there is no descriptor or thread for them.
const PAUSE: Duration = Duration::from_millis(200);

/// Refusals that are logged in [`REFUSALS_PER`].
const REFUSALS_TOLD: u32 = 8;
/// For how long that counts.
const REFUSALS_PER: Duration = Duration::from_secs(60);

/// Why nothing listens that may listen anywhere.
pub(super) const NO_PORT: &str = "no port can be had to be reached at";

/// The listening socket, and who waits at the door.
#[derive(Debug, Default)]
pub(super) struct Listening {
    socket: Mutex<Option<Arc<TcpListener>>, order::Listening>,
    door: Mutex<Door, order::Door>,
    /// For the thread `accept-peers`: somebody has left the door.
    left: Condvar,
}

#[derive(Debug, Default)]
struct Door {
    next: u64,
    waiting: VecDeque<(u64, Arc<TcpStream>)>,
    /// Whose threads have not ended, those included that were sent away.
    inside: BTreeSet<u64>,
    refusals: Refusals,
}

/// Which refusals are logged: invariant 3.
#[derive(Debug, Default)]
struct Refusals {
    /// When the first of those was that are counted.
    since: Option<Instant>,
    told: u32,
    /// Since one was told.
    left_out: u64,
}

impl Refusals {
    /// Counts one; if it is to be logged, says how many were left out before it.
    fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= REFUSALS_PER) {
            self.since = Some(now);
            self.told = 0;
        }
        if self.told == REFUSALS_TOLD {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Listening {
    pub(super) fn stop(&self) {
        if let Some(socket) = self.socket.lock().take() {
            // Linux lets go of who waits in accept(2).
            if let Err(err) = rustix::net::shutdown(&*socket, rustix::net::Shutdown::Both) {
                log::warn!("listen stopped=no reason={err}");
            }
        }
        for (_, stranger) in self.door.lock().waiting.drain(..) {
            stranger.shutdown(Shutdown::Both).ok();
        }
    }

    /// Lets one more wait at the door, and nobody longer than those who come after: invariant 2.
    fn enter(&self, socket: &Arc<TcpStream>) -> u64 {
        let mut door = self.door.lock();
        if door.waiting.len() >= STRANGERS_MAX
            && let Some((_, oldest)) = door.waiting.pop_front()
        {
            // Its thread ends with that.
            oldest.shutdown(Shutdown::Both).ok();
        }
        // Invariant 1 holds of threads too, however slow their ends are.
        while door.inside.len() >= STRANGERS_MAX * 2 {
            self.left.wait(&mut door);
        }
        let number = door.next;
        door.next += 1;
        door.waiting.push_back((number, Arc::clone(socket)));
        door.inside.insert(number);
        number
    }

    /// Says that somebody was turned away, if that may be said.
    pub(super) fn note_refusal(&self, who: &dyn Display, reason: &dyn Display) {
        // No lock is held while something is logged.
        let left_out = self.door.lock().refusals.tell(Instant::now());
        if let Some(left_out) = left_out {
            log::info!("refused {who} reason=\"{reason}\" left_out={left_out}");
        }
    }

    /// It is known who it is, or it has gone.
    fn pass(&self, number: u64) {
        let mut door = self.door.lock();
        door.waiting.retain(|(it, _)| *it != number);
        door.inside.remove(&number);
        drop(door);
        self.left.notify_one();
    }
}

impl Net {
    /// Listens, and announces itself on the local network, if it does not yet and may.
    pub(super) fn be_reachable(&self) {
        if self.listening().is_some() || self.options.listen.is_some() {
            return;
        }
        // The port of last time, so that peers find this device again; else any.
        let last = self.addresses.port().unwrap_or(0);
        for port in [last, 0] {
            for ip in [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)] {
                match self.listen(SocketAddr::new(ip, port)) {
                    Ok(()) => return,
                    Err(err) => log::debug!("listen port={port} reason={:?}", plain(&err)),
                }
            }
        }
        log::error!("listen done=no reason=\"no port can be had\"");
    }

    /// Listens where it was asked to, or once this machine has that address: what is on it must be in
    /// reach also where it has not.
    pub(super) fn listen_at(&self, address: SocketAddr) -> Result<()> {
        match self.listen(address) {
            Err(err) if err.kind() == io::ErrorKind::AddrInUse => {
                let message = format!("cannot listen at {address}: the port is in use");
                Err(Failure::new(Code::InUse, message))
            }
            Err(err) if err.kind() == io::ErrorKind::AddrNotAvailable => {
                log::warn!("listen address={address} done=no reason={:?}", plain(&err));
                self.listen_later();
                Ok(())
            }
            other => {
                other.map_err(|err| Failure::io(format_args!("cannot listen at {address}"), &err))
            }
        }
    }

    fn listen_later(&self) {
        self.roster.lock().listen_again = Some(Instant::now() + self.timing.trouble);
        self.wake.notify_all();
    }

    /// Tries again to listen where it was asked to.
    pub(super) fn listen_again(&self) {
        let Some(address) = self.options.listen else { return };
        if let Err(err) = self.listen(address) {
            log::debug!("listen address={address} done=no reason={:?}", plain(&err));
            self.listen_later();
        }
    }

    /// Why nothing listens although it is to.
    pub(crate) fn not_listening(&self) -> Option<String> {
        let roster = self.roster.lock();
        if roster.listening.is_some() {
            return None;
        }
        match self.options.listen {
            Some(address) => Some(format!(
                "this machine has no address {}, as the setting 'listen' wants it",
                address.ip()
            )),
            None => (!roster.contacts.is_empty()).then(|| NO_PORT.to_owned()),
        }
    }

    fn listen(&self, address: SocketAddr) -> io::Result<()> {
        let mut guard = self.listener.socket.lock();
        if guard.is_some() {
            return Ok(());
        }
        let socket = Arc::new(TcpListener::bind(address)?);
        let address = socket.local_addr()?;
        let net = self.arc();
        let accepting = Arc::clone(&socket);
        {
            let mut roster = self.roster.lock();
            if roster.stopping {
                return Ok(());
            }
            roster.listening = Some(address);
        }
        let spawned = self.spawn("accept-peers", move || net.accept_until_stopped(&accepting));
        if let Err(err) = spawned {
            // Nobody listens after all.
            self.roster.lock().listening = None;
            return Err(err);
        }
        *guard = Some(socket);
        drop(guard);
        self.addresses.set_port(address.port());
        log::info!("listening port={}", address.port());
        if self.options.discovery {
            self.discovery.start(self, address);
        }
        Ok(())
    }

    fn accept_until_stopped(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            if self.roster.lock().stopping {
                return;
            }
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(err) => {
                    // Of one connection that went away, or for want of descriptors.
                    if err.kind() != io::ErrorKind::ConnectionAborted {
                        log::warn!("accept reason={:?}", plain(&err));
                        thread::sleep(PAUSE);
                    }
                    continue;
                }
            };
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            let socket = Arc::new(socket);
            let number = self.listener.enter(&socket);
            let net = Arc::clone(self);
            let greet = move || net.greet(socket, address, number);
            if let Err(err) = self.spawn("peer-reads", greet) {
                log::warn!("accept reason={:?}", plain(&err));
                self.listener.pass(number);
                thread::sleep(PAUSE);
            }
        }
    }

    /// Finds out who came, and lets them in if they are known.
    fn greet(self: &Arc<Self>, socket: Arc<TcpStream>, address: SocketAddr, number: u64) {
        let deadline = Instant::now() + self.timing.handshake;
        let known = self.take(socket, address, deadline).and_then(|mut opened| {
            let knock = opened.receive::<Knock>(KNOCK_BYTES_MAX, deadline)?;
            Ok((opened, knock))
        });
        let known = known.inspect(|(opened, _)| {
            log::debug!("knock peer={}", opened.key);
        });
        // Whoever proved a key that is known, or holds a ticket, waits no longer at the door.
        match known {
            Ok((opened, Knock::Member { instance, port })) => {
                let is_known = self.roster.lock().contacts.contains_key(&opened.key);
                if is_known {
                    self.listener.pass(number);
                    return self.receive_member(opened, instance, port);
                }
                // Invariant 1 of the module above: not a word, unless it was a member.
                let reason = match self.tell_removed(opened) {
                    true => "it was removed",
                    false => "its key is not known",
                };
                self.listener.note_refusal(&format_args!("address={address}"), &reason);
            }
            Ok((opened, Knock::Ticket { secret, name, port })) => {
                // From the moment that the ticket is found good nobody is in a hurry.
                let good = || self.listener.pass(number);
                self.let_in(opened, &secret, &name, port, &good);
            }
            Err(err @ (OpenError::Silent | OpenError::NotAdmitted)) => {
                log::debug!("refused address={address} reason=\"{err}\"");
            }
            Err(err) => {
                self.listener.note_refusal(&format_args!("address={address}"), &err);
            }
        }
        self.listener.pass(number);
    }

    fn receive_member(&self, opened: Opened, instance: super::Instance, port: Option<u16>) {
        let (key, address) = (opened.key, opened.address);
        if let Some(port) = port {
            // Where it says that it listens; it has been found there only when it was dialled.
            self.addresses.add(&key, &[SocketAddr::new(address.ip(), port)]);
        }
        let admission = Admission::Member { instance: self.instance, port: self.listening_port() };
        let (session, incoming) = Session::new(opened, instance);
        match self.admit(&session) {
            Admitted::Yes(_) => {
                session.greet_with(&admission);
                self.run_session(&session, incoming);
            }
            Admitted::Duplicate(old) => {
                // If that one is dead, this shows it.
                old.probe();
                session.greet_with(&Admission::Duplicate);
                session.end(Ended::Here("there is a connection already"));
            }
            Admitted::No => session.end(Ended::Here("it shares nothing")),
        }
    }

    /// What this device says of where it listens.
    pub(super) fn listening_port(&self) -> Option<u16> {
        self.listening().map(|address| address.port())
    }

    /// Where others may find this device.
    pub(super) fn own_addresses(&self) -> Vec<SocketAddr> {
        self.listening().map(reachable_at).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_logged_a_few_a_minute_and_the_others_counted() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let told = (0..1000).filter_map(|_| refusals.tell(start)).collect::<Vec<_>>();
        assert_eq!(told, [0; 8]);
        assert_eq!(refusals.tell(start + REFUSALS_PER - Duration::from_millis(1)), None);
        assert_eq!(refusals.tell(start + REFUSALS_PER), Some(993));
        assert_eq!(refusals.tell(start + REFUSALS_PER), Some(0));
    }
}
