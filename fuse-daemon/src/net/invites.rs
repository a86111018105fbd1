//! Invitations that this device has made: `invites.toml`.
//!
//! # Invariants
//!
//! 1. A ticket lets in as many devices as it was made for, and until when: each use is durable
//!    before its device is let in, and so is that it was found to have ended. A clock that is put back
//!    to before what was noted last does not count.
//! 2. The file does not hold what is in a ticket, only a hash of its secret.
//! 3. A device that has used a ticket may present it again, as its first try may have been cut: that
//!    uses up nothing, gives nothing back, and makes no member of a device that is none any more,
//!    whoever removed it. The price: a crash after a use is durable and before its device is a
//!    member costs that use.
//! 4. A ticket lets in nobody who was removed after it was made, or before without that being known
//!    here then; and nobody at all once that is so of a device which has used it: that device still
//!    knows what is in the ticket, and might come with another key.

use std::{path::PathBuf, time::SystemTime};

use cairnfs_mount_core::{BucketId, Role};
use serde::{Deserialize, Serialize};

use super::{message::Refusal, ticket::seconds, tls::PeerKey};
use crate::{
    durable,
    exit::{Code, Failure, Result},
    order::{self, Mutex},
    values::{hex, parse_hex},
};

/// More invitations than anybody has open.
const INVITES_MAX: usize = 256;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invitation {
    /// BLAKE3 of the ticket's secret, under a context.
    hash: String,
    bucket: String,
    role: Role,
    /// Seconds since 1970.
    until: u64,
    /// How many more devices may use it.
    left: u32,
    /// Devices that have used it.
    #[serde(default)]
    used_by: Vec<String>,
    /// The removals that were known when it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removals: Vec<String>,
    /// Whether it was too late once.
    #[serde(default, skip_serializing_if = "is_false")]
    ended: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(it: &bool) -> bool {
    !*it
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Contents {
    /// The latest time that was noted since a ticket was made, in seconds since 1970.
    #[serde(default)]
    noted: u64,
    #[serde(default)]
    invite: Vec<Invitation>,
}

impl Contents {
    /// It is `now`: what has ended by then, or by a later time that was noted, has ended for good. Says
    /// whether anything has.
    fn note(&mut self, now: SystemTime) -> bool {
        self.noted = self.noted.max(seconds(now));
        let noted = self.noted;
        let ending = self.invite.iter_mut().filter(|one| !one.ended && one.until <= noted);
        ending.map(|one| one.ended = true).count() > 0
    }
}

/// A ticket that is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Good {
    pub(super) bucket: BucketId,
    pub(super) role: Role,
}

/// A ticket that is good, in the hands of one device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Redeemed {
    pub(super) good: Good,
    /// Whether a use was used up just now; else this device had used the ticket before.
    pub(super) fresh: bool,
    /// Who has used it, with this one.
    pub(super) used_by: Vec<PeerKey>,
    removals: Vec<String>,
}

impl Redeemed {
    /// Whether it was made by who knew of this removal.
    pub(super) fn knows(&self, removal: &Removal) -> bool {
        self.removals.contains(&hex(removal))
    }
}

/// The name of a removal, see [`Mount::removal`](cairnfs_mount_core::Mount::removal).
pub(super) type Removal = [u8; 32];

/// See the module's doc.
#[derive(Debug)]
pub(super) struct Invites {
    path: PathBuf,
    /// Held while the file is read and written.
    alone: Mutex<(), order::Invites>,
}

fn hash(secret: &[u8; 16]) -> blake3::Hash {
    let key = blake3::derive_key("cairnfs 2026-11 ticket secret", secret);
    blake3::Hash::from_bytes(key)
}

impl Invites {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, alone: Mutex::new(()) }
    }

    /// Remembers a new invitation, which is made knowing of `removals`, durably.
    pub(super) fn add(
        &self,
        secret: &[u8; 16],
        good: Good,
        (until, uses): (SystemTime, u32),
        removals: &[Removal],
        now: SystemTime,
    ) -> Result<()> {
        let _alone = self.alone.lock();
        let mut contents = self.read()?;
        contents.note(now);
        // The new one is good from now on, though the clock may have been ahead once.
        let now = seconds(now);
        contents.noted = now;
        // A day longer, so that who comes too late hears just that.
        contents.invite.retain(|one| one.until.saturating_add(86_400) > now);
        if contents.invite.len() >= INVITES_MAX {
            let message = format!("{INVITES_MAX} invitations are open: wait until some end");
            return Err(Failure::new(Code::Failed, message));
        }
        contents.invite.push(Invitation {
            hash: hash(secret).to_hex().to_string(),
            bucket: good.bucket.to_string(),
            role: good.role,
            until: seconds(until),
            left: uses,
            used_by: Vec::new(),
            removals: removals.iter().map(|removal| hex(removal)).collect(),
            ended: false,
        });
        self.write(&contents)
    }

    /// Whether any ticket may still be presented. Notes what time it is, for when the clock goes back.
    pub(super) fn are_open(&self, now: SystemTime) -> bool {
        let _alone = self.alone.lock();
        let Ok(mut contents) = self.read() else { return false };
        if contents.invite.iter().all(|one| one.ended) {
            return false;
        }
        contents.note(now);
        if let Err(failure) = self.write(&contents) {
            log::warn!("invites-file reason={:?}", failure.message);
        }
        contents.invite.iter().any(|one| !one.ended)
    }

    /// Whether a ticket with this secret was made here, as far as is remembered.
    pub(super) fn has_made(&self, secret: &[u8; 16]) -> Result<bool> {
        let _alone = self.alone.lock();
        let hash = hash(secret).to_hex();
        Ok(self.read()?.invite.iter().any(|one| one.hash == hash.as_str()))
    }

    /// Uses a ticket up for `device`, durably.
    pub(super) fn redeem(
        &self,
        secret: &[u8; 16],
        device: &PeerKey,
        now: SystemTime,
    ) -> Result<Result<Redeemed, Refusal>> {
        let _alone = self.alone.lock();
        let mut contents = self.read()?;
        if contents.note(now) {
            self.write(&contents)?;
        }
        // Comparing hashes takes as long wherever they differ; so does looking at all of them.
        let presented = hash(secret);
        let mut found = None;
        for (index, one) in contents.invite.iter().enumerate() {
            if blake3::Hash::from_hex(&one.hash).is_ok_and(|hash| hash == presented) {
                found = Some(index);
            }
        }
        let Some(one) = found.and_then(|index| contents.invite.get_mut(index)) else {
            return Ok(Err(Refusal::Unknown));
        };
        let device = hex(&device.0);
        if one.ended {
            return Ok(Err(Refusal::Expired));
        }
        let Some(bucket) = parse_hex(&one.bucket).map(BucketId) else {
            return Err(Failure::new(Code::Failed, "invites.toml names a bucket that is none"));
        };
        let good = Good { bucket, role: one.role };
        let fresh = !one.used_by.contains(&device);
        if fresh {
            if one.left == 0 {
                return Ok(Err(Refusal::UsedUp));
            }
            one.left -= 1;
            one.used_by.push(device);
        }
        let used_by = one.used_by.iter().filter_map(|key| parse_hex(key).map(PeerKey)).collect();
        let redeemed = Redeemed { good, fresh, used_by, removals: one.removals.clone() };
        if fresh {
            self.write(&contents)?;
        }
        Ok(Ok(redeemed))
    }

    /// Gives back a use, a fresh one, that came to nothing.
    pub(super) fn give_back(&self, secret: &[u8; 16], device: &PeerKey) -> Result<()> {
        let _alone = self.alone.lock();
        let mut contents = self.read()?;
        let (hash, device) = (hash(secret).to_hex().to_string(), hex(&device.0));
        for one in contents.invite.iter_mut().filter(|one| one.hash == hash) {
            if let Some(at) = one.used_by.iter().position(|used| *used == device) {
                one.used_by.remove(at);
                one.left = one.left.saturating_add(1);
            }
        }
        self.write(&contents)
    }

    /// A device is removed: the tickets that it used let nobody in any more.
    pub(super) fn forget(&self, bucket: BucketId, device: &PeerKey) -> Result<()> {
        let (bucket, device) = (bucket.to_string(), hex(&device.0));
        self.retain(|one| one.bucket != bucket || !one.used_by.contains(&device))
    }

    /// The bucket is not here any more: nobody is let into it.
    pub(super) fn forget_bucket(&self, bucket: BucketId) -> Result<()> {
        self.retain(|one| one.bucket != bucket.to_string())
    }

    fn retain(&self, stays: impl Fn(&Invitation) -> bool) -> Result<()> {
        let _alone = self.alone.lock();
        let mut contents = self.read()?;
        let before = contents.invite.len();
        contents.invite.retain(stays);
        if contents.invite.len() == before { Ok(()) } else { self.write(&contents) }
    }

    fn read(&self) -> Result<Contents> {
        durable::load(&self.path)
    }

    fn write(&self, contents: &Contents) -> Result<()> {
        durable::store(&self.path, "Made by 'cairnfs invite'.", contents)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn good() -> Good {
        Good { bucket: BucketId([3; 16]), role: Role::Writer }
    }

    fn redeemed(fresh: bool, by: u8) -> Result<Redeemed, Refusal> {
        Ok(Redeemed { good: good(), fresh, used_by: vec![PeerKey([by; 32])], removals: Vec::new() })
    }

    #[test]
    fn a_ticket_is_good_once_but_again_for_the_same_device() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("invites.toml");
        let until = SystemTime::now() + HOUR;
        Invites::new(path.clone())
            .add(&[1; 16], good(), (until, 1), &[], SystemTime::now())
            .unwrap();
        // After a restart too.
        let invites = Invites::new(path);
        assert!(invites.are_open(SystemTime::now()));
        assert_eq!(
            invites.redeem(&[2; 16], &PeerKey([7; 32]), SystemTime::now()).unwrap(),
            Err(Refusal::Unknown)
        );
        assert_eq!(
            invites.redeem(&[1; 16], &PeerKey([7; 32]), SystemTime::now()).unwrap(),
            redeemed(true, 7)
        );
        assert_eq!(
            invites.redeem(&[1; 16], &PeerKey([7; 32]), SystemTime::now()).unwrap(),
            redeemed(false, 7)
        );
        assert_eq!(
            invites.redeem(&[1; 16], &PeerKey([8; 32]), SystemTime::now()).unwrap(),
            Err(Refusal::UsedUp)
        );
        invites.give_back(&[1; 16], &PeerKey([7; 32])).unwrap();
        assert_eq!(
            invites.redeem(&[1; 16], &PeerKey([8; 32]), SystemTime::now()).unwrap(),
            redeemed(true, 8)
        );
    }

    #[test]
    fn a_ticket_ends_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let invites = Invites::new(dir.path().join("invites.toml"));
        invites
            .add(&[1; 16], good(), (SystemTime::now() - HOUR, 5), &[], SystemTime::now())
            .unwrap();
        assert_eq!(
            invites.redeem(&[1; 16], &PeerKey([7; 32]), SystemTime::now()).unwrap(),
            Err(Refusal::Expired)
        );
        assert!(!invites.are_open(SystemTime::now()));
    }

    #[test]
    fn a_ticket_that_has_ended_stays_so_when_the_clock_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("invites.toml");
        let now = SystemTime::now();
        let invite = |secret| {
            let ends = (now + HOUR, 5);
            Invites::new(path.clone()).add(&[secret; 16], good(), ends, &[], now).unwrap();
        };
        let redeem = |secret, at| {
            Invites::new(path.clone()).redeem(&[secret; 16], &PeerKey([7; 32]), at).unwrap()
        };
        invite(1);
        assert_eq!(redeem(1, now + HOUR * 2), Err(Refusal::Expired));
        assert_eq!(redeem(1, now), Err(Refusal::Expired), "somebody came too late");
        invite(2);
        assert!(!Invites::new(path.clone()).are_open(now + HOUR * 2));
        assert_eq!(redeem(2, now), Err(Refusal::Expired), "a daemon was started then");
        // A clock that was ahead for a while takes no ticket with it that is made after that.
        invite(3);
        assert_eq!(redeem(3, now), redeemed(true, 7));
        assert_eq!(redeem(1, now), Err(Refusal::Expired));
    }

    #[test]
    fn the_ticket_of_a_removed_device_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let invites = Invites::new(dir.path().join("invites.toml"));
        invites
            .add(&[1; 16], good(), (SystemTime::now() + HOUR, 2), &[], SystemTime::now())
            .unwrap();
        assert_eq!(
            invites.redeem(&[1; 16], &PeerKey([7; 32]), SystemTime::now()).unwrap(),
            redeemed(true, 7)
        );
        invites.forget(good().bucket, &PeerKey([7; 32])).unwrap();
        for device in [PeerKey([7; 32]), PeerKey([8; 32])] {
            assert_eq!(
                invites.redeem(&[1; 16], &device, SystemTime::now()).unwrap(),
                Err(Refusal::Unknown)
            );
        }
    }

    #[test]
    fn a_ticket_knows_the_removals_that_were_known_when_it_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("invites.toml");
        let ends = (SystemTime::now() + HOUR, 2);
        Invites::new(path.clone())
            .add(&[1; 16], good(), ends, &[[5; 32], [6; 32]], SystemTime::now())
            .unwrap();
        let redeemed = Invites::new(path)
            .redeem(&[1; 16], &PeerKey([7; 32]), SystemTime::now())
            .unwrap()
            .unwrap();
        let known = [[5; 32], [6; 32], [7; 32]].map(|removal| redeemed.knows(&removal));
        assert_eq!(known, [true, true, false]);
    }

    #[test]
    fn the_file_does_not_hold_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("invites.toml");
        let secret = [0xab; 16];
        let invites = Invites::new(path.clone());
        invites
            .add(&secret, good(), (SystemTime::now() + HOUR, 1), &[], SystemTime::now())
            .unwrap();
        assert!(!std::fs::read_to_string(path).unwrap().contains(&hex(&secret)));
    }
}
