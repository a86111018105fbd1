//! Letting a device in, and being let in.
//!
//! ```text
//!   invited                                      inviter
//!     -- Knock::Ticket(secret, name) ------------->   uses the ticket up, durably
//!                                                     set_member, published
//!     <- Admission::Joined(bucket, secrets) -------
//!   makes the bucket; from here on both are members: dials again, fetches the first version
//! ```

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use cairnfs_mount_core::{
    Bucket, BucketId, Error as CoreError, Mount, Options, Protection, Role, Unlock,
};
use zeroize::Zeroizing;

use super::{
    Net,
    invites::{Good, Redeemed},
    message::{ADMISSION_BYTES_MAX, Admission, GivenSecret, Knock, Refusal},
    opening::OpenError,
    replica::Secrets,
    report::{Invite, JoinProgress, Transfer},
    session::Opened,
    ticket::{ADDRESSES_MAX, Ticket},
    tls::PeerKey,
};
use crate::{
    exit::{Code, Failure, Result},
    home::BucketName,
    values::hex,
};

/// Longest name of a device in bytes.
const NAME_BYTES_MAX: usize = 64;
/// How long the inviter may take: it publishes a version.
const ADMISSION_WAIT: Duration = Duration::from_secs(60);
/// How long without any progress until joining is given up.
const PROGRESS_WAIT: Duration = Duration::from_secs(60);
/// How often who waits hears how far it is.
const TICK: Duration = Duration::from_millis(200);

/// A bucket that this device is a member of, but that is not here yet.
pub(crate) struct Joining {
    bucket: BucketId,
    suggested: String,
    /// Whose first version is believed.
    inviters: Vec<PeerKey>,
    secrets: Secrets,
}

impl fmt::Debug for Joining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Joining({})", self.bucket)
    }
}

impl Joining {
    /// What was joined before as `mount`, to be brought from those who may invite; if that is nobody
    /// but this device, from those who may write.
    ///
    /// # Errors
    ///
    /// [`Code::NoPeer`] if there is no such device.
    pub(crate) fn again(mount: &Mount, me: &PeerKey) -> Result<Self> {
        let members = mount.members();
        let of = |role: Role| -> Vec<PeerKey> {
            let others = members.iter().filter(|member| member.key != *me && member.role == role);
            others.map(|member| member.key).collect()
        };
        let inviters = Some(of(Role::Owner)).filter(|owners| !owners.is_empty());
        let inviters = inviters.unwrap_or_else(|| of(Role::Writer));
        if inviters.is_empty() {
            let message = "no other device may write in the bucket: what is here is all there is";
            return Err(Failure::new(Code::NoPeer, message));
        }
        let (bucket, secrets) = (mount.bucket_id(), mount.secrets(&[]));
        Ok(Self { bucket, suggested: String::new(), inviters, secrets })
    }

    /// The bucket.
    pub(crate) fn bucket(&self) -> BucketId {
        self.bucket
    }

    /// What the device that invited calls it, if that can be a name here.
    pub(crate) fn suggested(&self) -> Option<BucketName> {
        self.suggested.parse().ok()
    }
}

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
        let found = offered.with(|replica| (replica.bucket_id(), replica.role()));
        let (id, own_role) = found.ok_or_else(|| not_served(bucket))?;
        if own_role != Some(Role::Owner) {
            let message = format!("only an owner of bucket '{bucket}' can invite to it");
            return Err(Failure::new(Code::Failed, message));
        }
        self.be_reachable();
        let addresses = self.own_addresses();
        if addresses.is_empty() {
            return Err(Failure::new(Code::Failed, "no port can be had to be reached at"));
        }
        let drawn = super::random()
            .map_err(|err| Failure::new(Code::Failed, format_args!("cannot invite: {err}")))?;
        let mut secret = Zeroizing::new([0; 16]);
        secret.copy_from_slice(&drawn[..16]);
        let until = SystemTime::now() + lifetime;
        self.invites.add(&secret, Good { bucket: id, role }, until, uses)?;
        let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
        let ticket = Ticket { bucket: id, device: self.me, secret, until, addresses };
        log::info!("invited bucket={} uses={uses}", offered.short_id());
        Ok(Invite { ticket: ticket.to_line(), until, uses })
    }

    /// A device was removed from a bucket: tickets that it used let nobody in any more.
    pub(crate) fn revoke(&self, bucket: BucketId, device: &PeerKey) -> Result<()> {
        self.invites.forget(bucket, device)
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
        let peer = hex(&opened.key[..4]);
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
                log::warn!("refused peer={peer} ticket={refusal:?}");
                Admission::Refused(refusal)
            }
        };
        match opened.send(&admission) {
            Ok(()) => opened.finish(),
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
        let failed = |failure: Failure| {
            log::error!("invite reason={:?}", failure.message);
            Refusal::Failed
        };
        let redeemed = self.invites.redeem(secret, key).map_err(failed)??;
        is_good();
        let joined = self.make_member(key, name, redeemed);
        if redeemed.fresh && joined.is_err() {
            self.invites.give_back(secret, key).map_err(failed)?;
        }
        joined
    }

    fn make_member(
        &self,
        key: &PeerKey,
        name: &str,
        Redeemed { good, fresh }: Redeemed,
    ) -> Result<Admission, Refusal> {
        let offered = self.all_served().into_iter().find(|it| it.id == good.bucket);
        let offered = offered.ok_or(Refusal::NotServed)?;
        let is_member = offered.trusts(key);
        if !is_member && !fresh {
            // It was one, and was removed.
            return Err(Refusal::UsedUp);
        }
        // At once: a use whose device has become a member is not given back.
        let made = offered.with(|replica| {
            if !is_member {
                replica.set_member(*key, &clean_name(name), Some(good.role))?;
            }
            Ok(replica.secrets(&[]))
        });
        let secrets = made.ok_or(Refusal::NotServed)?.map_err(|err: CoreError| {
            log::error!("invite bucket={} reason=\"{err}\"", offered.short_id());
            Refusal::Failed
        })?;
        Ok(Admission::Joined {
            bucket: good.bucket.0,
            bucket_name: offered.name.to_string(),
            device_name: self.options.device_name.clone(),
            secrets: GivenSecret::pack(&secrets),
        })
    }

    /// Presents a ticket to the device that made it: afterwards this device is a member. What
    /// remains is to choose a name and to [`Net::finish_join`]. `say` returns whether to go on.
    ///
    /// # Errors
    ///
    /// [`Code::WrongKey`] for a ticket that is mistyped, expired, used up, or made by another
    /// device; [`Code::NoPeer`] if that device cannot be reached.
    pub(crate) fn join(
        &self,
        ticket: &str,
        say: &mut dyn FnMut(JoinProgress) -> bool,
    ) -> Result<Joining> {
        let ticket: Ticket = ticket.parse().map_err(|err| Failure::new(Code::WrongKey, err))?;
        if ticket.until <= SystemTime::now() {
            return Err(expired());
        }
        if ticket.device == self.me {
            return Err(Failure::new(Code::WrongKey, "this ticket was made by this device"));
        }
        self.refuse_if_here(ticket.bucket)?;
        let mut last = None;
        for address in &ticket.addresses {
            if !say(JoinProgress::Connecting(*address)) {
                return Err(interrupted());
            }
            match self.present(&ticket, *address) {
                Ok(admission) => return self.joined(&ticket, *address, admission),
                Err(err) => {
                    log::info!("join address={address} reason=\"{err}\"");
                    last = Some(format!("{address}: {err}"));
                }
            }
        }
        let last = last.unwrap_or_else(|| "the ticket names no address".into());
        let message = format!("cannot reach the device that made the ticket ({last})");
        Err(Failure::new(Code::NoPeer, message))
    }

    fn present(&self, ticket: &Ticket, address: SocketAddr) -> Result<Admission, OpenError> {
        let mut opened = self.connect(ticket.device, address)?;
        opened.send(&Knock::Ticket {
            secret: *ticket.secret,
            name: clean_name(&self.options.device_name),
            port: self.listening_port(),
        })?;
        let deadline = Instant::now() + ADMISSION_WAIT;
        let admission = opened.receive(ADMISSION_BYTES_MAX, deadline)?;
        opened.finish();
        Ok(admission)
    }

    fn joined(
        &self,
        ticket: &Ticket,
        address: SocketAddr,
        admission: Admission,
    ) -> Result<Joining> {
        let wrong = |why: &str| Err(Failure::new(Code::WrongKey, why));
        let (bucket, suggested, secrets) = match admission {
            Admission::Joined { bucket, bucket_name, secrets, .. } => {
                (BucketId(bucket), bucket_name, GivenSecret::unpack(&secrets))
            }
            Admission::Refused(Refusal::Unknown) => {
                return wrong("the device that made this ticket does not know it any more");
            }
            Admission::Refused(Refusal::Expired) => return Err(expired()),
            Admission::Refused(Refusal::UsedUp) => return wrong("this ticket is used up"),
            Admission::Refused(Refusal::NotServed) => {
                return Err(Failure::new(
                    Code::NoPeer,
                    "the bucket is not mounted on the device that made the ticket: mount it there, \
                     then try again",
                ));
            }
            Admission::Refused(Refusal::Failed) => {
                return Err(Failure::new(
                    Code::Failed,
                    "the device that made the ticket could not let this one in; its log says why",
                ));
            }
            Admission::Member { .. } | Admission::Duplicate | Admission::Removed { .. } => {
                return Err(Failure::new(Code::Failed, "the peer's answer makes no sense"));
            }
        };
        if bucket != ticket.bucket {
            return wrong("the ticket is of another bucket than the device that made it says");
        }
        self.addresses.add(&ticket.device, &ticket.addresses);
        self.addresses.found(&ticket.device, address);
        Ok(Joining { bucket, suggested, inviters: vec![ticket.device], secrets })
    }

    /// Makes the bucket `name` in the new directory `dir`, fetches its first version, and closes it
    /// again. The caller holds the place of `name` in the daemon's table. When this was cut off, the
    /// bucket is there and gets its first version whenever it is served next.
    ///
    /// # Errors
    ///
    /// [`Code::NoPeer`] if the device that invited is gone; as `Bucket::join`.
    pub(crate) fn finish_join(
        &self,
        joining: Joining,
        (name, dir): (&BucketName, &Path),
        protection: Protection<'_>,
        say: &mut dyn FnMut(JoinProgress) -> bool,
    ) -> Result<()> {
        let Joining { bucket, inviters, secrets, .. } = joining;
        let failed = |err: CoreError| match err {
            CoreError::Exists => {
                Failure::usage(format_args!("a bucket '{name}' exists: choose another --name"))
            }
            err => Failure::bucket(name, &err),
        };
        // First: a bucket without a version is of no use if nobody knows where to get it.
        inviters.iter().for_each(|inviter| self.addresses.set_inviter(bucket, inviter));
        Bucket::join(dir, &self.device, protection, bucket, &secrets).map_err(failed)?;
        drop(secrets);
        let unlock = match protection {
            Protection::Passphrase(passphrase) => Unlock::Passphrase(passphrase),
            Protection::KeyFile => Unlock::KeyFile,
        };
        let device = std::sync::Arc::clone(&self.device);
        let opened = Bucket::open(dir, device, unlock).map_err(failed)?;
        let mount = Mount::start(opened, Options::default()).map_err(failed)?;
        self.serve(name, &mount);
        let came = self.await_first_version(name, say);
        self.withdraw(name);
        let stopped = mount.stop().map_err(failed);
        came.and(stopped)
    }

    fn await_first_version(
        &self,
        name: &BucketName,
        say: &mut dyn FnMut(JoinProgress) -> bool,
    ) -> Result<()> {
        let offered = self.served(name)?;
        let mut moved = (Instant::now(), None);
        loop {
            let awaited = offered.with(|replica| replica.awaits_first_version());
            if !awaited.ok_or_else(|| not_shared(name))? {
                return Ok(());
            }
            if let Some(trouble) = offered.troubles().into_values().next() {
                return Err(Failure::bucket(name, &trouble));
            }
            let progress = offered.transfer().map(|(_, progress)| progress);
            if progress.is_some() && progress != moved.1 {
                moved = (Instant::now(), progress);
            }
            if let Some(progress) = progress {
                let transfer = Transfer::new(name, progress);
                if !say(JoinProgress::Fetching(transfer)) {
                    return Err(interrupted());
                }
            }
            if moved.0.elapsed() > PROGRESS_WAIT.min(self.timing.stall) {
                let why = self.last_errors().join("; ");
                let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
                let message = format!("the first version does not come{why}");
                return Err(Failure::new(Code::NoPeer, message));
            }
            self.await_news(TICK);
        }
    }

    /// One bucket cannot be here twice.
    ///
    /// # Errors
    ///
    /// [`Code::Usage`] if it is here, with the name that it has.
    pub(crate) fn refuse_if_here(&self, bucket: BucketId) -> Result<()> {
        for name in self.home.bucket_names()? {
            // One that cannot be read is another matter.
            let here = Bucket::describe(&self.home.bucket_dir(&name));
            if here.is_ok_and(|description| description.id == bucket) {
                let message = format!("the ticket's bucket is here already, as '{name}'");
                return Err(Failure::new(Code::Usage, message));
            }
        }
        Ok(())
    }
}

fn expired() -> Failure {
    Failure::new(Code::WrongKey, "this ticket has expired: ask for a new one")
}

/// Whoever asked has gone.
pub(super) fn interrupted() -> Failure {
    Failure::new(Code::Interrupted, "nobody waits any more")
}

pub(super) fn not_served(bucket: &BucketName) -> Failure {
    Failure::new(Code::NotFound, format_args!("bucket '{bucket}' is not mounted: mount it first"))
}

/// Of a bucket that was served until just now, or whose thread has panicked.
pub(super) fn not_shared(bucket: &BucketName) -> Failure {
    let message =
        format!("bucket '{bucket}' is not shared any more: unmount it and mount it again");
    Failure::new(Code::Failed, message)
}

/// A name of a device that can be shown: no control characters, not too long.
fn clean_name(name: &str) -> String {
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
