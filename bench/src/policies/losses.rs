//! What is left after a cut, against what the work took for done.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cairnfs_mount_core::{Error, Ino, Mount, OpenFlags, Options};
use cairnfs_store::{DeviceKey, disk::RealDisk};
use serde::Serialize;

use crate::{
    bucket,
    jobs::{DATABASE, Effect, Step},
    sim::Image,
    workplace,
};

/// A step, and when.
#[derive(Debug)]
pub(super) struct Logged {
    began: Duration,
    ended: Duration,
    pub(super) bytes: u64,
    effect: Effect,
}

/// All that the work did, in order.
pub(super) type Log = Vec<Logged>;

impl Logged {
    pub(super) fn new(began: Duration, ended: Duration, step: Step) -> Self {
        Self { began, ended, bytes: step.bytes, effect: step.effect }
    }
}

/// What one cut lost of what had been acknowledged.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Cut {
    /// Seconds after the beginning.
    pub at_s: f64,
    /// Steps that had been acknowledged.
    pub acknowledged: usize,
    /// Steps of them that are gone.
    pub lost: usize,
    /// Bytes of those.
    pub lost_bytes: u64,
    /// How long before the cut the oldest of them had been acknowledged.
    pub lost_s: f64,
    /// Files that hold neither what any step put there nor what a step was about to.
    pub mixed: usize,
}

/// The key of the device that has its home at `home`.
pub(super) fn device(home: &Path) -> Result<Arc<DeviceKey>> {
    Ok(Arc::new(DeviceKey::load(&RealDisk, &home.join("device.key"))?))
}

/// Opens what is left, and looks for everything.
pub(super) fn judge(
    log: &Log,
    at: Duration,
    image: &Image,
    device: &Arc<DeviceKey>,
) -> Result<Cut> {
    let dir = workplace::in_memory()?;
    image.write_to(dir.path())?;
    // A crash leaves a bucket that opens, or this is an error and no loss.
    let mount = bucket::open(dir.path(), device, Options::default())?;
    let left = Left { mount: &mount, files: BTreeMap::new(), rows: None };
    let cut = compare(log, at, left);
    mount.stop()?;
    cut
}

fn compare(log: &Log, at: Duration, mut left: Left<'_>) -> Result<Cut> {
    let acknowledged = log.iter().take_while(|step| step.ended <= at).count();
    let (done, later) = log.split_at(acknowledged);
    let under_way = later.first().filter(|step| step.began <= at);
    let mut cut = Cut { at_s: at.as_secs_f64(), acknowledged, ..Cut::default() };
    let mut lose = |step: &Logged| {
        cut.lost += 1;
        cut.lost_bytes += step.bytes;
        cut.lost_s = cut.lost_s.max((at.saturating_sub(step.ended)).as_secs_f64());
    };
    let mut histories: BTreeMap<&Path, Vec<&Logged>> = BTreeMap::new();
    for step in done {
        match &step.effect {
            Effect::Nothing => (),
            Effect::Rows(n) => {
                if left.rows()? < *n {
                    lose(step);
                }
            }
            Effect::Piece { path, offset, len, hash } => {
                let found = left.file(path)?.and_then(|content| {
                    let from = usize::try_from(*offset).ok()?;
                    content.get(from..from + len).map(blake3::hash)
                });
                if found != Some(*hash) {
                    lose(step);
                }
            }
            Effect::File(path, _) => histories.entry(path).or_default().push(step),
        }
    }
    let mut mixed = 0;
    for (path, steps) in histories {
        let found = left.file(path)?.map(blake3::hash);
        let is = |step: &Logged| matches!((&step.effect, found), (Effect::File(_, hash), Some(found)) if *hash == found);
        let touched = under_way
            .filter(|step| matches!(&step.effect, Effect::File(touched, _) if touched == path));
        if touched.is_some_and(is) {
            continue;
        }
        match steps.iter().rposition(|step| is(step)) {
            Some(last) => steps[last + 1..].iter().for_each(|step| lose(step)),
            // The program itself was about to replace it.
            None if touched.is_some() && found_between(&mut left, path, &steps)? => (),
            None => {
                mixed += usize::from(found.is_some());
                // What stood there before the last step was not needed any more.
                steps.last().into_iter().for_each(|step| lose(step));
            }
        }
    }
    cut.mixed = mixed;
    Ok(cut)
}

/// Whether the program had taken the file away itself: moved to where it keeps the old one, or cut
/// to be written anew.
fn found_between(left: &mut Left<'_>, path: &Path, steps: &[&Logged]) -> Result<bool> {
    let mut backup = path.as_os_str().to_owned();
    backup.push("~");
    let moved = left.file(Path::new(&backup))?.map(blake3::hash);
    let last = steps.last().map(|step| &step.effect);
    let is_last =
        matches!((last, moved), (Some(Effect::File(_, hash)), Some(moved)) if *hash == moved);
    Ok(is_last || left.file(path)?.is_some_and(<[u8]>::is_empty))
}

/// What a bucket holds after a crash.
struct Left<'m> {
    mount: &'m Mount,
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    rows: Option<u64>,
}

impl Left<'_> {
    /// The content of a file of the work, if it is there.
    fn file(&mut self, path: &Path) -> Result<Option<&[u8]>> {
        if !self.files.contains_key(path) {
            let content = read(self.mount, &Path::new("work").join(path))?;
            self.files.insert(path.to_owned(), content);
        }
        Ok(self.files.get(path).and_then(Option::as_deref))
    }

    /// The rows of the database, counted by `sqlite3` itself, which first rolls back what the
    /// journal says.
    fn rows(&mut self) -> Result<u64> {
        if let Some(rows) = self.rows {
            return Ok(rows);
        }
        let dir = workplace::in_memory()?;
        let journal = format!("{DATABASE}-journal");
        for name in [DATABASE, journal.as_str()] {
            if let Some(content) = self.file(Path::new(name))? {
                fs::write(dir.path().join(name), content)?;
            }
        }
        let out = Command::new("sqlite3")
            .arg("-batch")
            .arg(dir.path().join(DATABASE))
            .arg("pragma integrity_check; select count(*) from t;")
            .output()
            .context("starting sqlite3")?;
        let said = String::from_utf8_lossy(&out.stdout);
        let mut lines = said.lines();
        ensure!(lines.next() == Some("ok"), "sqlite3 finds the database damaged: {said}");
        let rows = lines.next().unwrap_or("0").parse()?;
        self.rows = Some(rows);
        Ok(rows)
    }
}

fn read(mount: &Mount, path: &Path) -> Result<Option<Vec<u8>>> {
    let mut ino = Ino::ROOT;
    for name in path {
        ino = match mount.lookup(ino, name.as_encoded_bytes()) {
            Ok(attr) => attr.ino,
            Err(Error::NotFound) => return Ok(None),
            Err(err) => return Err(err.into()),
        };
    }
    let len = mount.getattr(ino)?.size;
    let fh = mount.open(ino, OpenFlags::default())?;
    let mut content = Vec::new();
    while (content.len() as u64) < len {
        let piece = mount.read(fh, content.len() as u64, 1 << 20)?;
        ensure!(!piece.is_empty(), "a file shorter than its length");
        content.extend_from_slice(&piece);
    }
    bucket::wait(|done| mount.release(ino, fh, done))?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(n: u8) -> Effect {
        Effect::File(PathBuf::from("notes"), blake3::hash(&[n]))
    }

    /// Four saves, a second each: the last is under way at 3.5 s.
    fn log() -> Log {
        let second = |n: u8| Duration::from_secs(n.into());
        let step = |n| Step { waited: Duration::ZERO, bytes: 10, effect: version(n) };
        (1..=4).map(|n| Logged::new(second(n - 1), second(n), step(n))).collect()
    }

    /// What is said of a bucket in which the file holds `found`.
    fn judged(found: Option<u8>) -> Cut {
        let dir = workplace::in_memory().unwrap();
        let (mount, _) = bucket::create(&dir.path().join("b"), Options::default()).unwrap();
        let work = mount.mkdir(bucket::CALLER, Ino::ROOT, b"work", 0o755).unwrap().ino;
        if let Some(found) = found {
            bucket::put(&mount, work, "notes", &[found]).unwrap();
        }
        let left = Left { mount: &mount, files: BTreeMap::new(), rows: None };
        let cut = compare(&log(), Duration::from_millis(3500), left).unwrap();
        mount.stop().unwrap();
        cut
    }

    #[test]
    fn saves_after_the_one_that_is_found_are_lost() {
        let cut = judged(Some(1));
        assert_eq!((cut.acknowledged, cut.lost, cut.lost_bytes, cut.mixed), (3, 2, 20, 0));
        assert!((cut.lost_s - 1.5).abs() < 1e-9, "the second save was acknowledged at 2 s");
    }

    #[test]
    fn the_last_save_or_the_one_under_way_is_no_loss() {
        for found in [3, 4] {
            assert_eq!(judged(Some(found)).lost, 0);
        }
    }

    #[test]
    fn what_no_save_wrote_is_told_apart() {
        let cut = judged(Some(9));
        assert_eq!((cut.lost, cut.mixed), (1, 1));
        let cut = judged(None);
        assert_eq!((cut.lost, cut.mixed), (1, 0));
    }
}
