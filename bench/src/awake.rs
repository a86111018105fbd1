//! Keeps the processors from idling, where idling is what a barrier would wait for.
//!
//! A virtual machine may learn of the end of a disk write only when one of its processors next
//! wakes up. Seen under Firecracker with Linux 6.18 at 250 Hz: `fdatasync` takes 4.0 ms, one tick,
//! while both processors idle, and 0.09 ms while anything else runs. Beside that nothing shows.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;

use crate::{
    noise::Noise,
    plain::{Form, Plain},
    rounds::Subject,
    sample::Samples,
    ui,
};

/// Barriers timed to find out.
const TRIES: usize = 60;
/// So much slower must they be for the processors to be kept awake.
const WORTH: u32 = 3;

/// A thread of the lowest priority for each processor, which does nothing; until it is dropped.
#[derive(Debug)]
pub struct Awake {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// Keeps all processors awake.
    ///
    /// # Errors
    ///
    /// If there can be no more threads.
    pub fn start() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut awake = Self { stop: Arc::clone(&stop), threads: Vec::new() };
        for n in 0..thread::available_parallelism()?.get() {
            let stop = Arc::clone(&stop);
            let spin = move || {
                // Of this thread alone, on Linux. Without it the thread would be in the way.
                if rustix::process::nice(40).is_ok() {
                    // Relaxed: nothing but the flag itself is passed on.
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                }
            };
            awake.threads.push(thread::Builder::new().name(format!("awake-{n}")).spawn(spin)?);
        }
        Ok(awake)
    }

    /// Finds out whether barriers in `dir` depend on it, and if so keeps the processors awake.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn if_needed(dir: &Path) -> Result<Option<Self>> {
        let asleep = median(dir)?;
        let awake = Self::start()?;
        thread::sleep(Duration::from_millis(50));
        let busy = median(dir)?;
        if asleep < busy * WORTH {
            return Ok(None);
        }
        ui::line(&format!(
            "NOTE: a barrier takes {} us here while the processors idle, and {} us while they do \
             not. They are kept awake by threads of the lowest priority.",
            asleep.as_micros(),
            busy.as_micros()
        ));
        Ok(Some(awake))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot panic: it does nothing.
            drop(thread.join());
        }
    }
}

fn median(dir: &Path) -> Result<Duration> {
    let mut plain = Plain::new(dir, Form::Overwrite, 4096)?;
    let data = Noise::new(1).bytes(4096);
    let mut samples = Samples::default();
    for _ in 0..TRIES {
        samples.push(plain.run(&data)?);
    }
    Ok(Duration::from_secs_f64(samples.summary().median_us / 1e6))
}
