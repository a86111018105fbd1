//! Being let in: by a ticket, see [`inviting`](super::inviting), or as the member that one is already.

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use cairnfs_mount_core::{
    Bucket, BucketId, Error as CoreError, INCARNATIONS_MAX, Mount, Options, Protection, Role,
    Unlock,
};

use super::{
    Net,
    arriving::Arrival,
    inviting::clean_name,
    message::{ADMISSION_BYTES_MAX, Admission, GivenSecret, Knock, Refusal},
    opening::OpenError,
    replica::Secrets,
    report::{JoinProgress, Transfer},
    ticket::Ticket,
    time_left::TimeLeft,
    tls::PeerKey,
};
use crate::{
    exit::{Code, Failure, Result},
    former,
    home::{BucketName, Home},
    remarks,
};

/// How long the inviter may take: it publishes a version.
const ADMISSION_WAIT: Duration = Duration::from_secs(60);
/// How long without any progress until joining is given up; bytes on their way are some.
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
    /// One that this device has not had in the bucket.
    incarnation: u32,
    /// Keeps others from joining the bucket until it is here; none if it was here before.
    arrival: Option<Arrival>,
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
    /// [`Code::NoPeer`] if there is no such device; [`Code::Failed`] if this one joined too often.
    pub(crate) fn again(home: &Home, mount: &Mount, me: &PeerKey) -> Result<Self> {
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
        // What is here may have been put back to before it was brought anew the last time.
        let next = former::next_incarnation(home, bucket)?;
        let incarnation = not_too_often(next.max(mount.incarnation().saturating_add(1)))?;
        let suggested = String::new();
        Ok(Self { bucket, suggested, inviters, secrets, incarnation, arrival: None })
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
    /// Presents a ticket to the device that made it: afterwards this device is a member. What
    /// remains is to choose a name and to [`Net::finish_join`]. `say` returns whether to go on. Whoever
    /// joins the same bucket meanwhile waits until it is here, or it is known that it will not be.
    ///
    /// # Errors
    ///
    /// [`Code::WrongKey`] for a ticket that is mistyped, expired, used up, or made by another
    /// device; [`Code::Usage`] if the bucket is here; [`Code::NoPeer`] if that device cannot be reached;
    /// [`Code::Failed`] if this one joined too often.
    pub(crate) fn join(
        &self,
        ticket: &str,
        say: &mut dyn FnMut(JoinProgress) -> bool,
    ) -> Result<Joining> {
        let ticket: Ticket = ticket.parse().map_err(|err| Failure::new(Code::WrongKey, err))?;
        // Whoever made it judges that: the clock here may be wrong.
        let is_late = ticket.until <= SystemTime::now();
        if ticket.device == self.me {
            return Err(Failure::new(Code::WrongKey, "this ticket was made by this device"));
        }
        let arrival = self.arrivals.begin(ticket.bucket, &mut || say(JoinProgress::Waiting));
        let arrival = Some(arrival.ok_or_else(interrupted)?);
        self.refuse_if_here(ticket.bucket)?;
        // Before the ticket is used up.
        let incarnation = not_too_often(former::next_incarnation(&self.home, ticket.bucket)?)?;
        let mut last = None;
        for address in &ticket.addresses {
            if !say(JoinProgress::Connecting(*address)) {
                return Err(interrupted());
            }
            match self.present(&ticket, *address) {
                Ok(admission) => {
                    let (suggested, secrets) = self.admitted(&ticket, *address, admission)?;
                    let (bucket, inviters) = (ticket.bucket, vec![ticket.device]);
                    return Ok(Joining {
                        bucket,
                        suggested,
                        inviters,
                        secrets,
                        incarnation,
                        arrival,
                    });
                }
                Err(err) => {
                    log::info!("join address={address} reason=\"{err}\"");
                    last = Some(format!("{address}: {err}"));
                }
            }
        }
        Err(unreachable(last, is_late))
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

    /// What the other device calls the bucket, and its secrets.
    fn admitted(
        &self,
        ticket: &Ticket,
        address: SocketAddr,
        admission: Admission,
    ) -> Result<(String, Secrets)> {
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
            Admission::Refused(Refusal::Removed) => {
                return wrong(
                    "this device was removed from the bucket, and the ticket is from before that: \
                     ask for a new ticket",
                );
            }
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
        // Before its addresses: those of whom nothing else is known go when another bucket is dropped.
        self.addresses.set_inviter(bucket, &ticket.device);
        self.addresses.add(&ticket.device, &ticket.addresses);
        self.addresses.found(&ticket.device, address);
        Ok((suggested, secrets))
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
        let Joining { bucket, inviters, secrets, incarnation, arrival, .. } = joining;
        let failed = |err: CoreError| match err {
            CoreError::Exists => {
                Failure::usage(format_args!("a bucket '{name}' exists: choose another --name"))
            }
            err => Failure::bucket(name, &err),
        };
        // First: a bucket without a version is of no use if nobody knows where to get it.
        inviters.iter().for_each(|inviter| self.addresses.set_inviter(bucket, inviter));
        Bucket::join(dir, &self.device, protection, bucket, &secrets, incarnation)
            .map_err(failed)?;
        drop((secrets, arrival));
        remarks::change(dir, |remarks| remarks.awaits_first_version = true);
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
        let is_awaited = mount.awaits_first_version();
        remarks::change(dir, |remarks| remarks.awaits_first_version = is_awaited);
        let stopped = mount.stop().map_err(failed);
        came.and(stopped)
    }

    fn await_first_version(
        &self,
        name: &BucketName,
        say: &mut dyn FnMut(JoinProgress) -> bool,
    ) -> Result<()> {
        let offered = self.served(name)?;
        let received =
            || offered.sides().iter().map(|side| side.session.received_bytes()).sum::<u64>();
        let mut time = TimeLeft::new(PROGRESS_WAIT.min(self.timing.stall), received());
        let mut most = 0;
        loop {
            let awaited = offered.with(|replica| replica.awaits_first_version());
            if !awaited.ok_or_else(|| not_shared(name))? {
                return Ok(());
            }
            if let Some(trouble) = offered.troubles().into_values().next() {
                return Err(Failure::bucket(name, &trouble));
            }
            let progress = offered.transfer().map(|(_, progress)| progress);
            let bytes = progress.map_or(0, |progress| progress.bytes);
            if bytes > most {
                most = bytes;
                time.renew();
            }
            time.arrived(received());
            if let Some(progress) = progress {
                let transfer = Transfer::new(name, progress);
                if !say(JoinProgress::Fetching(transfer)) {
                    return Err(interrupted());
                }
            }
            if time.is_up() {
                let why = self.last_errors().join("; ");
                let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
                let message = format!("the first version does not come{why}");
                return Err(Failure::new(Code::NoPeer, message));
            }
            let now = Instant::now();
            self.await_news(TICK);
            time.pass(now.elapsed());
        }
    }

    /// One bucket cannot be here twice.
    ///
    /// # Errors
    ///
    /// [`Code::Usage`] if it is here, with the name that it has.
    fn refuse_if_here(&self, bucket: BucketId) -> Result<()> {
        match self.home.name_of(bucket)? {
            None => Ok(()),
            Some(name) => {
                let message = format!("the ticket's bucket is here already, as '{name}'");
                Err(Failure::new(Code::Usage, message))
            }
        }
    }
}

/// This incarnation, if others take what it writes.
fn not_too_often(incarnation: u32) -> Result<u32> {
    if incarnation <= INCARNATIONS_MAX {
        return Ok(incarnation);
    }
    let message = format!(
        "this device has begun anew in this bucket too often ({INCARNATIONS_MAX} times): another home \
         (CAIRNFS_HOME) is another device, and can join"
    );
    Err(Failure::new(Code::Failed, message))
}

/// Nobody answers at the addresses of a ticket; the last of them, and why.
pub(super) fn unreachable(last: Option<String>, is_late: bool) -> Failure {
    let last = last.unwrap_or_else(|| "the ticket names no address".into());
    let late = if is_late { "; by the clock here the ticket has expired" } else { "" };
    let message = format!("cannot reach the device that made the ticket ({last}){late}");
    Failure::new(Code::NoPeer, message)
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
