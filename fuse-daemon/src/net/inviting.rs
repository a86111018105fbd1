//! Letting a device in.
//!
//! ```text
//!   invited                                      inviter
//!     -- Knock::Ticket(secret, name) ------------->   uses the ticket up, durably
//!                                                     set_member, published
//!     <- Admission::Joined(bucket, secrets) -------
//!   makes the bucket; from here on both are members: dials again, fetches the first version
//! ```

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use cairnfs_mount_core::{BucketId, Error as CoreError, Role};
use zeroize::Zeroizing;

use super::{
    Net,
    invites::{Good, Redeemed},
    joining::not_served,
    listen::NO_PORT,
    message::{Admission, GivenSecret, Refusal},
    replica::Replica,
    report::Invite,
    session::Opened,
    ticket::{ADDRESSES_MAX, Ticket},
    tls::PeerKey,
};
use crate::{
    exit::{Code, Failure, Result},
    home::BucketName,
};

/// Longest name of a device in bytes.
const NAME_BYTES_MAX: usize = 64;

impl Net {
    /// Makes an invitation to a bucket that is served.
    ///
    /// # Errors
    ///
    /// [`Code::NotFound`] if it is not served; [`Code::Failed`] if this device may not invite, or
    /// cannot be reached.
    pub(crate) fn invite(
        &self,
        bucket: &BucketName,
        role: Role,
        lifetime: Duration,
        uses: u32,
    ) -> Result<Invite> {
        let offered = self.served(bucket)?;
        let found =
            offered.with(|replica| (replica.bucket_id(), replica.role(), replica.removals()));
        let (id, own_role, removals) = found.ok_or_else(|| not_served(bucket))?;
        if own_role != Some(Role::Owner) {
            let message = format!("only an owner of bucket '{bucket}' can invite to it");
            return Err(Failure::new(Code::Failed, message));
        }
        self.be_reachable();
        let addresses = self.own_addresses();
        if addresses.is_empty() {
            let why = self.not_listening();
            let why = why.unwrap_or_else(|| NO_PORT.into());
            return Err(Failure::new(Code::Failed, why));
        }
        let drawn = super::random()
            .map_err(|err| Failure::new(Code::Failed, format_args!("cannot invite: {err}")))?;
        let mut secret = Zeroizing::new([0; 16]);
        secret.copy_from_slice(&drawn[..16]);
        let now = SystemTime::now();
        let until = now + lifetime;
        self.invites.add(&secret, Good { bucket: id, role }, (until, uses), &removals, now)?;
        let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
        let ticket = Ticket { bucket: id, device: self.me, secret, until, addresses };
        log::info!("invited bucket={} uses={uses}", offered.short_id());
        Ok(Invite { ticket: ticket.to_line(), until: until.into(), uses })
    }

    /// A device was removed from a bucket: tickets that it used let nobody in any more.
    pub(crate) fn revoke(&self, bucket: BucketId, device: &PeerKey) -> Result<()> {
        self.invites.forget(bucket, device)
    }

    /// A bucket is not here any more: forgets who was invited to it, and what was known of its
    /// members. What fails is logged, as the bucket has gone.
    pub(crate) fn forget(&self, bucket: BucketId) {
        if let Err(failure) = self.invites.forget_bucket(bucket) {
            log::warn!("forget reason={:?}", failure.message);
        }
        let served = self.all_served();
        // Of one that is not served nobody can tell who shares it.
        let is_served = |name: &BucketName| served.iter().any(|offered| offered.name == *name);
        let all_served = self.home.bucket_names().is_ok_and(|all| all.iter().all(is_served));
        let others = served.iter().flat_map(|offered| offered.others()).map(|(key, _)| key);
        let others = all_served.then(|| others.collect());
        self.addresses.forget(bucket, others.as_ref());
    }

    /// Answers who presents a ticket; calls `good` if it is good.
    pub(super) fn let_in(
        &self,
        opened: Opened,
        secret: &[u8; 16],
        name: &str,
        port: Option<u16>,
        good: &dyn Fn(),
    ) {
        let peer = opened.key;
        let admission = match self.redeem(&opened.key, secret, name, good) {
            Ok(joined) => {
                if let Some(port) = port {
                    let address = SocketAddr::new(opened.address.ip(), port);
                    self.addresses.add(&opened.key, &[address]);
                }
                log::info!("let-in peer={peer}");
                joined
            }
            Err(refusal) => {
                let who = format_args!("peer={peer} address={}", opened.address);
                self.listener.note_refusal(&who, &format_args!("ticket: {refusal:?}"));
                Admission::Refused(refusal)
            }
        };
        match opened.send(&admission) {
            Ok(()) => opened.finish(),
            // That of who is refused is nobody's trouble here.
            Err(err) if matches!(admission, Admission::Refused(_)) => {
                log::debug!("refused peer={peer} told=no reason=\"{err}\"");
            }
            Err(err) => log::info!("let-in peer={peer} told=no reason=\"{err}\""),
        }
    }

    fn redeem(
        &self,
        key: &PeerKey,
        secret: &[u8; 16],
        name: &str,
        is_good: &dyn Fn(),
    ) -> Result<Admission, Refusal> {
        let redeemed = self.invites.redeem(secret, key, SystemTime::now());
        let redeemed = redeemed.map_err(|failure| failed(&failure))??;
        is_good();
        let joined = self.make_member(key, name, &redeemed);
        if redeemed.fresh && joined.is_err() {
            self.invites.give_back(secret, key).map_err(|failure| failed(&failure))?;
        }
        joined?.ok_or(Refusal::Removed)
    }

    /// None if the device was removed meanwhile: it has been a member by its use of the ticket, which is
    /// not given back.
    fn make_member(
        &self,
        key: &PeerKey,
        name: &str,
        redeemed: &Redeemed,
    ) -> Result<Option<Admission>, Refusal> {
        let good = redeemed.good;
        let offered = self.all_served().into_iter().find(|it| it.id == good.bucket);
        let offered = offered.ok_or(Refusal::NotServed)?;
        let is_member = offered.trusts(key);
        if !is_member && !redeemed.fresh {
            // It was one, and was removed.
            return Err(Refusal::UsedUp);
        }
        let removed_since = |replica: &dyn Replica, device: &PeerKey| {
            replica.removal(device).is_some_and(|removal| !redeemed.knows(&removal))
        };
        let was_removed_since = |device: &PeerKey| {
            offered.with(|replica| removed_since(replica, device)).unwrap_or(false)
        };
        if was_removed_since(key) {
            return Err(Refusal::Removed);
        }
        if !is_member && let Some(out) = redeemed.used_by.iter().find(|it| was_removed_since(it)) {
            self.revoke(good.bucket, out).map_err(|failure| failed(&failure))?;
            return Err(Refusal::Unknown);
        }
        // At once: a use whose device has become a member is not given back.
        let made = offered.with(|replica| {
            if !is_member {
                replica.set_member(*key, &clean_name(name), Some(good.role))?;
            }
            let secrets = replica.secrets(&[]);
            // Asked after they were taken: one of them may have been made as it was removed.
            let is_in = replica.members().iter().any(|member| member.key == *key);
            Ok((is_in && !removed_since(replica, key)).then_some(secrets))
        });
        let secrets = made.ok_or(Refusal::NotServed)?.map_err(|err: CoreError| {
            log::error!("invite bucket={} reason=\"{err}\"", offered.short_id());
            Refusal::Failed
        })?;
        Ok(secrets.map(|secrets| Admission::Joined {
            bucket: good.bucket.0,
            bucket_name: offered.name.to_string(),
            device_name: self.options.device_name.clone(),
            secrets: GivenSecret::pack(&secrets),
        }))
    }
}

/// What is said of what failed here; the log has the reason.
fn failed(failure: &Failure) -> Refusal {
    log::error!("invite reason={:?}", failure.message);
    Refusal::Failed
}

/// A name of a device that can be shown: no control characters, not too long.
pub(super) fn clean_name(name: &str) -> String {
    let mut clean: String = name.chars().filter(|c| !c.is_control()).collect();
    while clean.len() > NAME_BYTES_MAX {
        clean.pop();
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_stranger_chose_can_be_shown() {
        assert_eq!(clean_name("lap\x1b[2Jtop\n"), "lap[2Jtop");
        assert!(clean_name(&"ä".repeat(1000)).len() <= NAME_BYTES_MAX);
    }
}
