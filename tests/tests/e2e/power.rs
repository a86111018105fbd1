//! The power goes while a bucket is on a real ext4: what was acknowledged is there afterwards.
//!
//! The bucket's home is on ext4 on a disk of [`platter`](cairnfs_tests::platter), which can lose,
//! reorder and tear what no barrier covers. Writers work; a cut takes a picture of what the disk
//! would hold; ext4 is mounted from the picture, the bucket opened, and its files judged. Every
//! third time the power goes again while the bucket is being opened.
//!
//! `CAIRNFS_TEST_CUTS` sets the number of cuts of each test, `CAIRNFS_TEST_SEED` replays the choices.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use cairnfs_tests::{
    Home, Image, Peer, Rng, Save, data, need, peer::BUCKET, platter::Platter, poll::let_pass,
};
use parking_lot::Mutex;

use crate::load::{self, Change, Writer, step};

const WRITERS: u64 = 3;
const DISK_MIB: u64 = 384;

#[test]
fn what_was_closed_survives_a_power_cut_under_flush() {
    cut_again_and_again(Save::Flush);
}

#[test]
fn what_was_fsynced_survives_a_power_cut_under_every_policy() {
    cut_again_and_again(Save::Interval(Duration::from_secs(3600)));
}

fn cut_again_and_again(save: Save) {
    if need::plain_dir().is_some() {
        return;
    }
    let cuts = data::number_from_env("CAIRNFS_TEST_CUTS").unwrap_or(8);
    let seed = Rng::seed_from_env();
    eprintln!("{save:?}: {cuts} cuts, CAIRNFS_TEST_SEED={seed}");
    let mut rng = Rng::new(seed);
    let limit = Duration::from_secs(180 + cuts * 100);
    let home = Home::on_within(Image::ext4_with_power(DISK_MIB), limit);
    let peer = Peer::on(home, &["--save", &save.text()]);
    let writers = load::writers(&peer, &mut rng, 0..WRITERS);
    let ending = AtomicBool::new(false);
    thread::scope(|scope| {
        // A cut that fails must not leave the writers writing.
        let _end = load::OnDrop(|| ending.store(true, Ordering::SeqCst));
        for (n, writer) in writers.iter().enumerate() {
            let ending = &ending;
            thread::Builder::new()
                .name(format!("writer-{n}"))
                .spawn_scoped(scope, move || {
                    while !ending.load(Ordering::SeqCst) {
                        step(writer, save).unwrap();
                    }
                })
                .unwrap();
        }
        // More of them where the disk was at rest in each.
        let lost = || peer.home().image().power().barriers_and_lost().1;
        for cut in 0.. {
            if cut >= cuts && (lost() > 0 || cut >= cuts * 5) {
                break;
            }
            let_pass(Duration::from_millis(rng.below(400)));
            let round = format!("cut {cut}, seed {seed}");
            one_cut(&peer, &writers, &mut rng, cut % 3 == 0, &round);
        }
    });
    peer.check().succeeds();
    let (barriers, lost) = peer.home().image().power().barriers_and_lost();
    eprintln!("{save:?}: {cuts} cuts lost {lost} writes of the disk, {barriers} barriers");
    assert!(barriers > cuts && lost > 0, "{barriers} barriers, {lost} writes lost: too little");
}

fn one_cut(peer: &Peer, writers: &[Mutex<Writer>], rng: &mut Rng, twice: bool, round: &str) {
    // What is durable before the cut must be in it; what is begun before it has ended may be.
    let mut histories: Vec<_> = writers
        .iter()
        .map(|writer| {
            let mut writer = writer.lock();
            writer.forget_what_is_older();
            writer.files.clone()
        })
        .collect();
    let platter = peer.home().image().power().cut(rng);
    let when = Instant::now();
    for (files, writer) in histories.iter_mut().zip(writers) {
        for (history, now) in files.iter_mut().zip(&writer.lock().files) {
            let begun = now[history.len()..].iter().cloned();
            history.extend(begun.map(Change::not_yet_durable));
        }
    }
    let platter = if twice { cut_while_opening(platter, rng, round) } else { platter };
    let cut = open(platter, round);
    for (n, files) in histories.iter().enumerate() {
        load::judge(&cut.path(format!("w{n}")), files, when, round);
    }
    cut.check().succeeds();
}

/// Opens the bucket that is on `platter` and mounts it.
fn open(platter: Platter, round: &str) -> Peer {
    let image = Image::after_cut(platter)
        .unwrap_or_else(|said| panic!("{round}: ext4 does not mount: {said}"));
    Peer::again(Home::on(image), &[])
}

/// Begins to open the bucket that is on `platter`, and cuts the power on the way.
fn cut_while_opening(platter: Platter, rng: &mut Rng, round: &str) -> Platter {
    let image = Image::after_cut(platter)
        .unwrap_or_else(|said| panic!("{round}: ext4 does not mount: {said}"));
    let home = Home::on(image);
    let dir = home.dir("mnt");
    thread::scope(|scope| {
        let mounting = scope.spawn(|| home.mount(BUCKET, &dir, &[]));
        let_pass(Duration::from_millis(rng.below(150)));
        let left = home.image().power().cut(rng);
        mounting.join().unwrap_or_else(|_| panic!("{round}: it does not open"));
        left
    })
}
