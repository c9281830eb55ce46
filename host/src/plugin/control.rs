//! `tollgate plugin reload|disable|enable|rollback`: one word to a running gateway.

use tollgate_http_api::{PluginView, PluginsView};

use super::PluginError;
use super::client::{Ask, Client, Target};
use super::list;

/// Which plugin.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the file in the plugin folder
    file: String,

    #[command(flatten)]
    target: Target,
}

/// Tells the gateway to do this with the file, and says what has become of it.
pub(super) fn run(command: &str, arguments: &Arguments) -> Result<String, PluginError> {
    let client = Client::of(&arguments.target)?;
    let route = ["admin", "plugins", arguments.file.as_str(), command];
    let plugin: PluginView = client.ask(&Ask::Post, &route)?;
    Ok(list::table(&[plugin]))
}

/// Lets the gateway look at its folder, and says what it found.
pub(super) fn reload(target: &Target) -> Result<String, PluginError> {
    let found: PluginsView =
        Client::of(target)?.ask(&Ask::Post, &["admin", "plugins", "reload"])?;
    Ok(list::table(&found.plugins))
}
