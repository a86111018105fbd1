//! How verbs talk to the daemon: a Unix socket that only the owner of the home can open.
//!
//! ```text
//!   verb ---- Request ----> daemon
//!        <--- Event ------          progress, found damage, versions, as often as there is some
//!        <--- Event::End --         the answer, or why there is none
//! ```
//!
//! One request for each connection. Both sides first say which protocol they speak.

mod client;
mod launch;
mod message;
mod path_bytes;
mod patience;
mod report;
mod sharing;
mod socket;
mod wire;

pub(crate) use client::{Client, stop_by_signal};
pub(crate) use launch::{detach, tell_ready};
pub(crate) use message::{
    Answer, ChangePassphraseRequest, CheckRequest, Event, How, LogRequest, MountRequest, Opening,
    Progress, Repair, Request, RestoreRequest, UnmountRequest, ViewRequest,
};
pub(crate) use patience::Limit;
pub(crate) use report::{
    AtStartReport, KernelOptions, LingeringReport, MountReport, StatusReport, Trouble,
    VersionReport, ViewReport,
};
pub(crate) use sharing::{
    ConflictsRequest, DropRequest, FindInviterRequest, InviteRequest, JoinRequest, KeptReport,
    Loss, MembersReport, PeersReport, RejoinRequest, ResolveRequest, Resolved, SetMemberRequest,
    SettingsRequest, SyncRequest,
};
pub(crate) use socket::Listener;
pub(crate) use wire::{Channel, Hello, decode};
