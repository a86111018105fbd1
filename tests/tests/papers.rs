//! What the papers name is there: each test, and each file.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Shorter names are of functions, settings and fields, and stand in the text for what they are.
const TEST_NAME_UNDERSCORES_MIN: usize = 3;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above")
}

/// The files in `dir` that the project consists of.
fn files(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            let is_ours = name != "target" && (!name.starts_with('.') || name == ".ci");
            if is_ours {
                files(&path, found)?;
            }
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn with_extension<'f>(files: &'f [PathBuf], wanted: &str) -> impl Iterator<Item = &'f PathBuf> {
    files.iter().filter(move |path| path.extension().is_some_and(|it| it == wanted))
}

fn functions(files: &[PathBuf]) -> io::Result<BTreeSet<String>> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    for path in with_extension(files, "rs") {
        let text = fs::read_to_string(path)?;
        let after = text.split("fn ").skip(1);
        names.extend(after.map(|rest| rest.chars().take_while(|c| is_of_name(*c)).collect()));
    }
    Ok(names)
}

/// What stands between backticks in a paper, with its line.
fn quoted(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(nth, line)| {
        line.split('`').skip(1).step_by(2).map(move |quoted| (nth + 1, quoted))
    })
}

/// The name of the function, if this is one of a test: `module::a_name_of_several_words`.
fn test_name(quoted: &str) -> Option<&str> {
    let is_path = quoted.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | ':'));
    let name = quoted.rsplit("::").next()?;
    (is_path && name.matches('_').count() >= TEST_NAME_UNDERSCORES_MIN).then_some(name)
}

/// Whether this is the name of a file of the project, or the end of one.
fn is_file_name(quoted: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.');
    quoted.ends_with(".rs") && quoted.chars().all(plain)
}

#[test]
fn each_test_and_each_file_that_the_papers_name_is_there() -> io::Result<()> {
    let mut all = Vec::new();
    files(root(), &mut all)?;
    let functions = functions(&all)?;
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for paper in with_extension(&all, "md") {
        let text = fs::read_to_string(paper)?;
        for (line, quoted) in quoted(&text) {
            let is_there = if let Some(name) = test_name(quoted) {
                functions.contains(name)
            } else if is_file_name(quoted) {
                all.iter().any(|path| path.ends_with(quoted))
            } else {
                continue;
            };
            seen += 1;
            if !is_there {
                wrong.push(format!("{}:{line}: {quoted}", paper.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "named, but not there:\n{}", wrong.join("\n"));
    assert!(seen > 400, "only {seen} names were found");
    Ok(())
}
