//! Where the log ends: what a power cut has left of the last batch goes, what damage has left of it stays.

use super::{Recovered, Replay, damaged, first_of};
use crate::Result;
use crate::check::damage;
use crate::error::IoContext;
use crate::journal::Pos;
use crate::journal::header::{HEADER_BYTES, PackHeader};

impl Replay<'_> {
    /// Refuses packs that are lost, and sees to it that no batch is open.
    pub(super) fn finish(mut self) -> Result<Recovered> {
        for &number in self.gaps.lost() {
            let at = Pos { pack: number, offset: 0 };
            let Some(noted) = self.forgive.as_mut() else {
                return Err(damaged(self.packs, at, "it is missing"));
            };
            noted.push(damage(self.packs, at, None));
        }
        let start = self.chain.batch_start;
        let is_there = self.packs.list()?.contains(&start.pack);
        let is_left = self.is_hurt && (!self.batch.is_empty() || start.pack < self.end.pack);
        if self.forgive.is_some() && (is_left || !is_there) {
            self.go_on_behind()?;
        } else if is_there {
            self.cut()?;
        } else {
            return Err(damaged(self.packs, start, "it is missing"));
        }
        self.out.chain = self.chain;
        // The same as before, or, where no save was read, the beginning of the log.
        self.out.mark.end = self.chain.batch_start;
        self.out.mark.seq = self.chain.seq;
        self.out.mark.last_save = self.chain.last_save;
        Ok(self.out)
    }

    /// For a repair that finds the last batch without its save, and not because of a power cut: something
    /// in it is damaged and something is not, a header of a pack for one; or it began in a pack that was
    /// reclaimed, as none is before it is saved. Begins a pack whose header says that the batch was closed, so that nobody takes it for
    /// a torn tail.
    fn go_on_behind(&mut self) -> Result<()> {
        let number = self.end.pack.saturating_add(1);
        log::info!("batch kept save=lost next_pack={number}");
        self.chain.batch_start = first_of(number);
        self.chain.hash = [0; 16];
        let prev_len = self.previous_len.unwrap_or_default();
        let header = PackHeader { number, bucket: self.keys.tag(), prev_len, chain: self.chain };
        let file = self.packs.create(&header)?;
        file.barrier().at("sync", &self.packs.path(number))?;
        // Not before: it would look like a torn tail, without any damage.
        self.cut_to(self.end)?;
        self.out.file_len = HEADER_BYTES as u64;
        self.out.entries.append(&mut self.batch);
        Ok(())
    }

    /// Cuts off what belongs to no whole batch.
    fn cut(&mut self) -> Result<()> {
        let start = self.chain.batch_start;
        // A batch may have begun in a pack before the last one.
        while let Some(&number) = self.packs.list()?.last()
            && number > start.pack
        {
            log::info!("pack removed number={number} reason=unsaved");
            self.out.cut_bytes += self.packs.file(number)?.len().at("read", self.packs.dir())?;
            self.packs.remove(number)?;
            self.out.file_len = 0;
        }
        let torn = self.end != start || self.out.cut_bytes > 0;
        if torn {
            self.out.cut_bytes += u64::from(self.end.offset.saturating_sub(start.offset));
            self.cut_to(start)?;
            self.out.file_len = u64::from(start.offset);
            log::info!("batch cut bytes={} reason=unsaved", self.out.cut_bytes);
        }
        self.packs.set_size(start.pack, u64::from(start.offset));
        self.chain.hash = [0; 16];
        Ok(())
    }

    /// Has a pack end there, durably.
    fn cut_to(&self, end: Pos) -> Result<()> {
        let path = self.packs.path(end.pack);
        let file = self.packs.file(end.pack)?;
        file.set_len(u64::from(end.offset)).at("cut", &path)?;
        file.barrier().at("sync", &path)
    }
}
