//! From what is known of each file to the set that serves and the status that is shown.

use std::collections::HashMap;
use std::sync::Arc;

use tollgate_domain::PluginIdentity;

use crate::error::PluginHostError;
use crate::interface;
use crate::manifest;
use crate::registry::{Known, Registry};
use crate::role::Role;
use crate::set::{Member, PluginSet, Rules};
use crate::status::{PluginRefusal, PluginStatus, Reported};

impl Registry {
    /// Swaps the set if it is another one, and the status always.
    pub fn publish(&mut self) {
        let serving = self.choose();
        let members: Vec<Member> = serving.iter().filter_map(|name| self.member(name)).collect();
        for member in &members {
            member.loaded.raise(&self.alarm);
        }
        let present = self.shared.set.load_full();
        if !present.holds(&members) {
            members.iter().for_each(|member| self.keep_configuration(member));
            let generation = present.generation().saturating_add(1);
            let plugins = members.len();
            self.shared.meters.serve(members.iter().map(|member| {
                let loaded = &member.loaded;
                (&*loaded.identity, member.rules.shadow, member.roles(), &loaded.tally)
            }));
            self.shared.set.store(Arc::new(PluginSet::new(generation, members)));
            // Only now: who reads it may count on it that no request is admitted under the set before.
            tracing::info!(generation, plugins, "plugin set swapped");
        }
        self.shared.status.store(Arc::new(self.report(&serving)));
    }

    /// Before it prices anything.
    fn keep_configuration(&self, member: &Member) {
        let loaded = &member.loaded;
        let Some(digest) = loaded.config_digest.as_deref() else { return };
        if !loaded.has(Role::CostModel) {
            return;
        }
        if let Err(error) = self.runtime.state.keep_configuration(digest, loaded.config()) {
            tracing::warn!(
                file = &*member.file,
                %error,
                "its configuration could not be kept; whoever checks its prices later has to bring it"
            );
        }
    }

    /// The files that serve, in order. Of several files of one plugin one does, besides it any that are in the shadow, and
    /// all that plugins.toml names, since whoever names them both wants them both.
    fn choose(&mut self) -> Vec<String> {
        let mut names = self.in_order(self.files.keys().cloned());
        names.sort_by_key(|name| self.claim(name));
        let mut taken: HashMap<String, String> = HashMap::new();
        let mut serving: Vec<String> = Vec::new();
        for name in &names {
            let Some(known) = self.files.get(name) else { continue };
            let plugin = known.loaded.as_ref().map(|loaded| loaded.identity.name.clone());
            let (is_shadow, is_missing) = (known.in_force.shadow, known.missing);
            let serves_as = match plugin {
                None => None,
                Some(_) if is_shadow => {
                    serving.push(name.clone());
                    None
                }
                Some(plugin) => {
                    let owner = taken.entry(plugin.clone()).or_insert_with(|| name.clone());
                    let both_named = !is_missing && self.told.names(owner) && self.told.names(name);
                    if owner == name || both_named {
                        serving.push(name.clone());
                        Some(plugin)
                    } else {
                        if !is_missing {
                            let owner = owner.clone();
                            self.refuse_duplicate(name, plugin, owner);
                        }
                        None
                    }
                }
            };
            self.holds.files.entry(name.clone()).or_default().plugin = serves_as;
        }
        self.in_order(serving.into_iter())
    }

    /// Who comes first to a name: a file that is there, that served under it last, also before a restart, and that
    /// plugins.toml names.
    fn claim(&self, name: &str) -> (bool, bool, bool) {
        let Some(known) = self.files.get(name) else { return (true, true, true) };
        let plugin = known.loaded.as_ref().map(|loaded| &loaded.identity.name);
        let held = self.holds.files.get(name).and_then(|hold| hold.plugin.as_ref());
        (known.missing, held.is_none() || held != plugin, !self.told.names(name))
    }

    fn refuse_duplicate(&mut self, file: &str, name: String, other: String) {
        let refusal = PluginRefusal::of(&PluginHostError::Duplicate { name, other });
        let reported = self.shared.status.load();
        let is_reported = reported.iter().any(|reported| {
            reported.status.file == *file && reported.status.error.as_ref() == Some(&refusal)
        });
        if !is_reported {
            tracing::error!(file, error = refusal.message, "plugin refused");
        }
        if let Some(known) = self.files.get_mut(file) {
            known.error = Some(refusal);
        }
    }

    fn in_order(&self, names: impl Iterator<Item = String>) -> Vec<String> {
        let mut names: Vec<String> = names.collect();
        names.sort_by_key(|name| {
            (self.files.get(name).map_or(0, |known| known.in_force.order), name.clone())
        });
        names
    }

    fn member(&self, name: &str) -> Option<Member> {
        let known = self.files.get(name)?;
        Some(Member {
            loaded: Arc::clone(known.loaded.as_ref()?),
            file: name.into(),
            rules: Arc::new(Rules::from(&known.in_force)),
        })
    }

    fn report(&self, serving: &[String]) -> Vec<Reported> {
        let broken_manifest = self.told.error.iter().map(|error| Reported {
            status: PluginStatus {
                error: Some(error.clone()),
                ..PluginStatus::new(manifest::FILE)
            },
            loaded: None,
        });
        let of_absent = self.told.absent().filter(|(file, _)| !self.files.contains_key(*file));
        let of_absent = of_absent.map(|(file, refusal)| Reported {
            status: PluginStatus { error: Some(refusal.clone()), ..PluginStatus::new(file) },
            loaded: None,
        });
        let of_files = self.files.iter().map(|(name, known)| {
            let loaded = known.loaded.as_ref().filter(|_| serving.contains(name));
            let described = loaded.map(|loaded| &loaded.described);
            let member = loaded.and_then(|_| self.member(name));
            let status = PluginStatus {
                identity: loaded.map(|loaded| (*loaded.identity).clone()),
                roles: member.map(|member| member.roles()).unwrap_or_default(),
                since: loaded.and(known.since),
                enabled: known.entry.enabled && known.held.as_deref() != Some(Known::DISABLED),
                error: known.error.clone(),
                held: match (&known.held, &known.unfit) {
                    (Some(held), Some(unfit)) => Some(format!("{held}; {unfit}")),
                    (held, unfit) => held.clone().or_else(|| unfit.clone()),
                },
                digest_of_file: known.digest.clone(),
                previous: self.previous_identity(name, known),
                shadow: known.in_force.shadow,
                isolation: known.in_force.isolation,
                api_version: loaded.map(|_| interface::API.to_owned()),
                description: described.map(|described| described.description.clone()),
                config_schema: described.and_then(|described| described.config_schema.clone()),
                ..PluginStatus::new(name)
            };
            Reported { status, loaded: loaded.cloned() }
        });
        broken_manifest.chain(of_files).chain(of_absent).collect()
    }

    fn previous_identity(&self, name: &str, known: &Known) -> Option<PluginIdentity> {
        let loaded = known.loaded.as_ref()?;
        known.previous.as_ref().map(|previous| (*previous.loaded.identity).clone()).or_else(|| {
            let digest = self.holds.files.get(name)?.previous.clone()?;
            let name = loaded.identity.name.clone();
            Some(PluginIdentity { name, version: String::new(), digest })
        })
    }
}
