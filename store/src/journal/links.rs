//! Whether a log is the one that was written, for who goes on behind what is damaged.

use super::gaps::Gaps;
use super::header::PackHeader;
use super::record::{CHECKSUM_BYTES, Header, KIND_SAVE};
use super::recover::end_of;
use super::save::SaveId;
use super::{Chain, Loc};
use crate::Seq;

/// Is told of a log from its beginning on, pack by pack and record by record.
pub(crate) struct Links {
    gaps: Gaps,
    /// `None` behind what cannot be read, until a save or a pack's header tells it.
    chain: Option<Chain>,
}

impl Links {
    pub(crate) const fn new() -> Self {
        Self { gaps: Gaps::new(1), chain: None }
    }

    /// A pack begins, behind one that ends at `end`. False if that does not end where it did when this
    /// one was begun, as far as `header` tells.
    pub(crate) fn pack(&mut self, number: u32, end: u32, header: Option<&PackHeader>) -> bool {
        if !self.gaps.pack(number) {
            self.chain = None;
        }
        let known = std::mem::replace(&mut self.chain, header.map(|header| header.chain));
        known.zip(header).is_none_or(|(known, header)| {
            header.chain == known && header.prev_len == u64::from(end)
        })
    }

    /// An intact record. False if it is a save that was made in another place.
    pub(crate) fn record(
        &mut self,
        loc: Loc,
        header: &Header,
        checksum: [u8; CHECKSUM_BYTES],
    ) -> bool {
        if header.kind != KIND_SAVE {
            if let Some(chain) = &mut self.chain {
                chain.add(checksum);
            }
            return true;
        }
        let id = SaveId::decode(&header.id);
        let fits = self.chain.is_none_or(|chain| id == SaveId::closing(&chain));
        let mut chain = Chain { seq: Seq(id.seq.0.saturating_sub(1)), ..Chain::default() };
        chain.close(loc.at, end_of(loc));
        self.chain = fits.then_some(chain);
        if fits && header.flags.checkpoint {
            self.gaps.checkpoint();
        }
        fits
    }

    /// Something cannot be read.
    pub(crate) const fn damaged(&mut self) {
        self.chain = None;
    }

    /// The packs that are missing.
    pub(crate) const fn gaps(&self) -> &Gaps {
        &self.gaps
    }
}
