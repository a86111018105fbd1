//! Space kept aside, so that on a full disk there is room to say what is to be deleted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Result;
use crate::disk::{Disk, Open};
use crate::error::{IoContext, is_full};
use crate::order::{self, Mutex};

/// Saves between two attempts to make the reserve again.
const RETRY_SAVES: u32 = 64;

/// The file `reserve`, full of bytes that no file system can store in less.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    bytes: u64,
    /// Bytes that were given up, and are to be kept again: how many stands alone.
    lacking: AtomicU64,
    /// Locked while the file is made or cut: who saves and who reads may need it.
    state: Mutex<State, order::Reserve>,
}

#[derive(Debug)]
struct State {
    /// Whether all of it is there.
    held: bool,
    saves_until_retry: u32,
}

impl Reserve {
    pub(crate) fn new(disk: &Arc<dyn Disk>, dir: &Path, bytes: u64) -> Self {
        let path = dir.join("reserve");
        let len = disk.open(&path, Open::Existing).and_then(|file| file.len());
        // Where there is none, there was not room enough to make one yet.
        let lacking = AtomicU64::new(len.as_ref().map_or(0, |len| bytes.saturating_sub(*len)));
        let held = len.is_ok_and(|len| len >= bytes);
        let state = Mutex::new(State { held, saves_until_retry: 0 });
        Self { disk: Arc::clone(disk), path, bytes, lacking, state }
    }

    /// How large it is when all of it is there.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of it that were given up, and that whoever writes is to leave until they are kept again.
    pub(crate) fn lacking_bytes(&self) -> u64 {
        self.lacking.load(Ordering::Relaxed)
    }

    /// Makes the reserve where there is none, if the disk has plenty of room.
    pub(crate) fn ensure(&self) {
        let mut state = self.state.lock();
        if state.held || self.bytes == 0 {
            return;
        }
        if state.saves_until_retry > 0 {
            state.saves_until_retry -= 1;
            return;
        }
        state.saves_until_retry = RETRY_SAVES;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let roomy = self.disk.space(dir).is_ok_and(|space| space.free_bytes / 4 >= self.bytes);
        if !roomy {
            return;
        }
        match self.fill() {
            Ok(()) => {
                state.held = true;
                self.lacking.store(0, Ordering::Relaxed);
                return;
            }
            Err(err) if is_full(&err) => log::debug!("reserve made=no reason=full"),
            Err(err) => log::warn!("reserve made=no reason={err}"),
        }
        // There is less room than the disk says, as under a quota: what was taken of it is the last.
        if let Err(err) = self.empty() {
            log::warn!("reserve emptied=no reason={err}");
        }
    }

    fn fill(&self) -> io::Result<()> {
        let file = self.disk.open(&self.path, Open::OrCreate)?;
        let mut noise = blake3::Hasher::new().update(b"reserve").finalize_xof();
        let mut piece = vec![0; 64 << 10];
        let mut at = 0;
        while at < self.bytes {
            noise.fill(&mut piece);
            let len = usize::try_from(self.bytes - at).unwrap_or(usize::MAX).min(piece.len());
            file.write_at(&piece[..len], at)?;
            at += len as u64;
        }
        // File systems that allocate late would else find out too late that there is no room.
        file.barrier()
    }

    /// Gives the space to whoever writes next. False if there is none to give.
    ///
    /// Part of a reserve is given too: what is left of one that was being made as the program ended.
    pub(crate) fn release(&self) -> Result<bool> {
        let mut state = self.state.lock();
        let bytes = self.empty()?;
        if bytes == 0 {
            return Ok(false);
        }
        state.held = false;
        self.lacking.store(self.bytes, Ordering::Relaxed);
        state.saves_until_retry = RETRY_SAVES;
        log::info!("reserve released bytes={bytes}");
        Ok(true)
    }

    /// Cuts off what there is, durably: so many bytes.
    fn empty(&self) -> Result<u64> {
        let file = match self.disk.open(&self.path, Open::Existing) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(0),
            file => file.at("open", &self.path)?,
        };
        let bytes = file.len().at("read", &self.path)?;
        if bytes > 0 {
            file.set_len(0).at("cut", &self.path)?;
            // Some file systems give blocks back only when the cut is durable.
            file.barrier().at("sync", &self.path)?;
        }
        Ok(bytes)
    }
}
