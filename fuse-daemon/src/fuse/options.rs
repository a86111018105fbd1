//! Mount options: those that are passed on, those that are for others, and the rest is refused.

use rustix::mount::MountFlags;

use super::{MountError, MountSpec};

/// How the source of every cairnfs mount begins; the name of what is mounted follows.
pub(crate) const SOURCE: &str = "cairnfs:";

/// What may stand behind `-o`, for the message that refuses the rest: those of `cli/mount_options.rs`
/// too.
pub(super) const KNOWN: &str = "ro, rw, suid, nosuid, dev, nodev, exec, noexec, noatime, relatime, \
                                sync, allow_other, save=, at=, cache=, dirty=, publish_quiet=, \
                                publish_max=, uid=, gid=, passphrase_file=, passphrase_command=, \
                                home=";

/// How the kernel is to mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Options {
    /// Shown in the table of mounts as what is mounted.
    pub(super) source: String,
    /// The flags of mount(2).
    pub(super) flags: MountFlags,
    /// Other users than the one who mounts may enter.
    pub(super) allow_other: bool,
}

/// Refuses what the kernel could not be asked for, before anything is mounted.
///
/// # Errors
///
/// Those of a mount with these options.
pub(crate) fn examine(lists: &[String]) -> Result<(), MountError> {
    let mut options = Options { source: String::new(), flags: Options::FLAGS, allow_other: false };
    options.add_all(lists)?;
    // Root needs no help.
    if rustix::process::geteuid().is_root() { Ok(()) } else { options.for_fusermount().map(drop) }
}

impl Options {
    /// Set-id bits and devices count only where it is asked for them.
    const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

    /// The options of `spec`.
    pub(super) fn of(spec: &MountSpec) -> Result<Self, MountError> {
        let mut options =
            Self { source: source(&spec.name), flags: Self::FLAGS, allow_other: spec.allow_other };
        options.add_all(&spec.options)?;
        options
            .flags
            .set(MountFlags::RDONLY, spec.read_only || options.flags.contains(MountFlags::RDONLY));
        Ok(options)
    }

    fn add_all(&mut self, lists: &[String]) -> Result<(), MountError> {
        lists.iter().flat_map(|list| list.split(',')).try_for_each(|option| self.add(option.trim()))
    }

    /// A later option overrides an earlier one, as in mount(8).
    fn add(&mut self, option: &str) -> Result<(), MountError> {
        let (flag, on) = match option {
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "async" => (MountFlags::SYNCHRONOUS, false),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "allow_other" => {
                self.allow_other = true;
                return Ok(());
            }
            // Always so; reading never sets the time of access, whatever is asked.
            ""
            | "defaults"
            | "default_permissions"
            | "relatime"
            | "norelatime"
            | "strictatime"
            | "nostrictatime"
            | "nodiratime"
            | "diratime"
            | "lazytime"
            | "nolazytime" => return Ok(()),
            // For mount(8), systemd and the boot scripts, which pass on what they do not need.
            "_netdev" | "nofail" | "auto" | "noauto" | "user" | "users" | "nouser" | "nousers"
            | "owner" | "noowner" | "group" | "nogroup" => return Ok(()),
            other if other.starts_with("x-") || other.starts_with("comment=") => return Ok(()),
            other => return Err(MountError::BadOption(other.to_owned())),
        };
        self.flags.set(flag, on);
        Ok(())
    }

    /// The options as `fusermount3` takes them.
    ///
    /// # Errors
    ///
    /// [`MountError::NotAllowed`] for set-id bits and devices, which only root may turn on.
    pub(super) fn for_fusermount(&self) -> Result<String, MountError> {
        let mut list =
            format!("fsname={},subtype=cairnfs,default_permissions,nosuid,nodev", self.source);
        for (flag, what) in [(MountFlags::NOSUID, "suid"), (MountFlags::NODEV, "dev")] {
            if !self.flags.contains(flag) {
                let message = format!("mount option {what:?} is for root only: leave it out");
                return Err(MountError::NotAllowed(message));
            }
        }
        for (flag, name) in [
            (MountFlags::RDONLY, ",ro"),
            (MountFlags::NOEXEC, ",noexec"),
            (MountFlags::SYNCHRONOUS, ",sync"),
            (MountFlags::NOATIME, ",noatime"),
        ] {
            if self.flags.contains(flag) {
                list.push_str(name);
            }
        }
        if self.allow_other {
            list.push_str(",allow_other");
        }
        Ok(list)
    }
}

/// Characters that the table of mounts escapes or that end an option become `_`.
fn source(name: &str) -> String {
    let safe = |c: char| if c.is_control() || " ,#\\".contains(c) { '_' } else { c };
    SOURCE.chars().chain(name.chars().map(safe)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Options, MountError> {
        let mut options =
            Options { source: source("b"), flags: MountFlags::empty(), allow_other: false };
        list.split(',').try_for_each(|option| options.add(option))?;
        Ok(options)
    }

    #[test]
    fn the_last_of_two_options_wins() {
        assert_eq!(parse("ro,rw").unwrap().flags, MountFlags::empty());
        assert_eq!(parse("rw,ro,nosuid").unwrap().flags, MountFlags::RDONLY | MountFlags::NOSUID);
    }

    #[test]
    fn options_for_others_are_ignored_and_unknown_ones_refused() {
        assert!(parse("_netdev,nofail,noauto,user,x-systemd.automount,comment=x,defaults").is_ok());
        for bad in ["auto_unmount", "fsname=x", "max_read=1", "RO", "x"] {
            assert!(matches!(parse(bad), Err(MountError::BadOption(_))), "{bad}");
        }
    }

    #[test]
    fn what_could_not_be_mounted_is_refused_beforehand() {
        let lists = |list: &str| ["rw".to_owned(), list.to_owned()];
        assert!(examine(&lists("noatime, _netdev")).is_ok());
        assert!(matches!(examine(&lists("foo=bar")), Err(MountError::BadOption(_))));
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(examine(&lists("suid")).is_ok(), is_root);
    }

    #[test]
    fn a_source_cannot_smuggle_in_an_option() {
        assert_eq!(source("a,allow_other#\\ b\n"), "cairnfs:a_allow_other___b_");
        assert_eq!(source("Fotos-2024"), "cairnfs:Fotos-2024");
    }

    #[test]
    fn only_root_may_turn_on_devices() {
        assert!(matches!(
            parse("nosuid").unwrap().for_fusermount(),
            Err(MountError::NotAllowed(_))
        ));
        let list = parse("nosuid,nodev,ro,allow_other").unwrap().for_fusermount().unwrap();
        assert_eq!(
            list,
            "fsname=cairnfs:b,subtype=cairnfs,default_permissions,nosuid,nodev,ro,allow_other"
        );
    }
}
