//! Reading a pack from one record to the next, with every check that needs no keys.

use std::io;
use std::sync::Arc;

use super::packs::Packs;
use super::record::{self, CHECKSUM_BYTES, HEADER_BYTES, Header, MARKER};
use crate::Result;
use crate::disk::DiskFile;
use crate::error::{IoContext, is_unreadable};

/// No record ends behind this: a place in a pack has 32 bits, and packs are far shorter.
const REACH: u64 = u32::MAX as u64;

/// Read at a time; grows to the longest record.
const WINDOW_BYTES: usize = 256 << 10;

/// Read at a time where not all can be read.
const SECTOR_BYTES: usize = 512;

/// Stands for each byte that cannot be read: nothing that is looked for has it, be it zeros or a header.
const UNREADABLE: u8 = 0xff;

/// Walks over the records of one pack. What the medium cannot give is a bad record like any other.
pub(crate) struct Scan<'a> {
    packs: &'a Packs,
    number: u32,
    file: Arc<dyn DiskFile>,
    /// Length of the file, or what of it counts.
    len: u64,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
    /// Not all of the window could be read.
    has_holes: bool,
}

/// What stands at a place in a pack.
pub(crate) enum Found<'a> {
    /// An intact record.
    Record {
        at: u32,
        header: Header,
        /// The whole record.
        bytes: &'a [u8],
        checksum: [u8; CHECKSUM_BYTES],
    },
    /// Nothing more but zeros to the end of the file.
    End { at: u32 },
    /// Something else, with the header where that is intact. Behind `u32::MAX` everything is.
    Bad { at: u32, header: Option<Header> },
}

impl<'a> Scan<'a> {
    pub(crate) fn new(packs: &'a Packs, number: u32, from: u64) -> Result<Self> {
        let file = packs.file(number)?;
        let len = file.len().at("read", &packs.path(number))?;
        let (at, window) = (from, Vec::new());
        Ok(Self { packs, number, file, len, at, window, window_at: 0, has_holes: false })
    }

    /// As if the file ended at `end`, where it does not end before.
    pub(crate) fn until(self, end: u64) -> Self {
        Self { len: self.len.min(end), ..self }
    }

    /// Length of the file, or what of it counts.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Where the next record is looked for.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// Goes on behind a bad record: where its header says it ends, else at the next thing that
    /// is an intact header. False if there is none.
    pub(crate) fn resume(&mut self, at: u32, header: Option<&Header>) -> Result<bool> {
        if let Some(header) = header {
            self.at = u64::from(at) + header.record_len() as u64;
            return Ok(self.at <= self.len);
        }
        let mut from = u64::from(at) + 1;
        while from < self.len.min(REACH) {
            // Steps overlap by a header, so that none is missed at an edge.
            let len = (self.len - from).min((WINDOW_BYTES + HEADER_BYTES) as u64);
            let piece = self.found(from, usize::try_from(len).unwrap_or(0))?;
            let mut marks = piece.windows(MARKER.len()).enumerate();
            let found = marks.find(|(index, mark)| {
                *mark == MARKER && Header::decode(&piece[*index..]).is_some()
            });
            if let Some((index, _)) = found {
                self.at = from + index as u64;
                return Ok(true);
            }
            from += WINDOW_BYTES as u64;
        }
        Ok(false)
    }

    /// What comes next; after [`Found::Bad`] the place stays.
    pub(crate) fn next(&mut self) -> Result<Found<'_>> {
        let at = self.at;
        let Ok(at32) = u32::try_from(at) else {
            return Ok(Found::Bad { at: u32::MAX, header: None });
        };
        let rest = self.len.saturating_sub(at);
        if rest == 0 {
            return Ok(Found::End { at: at32 });
        }
        let head_len = rest.min(HEADER_BYTES as u64);
        let head = self.found(at, usize::try_from(head_len).unwrap_or(HEADER_BYTES))?;
        let zero = head.iter().all(|&byte| byte == 0);
        let Some(header) = Header::decode(head) else {
            if zero && self.zeros(at)? {
                return Ok(Found::End { at: at32 });
            }
            return Ok(Found::Bad { at: at32, header: None });
        };
        let len = header.record_len();
        let bad = Found::Bad { at: at32, header: Some(header) };
        if len as u64 > rest || at + len as u64 > REACH {
            return Ok(bad);
        }
        let bytes = self.found(at, len)?;
        match record::checksum_of(bytes) {
            Some((before, checksum)) if record::checksum(before) == checksum => {
                self.at = at + len as u64;
                let bytes = self.found(at, len)?;
                Ok(Found::Record { at: at32, header, bytes, checksum })
            }
            _ => Ok(bad),
        }
    }

    /// Whether everything from `at` to the end of the file is zero.
    pub(crate) fn zeros(&mut self, at: u64) -> Result<bool> {
        let mut from = at;
        while from < self.len {
            let len = (self.len - from).min(WINDOW_BYTES as u64);
            let piece = self.found(from, usize::try_from(len).unwrap_or(WINDOW_BYTES))?;
            if piece.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            from += len;
        }
        Ok(true)
    }

    /// The bytes at a place that lies within the file; `None` if they cannot be read, or some near by.
    pub(crate) fn bytes(&mut self, at: u64, len: usize) -> Result<Option<&[u8]>> {
        self.found(at, len)?;
        Ok((!self.has_holes).then(|| self.window(at, len)))
    }

    /// The bytes at a place that lies within the file, with [`UNREADABLE`] for what cannot be read.
    fn found(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let window_end = self.window_at + self.window.len() as u64;
        if at < self.window_at || at + len as u64 > window_end {
            self.fill(at, len)?;
        }
        Ok(self.window(at, len))
    }

    fn window(&self, at: u64, len: usize) -> &[u8] {
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        &self.window[start..start + len]
    }

    /// Has the window begin at `at`, with so many bytes or more.
    fn fill(&mut self, at: u64, len: usize) -> Result<()> {
        let want = len.max(WINDOW_BYTES) as u64;
        let have = usize::try_from(want.min(self.len.saturating_sub(at))).unwrap_or(len);
        // Without one, if this fails.
        let mut window = std::mem::take(&mut self.window);
        window.resize(have.max(len), 0);
        let mut read = self.file.read_at(&mut window, at);
        self.has_holes = matches!(&read, Err(err) if is_unreadable(err));
        if self.has_holes {
            read = read_sectors(&*self.file, &mut window, at);
        }
        read.at("read", &self.packs.path(self.number))?;
        self.window_at = at;
        self.window = window;
        Ok(())
    }
}

/// Reads from `at` on one sector after the other, with [`UNREADABLE`] for those that cannot be read.
fn read_sectors(file: &dyn DiskFile, window: &mut [u8], mut at: u64) -> io::Result<()> {
    let mut rest = window;
    while !rest.is_empty() {
        let to_edge = SECTOR_BYTES - usize::try_from(at % SECTOR_BYTES as u64).unwrap_or(0);
        let (piece, behind) = rest.split_at_mut(to_edge.min(rest.len()));
        match file.read_at(piece, at) {
            Err(err) if is_unreadable(&err) => piece.fill(UNREADABLE),
            read => read?,
        }
        at += piece.len() as u64;
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlobId;
    use crate::disk::{Disk, Open, RealDisk};
    use crate::journal::record::Flags;
    use crate::seal::Cipher;

    /// Of a record with a body of `body_len` bytes.
    fn header(body_len: u32) -> Header {
        Header {
            body_len,
            kind: 1,
            flags: Flags { cipher: Cipher::Aes256Gcm, compressed: false, checkpoint: false },
            epoch: 0,
            plain_len: body_len - 16,
            id: BlobId([1; 32]),
            nonce: [0; 12],
        }
    }

    /// Nobody needs a key to make such a file.
    #[test]
    fn what_lies_beyond_any_place_in_a_pack_is_bad_and_the_last_that_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let packs = Packs::new(Arc::new(RealDisk), dir.path());
        RealDisk.create_dir(packs.dir()).unwrap();
        let file = RealDisk.open(&packs.path(1), Open::New).unwrap();
        file.set_len(5 << 30).unwrap();
        let whole = header(1000);
        let mut record = [whole.encode().as_slice(), &[0; 1000]].concat();
        record.extend(record::checksum(&record));
        let begin = u64::from(u32::MAX) - 300;
        for (bytes, is_whole) in [(&record[..], true), (&header(1 << 20).encode()[..], false)] {
            file.write_at(bytes, begin).unwrap();
            let mut scan = Scan::new(&packs, 1, begin).unwrap();
            let Ok(Found::Bad { at, header: Some(header) }) = scan.next() else {
                panic!("a record that ends nowhere, whole: {is_whole}");
            };
            assert_eq!(u64::from(at), begin);
            assert!(scan.resume(at, Some(&header)).unwrap());
            let Ok(Found::Bad { at: u32::MAX, header: None }) = scan.next() else {
                panic!("a place that there is not, whole: {is_whole}");
            };
            assert!(!scan.resume(u32::MAX, None).unwrap());
        }
    }
}
