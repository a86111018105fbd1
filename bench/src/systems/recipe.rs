//! How each of them is made and mounted: with what it does if nobody asks for anything else.
//!
//! A quick derivation of the key is chosen where that can be, as it is paid once for each mount and
//! no work waits for it.

use std::{
    env,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Which;

/// What every one of them is locked with.
const PASSWORD: &str = "bench";

/// The places that a recipe works with, all below one directory.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) base: PathBuf,
    pub(super) store: PathBuf,
    pub(super) point: PathBuf,
    pub(super) password: PathBuf,
    pub(super) log: PathBuf,
}

impl Layout {
    /// Makes the directories in the new directory `base`.
    pub(super) fn new(base: &Path) -> io::Result<Self> {
        let layout = Self {
            base: base.to_owned(),
            store: base.join("store"),
            point: base.join("mnt"),
            password: base.join("password"),
            log: base.join("log"),
        };
        std::fs::create_dir_all(&layout.store)?;
        std::fs::create_dir_all(&layout.point)?;
        std::fs::write(&layout.password, PASSWORD)?;
        Ok(layout)
    }

    /// A command whose output goes to the log, and whose home is `base`.
    pub(super) fn command(&self, program: &Path) -> io::Result<Command> {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("CAIRNFS_") {
                command.env_remove(name);
            }
        }
        let log = File::options().append(true).create(true).open(&self.log)?;
        command
            .env("HOME", &self.base)
            .env("CAIRNFS_HOME", &self.store)
            // Nobody else on the network is to hear of what is measured.
            .env("CAIRNFS_LISTEN", "127.0.0.1:0")
            .env("CAIRNFS_DISCOVERY", "false")
            .env("CRYFS_FRONTEND", "noninteractive")
            .env("CRYFS_NO_UPDATE_CHECK", "true")
            .env("CRYFS_LOCAL_STATE_DIR", self.base.join("state"))
            .env("JFS_RSA_PASSPHRASE", PASSWORD)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        Ok(command)
    }

    fn juicefs_tables(&self) -> String {
        format!("sqlite3://{}", self.base.join("tables.db").display())
    }
}

/// What has to be run once, in this order. `CryFS` and `EncFS` make theirs when they are mounted.
pub(super) fn create(which: Which, program: &Path, at: &Layout) -> io::Result<Vec<Command>> {
    let mut command = at.command(program)?;
    match which {
        Which::Plain | Which::CryFs | Which::EncFs => return Ok(Vec::new()),
        Which::Cairnfs(_) => command.args(["create", "b", "--no-passphrase"]),
        Which::Gocryptfs => command
            .args(["-init", "-q", "-scryptn", "10", "-passfile"])
            .args([&at.password, &at.store]),
        Which::SecureFs => command
            .args(["create", "--rounds", "1", "--pbkdf", "pkcs5-pbkdf2-hmac-sha256"])
            .args(["--pass", PASSWORD])
            .arg(&at.store),
        Which::JuiceFs => {
            let key = at.base.join("key.pem");
            let mut openssl = at.command(Path::new("openssl"))?;
            openssl.args(["genrsa", "-aes256", "-passout", &format!("pass:{PASSWORD}"), "-out"]);
            openssl.arg(&key).arg("2048");
            command
                .args(["format", "--storage", "file", "--trash-days", "0", "--bucket"])
                // Without a slash at the end it is a prefix of names, not a directory.
                .arg(format!("{}/", at.store.display()))
                .arg("--encrypt-rsa-key")
                .args([key])
                .args([&at.juicefs_tables(), "bench"]);
            return Ok(vec![openssl, command]);
        }
    };
    Ok(vec![command])
}

/// What serves it, in the foreground.
pub(super) fn mount(which: Which, program: &Path, at: &Layout) -> io::Result<Command> {
    let mut command = at.command(program)?;
    match which {
        Which::Plain => (),
        Which::Cairnfs(policy) => {
            command.args(["mount", "b", "-f", "--save", policy]).arg(&at.point);
        }
        Which::Gocryptfs => {
            command.args(["-q", "-fg", "-nosyslog", "-passfile"]).arg(&at.password);
            command.args([&at.store, &at.point]);
        }
        Which::CryFs => {
            command.arg("-f").args([&at.store, &at.point]).stdin(File::open(&at.password)?);
        }
        Which::EncFs => {
            command.args(["-f", "--standard", "-S"]).args([&at.store, &at.point]);
            command.stdin(File::open(&at.password)?);
        }
        Which::SecureFs => {
            command.args(["mount", "--pass", PASSWORD]).args([&at.store, &at.point]);
        }
        Which::JuiceFs => {
            command.args(["mount", "--no-usage-report", "--backup-meta", "0", "--cache-dir"]);
            command.arg(at.base.join("cache")).arg(at.juicefs_tables()).arg(&at.point);
        }
    }
    Ok(command)
}

/// What unmounts it in good order.
pub(super) fn unmount(which: Which, program: &Path, at: &Layout) -> io::Result<Command> {
    if let Which::Cairnfs(_) = which {
        let mut command = at.command(program)?;
        command.arg("umount").arg(&at.point);
        return Ok(command);
    }
    let mut command = at.command(Path::new("fusermount3"))?;
    command.arg("-u").arg(&at.point);
    Ok(command)
}
