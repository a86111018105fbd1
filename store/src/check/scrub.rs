//! A check of a store that is in use.

use std::collections::BTreeMap;

use super::reading::Reading;
use super::{CheckReport, Damage, Progress};
use crate::journal::Loc;
use crate::journal::links::Links;
use crate::{Blobs, Result};

impl Blobs {
    /// As [`super::check`], of a store that is in use: reads what is saved, while others go on. A damaged
    /// record is none of its findings if the blob has been stored again. Afterwards [`Blobs::rot`]
    /// tells of nothing that can be read by then.
    ///
    /// # Errors
    ///
    /// As [`super::check`]; [`Error::Stopped`](crate::Error::Stopped) once `progress` says not to go on.
    pub fn scrub(&self, progress: &mut dyn FnMut(Progress) -> bool) -> Result<CheckReport> {
        let end = self.tail.saved();
        // By pack.
        let mut missing: BTreeMap<u32, u64> = BTreeMap::new();
        let reading = Reading {
            packs: &self.packs,
            keys: Some(&self.keys),
            end: Some(end),
            seen: end,
            begun: None,
            links: Links::new(),
            report: CheckReport::default(),
        };
        let mut report = reading.run(
            &mut |id, loc| {
                let found = self.contains(id)?;
                if !found {
                    *missing.entry(loc.at.pack).or_default() += 1;
                }
                Ok(found)
            },
            progress,
        )?;
        let mut damage = Vec::new();
        for one in report.damage {
            if self.leads_to(&one)? {
                damage.push(one);
            }
        }
        report.damage = damage;
        self.recheck_rotten();
        // Of a pack that goes, the index forgets the records first.
        let _removing = self.removing.lock();
        let there = self.packs.list()?;
        missing.retain(|pack, _| there.binary_search(pack).is_ok());
        report.missing_in_index = missing.values().sum();
        Ok(report)
    }

    /// Whether what is damaged is what a reader would get: not if the blob was stored again.
    fn leads_to(&self, damage: &Damage) -> Result<bool> {
        let Some(id) = &damage.id else { return Ok(true) };
        let is_it = |loc: Loc| {
            u64::from(loc.at.offset) == damage.offset && self.packs.path(loc.at.pack) == damage.pack
        };
        Ok(self.find(id)?.is_none_or(is_it))
    }
}
