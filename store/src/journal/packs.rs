//! The pack files: their names, their handles, their headers.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::header::{HEADER_BYTES, HeaderError, PackHeader, VERSION};
use super::{Loc, Pos};
use crate::disk::{Disk, DiskFile, Open};
use crate::error::IoContext;
use crate::order::{self, Mutex};
use crate::{Error, Result};

/// Handles kept open at a time. A bucket of a terabyte has 16,000 packs.
const HANDLES_MAX: usize = 128;

/// The directory of packs.
#[derive(Debug)]
pub(crate) struct Packs {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open: Mutex<HashMap<u32, Arc<dyn DiskFile>>, order::PackFiles>,
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
        if let Some(file) = self.open.lock().get(&number) {
            return Ok(Arc::clone(file));
        }
        let path = self.path(number);
        let file = self.disk.open(&path, Open::Existing).at("open", &path)?;
        self.keep(number, &file);
        Ok(file)
    }

    fn keep(&self, number: u32, file: &Arc<dyn DiskFile>) {
        let mut open = self.open.lock();
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
        let written = file
            .write_at(&header.encode(), 0)
            .at("write", &path)
            .and_then(|()| self.disk.sync_dir(&self.dir).at("sync", &self.dir));
        if let Err(err) = written {
            // A pack without a header is what recovery takes away by itself, so this is tidiness.
            if let Err(left) = self.disk.remove(&path) {
                log::debug!("pack left behind number={} err={left}", header.number);
            }
            return Err(err);
        }
        self.keep(header.number, &file);
        self.set_size(header.number, HEADER_BYTES as u64);
        Ok(file)
    }

    /// Removes a pack, durably.
    pub(crate) fn remove(&self, number: u32) -> Result<()> {
        self.open.lock().remove(&number);
        self.sizes.lock().remove(&number);
        let path = self.path(number);
        self.disk.remove(&path).at("remove", &path)?;
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
        file.read_at(found, 0).at("read", &path)?;
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
