//! `cairnfs config`: every setting, its value, and where that comes from.

use serde::Serialize;

use super::Context;
use crate::{
    cli::ConfigArgs,
    exit::Result,
    settings::{KEYS, Origin},
    ui,
};

#[derive(Serialize)]
struct Config {
    file: String,
    data: String,
    settings: Vec<Setting>,
}

#[derive(Serialize)]
struct Setting {
    key: &'static str,
    value: Option<String>,
    from: Origin,
    environment: &'static str,
}

pub(super) fn run(context: &Context, args: &ConfigArgs) -> Result<()> {
    if let Some(bucket) = &args.bucket
        && !context.home.bucket_dir(bucket).exists()
    {
        // Refuses in the words of all other verbs.
        context.describe(bucket)?;
    }
    let settings = KEYS.iter().map(|key| {
        let (value, from) = context.settings.text(key.name, args.bucket.as_ref());
        let value = Some(value.into_owned()).filter(|value| !value.is_empty());
        Setting { key: key.name, value, from, environment: key.env }
    });
    let config = Config {
        file: context.home.config_file().display().to_string(),
        data: context.home.data_dir().display().to_string(),
        settings: settings.collect(),
    };
    if args.json {
        return ui::json(&config);
    }
    match context.home.config_file().exists() {
        true => ui::result(format_args!("# settings from {}", config.file)),
        false => ui::result(format_args!("# there is no {}", config.file)),
    }
    ui::result(format_args!("# buckets below {}", config.data));
    for (key, setting) in KEYS.iter().zip(config.settings) {
        let Setting { value, from, environment, .. } = setting;
        let from = match from {
            Origin::Environment => environment,
            Origin::File => "config.toml",
            Origin::Default => "default",
        };
        let value = value.map_or_else(|| "-".to_owned(), |value| key.written(&value));
        ui::result(format_args!("{:<18} = {value:<12}  # {from}", key.name));
    }
    Ok(())
}
