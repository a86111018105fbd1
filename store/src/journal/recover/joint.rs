//! Where one pack ends and the next begins.

use super::{Replay, first_of};
use crate::journal::header::PackHeader;
use crate::journal::save::SaveId;
use crate::journal::{Loc, Pos};
use crate::{Error, Result, seal};

impl Replay<'_> {
    /// Goes on in the next pack, as its header says; answers with the place of its first record. The
    /// pack before is there if this one `follows`.
    pub(super) fn joint(&mut self, number: u32, follows: bool) -> Result<Pos> {
        let reason = match self.packs.header(number, Some(self.keys.tag())) {
            Ok(Some(header)) => {
                self.goes_on(&header, follows)?;
                return Ok(first_of(number));
            }
            Ok(None) => "the pack's header is missing",
            Err(Error::Damaged { reason, .. }) => reason,
            Err(err) => return Err(err),
        };
        let is_known = follows && !self.doubt;
        self.forgive(Pos { pack: number, offset: 0 }, None, reason)?;
        self.guess(number, is_known);
        Ok(first_of(number))
    }

    /// Goes on behind a header that is damaged or not there, with what it may have said, if what is
    /// before it `is_known`.
    fn guess(&mut self, number: u32, is_known: bool) {
        if self.chain.batch_start == Pos::default() {
            self.chain.batch_start = first_of(number);
        }
        let prev_len = self.previous_len.unwrap_or_default();
        let header = PackHeader { number, bucket: self.keys.tag(), prev_len, chain: self.chain };
        self.guessed = is_known.then_some(header);
    }

    /// Writes the header anew that was guessed, if the save at `loc`, the next one behind it, is of this
    /// bucket and says that nothing is missing before it.
    pub(super) fn mend_header(&mut self, loc: Loc, id: &SaveId) -> Result<()> {
        let Some(header) = self.guessed.take() else { return Ok(()) };
        if *id == SaveId::closing(&self.chain)
            && seal::open(self.keys, &mut self.packs.read(loc)?)?.is_some()
        {
            self.packs.mend_header(&header)?;
        }
        Ok(())
    }

    /// Goes on as a header says, and checks that this is where the pack before ended.
    fn goes_on(&mut self, header: &PackHeader, follows: bool) -> Result<()> {
        let PackHeader { number, prev_len, chain, .. } = *header;
        if let Some(len) = self.previous_len {
            if follows && !self.doubt && (prev_len != len || chain != self.chain) {
                let end = Pos { pack: number - 1, offset: self.end.offset };
                self.forgive(end, None, "the pack has lost its end")?;
            }
            // If the batch that was open before what is missing is not open behind it, it was saved
            // there.
            if chain.batch_start != self.chain.batch_start {
                self.out.entries.append(&mut self.batch);
            }
        }
        self.chain = chain;
        // From here on it is known; and no save behind it proves what was guessed before.
        self.doubt = false;
        self.guessed = None;
        Ok(())
    }
}
