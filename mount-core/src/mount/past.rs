//! Older versions: finding one, and keeping it as long as somebody reads it.

use std::time::SystemTime;

use cairnfs_store::BlobId;
use serde::{Deserialize, Serialize};

use super::Mount;
use crate::{Error, Owner, Result, Time, owners::Owners, peers::hex, pins::Pinned, tree::BaseTree};

/// Which version is meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Which {
    /// The one whose id begins with these hexadecimal digits, in lower case.
    Id(String),
    /// The newest that was published by then.
    By(Time),
}

/// A version that can be read: nothing of it is given up for space meanwhile, but for what is being
/// given up at the very moment when it is found. What only other versions hold may go.
#[derive(Debug)]
pub struct Past {
    id: BlobId,
    time: SystemTime,
    pub(super) tree: BaseTree,
    /// As the live file system shows them, unless it is told otherwise.
    pub(super) owners: Owners,
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
                Which::By(latest) if manifest.time > *latest => continue,
                // Devices that were apart did not publish in the order of the history.
                Which::By(_) if found.as_ref().is_some_and(|(_, newest, _)| *newest >= time) => {
                    continue;
                }
                _ => found = Some((id, time, manifest.root)),
            }
        }
        let open = |(id, time, root)| {
            self.pinned(id, time, BaseTree::open(self.shared().vault.clone(), root)?)
        };
        found.map(open).transpose()
    }

    fn pinned(&self, id: BlobId, time: SystemTime, tree: BaseTree) -> Result<Past> {
        let owners = self.shared().owners(&self.shared().core.read().tree)?;
        let pin = Pin::new(self, id, &tree);
        Ok(Past { id, time, tree, owners, pin })
    }

    /// When the oldest version that is kept was published.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`].
    pub fn oldest_time(&self) -> Result<Option<SystemTime>> {
        let mut oldest = None;
        for version in self.history() {
            let time = SystemTime::from(version?.1.time);
            oldest = Some(oldest.map_or(time, |oldest: SystemTime| oldest.min(time)));
        }
        Ok(oldest)
    }

    /// The newest version.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`].
    pub fn newest(&self) -> Result<Past> {
        // Until it is pinned.
        let _hold = Hold::new(self);
        let (id, tree) = {
            let core = self.shared().core.read();
            (core.head.manifest.id, core.tree.base().clone())
        };
        let lost = || Error::Damaged { what: "the newest version".into() };
        let manifest = self.shared().vault.manifest(&id)?.ok_or_else(lost)?;
        self.pinned(id, manifest.time.into(), tree)
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
    /// The same version, with the owner of what is there now shown as `owner`, where that says anything.
    ///
    /// # Errors
    ///
    /// Damage.
    pub fn shown_as(mut self, owner: &Owner) -> Result<Self> {
        if *owner != Owner::default() {
            let core = self.mount().shared().core.read();
            let owners = Owners::of(&core.tree, owner)?;
            drop(core);
            self.owners = owners.unwrap_or(self.owners);
        }
        Ok(self)
    }

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

    pub(super) fn is_newest(&self) -> bool {
        self.mount().shared().core.read().head.manifest.id == self.id
    }

    pub(super) fn mount(&self) -> &Mount {
        &self.pin.mount
    }
}
