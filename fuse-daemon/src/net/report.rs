//! What is told about peers and transfers to those who ask.

use std::{net::SocketAddr, time::Duration};

use cairnfs_mount_core::Time;
use serde::{Deserialize, Serialize};

use super::tls::PeerKey;
use crate::home::BucketName;

/// An invitation that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Invite {
    /// One line, to be carried to the other device.
    pub(crate) ticket: String,
    /// Until when it is good.
    pub(crate) until: Time,
    /// How many devices may use it.
    pub(crate) uses: u32,
}

/// The device that made a ticket, found again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Inviter {
    /// Its key.
    pub(crate) key: PeerKey,
    /// What its owner calls it; empty if it has no name.
    pub(crate) name: String,
    /// Where it was found; none if it came by itself.
    pub(crate) address: Option<SocketAddr>,
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
    /// Somebody else is joining the bucket.
    Waiting,
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

/// How far a device and this one have met in one bucket, as far as is known here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    /// The bucket.
    pub(crate) bucket: BucketName,
    /// When what follows is or was known.
    pub(crate) known: Known,
    /// Whether it has all that was published here; none if it has not said.
    pub(crate) all_there: Option<bool>,
    /// The version of here up to which it has everything, if it lacks something newer, and when that
    /// one was published.
    pub(crate) up_to: Option<([u8; 32], Option<Time>)>,
    /// Why it does not take what is newer, if it says so.
    pub(crate) why: Option<String>,
    /// Whether all that it published is here; none if it has not said what that is.
    pub(crate) all_here: Option<bool>,
    /// Whether something was changed here that no version holds yet: no other device has it.
    pub(crate) unpublished: bool,
}

/// When something is known of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Known {
    /// Now: the bucket is shared with it on a connection.
    Now,
    /// When it was last heard of this bucket.
    Then(Time),
    /// It has not been heard of this bucket since that was opened here.
    Never,
}

impl Step {
    /// Whether each has what the other one published.
    pub(crate) fn has_met(&self) -> bool {
        let is_all = self.all_there == Some(true) && self.all_here == Some(true);
        self.known == Known::Now && is_all
    }

    /// As [`Step::has_met`], and everything that was changed here is published.
    pub(crate) fn is_in_step(&self) -> bool {
        self.has_met() && !self.unpublished
    }
}

/// A device that shares a bucket with this one, or tries to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct PeerReport {
    /// Its key.
    pub(crate) key: PeerKey,
    /// What its owner calls it; empty if it has no name.
    pub(crate) name: String,
    /// Where it is connected to or was last seen.
    pub(crate) address: Option<SocketAddr>,
    /// Since when it is connected, if it is.
    pub(crate) connected: Option<Time>,
    /// Whether this device made the connection.
    pub(crate) dialled: bool,
    /// Buckets served here that it has too, and how far it has met this device in each.
    pub(crate) buckets: Vec<Step>,
    /// Those of them from which this device was removed, as it says.
    pub(crate) removed_from: Vec<BucketName>,
    /// What is being fetched from it.
    pub(crate) transfer: Option<Transfer>,
    /// Bytes sent to it over this connection.
    pub(crate) sent_bytes: u64,
    /// Bytes received from it over this connection.
    pub(crate) received_bytes: u64,
    /// What last went wrong, in plain words, and when.
    pub(crate) last_error: Option<(String, Time)>,
    /// When it was last heard of.
    pub(crate) last_seen: Option<Time>,
    /// In how long it is tried again, if that is planned.
    pub(crate) next_try: Option<Duration>,
}

impl PeerReport {
    /// How far it has met this device in `bucket`, if it has that.
    pub(crate) fn step(&self, bucket: &BucketName) -> Option<&Step> {
        self.buckets.iter().find(|step| step.bucket == *bucket)
    }
}
