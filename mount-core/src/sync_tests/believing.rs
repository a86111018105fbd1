//! Whatever the kernel remembers of names and attributes is still so after a merge, or it was told.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::{ME, two};
use crate::{
    Attr, Error, Ino, Kind, Mount, Observer, Outdated, RenameMode, SetAttr,
    random_load::{Rng, write_all},
};

const NAMES: [&[u8]; 3] = [b"x", b"y", b"z"];

/// What a kernel that forgets nothing by itself would believe.
#[derive(Debug, Default)]
struct Beliefs {
    names: BTreeMap<(Ino, Vec<u8>), Option<Ino>>,
    attrs: BTreeMap<Ino, Attr>,
}

#[derive(Debug, Default)]
struct Kernel(Mutex<Beliefs>);

impl Observer for Kernel {
    fn outdated(&self, what: Vec<Outdated>) {
        let mut beliefs = self.0.lock();
        for outdated in what {
            match outdated {
                Outdated::Inode(ino) => drop(beliefs.attrs.remove(&ino)),
                Outdated::Name { dir, name } | Outdated::Gone { dir, name, .. } => {
                    beliefs.names.remove(&(dir, name));
                }
            }
        }
    }
}

impl Kernel {
    /// Looks everything up, and some names that are not there.
    fn look_around(&self, mount: &Mount) {
        let mut beliefs = Beliefs::default();
        for (dir, names) in listed(mount) {
            beliefs.attrs.insert(dir, mount.getattr(dir).unwrap());
            for name in names.into_iter().chain(NAMES.map(<[u8]>::to_vec)) {
                let found = found(mount, dir, &name);
                beliefs.attrs.extend(found.map(|attr| (attr.ino, attr)));
                beliefs.names.insert((dir, name), found.map(|attr| attr.ino));
            }
        }
        *self.0.lock() = beliefs;
    }

    /// What it believes and is not so.
    fn mistakes(&self, mount: &Mount) -> Vec<String> {
        let beliefs = self.0.lock();
        let mut mistakes = Vec::new();
        for ((dir, name), believed) in &beliefs.names {
            // Nobody gets to what is gone by a name.
            let is_dir = mount.getattr(*dir).is_ok_and(|attr| attr.kind == Kind::Dir);
            let now = is_dir.then(|| found(mount, *dir, name).map(|attr| attr.ino));
            if now.is_some_and(|now| now != *believed) {
                let name = String::from_utf8_lossy(name);
                mistakes.push(format!("{dir:?}/{name} is {believed:?} and not {now:?}"));
            }
        }
        for (ino, believed) in &beliefs.attrs {
            if let Ok(now) = mount.getattr(*ino)
                && now != *believed
            {
                mistakes.push(format!("{believed:?} and not {now:?}"));
            }
        }
        mistakes
    }
}

fn found(mount: &Mount, dir: Ino, name: &[u8]) -> Option<Attr> {
    match mount.lookup(dir, name) {
        Ok(attr) => Some(attr),
        Err(Error::NotFound) => None,
        Err(err) => panic!("{err}"),
    }
}

/// Every directory with what is in it.
fn listed(mount: &Mount) -> BTreeMap<Ino, Vec<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![Ino::ROOT];
    while let Some(dir) = todo.pop() {
        let fh = mount.opendir(dir).unwrap();
        let mut names = Vec::new();
        let mut take = |entry: crate::DirEntry| {
            todo.extend((entry.kind == Kind::Dir).then_some(entry.ino));
            names.push(entry.name);
            true
        };
        mount.readdir(dir, fh, 2, true, &mut take).unwrap();
        mount.releasedir(fh);
        found.insert(dir, names);
    }
    found
}

/// Does something; much of it is refused.
fn act(mount: &Mount, rng: &mut Rng) {
    let dirs: Vec<(Ino, Vec<Vec<u8>>)> = listed(mount).into_iter().collect();
    let mut place = || {
        let pick = |rng: &mut Rng, len: usize| usize::try_from(rng.below(len as u64)).unwrap();
        let (dir, names) = &dirs[pick(rng, dirs.len())];
        // Copies among them.
        let index = pick(rng, NAMES.len() + names.len());
        let name = names.get(index).map_or_else(|| NAMES[index - names.len()], Vec::as_slice);
        (*dir, name.to_vec())
    };
    let ((dir, name), (to, new)) = (place(), place());
    let ino = mount.lookup(dir, &name).map(|attr| attr.ino);
    let result = match rng.below(9) {
        0 => mount.mkdir(ME, dir, &name, 0o755).map(drop),
        1 => mount.mknod(ME, dir, &name, Kind::File, 0o644, 0).map(drop),
        2 | 3 => ino.and_then(|ino| write_all(mount, ino, 0, &rng.bytes(3))),
        4 => mount.unlink(dir, &name),
        5 => mount.rmdir(dir, &name),
        6 => ino.and_then(|ino| mount.link(ino, to, &new).map(drop)),
        7 => ino.and_then(|ino| {
            let changes = SetAttr { mode: Some(0o600), ..SetAttr::default() };
            mount.setattr(ino, None, changes).map(drop)
        }),
        _ => mount.rename(dir, &name, to, &new, RenameMode::Replace),
    };
    let is_damage = matches!(result, Err(Error::Damaged { .. } | Error::Io(_)));
    assert!(!is_damage, "{result:?}");
}

#[test]
fn what_the_kernel_is_not_told_of_is_as_it_was() {
    let (a, b) = two();
    let kernel = Arc::new(Kernel::default());
    a.mount().observe(Arc::clone(&kernel) as Arc<dyn Observer>);
    for round in 0..60 {
        let mut rng = Rng(round + 1);
        // Else nothing is published before the merge, and nobody is there to change anything in it; or
        // there is nothing to merge.
        a.write("mine", &round.to_string());
        b.write("theirs", &round.to_string());
        for _ in 0..rng.below(6) {
            act(a.mount(), &mut rng);
        }
        for _ in 0..1 + rng.below(8) {
            act(b.mount(), &mut rng);
        }
        let here = Arc::clone(&kernel);
        a.once_published(move |mount| {
            for _ in 0..rng.below(8) {
                act(mount, &mut rng);
            }
            here.look_around(mount);
        });
        a.pull(&b).unwrap();
        let mistakes = kernel.mistakes(a.mount());
        assert!(mistakes.is_empty(), "round {round}: {mistakes:#?}");
        a.mount().publish().unwrap();
        b.pull(&a).unwrap();
    }
}
