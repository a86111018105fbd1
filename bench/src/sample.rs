//! Times, and what is said of them.

use std::time::Duration;

use serde::Serialize;

/// The times of one subject, round by round.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    rounds: Vec<Vec<Duration>>,
}

/// The middle of several rounds, and how far apart they are: the lowest and the highest, or of 20
/// rounds and more those that one in ten is below and above.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// The median of the rounds.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of one number for each round; all are 0 if there are none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let median = values.get(values.len() / 2).copied().unwrap_or(0.0);
        let outside = if values.len() < 20 { 0 } else { values.len() / 10 };
        Self {
            median,
            min: values.get(outside).copied().unwrap_or(0.0),
            max: values.iter().rev().nth(outside).copied().unwrap_or(0.0),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}-{:.2})", self.median, self.min, self.max)
    }
}

/// What is said of the times of one subject, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    /// How many were timed.
    pub count: usize,
    /// Half were quicker.
    pub median_us: f64,
    /// 9 of 10 were quicker.
    pub p90_us: f64,
    /// 99 of 100 were quicker.
    pub p99_us: f64,
    /// 999 of 1,000 were quicker.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

impl Samples {
    /// Begins another round.
    pub fn begin_round(&mut self) {
        self.rounds.push(Vec::new());
    }

    /// Adds a time to the round.
    pub fn push(&mut self, time: Duration) {
        if self.rounds.is_empty() {
            self.begin_round();
        }
        if let Some(round) = self.rounds.last_mut() {
            round.push(time);
        }
    }

    /// Over all rounds.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut all: Vec<Duration> = self.rounds.iter().flatten().copied().collect();
        all.sort();
        let at = |per_mille| percentile(&all, per_mille).as_secs_f64() * 1e6;
        Summary {
            count: all.len(),
            median_us: at(500),
            p90_us: at(900),
            p99_us: at(990),
            p999_us: at(999),
            max_us: at(1000),
        }
    }

    /// A percentile of these times against the same of `base`, round by round.
    #[must_use]
    pub fn ratio_to(&self, base: &Self, per_mille: usize) -> Spread {
        let ratios = self.rounds.iter().zip(&base.rounds).filter_map(|(own, base)| {
            let of = |round: &[Duration]| {
                let mut round = round.to_vec();
                round.sort();
                percentile(&round, per_mille).as_secs_f64()
            };
            let below = of(base);
            (below > 0.0).then(|| of(own) / below)
        });
        Spread::of(ratios.collect())
    }
}

/// The time that `per_mille` of 1,000 do not exceed.
fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    let index = (sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let (mut own, mut base) = (Samples::default(), Samples::default());
        for round in 1..=3 {
            own.begin_round();
            base.begin_round();
            for _ in 0..10 {
                own.push(Duration::from_micros(200 * round));
                base.push(Duration::from_micros(100 * round));
            }
        }
        let ratio = own.ratio_to(&base, 500);
        assert!((ratio.min - 2.0).abs() < 1e-9 && (ratio.max - 2.0).abs() < 1e-9);
        assert!((own.summary().p99_us - 600.0).abs() < 1e-9);
    }
}
