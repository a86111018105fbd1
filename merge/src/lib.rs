//! Concurrent facts in, one tree out: merging of file trees without I/O.

mod conflict;
mod copies;
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
mod overlay;
mod placing;
mod portable;
mod reg;
mod render;
mod resolve;
mod rules;
mod slot;
mod small_map;
mod state;
#[cfg(feature = "text-merge")]
pub mod text;
mod tree;
pub mod verify;
mod versions;
mod view;

pub use conflict::{Conflict, ConflictVersion, conflicts, in_directory};
pub use derive::derive;
pub use edit::{Edit, EditError, EditResult, Edited};
pub use entry::{ConflictKind, Entry, Listed, Role};
pub use groups::united;
pub use ids::{ClockExhausted, ContentId, DeviceId, LinkId, NodeId, OpId, VersionVector};
pub use join::{Joiner, Relation, join};
pub use memory::Indexed;
pub use merging::{Differing, MergeError, Merged, Side, merge};
pub use name::{AttrKey, AttrValue, BadName, Name};
pub use node::{Body, Carried, Carry, Claim, Content, Kind, Node, Place};
pub use overlay::{NodeEdits, Overlay};
pub use portable::folded;
pub use reg::Reg;
pub use render::{Item, Rendered};
pub use resolve::{ConflictResolver, Context, Resolution, ResolveError, Resolved, resolve};
pub use rules::{BadGlob, PathRules, Strategy};
pub use small_map::SmallMap;
pub use state::State;
pub use tree::{Child, Displaced, Fallback, Found, IndexEdits, Spot, Tree, Why, spots};
pub use versions::MergeContent;
pub use view::{Policy, View, list, lookup};
