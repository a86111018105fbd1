//! What a save costs: `flush` of a changed 4 KiB file under each policy, how that grows, how many
//! a second, and how many bytes for each byte saved.

mod buckets;
mod growth;
mod latency;
mod readers;
mod report;
mod space;
mod writers;

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

pub use report::{Group, Row};
pub use space::Cost;
pub use writers::Rate;

use crate::{
    cipher::{self, Speeds},
    output::Output,
    rounds::Plan,
    session::{Circumstances, Session},
    ui,
};

/// What is changed at a time.
const CHANGE_BYTES: usize = 4096;

/// How large a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// A minute or so, for a first look.
    Quick,
    /// What the README shows.
    Usual,
    /// With a file of 10 GiB and a bucket of a million files.
    Full,
}

impl Extent {
    const fn plan(self) -> Plan {
        let (rounds, runs, warm_up) = match self {
            Self::Quick => (3, 60, 20),
            Self::Usual | Self::Full => (7, 200, 50),
        };
        Plan { rounds, runs, warm_up, burst: 1, data_bytes: CHANGE_BYTES }
    }

    /// Files in the directories compared.
    const fn dirs(self) -> [u32; 3] {
        match self {
            Self::Quick => [10, 1_000, 10_000],
            Self::Usual | Self::Full => [10, 1_000, 100_000],
        }
    }

    /// Files in the buckets compared, the first of which is empty.
    const fn buckets(self) -> [u32; 2] {
        match self {
            Self::Quick => [0, 1_000],
            Self::Usual => [0, 100_000],
            Self::Full => [0, 1_000_000],
        }
    }

    /// Bytes of the files compared, all of them really written.
    const fn files(self) -> [u64; 3] {
        match self {
            Self::Quick => [1 << 20, 16 << 20, 128 << 20],
            Self::Usual => [1 << 20, 64 << 20, 1 << 30],
            Self::Full => [1 << 20, 64 << 20, 10 << 30],
        }
    }

    /// Files made through a mount that no version holds yet.
    const fn made(self) -> [u32; 3] {
        match self {
            Self::Quick => [10, 300, 1_000],
            Self::Usual | Self::Full => [10, 1_000, 4_000],
        }
    }

    /// Files, and places in one file, that are changed and in no version yet.
    const fn unpublished(self) -> [u32; 3] {
        [10, 1_000, 10_000]
    }
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    circumstances: Circumstances,
    extent: String,
    cipher: Speeds,
    groups: Vec<Group>,
    rates: Vec<Rate>,
    costs: Vec<Cost>,
}

/// Measures in `dir`, prints the tables and writes the JSON file.
///
/// # Errors
///
/// What the disk, the mount or cairnfs says.
pub fn run(dir: Option<&Path>, extent: Extent, output: &Output) -> Result<()> {
    let session = Session::begin(dir)?;
    let cipher = cipher::speeds()?;
    ui::line(&format!(
        "one core: AES-256-GCM {:.0} MiB/s, ChaCha20-Poly1305 {:.0}, BLAKE3 {:.0}\n",
        cipher.aes_gcm_mib_s, cipher.chacha_mib_s, cipher.blake3_mib_s
    ));
    let (binary, sub) = (&session.binary, |name| session.dir(name));
    let mut groups = latency::measure(binary, &sub("latency")?, extent)?;
    groups.push(growth::directories(binary, &sub("dirs")?, extent)?);
    groups.extend(buckets::measure(&sub("buckets")?, extent)?);
    groups.push(growth::files(binary, &sub("files")?, extent)?);
    groups.push(growth::unpublished(&sub("unpublished")?, extent)?);
    groups.push(growth::extents(&sub("extents")?, extent)?);
    groups.push(growth::making(binary, &sub("making")?, extent)?);
    groups.push(readers::measure(binary, &sub("readers")?, extent)?);
    let rates = writers::measure(binary, &sub("writers")?, extent)?;
    let costs = space::measure(binary, &sub("space")?, extent)?;
    let extent = format!("{extent:?}").to_lowercase();
    let circumstances = session.circumstances()?;
    let report = Report { circumstances, extent, cipher, groups, rates, costs };
    output.save("flush", &report, None)
}
