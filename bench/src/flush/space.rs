//! Bytes written to disk for each byte saved.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use anyhow::Result;
use cairnfs_mount_core::{Fh, Ino, Mount, Options};
use serde::Serialize;

use super::{CHANGE_BYTES, Extent};
use crate::{
    bucket::{self, CALLER, WRITING, wait},
    interrupt,
    noise::Noise,
    plain::{Form, Plain},
    rounds::Subject,
    served::{Home, Served, write_noise},
    traffic::Account,
    ui::{self, Table},
};

/// Saves in each round: few, so that others write little meanwhile.
const SAVES: u64 = 100;

/// What one kind of work had written, in the round in which the disk was written least.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// The work.
    pub name: String,
    /// Saves in a round.
    pub saves: u64,
    /// Bytes that the program wrote.
    pub saved_bytes: u64,
    /// Bytes that went to the disk with the saves.
    pub written_bytes: u64,
    /// Bytes that went to the disk with the version made of them afterwards.
    pub version_bytes: Option<u64>,
}

/// A kind of work: what each of its saves changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    SameFile,
    RandomPlaces,
    Log,
    NewFiles,
}

const WORKS: [Work; 4] = [Work::SameFile, Work::RandomPlaces, Work::Log, Work::NewFiles];

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::SameFile => "a 4 KiB file, saved over and over",
            Self::RandomPlaces => "4 KiB at random places of 64 MiB",
            Self::Log => "100 B appended to a log, each saved",
            Self::NewFiles => "new files of 4 KiB",
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Log => 100,
            Self::SameFile | Self::RandomPlaces | Self::NewFiles => CHANGE_BYTES,
        }
    }

    /// Length of the file before.
    const fn before(self) -> u64 {
        match self {
            Self::SameFile => CHANGE_BYTES as u64,
            Self::RandomPlaces => 64 << 20,
            Self::Log | Self::NewFiles => 0,
        }
    }

    /// Where the nth save goes.
    fn at(self, n: u64, noise: &mut Noise) -> u64 {
        match self {
            Self::RandomPlaces => noise.below(self.before() / CHANGE_BYTES as u64) * 4096,
            Self::Log => n * 100,
            Self::SameFile | Self::NewFiles => 0,
        }
    }
}

/// Where the work is done.
trait Place {
    fn save(&mut self, work: Work, n: u64, at: u64, data: &[u8]) -> Result<()>;

    /// Makes a version.
    fn publish(&self) -> Result<()>;
}

struct Core {
    mount: Mount,
    ino: Ino,
    fh: Fh,
}

impl Place for Core {
    fn save(&mut self, work: Work, n: u64, at: u64, data: &[u8]) -> Result<()> {
        let mount = &self.mount;
        let (ino, fh) = if work == Work::NewFiles {
            let name = format!("new-{n}");
            let (attr, fh) = mount.create(CALLER, Ino::ROOT, name.as_bytes(), 0o644, WRITING)?;
            (attr.ino, fh)
        } else {
            (self.ino, self.fh)
        };
        wait(|done| mount.write(ino, fh, at, data, false, done))?;
        wait(|done| mount.flush(ino, fh, done))?;
        if work == Work::NewFiles {
            wait(|done| mount.release(ino, fh, done))?;
        }
        Ok(())
    }

    fn publish(&self) -> Result<()> {
        self.mount.publish()?;
        Ok(())
    }
}

impl Place for Served<'_> {
    fn save(&mut self, work: Work, n: u64, at: u64, data: &[u8]) -> Result<()> {
        let file = match work {
            Work::NewFiles => File::create(self.point().join(format!("new-{n}")))?,
            _ => fs::OpenOptions::new().write(true).open(self.point().join("file"))?,
        };
        file.write_all_at(data, at)?;
        Ok(())
    }

    fn publish(&self) -> Result<()> {
        Self::publish(self)
    }
}

pub(super) fn measure(binary: &Path, dir: &Path, extent: Extent) -> Result<Vec<Cost>> {
    let account = match Account::of(dir) {
        Ok(account) => account,
        Err(err) => {
            ui::line(&format!("Bytes written for each byte saved: cannot be told here ({err})\n"));
            return Ok(Vec::new());
        }
    };
    ui::progress("bytes written for each byte saved");
    let rounds = if extent == Extent::Quick { 5 } else { 15 };
    let mut costs = vec![
        plain(dir, &account, rounds, Form::Overwrite)?,
        plain(dir, &account, rounds, Form::Append)?,
    ];
    let hour = Duration::from_secs(3600);
    let options = Options { publish_quiet: hour, publish_max: hour, ..Options::default() };
    for work in WORKS {
        let (mount, _) = bucket::create(&dir.join(format!("core-{work:?}")), options)?;
        let before = Noise::new(5).bytes(usize::try_from(work.before())?);
        let ino = bucket::put(&mount, Ino::ROOT, "file", &before)?;
        let fh = mount.open(ino, WRITING)?;
        let mut core = Core { mount: mount.clone(), ino, fh };
        costs.push(cost("core", work, &mut core, &account, rounds)?);
        mount.stop()?;
    }
    for work in WORKS {
        let home = Home::new(binary, dir, &format!("home-{work:?}"))?;
        let rarely = ["--save", "flush", "--publish-quiet", "1h", "--publish-max", "1h"];
        let mut served = home.mount(&rarely)?;
        let mut noise = Noise::new(work.before());
        write_noise(&served.point().join("file"), work.before(), &mut noise)?;
        costs.push(cost("mount", work, &mut served, &account, rounds)?);
    }
    print(&costs);
    Ok(costs)
}

fn print(costs: &[Cost]) {
    ui::line("## Bytes written to disk for each byte saved\n");
    let mut table =
        Table::new(&["", "written/saved", "KiB per save", "with the version", "version KiB"]);
    for cost in costs {
        let share = |written: u64| format!("{:.2}", written as f64 / cost.saved_bytes as f64);
        let version = |show: &dyn Fn(u64) -> String| cost.version_bytes.map_or("-".into(), show);
        table.row([
            cost.name.clone(),
            share(cost.written_bytes),
            format!("{:.1}", cost.written_bytes as f64 / 1024.0 / cost.saves as f64),
            version(&|bytes| share(cost.written_bytes + bytes)),
            version(&|bytes| (bytes >> 10).to_string()),
        ]);
    }
    table.print();
    ui::line("");
}

fn plain(dir: &Path, account: &Account, rounds: usize, form: Form) -> Result<Cost> {
    let mut file = Plain::new(dir, form, CHANGE_BYTES)?;
    let mut noise = Noise::new(3);
    let mut least = u64::MAX;
    for _ in 0..rounds {
        let before = account.written_bytes()?;
        for _ in 0..SAVES {
            file.run(&noise.bytes(CHANGE_BYTES))?;
        }
        least = least.min(account.written_bytes()? - before);
    }
    Ok(Cost {
        name: file.name().to_owned(),
        saves: SAVES,
        saved_bytes: SAVES * CHANGE_BYTES as u64,
        written_bytes: least,
        version_bytes: None,
    })
}

fn cost(
    level: &str,
    work: Work,
    place: &mut impl Place,
    account: &Account,
    rounds: usize,
) -> Result<Cost> {
    let mut noise = Noise::new(4);
    let (mut saved, mut version) = (u64::MAX, u64::MAX);
    let mut n = 0;
    place.publish()?;
    for _ in 0..rounds {
        interrupt::check()?;
        let start = account.written_bytes()?;
        for _ in 0..SAVES {
            let data = noise.bytes(work.bytes());
            place.save(work, n, work.at(n, &mut noise), &data)?;
            n += 1;
        }
        let middle = account.written_bytes()?;
        place.publish()?;
        saved = saved.min(middle - start);
        version = version.min(account.written_bytes()? - middle);
    }
    Ok(Cost {
        name: format!("{level}: {}", work.name()),
        saves: SAVES,
        saved_bytes: SAVES * work.bytes() as u64,
        written_bytes: saved,
        version_bytes: Some(version),
    })
}
