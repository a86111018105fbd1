//! The report as one page that needs nothing else.

use std::fmt::Write as _;

use super::{
    report::{Report, Row, Work},
    svg,
};

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn of(report: &Report) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>cairnfs: what a save policy costs, and what it keeps</title>\
         <style>{STYLE}</style></head><body><header><h1>What a save policy costs, and what it keeps\
         </h1><p class=\"machine\">{}; load {} at the end</p><p>Each kind of work was done on the plain \
         file system and on cairnfs under each policy in turn, {} rounds. Then it was done over a \
         simulated disk whose power was cut {} times within {} s; what was acknowledged and is gone \
         was counted. One core of this machine does AES-256-GCM at {:.0} MiB/s and BLAKE3 at {:.0} \
         MiB/s.</p></header>\n",
        escape(&report.circumstances.machine.line()),
        escape(&report.circumstances.load_at_the_end),
        report.amount.rounds,
        report.cuts.count,
        report.cuts.time.as_secs(),
        report.cipher.aes_gcm_mib_s,
        report.cipher.blake3_mib_s,
    );
    summary(&mut out, report);
    for work in &report.works {
        section(&mut out, work);
    }
    out.push_str(
        "<footer>In the upper plots a bar ends at the median, the whisker at the 99th percentile, the \
         dot at the 99.9th; the scale is logarithmic. In the lower ones each dot is a cut: how old the \
         oldest acknowledged step was that it took. <em>limit</em> is write and fdatasync of as many \
         bytes to a plain file. The policy names are those of <code>cairnfs mount --save</code>.\
         </footer></body></html>\n",
    );
    out
}

/// One row for each kind of work: what to choose.
fn summary(out: &mut String, report: &Report) {
    out.push_str("<section class=\"advice\"><h2>In short</h2><dl>");
    for work in &report.works {
        let advice = work.advice.replacen("**Advice:** ", "", 1);
        let _infallible = write!(
            out,
            "<dt><a href=\"#{:?}\">{}</a></dt><dd>{}</dd>",
            work.kind,
            escape(&work.title),
            code(&escape(&advice))
        );
    }
    out.push_str("</dl></section>\n");
}

fn section(out: &mut String, work: &Work) {
    let _infallible = write!(
        out,
        "<section id=\"{:?}\"><h2>{}</h2><div class=\"plots\"><figure><figcaption>What a {} \
         waits</figcaption>{}</figure><figure><figcaption>Work lost by each cut</figcaption>{}\
         </figure></div><div class=\"wide\"><table><thead><tr><th></th><th>median</th><th>p99</th>\
         <th>p99.9</th><th>x plain</th><th>per s</th><th>MiB/s</th><th>barriers/s</th><th>CPU</th>\
         <th>peak MiB</th><th>written / saved</th><th>lost by a crash</th></tr></thead><tbody>",
        work.kind,
        escape(&work.title),
        escape(work.unit),
        svg::waits(work),
        svg::cuts(work),
    );
    for (at, row) in work.rows.iter().enumerate() {
        table_row(out, at, row);
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn table_row(out: &mut String, at: usize, row: &Row) {
    let waits = &row.waits;
    let _infallible = write!(
        out,
        "<tr><th class=\"s{at}\"><i></i>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{:.2}</td>\
         <td>{:.0}</td><td>{:.1}</td>",
        escape(&row.name),
        svg::time(waits.median_us),
        svg::time(waits.p99_us),
        svg::time(waits.p999_us),
        row.to_plain.median,
        row.steps_per_s.median,
        row.mib_s.median,
    );
    let _infallible = match &row.policy {
        None => write!(out, "<td colspan=\"5\"></td></tr>"),
        Some(policy) => write!(
            out,
            "<td>{:.0}</td><td>{}</td><td>{:.0}</td><td>{:.1}</td><td class=\"{}\">{}</td></tr>",
            policy.barriers_per_s,
            svg::time(policy.cpu_us_per_step),
            policy.peak_mib,
            policy.written_per_saved,
            if policy.with_loss() == 0 { "kept" } else { "lost" },
            escape(&policy.loss()),
        ),
    };
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What stands between back quotes, as code.
fn code(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(
            |(at, part)| if at % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() },
        )
        .collect()
}
