//! `cairnfs id`: this device's name and key.

use serde::Serialize;

use super::Context;
use crate::{cli::JsonArgs, exit::Result, ui, values::hex};

#[derive(Serialize)]
struct Id {
    name: String,
    key: String,
}

pub(super) fn run(context: &Context, args: &JsonArgs) -> Result<()> {
    let name = context.settings.device_name();
    let id = Id { name, key: hex(&context.home.device_key()?.public().0) };
    if args.json {
        return ui::json(&id);
    }
    ui::result(format_args!("name: {}", id.name));
    ui::result(format_args!("key:  {}", id.key));
    Ok(())
}
