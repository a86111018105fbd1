//! Random histories: a shared base, divergence, pulls now and then, and the laws at every step.
//!
//! Each history is named by a seed and a number, and replays alone.

use std::collections::{BTreeMap, BTreeSet};

use cairnfs_merge::{Entry, Indexed, Kind, Name, NodeId, State, join};

use super::peer::{Done, Peer, Refused, Text, show, split};

/// A small generator (xorshift64*), so that a history is the same everywhere and for ever.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64, run: u64) -> Self {
        let mut rng = Self((seed << 32) ^ run ^ 0x9e37_79b9_7f4a_7c15);
        for _ in 0..8 {
            rng.next();
        }
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, V>(&mut self, from: &'a [V]) -> &'a V {
        &from[self.below(from.len())]
    }
}

/// What a history may contain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Every action is preceded by a full exchange: nobody may ever see a conflict.
    pub(crate) in_step: bool,
    /// Versions may see the temporary files of editors' saves.
    pub(crate) slow_saves: bool,
}

/// How often a history moves directories and makes hard links.
#[derive(Clone, Copy, Debug)]
struct Often {
    moves: usize,
    links: usize,
    slow_saves: bool,
}

/// Runs one history; panics where a law is broken. Returns the conflicts at its end.
pub(crate) fn run(seed: u64, number: u64, shape: Shape) -> usize {
    let (mut rng, mut peers, snapshots) = play(seed, number, shape);
    check_lattice(&mut rng, &snapshots);
    exchange_all(&mut peers, 5);
    check_agreement(&peers);
    check_nothing_lost(&peers);
    let conflicts = peers[0].kinds().len();
    check_resolved_stays_resolved(&mut peers);
    conflicts
}

/// The peers at the end of a history.
pub(crate) fn parted(seed: u64, number: u64) -> (Rng, Vec<Peer>) {
    let (rng, mut peers, _) = play(seed, number, Shape { in_step: false, slow_saves: false });
    for peer in &mut peers {
        peer.publish();
    }
    (rng, peers)
}

/// The peers at the end of a history, once all have heard of all.
pub(crate) fn met(seed: u64, number: u64) -> (Rng, Vec<Peer>) {
    let (rng, mut peers) = parted(seed, number);
    exchange_all(&mut peers, 5);
    for peer in &mut peers {
        peer.publish();
    }
    (rng, peers)
}

/// The peers at the end of a history, and states on the way.
fn play(seed: u64, number: u64, shape: Shape) -> (Rng, Vec<Peer>, Vec<State<Text>>) {
    let mut rng = Rng::new(seed, number);
    let auto_merge = rng.chance(20);
    let batches = rng.chance(30);
    let count = *rng.pick(&[2, 3, 3, 4, 5]);
    let mut peers: Vec<Peer> = ('A'..).take(count).map(Peer::new).collect();
    let library = peers[0].library.clone();
    for peer in &mut peers {
        (peer.auto_merge, peer.batches, peer.library) = (auto_merge, batches, library.clone());
    }
    for n in 0..rng.below(15) {
        let path = new_path(&mut rng, &peers[0]);
        let text = format!("base{}", rng.below(6));
        let _refused =
            if n % 3 == 0 { peers[0].write(&path, &text) } else { peers[0].mkdir(&path) };
    }
    let base = peers[0].clone();
    for peer in &mut peers[1..] {
        peer.pull(&base);
    }
    peers[0].publish();
    let pull_percent = *rng.pick(&[5, 15, 30, 50]);
    let often = Often {
        moves: *rng.pick(&[1, 1, 6]),
        links: *rng.pick(&[1, 1, 8]),
        slow_saves: shape.slow_saves,
    };
    let mut snapshots: Vec<State<Text>> = vec![base.tree.state().clone()];
    for step in 0..rng.below(27) + 4 {
        let who = rng.below(count);
        if shape.in_step {
            exchange_all(&mut peers, 1);
        } else if rng.chance(pull_percent) {
            let other = rng.below(count);
            peers[other].publish();
            let other = peers[other].clone();
            peers[who].pull(&other);
        }
        let _refused = random_action(&mut rng, &mut peers[who], step, often);
        // The whole check at every step would be most of the run time.
        if rng.chance(20) {
            check_form(&peers[who]);
        }
        if shape.in_step {
            assert_eq!(peers[who].kinds(), BTreeSet::new(), "a conflict out of nothing");
        }
        if !batches || rng.chance(20) {
            peers[who].publish();
            snapshots.push(peers[who].tree.state().clone());
        }
    }
    (rng, peers, snapshots)
}

fn exchange_all(peers: &mut [Peer], rounds: usize) {
    for _ in 0..rounds {
        let before: Vec<_> = peers.iter().map(|peer| peer.tree.state().vv.clone()).collect();
        if before.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        for to in 0..peers.len() {
            for from in 0..peers.len() {
                peers[from].publish();
                let other = peers[from].clone();
                peers[to].pull(&other);
            }
        }
    }
}

/// Paths of the visible entries, directories or leaves.
fn paths(peer: &Peer, dirs: bool) -> Vec<String> {
    let shown = peer.show().into_keys();
    let wanted = shown.filter(|path| path.ends_with('/') == dirs);
    wanted.map(|path| path.trim_end_matches('/').to_owned()).collect()
}

fn new_path(rng: &mut Rng, peer: &Peer) -> String {
    let mut dirs = paths(peer, true);
    dirs.retain(|dir| dir.matches('/').count() < 3);
    dirs.push(String::new());
    let dir = rng.pick(&dirs).clone();
    let names: &[&str] = if rng.chance(60) { &["a", "b", "c"] } else { &["p", "q", "r"] };
    let name = rng.pick(names);
    if dir.is_empty() { (*name).to_owned() } else { format!("{dir}/{name}") }
}

fn old_path(rng: &mut Rng, peer: &Peer, dirs: bool) -> Done<String> {
    let paths = paths(peer, dirs);
    if paths.is_empty() { Err(Refused("empty".into())) } else { Ok(rng.pick(&paths).clone()) }
}

fn random_action(rng: &mut Rng, peer: &mut Peer, step: usize, often: Often) -> Done {
    let mut actions = vec![
        "write", "write", "write", "new", "new", "mkdir", "mv", "mv", "rm", "rmr", "attr", "ln",
        "res", "save", "ex",
    ];
    actions.extend(std::iter::repeat_n("mvdir", 2 * often.moves));
    actions.extend(std::iter::repeat_n("hl", often.links));
    let letter = peer.device.0[0];
    let mut text = format!("t{letter}.{step}");
    if rng.chance(20) {
        text = format!("t{}", rng.below(3));
    }
    if peer.auto_merge {
        let line = |rng: &mut Rng, n| if rng.chance(66) { format!("l{n}") } else { text.clone() };
        text = (0..5).map(|n| line(rng, n)).collect::<Vec<_>>().join("\n");
    }
    match *rng.pick(&actions) {
        "write" => {
            let path = old_path(rng, peer, false).unwrap_or_else(|_| new_path(rng, peer));
            locally(peer, &path, Some(&text), |peer| peer.write(&path, &text))
        }
        "save" => {
            let path = old_path(rng, peer, false)?;
            let slowly = often.slow_saves && rng.chance(50);
            if slowly { peer.save_slowly(&path, &text) } else { peer.save(&path, &text) }
        }
        "new" => peer.write(&new_path(rng, peer), &text),
        "ln" => peer.put(&new_path(rng, peer), &text, Kind::Symlink),
        "mkdir" => peer.mkdir(&new_path(rng, peer)),
        "mv" => peer.mv(&old_path(rng, peer, false)?, &new_path(rng, peer)),
        "mvdir" => peer.mv(&old_path(rng, peer, true)?, &new_path(rng, peer)),
        "rm" => {
            let path = old_path(rng, peer, false)?;
            locally(peer, &path, None, |peer| peer.rm(&path))
        }
        "rmr" => peer.rmr(&old_path(rng, peer, true)?),
        "hl" => peer.hard_link(&old_path(rng, peer, false)?, &new_path(rng, peer)),
        "ex" => {
            let (a, b) = (rng.chance(30), rng.chance(30));
            peer.exchange(&old_path(rng, peer, a)?, &old_path(rng, peer, b)?)
        }
        "attr" => {
            let dirs = rng.chance(30);
            peer.set_attr(&old_path(rng, peer, dirs)?, ["x", "y", "~t"][rng.below(3)], &text)
        }
        _ => peer.resolve(&old_path(rng, peer, false)?, &text),
    }
}

/// Edit locality: a write or an unlink at one path changes no other path's bytes or name, but for
/// a copy that equals the new bytes, and a long copy name that gets shorter when its blocker goes.
/// The other names of the very file that is written show the new bytes: that is a hard link. And it
/// changes no attribute anywhere.
fn locally(
    peer: &mut Peer,
    path: &str,
    text: Option<&str>,
    action: impl FnOnce(&mut Peer) -> Done,
) -> Done {
    let rendered = peer.render();
    let before = show(&rendered);
    let entries: BTreeMap<_, _> = rendered
        .by_path()
        .into_iter()
        .map(|(path, entry)| (String::from_utf8(path).unwrap(), entry))
        .collect();
    let written = entries.get(path).filter(|entry| text.is_some() && !entry.is_copy());
    let attrs_before = attrs(peer);
    action(peer)?;
    let after = peer.show();
    let attrs_after = attrs(peer);
    for (other, was) in &attrs_before {
        // What is written over something of another kind is a new file, and where something is removed a
        // copy may come that had a longer name.
        let is_there = text.is_some() || other != path;
        let is = attrs_after.get(other).filter(|is| is_there && is.0 == was.0);
        assert!(is.is_none_or(|is| is == was), "{other} had {was:?} and has {is:?}");
    }
    let shortened = |long: &String, short: &String, shown: &Option<String>| {
        let hex = |name: &str| name.rsplit_once('@').map_or(0, |(_, hex)| hex.len());
        let (was, is) = (hex(long), hex(short));
        long.starts_with(short) && is >= 8 && is < was && before.get(long) == Some(shown)
    };
    for (other, shown) in before.iter().filter(|(other, _)| *other != path) {
        let now = after.get(other);
        let entry = entries.get(other);
        let collapsed =
            entry.is_some_and(|entry| entry.is_copy()) && now.is_none() && shown.as_deref() == text;
        let linked = now.is_some_and(|now| now.as_deref() == text)
            && written.zip(entry).is_some_and(|(a, b)| a.id() == b.id() && !b.is_copy());
        let shorter = now.is_none() && after.keys().any(|short| shortened(other, short, shown));
        assert!(
            now == Some(shown) || collapsed || linked || shorter,
            "acting on {path} changed {other}: {before:?} {after:?}"
        );
    }
    for (other, shown) in after.iter().filter(|(other, _)| *other != path) {
        let shorter = before.keys().any(|long| shortened(long, other, shown));
        assert!(
            before.contains_key(other) || shorter,
            "acting on {path} made {other} of {before:?}: {after:?}"
        );
    }
    let now = after.get(path);
    match text {
        Some(text) => assert_eq!(now, Some(&Some(text.to_owned())), "written at {path}"),
        None => {
            let shorter =
                now.is_some_and(|now| before.keys().any(|long| shortened(long, &path.into(), now)));
            assert!(now.is_none() || shorter, "{path} is still there: {before:?} {after:?}");
        }
    }
    Ok(())
}

/// The kind and the attributes of each version that one file alone has, by its path.
fn attrs(peer: &Peer) -> BTreeMap<String, (Kind, [Option<String>; 2])> {
    let rendered = peer.render();
    let alone = rendered.by_path().into_iter().filter(|(_, entry)| entry.owners.len() == 1);
    let of = |(path, entry): (Vec<u8>, &Entry<Text>)| {
        let path = String::from_utf8(path).unwrap();
        let attrs = ["x", "y"].map(|key| peer.attr(&path, key));
        (path, (entry.kind, attrs))
    };
    alone.map(of).collect()
}

/// Well-formed view: parents are shown directories, names are legal and unique, every live leaf is
/// shown, and the indexes are those of the state.
fn check_form(peer: &Peer) {
    let rendered = peer.render();
    let mut seen = BTreeSet::new();
    let mut shown: BTreeSet<NodeId> = BTreeSet::new();
    for (index, item) in rendered.items.iter().enumerate() {
        if let Some(parent) = item.parent {
            assert!(parent < index && rendered.items[parent].entry.kind.is_dir(), "parent");
        }
        assert!(seen.insert(rendered.path(index)), "a name twice");
        let last = item.entry.name.as_bytes();
        assert!(Name::new(last).is_ok());
        shown.extend(item.entry.owners.keys());
    }
    let state = peer.tree.state();
    for (id, node) in &state.nodes {
        assert!(node.kind.is_dir() || shown.contains(id), "{id} is invisible");
        let ops = node.live.ops().chain(node.content.ops());
        let ops = ops.chain(node.places.values().flat_map(|reg| reg.ops()));
        assert!(ops.into_iter().all(|op| state.vv.knows(op)), "{id} holds an unknown operation");
    }
    assert_eq!(Indexed::new(state.clone()), peer.tree, "the indexes are not those of the state");
}

/// The join is commutative, associative, idempotent, absorbing.
fn check_lattice(rng: &mut Rng, snapshots: &[State<Text>]) {
    for _ in 0..4 {
        let (a, b, c) = (rng.pick(snapshots), rng.pick(snapshots), rng.pick(snapshots));
        let ab = join(a, b);
        assert_eq!(ab, join(b, a), "commutative");
        assert_eq!(join(a, a), *a, "idempotent");
        let abc = join(&ab, c);
        assert_eq!(abc, join(a, &join(b, c)), "associative");
        assert_eq!(join(&abc, a), abc, "absorbing");
        check_identities(&abc, a);
    }
}

/// What a node is, and what its copies are called, is settled by its id.
fn check_identities(a: &State<Text>, b: &State<Text>) {
    for (id, node) in &a.nodes {
        if let Some(other) = b.nodes.get(id) {
            assert_eq!(
                (node.kind, &node.origin),
                (other.kind, &other.origin),
                "two meanings of {id}"
            );
        }
    }
}

fn check_agreement(peers: &[Peer]) {
    let first = &peers[0];
    check_form(first);
    for peer in &peers[1..] {
        assert_eq!(peer.tree, first.tree, "convergence");
        assert_eq!(peer.show(), first.show(), "equal states, different trees");
        assert_eq!(peer.kinds(), first.kinds(), "equal states, different conflicts");
        check_identities(peer.tree.state(), first.tree.state());
    }
}

/// Every version that nobody replaced, removed or resolved is shown, or stands in the history of
/// one that is.
fn check_nothing_lost(peers: &[Peer]) {
    let rendered = peers[0].render();
    let contents = rendered.items.iter().filter_map(|item| item.entry.content.as_ref());
    let visible: BTreeSet<_> =
        contents.flat_map(|content| content.hist.iter().copied().chain([content.id])).collect();
    let gone: BTreeSet<_> = peers.iter().flat_map(|peer| &peer.gone).collect();
    let written: BTreeMap<_, _> = peers.iter().flat_map(|peer| &peer.written).collect();
    for (version, id) in written.into_iter().filter(|(version, _)| !gone.contains(version)) {
        assert!(visible.contains(id), "{version:?} is lost: {:?}", peers[0].show());
    }
}

/// What one peer removed stays removed on all.
fn check_resolved_stays_resolved(peers: &mut [Peer]) {
    let copies = |peer: &Peer| {
        let rendered = peer.render();
        let copies = (0..rendered.items.len()).filter(|at| rendered.items[*at].entry.is_copy());
        let paths = copies.map(|at| String::from_utf8(rendered.path(at)).unwrap());
        paths.collect::<Vec<_>>()
    };
    for _ in 0..60 {
        let Some(copy) = copies(&peers[0]).into_iter().next() else { break };
        assert!(split(&copy).1.contains('@'));
        peers[0].rm(&copy).unwrap();
    }
    peers[0].publish();
    let first = peers[0].clone();
    for peer in &mut peers[1..] {
        peer.pull(&first);
        assert_eq!(peer.tree, first.tree);
        assert!(copies(peer).is_empty(), "a conflict came back");
    }
}
