//! Reading blobs, from any thread, at any time.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bytes::len32;
use crate::disk::{Lock, Space};
use crate::error::{IoContext, is_gone, is_unreadable};
use crate::index::Index;
use crate::journal::header::HEADER_BYTES;
use crate::journal::packs::Packs;
use crate::journal::record::{self, HEADER_BYTES_U32, Header, RECORD_BYTES_MAX};
use crate::journal::scan::{Found, Scan};
use crate::journal::tail::Tail;
use crate::journal::{Loc, Pos};
use crate::keys::{KeyRing, Secret};
use crate::order::{self, Mutex};
use crate::rotten::{Rot, Rotten};
use crate::seal::{self, NotOpened};
use crate::{BlobId, BlobRef, CheckedBlob, Error, Kind, Result, SealedBlob};

/// The readers' side of a store. Blobs can be read as soon as they are put, saved or not.
pub struct Blobs {
    pub(crate) keys: KeyRing,
    pub(crate) packs: Packs,
    pub(crate) tail: Arc<Tail>,
    pub(crate) index: Arc<Index>,
    /// Held while packs are removed: from the index's forgetting their records to the last of them.
    pub(crate) removing: Mutex<(), order::Removing>,
    pub(crate) rotten: Rotten,
    /// Held for as long as anybody reads or writes.
    pub(crate) _lock: Lock,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blobs").field("packs", &self.packs.dir()).finish_non_exhaustive()
    }
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pack files.
    pub packs: u64,
    /// Bytes in them, dead ones included, for the packs used since the store was opened and
    /// those measured at opening.
    pub pack_bytes: u64,
    /// Blobs that can be found.
    pub blobs: u64,
    /// Those of them that the index does not know yet.
    pub unindexed: u64,
}

impl Blobs {
    pub(crate) fn new(
        keys: KeyRing,
        packs: Packs,
        tail: Arc<Tail>,
        index: Arc<Index>,
        lock: Lock,
    ) -> Self {
        let (removing, rotten) = (Mutex::new(()), Rotten::default());
        Self { keys, packs, tail, index, removing, rotten, _lock: lock }
    }

    /// The plaintext of a blob, authenticated.
    ///
    /// Costs a look into the index (4 us where it is not in the tail), one `pread` and one pass
    /// of the cipher.
    ///
    /// # Errors
    ///
    /// - [`Error::Missing`] if it is not here.
    /// - [`Error::Corrupt`] if what is here is not what was put.
    /// - [`Error::Io`], [`Error::Index`], [`Error::UnknownEpoch`].
    pub fn get(&self, blob: &BlobRef) -> Result<Arc<[u8]>> {
        // Before it is read: what is in an open batch may be dropped, and another one saved in its place.
        let saved = self.rotten.has(&blob.id).then(|| self.tail.saved());
        let (loc, mut bytes) = self.record(&blob.id)?;
        let opened = seal::open(&self.keys, &mut bytes)?;
        match opened {
            Some(opened)
                if opened.header.id == blob.id && opened.plain.len() == blob.len as usize =>
            {
                if saved.is_some_and(|saved| loc.at < saved) {
                    self.rotten.forget(&blob.id);
                }
                Ok(opened.plain)
            }
            _ => Err(self.corrupt(&blob.id, loc)),
        }
    }

    /// A blob as it can be given to a peer.
    ///
    /// # Errors
    ///
    /// As [`Self::get`]; what is given has an intact checksum, but was not decrypted.
    pub fn get_sealed(&self, id: &BlobId) -> Result<SealedBlob> {
        let (loc, bytes) = self.record(id)?;
        if !record::is_intact(&bytes) {
            return Err(self.corrupt(id, loc));
        }
        match SealedBlob::from_bytes(bytes) {
            Ok(sealed) if sealed.claims().id == *id => Ok(sealed),
            _ => Err(self.corrupt(id, loc)),
        }
    }

    /// Whether the blob is here. What is here may still turn out to be damaged.
    ///
    /// # Errors
    ///
    /// [`Error::Index`].
    pub fn contains(&self, id: &BlobId) -> Result<bool> {
        Ok(self.find(id)?.is_some())
    }

    /// Opens a record that a peer sealed, and sees whether its content has its name.
    ///
    /// Costs a pass of the cipher and two of BLAKE3, of whoever calls: the appender's owner is
    /// spared it.
    ///
    /// # Errors
    ///
    /// [`Error::Forged`] if it is not what it claims; [`Error::Unopened`], with the record, if no
    /// secret here opens it.
    pub fn check(&self, sealed: SealedBlob) -> Result<CheckedBlob> {
        match seal::open_foreign(&self.keys, sealed.as_bytes()) {
            Ok(_) => Ok(CheckedBlob::new(sealed)),
            Err(NotOpened::Forged { id }) => Err(Error::Forged { id }),
            Err(NotOpened::NoSecret { epoch }) => {
                Err(Error::Unopened { epoch, record: Box::new(sealed) })
            }
        }
    }

    /// Whether it is this secret that opens a record, whose content then has its name.
    #[must_use]
    pub fn is_opened_by(&self, sealed: &SealedBlob, epoch: u16, secret: &Secret) -> bool {
        let names_it = Header::decode(sealed.as_bytes()).is_some_and(|it| it.epoch == epoch);
        let opens = |keys: KeyRing| seal::open_foreign(&keys, sealed.as_bytes()).is_ok();
        names_it && self.keys.with_only(epoch, secret).is_some_and(opens)
    }

    /// What a blob that can be [read](Self::get) is sealed under: an epoch, and the one of its secrets.
    ///
    /// # Errors
    ///
    /// As [`Self::get`]; [`Error::Unopened`] if no secret here opens it.
    pub fn sealed_under(&self, id: &BlobId) -> Result<(u16, Secret)> {
        let (_, bytes) = self.record(id)?;
        let is_it = |opened: seal::Opened| opened.header.id == *id;
        let opens = |(epoch, secret): &(u16, Secret)| {
            let names_it = Header::decode(&bytes).is_some_and(|header| header.epoch == *epoch);
            let opened = |keys: KeyRing| seal::open(&keys, &mut bytes.clone()).ok().flatten();
            names_it && self.keys.with_only(*epoch, secret).and_then(opened).is_some_and(is_it)
        };
        if let Some(found) = self.keys.secrets().into_iter().find(opens) {
            return Ok(found);
        }
        let record = self.get_sealed(id)?;
        let epoch = Header::decode(record.as_bytes()).map_or(0, |header| header.epoch);
        Err(Error::Unopened { epoch, record: Box::new(record) })
    }

    /// What the blob is for, and its length.
    ///
    /// # Errors
    ///
    /// As [`Self::get`]; only the header is read.
    pub fn describe(&self, id: &BlobId) -> Result<(Kind, BlobRef)> {
        let loc = self.find(id)?.ok_or(Error::Missing { id: *id })?;
        let head = Loc { at: loc.at, len: HEADER_BYTES_U32 };
        let header = Header::decode(&self.read(head)?);
        let known = header.and_then(|header| Some((Kind::from_u8(header.kind)?, header)));
        match known {
            Some((kind, header)) if header.id == *id => {
                Ok((kind, BlobRef { id: *id, len: header.plain_len }))
            }
            _ => Err(self.corrupt(id, loc)),
        }
    }

    /// All blobs that are for this, each once, in the order of their names. Costs reading all packs.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Index`].
    pub fn all_of(&self, kind: Kind) -> Result<Vec<BlobRef>> {
        let mut found = BTreeMap::new();
        for number in self.packs.list()? {
            let mut scan = Scan::new(&self.packs, number, HEADER_BYTES as u64)?;
            loop {
                match scan.next()? {
                    Found::Record { header, .. } if Kind::from_u8(header.kind) == Some(kind) => {
                        found.insert(header.id, header.plain_len);
                    }
                    Found::Record { .. } => (),
                    Found::Bad { at, header } => {
                        if !scan.resume(at, header.as_ref())? {
                            break;
                        }
                    }
                    Found::End { .. } => break,
                }
            }
        }
        Ok(found.into_iter().map(|(id, len)| BlobRef { id, len }).collect())
    }

    /// The bucket's keys.
    #[must_use]
    pub const fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// What the store holds.
    ///
    /// # Errors
    ///
    /// [`Error::Index`].
    pub fn stats(&self) -> Result<Stats> {
        let sizes = self.packs.sizes();
        let unindexed = self.tail.len() as u64;
        Ok(Stats {
            packs: sizes.len() as u64,
            pack_bytes: sizes.values().sum(),
            blobs: self.index.len()? + unindexed,
            unindexed,
        })
    }

    /// The space of the file system below.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn space(&self) -> Result<Space> {
        let dir = self.packs.dir();
        self.packs.disk().space(dir).at("measure", dir)
    }

    /// Bytes of the space kept aside for saves that delete that were given up, and are kept again once
    /// there is plenty of room. Until then whoever writes something new should leave them free.
    #[must_use]
    pub fn reserve_lacks_bytes(&self) -> u64 {
        self.index.reserve_lacks_bytes()
    }

    /// What readers found damaged since the store was opened, and nobody has found whole or stored anew
    /// since.
    #[must_use]
    pub fn rot(&self) -> Option<Rot> {
        self.rotten.rot()
    }

    /// Looks again at what readers found damaged.
    pub(crate) fn recheck_rotten(&self) {
        for id in self.rotten.ids() {
            // As a reader does; that forgets what it can read.
            let read = self.describe(&id).and_then(|(_, blob)| self.get(&blob));
            if matches!(read, Err(Error::Missing { .. })) {
                self.rotten.forget(&id);
            }
        }
    }

    pub(crate) fn find(&self, id: &BlobId) -> Result<Option<Loc>> {
        // The tail first: a record leaves it only when it is in the index.
        match self.tail.find(id) {
            Some(loc) => Ok(Some(loc)),
            None => self.index.find(id),
        }
    }

    /// The record of a blob, unchecked but for its name.
    fn record(&self, id: &BlobId) -> Result<(Loc, Vec<u8>)> {
        let mut loc = self.find(id)?.ok_or(Error::Missing { id: *id })?;
        loop {
            let outcome = self.record_of(id, loc);
            if let Ok(Some(record)) = outcome {
                return Ok(record);
            }
            // It may have been moved, its pack removed, between the two looks.
            let again = self.find(id)?.ok_or(Error::Missing { id: *id })?;
            if again == loc {
                return match outcome {
                    Err(Error::Io { source, .. }) if is_gone(&source) => Err(self.corrupt(id, loc)),
                    Err(err) => {
                        if matches!(&err, Error::Io { source, .. } if is_unreadable(source)) {
                            self.rotten.note(*id);
                        }
                        Err(err)
                    }
                    Ok(_) => Err(self.corrupt(id, loc)),
                };
            }
            loc = again;
        }
    }

    /// The record of a blob, if it begins at `loc`. How long it is it says itself: the index may have
    /// rotted.
    pub(crate) fn record_of(&self, id: &BlobId, loc: Loc) -> Result<Option<(Loc, Vec<u8>)>> {
        let header_in = |bytes: &[u8]| Header::decode(bytes).filter(|header| header.id == *id);
        if loc.len as usize <= RECORD_BYTES_MAX
            && let Some(bytes) = self.read_if_there(loc)?
            && header_in(&bytes).is_some_and(|header| header.record_len() == bytes.len())
        {
            return Ok(Some((loc, bytes)));
        }
        let head = self.read(Loc { at: loc.at, len: HEADER_BYTES_U32 })?;
        let Some(header) = header_in(&head) else { return Ok(None) };
        let loc = Loc { at: loc.at, len: len32(header.record_len()) };
        Ok(Some((loc, self.read(loc)?)))
    }

    /// As [`Self::read`]; `None` beyond the end of a pack.
    fn read_if_there(&self, loc: Loc) -> Result<Option<Vec<u8>>> {
        match self.read(loc) {
            Err(Error::Io { source, .. }) if is_gone(&source) => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    /// Bytes of the log, written or not.
    pub(crate) fn read(&self, loc: Loc) -> Result<Vec<u8>> {
        match self.tail.unwritten(loc) {
            Some(bytes) => Ok(bytes),
            None => self.packs.read(loc),
        }
    }

    /// The blob's record is damaged.
    pub(crate) fn corrupt(&self, id: &BlobId, loc: Loc) -> Error {
        self.rotten.note(*id);
        let Pos { pack, offset } = loc.at;
        Error::Corrupt { id: *id, pack: self.packs.path(pack), offset: u64::from(offset) }
    }
}
