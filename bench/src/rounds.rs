//! Several subjects, one operation of each in turn.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::{interrupt, noise::Noise, sample::Samples};

/// Something that can be asked to do one operation.
pub trait Subject {
    /// What it is called in the report.
    fn name(&self) -> &str;

    /// Does one operation with `data` and says how long the part took that counts.
    ///
    /// # Errors
    ///
    /// Whatever went wrong; the run ends.
    fn run(&mut self, data: &[u8]) -> Result<Duration>;
}

/// How often.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds, each summed up by itself: the spread of the ratios comes from them.
    pub rounds: usize,
    /// Operations of each subject in each round.
    pub runs: usize,
    /// Operations of each subject before the first round.
    pub warm_up: usize,
    /// Operations that a subject does one after the other when it is its turn. With 1 each finds its
    /// threads asleep and its memory out of the processor's caches, as an editor's save does; with
    /// many it is warm, as a database's commit is.
    pub burst: usize,
    /// Bytes that each operation gets.
    pub data_bytes: usize,
}

/// Runs the subjects in turn, the order drawn anew each time. The samples come in the order of
/// the subjects.
///
/// # Errors
///
/// The first error of a subject; Ctrl-C.
pub fn interleave(plan: Plan, subjects: &mut [Box<dyn Subject>]) -> Result<Vec<Samples>> {
    let mut noise = Noise::new(1);
    let mut samples = vec![Samples::default(); subjects.len()];
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    let mut data = vec![0; plan.data_bytes];
    for round in 0..=plan.rounds {
        let warm_up = round == 0;
        if !warm_up {
            samples.iter_mut().for_each(Samples::begin_round);
        }
        let turns = if warm_up { plan.warm_up } else { plan.runs } / plan.burst.max(1);
        for _ in 0..turns {
            noise.shuffle(&mut order);
            for &index in &order {
                interrupt::check()?;
                for _ in 0..plan.burst {
                    noise.fill(&mut data);
                    let subject = &mut subjects[index];
                    let time = subject.run(&data).with_context(|| subject.name().to_owned())?;
                    if !warm_up {
                        samples[index].push(time);
                    }
                }
            }
        }
    }
    Ok(samples)
}
