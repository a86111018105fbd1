//! Attributes of a node: what `stat` shows and `setxattr` sets, as registers of the merge.
//!
//! | key | value | concurrent changes |
//! |---|---|---|
//! | `mode`, `uid`, `gid` | number | the latest wins, and is reported |
//! | `mtime` | a time that somebody chose | the latest wins, and is reported |
//! | `~times` | times that follow from use | the latest wins, in silence |
//! | any name with a dot | an extended attribute | the latest wins, and is reported |

use std::sync::LazyLock;

use cairnfs_merge::{AttrKey, AttrValue, ContentId, Edit, Node, NodeId, OpId, Reg, Tree};
use serde::{Deserialize, Serialize};

use super::Data;
use crate::{Error, Kind, Result, Setting, Time};

/// The times that change by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    pub(crate) atime: Time,
    pub(crate) btime: Time,
}

impl Times {
    pub(crate) fn born(now: Time) -> Self {
        Self { mtime: now, ctime: now, atime: now, btime: now }
    }
}

/// The attributes of a version as they count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) times: Times,
}

impl Meta {
    /// What `node` shows with its version `version`, else with its latest; values of a foreign device
    /// that make no sense read as absent.
    pub(crate) fn of(node: &Node<Data>, version: Option<&ContentId>) -> Self {
        let attrs = node.attrs_of(version);
        let number = |key: &AttrKey| {
            let bytes = attrs.get(key)?.as_bytes().try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        let mut times = attrs
            .get(&TIMES)
            .and_then(|value| postcard::from_bytes::<Times>(value.as_bytes()).ok())
            .unwrap_or_else(|| Times::born(Time::default()));
        if let Some(set) = attrs.get(&MTIME) {
            times.mtime = postcard::from_bytes(set.as_bytes()).unwrap_or(times.mtime);
        }
        let default_mode = if node.kind == Kind::Dir { 0o755 } else { 0o644 };
        Self {
            mode: number(&MODE).unwrap_or(default_mode) & 0o7777,
            uid: number(&UID).unwrap_or(0),
            gid: number(&GID).unwrap_or(0),
            times,
        }
    }
}

static MODE: LazyLock<AttrKey> = LazyLock::new(|| key(b"mode"));
static UID: LazyLock<AttrKey> = LazyLock::new(|| key(b"uid"));
static GID: LazyLock<AttrKey> = LazyLock::new(|| key(b"gid"));
static MTIME: LazyLock<AttrKey> = LazyLock::new(|| key(b"mtime"));
static TIMES: LazyLock<AttrKey> = LazyLock::new(|| key(b"~times"));

fn key(name: &[u8]) -> AttrKey {
    AttrKey::new(name).expect("because the built-in keys are short and not empty")
}

pub(crate) fn mode_key() -> AttrKey {
    MODE.clone()
}

pub(crate) fn uid_key() -> AttrKey {
    UID.clone()
}

pub(crate) fn gid_key() -> AttrKey {
    GID.clone()
}

pub(crate) fn mtime_key() -> AttrKey {
    MTIME.clone()
}

pub(crate) fn times_key() -> AttrKey {
    TIMES.clone()
}

/// When `op` has changed `node`; none if the device has changed it since, or nothing says so.
pub(crate) fn changed_by(node: &Node<Data>, op: &OpId) -> Option<Time> {
    let mut times = node.attrs.get(&TIMES)?.iter();
    let (_, value) = times.find(|(by, _)| *by == op)?;
    Some(postcard::from_bytes::<Times>(value.as_ref()?.as_bytes()).ok()?.ctime)
}

/// What a value means to a person; one that makes no sense is shown as it is.
pub(crate) fn setting(key: &AttrKey, value: Option<&AttrValue>) -> Setting {
    let bytes = value.map(AttrValue::as_bytes);
    let number = bytes.and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)));
    let time = bytes.and_then(|bytes| postcard::from_bytes::<Time>(bytes).ok());
    match (number, time) {
        (Some(mode), _) if *key == *MODE => Setting::Mode(mode & 0o7777),
        (Some(uid), _) if *key == *UID => Setting::Owner(uid),
        (Some(gid), _) if *key == *GID => Setting::Group(gid),
        (_, Some(time)) if *key == *MTIME => Setting::Modified(time.into()),
        _ => Setting::Attribute(key.as_bytes().to_vec(), bytes.map(<[u8]>::to_vec)),
    }
}

/// Whether a key is an extended attribute's name.
pub(crate) fn is_xattr(key: &AttrKey) -> bool {
    key.as_bytes().contains(&b'.')
}

pub(crate) fn number(value: u32) -> AttrValue {
    AttrValue::new(&value.to_le_bytes()).expect("because four bytes are few")
}

pub(crate) fn encode<T: Serialize>(value: &T) -> AttrValue {
    let bytes = postcard::to_stdvec(value).expect("because times always encode");
    AttrValue::new(&bytes).expect("because times are short")
}

/// Changes the times of the latest version of the node `id`, and with `mtime` forgets one that somebody set.
///
/// # Errors
///
/// Damage met while reading the tree; [`Error::Stale`] if the node is gone.
pub(crate) fn change_times<T: Tree<Data, Error = Error>>(
    edit: &mut Edit<'_, Data, T>,
    id: &NodeId,
    change: impl FnOnce(&mut Times),
) -> Result<()> {
    let node = edit.tree().node(id)?;
    let (mut times, was_set) = match &node {
        Some(node) => (Meta::of(node, None).times, node.attrs_of(None).get(&MTIME).is_some()),
        None => (Times::born(Time::default()), false),
    };
    let before = times.mtime;
    change(&mut times);
    if was_set && times.mtime != before {
        edit.set_attr(id, mtime_key(), None)?;
    }
    edit.set_attr(id, times_key(), Some(encode(&times)))?;
    Ok(())
}

/// The content of the node `id` was written to at `now`.
///
/// # Errors
///
/// As [`change_times`].
pub(crate) fn set_written<T: Tree<Data, Error = Error>>(
    edit: &mut Edit<'_, Data, T>,
    id: &NodeId,
    now: Time,
) -> Result<()> {
    change_times(edit, id, |times| {
        times.mtime = now;
        times.ctime = now;
    })
}

/// The content of the node `id` was last written to at `then`; other things may have changed since.
///
/// # Errors
///
/// As [`change_times`].
pub(crate) fn set_last_written<T: Tree<Data, Error = Error>>(
    edit: &mut Edit<'_, Data, T>,
    id: &NodeId,
    then: Time,
) -> Result<()> {
    change_times(edit, id, |times| {
        times.mtime = then;
        times.ctime = times.ctime.max(then);
    })
}

/// Something about the node `id` other than its content has changed at `now`.
///
/// # Errors
///
/// As [`change_times`].
pub(crate) fn set_changed<T: Tree<Data, Error = Error>>(
    edit: &mut Edit<'_, Data, T>,
    id: &NodeId,
    now: Time,
) -> Result<()> {
    change_times(edit, id, |times| times.ctime = now)
}

/// What is left of the removed directory `node`: what `stat` shows of it.
pub(crate) fn remains(node: &Node<Data>) -> Node<Data> {
    let mut remains = Node::empty(node.kind);
    let kept = node.attrs.iter().filter(|(key, _)| !is_xattr(key));
    remains.attrs = kept.map(|(key, reg)| (key.clone(), reg.clone())).collect();
    remains
}

/// Gives a node that no tree holds any more other attributes.
pub(crate) fn overwrite(node: &mut Node<Data>, meta: &Meta) {
    let op = node.live.last().map(|(op, _)| *op);
    let Some(op) = op else { return };
    let values = [
        (mode_key(), number(meta.mode)),
        (uid_key(), number(meta.uid)),
        (gid_key(), number(meta.gid)),
        (mtime_key(), encode(&meta.times.mtime)),
        (times_key(), encode(&meta.times)),
    ];
    for (key, value) in values {
        node.attrs.insert(key, Reg::one(op, Some(value)));
    }
}
