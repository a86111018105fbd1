//! FUSE: a bucket as a directory of the kernel's.
//!
//! The only module that knows `fuser`. It unpacks what the kernel asks, calls `mount-core`,
//! packs the answer, and decides nothing.
//!
//! ```text
//!   kernel --> /dev/fuse --> fuser-0 .. fuser-3 --> Adapter --> mount_core::Mount
//!                 ^                                                 |
//!                 +--- the answer: at once, or from the writer  <---+
//!                      thread through a `Done` (write, flush, fsync)
//! ```
//!
//! | thread | does | ends |
//! |---|---|---|
//! | `fuse` | waits for the four below, then calls `ended` | with the kernel's connection |
//! | `fuser-0` .. `fuser-3` | read requests, each through a device descriptor of its own | as above |
//! | `notify` | tells the kernel what merges have changed ([`notify`]) | as above |
//!
//! A version that is shown ([`past`]) has `PastAdapter` and `mount_core::PastView` in their places, and
//! no `notify`: nothing in it ever changes.
//!
//! # What the kernel may remember
//!
//! Names, absent names, attributes, link targets and pages, for [`negotiate::TTL`]: only this daemon
//! changes a bucket. What the kernel changed itself it knows to look up again; what a merge changed
//! it is told, more than once ([`again`]). It never remembers the list of a directory, but that of a version that is shown.
//!
//! # Around fuser 0.18
//!
//! Mounting and unmounting are done here ([`attach`], [`detach`]) and only the device is handed to
//! fuser. Its own way unmounts by path, and again when something else unmounted first, which can
//! hit a stranger's mount; loses the mount when it is busy; takes a comma in the source for the
//! next option; and shows the type without `cairnfs` when root mounts. Who may enter is the
//! kernel's decision (`allow_other`, `default_permissions`), so fuser's own filter is switched
//! off: it refuses the flush of a descriptor whose owner changed its user id meanwhile.
//! [`negotiate`] asks for no capability that fuser accepts but does not carry out.

mod adapter;
mod again;
mod answer;
mod attach;
mod convert;
mod detach;
mod error;
mod mountinfo;
mod negotiate;
mod notify;
mod options;
mod past;
mod point;
mod session;
mod set_id;
mod xattr;

pub(crate) use error::{MountError, UnmountError};
pub(crate) use mountinfo::unescape;
pub(crate) use options::{SOURCE, examine};
pub(crate) use session::{Ended, MountSpec, Session, Shows};
