//! What has gone over a device's connections.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// One peer, as `cairnfs peers --json` has it.
#[derive(Deserialize)]
pub(super) struct Peer {
    key: String,
    connected_since: Option<String>,
    sent_bytes: u64,
    received_bytes: u64,
}

/// The bytes sent and received over each connection there is, by whom it is with and when it began.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Connections(BTreeMap<(String, String), (u64, u64)>);

impl Connections {
    pub(super) fn of(peers: Vec<Peer>) -> Self {
        let connected = peers.into_iter().filter_map(|peer| {
            Some(((peer.key, peer.connected_since?), (peer.sent_bytes, peer.received_bytes)))
        });
        Self(connected.collect())
    }

    /// Bytes both ways since `before`, each sent and received.
    ///
    /// # Errors
    ///
    /// If these are not the connections of before: each is counted from 0, so that what went over one
    /// that has ended is not known.
    pub(super) fn bytes_since(&self, before: &Self) -> Result<u64> {
        ensure!(
            self.0.keys().eq(before.0.keys()),
            "the devices connected anew while something was measured: it cannot be counted"
        );
        let all = |it: &Self| it.0.values().map(|(sent, received)| sent + received).sum::<u64>();
        all(self).checked_sub(all(before)).context("a connection has fewer bytes than before")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(since: &str, sent: u64, received: u64) -> Connections {
        let said = serde_json::json!([
            {
                "key": "aa", "connected_since": since,
                "sent_bytes": sent, "received_bytes": received,
            },
            { "key": "bb", "connected_since": null, "sent_bytes": 0, "received_bytes": 0 },
        ]);
        Connections::of(serde_json::from_value(said).unwrap())
    }

    #[test]
    fn a_connection_that_began_anew_is_an_error_and_no_number() {
        let before = connected("12:00", 100, 20);
        assert_eq!(connected("12:00", 150, 27).bytes_since(&before).unwrap(), 57);
        for (sent, received) in [(30, 7), (30, 27), (150, 27)] {
            assert!(connected("12:01", sent, received).bytes_since(&before).is_err());
        }
        assert!(Connections::of(Vec::new()).bytes_since(&before).is_err());
    }
}
