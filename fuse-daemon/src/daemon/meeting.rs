//! Other devices: inviting them, joining what they have, and waiting until all have met.

use std::time::{Duration, Instant};

use cairnfs_mount_core::{BucketId, Mount, Options, Role};

use super::{
    Daemon,
    table::{Claim, Doing},
};
use crate::{
    control::{
        Event, FindInviterRequest, InviteRequest, JoinRequest, Opening, PeersReport, Progress,
        SyncRequest,
    },
    exit::{Code, Failure, Result},
    home::BucketName,
    net::{Invite, Inviter, SyncOutcome},
    passphrase,
    secret::Secret,
};

/// How long `mount` waits for the first version of a bucket that was joined.
const FIRST_VERSION: Duration = Duration::from_secs(10);

/// How many names are tried for a bucket whose name is taken here.
const NAMES_MAX: u32 = 99;

impl Daemon {
    /// Makes an invitation to a bucket that is mounted.
    pub(super) fn invite(&self, request: &InviteRequest) -> Result<Invite> {
        let InviteRequest { bucket, role, lifetime, uses } = request;
        let Some(mount) = self.table.open(bucket) else {
            let message = format!(
                "bucket '{bucket}' is not mounted: mount it, and leave it mounted until the other \
                 device has joined"
            );
            return Err(Failure::new(Code::NotFound, message));
        };
        self.introduce(bucket, &mount)?;
        self.net.invite(bucket, *role, *lifetime, *uses)
    }

    /// Sees to it that the other device can tell what this one is called: who made a bucket alone
    /// has no name in it.
    fn introduce(&self, bucket: &BucketName, mount: &Mount) -> Result<()> {
        let key = self.device.public();
        let nameless = mount.members().into_iter().find(|it| it.key == key && it.name.is_empty());
        match nameless {
            Some(member) if member.role == Role::Owner => mount
                .set_member(key, &self.device_name, Some(Role::Owner))
                .map_err(|err| Failure::bucket(bucket, &err)),
            _ => Ok(()),
        }
    }

    /// Takes an invitation: afterwards the bucket is here, under the name that is returned.
    pub(super) fn join(
        &self,
        request: &JoinRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<BucketName> {
        // Before the ticket is used up.
        let claimed = request.name.as_ref().map(|name| self.claim_new(name)).transpose()?;
        let joining = self.net.join(text_of(&request.ticket)?, &mut |progress| {
            say(Event::Progress(Progress::Joining(progress)))
        })?;
        let (name, _claim) = match (&request.name, claimed) {
            (Some(name), Some(claim)) => (name.clone(), claim),
            _ => {
                let suggested = joining.suggested();
                let free = self.free_name(suggested.clone(), joining.bucket())?;
                if let Some(taken) = suggested.filter(|suggested| *suggested != free.0) {
                    let name = &free.0;
                    let note =
                        format!("a bucket '{taken}' is here already: this one is '{name}' here");
                    say(Event::Note(note));
                }
                free
            }
        };
        let protection = passphrase::protection(request.secret.as_ref());
        let dir = self.home.bucket_dir(&name);
        let finished = self.net.finish_join(joining, (&name, &dir), protection, &mut |progress| {
            say(Event::Progress(Progress::Joining(progress)))
        });
        match finished {
            Ok(()) => Ok(name),
            Err(failure) if dir.exists() => {
                let message = format!(
                    "bucket '{name}' is here, but not its first version yet ('cairnfs sync {name}' \
                     fetches it): {}",
                    failure.message
                );
                Err(Failure::new(failure.code, message))
            }
            Err(failure) => Err(failure),
        }
    }

    /// What the daemon knows of other devices.
    pub(super) fn peers(&self) -> PeersReport {
        PeersReport {
            listening: self.net.listening(),
            not_listening: self.net.not_listening(),
            peers: self.net.peers(),
        }
    }

    /// Waits until what was published here and there has met.
    pub(super) fn sync(
        &self,
        request: &SyncRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<SyncOutcome> {
        let deadline = request.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let Some(opening) = &request.opening else {
            if self.table.all().is_empty() && self.table.kept().is_empty() {
                let message = "nothing is mounted: name a bucket to sync it all the same";
                return Err(Failure::new(Code::NotFound, message));
            }
            return self.meet(None, deadline, say);
        };
        self.while_served(opening, || self.meet(Some(&opening.bucket), deadline, say))
    }

    /// Finds the device again that made a ticket of a bucket which is here already.
    pub(super) fn find_inviter(
        &self,
        request: &FindInviterRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Inviter> {
        let FindInviterRequest { ticket, opening } = request;
        let ticket = text_of(ticket)?;
        self.while_served(opening, || {
            self.net.find_inviter(&opening.bucket, ticket, &mut |progress| {
                say(Event::Progress(Progress::Joining(progress)))
            })
        })
    }

    /// Calls `work` while the bucket is offered to others, opened for the while if it is not.
    fn while_served<T>(&self, opening: &Opening, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let bucket = &opening.bucket;
        if self.table.open(bucket).is_some() {
            return work();
        }
        let _claim = match self.claim(bucket, Doing::Syncing) {
            Ok(claim) => claim,
            // It has been mounted at start just now.
            Err(_) if self.table.open(bucket).is_some() => return work(),
            Err(failure) => return Err(failure),
        };
        let mount = self.open(opening, Options::default())?;
        self.net.serve(bucket, &mount);
        let outcome = work();
        self.net.withdraw(bucket);
        self.give_up(bucket, &mount);
        outcome
    }

    pub(super) fn meet(
        &self,
        bucket: Option<&BucketName>,
        deadline: Option<Instant>,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<SyncOutcome> {
        self.net.sync(bucket, deadline, &mut |progress| {
            say(Event::Progress(Progress::Syncing(progress)))
        })
    }

    /// Makes sure that there is a tree to be shown in a bucket that is served. Of one that was
    /// joined when nobody could be reached there may be none.
    pub(super) fn bring_first_version(
        &self,
        bucket: &BucketName,
        mount: &Mount,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        if !mount.awaits_first_version() {
            return Ok(());
        }
        let met = self.meet(Some(bucket), Some(Instant::now() + FIRST_VERSION), say);
        if !mount.awaits_first_version() {
            return Ok(());
        }
        let why = match met {
            Err(failure) if failure.code == Code::Interrupted => return Err(failure),
            Err(failure) if failure.code == Code::NoSpace => {
                let message = format!(
                    "the first version of bucket '{bucket}' is not here yet: no space left on its \
                     disk"
                );
                return Err(Failure::new(Code::NoSpace, message));
            }
            Err(failure) => failure.message,
            Ok(_) => "nobody who was reached has it".to_owned(),
        };
        let message = format!(
            "the first version of bucket '{bucket}' is not here yet: run 'cairnfs sync {bucket}' \
             when a device that has it can be reached ({why})"
        );
        Err(Failure::new(Code::NoPeer, message))
    }

    /// Takes the place of a bucket that is to be made.
    fn claim_new(&self, name: &BucketName) -> Result<Claim<'_>> {
        let exists = || {
            let message =
                format!("a bucket '{name}' exists already: say with --name what to call this one");
            Failure::usage(message)
        };
        // Looked at before, as a claim waits for whatever goes on there.
        if self.home.bucket_dir(name).exists() {
            return Err(exists());
        }
        let claim = self.claim(name, Doing::Joining)?;
        if self.home.bucket_dir(name).exists() { Err(exists()) } else { Ok(claim) }
    }

    /// A name that nothing here has: the suggested one, or one that is made from it.
    fn free_name(
        &self,
        suggested: Option<BucketName>,
        id: BucketId,
    ) -> Result<(BucketName, Claim<'_>)> {
        let plain = suggested.map_or_else(|| format!("bucket-{id}"), String::from);
        let others = (2..=NAMES_MAX).map(|number| format!("{plain}-{number}"));
        for name in std::iter::once(plain.clone()).chain(others) {
            // What is too long with its number is no name.
            let Ok(name) = name.parse::<BucketName>() else { continue };
            if let Ok(claim) = self.claim_new(&name) {
                return Ok((name, claim));
            }
        }
        let message = format!("'{plain}' is taken here: say with --name what to call the bucket");
        Err(Failure::new(Code::Failed, message))
    }
}

fn text_of(ticket: &Secret) -> Result<&str> {
    let text = str::from_utf8(ticket.expose());
    text.map(str::trim)
        .map_err(|err| Failure::new(Code::WrongKey, format_args!("this is no ticket: {err}")))
}

/// Whether a device of this role may change anything.
pub(super) fn may_write(role: Option<Role>) -> bool {
    matches!(role, Some(Role::Writer | Role::Owner))
}
