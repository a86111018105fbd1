//! Telling members of a bucket where the others are: devices that were invited by a third one would
//! not find each other, and not meet any more when that one has gone.
//!
//! # Invariants
//!
//! 1. Only members with whom a bucket is shared are told of others, and only of its members.
//! 2. Passed on is where a device was found, or said itself that it is; never what others said.
//!
//! Whom a device is told of that has its own key is a copy of it, see [`twins`](super::twins).

use std::{net::IpAddr, net::SocketAddr, sync::Arc};

use super::{
    Net,
    desk::Side,
    message::{WHERE_ADDRESSES_MAX, WHERE_MAX, Whereabouts},
    sharing::Offered,
    tls::PeerKey,
};

/// Tells a peer where the other members are, and those that are connected where it is.
pub(super) fn introduce(net: &Net, offered: &Arc<Offered>, new: &Side) {
    let key = new.session.key;
    let sides = offered.sides();
    let is_here = |key: &PeerKey| sides.iter().any(|side| side.session.key == *key);
    let mut others: Vec<_> = offered.others().into_iter().map(|(key, _)| key).collect();
    others.retain(|other| *other != key);
    // Of more than can be named those that are there for sure.
    others.sort_by_key(|other| !is_here(other));
    let found = others.iter().filter_map(|other| whereabouts(net, other, new));
    new.say_where(found.take(WHERE_MAX).collect());
    new.say_where(twin(net, new).into_iter().collect());
    for side in sides.iter().filter(|side| side.session.key != key) {
        side.say_where(whereabouts(net, &key, side).into_iter().collect());
    }
}

/// Where another machine is that has the key of this peer: neither hears of that otherwise.
fn twin(net: &Net, peer: &Side) -> Option<Whereabouts> {
    let device = peer.session.key;
    let [_, other] = net.roster.lock().twins(&device)?;
    Some(Whereabouts { device, addresses: vec![other] })
}

/// Where a device is, as far as that is of use to the peer that is told.
fn whereabouts(net: &Net, device: &PeerKey, told: &Side) -> Option<Whereabouts> {
    let mut addresses = net.addresses.known(device);
    addresses.retain(|address| is_useful(address, told.session.address.ip()));
    addresses.truncate(WHERE_ADDRESSES_MAX);
    (!addresses.is_empty()).then_some(Whereabouts { device: *device, addresses })
}

/// Whether an address may mean the same to a peer that is seen at `from`.
fn is_useful(address: &SocketAddr, from: IpAddr) -> bool {
    match address.ip() {
        ip if ip.is_loopback() => from.is_loopback(),
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_of_addresses_that_mean_something_else_there() {
        let useful =
            |address: &str, from: &str| is_useful(&address.parse().unwrap(), from.parse().unwrap());
        assert!(useful("127.0.0.1:5", "127.0.0.1") && useful("[::1]:5", "127.0.0.2"));
        assert!(!useful("127.0.0.1:5", "10.0.0.1") && !useful("[::1]:5", "10.0.0.1"));
        assert!(useful("10.0.0.2:5", "10.0.0.1") && useful("[2001:db8::1]:5", "10.0.0.1"));
        assert!(!useful("[fe80::1]:5", "10.0.0.1"));
    }
}
