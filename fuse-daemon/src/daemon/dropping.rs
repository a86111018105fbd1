//! Dropping a bucket: it goes from this device, and stays on the others.
//!
//! What is here is dropped unasked only if another device is known to have it, which is asked as
//! before a bucket is brought anew. A kill leaves the bucket, or what is no bucket any more and goes
//! when the daemon starts.
//!
//! ```text
//!   1  its folder gets a name that no bucket can have, by one rename    it is none from here on
//!   2  what this device noted of it goes
//!   3  its key file is overwritten, all of it is removed                `bucket/taking_away.rs`
//! ```
//!
//! The folder is last to go: a daemon that finds one does steps 2 and 3 again. The device stays a
//! member, as the charter has it, which it cannot change without the bucket. When it joins again it
//! goes on in its next incarnation ([`former`]).

use std::path::Path;

use cairnfs_mount_core::{Bucket, BucketId, Mount, Options};

use super::{Daemon, mounting::once_let_go, table::Doing};
use crate::{
    at_start,
    control::{DropRequest, Event, Opening},
    exit::{Code, Failure, Result},
    former,
    home::BucketName,
};

/// This device's life in a bucket, which ends.
struct Life {
    id: BucketId,
    /// Which it is; none if the bucket does not open.
    incarnation: Option<u32>,
    /// Whether the device stays a member of what others have; none if that cannot be told.
    is_member: Option<bool>,
}

impl Daemon {
    /// Takes a bucket off this device; with `dry_run` says only whether it would.
    pub(super) fn drop_bucket(
        &self,
        request: &DropRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let name = &request.opening.bucket;
        if let Some(served) = self.table.find(name) {
            let dir = served.dir.display();
            let message = format!(
                "bucket '{name}' is mounted at {dir}: unmount it first ('cairnfs umount {dir}')"
            );
            return Err(Failure::new(Code::InUse, message));
        }
        let _claim = self.claim(name, Doing::Dropping)?;
        let dir = self.home.bucket_dir(name);
        refuse_link(name, &dir)?;
        let life = if request.force { None } else { Some(self.refuse_loss(request, say)?) };
        if request.dry_run {
            return Ok(());
        }
        // A file that cannot be read would be found out when the bucket has gone already.
        at_start::read(&self.home)?;
        self.clear_away(name)?;
        let life = life.map_or_else(|| self.last_life(&request.opening), |life| Ok(Some(life)))?;
        if let Some(Life { id, incarnation, .. }) = &life {
            former::remember(&self.home, *id, *incarnation)?;
        }
        once_let_go(|| Bucket::set_aside(&dir, &self.home.dropped_dir(name)))
            .map_err(|err| Failure::bucket(name, &err))?;
        self.losses.forget(name);
        log::info!("dropped bucket={name:?}");
        self.clear_away(name)?;
        say(Event::Note(format!("bucket '{name}' is not on this device any more")));
        if let Some(said) = what_stays(life.and_then(|life| life.is_member)) {
            say(Event::Note(said));
        }
        Ok(())
    }

    /// Fails if something would go that no other device is known to have.
    fn refuse_loss(
        &self,
        request: &DropRequest,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Life> {
        let mount = self.open_unchanged(&request.opening)?;
        let refused = self.refuse_loss_of(&request.opening.bucket, &mount, say);
        self.give_up(&request.opening.bucket, &mount);
        refused.map(|()| self.life(&mount))
    }

    /// What can be told of the life that ends by force.
    fn last_life(&self, opening: &Opening) -> Result<Option<Life>> {
        match self.open_unchanged(opening) {
            Ok(mount) => {
                self.give_up(&opening.bucket, &mount);
                Ok(Some(self.life(&mount)))
            }
            // Who has it keeps it.
            Err(failure) if failure.code == Code::InUse => Err(failure),
            Err(_) => {
                let id = Bucket::noted_id(&self.home.bucket_dir(&opening.bucket));
                let is_member = |id| self.net.is_removed_from(id).then_some(false);
                Ok(id.map(|id| Life { id, incarnation: None, is_member: is_member(id) }))
            }
        }
    }

    fn life(&self, mount: &Mount) -> Life {
        let id = mount.bucket_id();
        // Before its first version a bucket does not know its members.
        let is_member =
            mount.awaits_first_version() || (mount.role().is_some() && !self.is_alone(mount));
        Life {
            id,
            incarnation: Some(mount.incarnation()),
            // Who was removed hears of it before it has the version that says so, if it ever gets that.
            is_member: Some(is_member && !self.net.is_removed_from(id)),
        }
    }

    /// Opens a bucket so that nothing is published or merged: who is refused finds it as it was.
    fn open_unchanged(&self, opening: &Opening) -> Result<Mount> {
        self.open(opening, Options { read_only: true, ..Options::default() })
    }

    fn refuse_loss_of(
        &self,
        name: &BucketName,
        mount: &Mount,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        if mount.awaits_first_version() {
            return Ok(());
        }
        if self.is_alone(mount) {
            let older = mount.older_trees().map_err(|err| Failure::bucket(name, &err))?;
            let versions = match older.len() {
                0 => "1 version".to_owned(),
                more => format!("{} versions", more + 1),
            };
            let since = if mount.status().unpublished { " and what was changed since" } else { "" };
            let message = format!(
                "no other device has bucket '{name}': dropping it would lose all of it, \
                 {versions}{since}"
            );
            return Err(Failure::new(Code::Unsaved, message));
        }
        if mount.role().is_none() {
            let message = format!(
                "{}: no other tells it what it has. Copy out first what only this device has",
                self.why_no_member(name, mount)
            );
            return Err(Failure::new(Code::NoPeer, message));
        }
        let loss = self.loss(name, mount, say)?;
        if loss.is_nothing() {
            return Ok(());
        }
        let message = format!(
            "dropping bucket '{name}' would lose {loss}, which no other device that can be reached \
             is known to have"
        );
        Err(Failure::new(Code::Unsaved, message))
    }

    /// Whether no other device has the bucket. One that was not removed and is no member has another key
    /// than it had as a member.
    fn is_alone(&self, mount: &Mount) -> bool {
        let (members, me) = (mount.members(), self.device.public());
        match members.as_slice() {
            [] => true,
            [one] => one.key == me || mount.removal(&me).is_none(),
            _ => false,
        }
    }

    /// Finishes what a kill has cut off. What fails is logged: the rest is worth having.
    pub(super) fn clear_away_all(&self) {
        let names = match self.home.dropped_names() {
            Ok(names) => names,
            Err(failure) => return log::error!("dropped reason={:?}", failure.message),
        };
        for name in names {
            match self.clear_away(&name) {
                Ok(()) => log::info!("leftover removed={:?}", self.home.dropped_dir(&name)),
                Err(failure) => log::warn!("dropped reason={:?}", failure.message),
            }
        }
    }

    /// Removes what is left of a bucket that was set aside, and what was noted of it. In this order:
    /// as long as something is left, all of it is done again.
    fn clear_away(&self, name: &BucketName) -> Result<()> {
        let aside = self.home.dropped_dir(name);
        if !aside.exists() {
            return Ok(());
        }
        // One of that name may be here by now, and this one under another name.
        if !self.home.bucket_dir(name).exists() {
            at_start::forget_bucket(&self.home, name)?;
        }
        if let Some(id) = Bucket::noted_id(&aside)
            && self.home.name_of(id)?.is_none()
        {
            self.net.forget(id);
        }
        Bucket::clear_away(&aside).map_err(|err| Failure::bucket(name, &err))
    }
}

/// What others still hold this device for once it has dropped the bucket, if they do.
fn what_stays(is_member: Option<bool>) -> Option<String> {
    let who = match is_member {
        Some(true) => "to other devices that have it this one is still a member",
        None => "if other devices have it, to them this one is still a member",
        Some(false) => return None,
    };
    Some(format!("{who}, which can join again with a ticket; 'cairnfs remove' there ends that"))
}

/// A bucket that lies elsewhere is not for this program to look for.
fn refuse_link(name: &BucketName, dir: &Path) -> Result<()> {
    if !dir.is_symlink() {
        return Ok(());
    }
    let message = format!(
        "bucket '{name}' lies elsewhere, and {} only leads there: remove both by hand",
        dir.display()
    );
    Err(Failure::new(Code::Failed, message))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use cairnfs_mount_core::{Passphrase, Protection};

    use super::*;
    use crate::{
        at_start::Remembered,
        control::{How, MountRequest},
    };

    #[test]
    fn who_was_removed_or_cannot_tell_is_not_told_that_it_is_still_a_member() {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, _inbox) = Daemon::for_test(dir.path());
        let name: BucketName = "b".parse().unwrap();
        let place = daemon.home.bucket_dir(&name);
        // Not opened, as with --force nobody asks for the passphrase.
        let create = || {
            let protection = Protection::Passphrase(Passphrase(b"secret"));
            Bucket::create(&place, &daemon.device, protection).unwrap()
        };
        let opening = Opening { bucket: name.clone(), secret: None };
        let request = DropRequest { opening, force: true, dry_run: false };
        let dropped = |daemon: &Daemon| {
            let mut notes = Vec::new();
            let outcome = daemon.drop_bucket(&request, &mut |event| {
                if let Event::Note(note) = event {
                    notes.push(note);
                }
                true
            });
            outcome.map(|()| notes.join("; ")).unwrap()
        };
        create();
        let said = dropped(&daemon);
        assert!(said.contains("; if other devices have it, to them this one is still"), "{said}");

        let (id, key) = (create(), "07".repeat(32));
        daemon.net.stop();
        let peers = format!("[[peer]]\nkey = '{key}'\naddresses = []\nremoved_from = ['{id}']\n");
        fs::write(daemon.home.peers_file(), peers).unwrap();
        let (daemon, _inbox) = Daemon::for_test(dir.path());
        let said = dropped(&daemon);
        assert!(!said.contains("still a member"), "{said}");
        daemon.net.stop();
    }

    #[test]
    fn what_is_left_of_a_bucket_takes_nothing_from_one_that_is_here() {
        let dir = tempfile::tempdir().unwrap();
        let (daemon, _inbox) = Daemon::for_test(dir.path());
        let home = &daemon.home;
        let name: BucketName = "b".parse().unwrap();
        let (here, left) = (home.bucket_dir(&name), home.dropped_dir(&name));
        let create = || Bucket::create(&here, &daemon.device, Protection::KeyFile).unwrap();
        let id = create();
        Bucket::set_aside(&here, &left).unwrap();
        create();
        // The first one again, as after a join.
        let again = home.bucket_dir(&"again".parse().unwrap());
        fs::create_dir(&again).unwrap();
        fs::copy(left.join("id"), again.join("id")).unwrap();

        let request = MountRequest {
            opening: Opening { bucket: name, secret: None },
            dir: PathBuf::from("/mnt"),
            how: How::new(&Options::default(), false, Vec::new()),
        };
        at_start::remember(home, Remembered::new(&request, None)).unwrap();
        let invite = format!(
            "[[invite]]\nhash = '00'\nbucket = '{id}'\nrole = 'Writer'\nuntil = 9999999999\nleft = 1\n"
        );
        fs::write(home.invites_file(), invite).unwrap();
        daemon.clear_away_all();
        assert!(!left.exists() && here.exists());
        assert_eq!(at_start::read(home).unwrap().len(), 1);
        assert!(fs::read_to_string(home.invites_file()).unwrap().contains("[[invite]]"));
        daemon.net.stop();
    }
}
