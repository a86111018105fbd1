//! Walking an older version: what it holds, and what stands in its files.

use std::collections::{BTreeMap, HashMap, VecDeque};

use cairnfs_merge::{Content, ContentId, Entry, Name, NodeId, Tree, View, spots};
use cairnfs_store::map::Root;
use serde::{Deserialize, Serialize};

use super::{Past, presence::content_is_here};
use crate::{
    Error, Kind, Result, Time,
    file::{Base, Data},
    tree::{
        BaseTree,
        attrs::{Meta, is_xattr},
        limits::TARGET_BYTES_MAX,
    },
};

/// Names read at a time from a directory without contested ones.
const PAGE: usize = 256;
/// Directories within each other are followed so far, so that no damage can loop.
const DEPTH_MAX: usize = 1 << 12;

/// The first name of each version of a file.
type FirstNames = HashMap<(NodeId, Option<ContentId>), Vec<u8>>;

/// Something that a version holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PastEntry {
    /// Its path from the root, without a leading slash; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Time,
    /// Length in bytes of a file.
    pub len: u64,
    /// Whether all of a file's content is here. If not, a walk passes it by.
    pub is_here: bool,
    /// Where a symbolic link leads.
    pub target: Vec<u8>,
    /// Number of a character or block device.
    pub rdev: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How many names it has.
    pub links: usize,
    /// Another name of this file, which came before in the same walk.
    pub same_as: Option<Vec<u8>>,
    /// Whether the version that it was compared with shows the same there; a folder never.
    pub is_unchanged: bool,
}

/// What a walk hands over besides names and attributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'p> {
    /// What stands in files, but for those that are unchanged.
    pub contents: bool,
    /// What is compared with this version.
    pub than: Option<&'p Past>,
}

/// What a walk comes upon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PastItem<'a> {
    /// The next name.
    Entry(&'a PastEntry),
    /// Content of the file named last. What no such piece covers is a hole.
    Bytes {
        /// Where in the file it belongs.
        offset: u64,
        /// What stands there.
        bytes: &'a [u8],
    },
}

impl Past {
    /// The directories above `path`, from the root down, but not the root.
    ///
    /// # Errors
    ///
    /// As [`Past::walk`].
    pub fn above(&self, path: &[u8]) -> Result<Vec<PastEntry>> {
        let mut way = self.way(path)?;
        way.pop();
        way.iter().map(|dir| self.describe(dir, &mut HashMap::new())).collect()
    }

    /// Hands what is at `path`, and everything below it, to `take` until that says enough by
    /// returning `false`: a directory before what is in it, a file before its content.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the version has no such path; damage, also if names of it are not here,
    /// which [`Past::is_whole`] tells.
    pub fn walk(
        &self,
        path: &[u8],
        wanted: Wanted<'_>,
        take: &mut dyn FnMut(PastItem<'_>) -> bool,
    ) -> Result<()> {
        let view = View::new(&self.tree);
        let mut names = HashMap::new();
        let mut dirs: Vec<Listing> = Vec::new();
        let mut next = Some(self.find(path)?);
        while let Some(here) = next {
            let mut entry = self.describe(&here, &mut names)?;
            if let Some(other) = wanted.than
                && !here.kind.is_dir()
            {
                // What is there and cannot be read is to be replaced.
                entry.is_unchanged = other.shows(&here, &entry).unwrap_or(false);
            }
            if !take(PastItem::Entry(&entry)) {
                return Ok(());
            }
            let is_file = entry.kind == Kind::File && entry.same_as.is_none();
            let is_read = wanted.contents && is_file && entry.is_here && !entry.is_unchanged;
            if is_read && !self.read(here.content.as_ref(), take)? {
                return Ok(());
            }
            if here.kind.is_dir() {
                if dirs.len() >= DEPTH_MAX {
                    return Err(Error::Damaged { what: "a directory within itself".into() });
                }
                dirs.push(Listing::of(here));
            }
            next = loop {
                let Some(dir) = dirs.last_mut() else { break None };
                match dir.next(&view)? {
                    Some(here) => break Some(here),
                    None => drop(dirs.pop()),
                }
            };
        }
        Ok(())
    }

    /// Whether this version shows the same as another one does `there`, which is `entry` of that.
    fn shows(&self, there: &Place, entry: &PastEntry) -> Result<bool> {
        let here = self.find(&entry.path)?;
        let content =
            |place: &Place| place.content.as_ref().map(|content| (content.id, content.len));
        if content(&here) != content(there) {
            return Ok(false);
        }
        if let Some(first) = &entry.same_as
            && self.find(first)?.ids != here.ids
        {
            return Ok(false);
        }
        let mut described = self.describe(&here, &mut HashMap::new())?;
        described.same_as.clone_from(&entry.same_as);
        Ok(described == *entry)
    }

    fn find(&self, path: &[u8]) -> Result<Place> {
        Ok(self.way(path)?.pop().unwrap_or_else(Place::root))
    }

    /// What is on the way from the root, which is not, to `path`, which is.
    fn way(&self, path: &[u8]) -> Result<Vec<Place>> {
        let view = View::new(&self.tree);
        let (mut way, mut here) = (Vec::new(), &Place::root());
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let name = Name::new(name).map_err(|_bad| Error::NotFound)?;
            if !here.kind.is_dir() {
                return Err(Error::NotFound);
            }
            let entry = view.lookup(&here.ids, &name)?.ok_or(Error::NotFound)?;
            way.push(Place::within(&here.path, entry));
            here = way.last().expect("because it was just put there");
        }
        Ok(way)
    }

    /// `names` has the first name of each version of a file that has several.
    fn describe(&self, here: &Place, names: &mut FirstNames) -> Result<PastEntry> {
        let id = here.ids.first().copied().unwrap_or(NodeId::Root);
        let lost = || Error::Damaged { what: "a name without a node".into() };
        let node = self.tree.node(&id)?.ok_or_else(lost)?;
        let (mut same_as, mut links) = (None, 1);
        if !here.kind.is_dir() {
            links = spots(&node, self.tree.displaced(&id)?.as_ref()).len();
        }
        if links > 1 {
            let version = (id, here.content.as_ref().map(|content| content.id));
            same_as = names.get(&version).cloned();
            names.entry(version).or_insert_with(|| here.path.clone());
        }
        let (mut target, mut rdev) = (Vec::new(), 0);
        match here.content.as_ref().map(|content| &content.body) {
            Some(Data::Device(number)) => rdev = *number,
            Some(_) if here.kind == Kind::Symlink => {
                target = self.link_target(here.content.as_ref())?;
            }
            _ => (),
        }
        let is_here = match &here.content {
            // Of the newest version nothing was given up: what is missing there is damage.
            Some(content) if here.kind == Kind::File && !self.is_newest() => {
                content_is_here(&self.tree.vault, Root::EMPTY, &content.body)?
            }
            _ => true,
        };
        let version = here.content.as_ref().map(|content| &content.id);
        let xattrs = node.attrs_of(version).to_map();
        let xattrs = xattrs.iter().filter(|(key, _)| is_xattr(key));
        let Meta { mode, uid, gid, times } = Meta::of(&node, version);
        Ok(PastEntry {
            path: here.path.clone(),
            kind: here.kind,
            mode,
            uid: self.owners.user(uid),
            gid: self.owners.group(gid),
            mtime: times.mtime,
            len: here.content.as_ref().map_or(0, |content| content.len),
            is_here,
            target,
            rdev,
            xattrs: xattrs
                .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect(),
            links,
            same_as,
            is_unchanged: false,
        })
    }

    /// Where a symbolic link of this content leads.
    pub(super) fn link_target(&self, content: Option<&Content<Data>>) -> Result<Vec<u8>> {
        let mut target = Vec::new();
        self.read(content, &mut |item| match item {
            PastItem::Bytes { bytes, .. } => {
                target.extend_from_slice(bytes);
                target.len() as u64 <= TARGET_BYTES_MAX
            }
            PastItem::Entry(_) => true,
        })?;
        Ok(target)
    }

    /// Hands over a content, and says whether there was not enough of it yet.
    fn read(
        &self,
        content: Option<&Content<Data>>,
        take: &mut dyn FnMut(PastItem<'_>) -> bool,
    ) -> Result<bool> {
        let Some(content) = content else { return Ok(true) };
        let base = Base::new(content.body.clone(), content.len);
        if let Some(bytes) = base.inline() {
            return Ok(take(PastItem::Bytes { offset: 0, bytes }));
        }
        let mut at = 0;
        while let Some(extent) = base.chunk_after(&self.tree.vault, at)? {
            let bytes = self.tree.vault.blobs().get(&extent.blob)?;
            if !take(PastItem::Bytes { offset: extent.start, bytes: &bytes }) {
                return Ok(false);
            }
            at = extent.end();
        }
        Ok(true)
    }
}

/// A path of a version, looked up.
struct Place {
    path: Vec<u8>,
    kind: Kind,
    /// As [`Entry::ids`].
    ids: Vec<NodeId>,
    content: Option<Content<Data>>,
}

impl Place {
    fn root() -> Self {
        Self { path: Vec::new(), kind: Kind::Dir, ids: vec![NodeId::Root], content: None }
    }

    fn within(dir: &[u8], entry: Entry<Data>) -> Self {
        let mut path = dir.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(entry.name.as_bytes());
        Self { path, kind: entry.kind, ids: entry.ids().to_vec(), content: entry.content }
    }
}

/// A directory that is being listed.
struct Listing {
    path: Vec<u8>,
    ids: Vec<NodeId>,
    names: VecDeque<Name>,
    /// What is shown of contested names.
    contested: BTreeMap<Name, Entry<Data>>,
    last: Option<Name>,
    is_read: bool,
}

impl Listing {
    fn of(dir: Place) -> Self {
        let Place { path, ids, .. } = dir;
        let (names, contested) = (VecDeque::new(), BTreeMap::new());
        Self { path, ids, names, contested, last: None, is_read: false }
    }

    fn next(&mut self, view: &View<'_, Data, BaseTree>) -> Result<Option<Place>> {
        loop {
            let Some(name) = self.names.pop_front() else {
                if self.is_read {
                    return Ok(None);
                }
                if self.last.is_none() {
                    self.contested = view.contested(&self.ids)?;
                }
                // Each page would cost all contested names, and each of their copies, looked up.
                let limit = if self.contested.is_empty() { PAGE } else { usize::MAX };
                let page = view.list(&self.ids, self.last.as_ref(), limit)?;
                self.is_read = page.len() < limit;
                self.names.extend(page.into_iter().map(|listed| listed.name));
                self.last = self.names.back().cloned().or(self.last.take());
                continue;
            };
            let entry = match self.contested.remove(&name) {
                Some(entry) => Some(entry),
                None => view.lookup(&self.ids, &name)?,
            };
            if let Some(entry) = entry {
                return Ok(Some(Place::within(&self.path, entry)));
            }
        }
    }
}
