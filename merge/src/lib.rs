//! Concurrent facts in, one tree out: merging of file trees without I/O.
//!
//! # The model in ten lines
//!
//! 1. A file or directory is a [`Node`] with an id for life; its name is only an attribute.
//! 2. Each attribute is a [`Reg`]: the values of those who did not know of each other, each under
//!    the [`OpId`] that wrote it. In peace there is one.
//! 3. A [`State`] is the nodes and a [`VersionVector`]: which operations it has seen.
//! 4. [`join`] keeps a value that both sides have, or that one side has and the other has not seen.
//!    What is missing though seen was replaced. No ancestor, no tombstones, no new operation. So it is
//!    commutative, associative and idempotent: any order, any number of times.
//! 5. [`merge`] is a join and one rule: what was removed with a directory that the other side moved
//!    meanwhile is brought back, by an operation of whoever merges. Users want this one.
//! 6. [`View`] computes the visible tree from a state: latest moves count, cycles are broken,
//!    directories of one name are one, a losing version is shown as `name@<8 hex>`.
//! 7. Peers with equal knowledge have equal states, hence equal trees and equal [`conflicts`].
//! 8. [`Edit`] says what a user's action writes. A conflict ends when somebody replaces the values.
//! 9. A [`ConflictResolver`] is optional; what it decides is an operation and travels.
//! 10. [`PathOpLog`] and [`three_way`] are the same engine for those who have only paths.
//!
//! # Two logs
//!
//! ```
//! use cairnfs_merge::{Content, ContentId, Context, DeviceId, PathOpLog, Strategy};
//!
//! # fn main() -> Result<(), cairnfs_merge::LogError> {
//! let text = |text: &'static str| {
//!     Content::new(ContentId(*blake3::hash(text.as_bytes()).as_bytes()), text.len() as u64, text)
//! };
//! let mut laptop = PathOpLog::new(DeviceId([1; 16]));
//! laptop.write(b"docs/plan", text("draft"))?;
//! let mut nas = PathOpLog::new(DeviceId([2; 16]));
//! nas.merge(&laptop)?;
//!
//! laptop.rename(b"docs", b"papers")?;
//! nas.write(b"docs/plan", text("final"))?;
//! laptop.merge_with_resolver(&nas, &Strategy::ConflictFile, &Context { text: None })?;
//!
//! let plan = laptop.entry(b"papers/plan")?.and_then(|entry| entry.content);
//! assert_eq!(plan.map(|content| content.body), Some("final"));
//! assert!(laptop.conflicts().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Three trees
//!
//! ```
//! use cairnfs_merge::{
//!     Content, ContentId, Kind, PlainEntry, PlainTree, Policy, Renames, three_way,
//! };
//!
//! # fn main() -> Result<(), cairnfs_merge::ThreeWayError> {
//! let tree = |files: &[(&str, &'static str)]| -> PlainTree<&'static str> {
//!     let entry = |text: &'static str| {
//!         let id = ContentId(*blake3::hash(text.as_bytes()).as_bytes());
//!         let content = Some(Content::new(id, text.len() as u64, text));
//!         PlainEntry { kind: Kind::File, content }
//!     };
//!     files.iter().map(|(path, text)| (path.as_bytes().to_vec(), entry(text))).collect()
//! };
//! let base = tree(&[("a", "0"), ("b", "0")]);
//! let ours = tree(&[("a", "1"), ("b", "0")]);
//! let theirs = tree(&[("a", "2"), ("b", "2")]);
//! let merged = three_way(&base, &ours, &theirs, Renames::Ignore, Policy::default())?;
//! // `a` and its copy, and `b` as they have it.
//! assert_eq!(merged.tree.items.len(), 3);
//! assert_eq!(merged.conflicts.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # A resolver of one's own
//!
//! ```
//! use cairnfs_merge::{
//!     Conflict, ConflictResolver, Content, ContentId, Context, DeviceId, PathOpLog, Resolution,
//! };
//!
//! /// The longer version wins.
//! struct Longest;
//!
//! impl ConflictResolver<&'static str> for Longest {
//!     fn resolve(
//!         &self,
//!         conflict: &Conflict<&'static str>,
//!         _: &Context<'_, &'static str>,
//!     ) -> Resolution<&'static str> {
//!         let len = |content: &Content<&str>| (content.len, content.id);
//!         let versions = conflict.versions.iter();
//!         let longest = versions.max_by_key(|version| version.entry.content.as_ref().map(len));
//!         longest.map_or(Resolution::KeepBoth, |version| Resolution::UseVersion(version.op))
//!     }
//!
//!     fn symmetric(&self) -> bool {
//!         true
//!     }
//! }
//!
//! # fn main() -> Result<(), cairnfs_merge::LogError> {
//! let text = |text: &'static str| {
//!     Content::new(ContentId(*blake3::hash(text.as_bytes()).as_bytes()), text.len() as u64, text)
//! };
//! let (mut a, mut b) = (PathOpLog::new(DeviceId([1; 16])), PathOpLog::new(DeviceId([2; 16])));
//! a.write(b"log", text("one line"))?;
//! b.write(b"log", text("one line and another"))?;
//! let done = a.merge_with_resolver(&b, &Longest, &Context { text: None })?;
//! assert_eq!(done.discarded.len(), 1);
//! assert_eq!(a.entries().len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Over a store of one's own
//!
//! Implement [`Tree`]: nodes by id, and three small indexes that [`derive()`](crate::derive())
//! computes; of an empty tree it makes them from all nodes. [`Edit::finish`], [`merge`] and [`resolve`]
//! hand out changed nodes together with the index edits: apply both, and have the version vector
//! [learn](VersionVector::learn) the operation, before the next of them. An [`OpId`] may serve all
//! changes until they are published; then take the next. A node that an operation creates has that
//! operation in its id ([`NodeId::Born`]). What comes from elsewhere is checked first: [`verify`] says how.
//!
//! # Limitations
//!
//! - A device must never use one [`OpId`] for two published versions: whoever restores a backup
//!   takes a new [`DeviceId`]. If it happens all the same, both contents are shown.
//! - A register of a foreign state holds at most 512 concurrent values, one for each device that changed
//!   something and had not seen the others: of a file, or of a directory anywhere below it. More devices
//!   that do so before any of them has merged are not merged.
//! - Files of one name that resolvers decided about in two directories before these became one count
//!   as answers to one conflict: the latest is shown, and nothing is reported of the other.
//! - The portable policy scans a directory for every lookup in it.
//! - Where directories become or cease to be united, their children are looked at once.
//! - [`Strategy::BaseWins`] on every device may never fall quiet where a file has several hard links and
//!   different files contest two of them: each device takes the one name by the file that another gives up.
//! - The versions of a contested file with several hard links are shown under each of its names;
//!   deciding them under one name decides them under all.
//! - Text is merged by lines, and only where the caller still has the common ancestor.
//! - A [`PathOpLog`] keeps all operations for ever: it cannot be pruned. Merging one in copies both and
//!   derives the tree anew, in proportion to all operations, however few are new. A device that writes much
//!   over years wants an [`Indexed`], or a [`Tree`] of its own.
//! - The lamport time of an operation is a count, no time of day: which of two concurrent versions has the
//!   name, and which one [`Strategy::LastWriteWins`] takes, says who had seen more, not who wrote last.
//! - [`Rendered::by_path`] spells every path out: its size is that of the tree times its depth.

mod ascending;
mod attrs;
mod conflict;
mod copies;
mod delta;
mod derive;
mod edit;
mod entry;
mod groups;
mod ids;
mod join;
mod memory;
mod merging;
#[doc(hidden)]
pub mod mutants;
mod name;
mod node;
mod operation;
mod oplog;
mod overlay;
mod placing;
mod portable;
mod reg;
mod render;
mod resolve;
mod retag;
mod rules;
mod slot;
mod small_map;
mod state;
#[cfg(feature = "text-merge")]
pub mod text;
mod three_way;
mod tree;
pub mod verify;
mod versions;
mod view;

pub use attrs::Attrs;
pub use conflict::{
    Conflict, ConflictVersion, Disputed, Statement, at_name, conflicts, in_directory,
};
pub use derive::derive;
pub use edit::{Decision, Edit, EditError, EditResult, Edited, NewNode};
pub use entry::{ConflictKind, Entry, Listed, Role};
pub use groups::united;
pub use ids::{ClockExhausted, ContentId, DeviceId, LinkId, NodeId, OpId, VersionVector};
pub use join::{Joiner, Relation, join};
pub use memory::Indexed;
pub use merging::{Differing, MergeError, Merged, Side, merge};
pub use name::{AttrKey, AttrValue, BadName, Name};
pub use node::{Body, Carried, Carry, Claim, Content, Kind, Node, Place};
pub use operation::{PathOpKind, PathOperation};
pub use oplog::{LogError, LogMerge, PathOpLog};
pub use overlay::{NodeEdits, Overlay};
pub use portable::folded;
pub use reg::Reg;
pub use render::{Item, Rendered};
pub use resolve::{ConflictResolver, Context, Resolution, ResolveError, Resolved, resolve};
pub use rules::{BadGlob, PathRules, Strategy};
pub use small_map::SmallMap;
pub use state::State;
pub use three_way::{PlainEntry, PlainTree, Renames, ThreeWay, ThreeWayError, three_way};
pub use tree::{Child, Displaced, Fallback, Found, IndexEdits, Spot, Tree, Why, hanging, spots};
pub use versions::MergeContent;
pub use view::{Page, Policy, View, list, lookup};
