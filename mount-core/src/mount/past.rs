//! Older versions: finding one, and reading what it holds.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::SystemTime,
};

use cairnfs_merge::{Content, Entry, Name, NodeId, Tree, View, spots};
use cairnfs_store::BlobId;
use serde::{Deserialize, Serialize};

use super::Mount;
use crate::{
    Error, Kind, Result, Time,
    file::{Base, Data},
    peers::hex,
    pins::Pinned,
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

/// Which version is meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Which {
    /// The one whose id begins with these hexadecimal digits, in lower case.
    Id(String),
    /// The newest that was published by then.
    By(SystemTime),
}

/// A version that can be read: nothing of it is given up for space meanwhile, but for what is being
/// given up at the very moment when it is found. What only other versions hold may go.
#[derive(Debug)]
pub struct Past {
    id: BlobId,
    time: SystemTime,
    pub(super) tree: BaseTree,
    pin: Pin,
}

/// Keeps blobs from being given up, as a fetch does for what it has found here.
#[derive(Debug)]
struct Hold(Mount);

impl Hold {
    fn new(mount: &Mount) -> Self {
        mount.shared().fetch_begins();
        Self(mount.clone())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.shared().fetch_ends(&self.0.inner.inbox);
    }
}

/// Keeps what one version holds from being given up.
#[derive(Debug)]
struct Pin {
    mount: Mount,
    number: u64,
}

impl Pin {
    fn new(mount: &Mount, id: BlobId, tree: &BaseTree) -> Self {
        let number = mount.shared().pins.pin(Pinned { id, tree: tree.clone() });
        Self { mount: mount.clone(), number }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.mount.shared().pins.let_go(self.number);
    }
}

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
    /// Where a symbolic link leads.
    pub target: Vec<u8>,
    /// Number of a character or block device.
    pub rdev: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Another name of this file, which came before in the same walk.
    pub same_as: Option<Vec<u8>>,
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

impl Mount {
    /// The version that `which` means, if it is kept.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the ids of several begin with these digits, damage, [`Error::Io`].
    ///
    /// Costs a read of each version that is kept.
    pub fn past(&self, which: &Which) -> Result<Option<Past>> {
        // Until it is pinned.
        let _hold = Hold::new(self);
        let mut found = None;
        for version in self.history() {
            let (id, manifest) = version?;
            let time = SystemTime::from(manifest.time);
            match which {
                Which::Id(digits) if !hex(&id.0).starts_with(digits) => continue,
                Which::Id(_) if found.is_some() => {
                    return Err(Error::Invalid("several versions begin with these digits"));
                }
                Which::By(latest) if time > *latest => continue,
                // Devices that were apart did not publish in the order of the history.
                Which::By(_) if found.as_ref().is_some_and(|(_, newest, _)| *newest >= time) => {
                    continue;
                }
                _ => found = Some((id, time, manifest.root)),
            }
        }
        let open = |(id, time, root)| {
            let tree = BaseTree::open(self.shared().vault.clone(), root)?;
            let pin = Pin::new(self, id, &tree);
            Ok(Past { id, time, tree, pin })
        };
        found.map(open).transpose()
    }

    /// The versions before the newest that can be read here, each by the blob at the root of its
    /// tree: whoever has that blob has had the version. Those that hold nothing are left out.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`].
    pub fn older_trees(&self) -> Result<Vec<[u8; 32]>> {
        let blobs = self.shared().vault.blobs();
        let mut trees = Vec::new();
        for version in self.history().skip(1) {
            let (_, manifest) = version?;
            if let Some(root) = manifest.root.0
                && blobs.contains(&root.id)?
            {
                trees.push(root.id.0);
            }
        }
        Ok(trees)
    }
}

impl Past {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> [u8; 32] {
        self.id.0
    }

    /// When it was published.
    #[must_use]
    pub const fn time(&self) -> SystemTime {
        self.time
    }

    pub(super) fn mount(&self) -> &Mount {
        &self.pin.mount
    }

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
    /// returning `false`: a directory before what is in it, a file before its content. Without
    /// `contents` only names and attributes.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the version has no such path; damage, also if a part of the version was
    /// given up for space before.
    pub fn walk(
        &self,
        path: &[u8],
        contents: bool,
        take: &mut dyn FnMut(PastItem<'_>) -> bool,
    ) -> Result<()> {
        let view = View::new(&self.tree);
        let mut names = HashMap::new();
        let mut dirs: Vec<Listing> = Vec::new();
        let mut next = Some(self.find(path)?);
        while let Some(here) = next {
            let entry = self.describe(&here, &mut names)?;
            if !take(PastItem::Entry(&entry)) {
                return Ok(());
            }
            let is_read = contents && entry.kind == Kind::File && entry.same_as.is_none();
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

    /// `names` has the first name of each file that has several.
    fn describe(&self, here: &Place, names: &mut HashMap<NodeId, Vec<u8>>) -> Result<PastEntry> {
        let id = here.ids.first().copied().unwrap_or(NodeId::Root);
        let lost = || Error::Damaged { what: "a name without a node".into() };
        let node = self.tree.node(&id)?.ok_or_else(lost)?;
        let mut same_as = None;
        if !here.kind.is_dir() && spots(&node, self.tree.displaced(&id)?.as_ref()).len() > 1 {
            same_as = names.get(&id).cloned();
            names.entry(id).or_insert_with(|| here.path.clone());
        }
        let (mut target, mut rdev) = (Vec::new(), 0);
        match here.content.as_ref().map(|content| &content.body) {
            Some(Data::Device(number)) => rdev = *number,
            Some(_) if here.kind == Kind::Symlink => {
                target = self.link_target(here.content.as_ref())?;
            }
            _ => (),
        }
        let xattrs = node.effective_attrs();
        let xattrs = xattrs.iter().filter(|(key, _)| is_xattr(key));
        let Meta { mode, uid, gid, times } = Meta::of(&node);
        Ok(PastEntry {
            path: here.path.clone(),
            kind: here.kind,
            mode,
            uid,
            gid,
            mtime: times.mtime,
            len: here.content.as_ref().map_or(0, |content| content.len),
            target,
            rdev,
            xattrs: xattrs
                .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect(),
            same_as,
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
        Self { path, kind: entry.kind, ids: entry.ids, content: entry.content }
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
