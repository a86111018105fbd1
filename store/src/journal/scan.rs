//! Reading a pack from one record to the next, with every check that needs no keys.

use std::sync::Arc;

use super::packs::Packs;
use super::record::{self, CHECKSUM_BYTES, HEADER_BYTES, Header, MARKER};
use crate::Result;
use crate::disk::DiskFile;
use crate::error::IoContext;

/// Read at a time; grows to the longest record.
const WINDOW_BYTES: usize = 256 << 10;

/// Walks over the records of one pack.
pub(crate) struct Scan<'a> {
    packs: &'a Packs,
    number: u32,
    file: Arc<dyn DiskFile>,
    /// Length of the file.
    len: u64,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
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
    /// Something else, with the header where that is intact.
    Bad { at: u32, header: Option<Header> },
}

impl<'a> Scan<'a> {
    pub(crate) fn new(packs: &'a Packs, number: u32, from: u64) -> Result<Self> {
        let file = packs.file(number)?;
        let len = file.len().at("read", &packs.path(number))?;
        Ok(Self { packs, number, file, len, at: from, window: Vec::new(), window_at: 0 })
    }

    /// Length of the file.
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
        while from < self.len {
            // Steps overlap by a header, so that none is missed at an edge.
            let len = (self.len - from).min((WINDOW_BYTES + HEADER_BYTES) as u64);
            let piece = self.bytes(from, usize::try_from(len).unwrap_or(0))?;
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
        let at32 = crate::bytes::len32(usize::try_from(at).unwrap_or(usize::MAX));
        let rest = self.len.saturating_sub(at);
        if rest == 0 {
            return Ok(Found::End { at: at32 });
        }
        let head_len = rest.min(HEADER_BYTES as u64);
        let head = self.bytes(at, usize::try_from(head_len).unwrap_or(HEADER_BYTES))?;
        let zero = head.iter().all(|&byte| byte == 0);
        let Some(header) = Header::decode(head) else {
            if zero && self.zeros(at)? {
                return Ok(Found::End { at: at32 });
            }
            return Ok(Found::Bad { at: at32, header: None });
        };
        let len = header.record_len();
        let bad = Found::Bad { at: at32, header: Some(header) };
        if len as u64 > rest {
            return Ok(bad);
        }
        let bytes = self.bytes(at, len)?;
        match record::checksum_of(bytes) {
            Some((before, checksum)) if record::checksum(before) == checksum => {
                self.at = at + len as u64;
                let bytes = self.bytes(at, len)?;
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
            let piece = self.bytes(from, usize::try_from(len).unwrap_or(WINDOW_BYTES))?;
            if piece.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            from += len;
        }
        Ok(true)
    }

    /// The bytes at a place that lies within the file.
    pub(crate) fn bytes(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let cached =
            at >= self.window_at && at + len as u64 <= self.window_at + self.window.len() as u64;
        if !cached {
            let want = len.max(WINDOW_BYTES) as u64;
            let have = usize::try_from(want.min(self.len.saturating_sub(at))).unwrap_or(len);
            self.window.resize(have.max(len), 0);
            self.window_at = at;
            let read = self.file.read_at(&mut self.window, at);
            if read.is_err() {
                self.window.clear();
            }
            read.at("read", &self.packs.path(self.number))?;
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        Ok(&self.window[start..start + len])
    }
}
