//! Devices with daemons of their own: homes, mounts, system calls, sockets.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    time::{Duration, SystemTime},
};

use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde_json::Value;

use super::devices::{Device, Devices, Listed, Shown, Told};
use crate::{
    fleet::Fleet,
    peer::{self, BUCKET, Peer},
};

/// Exit code of `conflicts` when there are some.
const CONFLICTS: i32 = 10;
const EXECUTE: u32 = 0o111;

/// Devices with real daemons, homes and mounts. They stand still unless it is their turn.
#[derive(Debug, Default)]
pub struct Daemons {
    fleet: Option<Fleet>,
    letters: Vec<char>,
}

impl Daemons {
    /// No devices yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn index(&self, who: char) -> Told<usize> {
        let found = self.letters.iter().position(|letter| *letter == who);
        found.ok_or_else(|| format!("there is no device {who}"))
    }

    fn fleet(&mut self) -> Told<&mut Fleet> {
        self.fleet.as_mut().ok_or_else(|| "there are no devices".to_owned())
    }

    fn heads(&mut self) -> Told<Vec<Value>> {
        let fleet = self.fleet()?;
        fleet.together();
        let heads = (0..fleet.count()).map(|index| {
            let home = fleet.peer(index).home();
            let mut status = home.cairnfs(&["status", BUCKET, "--json"]).succeeds().json();
            status["buckets"][0]["head"].take()
        });
        Ok(heads.collect())
    }
}

impl Devices for Daemons {
    fn admit(&mut self, who: char) -> Told {
        match &mut self.fleet {
            Some(fleet) => fleet.admit(),
            None => self.fleet = Some(Fleet::with_courier()),
        }
        self.letters.push(who);
        self.settle()
    }

    fn device(&mut self, who: char) -> Told<&mut dyn Device> {
        let index = self.index(who)?;
        Ok(self.fleet()?.only(index))
    }

    fn pull(&mut self, pulls: &[(char, char)]) -> Told {
        let pair = |(to, from): &(char, char)| Ok((self.index(*to)?, self.index(*from)?));
        let pulls = pulls.iter().map(pair).collect::<Told<Vec<_>>>()?;
        self.fleet()?.pull(&pulls);
        Ok(())
    }

    fn settle(&mut self) -> Told {
        if self.letters.len() < 2 {
            return Ok(());
        }
        self.fleet()?.settle().map(drop)
    }

    /// Nobody who has nothing new to say makes a version.
    fn agree(&mut self) -> Told {
        let before = self.heads()?;
        self.settle()?;
        let after = self.heads()?;
        if before == after { Ok(()) } else { Err(format!("{before:?} became {after:?} at rest")) }
    }

    fn restart(&mut self) -> Told {
        let fleet = self.fleet()?;
        for index in 0..fleet.count() {
            if index % 2 == 0 {
                fleet.restart(index);
            } else {
                fleet.kill(index);
            }
        }
        Ok(())
    }
}

impl Device for Peer {
    fn write(&mut self, path: &str, text: &str) -> Told {
        peer::write(&self.path(path), text.as_bytes()).map_err(why(path))
    }

    fn mkdir(&mut self, path: &str) -> Told {
        fs::create_dir(self.path(path)).map_err(why(path))
    }

    fn unlink(&mut self, path: &str) -> Told {
        fs::remove_file(self.path(path)).map_err(why(path))
    }

    fn rmdir(&mut self, path: &str) -> Told {
        fs::remove_dir(self.path(path)).map_err(why(path))
    }

    fn rename(&mut self, from: &str, to: &str) -> Told {
        fs::rename(self.path(from), self.path(to)).map_err(why(from))
    }

    fn symlink(&mut self, path: &str, target: &str) -> Told {
        symlink(target, self.path(path)).map_err(why(path))
    }

    fn set_executable(&mut self, path: &str, executable: bool) -> Told {
        let path = self.path(path);
        let mode = fs::metadata(&path).map_err(why("stat"))?.mode();
        let mode = if executable { mode | EXECUTE } else { mode & !EXECUTE };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(why("chmod"))
    }

    fn set_xattr(&mut self, path: &str, key: &str, value: &str) -> Told {
        let key = format!("user.{key}");
        setxattr(self.path(path), key, value.as_bytes(), XattrFlags::empty()).map_err(why(path))
    }

    fn set_mtime(&mut self, path: &str, seconds: i64) -> Told {
        let since = Duration::from_secs(seconds.unsigned_abs());
        let file = fs::File::open(self.path(path)).map_err(why(path))?;
        file.set_modified(SystemTime::UNIX_EPOCH + since).map_err(why(path))
    }

    fn resolve(&mut self, path: &str, text: &str) -> Told {
        let kept = self.scratch().join("kept");
        fs::write(&kept, text).map_err(why("write"))?;
        let path = self.path(path).into_os_string();
        self.home()
            .cairnfs(&["resolve".into(), path, "--keep".into(), kept.into_os_string()])
            .succeeds();
        Ok(())
    }

    fn publish(&mut self) -> Told {
        self.home().cairnfs(&["publish", BUCKET]).succeeds();
        Ok(())
    }

    fn merge_texts(&mut self) -> Told {
        self.home().cairnfs(&["strategy", BUCKET, "merge-text"]).succeeds();
        Ok(())
    }

    fn tree(&mut self) -> Told<BTreeMap<String, Shown>> {
        let mut tree = BTreeMap::new();
        let mut dirs = vec![String::new()];
        while let Some(above) = dirs.pop() {
            for entry in fs::read_dir(self.path(&above)).map_err(why(&above))? {
                let name = entry.map_err(why(&above))?.file_name();
                let path = format!("{above}{}", name.to_string_lossy());
                let kind = fs::symlink_metadata(self.path(&path)).map_err(why(&path))?.file_type();
                let shown = if kind.is_dir() {
                    dirs.push(format!("{path}/"));
                    Shown::Dir
                } else if kind.is_symlink() {
                    let target = fs::read_link(self.path(&path)).map_err(why(&path))?;
                    Shown::Link(target.to_string_lossy().into_owned())
                } else {
                    Shown::File(fs::read_to_string(self.path(&path)).map_err(why(&path))?)
                };
                if tree.insert(path.clone(), shown).is_some() {
                    return Err(format!("{path} is listed twice"));
                }
            }
        }
        Ok(tree)
    }

    fn conflicts(&mut self) -> Told<Vec<Listed>> {
        let outcome = self.home().cairnfs(&["conflicts", BUCKET, "--json"]);
        if !matches!(outcome.code, Some(0 | CONFLICTS)) {
            return Err(outcome.to_string());
        }
        let said = outcome.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let listed = all(&said["conflicts"]).into_iter().flat_map(|conflict| {
            let ids: Vec<_> = all(&conflict["versions"]).iter().map(|it| text(&it["id"])).collect();
            let listed = |name: &Value| {
                let shown = all(&name["versions"]).into_iter().map(|it| text(&it["path"]));
                Listed {
                    kind: text(&conflict["kind"]),
                    path: text(&name["path"]),
                    sides: shown.zip(ids.clone()).collect(),
                }
            };
            // A scenario has each name by itself.
            let others = all(&conflict["other_names"]);
            others.iter().chain([&conflict]).map(listed).collect::<Vec<_>>()
        });
        Ok(listed.collect())
    }

    fn executable(&mut self, path: &str) -> Told<String> {
        let mode = fs::metadata(self.path(path)).map_err(why(path))?.mode();
        Ok(if mode & EXECUTE == 0 { "0" } else { "1" }.into())
    }

    fn mtime(&mut self, path: &str) -> Told<String> {
        Ok(fs::metadata(self.path(path)).map_err(why(path))?.mtime().to_string())
    }

    fn xattr(&mut self, path: &str, key: &str) -> Told<String> {
        let mut value = [0; 256];
        match getxattr(self.path(path), format!("user.{key}"), &mut value) {
            Ok(len) => Ok(String::from_utf8_lossy(&value[..len]).into_owned()),
            Err(rustix::io::Errno::NODATA) => Ok(String::new()),
            Err(err) => Err(why(path)(err)),
        }
    }
}

/// An error in words, with what it is about before it.
fn why<E: Display>(what: &str) -> impl Fn(E) -> String {
    move |err| format!("{what}: {err}")
}
