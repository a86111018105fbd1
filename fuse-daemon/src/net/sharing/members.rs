//! Who may have the bucket, and may what, as it says itself.

use cairnfs_mount_core::{Member, Role};

use super::{
    super::{replica::Replica, tls::PeerKey},
    Offered,
};

impl Offered {
    /// Whether a device may have what is in the bucket.
    pub(in crate::net) fn trusts(&self, key: &PeerKey) -> bool {
        let member = |replica: &dyn Replica| {
            replica.members().iter().any(|member| member.key == *key)
                || (replica.awaits_first_version() && self.inviters.contains(key))
        };
        *key != self.me && self.with(member).unwrap_or(false)
    }

    /// Whether a device may write in the bucket.
    pub(in crate::net) fn is_writer(&self, key: &PeerKey) -> bool {
        let is_it = |member: &Member| member.key == *key && member.role != Role::Reader;
        self.with(|replica| replica.members().iter().any(is_it)).unwrap_or(false)
    }

    /// Whether a device had the bucket once and was removed, as far as is known here.
    pub(in crate::net) fn has_removed(&self, key: &PeerKey) -> bool {
        self.with(|replica| replica.removal(key)).flatten().is_some()
    }

    /// The devices that may have the bucket, without this one, by key and name.
    pub(in crate::net) fn others(&self) -> Vec<(PeerKey, String)> {
        let others = self.with(|replica| {
            let members = replica.members();
            let mut others: Vec<_> =
                members.into_iter().map(|member| (member.key, member.name)).collect();
            if replica.awaits_first_version() {
                others.extend(self.inviters.iter().map(|key| (*key, String::new())));
            }
            others
        });
        let mut others = others.unwrap_or_default();
        others.retain(|(key, _)| *key != self.me);
        others
    }

    /// Says whether there are other members than when this was last asked, or others' rights.
    pub(in crate::net) fn has_other_members(&self) -> bool {
        let members = self.with(|replica| replica.members()).unwrap_or_default();
        let mut desk = self.desk.lock();
        let has_others = desk.members != members;
        desk.members = members;
        has_others
    }
}
