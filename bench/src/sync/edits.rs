//! From `close` on one device to the new bytes being readable on the other.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{device::Pair, poll, report};
use crate::{
    plain::barrier,
    rounds::{Plan, Subject, interleave},
    sample::{Spread, Summary},
    served::close,
    ui::{self, Table},
};

/// What a device waits for quiet before it publishes while others wait for it.
const PUBLISH_DELAY: Duration = Duration::from_millis(100);
/// Where the edited file is.
const FILE: &str = "edited";

/// How long each takes.
#[derive(Debug, Serialize)]
pub struct Edits {
    publish_delay_ms: f64,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    #[serde(flatten)]
    times: Summary,
    /// Of the medians of each round to that of the limit.
    to_limit: Spread,
    /// What the median and the 99th percentile are beyond the publish delay.
    beyond_delay_ms: Option<(f64, f64)>,
}

pub(super) fn measure(binary: &Path, dir: &Path, plan: Plan) -> Result<Edits> {
    ui::progress("edits: from close() on one device to readable on the other");
    let usual = Pair::new(binary, dir, "usual", &["--save", "flush"], |_| Ok(()))?;
    let eager = ["--save", "flush", "--publish-quiet", "1ms"];
    let eager = Pair::new(binary, dir, "eager", &eager, |_| Ok(()))?;
    let mut subjects: Vec<Box<dyn Subject>> = vec![
        Box::new(Limit::new(dir, plan.data_bytes)?),
        Box::new(Edit::new("cairnfs", &usual, plan.data_bytes)?),
        Box::new(Edit::new("cairnfs, published after 1 ms", &eager, plan.data_bytes)?),
    ];
    let samples = interleave(plan, &mut subjects)?;
    let delays = [None, Some(PUBLISH_DELAY), Some(Duration::from_millis(1))];
    let rows = subjects.iter().zip(&samples).zip(delays).map(|((subject, own), delay)| {
        let times = own.summary();
        let beyond = |us: f64, delay: Duration| (us / 1e3) - delay.as_secs_f64() * 1e3;
        Row {
            name: subject.name().to_owned(),
            times,
            to_limit: own.ratio_to(&samples[0], 500),
            beyond_delay_ms: delay
                .map(|delay| (beyond(times.median_us, delay), beyond(times.p99_us, delay))),
        }
    });
    let publish_delay_ms = PUBLISH_DELAY.as_secs_f64() * 1e3;
    let edits = Edits { publish_delay_ms, rows: rows.collect() };
    edits.print();
    Ok(edits)
}

impl Edits {
    fn print(&self) {
        ui::line("## A changed 4 KiB file, from close() here to readable there\n");
        let heads = [
            "",
            "median ms",
            "p99 ms",
            "max ms",
            "median beyond the delay",
            "p99 beyond it",
            "x limit",
        ];
        let mut table = Table::new(&heads);
        for row in &self.rows {
            let ms = |us: f64| format!("{:.1}", us / 1e3);
            let beyond = |of: fn((f64, f64)) -> f64| {
                row.beyond_delay_ms.map_or_else(String::new, |both| format!("{:.1}", of(both)))
            };
            table.row([
                row.name.clone(),
                ms(row.times.median_us),
                ms(row.times.p99_us),
                ms(row.times.max_us),
                beyond(|(median, _)| median),
                beyond(|(_, p99)| p99),
                report::factor(row.to_limit),
            ]);
        }
        table.print();
        ui::line("");
    }
}

/// A file that is changed on one device and awaited on the other.
struct Edit {
    name: &'static str,
    pair: Arc<Pair>,
}

impl Edit {
    fn new(name: &'static str, pair: &Arc<Pair>, len: usize) -> Result<Self> {
        let edit = Self { name, pair: Arc::clone(pair) };
        let there = edit.pair.other.point().join(FILE);
        fs::write(edit.pair.one.point().join(FILE), vec![0; len])?;
        poll::until("a new file on the other device", || Ok(there.exists()))?;
        Ok(edit)
    }
}

impl Subject for Edit {
    fn name(&self) -> &str {
        self.name
    }

    fn run(&mut self, data: &[u8]) -> Result<Duration> {
        let there = self.pair.other.point().join(FILE);
        let before = modified(&there)?;
        let file = File::options().write(true).open(self.pair.one.point().join(FILE))?;
        file.write_all_at(data, 0)?;
        close(file)?;
        let start = Instant::now();
        poll::until("an edit on the other device", || {
            // The kernel answers this from its cache, so that looking is in nobody's way.
            Ok(modified(&there)? != before && fs::read(&there)? == data)
        })?;
        Ok(start.elapsed())
    }
}

fn modified(path: &Path) -> Result<SystemTime> {
    Ok(fs::metadata(path)?.modified()?)
}

/// The same bytes to another thread, which writes and syncs them and says so.
struct Limit {
    stream: Option<TcpStream>,
    there: Option<JoinHandle<Result<()>>>,
}

impl Limit {
    fn new(dir: &Path, len: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        let (mut here, _) = listener.accept()?;
        let file = File::create(dir.join("limit"))?;
        let there = move || -> Result<()> {
            let mut data = vec![0; len];
            here.set_nodelay(true)?;
            // Ends with the connection.
            while here.read_exact(&mut data).is_ok() {
                file.write_all_at(&data, 0)?;
                barrier(&file)?;
                here.write_all(&[1])?;
            }
            Ok(())
        };
        let there = thread::Builder::new().name("limit".into()).spawn(there)?;
        Ok(Self { stream: Some(stream), there: Some(there) })
    }
}

impl Subject for Limit {
    fn name(&self) -> &'static str {
        "limit: TCP + fdatasync there"
    }

    fn run(&mut self, data: &[u8]) -> Result<Duration> {
        let start = Instant::now();
        let mut answer = [0];
        if let Some(stream) = &mut self.stream {
            stream.write_all(data)?;
            stream.read_exact(&mut answer)?;
        }
        ensure!(answer == [1], "the other side of the limit has ended");
        Ok(start.elapsed())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        drop(self.stream.take());
        if let Some(Ok(Err(err))) = self.there.take().map(JoinHandle::join) {
            ui::progress(&format!("the limit: {err:#}"));
        }
    }
}
