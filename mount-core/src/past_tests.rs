//! Each version of a random load is shown as it was, whatever was done since.

use std::time::Duration;

use crate::{
    Error, Ino, Kind, Mount, PastView, Which,
    peers::hex,
    random_load::{Model, Op, Possible, fresh, mount_publishing, sizes, step},
};

fn show(mount: &Mount, id: &[u8; 32]) -> PastView {
    PastView::new(mount.past(&Which::Id(hex(id))).unwrap().unwrap())
}

fn read_back(view: &PastView) -> Model {
    let fh = view.opendir(Ino::ROOT).unwrap();
    let mut found: Vec<(u64, Vec<u8>, crate::Attr)> = Vec::new();
    // As the kernel asks: some at a time.
    loop {
        let (from, before) = (found.last().map_or(2, |(next, ..)| *next), found.len());
        let mut take = |entry: crate::DirEntry| {
            let has_room = found.len() < before + 2;
            if has_room {
                found.push((entry.next, entry.name, entry.attr.unwrap()));
            }
            has_room
        };
        view.readdir(Ino::ROOT, fh, from, true, &mut take).unwrap();
        if found.len() == before {
            break;
        }
    }
    view.releasedir(fh);
    let content = |ino, kind, size| {
        (kind != Kind::Dir).then(|| {
            let fh = view.open(ino).unwrap();
            let bytes = view.read(fh, 0, u32::try_from(size).unwrap()).unwrap();
            view.release(fh);
            assert!(matches!(view.read(fh, 0, 1), Err(Error::BadHandle)));
            bytes
        })
    };
    found.into_iter().map(|(_, name, at)| (name, content(at.ino, at.kind, at.size))).collect()
}

fn one_load(seed: u64) {
    let hour = Duration::from_secs(3600);
    let (disk, device, mut rng) = fresh(seed);
    let mounted = mount_publishing(&disk, &device, hour, hour).unwrap();
    let mut states = Possible::empty();
    let mut versions = Vec::new();
    for _ in 0..6 {
        for _ in 0..15 {
            if let Some(op) = Op::random(&mut rng, states.now()) {
                step(&mounted, &mut states, &op).unwrap();
            }
        }
        let id = mounted.publish().unwrap();
        // Shown from the first to the last.
        versions.push((id, states.now().clone(), show(&mounted, &id)));
    }
    let check = |view: &PastView, model: &Model| {
        let found = read_back(view);
        assert!(found == *model, "seed {seed}: {:?}, not {:?}", sizes(&found), sizes(model));
    };
    for (_, model, view) in &versions {
        check(view, model);
        view.end();
        assert!(matches!(view.getattr(Ino::ROOT), Err(Error::Stopped)));
    }
    mounted.stop().unwrap();
    drop(mounted);
    let again = mount_publishing(&disk, &device, hour, hour).unwrap();
    for (id, model, _) in &versions {
        check(&show(&again, id), model);
    }
    again.stop().unwrap();
}

#[test]
fn every_version_is_shown_as_it_was() {
    (1..=20).for_each(one_load);
}
