//! Getting space back: packs that are mostly dead are emptied and removed.
//!
//! Which those are is found by reading all of them, on any thread, while the appender goes on:
//! [`Appender::survey`] begins it, [`Blobs::survey`] looks at one pack. Then, for some of them:
//!
//! 1. [`Appender::reclaim`] puts what is alive in such packs into the open batch once more.
//! 2. The next [`Appender::save`] makes the copies durable.
//! 3. [`Appender::reclaim_finish`] has the index take in the copies and forget the rest, durably,
//!    and then removes the packs.
//!
//! A crash before the last step leaves some records twice, and none less than once.

use std::collections::HashSet;
use std::sync::Arc;

use super::Appender;
use crate::check::damage;
use crate::error::IoContext;
use crate::journal::header::HEADER_BYTES;
use crate::journal::record::{KIND_SAVE, KIND_SAVE_PART, is_intact};
use crate::journal::scan::{Found, Scan};
use crate::journal::{Loc, Pos};
use crate::open::first_pack_of;
use crate::{BlobId, Blobs, Result};

/// What a reclaim is about to do, or has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Packs that go.
    pub packs: u64,
    /// Their length.
    pub freed_bytes: u64,
    /// Bytes of records that were copied because they are alive.
    pub copied_bytes: u64,
}

/// What a pack is found to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// Its length.
    pub bytes: u64,
    /// Bytes of the records in it that are alive.
    pub live_bytes: u64,
}

impl Surveyed {
    /// Whether at least half of it is dead: then it pays to copy the rest.
    #[must_use]
    pub const fn is_mostly_dead(&self) -> bool {
        self.live_bytes.saturating_mul(2) <= self.bytes
    }
}

/// A reclaim between its two steps.
#[derive(Debug)]
pub(super) struct Plan {
    packs: Vec<u32>,
    /// Every blob record in them, to be taken out of the index where it still leads there.
    records: Vec<(BlobId, Loc)>,
    /// Those that are not copied: whoever puts one of them now must store it anew.
    pub(super) doomed: HashSet<BlobId>,
    saved: bool,
    figures: Reclaimed,
}

/// The records of a pack.
struct Content {
    records: Vec<(BlobId, Loc)>,
    live: Vec<Loc>,
    found: Surveyed,
}

impl Appender {
    /// Begins to look for packs that are mostly dead, and says which may be: those before the last
    /// checkpoint.
    ///
    /// From now on until [`Self::survey_ends`] everything that is put counts as alive if it was here
    /// already, so that what is alive need be known only as of now.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`].
    pub fn survey(&mut self) -> Result<Vec<u32>> {
        let Some(keep) = self.first_kept()? else { return Ok(Vec::new()) };
        let mut packs = self.blobs.packs.list()?;
        packs.retain(|&number| number < keep);
        self.put_again = Some(HashSet::new());
        Ok(packs)
    }

    /// What is put need not be remembered any longer.
    pub fn survey_ends(&mut self) {
        self.put_again = None;
    }

    /// Puts into the batch what is alive in those of `packs` of which at least half is dead.
    ///
    /// `live` must say yes to everything that was to stay when the survey began, what was put and
    /// not saved included. Packs from the last checkpoint on stay. Costs reading `packs`, and
    /// writing what is copied.
    ///
    /// # Errors
    ///
    /// As [`Appender::put`]; [`crate::Error::Corrupt`] never: a pack with a damaged record stays.
    pub fn reclaim(&mut self, live: &dyn Fn(&BlobId) -> bool, packs: &[u32]) -> Result<Reclaimed> {
        let put_again = self.put_again.take();
        let is_live =
            |id: &BlobId| live(id) || put_again.as_ref().is_some_and(|again| again.contains(id));
        let done = self.reclaim_of(packs, &is_live);
        self.put_again = put_again;
        done
    }

    /// As [`Self::reclaim`], with every blob alive, for packs of which at least half is save records
    /// that the last checkpoint has made redundant: at most one of them. Nothing that can be read
    /// goes.
    ///
    /// Knows only of saves since the store was opened, and looks at each pack once. Costs reading
    /// that pack, and nothing if there is none.
    ///
    /// # Errors
    ///
    /// As [`Self::reclaim`].
    pub fn reclaim_spent(&mut self) -> Result<Reclaimed> {
        let sizes = self.blobs.packs.sizes();
        let is_worth = |(pack, spent): (&u32, &u64)| {
            let size = sizes.get(pack).copied().unwrap_or(u64::MAX);
            (spent.saturating_mul(2) >= size && *pack < self.pack).then_some(*pack)
        };
        let Some(pack) = self.spent.iter().find_map(is_worth) else {
            return Ok(Reclaimed::default());
        };
        let done = self.reclaim_of(&[pack], &|_| true)?;
        if done.packs > 0 || self.first_kept()?.is_some_and(|keep| pack < keep) {
            // It goes, or is damaged, or holds more than was thought.
            self.spent.remove(&pack);
        }
        Ok(done)
    }

    /// The first pack that recovery needs; `None` if it needs all.
    fn first_kept(&self) -> Result<Option<u32>> {
        let Some(checkpoint) = self.checkpoint else { return Ok(None) };
        let blobs = &self.blobs;
        Ok(Some(first_pack_of(&blobs.packs, &blobs.keys, checkpoint)?.min(self.pack)))
    }

    fn reclaim_of(&mut self, packs: &[u32], live: &dyn Fn(&BlobId) -> bool) -> Result<Reclaimed> {
        self.check_poison()?;
        self.plan = None;
        let Some(keep) = self.first_kept()? else { return Ok(Reclaimed::default()) };
        let blobs = Arc::clone(&self.blobs);
        let mut plan = Plan {
            packs: Vec::new(),
            records: Vec::new(),
            doomed: HashSet::new(),
            saved: false,
            figures: Reclaimed::default(),
        };
        for number in packs.iter().copied().take_while(|&number| number < keep) {
            let Some(content) = blobs.content(number, &|id| Some(live(id)))? else { continue };
            if !content.found.is_mostly_dead() {
                continue;
            }
            let copied: HashSet<BlobId> = self.copy(&content.live)?;
            plan.figures.packs += 1;
            plan.figures.freed_bytes += content.found.bytes;
            plan.figures.copied_bytes += content.found.live_bytes;
            let dead = content.records.iter().map(|(id, _)| *id).filter(|id| !copied.contains(id));
            plan.doomed.extend(dead);
            plan.records.extend(content.records);
            plan.packs.push(number);
        }
        // A dead copy of something that lives elsewhere dooms nothing.
        let mut doomed = std::mem::take(&mut plan.doomed);
        let mut elsewhere = Vec::new();
        for id in &doomed {
            let here = blobs.find(id)?.is_some_and(|loc| plan.packs.contains(&loc.at.pack));
            if !here {
                elsewhere.push(*id);
            }
        }
        for id in elsewhere {
            doomed.remove(&id);
        }
        plan.doomed = doomed;
        let figures = plan.figures;
        self.plan = (!plan.packs.is_empty()).then_some(plan);
        Ok(figures)
    }

    /// Removes the packs that [`Self::reclaim`] has emptied, after a save. Does nothing if there
    /// was none, or if the batch with the copies was dropped.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Index`], [`crate::Error::Io`]: the packs that are left are reclaimed another time.
    pub fn reclaim_finish(&mut self) -> Result<Reclaimed> {
        self.check_poison()?;
        let Some(plan) = self.plan.take_if(|plan| plan.saved) else {
            return Ok(Reclaimed::default());
        };
        self.trail.flush()?;
        let mark = self.trail.mark();
        let _removing = self.blobs.removing.lock();
        self.blobs.index.commit(&mut [], &plan.records, &mark)?;
        for number in plan.packs {
            self.blobs.packs.remove(number)?;
        }
        let Reclaimed { packs, freed_bytes, copied_bytes } = plan.figures;
        log::info!("reclaim packs={packs} freed_bytes={freed_bytes} copied_bytes={copied_bytes}");
        Ok(plan.figures)
    }

    /// Whether a put must store this blob: it is not here, is damaged, or is about to go.
    pub(super) fn wants(&mut self, id: &BlobId) -> Result<bool> {
        let doomed = self.plan.as_mut().is_some_and(|plan| plan.doomed.remove(id));
        let rotten = self.blobs.rotten.has(id) && !self.is_in_batch(id);
        if doomed || rotten || !self.blobs.contains(id)? {
            return Ok(true);
        }
        if let Some(again) = &mut self.put_again {
            again.insert(*id);
        }
        Ok(false)
    }

    fn is_in_batch(&self, id: &BlobId) -> bool {
        self.blobs.tail.find(id).is_some_and(|loc| loc.at >= self.chain.batch_start)
    }

    pub(super) fn plan_saved(&mut self) {
        if let Some(plan) = &mut self.plan {
            plan.saved = true;
        }
    }

    fn copy(&mut self, live: &[Loc]) -> Result<HashSet<BlobId>> {
        let blobs = Arc::clone(&self.blobs);
        let mut copied = HashSet::new();
        for &loc in live {
            let bytes = blobs.packs.read(loc)?;
            let id = crate::journal::record::Header::decode(&bytes).map(|header| header.id);
            let Some(id) = id.filter(|_| is_intact(&bytes)) else {
                // It was intact a moment ago: the disk cannot be relied on.
                let source = std::io::Error::from(std::io::ErrorKind::InvalidData);
                return Err(source).at("read", &blobs.packs.path(loc.at.pack));
            };
            self.append(Some(id), &bytes)?;
            copied.insert(id);
        }
        Ok(copied)
    }
}

impl Blobs {
    /// How much of the pack is alive; `None` if part of it is damaged, and it had better stay, or if
    /// `live` has said `None`, and nobody wants to know any longer. Costs reading it.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`], [`crate::Error::Index`].
    pub fn survey(
        &self,
        pack: u32,
        live: &dyn Fn(&BlobId) -> Option<bool>,
    ) -> Result<Option<Surveyed>> {
        Ok(self.content(pack, live)?.map(|content| content.found))
    }

    /// Whether the record of a blob at `loc` must not go: the index leads to it, or to no intact one, as
    /// it may if it has rotted.
    fn is_needed(&self, id: &BlobId, loc: Loc) -> Result<bool> {
        let Some(other) = self.find(id)?.filter(|other| other.at != loc.at) else {
            return Ok(true);
        };
        let other = self.record_of(id, other).ok().flatten();
        Ok(!other.is_some_and(|(_, bytes)| is_intact(&bytes)))
    }

    /// What a pack holds; `None` as [`Self::survey`] has it.
    fn content(
        &self,
        number: u32,
        live: &dyn Fn(&BlobId) -> Option<bool>,
    ) -> Result<Option<Content>> {
        let packs = &self.packs;
        let mut scan = Scan::new(packs, number, HEADER_BYTES as u64)?;
        let bytes = scan.len();
        let found = Surveyed { bytes, live_bytes: 0 };
        let mut content = Content { records: Vec::new(), live: Vec::new(), found };
        loop {
            match scan.next()? {
                Found::Record { at, header, bytes, .. } => {
                    if matches!(header.kind, KIND_SAVE | KIND_SAVE_PART) {
                        continue;
                    }
                    let at = Pos { pack: number, offset: at };
                    let loc = Loc { at, len: crate::bytes::len32(bytes.len()) };
                    content.records.push((header.id, loc));
                    let Some(is_live) = live(&header.id) else { return Ok(None) };
                    if is_live && self.is_needed(&header.id, loc)? {
                        content.live.push(loc);
                        content.found.live_bytes += u64::from(loc.len);
                    }
                }
                Found::End { .. } => return Ok(Some(content)),
                Found::Bad { at, header } => {
                    let at = Pos { pack: number, offset: at };
                    log::warn!("pack reclaimed=no damage={:?}", damage(packs, at, header.as_ref()));
                    return Ok(None);
                }
            }
        }
    }
}
