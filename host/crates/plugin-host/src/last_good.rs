//! What serves of a file whose own content cannot, or not as plugins.toml has it now: what was good before.

use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{PluginHostError, chain};
use crate::fits;
use crate::folder::{self, Content};
use crate::gate::{self, Candidate};
use crate::loaded::Loaded;
use crate::manifest::Entry;
use crate::registry::{Known, Registry};
use crate::status::PluginRefusal;

impl Registry {
    /// The file's own content cannot serve: what served goes on, or what served before a restart serves again.
    pub fn refuse(&mut self, name: &str, known: &mut Known, refusal: PluginRefusal) {
        if known.loaded.is_none() && refusal.kind == "shadow" {
            self.serve_in_the_open(name, known);
        } else if known.loaded.is_none() {
            self.bring_back(name, known);
        } else {
            self.keep_up(name, known);
        }
        if known.error.as_ref() != Some(&refusal) {
            tracing::error!(
                file = name,
                error = refusal.message,
                keeps_last = known.loaded.is_some(),
                "plugin refused"
            );
        }
        // Of a rollback more is said where it happens.
        if known.loaded.is_none() {
            known.held = None;
        } else if refusal.kind == "shadow" && known.in_force.shadow != known.entry.shadow {
            known.held = Some("it serves, and not in the shadow".to_owned());
        } else if refusal.kind != "rejected" || known.held.is_none() {
            known.held = Some(format!("what was good before serves ({})", refusal.kind));
        }
        known.error = Some(refusal);
    }

    /// At start-up the last good content is in what is kept only.
    fn bring_back(&mut self, name: &str, known: &mut Known) {
        let Some(hold) = self.holds.files.get(name) else { return };
        let kept: Vec<String> = [&hold.serving, &hold.previous]
            .into_iter()
            .flatten()
            .filter(|digest| !hold.rejected.contains(*digest) && !known.is_unsigned(digest))
            .cloned()
            .collect();
        for digest in kept {
            match self.load_kept(name, &digest, &known.entry) {
                Some(Ok(loaded)) => {
                    tracing::warn!(
                        file = name,
                        version = loaded.identity.version,
                        digest,
                        "the last good content serves, not what the file holds"
                    );
                    known.since = Some(SystemTime::now());
                    known.in_force = known.entry.clone();
                    known.loaded = Some(loaded);
                    return;
                }
                Some(Err(error)) => {
                    let error = chain(&error);
                    tracing::error!(file = name, digest, error, "a kept content cannot serve");
                }
                None => {}
            }
        }
    }

    /// A shadow that means nothing would only switch a filter off, and let everything leave: after a start too it serves as
    /// if the word were not there.
    fn serve_in_the_open(&mut self, name: &str, known: &mut Known) {
        let entry = Entry { shadow: false, ..known.entry.clone() };
        let limit = entry.limits(&self.runtime.limits).component_bytes;
        let made = folder::read(&self.settings.folder, name, limit)
            .and_then(|read| self.load_and_keep(name, &read, &entry));
        match made {
            Ok(loaded) => {
                known.since = Some(SystemTime::now());
                (known.loaded, known.in_force) = (Some(loaded), entry);
            }
            Err(error) => {
                tracing::error!(
                    file = name,
                    error = chain(&error),
                    "nor does it serve without the shadow"
                );
            }
        }
    }

    /// A content that serves although the file holds another follows plugins.toml as far as it can.
    fn keep_up(&mut self, name: &str, known: &mut Known) {
        let Some(loaded) = &known.loaded else { return };
        let (digest, entry) = (&loaded.identity.digest, &known.entry);
        // Where it is the file's own content that does not take its settings, that was tried already.
        if known.digest.as_ref() == Some(digest) || known.in_force == *entry {
            known.unfit = known.unfit.take_if(|_| known.in_force != *entry);
            return;
        }
        let key = (digest.clone(), entry.made_with());
        if self.refused.contains_key(&key) {
            return;
        }
        match self.fitted(loaded, entry) {
            Ok(loaded) => {
                known.loaded = Some(loaded);
                known.in_force = known.entry.clone();
                known.unfit = None;
            }
            Err(error) => {
                known.unfit = Some(self.does_not_fit(name, loaded, entry, &error));
            }
        }
    }

    /// A plugin with the settings that plugins.toml has for it now.
    pub fn fitted(
        &self,
        loaded: &Arc<Loaded>,
        entry: &Entry,
    ) -> Result<Arc<Loaded>, PluginHostError> {
        if loaded.is_set_up_as(entry, &self.runtime.limits) {
            return fits::check(&loaded.roles(), entry).map(|()| Arc::clone(loaded));
        }
        gate::reconfigure(&self.runtime, loaded, entry)
    }

    /// It keeps the settings it has; what to say of that.
    pub fn does_not_fit(
        &mut self,
        name: &str,
        loaded: &Loaded,
        entry: &Entry,
        error: &PluginHostError,
    ) -> String {
        let refusal = PluginRefusal::of(error);
        tracing::error!(
            file = name,
            error = refusal.message,
            "the content that serves does not take its new settings, and keeps the old ones"
        );
        let said = format!("its settings are those from before, since {}", refusal.message);
        self.remember((loaded.identity.digest.clone(), entry.made_with()), refusal);
        said
    }

    /// A content that is kept, through the gate. None: it is not kept.
    pub fn load_kept(
        &self,
        name: &str,
        digest: &str,
        entry: &Entry,
    ) -> Option<Result<Arc<Loaded>, PluginHostError>> {
        let (bytes, signature) = self.runtime.state.original(digest)?;
        let content = Content { bytes, digest: digest.to_owned() };
        let signature = signature.as_deref();
        let candidate = Candidate { file: name, content: &content, entry, signature };
        Some(gate::load(&self.runtime, &candidate))
    }
}
