//! Telling a device that it was removed from a bucket, and hearing that.
//!
//! It is told when it knocks, or, if other buckets are shared with it, on their connection. It has proved
//! its key. A bucket is named by a mark, as in an offer: whoever had it recognises it, and nobody else
//! learns anything.

use cairnfs_mount_core::BucketId;

use super::{
    Net,
    message::{Admission, OFFERS_MAX},
    session::{Challenge, Opened},
    sharing::Offered,
    tls::PeerKey,
};
use crate::home::BucketName;

/// Sets these marks apart from those of an offer, which end in 0 or 1.
const REMOVED: u8 = 2;

impl Net {
    /// Whether a member has said that this device was removed from `bucket`.
    pub(crate) fn is_removed_from(&self, bucket: BucketId) -> bool {
        !self.addresses.removed_by(bucket).is_empty()
    }

    /// Tells who knocked from what it was removed; says whether there was anything to tell.
    pub(super) fn tell_removed(&self, opened: Opened) -> bool {
        let served = self.all_served();
        let removed = served.iter().filter(|offered| offered.has_removed(&opened.key));
        let marks = removed.filter_map(|offered| mark(offered, &opened.challenge));
        let marks: Vec<_> = marks.take(OFFERS_MAX).collect();
        if marks.is_empty() {
            return false;
        }
        match opened.send(&Admission::Removed { marks }) {
            Ok(()) => opened.finish(),
            Err(err) => log::debug!("removed told=no reason=\"{err}\""),
        }
        true
    }

    /// A member of these buckets, as is known here, says that this device was removed from them;
    /// returns those that are served here.
    pub(super) fn hear_removed(
        &self,
        peer: &PeerKey,
        challenge: &Challenge,
        marks: &[[u8; 32]],
    ) -> Vec<BucketName> {
        let mut names = Vec::new();
        for offered in self.all_served() {
            let is_meant = || mark(&offered, challenge).is_some_and(|mark| marks.contains(&mark));
            if !offered.trusts(peer) || !is_meant() {
                continue;
            }
            // Once: on a connection it may be said as often as the peer likes.
            if !self.addresses.removed_by(offered.id).contains(peer) {
                log::warn!("removed bucket={}", offered.short_id());
                self.addresses.removed_from(peer, offered.id);
            }
            names.push(offered.name.clone());
        }
        names
    }
}

/// What names a bucket to who was removed from it.
pub(super) fn mark(offered: &Offered, challenge: &Challenge) -> Option<[u8; 32]> {
    let mut challenge = challenge.to_vec();
    challenge.push(REMOVED);
    offered.with(|replica| replica.recognise(&challenge))
}

/// `this device was removed from bucket 'photos' by its members`
pub(crate) fn said(bucket: &BucketName) -> String {
    format!("this device was removed from bucket '{bucket}' by its members")
}
