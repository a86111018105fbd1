//! Fetching a version: what to ask a peer for, and what becomes of its answers.
//!
//! ```text
//!   1  versions     the head, and those before it back to what is known here; verified
//!   2  the tree     map nodes from the root down, but not below what our own version has;
//!                   then what its entries lie in: long nodes, the maps of files, chunks
//! ```
//!
//! Whoever drives it has the connection. What came is opened and checked here, and put by the writer
//! while more is received (`keeping`).
//!
//! # Invariants
//!
//! 1. What a peer sent is kept only after it was opened and found to be what its name says.
//! 2. A part of the tree is passed over only if it is in the same place of our own version, which is
//!    whole; or if it is a chunk that is here, or on its way to the writer. So a fetch that ends is
//!    complete, however often one before it was cut off; unless what it brought was given up
//!    meanwhile, which [`Fetch::is_whole`] tells. What is here and cannot be read is fetched anew, and
//!    no fault of the peer's.
//! 3. Nothing is believed of a version before it was verified (`verify.rs`).
//! 4. Of versions that were missed only the names are held in memory. What they say lies in the
//!    store, where nothing refers to it before the head is merged, and is read again from there.

mod answers;
mod keeping;
mod looking;
mod queue;
mod walk;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cairnfs_merge::{OpId, VersionVector};
use cairnfs_store::{BlobId, map::Root};

use self::{
    keeping::Keeping,
    queue::{Queued, VersionQueue},
    walk::{Need, Place},
};
use crate::{
    Error, Result, VersionId,
    charter::Charter,
    manifest::{Manifest, device_id},
    shared::{HeadState, Shared},
    tree::BaseTree,
    verify::{Verifier, verify_first},
    versions::{Untold, untold_past},
    writer::inbox::Inbox,
};

/// More versions than an honest peer ever has us lack at one time: what it hinted at, and a few for
/// each device.
const LACKING_VERSIONS_MAX: usize = 1 << 16;
/// A version that is being fetched. Drive it with [`Fetch::wanted`] and [`Fetch::supply`] until
/// [`Fetch::is_complete`], then hand it to [`Mount::merge_from`](crate::Mount::merge_from).
///
/// What was supplied is kept: a fetch that is dropped and begun again asks only for the rest. But
/// what no barrier covers yet goes when a save fails, on a full disk for one: then this fetch cannot
/// be merged, and the next asks for that again.
pub struct Fetch {
    shared: Arc<Shared>,
    inbox: Inbox,
    head: BlobId,
    /// Our own version when the fetch began.
    ours: BaseTree,
    known: VersionVector,
    /// [`Shared::drops`] when the fetch began.
    drops: u64,
    /// Whether it brings what is damaged or missing of our own version and those before it.
    mends: bool,
    /// Set by whoever wants it no more.
    closed: Arc<AtomicBool>,
    phase: Phase,
    /// To be looked at; the last one first.
    todo: Vec<Need>,
    /// Lacking, and not handed out yet.
    ready: VecDeque<BlobId>,
    /// Lacking, with what each is needed for.
    lacking: HashMap<BlobId, Vec<Need>>,
    /// The versions to be looked at.
    versions: VersionQueue,
    /// One that is lacking and in no list of the peer's.
    unlisted: Option<BlobId>,
    /// The head, once it is here.
    manifest: Option<Arc<Manifest>>,
    /// Operations that may mean something else to the head than here. Of what knows one of them all that
    /// comes before is looked at too.
    doubtful: Vec<OpId>,
    /// What our version said of members when those that came were verified.
    verified_by: Option<Charter>,
    /// What the writer has yet to put.
    keeping: Keeping,
    /// What is here and could not be read: what comes takes its place. Of one that mends, also what
    /// our own version lacks.
    rotten: HashSet<BlobId>,
    /// Whether it looks at versions before the head: of one that mends, at what may never have been
    /// here, or was given up for space.
    is_beyond_head: bool,
    /// Nodes of files' maps that were looked at; of one that mends, everything.
    walked: HashSet<BlobId>,
    progress: FetchProgress,
}

/// How far a fetch has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FetchProgress {
    /// Blobs that have come.
    pub blobs: u64,
    /// Their bytes, as they were sent.
    pub bytes: u64,
    /// Blobs that are known to be lacking still; more may turn up.
    pub lacking: u64,
    /// Of those, parts of older versions that were not damaged here, but were not here.
    pub absent: u64,
    /// Blobs that are damaged here and that the peer does not have either, where the fetch goes on
    /// without.
    pub unavailable: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Versions,
    Tree,
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetch")
            .field("head", &self.head)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl Fetch {
    pub(crate) fn begin(shared: Arc<Shared>, inbox: Inbox, head: VersionId) -> Self {
        let (ours, known) = {
            let core = shared.core.read();
            (core.tree.base().clone(), core.head.vv.clone())
        };
        Self::with(shared, inbox, head, ours, known)
    }

    /// A fetch of our own version and all before it that are here: of them, what cannot be read.
    /// It reads everything. What the peer does not have either is passed over.
    pub(crate) fn begin_mending(shared: Arc<Shared>, inbox: Inbox) -> Result<Self> {
        let head = shared.core.read().head.manifest.id;
        // As if nothing were known here.
        let nothing = BaseTree::open(Arc::clone(&shared.vault), Root::EMPTY)?;
        let mut fetch = Self::with(shared, inbox, head.0, nothing, VersionVector::new());
        fetch.mends = true;
        fetch.phase = Phase::Tree;
        Ok(fetch)
    }

    fn with(
        shared: Arc<Shared>,
        inbox: Inbox,
        head: VersionId,
        ours: BaseTree,
        known: VersionVector,
    ) -> Self {
        shared.fetch_begins();
        let keeping = Keeping::new(inbox.clone());
        let drops = shared.drops();
        Self {
            shared,
            inbox,
            head: BlobId(head),
            ours,
            known,
            drops,
            mends: false,
            closed: Arc::default(),
            phase: Phase::Versions,
            todo: Vec::new(),
            ready: VecDeque::new(),
            lacking: HashMap::new(),
            versions: VersionQueue::of(BlobId(head)),
            unlisted: None,
            manifest: None,
            doubtful: Vec::new(),
            verified_by: None,
            keeping,
            rotten: HashSet::new(),
            is_beyond_head: false,
            walked: HashSet::new(),
            progress: FetchProgress::default(),
        }
    }

    /// Whether nothing of what it brought was given up since.
    pub(crate) fn is_whole(&self) -> bool {
        self.drops == self.shared.drops()
    }

    /// The version it is about.
    #[must_use]
    pub fn head(&self) -> VersionId {
        self.head.0
    }

    /// Has [`Fetch::wanted`], which may read for long, fail with [`Error::Stopped`] once `closed` is
    /// true.
    pub fn give_up_when(&mut self, closed: Arc<AtomicBool>) {
        self.closed = closed;
    }

    /// A version to ask the peer about: for a list of it and those before it
    /// ([`Mount::ancestry`](crate::Mount::ancestry)), as it and they would be fetched one after the
    /// other without. Nothing while [`Fetch::wanted`] hands out only versions that are in such a list.
    pub fn unlisted(&mut self) -> Option<VersionId> {
        self.unlisted.take().map(|id| id.0)
    }

    /// Versions that the peer says come before one that was [unlisted](Fetch::unlisted): asked for all
    /// at once. Only a hint; what is not an ancestor of the head is not merged.
    pub fn expect_ancestors(&mut self, ids: &[VersionId]) {
        if self.phase == Phase::Versions && !self.is_first() {
            for id in ids.iter().take(LACKING_VERSIONS_MAX / 2) {
                self.versions.hint(BlobId(*id));
            }
            self.unlisted.take_if(|id| ids.contains(&id.0));
        }
    }

    /// Blobs to ask the peer for, at most `max`; each is handed out once. Empty while everything
    /// that is known to be lacking has been asked for, and when the fetch is complete.
    ///
    /// # Errors
    ///
    /// Damage, [`Error::Io`], [`Error::Rejected`], [`Error::Stopped`].
    pub fn wanted(&mut self, max: usize) -> Result<Vec<[u8; 32]>> {
        while let Some(needs) = self.keeping.poll()? {
            self.todo.extend(needs);
        }
        while self.ready.len() < max {
            self.check_wanted()?;
            let next = match self.todo.pop() {
                Some(need) => Some(need),
                None => self.next_version()?.map(Need::Version),
            };
            let is_asked = self.lacking.len() > self.ready.len();
            match next {
                Some(need) => self.look_at(need)?,
                // More comes, which is waited for rather than the writer.
                None if is_asked || !self.ready.is_empty() => break,
                None if !self.keeping.is_empty() => self.todo.extend(self.keeping.wait()?),
                None if self.phase == Phase::Tree => break,
                None => self.end_versions()?,
            }
        }
        let count = max.min(self.ready.len());
        self.progress.lacking = self.lacking.len() as u64;
        Ok(self.ready.drain(..count).map(|id| id.0).collect())
    }

    /// The next version to be looked at. One that mends has all of the head before: what is not here of
    /// that is damage, and else it need not be.
    fn next_version(&mut self) -> Result<Option<BlobId>> {
        if self.mends && !self.is_beyond_head && !self.lacking.is_empty() {
            return Ok(None);
        }
        let Some(Queued { id, is_listed }) = self.versions.pop() else { return Ok(None) };
        self.is_beyond_head = id != self.head;
        // Who mends, or has just joined, looks at no version that is not here but the head.
        let needs_list = !is_listed && !self.mends && !self.is_first();
        if needs_list && self.unlisted.is_none() {
            // Of the head also if it came before a cut: those before it may not have.
            let is_asked = id == self.head || !self.shared.vault.blobs().contains(&id)?;
            self.unlisted = is_asked.then_some(id);
        }
        Ok(Some(id))
    }

    fn check_wanted(&self) -> Result<()> {
        // Nothing else is ordered by it.
        if self.closed.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Whether everything is here, but for what is [unavailable](FetchProgress::unavailable).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let looked_at = self.todo.is_empty() && self.versions.is_empty();
        let stored = self.lacking.is_empty() && self.keeping.is_done();
        self.phase == Phase::Tree && looked_at && stored
    }

    /// How far it has got.
    #[must_use]
    pub fn progress(&self) -> FetchProgress {
        self.progress
    }

    /// Whether nothing is known here yet: the device has just joined.
    pub(crate) fn is_first(&self) -> bool {
        self.known.is_empty()
    }

    /// The head, once it is here.
    pub(crate) fn manifest(&self) -> Option<Arc<Manifest>> {
        self.manifest.clone()
    }

    /// All versions that were known to be needed were looked at: then comes the tree, unless more of
    /// them turn out to be.
    fn end_versions(&mut self) -> Result<()> {
        if self.queue_past()? { Ok(()) } else { self.begin_tree() }
    }

    /// Queues what more has to come of what is before the head, so that it can be told whether both sides
    /// mean the same by what both know: a version that seems to be known may be one that this device
    /// has made and, put back to an older state, has forgotten. Says whether there is any.
    fn queue_past(&mut self) -> Result<bool> {
        if self.is_first() || self.manifest.is_none() {
            return Ok(false);
        }
        let ours = self.shared.core.read().head.clone();
        let me = device_id(&self.shared.key, ours.incarnation);
        let known = (ours.manifest.id, &ours.vv);
        let Untold { ops, lacking } = untold_past(&me, known, self.head, &self.shared.vault)?;
        self.doubtful = ops;
        lacking.into_iter().try_for_each(|id| self.versions.need(id))?;
        Ok(!self.versions.is_empty())
    }

    fn begin_tree(&mut self) -> Result<()> {
        let head = self.manifest().ok_or_else(|| rejected("there is no such version"))?;
        if self.is_first() {
            verify_first(&head, &self.shared.key)?;
        } else {
            self.verify_versions()?;
        }
        self.phase = Phase::Tree;
        let root = head.root.0.map(|blob| Place { blob, under: None });
        self.todo.extend(root.map(Need::TreeNode));
        Ok(())
    }

    /// Invariant 3. What was only hinted at and does not come before the head is left alone.
    fn verify_versions(&mut self) -> Result<()> {
        // Each was seen once; the walk below has a list of its own.
        self.versions = VersionQueue::default();
        let ours = self.shared.core.read().head.clone();
        let verifier = Verifier::new(&ours, &self.shared.key, &self.shared.vault);
        let verified = verifier.verify(self.head, || self.check_wanted());
        if !self.is_whole() {
            // What was given up here meanwhile is no fault of the peer's.
            return Err(Error::Busy);
        }
        verified?;
        self.verified_by = Some(ours.charter);
        Ok(())
    }

    /// The newest word on who may do what counts, also if it came while the tree was fetched.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`], damage in the store.
    pub(crate) fn verify_again(&self, ours: &HeadState) -> Result<()> {
        if self.verified_by.as_ref().is_none_or(|charter| *charter == ours.charter) {
            return Ok(());
        }
        Verifier::new(ours, &self.shared.key, &self.shared.vault).verify(self.head, || Ok(()))
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.shared.fetch_ends(&self.inbox);
    }
}

pub(crate) fn rejected(why: &str) -> Error {
    Error::Rejected { why: why.to_owned() }
}

/// What makes no sense came from a peer.
pub(crate) fn distrust(err: Error) -> Error {
    match err {
        Error::Damaged { what } => Error::Rejected { why: what },
        err => err,
    }
}
