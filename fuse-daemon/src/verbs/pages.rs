//! What the command line tells of itself: completions, manual pages, version.

use std::{fs, io};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::{
    cli::{Cli, CompletionsArgs, ManArgs},
    exit::{Code, Failure, Result},
    settings::KEYS,
    ui,
};

/// What the manual says of where things lie (`home`).
const FILES: [(&str, &str); 5] = [
    ("~/.config/cairnfs/config.toml", "settings, if there are any"),
    ("~/.local/share/cairnfs/buckets/NAME/", "a bucket; its file key is what opens it"),
    ("~/.local/share/cairnfs/device.key", "what this device is known by to others"),
    ("~/.local/share/cairnfs/at-start.toml", "what the daemon mounts by itself"),
    ("~/.local/share/cairnfs/daemon.log", "of a daemon that a verb started"),
];

pub(super) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cairnfs", &mut script);
    ui::write_result(String::from_utf8_lossy(&script));
    Ok(())
}

pub(super) fn man(args: &ManArgs) -> Result<()> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let pages = root.get_subcommands().chain([&root]);
    for command in pages.filter(|command| !command.is_hide_set()) {
        let man = Man::new(command.clone());
        let path = args.dir.join(man.get_filename());
        page(command)
            .and_then(|text| fs::write(&path, text))
            .map_err(|err| Failure::file("write manual pages to", &args.dir, &err))?;
    }
    Ok(())
}

pub(super) fn version() -> Result<()> {
    ui::result(format_args!("cairnfs {}", env!("CARGO_PKG_VERSION")));
    Ok(())
}

/// The manual page of a command; that of the program has the tables which hold for all.
fn page(command: &Command) -> io::Result<String> {
    // The exit codes have a section of their own there.
    let mut text = Vec::new();
    Man::new(command.clone().after_long_help(None::<&str>)).render(&mut text)?;
    let text = String::from_utf8_lossy(&text).replace(".SH EXTRA\n", ".SH EXAMPLES\n");
    if command.get_subcommands().next().is_none() {
        return Ok(text);
    }
    let end = text.find(".SH VERSION\n").unwrap_or(text.len());
    let (before, after) = text.split_at(end);
    Ok(format!("{before}{}{after}", tables()))
}

/// EXIT STATUS, ENVIRONMENT and FILES.
fn tables() -> String {
    let mut text = String::new();
    section(&mut text, "EXIT STATUS", "");
    entry(&mut text, "0", "done");
    for code in Code::ALL {
        entry(&mut text, &code.number().to_string(), code.meaning());
    }
    let says = "A flag wins over a variable, and a variable over the file.";
    section(&mut text, "ENVIRONMENT", says);
    entry(&mut text, "CAIRNFS_HOME", "folder of everything, in the place of the two of FILES");
    for key in &KEYS {
        let default = match key.default {
            "" => String::new(),
            default => format!("; without it {default}"),
        };
        entry(&mut text, key.env, &format!("the setting {}{default}", key.name));
    }
    entry(&mut text, "NO_COLOR", "no colour, if it is not empty");
    section(&mut text, "FILES", "With CAIRNFS_HOME all of them are in that folder.");
    for (path, what) in FILES {
        entry(&mut text, path, what);
    }
    text
}

fn section(text: &mut String, title: &str, says: &str) {
    text.push_str(&format!(".SH \"{title}\"\n"));
    if !says.is_empty() {
        text.push_str(&format!("{says}\n"));
    }
}

fn entry(text: &mut String, term: &str, what: &str) {
    // A bare hyphen may be set as another character.
    let plain = |words: &str| words.replace('-', "\\-");
    text.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", plain(term), plain(what)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_the_exit_codes_the_variables_and_the_files() {
        let mut root = Cli::command();
        root.build();
        let text = page(&root).unwrap();
        for section in ["EXAMPLES", "EXIT STATUS", "ENVIRONMENT", "FILES", "VERSION"] {
            let heads = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            assert!(heads.iter().any(|head| text.contains(head)), "{section}: {text}");
        }
        assert!(!text.contains("EXTRA") && !text.contains("Exit codes:"), "{text}");
        assert!(text.contains(".TP\n\\fB130\\fR\ninterrupted\n"), "{text}");
        for key in &KEYS {
            assert!(text.contains(&format!("\\fB{}\\fR\n", key.env)), "{}", key.env);
        }
        assert!(text.contains("config.toml"), "{text}");
        let verb = page(root.find_subcommand("create").unwrap()).unwrap();
        assert!(verb.contains(".SH EXAMPLES\n") && !verb.contains("FILES"), "{verb}");
    }
}
