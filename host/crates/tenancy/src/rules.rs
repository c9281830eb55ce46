//! `keys.toml`: who has a key, and what keys, tenants and models are limited to.
//!
//! ```toml
//! [[key]]
//! id = "key-7dh2kQ0Zb3xY"           # shown in lists and on records; no secret
//! sha256 = "9f86..."                # of the secret, in hex
//! tenant = "acme"                   # who pays
//! models = ["gpt-4o*"]              # patterns with `*` and `?`; default: all
//! expires = 2027-01-01T00:00:00Z    # RFC 3339, also as text; default: never
//! revoked = false
//! priority = 10                     # -100 to 100, higher first; default: the tenant's, or 0
//! created = 2026-11-26T03:00:00Z
//! note = "Jane's laptop"
//! [key.limits]
//! requests-per-minute = 60          # 0: nothing is admitted; left out: no limit
//! tokens-per-minute = 100000
//! concurrent = 4
//! [[key.budget]]
//! amount = "12.50"
//! currency = "USD"
//! per = "day"                       # or "month", "total"
//! soft = 0.8                        # told from this share on; the default
//! hard = true                       # refused once it is spent; the default
//!
//! [[tenant]]
//! name = "acme"                     # with priority, [tenant.limits] and [[tenant.budget]]
//! [[model]]
//! name = "gpt-4o*"                  # the first that matches holds
//! [model.limits]                    # of what each tenant asks of each such model
//! [defaults.limits]                 # of each tenant that is not named
//! ```
//!
//! An unknown key is an error, and an error names the key and its place in one line.

use std::collections::HashMap;
use std::sync::Arc;

use tollgate_domain::UnixNanos;
use tollgate_domain::text::one_line;
use wildmatch::WildMatch;

use crate::limits::{Budget, Limits};
use crate::secret::Digest;
use crate::written::{WrittenFile, allotment, at_place, check_name};

/// All that the file says, checked.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub keys: HashMap<Digest, Arc<Key>>,
    by_id: HashMap<String, Digest>,
    tenants: HashMap<String, Arc<Allotment>>,
    models: Vec<(WildMatch, Limits)>,
    defaults: Arc<Allotment>,
}

/// What one key or one tenant may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Allotment {
    pub limits: Limits,
    pub budgets: Vec<Budget>,
    /// Where requests wait for a model of this process: the higher, the sooner.
    pub priority: Option<i32>,
}

/// One key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub id: String,
    pub digest: Digest,
    pub tenant: String,
    /// Empty: all.
    pub models: Vec<WildMatch>,
    pub created: Option<UnixNanos>,
    pub expires: Option<UnixNanos>,
    pub revoked: bool,
    pub note: Option<String>,
    pub allotment: Allotment,
}

impl Rules {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: WrittenFile = toml::Deserializer::parse(text)
            .map_err(|error| at_place(text, "", &error))
            .and_then(|toml| {
                serde_path_to_error::deserialize(toml).map_err(|error| {
                    let path = error.path().to_string();
                    at_place(text, &path, error.inner())
                })
            })?;
        let mut rules = Self {
            defaults: Arc::new(Allotment {
                limits: written.defaults.limits.check().map_err(|why| format!("defaults.{why}"))?,
                ..Allotment::default()
            }),
            ..Self::default()
        };
        for (place, key) in written.key.into_iter().enumerate() {
            let called = one_line(&key.id, 64);
            let wrong = |why: String| format!("key[{place}] ({called}): {why}");
            let key = key.check().map_err(wrong)?;
            if rules.by_id.insert(key.id.clone(), key.digest).is_some() {
                return Err(wrong("id: another key has it".to_owned()));
            }
            if rules.keys.insert(key.digest, Arc::new(key)).is_some() {
                return Err(wrong("sha256: another key has it".to_owned()));
            }
        }
        for (place, tenant) in written.tenant.into_iter().enumerate() {
            let called = one_line(&tenant.name, 64);
            let wrong = |why: String| format!("tenant[{place}] ({called}): {why}");
            check_name("name", &tenant.name).map_err(wrong)?;
            let allotment =
                allotment(tenant.limits, tenant.budget, tenant.priority).map_err(wrong)?;
            if rules.tenants.insert(tenant.name, Arc::new(allotment)).is_some() {
                return Err(wrong("name: it stands in it twice".to_owned()));
            }
        }
        for (place, model) in written.model.into_iter().enumerate() {
            let called = one_line(&model.name, 64);
            let wrong = |why: String| format!("model[{place}] ({called}): {why}");
            check_name("name", &model.name).map_err(wrong)?;
            let limits = model.limits.check().map_err(wrong)?;
            rules.models.push((WildMatch::new(&model.name), limits));
        }
        Ok(rules)
    }

    /// What a tenant may use.
    pub fn tenant(&self, name: Option<&str>) -> &Arc<Allotment> {
        name.and_then(|name| self.tenants.get(name)).unwrap_or(&self.defaults)
    }

    /// What each tenant may ask of a model.
    pub fn model(&self, name: &str) -> Limits {
        self.models
            .iter()
            .find(|(pattern, _)| pattern.matches(name))
            .map_or_else(Limits::default, |(_, limits)| *limits)
    }

    /// The tenants that are named.
    pub fn tenants(&self) -> impl Iterator<Item = (&String, &Arc<Allotment>)> {
        self.tenants.iter()
    }

    /// Patterns of models, in the order in which they are tried.
    pub fn models(&self) -> impl Iterator<Item = (String, Limits)> {
        self.models.iter().map(|(pattern, limits)| (pattern.pattern(), *limits))
    }

    /// What tenants may use that are not named.
    pub fn defaults(&self) -> Limits {
        self.defaults.limits
    }

    /// All budgets there are.
    pub fn budgets(&self) -> impl Iterator<Item = &Budget> {
        let of_keys = self.keys.values().flat_map(|key| &key.allotment.budgets);
        of_keys.chain(self.tenants.values().flat_map(|tenant| &tenant.budgets))
    }

    /// The key with this id.
    pub fn key(&self, id: &str) -> Option<&Key> {
        self.by_id.get(id).and_then(|digest| self.keys.get(digest)).map(|key| &**key)
    }

    /// Adds the keys of a variable: `tenant:secret` or `tenant:sha256`, with commas between. What
    /// the file says of the same secret wins, so that a key revoked there is revoked.
    pub fn add_variable(&mut self, text: &str) -> Result<(), String> {
        for (place, entry) in text.split(',').map(str::trim).enumerate() {
            if entry.is_empty() {
                continue;
            }
            // The text itself is never repeated: it may be a secret.
            let wrong = |why: &str| format!("entry {}: {why}", place + 1);
            let (tenant, secret) = entry
                .rsplit_once(':')
                .ok_or_else(|| wrong("write it as `tenant:secret` or `tenant:sha256`"))?;
            check_name("tenant", tenant).map_err(|why| wrong(&why))?;
            let digest = match Digest::parse(secret) {
                Some(digest) => digest,
                None if secret.len() >= 16 && secret.bytes().all(|b| b.is_ascii_graphic()) => {
                    Digest::of(secret)
                }
                None => {
                    return Err(wrong("a secret has at least 16 visible ASCII characters"));
                }
            };
            let hex = digest.to_string();
            self.keys.entry(digest).or_insert_with(|| {
                Arc::new(Key {
                    id: format!("env-{}", hex.get(..12).unwrap_or_default()),
                    digest,
                    tenant: tenant.to_owned(),
                    models: Vec::new(),
                    created: None,
                    expires: None,
                    revoked: false,
                    note: None,
                    allotment: Allotment::default(),
                })
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::Principal;
    use crate::written::parse_moment;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn every_key_is_read() {
        let rules = Rules::parse(&format!(
            "[[key]]\nid = \"k1\"\nsha256 = \"{DIGEST}\"\ntenant = \"acme\"\nmodels = [\"gpt-4o*\"]\n\
             expires = \"2027-01-01T00:00:00+01:00\"\nrevoked = true\ncreated = 2026-11-26T03:00:00Z\nnote = \"n\"\n\
             priority = -100\n[key.limits]\nrequests-per-minute = 60\ntokens-per-minute = 0\nconcurrent = 4\n\
             [[key.budget]]\namount = \"12.50\"\ncurrency = \"USD\"\nper = \"day\"\nsoft = 0.5\nhard = false\n\
             [[key.budget]]\namount = \"1\"\ncurrency = \"EUR\"\nper = \"day\"\n\
             [[tenant]]\nname = \"acme\"\npriority = 7\n[tenant.limits]\nconcurrent = 9\n\
             [[model]]\nname = \"big-*\"\n[model.limits]\nconcurrent = 1\n\
             [defaults.limits]\nrequests-per-minute = 7\n"
        ))
        .unwrap();
        let key = &rules.keys[&Digest::parse(DIGEST).unwrap()];
        assert_eq!((key.id.as_str(), key.tenant.as_str(), key.revoked), ("k1", "acme", true));
        assert_eq!(key.expires, parse_moment("2026-12-31T23:00:00Z"));
        assert_eq!(key.created, parse_moment("2026-11-26T03:00:00Z"));
        assert_eq!(key.allotment.priority, Some(-100));
        let limits = key.allotment.limits;
        assert_eq!(limits.requests_per_minute, Some(60));
        assert_eq!((limits.tokens_per_minute, limits.concurrent), (Some(0), Some(4)));
        let [dollars, euros] = &key.allotment.budgets[..] else { panic!("two budgets") };
        assert_eq!(
            (dollars.amount.decimal(), dollars.soft.decimal()),
            ("12.5".into(), "6.25".into())
        );
        assert!(!dollars.hard && euros.hard);
        assert_eq!(euros.soft.decimal(), "0.8");
        assert_eq!(rules.tenant(Some("acme")).limits.concurrent, Some(9));
        assert_eq!(rules.tenant(Some("other")).limits.requests_per_minute, Some(7));
        assert_eq!(rules.tenant(None).limits.requests_per_minute, Some(7));
        let (key, rules) = (Arc::clone(key), Arc::new(rules));
        let by_tenant = Key { allotment: Allotment::default(), ..(*key).clone() };
        let of_key = |key: Arc<Key>| Principal::of_key(key, Arc::clone(&rules)).priority();
        let of_user = |user| Principal::of_user(Some(user), Arc::clone(&rules)).priority();
        assert_eq!((of_key(key), of_key(Arc::new(by_tenant))), (-100, 7));
        assert_eq!((of_user("acme"), of_user("other")), (7, 0));
        assert_eq!(rules.model("big-1").concurrent, Some(1));
        assert!(rules.model("small").is_empty());
    }

    #[test]
    fn an_error_names_the_key_and_its_place() {
        let key = format!("[[key]]\nid = \"k1\"\nsha256 = \"{DIGEST}\"\ntenant = \"acme\"\n");
        let cases = [
            ("colour = 1".to_owned(), "colour"),
            ("[[key]]\nid = 5".to_owned(), "key[0].id at line 2, column 6"),
            (format!("{key}limit = 1"), "limit"),
            (format!("{key}[key.limits]\nrpm = 1"), "key[0].limits"),
            (format!("{key}[key.limits]\nconcurrent = -1"), "key[0].limits.concurrent at line 6"),
            (
                format!("{key}[key.limits]\nconcurrent = 99999999999"),
                "key[0] (k1): limits.concurrent",
            ),
            (format!("{key}expires = 2027-01-01"), "key[0] (k1): expires"),
            (format!("{key}expires = \"soon\""), "key[0] (k1): expires"),
            (format!("{key}expires = 5"), "key[0] (k1): expires"),
            (format!("{key}priority = 101"), "key[0] (k1): priority"),
            (format!("{key}{key}"), "key[1] (k1): id"),
            (format!("{key}{}", key.replace("k1", "k2")), "key[1] (k2): sha256"),
            (key.replace("k1", "a b"), "key[0] (a b): id"),
            (key.replace("ba78", "xx"), "key[0] (k1): sha256"),
            (key.replace("acme", ""), "key[0] (k1): tenant"),
            (format!("{key}models = [\"\"]"), "key[0] (k1): models[0]"),
            ("[[tenant]]\nname=\"a\"\n[[tenant]]\nname=\"a\"".to_owned(), "tenant[1] (a): name"),
            (budget("amount = \"1e3\"", "USD", ""), "tenant[0] (a): budget[0].amount"),
            (budget("amount = \"-1\"", "USD", ""), "tenant[0] (a): budget[0].amount"),
            (budget("amount = 1.5", "USD", ""), "tenant[0].budget[0].amount at line 4"),
            (budget("amount = \"1\"", "usd", ""), "tenant[0] (a): budget[0].currency"),
            (budget("amount = \"1\"", "USD", "soft = 1.5"), "tenant[0] (a): budget[0].soft"),
            (budget("amount = \"1\"", "USD", "soft = nan"), "tenant[0] (a): budget[0].soft"),
            (budget("amount = \"1\"", "USD", "per = \"day\""), "line"),
            ("[[model]]\nname = \"\"\n[model.limits]".to_owned(), "model[0] (): name"),
            ("[[model]]\nname = \"m\"".to_owned(), "model[0]"),
            (
                "[defaults.limits]\nconcurrent = 99999999999".to_owned(),
                "defaults.limits.concurrent",
            ),
        ];
        for (text, place) in cases {
            let error = Rules::parse(&text).unwrap_err();
            assert!(error.contains(place) && !error.contains('\n'), "{text}\n{error}");
        }
    }

    fn budget(amount: &str, currency: &str, more: &str) -> String {
        format!(
            "[[tenant]]\nname = \"a\"\n[[tenant.budget]]\n{amount}\ncurrency = \"{currency}\"\nper = \"day\"\n{more}"
        )
    }

    #[test]
    fn a_variable_adds_keys_and_never_shows_its_text() {
        let mut rules = Rules::default();
        rules.add_variable(&format!("acme:{DIGEST}, a:b:tg-0123456789abcdef,,")).unwrap();
        assert_eq!(rules.keys[&Digest::parse(DIGEST).unwrap()].tenant, "acme");
        assert_eq!(rules.keys[&Digest::of("tg-0123456789abcdef")].tenant, "a:b");
        for wrong in ["hunter2-hunter2-hunter2", "acme:hunter2", ":hunter2-hunter2-hunter2"] {
            let error = Rules::default().add_variable(wrong).unwrap_err();
            assert!(error.starts_with("entry 1") && !error.contains("hunter2"), "{error}");
        }
    }
}
