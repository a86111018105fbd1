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
//! 2. A part of the tree is passed over only if it is a part of our own version, which is whole; or
//!    if it is a chunk that is here, or on its way to the writer. So a fetch that ends is complete,
//!    however often one before it was cut off; unless what it brought was given up meanwhile, which
//!    [`Fetch::is_whole`] tells. What is here and cannot be read is fetched anew, and no fault of
//!    the peer's.
//! 3. Nothing is believed of a version before it was verified (`verify.rs`).
//! 4. Of versions that were missed only the names are held in memory. What they say lies in the
//!    store, where nothing refers to it before the head is merged, and is read again from there.

mod keeping;
mod queue;
mod walk;

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::Entry},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cairnfs_merge::VersionVector;
use cairnfs_store::{BlobId, CheckedBlob, Error as StoreError, SealedBlob, map::Root};
use crossbeam_channel::{Sender, bounded};

use self::{
    keeping::Keeping,
    queue::VersionQueue,
    walk::{Need, Place},
};
use crate::{
    Error, Result, VersionId,
    charter::Charter,
    manifest::Manifest,
    shared::{HeadState, Shared},
    tree::BaseTree,
    verify::{Verifier, verify_first},
    writer::Command,
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
    inbox: Sender<Command>,
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
    /// The head, once it is here.
    manifest: Option<Arc<Manifest>>,
    /// What our version said of members when those that came were verified.
    verified_by: Option<Charter>,
    /// What the writer has yet to put.
    keeping: Keeping,
    /// What is here and could not be read: what comes takes its place.
    rotten: HashSet<BlobId>,
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
    /// Blobs that the peer does not have, where the fetch goes on without.
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
    pub(crate) fn begin(shared: Arc<Shared>, inbox: Sender<Command>, head: VersionId) -> Self {
        let (ours, known) = {
            let core = shared.core.read();
            (core.tree.base().clone(), core.head.vv.clone())
        };
        Self::with(shared, inbox, head, ours, known)
    }

    /// A fetch of our own version and all before it that are here: of them, what cannot be read.
    /// It reads everything. What the peer does not have either is passed over.
    pub(crate) fn begin_mending(shared: Arc<Shared>, inbox: Sender<Command>) -> Result<Self> {
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
        inbox: Sender<Command>,
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
            manifest: None,
            verified_by: None,
            keeping,
            rotten: HashSet::new(),
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

    /// Versions that come before the head, as the peer says: asked for all at once, rather than
    /// one after the other. Only a hint; what is not an ancestor is not merged.
    pub fn expect_ancestors(&mut self, ids: &[VersionId]) {
        if self.phase == Phase::Versions && !self.is_first() {
            for id in ids.iter().take(LACKING_VERSIONS_MAX / 2) {
                self.versions.hint(BlobId(*id));
            }
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
            let next = self.todo.pop().or_else(|| self.versions.pop().map(Need::Version));
            let is_asked = self.lacking.len() > self.ready.len();
            match next {
                Some(need) => self.look_at(need)?,
                // More comes, which is waited for rather than the writer.
                None if is_asked || !self.ready.is_empty() => break,
                None if !self.keeping.is_empty() => self.todo.extend(self.keeping.wait()?),
                None if self.phase == Phase::Versions => self.begin_tree()?,
                None => break,
            }
        }
        let count = max.min(self.ready.len());
        self.progress.lacking = self.lacking.len() as u64;
        Ok(self.ready.drain(..count).map(|id| id.0).collect())
    }

    fn check_wanted(&self) -> Result<()> {
        // Nothing else is ordered by it.
        if self.closed.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Takes blobs that the peer sent, in any order. They are put while more is received: that they
    /// cannot be stored may be told only by a later call of this or of [`Fetch::wanted`].
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] for what was not asked for, is not what it claims, or makes no sense;
    /// [`Error::MissingSecret`] if it is sealed under a secret that is not here: ask for it, and
    /// begin again; [`Error::NoSpace`], [`Error::Io`], [`Error::Stopped`].
    pub fn supply(&mut self, blobs: Vec<Vec<u8>>) -> Result<()> {
        let (count, bytes) = (blobs.len(), blobs.iter().map(Vec::len).sum::<usize>());
        let checked: Vec<CheckedBlob> =
            blobs.into_iter().map(|bytes| self.check(bytes)).collect::<Result<_>>()?;
        let (heals, keeps): (Vec<_>, Vec<_>) = checked
            .into_iter()
            .partition(|blob| self.mends || self.rotten.contains(&blob.blob().id));
        let needs = self.needs_of(&keeps);
        self.keeping.hand(keeps, needs)?;
        while self.keeping.is_full() {
            self.todo.extend(self.keeping.wait()?);
        }
        self.heal(heals)?;
        self.progress.blobs += count as u64;
        self.progress.bytes += bytes as u64;
        self.progress.lacking = self.lacking.len() as u64;
        Ok(())
    }

    /// Invariant 1, and that it was asked for. Here rather than by the writer, which has enough to do.
    fn check(&self, bytes: Vec<u8>) -> Result<CheckedBlob> {
        let blob = SealedBlob::from_bytes(bytes)
            .map_err(|_source| rejected("a blob that is no intact record"))?;
        let claims = blob.claims();
        let Some(needs) = self.lacking.get(&claims.id) else {
            return Err(rejected("a blob that was not asked for"));
        };
        if needs.iter().filter_map(Need::len).any(|len| len != claims.len) {
            return Err(rejected("a blob of another length than the one referred to"));
        }
        self.shared.vault.blobs().check(blob).map_err(|err| match err {
            StoreError::Forged { .. } => rejected("a blob that is not what its name says"),
            err => err.into(),
        })
    }

    /// What blobs that came are needed for, but for chunks: nothing follows from those.
    fn needs_of(&mut self, came: &[CheckedBlob]) -> Vec<Need> {
        let needs = came.iter().filter_map(|blob| self.lacking.remove(&blob.blob().id)).flatten();
        needs.filter(|need| !matches!(need, Need::Chunk(_))).collect()
    }

    /// Has blobs that came take the place of what is damaged here.
    fn heal(&mut self, blobs: Vec<CheckedBlob>) -> Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        let needs = self.needs_of(&blobs);
        let (reply, answer) = bounded(1);
        self.inbox.send(Command::Heal(blobs, reply)).map_err(|_ended| Error::Stopped)?;
        answer.recv().unwrap_or(Err(Error::Stopped))?;
        for need in needs {
            if !self.mends {
                self.todo.push(need);
            } else if !self.expand(&need)? {
                // It has been looked at before; what lies below it has not.
                return Err(rotten_again(&need.id()));
            }
        }
        Ok(())
    }

    /// The peer does not have these. Versions long past may be lacking, nothing else.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] if the version cannot be had without.
    pub fn unavailable(&mut self, ids: &[[u8; 32]]) -> Result<()> {
        for id in ids {
            let id = BlobId(*id);
            match self.lacking.remove(&id).as_deref() {
                Some(_) if self.mends => self.progress.unavailable += 1,
                Some([Need::Version(_), ..]) if id != self.head => (),
                Some(_) => return Err(rejected("its peer does not have all of it")),
                None => return Err(rejected("an answer to what was not asked")),
            }
        }
        Ok(())
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

    fn look_at(&mut self, need: Need) -> Result<()> {
        match &need {
            Need::TreeNode(place) if self.is_ours(self.ours.root, place)? => return Ok(()),
            Need::FileNode(place, ours) => {
                if self.walked.contains(&place.blob.id) || self.is_ours(*ours, place)? {
                    return Ok(());
                }
            }
            Need::Version(_) | Need::TreeNode(_) | Need::LongNode(..) | Need::Chunk(_) => (),
        }
        let id = need.id();
        if self.keeping.holds(&id) {
            if matches!(need, Need::Chunk(_)) {
                return Ok(());
            }
            // It is needed in two places.
            while self.keeping.holds(&id) {
                self.todo.extend(self.keeping.wait()?);
            }
        }
        if self.mends && !self.walked.insert(id) {
            return Ok(());
        }
        let is_here = if self.mends {
            self.is_readable(&id)?
        } else {
            self.shared.vault.blobs().contains(&id)?
        };
        if is_here {
            if self.expand(&need)? {
                return Ok(());
            }
            let is_first = self.rotten.insert(id);
            // Another need may have found it so, and have asked for it.
            if !is_first && !self.lacking.contains_key(&id) {
                return Err(rotten_again(&id));
            }
        }
        if self.phase == Phase::Versions && self.lacking.len() >= LACKING_VERSIONS_MAX {
            return Err(rejected("a version that follows from too many at once"));
        }
        match self.lacking.entry(id) {
            Entry::Occupied(needs) => needs.into_mut().push(need),
            Entry::Vacant(none) => {
                self.ready.push_back(id);
                none.insert(vec![need]);
            }
        }
        Ok(())
    }

    /// Whether the blob can be read here and given to others, however long it takes to see that.
    fn is_readable(&self, id: &BlobId) -> Result<bool> {
        let blobs = self.shared.vault.blobs();
        let read =
            || blobs.get_sealed(id).and(blobs.describe(id)).and_then(|(_, blob)| blobs.get(&blob));
        match read().map_err(Error::from) {
            Ok(_) => Ok(true),
            Err(Error::Damaged { .. }) => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Whether this node is a part of our own map `root`, which is whole.
    fn is_ours(&self, root: Root, place: &Place) -> Result<bool> {
        let Some(under) = &place.under else { return Ok(root.0 == Some(place.blob)) };
        Ok(self.shared.vault.maps().holds(&root, &place.blob, under.level, &under.first)?)
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

/// What has just been stored anew cannot be read either.
fn rotten_again(id: &BlobId) -> Error {
    Error::Damaged { what: format!("blob {id} cannot be read after it was stored anew") }
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
