//! A bucket of which only what the network sees is real: a set of items, with versions.

mod fetch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use cairnfs_mount_core::{BucketId, Error, Member, Observer, Published, Result, Role, VersionId};
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::fetch::FakeFetch;
use super::{
    replica::{Fetching, Replica, Secrets},
    tests::LIMIT,
    tls::PeerKey,
};

type Id = [u8; 32];

/// A version; its name is the hash of its bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Version {
    author: Id,
    /// Under which secret the items were "sealed".
    epoch: u16,
    parents: Vec<Id>,
    vv: BTreeMap<Id, u64>,
    items: BTreeSet<Id>,
    members: Vec<Member>,
}

#[derive(Default)]
struct State {
    id: [u8; 16],
    secrets: BTreeMap<u16, Id>,
    blobs: HashMap<Id, Vec<u8>>,
    head: Option<Id>,
    version: Version,
    /// With a name for each removal.
    removed: BTreeMap<PeerKey, Id>,
    observers: Vec<Arc<dyn Observer>>,
    /// What was given away, to count.
    given: Vec<Id>,
    peers_wait: bool,
    /// Items that are given as other bytes.
    lies: bool,
    /// An item that is not given.
    lost: Option<Id>,
    /// Gives nothing more until it is told to: at once, or when it has given so many blobs.
    held: bool,
    held_after: Option<usize>,
    /// How long it takes it to give a blob.
    pace: Duration,
    /// How the next blob that it is asked for fails.
    gives_not: Option<Error>,
    /// How whatever is sent to it fails.
    fails: Option<Error>,
    /// An item for which there is no space.
    too_large: Option<Id>,
    /// Whether writes are refused for want of space.
    starves: bool,
    panics: bool,
    /// Whether looking for what lacks does not come to an end.
    endless: bool,
    /// Merges nothing until it is told to.
    merges_held: bool,
    /// Whether something waits to be merged.
    is_merging: bool,
    /// Does not say who the members are to the first `bucket-sync` that asks, until it is told to; and whether
    /// that waits.
    members_held: bool,
    is_asked_for_members: bool,
    /// Gives only the first of its secrets.
    keeps_secrets: bool,
    /// Happens once, before secrets are given away.
    before_secrets: Option<Box<dyn FnOnce() + Send>>,
    fetches: u64,
    /// Fetches that are under way or stand back: now, and at most so far.
    open_fetches: usize,
    most_open_fetches: usize,
}

/// See the module's doc. Clones are the same bucket.
#[derive(Clone)]
pub(super) struct FakeBucket {
    me: PeerKey,
    state: Arc<Mutex<State>>,
    released: Arc<Condvar>,
}

impl fmt::Debug for FakeBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeBucket")
    }
}

pub(super) fn name_of(blob: &[u8]) -> Id {
    *blake3::hash(blob).as_bytes()
}

fn encode(version: &Version) -> Vec<u8> {
    let mut bytes = b"version".to_vec();
    bytes.extend(postcard::to_stdvec(version).unwrap());
    bytes
}

fn decode(blob: &[u8]) -> Option<Version> {
    postcard::from_bytes(blob.strip_prefix(b"version")?).ok()
}

impl FakeBucket {
    /// A new bucket whose only member is `me`.
    pub(super) fn create(me: PeerKey, id: u8) -> Self {
        let bucket = Self::empty(me, id, &[(0, [id; 32])]);
        let owner = Member { key: me, role: Role::Owner, name: "first".into() };
        bucket.state.lock().version.members = vec![owner];
        bucket.add(b"root");
        bucket
    }

    /// A bucket that was joined and has no version yet.
    pub(super) fn empty(me: PeerKey, id: u8, secrets: &[(u16, Id)]) -> Self {
        let state =
            State { id: [id; 16], secrets: secrets.iter().copied().collect(), ..State::default() };
        Self { me, state: Arc::new(Mutex::new(state)), released: Arc::default() }
    }

    /// The same versions on another device that is a member already.
    pub(super) fn copy_for(&self, device: PeerKey) -> Self {
        let from = self.state.lock();
        let state = State {
            id: from.id,
            secrets: from.secrets.clone(),
            blobs: from.blobs.clone(),
            head: from.head,
            version: from.version.clone(),
            ..State::default()
        };
        Self { me: device, state: Arc::new(Mutex::new(state)), released: Arc::default() }
    }

    /// Publishes one more item.
    pub(super) fn add(&self, item: &[u8]) {
        self.add_all(&[item.to_vec()]);
    }

    pub(super) fn add_all(&self, items: &[Vec<u8>]) {
        let mut state = self.state.lock();
        for item in items {
            let id = name_of(item);
            state.blobs.insert(id, item.clone());
            state.version.items.insert(id);
        }
        self.publish_new(state);
    }

    fn publish_new(&self, mut state: MutexGuard<'_, State>) {
        *state.version.vv.entry(self.me.0).or_default() += 1;
        state.version.author = self.me.0;
        state.version.parents = state.head.into_iter().collect();
        state.version.epoch = state.secrets.keys().max().copied().unwrap_or(0);
        let blob = encode(&state.version);
        self.stand_on(state, blob);
    }

    fn stand_on(&self, mut state: MutexGuard<'_, State>, blob: Vec<u8>) {
        let id = name_of(&blob);
        state.blobs.insert(id, blob);
        state.head = Some(id);
        let observers = state.observers.clone();
        drop(state);
        for observer in observers {
            observer.head_changed(id);
        }
    }

    /// New secrets from here on.
    pub(super) fn rotate(&self) {
        let mut state = self.state.lock();
        let epoch = state.secrets.keys().max().map_or(0, |epoch| epoch + 1);
        state.secrets.insert(epoch, [epoch.to_le_bytes()[0]; 32]);
        self.publish_new(state);
    }

    pub(super) fn has(&self, item: &[u8]) -> bool {
        let state = self.state.lock();
        let id = name_of(item);
        state.version.items.contains(&id) && state.blobs.contains_key(&id)
    }

    pub(super) fn blobs(&self) -> usize {
        self.state.lock().blobs.len()
    }

    /// Which blobs were given away, each as often as it was.
    pub(super) fn given(&self) -> Vec<Id> {
        self.state.lock().given.clone()
    }

    pub(super) fn fetches(&self) -> u64 {
        self.state.lock().fetches
    }

    pub(super) fn open_fetches(&self) -> usize {
        self.state.lock().open_fetches
    }

    pub(super) fn most_open_fetches(&self) -> usize {
        self.state.lock().most_open_fetches
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.state.lock().peers_wait
    }

    pub(super) fn set_lies(&self, lies: bool) {
        self.state.lock().lies = lies;
    }

    /// Does not give this item, or gives all again.
    pub(super) fn set_lost(&self, item: Option<&[u8]>) {
        self.state.lock().lost = item.map(name_of);
    }

    /// Takes so long to give each blob.
    pub(super) fn set_pace(&self, pace: Duration) {
        self.state.lock().pace = pace;
    }

    /// Cannot give the next blob that it is asked for.
    pub(super) fn fail_once(&self, how: Error) {
        self.state.lock().gives_not = Some(how);
    }

    /// Cannot take what it is sent, or can again.
    pub(super) fn set_fails(&self, fails: Option<Error>) {
        self.state.lock().fails = fails;
    }

    /// Has no space for this item.
    pub(super) fn set_too_large(&self, item: &[u8]) {
        self.state.lock().too_large = Some(name_of(item));
    }

    /// Has no space for what is written.
    pub(super) fn set_starves(&self) {
        self.state.lock().starves = true;
    }

    /// Cannot read these items any more.
    pub(super) fn damage(&self, items: &[Vec<u8>]) {
        let mut state = self.state.lock();
        for item in items {
            state.blobs.remove(&name_of(item));
        }
    }

    /// Panics when it is next asked whether it has a version.
    pub(super) fn set_panics(&self) {
        self.state.lock().panics = true;
    }

    /// Looks for what lacks without an end from now on, or goes on: a fetch is begun and asks for
    /// nothing.
    pub(super) fn set_endless(&self, endless: bool) {
        self.state.lock().endless = endless;
    }

    /// Merges nothing, or goes on.
    pub(super) fn hold_merges(&self, held: bool) {
        self.state.lock().merges_held = held;
        self.released.notify_all();
    }

    pub(super) fn is_merging(&self) -> bool {
        self.state.lock().is_merging
    }

    /// Does not say who the members are to the first `bucket-sync` that asks, or does after all.
    pub(super) fn hold_members(&self, held: bool) {
        self.state.lock().members_held = held;
        self.released.notify_all();
    }

    pub(super) fn is_asked_for_members(&self) -> bool {
        self.state.lock().is_asked_for_members
    }

    /// Gives only the first of its secrets, or all again.
    pub(super) fn keep_secrets(&self, keeps: bool) {
        self.state.lock().keeps_secrets = keeps;
    }

    /// Has something happen before secrets are next given away.
    pub(super) fn before_secrets(&self, what: impl FnOnce() + Send + 'static) {
        self.state.lock().before_secrets = Some(Box::new(what));
    }

    /// Gives nothing, or goes on. Meanwhile nothing else is said on a connection on which it was asked.
    pub(super) fn hold(&self, held: bool) {
        let mut state = self.state.lock();
        (state.held, state.held_after) = (held, None);
        self.released.notify_all();
    }

    /// As `hold`, once it has given so many blobs and unless it is told to go on before.
    pub(super) fn hold_after(&self, blobs: usize) {
        self.state.lock().held_after = Some(blobs);
    }

    /// Not for ever: a test that fails leaves things held, and then waits for its threads to end.
    fn wait_while(
        &self,
        state: &mut MutexGuard<'_, State>,
        is_held: impl FnMut(&mut State) -> bool,
    ) {
        self.released.wait_while_for(state, is_held, LIMIT);
    }
}

impl Replica for FakeBucket {
    fn bucket_id(&self) -> BucketId {
        BucketId(self.state.lock().id)
    }

    fn recognise(&self, challenge: &[u8]) -> Id {
        let state = self.state.lock();
        let secret = state.secrets.get(&0).copied().unwrap_or_default();
        *blake3::keyed_hash(&secret, challenge).as_bytes()
    }

    fn head(&self) -> Option<VersionId> {
        self.state.lock().head
    }

    fn published(&self) -> Published {
        Published { head: self.head(), holds_all: true }
    }

    fn time_of(&self, _id: &VersionId) -> Result<Option<SystemTime>> {
        Ok(None)
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.state.lock().observers.push(observer);
    }

    fn peers_wait(&self, waiting: bool) {
        self.state.lock().peers_wait = waiting;
    }

    fn covers(&self, id: &VersionId) -> Result<bool> {
        let state = self.state.lock();
        assert!(!state.panics, "as a test wants it");
        let theirs = state.blobs.get(id).and_then(|blob| decode(blob));
        Ok(theirs.is_some_and(|theirs| dominates(&state.version.vv, &theirs.vv)))
    }

    fn ancestry(&self, head: &VersionId, have: &[VersionId], max: usize) -> Result<Vec<VersionId>> {
        let state = self.state.lock();
        let (mut found, mut next) = (Vec::new(), vec![*head]);
        if !state.blobs.contains_key(head) {
            return Err(Error::NotFound);
        }
        while let Some(id) = next.pop() {
            if have.contains(&id) || found.contains(&id) || found.len() == max {
                continue;
            }
            // Those before were never fetched.
            let version = state.blobs.get(&id).and_then(|blob| decode(blob));
            let Some(version) = version else { continue };
            next.extend(version.parents);
            found.push(id);
        }
        Ok(found)
    }

    fn name_of(&self, sealed: &[u8]) -> Option<Id> {
        Some(name_of(sealed))
    }

    fn sealed(&self, id: &Id) -> Result<Option<Vec<u8>>> {
        let pace = self.state.lock().pace;
        thread::sleep(pace);
        let mut state = self.state.lock();
        self.wait_while(&mut state, |state| state.held);
        if state.lost == Some(*id) {
            return Ok(None);
        }
        if let Some(how) = state.gives_not.take() {
            return Err(how);
        }
        state.given.push(*id);
        state.held |= state.held_after == Some(state.given.len());
        let mut blob = state.blobs.get(id).cloned();
        if state.lies
            && let Some(blob) = &mut blob
            && decode(blob).is_none()
        {
            blob.push(0);
        }
        Ok(blob)
    }

    fn fetch(&self, head: VersionId) -> Result<Box<dyn Fetching>> {
        let mut state = self.state.lock();
        state.fetches += 1;
        state.open_fetches += 1;
        state.most_open_fetches = state.most_open_fetches.max(state.open_fetches);
        drop(state);
        Ok(Box::new(FakeFetch::begin(self.clone(), head)))
    }

    fn mend(&self) -> Result<Box<dyn Fetching>> {
        self.fetch(self.head().ok_or(Error::NotFound)?)
    }

    fn awaits_first_version(&self) -> bool {
        self.state.lock().head.is_none()
    }

    fn members(&self) -> Vec<Member> {
        let mut state = self.state.lock();
        let is_first = state.members_held && !state.is_asked_for_members;
        if is_first && thread::current().name() == Some("bucket-sync") {
            state.is_asked_for_members = true;
            self.wait_while(&mut state, |state| state.members_held);
        }
        state.version.members.clone()
    }

    fn removal(&self, key: &PeerKey) -> Option<Id> {
        self.state.lock().removed.get(key).copied()
    }

    fn removals(&self) -> Vec<Id> {
        self.state.lock().removed.values().copied().collect()
    }

    fn role(&self) -> Option<Role> {
        self.members().iter().find(|member| member.key == self.me).map(|member| member.role)
    }

    fn lacks_space(&self) -> bool {
        self.state.lock().starves
    }

    fn set_member(&self, key: PeerKey, name: &str, role: Option<Role>) -> Result<()> {
        let mut state = self.state.lock();
        state.version.members.retain(|member| member.key != key);
        if let Some(role) = role {
            state.removed.remove(&key);
            state.version.members.push(Member { key, role, name: name.into() });
        } else {
            let now = [key.0, state.head.unwrap_or_default()].concat();
            state.removed.insert(key, *blake3::hash(&now).as_bytes());
        }
        self.publish_new(state);
        Ok(())
    }

    fn secrets(&self, have: &[u16]) -> Secrets {
        let before = self.state.lock().before_secrets.take();
        if let Some(before) = before {
            before();
        }
        let state = self.state.lock();
        let given = if state.keeps_secrets { 1 } else { usize::MAX };
        let given = state.secrets.iter().take(given);
        let lacking = given.filter(|(epoch, _)| !have.contains(*epoch));
        lacking.map(|(epoch, secret)| (*epoch, Zeroizing::new(*secret))).collect()
    }

    fn epochs(&self) -> Vec<u16> {
        self.state.lock().secrets.keys().copied().collect()
    }

    fn learn_secret(&self, record: Vec<u8>, offered: Secrets) -> Result<bool> {
        let epoch = decode(&record).map(|version| version.epoch);
        let fitting = offered.iter().find(|(offered, _)| Some(*offered) == epoch);
        let fitting = fitting.map(|(epoch, secret)| (*epoch, **secret));
        self.state.lock().secrets.extend(fitting);
        Ok(fitting.is_some())
    }

    fn publish(&self) -> Result<()> {
        Ok(())
    }
}

fn dominates(one: &BTreeMap<Id, u64>, other: &BTreeMap<Id, u64>) -> bool {
    other.iter().all(|(device, count)| one.get(device).copied().unwrap_or(0) >= *count)
}
