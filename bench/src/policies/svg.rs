//! Plots, as SVG to stand in the page. Colours are the page's: a class for each row.

use std::fmt::Write as _;

use super::report::{Policy, Row, Work};

const WIDTH: f64 = 640.0;
/// Left of it are names.
const LEFT: f64 = 150.0;
const RIGHT: f64 = 620.0;
const BAR: f64 = 26.0;

/// The class of a row's colour: the limit, the plain file system, then the policies.
fn class(at: usize) -> String {
    format!("s{at}")
}

/// What is waited for: a bar to the median, a whisker to the 99th percentile, a dot at the 999th.
pub(super) fn waits(work: &Work) -> String {
    let rows = &work.rows;
    let values = || rows.iter().flat_map(|row| [row.waits.median_us, row.waits.p999_us]);
    let low = decade(values().fold(f64::INFINITY, f64::min).max(0.1), f64::floor);
    let high = decade(values().fold(1.0, f64::max), f64::ceil).max(low * 10.0);
    let x = |us: f64| {
        let share = (us.max(low) / low).log10() / (high / low).log10();
        LEFT + share * (RIGHT - LEFT)
    };
    let height = 34.0 + BAR * rows.len() as f64;
    let mut out = open(height, &format!("{}: how long a {} waits", work.title, work.unit));
    let mut tick = low;
    while tick <= high * 1.01 {
        axis_x(&mut out, x(tick), height - 24.0, &time(tick));
        tick *= 10.0;
    }
    for (at, row) in rows.iter().enumerate() {
        let y = 6.0 + BAR * at as f64;
        let w = &row.waits;
        let (median, p99, p999) = (x(w.median_us), x(w.p99_us), x(w.p999_us));
        let mid = y + 8.0;
        let _infallible = write!(
            out,
            "<g class=\"{}\"><title>{}: median {}, p99 {}, p99.9 {}</title>\
             <text x=\"{}\" y=\"{}\" class=\"name\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"16\" rx=\"3\"/>\
             <line x1=\"{median:.1}\" x2=\"{p99:.1}\" y1=\"{mid}\" y2=\"{mid}\"/>\
             <line x1=\"{p99:.1}\" x2=\"{p99:.1}\" y1=\"{}\" y2=\"{}\"/>\
             <circle cx=\"{p999:.1}\" cy=\"{mid}\" r=\"3\"/></g>",
            class(at),
            row.name,
            time(w.median_us),
            time(w.p99_us),
            time(w.p999_us),
            LEFT - 8.0,
            y + 12.5,
            short(&row.name),
            (median - LEFT).max(1.5),
            mid - 5.0,
            mid + 5.0,
        );
    }
    out.push_str("</svg>");
    out
}

/// What each cut threw the work back by: a dot for each, a lane for each policy.
pub(super) fn cuts(work: &Work) -> String {
    let lanes: Vec<(usize, &Policy)> = policies(&work.rows).collect();
    let lost = || lanes.iter().flat_map(|(_, policy)| policy.cuts.iter().map(|cut| cut.lost_s));
    let most = lost().fold(1.0, f64::max).ceil();
    let x = |seconds: f64| LEFT + seconds / most * (RIGHT - LEFT);
    let lane = 34.0;
    let height = 34.0 + lane * lanes.len() as f64;
    let mut out = open(height, &format!("{}: seconds of work lost by each cut", work.title));
    let step = if most > 6.0 { 2.0 } else { 1.0 };
    let mut tick = 0.0;
    while tick <= most {
        axis_x(&mut out, x(tick), height - 24.0, &format!("{tick:.0} s"));
        tick += step;
    }
    for (nth, (at, policy)) in lanes.iter().enumerate() {
        let y = 6.0 + lane * nth as f64;
        let _infallible = write!(
            out,
            "<g class=\"{}\"><text x=\"{}\" y=\"{}\" class=\"name\">{}</text>",
            class(*at),
            LEFT - 8.0,
            y + 19.0,
            policy.name
        );
        for (number, cut) in policy.cuts.iter().enumerate() {
            // Dots that fall together are drawn beside each other.
            let cy = y + 6.0 + f64::from(u32::try_from(number % 6).unwrap_or(0)) * 4.2;
            let _infallible = write!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{cy:.1}\" r=\"3.2\" class=\"cut\"><title>cut at {:.1} s: {} of \
                 {} lost, the oldest {:.1} s old</title></circle>",
                x(cut.lost_s),
                cut.at_s,
                cut.lost,
                cut.acknowledged,
                cut.lost_s
            );
        }
        out.push_str("</g>");
    }
    out.push_str("</svg>");
    out
}

/// Rows of cairnfs, with their numbers.
pub(super) fn policies(rows: &[Row]) -> impl Iterator<Item = (usize, &Policy)> {
    rows.iter().enumerate().filter_map(|(at, row)| Some((at, row.policy.as_ref()?)))
}

fn open(height: f64, title: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">")
}

fn axis_x(out: &mut String, x: f64, bottom: f64, label: &str) {
    let _infallible = write!(
        out,
        "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"2\" y2=\"{bottom}\"/>\
         <text class=\"tick\" x=\"{x:.1}\" y=\"{}\">{label}</text>",
        bottom + 16.0
    );
}

/// The power of ten beside a value.
fn decade(value: f64, round: impl Fn(f64) -> f64) -> f64 {
    10_f64.powf(round(value.log10()))
}

/// Microseconds in the unit that suits them.
pub(super) fn time(us: f64) -> String {
    match us {
        1e6.. => format!("{:.3} s", us / 1e6).replace(".000", ""),
        1e4.. => format!("{:.0} ms", us / 1e3),
        1e3.. => format!("{:.1} ms", us / 1e3).replace(".0", ""),
        10.0.. => format!("{us:.0} us"),
        _ => format!("{us:.1} us").replace(".0", ""),
    }
}

/// A row's name without what is said elsewhere.
fn short(name: &str) -> &str {
    name.split(':').next().filter(|first| *first == "limit").unwrap_or(name)
}
