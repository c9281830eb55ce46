//! The build that a price on record was computed by, found by the digests of its file and of its configuration: among what
//! was named, and among what the gateway keeps of what served.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tollgate_domain::Cost;
use tollgate_plugin_host::{
    KeptPlugins, OfflineCostModel, PluginHostSettings, chain, digest_of_file,
};

use super::super::error::AuditError;

/// Builds at hand.
pub(super) struct Builds<'a> {
    settings: &'a PluginHostSettings,
    /// Files that were named, by digest.
    files: HashMap<String, PathBuf>,
    /// The configuration that was named.
    config: Option<String>,
    kept: KeptPlugins,
    /// Those that a price was from, by digest and digest of the configuration; or what is missing.
    opened: HashMap<(String, Option<String>), Result<OfflineCostModel, String>>,
}

impl<'a> Builds<'a> {
    /// Those that were named, and what the data folder holds.
    pub(super) fn new(
        settings: &'a PluginHostSettings,
        named: &[PathBuf],
        config: Option<String>,
        data_dir: &Path,
    ) -> Result<Self, AuditError> {
        let digest = |file: &PathBuf| match digest_of_file(settings, file) {
            Ok(digest) => Ok((digest, file.clone())),
            Err(error) => Err(AuditError::Plugin { file: file.clone(), why: chain(&error) }),
        };
        let kept = KeptPlugins::of(&data_dir.join("plugins"));
        let files = named.iter().map(digest).collect::<Result<_, _>>()?;
        Ok(Self { settings, files, config, kept, opened: HashMap::new() })
    }

    /// The build that computed this, configured as it was, or what is missing and what to do.
    pub(super) fn of(&mut self, cost: &Cost) -> Result<&OfflineCostModel, &str> {
        let key = (cost.plugin.digest.clone(), cost.config_digest.clone());
        if !self.opened.contains_key(&key) {
            let opened = self.open(&key.0, key.1.as_deref());
            self.opened.insert(key.clone(), opened);
        }
        match self.opened.get(&key) {
            Some(opened) => opened.as_ref().map_err(String::as_str),
            None => Err("it was not looked for"),
        }
    }

    fn open(&self, digest: &str, config: Option<&str>) -> Result<OfflineCostModel, String> {
        let named = self.files.get(digest).cloned();
        let file = named
            .or_else(|| self.kept.file(digest))
            .ok_or("its file is not kept; name it with --plugin")?;
        let named = |config: &String| OfflineCostModel::config_digest(config);
        let config = match (config, &self.config) {
            (None, _) => "{}".to_owned(),
            (Some(wanted), Some(given)) if named(given).as_deref() == Some(wanted) => given.clone(),
            (Some(wanted), _) => self.kept.configuration(wanted).ok_or_else(|| {
                format!("its configuration {wanted} is not kept; give it with --config")
            })?,
        };
        let model = OfflineCostModel::open(self.settings, &file, &config);
        let model = model.map_err(|refused| refused.to_string())?;
        if model.identity().digest == digest {
            Ok(model)
        } else {
            Err(format!("{} holds another build", file.display()))
        }
    }
}
