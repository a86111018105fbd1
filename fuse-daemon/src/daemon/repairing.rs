//! A log that does not open because something in it is damaged is read as far as it can be, so
//! that the bucket opens again.
//!
//! The one place in this crate that goes past `mount-core`, to the store below it: there is no
//! file system to speak of yet.

use std::sync::Arc;

use cairnfs_mount_core::Error as CoreError;
use cairnfs_store::{
    KeyRing, LostEnd, Options, Repaired, Result as StoreResult,
    disk::{Disk, RealDisk},
    keys::keyfile::{self, KeyFileError},
};

use super::Daemon;
use crate::{
    control::{Event, Opening, Progress},
    exit::{Code, Failure, Result},
    home::BucketName,
    net::Mended,
};

impl Daemon {
    /// Fetches what is damaged in a bucket that is mounted, from the devices that are connected, and
    /// says what came of it.
    pub(super) fn mend(
        &self,
        bucket: &BucketName,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let mended = self
            .net
            .mend(bucket, &mut |progress| say(Event::Progress(Progress::Syncing(progress))))?;
        let Mended { blobs, lacking, peers } = mended;
        let fetched = match (peers, blobs) {
            (0, _) => "no other device is connected that could give what is damaged".to_owned(),
            (_, 1) => "fetched 1 damaged piece from another device".to_owned(),
            (_, more) => format!("fetched {more} damaged pieces from other devices"),
        };
        let rest = if lacking > 0 { format!(", {lacking} are nowhere") } else { String::new() };
        say(Event::Note(format!("bucket '{bucket}': {fetched}{rest}")));
        Ok(())
    }

    /// Makes the index of a bucket anew and leaves out of the log what cannot be read. Says what
    /// that was, and what was lost at the log's end.
    pub(super) fn repair(
        &self,
        opening: &Opening,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Option<LostEnd>> {
        let name = &opening.bucket;
        let _claim = self.claim(name, "being repaired")?;
        let keys = self.keys(opening).map_err(|err| key_failure(opening, &err))?;
        let dir = self.home.bucket_dir(name);
        // The reserve is made again when the bucket is next opened.
        let options = Options { reserve_bytes: 0, ..Options::default() };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let Repaired { damage, lost_end } = cairnfs_store::repair(&disk, &dir, keys, options)
            .map_err(|err| Failure::bucket(name, &CoreError::from(err)))?;
        for one in &damage {
            let pack = one.pack.file_name().unwrap_or_default().display();
            log::error!("repair pack={pack} offset={} left_out=yes", one.offset);
            say(Event::Note(format!(
                "left out what cannot be read in {pack} at byte {}",
                one.offset
            )));
        }
        say(Event::Note(match damage.len() {
            0 if lost_end.is_some() => format!("bucket '{name}': made the index anew"),
            0 => format!("bucket '{name}': made the index anew, nothing had to be left out"),
            1 => format!("bucket '{name}': made the index anew without 1 damaged record"),
            more => format!("bucket '{name}': made the index anew without {more} damaged records"),
        }));
        if let Some(lost) = &lost_end {
            let what = loss(lost);
            log::error!("repair lost={what:?}");
            say(Event::Damage(None, what));
        }
        Ok(lost_end)
    }

    /// Says what [`Daemon::repair`] would leave out; fails if there is anything.
    pub(super) fn plan_repair(
        &self,
        opening: &Opening,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let name = &opening.bucket;
        let _claim = self.claim(name, "being checked")?;
        let keys = self.keys(opening).map_err(|err| key_failure(opening, &err))?;
        let dir = self.home.bucket_dir(name);
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let report = cairnfs_store::check(&disk, &dir, Some(&keys), &mut |read| {
            say(Event::Progress(Progress::Checking {
                done: read.done_bytes,
                total: read.total_bytes,
            }));
        })
        .map_err(|err| Failure::bucket(name, &CoreError::from(err)))?;
        say(Event::Note("nothing was changed: the index would be made anew".to_owned()));
        for one in &report.damage {
            let pack = one.pack.file_name().unwrap_or_default().display();
            say(Event::Damage(None, format!("{pack} at byte {} cannot be read", one.offset)));
        }
        if let Some(lost) = &report.lost_end {
            say(Event::Damage(None, loss(lost)));
        }
        let would = match report.damage.len() {
            0 if report.lost_end.is_none() => return Ok(()),
            0 => "the log would go on from where it ends now".to_owned(),
            1 => "1 damaged record would be left out".to_owned(),
            more => format!("{more} damaged records would be left out"),
        };
        Err(Failure::new(Code::Damage, format_args!("bucket '{name}': {would}")))
    }

    fn keys(&self, opening: &Opening) -> Result<KeyRing, KeyFileError> {
        let path = self.home.bucket_dir(&opening.bucket).join("key");
        let key = keyfile::read(&RealDisk, &path)?;
        let passphrase = opening.secret.as_ref().map(crate::secret::Secret::expose);
        let keys: StoreResult<_> = KeyRing::new(keyfile::open(&key, passphrase)?);
        Ok(keys?)
    }
}

fn loss(lost: &LostEnd) -> String {
    let LostEnd { pack, len, known_len } = lost;
    let pack = pack.file_name().unwrap_or_default().display();
    let missing = known_len.saturating_sub(*len);
    let end = if *len == 0 { "is missing".to_owned() } else { format!("ends at byte {len}") };
    format!("{pack} {end}, the index knew of {missing} bytes more: what was saved last is lost")
}

fn key_failure(opening: &Opening, err: &KeyFileError) -> Failure {
    let code = match err {
        KeyFileError::WrongPassphrase | KeyFileError::NeedsPassphrase => Code::WrongKey,
        KeyFileError::Newer { .. } => Code::Newer,
        KeyFileError::Corrupt => Code::Damage,
        _ => Code::Failed,
    };
    Failure::new(code, format_args!("bucket '{}': {err}", opening.bucket))
}
