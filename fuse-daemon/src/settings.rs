//! The settings, in layers: a flag, else the environment, else `config.toml`, else the default.
//!
//! In the file, a key stands at the top for all buckets or below `[bucket.NAME]` for one:
//!
//! ```toml
//! save = "flush"
//!
//! [bucket.photos]
//! save = "interval:10s"
//! passphrase_file = "/etc/photos.pass"
//! ```

use std::{
    borrow::Cow,
    collections::BTreeMap,
    env, fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use cairnfs_mount_core::{Limits, Options, Owner, SavePolicy};

use crate::{
    durable,
    exit::{Failure, Result},
    home::{BucketName, Home},
    net::NetOptions,
    values::{Address, Id, Size, Span, Switch},
};

/// A setting that can be given in the environment and in the file.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// Its variable in the environment.
    pub(crate) env: &'static str,
    /// What holds when nobody says anything; empty for none.
    pub(crate) default: &'static str,
    /// Whether the file may have it without quotes.
    is_switch: bool,
    /// Says what is wrong with a value.
    check: fn(&str) -> Result<(), String>,
}

/// All of them, in the order in which they are shown.
pub(crate) const KEYS: [Key; 15] = [
    key::<SavePolicy>("save", "CAIRNFS_SAVE", "flush"),
    key::<Size>("cache", "CAIRNFS_CACHE", "32MiB"),
    key::<Size>("dirty", "CAIRNFS_DIRTY", "32MiB"),
    switch("allow_other", "CAIRNFS_ALLOW_OTHER", "false"),
    key::<Id>("uid", "CAIRNFS_UID", ""),
    key::<Id>("gid", "CAIRNFS_GID", ""),
    key::<Span>("publish_quiet", "CAIRNFS_PUBLISH_QUIET", "1s"),
    key::<Span>("publish_max", "CAIRNFS_PUBLISH_MAX", "10s"),
    key::<PathBuf>("passphrase_file", "CAIRNFS_PASSPHRASE_FILE", ""),
    key::<String>("passphrase_command", "CAIRNFS_PASSPHRASE_COMMAND", ""),
    key::<Span>("timeout", "CAIRNFS_TIMEOUT", ""),
    key::<String>("device_name", "CAIRNFS_DEVICE_NAME", ""),
    key::<Address>("listen", "CAIRNFS_LISTEN", ""),
    switch("discovery", "CAIRNFS_DISCOVERY", "true"),
    key::<log::LevelFilter>("log", "CAIRNFS_LOG", ""),
];

const fn key<T: FromStr>(name: &'static str, env: &'static str, default: &'static str) -> Key
where
    T::Err: fmt::Display,
{
    fn check<T: FromStr>(text: &str) -> Result<(), String>
    where
        T::Err: fmt::Display,
    {
        text.parse::<T>().map(drop).map_err(|err| err.to_string())
    }
    Key { name, env, default, is_switch: false, check: check::<T> }
}

const fn switch(name: &'static str, env: &'static str, default: &'static str) -> Key {
    Key { is_switch: true, ..key::<Switch>(name, env, default) }
}

impl Key {
    /// A value of it as the file takes it.
    pub(crate) fn written(&self, value: &str) -> String {
        match value.parse() {
            Ok(Switch(on)) if self.is_switch => on.to_string(),
            _ => toml::Value::from(value).to_string(),
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// An environment variable.
    Environment,
    /// The configuration file.
    File,
    /// Nobody said anything.
    Default,
}

/// The environment and the file, read and checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// By key.
    environment: BTreeMap<&'static str, String>,
    /// By bucket (or none, for all) and key.
    file: BTreeMap<(Option<BucketName>, &'static str), String>,
}

impl Settings {
    /// Reads both; a value that makes no sense is an error, used or not.
    pub(crate) fn load(home: &Home) -> Result<Self> {
        let mut settings = Self::default();
        for key in &KEYS {
            if let Some(value) = env::var_os(key.env).filter(|value| !value.is_empty()) {
                let Ok(value) = value.into_string() else {
                    return Err(Failure::usage(format_args!("{} is not UTF-8", key.env)));
                };
                (key.check)(&value)
                    .map_err(|err| Failure::usage(format_args!("{}: {err}", key.env)))?;
                settings.environment.insert(key.name, value);
            }
        }
        let path = home.config_file();
        if let Some(text) = durable::read(&path)? {
            settings.read_file(&path, &text)?;
        }
        Ok(settings)
    }

    /// Takes over the text of the file at `path`.
    pub(crate) fn read_file(&mut self, path: &Path, text: &str) -> Result<()> {
        let wrong = |what: String| Failure::usage(format_args!("{}: {what}", path.display()));
        let table: toml::Table = text.parse().map_err(|err: toml::de::Error| {
            let line = err.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            wrong(format!("line {line}: {}", err.message()))
        })?;
        for (name, value) in table {
            if name != "bucket" {
                self.read_key(None, &name, &value).map_err(wrong)?;
                continue;
            }
            let toml::Value::Table(buckets) = value else {
                return Err(wrong("write [bucket.NAME] and the bucket's keys below it".into()));
            };
            for (bucket, keys) in buckets {
                let bucket: BucketName = bucket.parse().map_err(|err| wrong(format!("{err}")))?;
                let toml::Value::Table(keys) = keys else {
                    return Err(wrong(format!("write [bucket.{bucket}] and its keys below it")));
                };
                for (name, value) in keys {
                    self.read_key(Some(&bucket), &name, &value).map_err(wrong)?;
                }
            }
        }
        Ok(())
    }

    fn read_key(
        &mut self,
        bucket: Option<&BucketName>,
        name: &str,
        value: &toml::Value,
    ) -> Result<(), String> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            let table = if bucket.is_none() { ", and a table [bucket.NAME] of them" } else { "" };
            let names = names.join(", ");
            return Err(format!("unknown key {name:?}: the keys are {names}{table}"));
        };
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Boolean(switch) => switch.to_string(),
            _ => return Err(format!("{name}: write it in quotes, as {name} = \"...\"")),
        };
        (key.check)(&text).map_err(|err| format!("{name}: {err}"))?;
        self.file.insert((bucket.cloned(), key.name), text);
        Ok(())
    }

    /// The value of a key for a bucket (or in general), and where it comes from.
    pub(crate) fn text(&self, name: &str, bucket: Option<&BucketName>) -> (Cow<'_, str>, Origin) {
        let key = KEYS.iter().find(|key| key.name == name).expect("asked for by its name in KEYS");
        let in_file = |bucket: Option<&BucketName>| self.file.get(&(bucket.cloned(), key.name));
        if let Some(value) = self.environment.get(name) {
            (Cow::Borrowed(value), Origin::Environment)
        } else if let Some(value) = bucket.and_then(|name| in_file(Some(name))) {
            (Cow::Borrowed(value), Origin::File)
        } else if let Some(value) = in_file(None) {
            (Cow::Borrowed(value), Origin::File)
        } else {
            (Cow::Borrowed(key.default), Origin::Default)
        }
    }

    /// The value of a key, or none if it has not even a default.
    pub(crate) fn get<T: FromStr>(&self, name: &str, bucket: Option<&BucketName>) -> Option<T> {
        let (text, _) = self.text(name, bucket);
        // Checked when it was read, and the defaults by a test.
        if text.is_empty() { None } else { text.parse().ok() }
    }

    /// What this device is called, as others are told.
    pub(crate) fn device_name(&self) -> String {
        self.get("device_name", None)
            .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
    }

    /// How this device is to be reached if no flag says otherwise.
    pub(crate) fn net(&self) -> NetOptions {
        NetOptions {
            listen: self.get("listen", None).map(|Address(at)| at),
            discovery: self.get("discovery", None) == Some(Switch(true)),
            device_name: self.device_name(),
        }
    }

    /// How the bucket is to be served if no flag says otherwise.
    pub(crate) fn options(&self, bucket: &BucketName) -> Options {
        let bucket = Some(bucket);
        let default = Options::default();
        let size = |name, default| self.get(name, bucket).map_or(default, |Size(bytes)| bytes);
        let span = |name, default: Duration| self.get(name, bucket).map_or(default, |Span(t)| t);
        let id = |name| self.get(name, bucket).map(|Id(id)| id);
        Options {
            policy: self.get("save", bucket).unwrap_or_default(),
            limits: Limits {
                cache_bytes: size("cache", default.limits.cache_bytes),
                dirty_bytes: size("dirty", default.limits.dirty_bytes),
            },
            read_only: false,
            publish_quiet: span("publish_quiet", default.publish_quiet),
            publish_max: span("publish_max", default.publish_max),
            owner: Owner { user: id("uid"), group: id("gid") },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> Result<Settings> {
        let mut settings = Settings::default();
        settings.read_file(Path::new("config.toml"), text).map(|()| settings)
    }

    #[test]
    fn every_default_passes_its_own_check() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            assert_eq!((key.check)(key.default), Ok(()), "{}", key.name);
        }
        let options = Settings::default().options(&"b".parse().unwrap());
        assert_eq!(options, Options::default());
    }

    #[test]
    fn a_bucket_may_differ_from_the_others() {
        let settings = from_file(
            "save = \"release\"\nallow_other = true\n[bucket.photos]\nsave = \"interval:10s\"\n",
        )
        .unwrap();
        let photos = "photos".parse().unwrap();
        let other = "other".parse().unwrap();
        assert_eq!(settings.options(&other).policy, SavePolicy::Release);
        assert_eq!(settings.options(&photos).policy, SavePolicy::Interval(Duration::from_secs(10)));
        assert_eq!(settings.get("allow_other", Some(&photos)), Some(Switch(true)));
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let mut settings = from_file("cache = \"1MiB\"").unwrap();
        assert_eq!(settings.text("cache", None), ("1MiB".into(), Origin::File));
        settings.environment.insert("cache", "2MiB".into());
        assert_eq!(settings.text("cache", None), ("2MiB".into(), Origin::Environment));
    }

    #[test]
    fn a_value_is_shown_as_the_file_takes_it() {
        let mut settings = Settings::default();
        settings.environment.insert("allow_other", "yes".into());
        settings.environment.insert("passphrase_command", "pass \"a b\"\\".into());
        settings.environment.insert("device_name", "1".into());
        let written = |key: &Key| key.written(&settings.text(key.name, None).0);
        let lines = KEYS.iter().map(|key| (key, written(key))).filter(|(_, it)| it != "\"\"");
        let text: String = lines.map(|(key, it)| format!("{} = {it}\n", key.name)).collect();
        assert!(text.contains("allow_other = true\n") && text.contains("discovery = true\n"));
        let read = from_file(&text).unwrap();
        for key in KEYS.iter().filter(|key| !key.is_switch) {
            assert_eq!(read.text(key.name, None).0, settings.text(key.name, None).0, "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_told_of_the_table_only_where_that_may_stand() {
        let top = from_file("[photos]\nsave = \"flush\"").unwrap_err().message;
        assert!(top.ends_with("log, and a table [bucket.NAME] of them"), "{top}");
        let below = from_file("[bucket.photos]\nsavee = \"flush\"").unwrap_err().message;
        assert!(below.ends_with("discovery, log"), "{below}");
    }

    /// The guide shows each key once, with its default, and each variable.
    #[test]
    fn the_guide_has_the_settings() {
        let guide = include_str!("../../GUIDE.md");
        let (_, example) = guide.split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let read = from_file(example).unwrap();
        for key in &KEYS {
            let shown = read.file.get(&(None, key.name)).map_or("", String::as_str);
            assert_eq!(shown, key.default, "{}", key.name);
            let commented = example.contains(&format!("\n# {} = ", key.name));
            assert_eq!(commented, key.default.is_empty(), "{}", key.name);
            assert_eq!(key.env, format!("CAIRNFS_{}", key.name.to_uppercase()));
        }
        assert!(read.file.keys().any(|(bucket, _)| bucket.is_some()));
    }

    #[test]
    fn a_bad_file_is_one_line_that_names_the_place() {
        for (text, says) in [
            ("save = \"flush\"\nsav = \"x\"", "unknown key \"sav\""),
            ("\n\nsave = flush", "line 3"),
            ("save = \"sometimes\"", "use flush, release, or interval:TIME"),
            ("cache = 5", "write it in quotes"),
            ("bucket = 1", "[bucket.NAME]"),
            ("[bucket.\"a/b\"]\nsave = \"flush\"", "cannot name a bucket"),
        ] {
            let failure = from_file(text).unwrap_err();
            assert!(failure.message.contains(says), "{}", failure.message);
            assert_eq!(failure.code.number(), 2);
        }
    }
}
