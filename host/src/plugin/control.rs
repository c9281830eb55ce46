//! `tollgate plugin reload|disable|enable|rollback`: one word to a running gateway, or to a folder while none runs.

use tollgate_http_api::{PluginView, PluginsView};
use tollgate_plugin_host::{ControlError, PluginHost, chain};

use super::PluginError;
use super::list::{self, Listed};
use super::place::{Opened, Place};
use crate::admin::{Ask, Client, Target};

/// What to do with a file.
#[derive(Clone, Copy)]
pub(super) enum Order {
    Disable,
    Enable,
    Rollback,
}

/// Which plugin.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the file in the plugin folder, or of the plugin that serves from it
    file: String,

    #[command(flatten)]
    place: Place,
}

/// Has this done with the file, and says what has become of it.
pub(super) fn run(order: Order, arguments: &Arguments) -> Result<String, PluginError> {
    arguments.place.must_be_kept()?;
    let file = arguments.file.as_str();
    let plugin: PluginView = match arguments.place.open()? {
        Opened::Gateway(client) => {
            client.ask(&Ask::Post, &["admin", "plugins", file, order.route()])?
        }
        Opened::Folder(host) => {
            let named = host.file_of(file).map_err(|error| PluginError::Host(chain(&error)))?;
            let file = named.as_str();
            order.carry_out(&host, file).map_err(|error| PluginError::Host(chain(&error)))?;
            let status = host.status().into_iter().find(|status| status.file == file);
            let status = status.ok_or_else(|| PluginError::Host(format!("{file} is gone")))?;
            PluginView::from(&status)
        }
    };
    if matches!(order, Order::Enable) && !plugin.enabled {
        return Err(PluginError::Host(format!(
            "{} stays off: plugins.toml has `enabled = false` for it; set that to true",
            plugin.file
        )));
    }
    Ok(list::table(&[plugin]))
}

/// Lets the gateway look at its folder, and says what it found, and what of it is not used.
pub(super) fn reload(target: &Target) -> Result<Listed, PluginError> {
    let found: PluginsView =
        Client::of(target)?.ask(&Ask::Post, &["admin", "plugins", "reload"])?;
    let not_used = list::not_used(&found.plugins);
    Ok(Listed { text: list::table(&found.plugins), not_used })
}

impl Order {
    fn route(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Enable => "enable",
            Self::Rollback => "rollback",
        }
    }

    fn carry_out(self, host: &PluginHost, file: &str) -> Result<(), ControlError> {
        match self {
            Self::Disable => host.disable(file),
            Self::Enable => host.enable(file),
            Self::Rollback => host.roll_back(file).map(|_| ()),
        }
    }
}
