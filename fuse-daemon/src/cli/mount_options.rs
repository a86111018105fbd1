//! `-o` of mount: our own options are taken out, the rest is for [`crate::fuse`] to judge.

use std::path::PathBuf;

use cairnfs_mount_core::SavePolicy;

use crate::{
    exit::{Failure, Result},
    values::{Id, Size, Span},
    when::Moment,
};

/// What a list of mount options says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct MountOptions {
    /// `at=VERSION` or `at=TIME`
    pub(crate) at: Option<Moment>,
    /// `save=POLICY`
    pub(crate) save: Option<SavePolicy>,
    /// `cache=SIZE`
    pub(crate) cache: Option<Size>,
    /// `dirty=SIZE`
    pub(crate) dirty: Option<Size>,
    /// `publish_quiet=TIME`
    pub(crate) publish_quiet: Option<Span>,
    /// `publish_max=TIME`
    pub(crate) publish_max: Option<Span>,
    /// `ro`
    pub(crate) read_only: bool,
    /// `allow_other`
    pub(crate) allow_other: bool,
    /// `uid=NUMBER`
    pub(crate) uid: Option<Id>,
    /// `gid=NUMBER`
    pub(crate) gid: Option<Id>,
    /// `passphrase_file=FILE`
    pub(crate) passphrase_file: Option<PathBuf>,
    /// `passphrase_command=COMMAND`, which cannot hold a comma
    pub(crate) passphrase_command: Option<String>,
    /// `home=DIR`, for fstab, where there is no environment
    pub(crate) home: Option<PathBuf>,
    /// The rest.
    pub(crate) fuse: Vec<String>,
}

impl MountOptions {
    /// Reads lists of options separated by commas, in their order; later ones win.
    pub(crate) fn parse(lists: &[String]) -> Result<Self> {
        let mut options = Self::default();
        for option in lists.iter().flat_map(|list| list.split(',')).filter(|one| !one.is_empty()) {
            options.take(option)?;
        }
        Ok(options)
    }

    /// One that makes no sense for an older version, if any is there.
    pub(crate) fn only_live(&self) -> Option<&'static str> {
        let given = [
            ("save", self.save.is_some()),
            ("dirty", self.dirty.is_some()),
            ("publish_quiet", self.publish_quiet.is_some()),
            ("publish_max", self.publish_max.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
    }

    fn take(&mut self, option: &str) -> Result<()> {
        let wrong = |err: &dyn std::fmt::Display| {
            Failure::usage(format_args!("mount option '{option}': {err}"))
        };
        match option.split_once('=') {
            Some(("at", value)) => self.at = Some(value.parse().map_err(|err| wrong(&err))?),
            Some(("save", value)) => self.save = Some(value.parse().map_err(|err| wrong(&err))?),
            Some(("cache", value)) => self.cache = Some(value.parse().map_err(|err| wrong(&err))?),
            Some(("dirty", value)) => self.dirty = Some(value.parse().map_err(|err| wrong(&err))?),
            Some(("publish_quiet", value)) => {
                self.publish_quiet = Some(value.parse().map_err(|err| wrong(&err))?);
            }
            Some(("publish_max", value)) => {
                self.publish_max = Some(value.parse().map_err(|err| wrong(&err))?);
            }
            Some(("uid", value)) => self.uid = Some(value.parse().map_err(|err| wrong(&err))?),
            Some(("gid", value)) => self.gid = Some(value.parse().map_err(|err| wrong(&err))?),
            Some(("passphrase_file", value)) => self.passphrase_file = Some(value.into()),
            Some(("passphrase_command", value)) => self.passphrase_command = Some(value.into()),
            Some(("home", value)) => self.home = Some(value.into()),
            // Left by mount(8) for umount(8).
            Some(("uhelper" | "helper", _)) => (),
            // Before what else fstab says of it, as `home=`, which mount(8) leaves out then.
            None if option == "remount" => {
                let how = "unmount it and mount it again; what is the kernel's alone, as ro, changes \
                           with 'mount -i -o remount,ro DIR'";
                return Err(Failure::usage(format_args!("mount option 'remount': {how}")));
            }
            None if option == "ro" => self.read_only = true,
            None if option == "allow_other" => self.allow_other = true,
            _ if option.starts_with("X-") => (),
            _ => self.fuse.push(option.to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_fstab_line_is_understood() {
        let options = MountOptions::parse(&[
            "rw,_netdev,save=release,noatime,uid=1026,allow_other".into(),
            "cache=8MiB,home=/srv/c,at=015123ebb9dfd241".into(),
        ])
        .unwrap();
        assert_eq!(options.save, Some(SavePolicy::Release));
        assert_eq!(options.cache, Some(Size(8 << 20)));
        assert_eq!(options.at, "015123ebb9dfd241".parse().ok());
        assert_eq!(options.only_live(), Some("save"));
        assert_eq!(options.home, Some("/srv/c".into()));
        assert_eq!((options.uid, options.gid), (Some(Id(1026)), None));
        assert!(options.allow_other && !options.read_only);
        assert_eq!(options.fuse, ["rw", "_netdev", "noatime"]);
    }

    #[test]
    fn a_bad_value_names_its_option() {
        for bad in ["save=often", "uid=me", "gid=4294967295", "uid=-1"] {
            let failure = MountOptions::parse(&[bad.into()]).unwrap_err();
            let start = format!("mount option '{bad}':");
            assert!(failure.message.starts_with(&start), "{}", failure.message);
        }
    }
}
