//! What is told about peers and transfers to those who ask.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::home::BucketName;

/// An invitation that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Invite {
    /// One line, to be carried to the other device.
    pub(crate) ticket: String,
    /// Until when it is good.
    pub(crate) until: SystemTime,
    /// How many devices may use it.
    pub(crate) uses: u32,
}

/// Something that is being fetched from a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// The bucket.
    pub(crate) bucket: BucketName,
    /// Pieces that have come.
    pub(crate) blobs: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Pieces known to be lacking; more may turn up.
    pub(crate) lacking: u64,
}

/// How far joining has got.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum JoinProgress {
    /// Trying to reach the device that invited, here.
    Connecting(SocketAddr),
    /// Fetching the first version.
    Fetching(Transfer),
}

/// How far meeting the peers has got.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum SyncProgress {
    /// Looking for a peer.
    Connecting,
    /// So many peers do not have what is here, or have what is not here.
    Waiting {
        /// Pairs of a connected peer and a bucket that have not met.
        behind: u32,
        /// Why one of them stays behind, if that is known.
        why: Option<String>,
    },
    /// Something is being fetched.
    Fetching(Transfer),
}

/// What meeting the peers came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SyncOutcome {
    /// Connected peers that have everything, and of whom everything is here.
    pub(crate) peers: u32,
    /// Devices that have one of the buckets too but are not connected, by name or short key.
    pub(crate) unreached: Vec<String>,
}

/// A device that shares a bucket with this one, or tries to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct PeerReport {
    /// Its key.
    pub(crate) key: [u8; 32],
    /// What its owner calls it; empty if it has no name.
    pub(crate) name: String,
    /// Where it is connected to or was last seen.
    pub(crate) address: Option<SocketAddr>,
    /// Since when it is connected, if it is.
    pub(crate) connected: Option<SystemTime>,
    /// Whether this device made the connection.
    pub(crate) dialled: bool,
    /// Buckets served here that it has too.
    pub(crate) buckets: Vec<BucketName>,
    /// Those of them from which this device was removed, as it says.
    pub(crate) removed_from: Vec<BucketName>,
    /// What is being fetched from it.
    pub(crate) transfer: Option<Transfer>,
    /// Bytes sent to it over this connection.
    pub(crate) sent_bytes: u64,
    /// Bytes received from it over this connection.
    pub(crate) received_bytes: u64,
    /// What last went wrong, in plain words, and when.
    pub(crate) last_error: Option<(String, SystemTime)>,
    /// When it was last heard of.
    pub(crate) last_seen: Option<SystemTime>,
    /// In how long it is tried again, if that is planned.
    pub(crate) next_try: Option<Duration>,
}
