//! The pack files: their names, their handles, their headers.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::header::{HEADER_BYTES, HeaderError, PackHeader, VERSION};
use super::{Loc, Pos};
use crate::disk::{Disk, DiskFile, Open};
use crate::error::{IoContext, is_unreadable};
use crate::order::{self, Mutex};
use crate::{Error, Result};

/// Handles kept open at a time. A bucket of a terabyte has 16,000 packs.
const HANDLES_MAX: usize = 128;

type Handles = HashMap<u32, Arc<dyn DiskFile>>;

/// The directory of packs.
#[derive(Debug)]
pub(crate) struct Packs {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open: Mutex<Handles, order::PackFiles>,
    /// Bytes of records by pack, for the statistics and for reclaiming.
    sizes: Mutex<BTreeMap<u32, u64>, order::PackSizes>,
}

impl Packs {
    pub(crate) fn new(disk: Arc<dyn Disk>, store_dir: &Path) -> Self {
        Self {
            disk,
            dir: store_dir.join("packs"),
            open: Mutex::new(HashMap::new()),
            sizes: Mutex::new(BTreeMap::new()),
        }
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:08}.pack"))
    }

    /// The numbers of the packs there are, ascending.
    pub(crate) fn list(&self) -> Result<Vec<u32>> {
        let names = match self.disk.list(&self.dir) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.at("list", &self.dir)?,
        };
        let number = |name: &String| name.strip_suffix(".pack")?.parse().ok();
        let mut numbers: Vec<u32> = names.iter().filter_map(number).filter(|&n| n > 0).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The handle of a pack, opened if need be.
    pub(crate) fn file(&self, number: u32) -> Result<Arc<dyn DiskFile>> {
        // Held until it is kept: meanwhile the pack could be removed and another one of its number
        // begun, for which it would be taken.
        let mut open = self.open.lock();
        if let Some(file) = open.get(&number) {
            return Ok(Arc::clone(file));
        }
        let path = self.path(number);
        let file = self.disk.open(&path, Open::Existing).at("open", &path)?;
        Self::keep(&mut open, number, &file);
        Ok(file)
    }

    fn keep(open: &mut Handles, number: u32, file: &Arc<dyn DiskFile>) {
        if open.len() >= HANDLES_MAX {
            // Any one goes; a handle that is in use stays open until its user is done.
            if let Some(&victim) = open.keys().find(|&&other| other != number) {
                open.remove(&victim);
            }
        }
        open.insert(number, Arc::clone(file));
    }

    /// Begins a pack. Its name is durable when this returns, its header is not.
    pub(crate) fn create(&self, header: &PackHeader) -> Result<Arc<dyn DiskFile>> {
        let path = self.path(header.number);
        let file = self.disk.open(&path, Open::New).at("create", &path)?;
        // The header last: a pack without one is no part of the log yet, and the one before may be
        // written to again.
        let begun = self
            .disk
            .sync_dir(&self.dir)
            .at("sync", &self.dir)
            .and_then(|()| file.write_at(&header.encode(), 0).at("write", &path));
        if let Err(err) = begun {
            // Recovery takes it away by itself, so this is tidiness.
            if let Err(left) = self.disk.remove(&path) {
                log::debug!("pack left-behind number={} reason={left}", header.number);
            }
            return Err(err);
        }
        Self::keep(&mut self.open.lock(), header.number, &file);
        self.set_size(header.number, HEADER_BYTES as u64);
        Ok(file)
    }

    /// Writes the header of a pack that is there anew, durably.
    pub(crate) fn mend_header(&self, header: &PackHeader) -> Result<()> {
        let path = self.path(header.number);
        let file = self.file(header.number)?;
        file.write_at(&header.encode(), 0).at("write", &path)?;
        file.barrier().at("sync", &path)
    }

    /// Removes a pack, durably.
    pub(crate) fn remove(&self, number: u32) -> Result<()> {
        self.sizes.lock().remove(&number);
        let path = self.path(number);
        {
            // Nobody opens it in between, to keep it from giving its space back.
            let mut open = self.open.lock();
            open.remove(&number);
            self.disk.remove(&path).at("remove", &path)?;
        }
        self.disk.sync_dir(&self.dir).at("sync", &self.dir)
    }

    pub(crate) fn set_size(&self, number: u32, bytes: u64) {
        self.sizes.lock().insert(number, bytes);
    }

    pub(crate) fn sizes(&self) -> BTreeMap<u32, u64> {
        self.sizes.lock().clone()
    }

    /// Reads and checks a pack's header. `Ok(None)` if it never reached the disk.
    pub(crate) fn header(
        &self,
        number: u32,
        bucket: Option<[u8; 16]>,
    ) -> Result<Option<PackHeader>> {
        let path = self.path(number);
        let file = self.file(number)?;
        let len = file.len().at("read", &path)?.min(HEADER_BYTES as u64);
        let mut bytes = [0; HEADER_BYTES];
        let found = &mut bytes[..usize::try_from(len).unwrap_or(HEADER_BYTES)];
        match file.read_at(found, 0) {
            // As good as damaged.
            Err(err) if is_unreadable(&err) => found.fill(0xff),
            read => read.at("read", &path)?,
        }
        match PackHeader::decode(found) {
            Ok(header) if header.number != number => {
                Err(Error::Damaged { pack: path, offset: 0, reason: "the number of another pack" })
            }
            Ok(header) if bucket.is_some_and(|bucket| bucket != header.bucket) => {
                Err(Error::WrongBucket { path })
            }
            Ok(header) => Ok(Some(header)),
            Err(HeaderError::Absent) => Ok(None),
            Err(HeaderError::Newer(found)) => Err(Error::Newer { path, found, supported: VERSION }),
            Err(HeaderError::Damaged) => {
                Err(Error::Damaged { pack: path, offset: 0, reason: "pack header" })
            }
        }
    }

    /// Reads the bytes of a record, unchecked.
    pub(crate) fn read(&self, loc: Loc) -> Result<Vec<u8>> {
        let mut bytes = vec![0; loc.len as usize];
        self.read_into(loc.at, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn read_into(&self, at: Pos, bytes: &mut [u8]) -> Result<()> {
        let file = self.file(at.pack)?;
        file.read_at(bytes, u64::from(at.offset)).at("read", &self.path(at.pack))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::disk::{Lock, LockError, RealDisk, Space};
    use crate::journal::Chain;

    /// A disk that does something else before it hands out a file that was there.
    struct Stalling(Box<dyn Fn() + Send + Sync>);

    impl std::fmt::Debug for Stalling {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Stalling")
        }
    }

    impl Disk for Stalling {
        fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
            let file = RealDisk.open(path, how)?;
            if how == Open::Existing {
                (self.0)();
            }
            Ok(file)
        }
        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            RealDisk.list(dir)
        }
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            RealDisk.create_dir(dir)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk.rename(from, to)
        }
        fn give_to_owner_of(&self, path: &Path, like: &Path) -> io::Result<()> {
            RealDisk.give_to_owner_of(path, like)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove(path)
        }
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            RealDisk.sync_dir(dir)
        }
        fn space(&self, dir: &Path) -> io::Result<Space> {
            RealDisk.space(dir)
        }
        fn lock(&self, path: &Path) -> Result<Lock, LockError> {
            RealDisk.lock(path)
        }
    }

    #[test]
    fn a_pack_that_is_opened_as_another_takes_its_number_is_not_kept_for_that() {
        let (opened, has_opened) = mpsc::channel();
        let (replaced, is_replaced) = mpsc::channel();
        let is_replaced = parking_lot::Mutex::new(is_replaced);
        let stalling = Stalling(Box::new(move || {
            opened.send(()).unwrap();
            // Or it cannot be, as long as this takes.
            is_replaced.lock().recv_timeout(Duration::from_millis(200)).ok();
        }));
        let dir = tempfile::tempdir().unwrap();
        let packs = Packs::new(Arc::new(stalling), dir.path());
        RealDisk.create_dir(packs.dir()).unwrap();
        let header =
            PackHeader { number: 1, bucket: [0; 16], prev_len: 0, chain: Chain::default() };
        packs.create(&header).unwrap().set_len(5000).unwrap();
        packs.open.lock().clear();
        thread::scope(|scope| {
            let reader = scope.spawn(|| packs.file(1).unwrap());
            has_opened.recv_timeout(Duration::from_secs(60)).unwrap();
            packs.remove(1).unwrap();
            packs.create(&header).unwrap();
            replaced.send(()).ok();
            assert_eq!(reader.join().unwrap().len().unwrap(), 5000);
        });
        assert_eq!(packs.file(1).unwrap().len().unwrap(), HEADER_BYTES as u64);
    }
}
