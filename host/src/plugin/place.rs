//! Where the plugins are that a command is about: those of a running gateway, or those of a folder while none runs.

use std::path::PathBuf;

use tollgate_plugin_host::{Compiler, PluginHost, PluginHostSettings, chain};
use url::Url;

use super::PluginError;
use crate::admin::{Client, Token, address};

/// Which plugins are meant.
#[derive(clap::Args)]
pub struct Place {
    /// Admin API of a running gateway, such as http://127.0.0.1:9090
    #[arg(long, value_name = "URL", value_parser = address, conflicts_with = "plugins")]
    admin: Option<Url>,

    #[command(flatten)]
    token: Token,

    /// Folder of plugins, taken through the gate as a gateway would; for when none runs
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,

    /// The gateway's data folder, where it keeps what was disabled or rolled back
    #[arg(long, value_name = "DIR", requires = "plugins")]
    data_dir: Option<PathBuf>,
}

/// A way to them.
pub(super) enum Opened {
    /// Through the gateway that runs.
    Gateway(Client),
    /// In place.
    Folder(PluginHost),
}

impl Place {
    /// Opens the one that was named.
    pub(super) fn open(&self) -> Result<Opened, PluginError> {
        match (&self.admin, &self.plugins) {
            (Some(admin), _) => Ok(Opened::Gateway(Client::new(admin, &self.token)?)),
            (None, Some(folder)) => self.host(folder.clone()).map(Opened::Folder),
            (None, None) => Err(PluginError::Arguments(
                "say which plugins: those of a running gateway with --admin URL, or those of a \
                 folder with --plugins DIR",
            )),
        }
    }

    /// Whether what is changed here will be found again.
    pub(super) fn must_be_kept(&self) -> Result<(), PluginError> {
        if self.admin.is_none() && self.plugins.is_some() && self.data_dir.is_none() {
            return Err(PluginError::Arguments(
                "say with --data-dir DIR where the gateway keeps its data, or nothing will remember this",
            ));
        }
        Ok(())
    }

    fn host(&self, folder: PathBuf) -> Result<PluginHost, PluginError> {
        let compiler = Compiler::this_program()
            .map_err(|error| PluginError::Host(format!("cannot find this program: {error}")))?;
        let state = self.data_dir.as_ref().map(|folder| folder.join("plugins"));
        PluginHost::start(PluginHostSettings { state, compiler, ..PluginHostSettings::new(folder) })
            .map_err(|error| PluginError::Host(chain(&error)))
    }
}
