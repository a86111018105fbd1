//! What a scenario needs of the devices that play it.

use std::collections::BTreeMap;

/// An outcome, or why a scenario cannot go on, for people.
pub type Told<T = ()> = Result<T, String>;

/// What becomes one version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Each action: as if others had seen every state.
    EachAction,
    /// All that a device does apart: nobody ever sees a state in between.
    AllAtOnce,
}

/// What a path shows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Shown {
    /// A directory.
    Dir,
    /// A file with its content.
    File(String),
    /// A symbolic link with its target.
    Link(String),
}

/// A conflict as it is listed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listed {
    /// `content`, `name` and so on.
    pub kind: String,
    /// The contested path.
    pub path: String,
    /// What is shown for it: a path, and in hex the id of the content there.
    pub sides: Vec<(String, String)>,
}

/// One device: the calls of a file system on paths without a leading slash, and a few verbs.
///
/// Every call fails with the reason, as the system call of that name would.
#[allow(clippy::missing_errors_doc, reason = "said above, once for all of them")]
pub trait Device {
    /// Writes a whole file: create or cut off, write, close.
    fn write(&mut self, path: &str, text: &str) -> Told;
    /// Makes one directory.
    fn mkdir(&mut self, path: &str) -> Told;
    /// Removes a name.
    fn unlink(&mut self, path: &str) -> Told;
    /// Removes an empty directory.
    fn rmdir(&mut self, path: &str) -> Told;
    /// Moves a name over whatever is there.
    fn rename(&mut self, from: &str, to: &str) -> Told;
    /// Makes a symbolic link.
    fn symlink(&mut self, path: &str, target: &str) -> Told;
    /// Gives or takes the right to execute.
    fn set_executable(&mut self, path: &str, executable: bool) -> Told;
    /// Sets an extended attribute.
    fn set_xattr(&mut self, path: &str, key: &str, value: &str) -> Told;
    /// Sets the time of the last change, in seconds.
    fn set_mtime(&mut self, path: &str, seconds: i64) -> Told;
    /// Settles the conflict of the name `path` with a content of its own.
    fn resolve(&mut self, path: &str, text: &str) -> Told;
    /// Makes a version of what was changed.
    fn publish(&mut self) -> Told;
    /// Has texts merged line by line from now on, on all devices.
    fn merge_texts(&mut self) -> Told;
    /// Everything that is shown.
    fn tree(&mut self) -> Told<BTreeMap<String, Shown>>;
    /// What conflicts.
    fn conflicts(&mut self) -> Told<Vec<Listed>>;
    /// Whether `path` may be executed, as `0` or `1`.
    fn executable(&mut self, path: &str) -> Told<String>;
    /// The time of the last change of `path`, in seconds.
    fn mtime(&mut self, path: &str) -> Told<String>;
    /// An extended attribute; empty if it is not there.
    fn xattr(&mut self, path: &str, key: &str) -> Told<String>;
}

/// Some devices that share a bucket, called A, B, C, D. Nobody learns anything except by `pull`.
#[allow(clippy::missing_errors_doc, reason = "the reason for people, where something fails")]
pub trait Devices {
    /// Adds a device; the first one makes the bucket, each other one gets it from A as it is.
    fn admit(&mut self, who: char) -> Told;
    /// The device `who`.
    fn device(&mut self, who: char) -> Told<&mut dyn Device>;
    /// All at once, the first of each pair merges what the second one had when this began.
    fn pull(&mut self, pulls: &[(char, char)]) -> Told;
    /// Everybody pulls from everybody until nobody learns anything, which must not take long.
    fn settle(&mut self) -> Told;
    /// Fails unless all stand on the same state, as far as that can be told from outside.
    fn agree(&mut self) -> Told;
    /// Stops every device and starts it again.
    fn restart(&mut self) -> Told;
}
