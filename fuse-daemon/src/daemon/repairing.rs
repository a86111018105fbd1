//! A log that does not open because something in it is damaged is read as far as it can be, so
//! that the bucket opens again.
//!
//! The one place in this crate that opens a log past `mount-core`: there is no file system to speak
//! of yet.

use std::sync::Arc;

use cairnfs_mount_core::{Bucket, Error as CoreError, Salvaged};
use cairnfs_store::{
    KeyRing, LostEnd, Options, Result as StoreResult,
    disk::{Disk, RealDisk},
    keys::keyfile::{self, KeyFileError},
};

use super::{Daemon, table::Doing};
use crate::{
    control::{Event, Opening, Progress},
    exit::{Code, Failure, Result},
    former,
    home::BucketName,
    net::Mended,
    passphrase,
    values::hex,
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
        say(Event::Note(format!("bucket '{bucket}': {}", what_came(mended))));
        Ok(())
    }

    /// Makes the index of a bucket anew and leaves out of the log what cannot be read. Says what
    /// that was, and what was lost at the log's end; it may be gone from the log afterwards, so that
    /// nobody finds it any more. Answers with what could not be brought back, in a few words.
    pub(super) fn repair(
        &self,
        opening: &Opening,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Option<&'static str>> {
        let name = &opening.bucket;
        let _claim = self.claim(name, Doing::Repairing)?;
        let keys = self.keys(opening).map_err(|err| key_failure(opening, &err))?;
        let dir = self.home.bucket_dir(name);
        // The reserve is made again when the bucket is next opened.
        let options = Options { reserve_bytes: 0, ..Options::default() };
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let repaired = cairnfs_store::repair(&disk, &dir, keys, options)
            .map_err(|err| Failure::bucket(name, &CoreError::from(err)))?;
        for one in &repaired.damage {
            let pack = one.pack.file_name().unwrap_or_default().display();
            log::error!("repair pack={pack} offset={} left_out=yes", one.offset);
            let what = format!("{pack} at byte {} cannot be read and is left out", one.offset);
            say(Event::Damage(None, what));
        }
        say(Event::Note(match repaired.damage.len() {
            0 if repaired.lost_end.is_some() => format!("bucket '{name}': made the index anew"),
            0 => format!("bucket '{name}': made the index anew, nothing had to be left out"),
            1 => format!("bucket '{name}': made the index anew without 1 damaged record"),
            more => format!("bucket '{name}': made the index anew without {more} damaged records"),
        }));
        if let Some(lost) = &repaired.lost_end {
            let what = loss(lost);
            log::error!("repair lost={what:?}");
            say(Event::Damage(None, what));
        }
        let salvaged = self.salvage(opening)?;
        if let Some(salvaged) = &salvaged {
            say(Event::Damage(None, in_its_place(salvaged)));
        }
        Ok(match (repaired.lost_end, &*repaired.damage) {
            _ if salvaged.is_some() => {
                Some("what was saved since the version that is left is lost")
            }
            (Some(_), _) => Some("what was saved last is lost"),
            (None, [_, ..]) => Some("what cannot be read was left out"),
            (None, []) => None,
        })
    }

    /// Gives a log that no version begins any more one that can be read.
    fn salvage(&self, opening: &Opening) -> Result<Option<Salvaged>> {
        let name = &opening.bucket;
        let failed = |err| Failure::bucket(name, &err);
        let unlock = passphrase::unlock(opening.secret.as_ref());
        let dir = self.home.bucket_dir(name);
        let mut bucket = Bucket::open(&dir, Arc::clone(&self.device), unlock).map_err(failed)?;
        let former = former::next_incarnation(&self.home, bucket.id())?;
        bucket.salvage(former).map_err(failed)
    }

    /// Says what [`Daemon::repair`] would leave out; fails if there is anything.
    pub(super) fn plan_repair(
        &self,
        opening: &Opening,
        say: &mut dyn FnMut(Event) -> bool,
    ) -> Result<()> {
        let name = &opening.bucket;
        let _claim = self.claim(name, Doing::Checking)?;
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
        if !report.has_checkpoint {
            say(Event::Damage(None, "no record is left that begins a version".to_owned()));
        }
        let would = match report.damage.len() {
            _ if !report.has_checkpoint => {
                "the newest version that can be read would take the place of what is lost, and what \
                 was saved since would be left out"
                    .to_owned()
            }
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

/// Damage is one thing, and what older versions lack here another.
fn what_came(mended: Mended) -> String {
    let Mended { blobs, absent, lacking, peers } = mended;
    let pieces = |count: u64| match count {
        1 => "1 damaged piece".to_owned(),
        more => format!("{more} damaged pieces"),
    };
    let fetched = match (peers, blobs) {
        (0, _) => "no other device is connected that could give what is damaged".to_owned(),
        (_, 0) if lacking == 0 => "found nothing to be fetched".to_owned(),
        _ => format!("fetched {} from other devices", pieces(blobs)),
    };
    let rest = match lacking {
        0 => String::new(),
        more => format!(", {} no connected device has", pieces(more)),
    };
    let older = match absent {
        0 => String::new(),
        1 => "; besides, 1 piece of older versions that was not here".to_owned(),
        more => format!("; besides, {more} pieces of older versions that were not here"),
    };
    format!("{fetched}{rest}{older}")
}

fn in_its_place(salvaged: &Salvaged) -> String {
    let Salvaged { version, saves } = salvaged;
    let lost = match saves {
        0 => "what was saved since, if anything, is left out".to_owned(),
        1 => "1 save since is left out".to_owned(),
        more => format!("{more} saves since are left out"),
    };
    let version = hex(&version[..8]);
    format!(
        "no record was left that begins a version: the bucket goes on from version {version}, and {lost}"
    )
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
    let remedy = if code == Code::Damage { ": put a copy of it back" } else { "" };
    Failure::new(code, format_args!("bucket '{}': {err}{remedy}", opening.bucket))
}
