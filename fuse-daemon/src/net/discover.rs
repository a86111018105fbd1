//! Peers on the local network, by multicast DNS.
//!
//! What is announced is a fingerprint of this device's key and a port: no bucket and no name. Who
//! knows the key knows whose fingerprint it is; nobody can tell the key from it, but whoever
//! connects to the port learns the key from TLS. An address that is found is a hint: anybody may
//! announce anything, and whoever answers there must prove the key.
//!
//! It is looked for others only while one is missing. Who looks asks again and again, for each that
//! it has found every minute and a half, and wakes all who are on the network.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use mdns_sd::{Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};

use super::{Net, tls::PeerKey};
use crate::{
    order::{self, Mutex},
    values::hex,
};

const SERVICE: &str = "_cairnfs._tcp.local.";
/// How often it is looked for new interfaces, in seconds. The library's default of 5 would be a
/// wake-up every 5 s for as long as the daemon runs.
const INTERFACES_EVERY_S: u32 = 300;
/// Addresses taken from one announcement.
const ADDRESSES_MAX: usize = 4;
/// Devices of a local network that are remembered, whoever they are.
const HEARD_MAX: usize = 256;

/// The announcement, while there is one.
#[derive(Default)]
pub(super) struct Discovery {
    responder: Mutex<Option<Responder>, order::Responder>,
    /// Who announced itself where, by fingerprint: it may become somebody to talk to later.
    heard: Mutex<BTreeMap<String, Vec<SocketAddr>>, order::Discovered>,
}

struct Responder {
    library: ServiceDaemon,
    /// Whether it looks for others too.
    looks: bool,
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Discovery({})", self.responder.lock().is_some())
    }
}

/// What stands for a device on the local network.
fn fingerprint(key: &PeerKey) -> String {
    hex(&blake3::derive_key("cairnfs 2026-11 discovery", &key.0)[..8])
}

impl Discovery {
    /// Announces this device. If that cannot be done, says so and leaves it.
    pub(super) fn start(&self, net: &Net, listening: SocketAddr) {
        let mut responder = self.responder.lock();
        // Whoever stops has said so before it takes the lock.
        if responder.is_some() || net.roster.lock().stopping {
            return;
        }
        match announce(net, listening) {
            Ok(library) => {
                *responder = Some(Responder { library, looks: false });
                // This one was not told yet whether to look.
                net.roster.lock().looks = false;
                net.wake.notify_all();
            }
            Err(err) => log::warn!("discovery working=no reason=\"{err}\""),
        }
    }

    /// Looks for others from now on, or no more.
    pub(super) fn look(&self, net: &Net, wanted: bool) {
        let mut responder = self.responder.lock();
        let Some(it) = responder.as_mut().filter(|it| it.looks != wanted) else { return };
        it.looks = wanted;
        let done = match wanted {
            true => it.library.browse(SERVICE).map(|found| net.hear(found)),
            // The thread that hears ends with that.
            false => it.library.stop_browse(SERVICE),
        };
        match done {
            Ok(()) => log::debug!("discovery looks={wanted}"),
            Err(err) => log::warn!("discovery looks={wanted} reason=\"{err}\""),
        }
    }

    /// Where a device announced itself.
    pub(super) fn heard_of(&self, key: &PeerKey) -> Vec<SocketAddr> {
        self.heard.lock().get(&fingerprint(key)).cloned().unwrap_or_default()
    }

    pub(super) fn stop(&self) {
        if let Some(responder) = self.responder.lock().take() {
            end(&responder.library);
        }
    }
}

/// Says goodbye, and ends its thread and the receiver of ours; to drop it does neither.
fn end(responder: &ServiceDaemon) {
    match responder.shutdown() {
        Ok(done) => drop(done.recv()),
        Err(err) => log::warn!("discovery stopped=no reason=\"{err}\""),
    }
}

fn announce(net: &Net, listening: SocketAddr) -> mdns_sd::Result<ServiceDaemon> {
    let responder = ServiceDaemon::new()?;
    match announce_with(&responder, net, listening) {
        Ok(()) => Ok(responder),
        Err(err) => {
            end(&responder);
            Err(err)
        }
    }
}

fn announce_with(
    responder: &ServiceDaemon,
    net: &Net,
    listening: SocketAddr,
) -> mdns_sd::Result<()> {
    responder.set_ip_check_interval(INTERFACES_EVERY_S)?;
    let own = fingerprint(&net.me);
    let host = format!("{own}.local.");
    let ip = listening.ip();
    let anywhere = ip.is_unspecified();
    let ips: Vec<IpAddr> = if anywhere { Vec::new() } else { vec![ip] };
    let nothing: [(&str, &str); 0] = [];
    let info = ServiceInfo::new(SERVICE, &own, &host, &ips[..], listening.port(), &nothing[..])?;
    responder.register(if anywhere { info.enable_addr_auto() } else { info })
}

impl Net {
    /// Takes in who is found, until it is looked for nobody.
    fn hear(&self, found: Receiver<ServiceEvent>) {
        let net = self.arc();
        let hear = move || {
            while let Ok(event) = found.recv() {
                if let ServiceEvent::ServiceResolved(service) = event {
                    net.discovered(&service);
                }
            }
        };
        if let Err(err) = self.spawn("discover-peers", hear) {
            log::warn!("discovery working=no reason={err}");
        }
    }

    /// Somebody announces itself: if it shares something, it is dialled soon.
    fn discovered(&self, service: &ResolvedService) {
        let Some(name) = service.fullname.strip_suffix(SERVICE) else { return };
        let name = name.trim_end_matches('.');
        let ips = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
        // A link-local address of IPv6 is of no use without its interface.
        let usable = ips.filter(|ip| match ip {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        });
        let mut addresses: Vec<_> = usable.map(|ip| SocketAddr::new(ip, service.port)).collect();
        addresses.sort();
        addresses.truncate(ADDRESSES_MAX);
        let mut heard = self.discovery.heard.lock();
        if heard.len() >= HEARD_MAX && !heard.contains_key(name) {
            heard.pop_first();
        }
        heard.insert(name.to_owned(), addresses.clone());
        drop(heard);
        let key = {
            let roster = self.roster.lock();
            let mut keys = roster.contacts.keys();
            keys.find(|key| fingerprint(key) == name).copied()
        };
        let Some(key) = key else { return };
        // Anybody on the network can say so, as often as they like.
        log::debug!("discovered peer={} addresses={}", key, addresses.len());
        self.hinted_at(&key, &addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_not_the_key() {
        let [one, other] = [fingerprint(&PeerKey([1; 32])), fingerprint(&PeerKey([2; 32]))];
        assert_ne!(one, other);
        assert_eq!(one.len(), 16);
        assert!(!one.starts_with("0101"));
    }
}
