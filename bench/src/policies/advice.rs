//! A sentence for each kind of work, from its figures.

use super::report::{Policy, Row};
use crate::{jobs::Kind, ui};

/// Less than this share of the time is not worth a choice.
const WORTH: f64 = 0.9;
/// Seconds of work that one policy may lose more than another and still count as safe as it.
const AS_SAFE_S: f64 = 0.5;

/// What to choose for this kind of work.
pub(super) fn of(kind: Kind, rows: &[Row]) -> String {
    let mut ours: Vec<(&Row, &Policy)> =
        rows.iter().filter_map(|row| Some((row, row.policy.as_ref()?))).collect();
    let Some(flush) = ours.iter().find(|(_, policy)| policy.name == "flush").copied() else {
        return String::new();
    };
    // Whole runs, not medians: a copy has all its waiting in its last step.
    ours.sort_by(|a, b| b.0.steps_per_s.median.total_cmp(&a.0.steps_per_s.median));
    let share = |row: &Row| flush.0.steps_per_s.median / row.steps_per_s.median;
    let least = ours.iter().map(|(_, policy)| policy.worst().lost_s).fold(f64::INFINITY, f64::min);
    let safe = |policy: &Policy| policy.worst().lost_s <= least + AS_SAFE_S;
    let quickest = ours[0];
    let best = ours.iter().find(|(_, policy)| safe(policy)).copied().unwrap_or(flush);
    if !safe(flush.1) || share(best.0) < WORTH {
        let but =
            if kind.fsyncs() { "" } else { ", but `close` does not tell whether that worked" };
        return format!(
            "**Advice:** `{}`: {}. {} take {:.0} % of the time that they take under `flush`{but}.",
            best.1.name,
            lost(kind, best.1, least),
            capital(kind.units()),
            share(best.0) * 100.0
        );
    }
    let what = lost(kind, flush.1, least);
    if share(quickest.0) > WORTH {
        return format!(
            "**Advice:** `flush`, the default: {what}. No policy is quicker by a tenth."
        );
    }
    let worst = quickest.1.worst();
    format!(
        "**Advice:** `flush`: {what}. Under `{}` {} take {:.0} % of that time, and a crash cost up to \
         {:.1} s of work ({}).",
        quickest.1.name,
        kind.units(),
        share(quickest.0) * 100.0,
        worst.lost_s,
        ui::bytes(worst.lost_bytes),
    )
}

/// What a policy lost, where the safest lost work of `least` seconds.
fn lost(kind: Kind, policy: &Policy, least: f64) -> String {
    let most = policy.cuts.iter().map(|cut| cut.lost).max().unwrap_or(0);
    let what = match most {
        0 => return format!("nothing was lost in {} cuts", policy.cuts.len()),
        1 => format!("a crash cost at most the last {}", kind.unit()),
        _ => format!("a crash cost at most the last {most} {}", kind.units()),
    };
    if least > 0.0 {
        format!("{what}, which no policy prevents: {}", why(kind))
    } else {
        format!("{what}, of the last {:.1} s", policy.worst().lost_s)
    }
}

/// Why even the safest policy loses something.
const fn why(kind: Kind) -> &'static str {
    match kind {
        Kind::EditorReplace => "the program does not ask for its rename to be saved",
        Kind::Copy => "what is not closed yet is saved once a second",
        Kind::Database => {
            "sqlite3 does not sync the removal of its journal unless `pragma synchronous` is `extra`"
        }
        _ => "the program does not ask for it to be saved",
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policies::Cut,
        sample::{Samples, Spread},
    };

    fn row(name: &'static str, per_s: f64, lost: usize, lost_s: f64) -> Row {
        let rate = Spread::of(vec![per_s]);
        let policy = Policy {
            name,
            barriers_per_s: 0.0,
            cpu_us_per_step: 0.0,
            peak_mib: 0.0,
            written_per_saved: 0.0,
            cuts: vec![Cut { lost, lost_s, ..Cut::default() }],
        };
        Row {
            name: name.to_owned(),
            waits: Samples::default().summary(),
            to_plain: rate,
            steps_per_s: rate,
            mib_s: rate,
            policy: Some(policy),
        }
    }

    fn advice(rows: &[Row]) -> String {
        of(Kind::Untar, rows)
    }

    #[test]
    fn what_keeps_as_much_and_is_quicker_is_advised() {
        let said = advice(&[row("flush", 100.0, 0, 0.0), row("release", 400.0, 0, 0.0)]);
        assert!(said.contains("`release`: nothing was lost in 1 cuts. Files take 25 %"), "{said}");
        let said = advice(&[row("flush", 100.0, 0, 0.0), row("release", 400.0, 1, 0.1)]);
        assert!(said.contains("at most the last file, of the last 0.1 s"), "{said}");
    }

    #[test]
    fn what_loses_more_is_not() {
        let said = advice(&[row("flush", 100.0, 0, 0.0), row("interval:5s", 400.0, 9, 4.5)]);
        assert!(said.contains("`flush`: nothing was lost"), "{said}");
        assert!(said.contains("up to 4.5 s of work"), "{said}");
        let said = advice(&[row("flush", 100.0, 0, 0.0), row("interval:5s", 101.0, 9, 4.5)]);
        assert!(said.contains("No policy is quicker"), "{said}");
    }
}
