//! Where peers were found, and what else must outlive the daemon: `peers.toml`.
//!
//! Whoever answers at an address must prove the key. Kept are those at which the peer did so, and
//! those that it named itself: in its ticket, or when it connected. What anybody else says of where
//! it is, the local network or a third device, is a hint, and is forgotten with the process unless
//! the peer is found there.
//!
//! A lost file costs time only, except of a bucket that was joined and has no version yet: for that
//! it holds who invited.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use cairnfs_mount_core::BucketId;
use serde::{Deserialize, Serialize};

use super::tls::PeerKey;
use crate::{
    durable,
    order::{self, Mutex},
    values::{hex, parse_hex},
};

/// Addresses kept of one peer.
const PER_PEER_MAX: usize = 8;
/// Hints kept of one peer.
const HINTS_MAX: usize = 4;
/// Peers kept.
const PEERS_MAX: usize = 1024;

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Entry {
    key: String,
    /// Best first.
    #[serde(default)]
    addresses: Vec<SocketAddr>,
    /// Buckets that were joined on its invitation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    invited_to: Vec<String>,
    /// Buckets from which this device was removed, as it says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed_from: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Contents {
    /// Where this device listened last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default)]
    peer: Vec<Entry>,
}

/// What is known of one peer.
#[derive(Clone, Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    invited_to: Vec<String>,
    removed_from: Vec<String>,
}

impl Known {
    fn is_of_a_bucket(&self) -> bool {
        !self.invited_to.is_empty() || !self.removed_from.is_empty()
    }
}

#[derive(Debug, Default)]
struct State {
    port: Option<u16>,
    peers: BTreeMap<PeerKey, Known>,
    /// Newest first.
    hints: BTreeMap<PeerKey, Vec<SocketAddr>>,
}

/// See the module's doc.
#[derive(Debug)]
pub(super) struct Addresses {
    path: PathBuf,
    state: Mutex<State, order::Addresses>,
}

impl Addresses {
    /// Reads the file; one that cannot be read is begun anew.
    pub(super) fn load(path: PathBuf) -> Self {
        let contents = durable::load(&path).unwrap_or_else(|failure| {
            log::warn!("peers-file reason={:?}", failure.message);
            Contents::default()
        });
        let peers = contents.peer.into_iter().take(PEERS_MAX).filter_map(|entry| {
            let Entry { key, mut addresses, invited_to, removed_from } = entry;
            addresses.truncate(PER_PEER_MAX);
            Some((PeerKey(parse_hex(&key)?), Known { addresses, invited_to, removed_from }))
        });
        let hints = BTreeMap::new();
        let state = State { port: contents.port, peers: peers.collect(), hints };
        Self { path, state: Mutex::new(state) }
    }

    /// The port of last time.
    pub(super) fn port(&self) -> Option<u16> {
        self.state.lock().port
    }

    pub(super) fn set_port(&self, port: u16) {
        self.change(|state| state.port = Some(port));
    }

    /// Where a peer may be found, best first.
    pub(super) fn of(&self, peer: &PeerKey) -> Vec<SocketAddr> {
        let mut all = self.known(peer);
        if let Some(hints) = self.state.lock().hints.get(peer) {
            // Where it was last is the best guess; the others may be of long ago.
            let at = all.len().min(1);
            all.splice(at..at, hints.iter().copied());
        }
        all
    }

    /// As [`Addresses::of`], but only what is no hint: hints are not passed on.
    pub(super) fn known(&self, peer: &PeerKey) -> Vec<SocketAddr> {
        let state = self.state.lock();
        state.peers.get(peer).map(|known| known.addresses.clone()).unwrap_or_default()
    }

    /// Somebody says that a peer may be found here. Kept in memory only.
    pub(super) fn hint(&self, peer: &PeerKey, addresses: &[SocketAddr]) {
        let known = self.known(peer);
        let mut state = self.state.lock();
        if state.hints.len() >= PEERS_MAX && !state.hints.contains_key(peer) {
            return;
        }
        let hints = state.hints.entry(*peer).or_default();
        for address in addresses.iter().filter(|one| !known.contains(one)).rev() {
            hints.retain(|one| one != address);
            hints.insert(0, *address);
        }
        hints.truncate(HINTS_MAX);
    }

    /// A peer says that it may be found here.
    pub(super) fn add(&self, peer: &PeerKey, addresses: &[SocketAddr]) {
        self.change(|state| {
            let Some(known) = state.peer(peer) else { return };
            for address in addresses {
                if !known.addresses.contains(address) {
                    // Behind the best one, before those that have not been right for long.
                    let at = known.addresses.len().min(1);
                    known.addresses.insert(at, *address);
                }
            }
            known.addresses.truncate(PER_PEER_MAX);
        });
    }

    /// A peer was found here: it has proved its key.
    pub(super) fn found(&self, peer: &PeerKey, address: SocketAddr) {
        self.change(|state| {
            if let Some(hints) = state.hints.get_mut(peer) {
                hints.retain(|one| *one != address);
            }
            let Some(known) = state.peer(peer) else { return };
            known.addresses.retain(|one| *one != address);
            known.addresses.insert(0, address);
            known.addresses.truncate(PER_PEER_MAX);
        });
    }

    /// A bucket is being joined on this peer's invitation.
    pub(super) fn set_inviter(&self, bucket: BucketId, peer: &PeerKey) {
        let bucket = bucket.to_string();
        self.change(|state| {
            // Whoever said that this device was removed meant its last time there.
            state
                .peers
                .values_mut()
                .for_each(|known| known.removed_from.retain(|it| *it != bucket));
            if let Some(known) = state.peer(peer)
                && !known.invited_to.contains(&bucket)
            {
                known.invited_to.push(bucket);
            }
        });
    }

    /// A peer says that this device was removed from a bucket.
    pub(super) fn removed_from(&self, peer: &PeerKey, bucket: BucketId) {
        let bucket = bucket.to_string();
        self.change(|state| {
            let Some(known) = state.peer(peer) else { return };
            known.removed_from.retain(|one| *one != bucket);
            known.removed_from.push(bucket);
        });
    }

    /// A peer shares a bucket with this device, and may have said that it was removed from it.
    pub(super) fn let_in_again(&self, peer: &PeerKey, bucket: BucketId) {
        let bucket = bucket.to_string();
        self.change(|state| {
            let Some(known) = state.peers.get_mut(peer) else { return };
            known.removed_from.retain(|one| *one != bucket);
        });
    }

    /// Who says that this device was removed from a bucket.
    pub(super) fn removed_by(&self, bucket: BucketId) -> Vec<PeerKey> {
        let bucket = bucket.to_string();
        let state = self.state.lock();
        let who = state.peers.iter().filter(|(_, known)| known.removed_from.contains(&bucket));
        who.map(|(key, _)| *key).collect()
    }

    /// Whose invitation brought a bucket here.
    pub(super) fn inviters(&self, bucket: BucketId) -> Vec<PeerKey> {
        let bucket = bucket.to_string();
        let state = self.state.lock();
        let inviters = state.peers.iter().filter(|(_, known)| known.invited_to.contains(&bucket));
        inviters.map(|(key, _)| *key).collect()
    }

    /// A bucket is not here any more. Forgets what was known of peers for its sake; of those not in
    /// `others`, with whom something else may be shared, also where they are. Without `others` nobody
    /// knows who they are, and all are kept.
    pub(super) fn forget(&self, bucket: BucketId, others: Option<&BTreeSet<PeerKey>>) {
        let bucket = bucket.to_string();
        self.change(|state| {
            for known in state.peers.values_mut() {
                known.invited_to.retain(|one| *one != bucket);
                known.removed_from.retain(|one| *one != bucket);
            }
            if let Some(others) = others {
                state.peers.retain(|key, known| others.contains(key) || known.is_of_a_bucket());
                state.hints.retain(|key, _| others.contains(key));
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        let before = state.contents();
        change(&mut state);
        let contents = state.contents();
        if contents == before {
            return;
        }
        // Under the lock: of two changes at once the later one is written last.
        let comment = "Where other devices were found; written by the daemon.";
        if let Err(failure) = durable::store(&self.path, comment, &contents) {
            log::warn!("peers-file reason={:?}", failure.message);
        }
    }
}

impl State {
    fn peer(&mut self, key: &PeerKey) -> Option<&mut Known> {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(key) {
            return None;
        }
        Some(self.peers.entry(*key).or_default())
    }

    fn contents(&self) -> Contents {
        let peer = self.peers.iter().map(|(key, known)| Entry {
            key: hex(&key.0),
            addresses: known.addresses.clone(),
            invited_to: known.invited_to.clone(),
            removed_from: known.removed_from.clone(),
        });
        Contents { port: self.port, peer: peer.collect() }
    }
}

/// Addresses of this machine under which others may reach `listening`, best first; the one that it
/// was told to listen at alone, if it was.
pub(super) fn reachable_at(listening: SocketAddr) -> Vec<SocketAddr> {
    let ip = listening.ip();
    if !ip.is_unspecified() {
        return vec![listening];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let own = interfaces.into_iter().map(|interface| Own {
        ip: interface.ip(),
        is_bridge: Path::new("/sys/class/net").join(&interface.name).join("bridge").exists(),
    });
    let named = named_to_others(own, ip.is_ipv6(), &that_lead_out());
    named.into_iter().map(|ip| SocketAddr::new(ip, listening.port())).collect()
}

/// An address of this machine.
struct Own {
    ip: IpAddr,
    /// Whether it is that of a bridge, as there is one for each network of containers.
    is_bridge: bool,
}

/// From which addresses this machine would reach one that is nowhere near. Nothing is sent for that.
fn that_lead_out() -> Vec<IpAddr> {
    // Addresses that are for documentation, so nobody's.
    let [v4, v6]: [SocketAddr; 2] = [
        (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
    ];
    let from = |to: SocketAddr| {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    [v4, v6].into_iter().filter_map(from).collect()
}

/// Which of its own addresses a machine names to others, best first: those that `lead_out`, then those of
/// private networks, then others; those of bridges last, which mostly lead nowhere but into it, unless they
/// lead out. Link-local ones of IPv6 need a scope, which means nothing on another machine, and loopback is
/// that machine itself: it is named only if there is nothing else, to those on this one.
fn named_to_others(
    own: impl Iterator<Item = Own>,
    takes_v6: bool,
    lead_out: &[IpAddr],
) -> Vec<IpAddr> {
    let mut named: Vec<Own> = own
        .filter(|one| match one.ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            // An unspecified address of IPv6 takes both.
            IpAddr::V6(ip) => takes_v6 && !ip.is_unicast_link_local(),
        })
        .collect();
    if named.iter().any(|one| !one.ip.is_loopback()) {
        named.retain(|one| !one.ip.is_loopback());
    }
    if named.is_empty() {
        return vec![Ipv4Addr::LOCALHOST.into()];
    }
    named.sort_by_key(|Own { ip, is_bridge }| (!lead_out.contains(ip), *is_bridge, rank(ip), *ip));
    let mut named: Vec<IpAddr> = named.into_iter().map(|one| one.ip).collect();
    named.dedup();
    named
}

fn rank(ip: &IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) if ip.is_private() => 0,
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_found_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.toml");
        let addresses = Addresses::load(path.clone());
        let (peer, bucket) = (PeerKey([7; 32]), BucketId([1; 16]));
        addresses.add(&peer, &[address("10.0.0.1:1"), address("10.0.0.2:1")]);
        addresses.found(&peer, address("10.0.0.3:1"));
        addresses.set_port(40_000);
        addresses.set_inviter(bucket, &peer);
        addresses.removed_from(&peer, bucket);
        let again = Addresses::load(path);
        assert_eq!(again.of(&peer)[0], address("10.0.0.3:1"));
        assert_eq!(again.of(&peer).len(), 3);
        assert_eq!(again.port(), Some(40_000));
        assert_eq!(again.inviters(bucket), [peer]);
        assert_eq!(again.removed_by(bucket), [peer]);
        // It is invited anew.
        again.set_inviter(bucket, &peer);
        assert!(again.removed_by(bucket).is_empty());
        assert!(again.inviters(BucketId([2; 16])).is_empty());
    }

    #[test]
    fn what_others_say_is_forgotten_unless_the_peer_is_found_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.toml");
        let addresses = Addresses::load(path.clone());
        let peer = PeerKey([7; 32]);
        let [a, b, c, d] = [1, 2, 3, 4].map(|last| address(&format!("10.0.0.{last}:1")));
        addresses.add(&peer, &[a]);
        addresses.found(&peer, b);
        addresses.hint(&peer, &[a, c, d]);
        assert_eq!(addresses.of(&peer), [b, c, d, a]);
        assert_eq!(Addresses::load(path.clone()).of(&peer), [b, a]);
        addresses.found(&peer, d);
        assert_eq!(addresses.of(&peer), [d, c, b, a]);
        assert_eq!(Addresses::load(path).of(&peer), [d, b, a]);
        // Whoever says much says it in vain.
        for port in 1..100 {
            addresses.hint(&peer, &[address(&format!("10.0.0.9:{port}"))]);
        }
        assert_eq!(addresses.of(&peer).len(), 3 + HINTS_MAX);
    }

    #[test]
    fn with_a_bucket_goes_what_was_known_of_its_peers_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.toml");
        let addresses = Addresses::load(path.clone());
        let [gone, kept, awaited] = [1, 2, 3].map(|byte| PeerKey([byte; 32]));
        let (bucket, other) = (BucketId([1; 16]), BucketId([2; 16]));
        for peer in [&gone, &kept, &awaited] {
            addresses.add(peer, &[address("10.0.0.1:1")]);
            addresses.set_inviter(bucket, peer);
        }
        addresses.set_inviter(other, &awaited);
        addresses.removed_from(&kept, bucket);
        addresses.forget(bucket, None);
        assert!(addresses.inviters(bucket).is_empty() && addresses.removed_by(bucket).is_empty());
        assert_eq!(addresses.of(&gone).len(), 1, "who shares another bucket is not known");
        addresses.forget(bucket, Some(&[kept].into()));
        let read = Addresses::load(path);
        let left = [&gone, &kept, &awaited].map(|peer| read.of(peer).len());
        assert_eq!((left, read.inviters(other)), ([0, 1, 1], vec![awaited]));
    }

    #[test]
    fn addresses_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = Addresses::load(dir.path().join("peers.toml"));
        addresses.found(&PeerKey([1; 32]), address("10.0.0.1:1"));
        for port in 1..100 {
            addresses.add(&PeerKey([1; 32]), &[address(&format!("10.0.0.2:{port}"))]);
        }
        assert_eq!(addresses.of(&PeerKey([1; 32])).len(), PER_PEER_MAX);
        assert_eq!(addresses.of(&PeerKey([1; 32]))[0], address("10.0.0.1:1"));
    }

    #[test]
    fn a_file_of_garbage_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.toml");
        std::fs::write(&path, "port = \"x\"").unwrap();
        let addresses = Addresses::load(path);
        assert_eq!(addresses.port(), None);
        addresses.set_port(5);
    }

    #[test]
    fn this_machine_has_an_address() {
        let found = reachable_at(address("0.0.0.0:99"));
        assert!(!found.is_empty() && found.iter().all(|one| one.port() == 99));
        assert!(found.iter().all(|one| !one.ip().is_unspecified()));
        for told in ["10.1.2.3:4", "127.0.0.1:4", "[::1]:4"].map(address) {
            assert_eq!(reachable_at(told), [told]);
        }
    }

    #[test]
    fn loopback_is_named_to_others_only_if_there_is_nothing_else() {
        let named = |own: &[&str], takes_v6| {
            let own = own.iter().map(|ip| Own { ip: ip.parse().unwrap(), is_bridge: false });
            let named = named_to_others(own, takes_v6, &[]);
            named.iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        let own =
            ["127.0.0.1", "::1", "2001:db8::1", "8.8.8.8", "fe80::1", "169.254.0.1", "10.0.0.9"];
        assert_eq!(named(&own, true), ["10.0.0.9", "8.8.8.8", "2001:db8::1"]);
        assert_eq!(named(&own, false), ["10.0.0.9", "8.8.8.8"]);
        assert_eq!(named(&["::1", "127.0.0.1", "fe80::1"], true), ["127.0.0.1", "::1"]);
        assert_eq!(named(&[], true), ["127.0.0.1"]);
    }

    #[test]
    fn what_others_can_reach_is_named_before_the_bridges_of_containers() {
        let lan: IpAddr = "192.168.1.5".parse().unwrap();
        let bridges: Vec<IpAddr> = (17..27).map(|n| Ipv4Addr::new(172, n, 0, 1).into()).collect();
        let named = |are_seen: bool, lead_out: &[IpAddr]| {
            let bridges = bridges.iter().map(|ip| Own { ip: *ip, is_bridge: are_seen });
            let own = bridges.chain([Own { ip: lan, is_bridge: false }]);
            named_to_others(own, true, lead_out)
        };
        assert_eq!(named(true, &[])[..2], [lan, bridges[0]]);
        assert_eq!(named(false, &[lan])[..2], [lan, bridges[0]]);
        // A machine may have all of its network behind one.
        assert_eq!(named(true, &[bridges[3]])[..3], [bridges[3], lan, bridges[0]]);
    }
}
