//! A source tree to unpack, search and build, made from a seed: C that compiles.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::noise::Noise;

/// Files in each directory.
const PER_DIR: u32 = 10;

/// A tree, as a directory and as a tar archive of it.
#[derive(Debug)]
pub struct Tree {
    archive: PathBuf,
    dir: PathBuf,
    bytes: u64,
}

impl Tree {
    /// Makes one of about `files` files below `dir`: half of them C, half headers and text of
    /// various lengths. No file of it is in a tree of another `seed`.
    ///
    /// # Errors
    ///
    /// What the disk or `tar` says.
    pub fn new(dir: &Path, files: u32, seed: u64) -> Result<Self> {
        let root = dir.join("project");
        let mut noise = Noise::new(seed);
        let mut bytes = 0;
        for at in 0..files {
            let sub = root.join(format!("part-{}", at / PER_DIR));
            fs::create_dir_all(&sub)?;
            let (name, text) = match at % 4 {
                0 | 1 => (format!("unit_{at}.c"), unit(at, &mut noise)),
                2 => (format!("unit_{at}.h"), header(at, &mut noise)),
                _ => (format!("notes_{at}.txt"), prose(&mut noise)),
            };
            bytes += text.len() as u64;
            fs::write(sub.join(name), text)?;
        }
        let archive = dir.join("project.tar");
        let status =
            Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status();
        ensure!(status.context("starting tar")?.success(), "tar failed");
        Ok(Self { archive, dir: root, bytes })
    }

    /// The archive.
    #[must_use]
    pub fn archive(&self) -> &Path {
        &self.archive
    }

    /// All files, by their paths below the tree, in order.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn files(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut files = Vec::new();
        let mut dirs = vec![self.dir.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir)? {
                let path = entry?.path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    files.push((path.strip_prefix(&self.dir)?.to_owned(), fs::read(&path)?));
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// Of all files.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// One unit of C.
fn unit(at: u32, noise: &mut Noise) -> String {
    let mut text = format!("/* Unit {at} of a generated project. */\n#include <stddef.h>\n\n");
    for n in 0..8 + noise.below(24) {
        let (a, b) = (noise.below(1000), noise.below(1000));
        let _infallible = writeln!(
            text,
            "static int step_{at}_{n}(int value)\n{{\n    int sum = {a};\n    for (int i = 0; i < \
             value; i++)\n        sum += (i * {b}) ^ (sum >> 3);\n    return sum;\n}}\n"
        );
    }
    let _infallible =
        writeln!(text, "int unit_{at}(int value)\n{{\n    return step_{at}_0(value);\n}}");
    text
}

/// What it declares.
fn header(at: u32, noise: &mut Noise) -> String {
    let declared = format!("int unit_{at}(int);\n").repeat(40);
    format!("/* Generated, {:016x}. */\n{declared}", noise.next_u64())
}

fn prose(noise: &mut Noise) -> String {
    let words =
        ["log", "save", "barrier", "of", "a", "record", "the", "and", "merge", "is", "sealed"];
    let mut text = String::new();
    for at in 0..200 + noise.below(2_000) {
        text.push_str(words[usize::try_from(noise.below(words.len() as u64)).unwrap_or(0)]);
        text.push(if at % 12 == 11 { '\n' } else { ' ' });
    }
    text
}
