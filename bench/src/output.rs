//! The files that a run leaves behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{ui, workplace};

/// Where they go.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The figures.
    pub json: Option<PathBuf>,
    /// The report as it was printed.
    pub markdown: Option<PathBuf>,
    /// The page.
    pub html: Option<PathBuf>,
}

impl Output {
    /// Writes the figures, the page if there is one, and the printed report if it was asked for.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn save(&self, name: &str, report: &impl Serialize, page: Option<&str>) -> Result<()> {
        workplace::save_json(report, name, self.json.as_deref())?;
        if let Some(page) = page {
            let path = match &self.html {
                Some(path) => path.clone(),
                None => workplace::results()?.join(name).with_extension("html"),
            };
            fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
            ui::progress(&format!("page at {}", path.display()));
        }
        let said = ui::take_said();
        if let Some(path) = &self.markdown {
            save_markdown(path, name, &said)?;
            ui::progress(&format!("tables in {}", path.display()));
        }
        Ok(())
    }
}

/// Writes `text` to `path`; or, if there is a file with the two marks of this report, between them.
fn save_markdown(path: &Path, name: &str, text: &str) -> Result<()> {
    let old = fs::read_to_string(path).unwrap_or_default();
    let whole = splice(&old, name, text).unwrap_or_else(|| text.to_owned());
    fs::write(path, whole).with_context(|| format!("cannot write {}", path.display()))
}

/// `old` with what stands between the marks of `name` replaced; none if there are no marks.
fn splice(old: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name} begins -->\n"), format!("<!-- {name} ends -->"));
    let (before, rest) = old.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    // One level deeper: the report stands under a heading of its own.
    let text = text.replace("\n## ", "\n### ");
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_replaces_the_one_between_its_marks() {
        let old = "a\n<!-- x begins -->\nold\n<!-- x ends -->\nb\n";
        let new = splice(old, "x", "one\n\n## two\n").unwrap();
        assert_eq!(new, "a\n<!-- x begins -->\n\none\n\n### two\n\n<!-- x ends -->\nb\n");
        assert_eq!(splice(&new, "x", "one\n\n## two\n").unwrap(), new);
        assert_eq!(splice("nothing", "x", "new"), None);
    }
}
