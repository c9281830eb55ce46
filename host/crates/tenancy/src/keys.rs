//! The keys that hold now, from a file that may change while the gateway runs and a variable that
//! does not.
//!
//! - A bad file leaves the last good one in place and is logged once, with its reason.
//! - Whether keys are asked for is only ever turned on while running: a file that was emptied or
//!   half written locks everybody out rather than letting everybody in.
//! - A secret is found by its digest and then compared in constant time; what timing tells is
//!   about digests, which nobody can turn into secrets.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use subtle::ConstantTimeEq as _;
use tollgate_domain::UnixNanos;

use crate::error::TenancyError;
use crate::limits::Period;
use crate::principal::{AuthError, Principal};
use crate::rules::Rules;
use crate::secret::Digest;

/// The variable of keys, for messages.
pub const KEYS_VARIABLE: &str = "TOLLGATE_KEYS";

/// Most bytes of a file: some fifty thousand keys.
const FILE_LIMIT: u64 = 16 << 20;
/// Time between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);
/// A file that changed as lately may change again without another time of change.
const FRESH: Duration = Duration::from_secs(3);
/// Longest bearer token that is looked at.
const LONGEST_TOKEN: usize = 4096;

/// The keys that hold now. Clones share them; when the last is dropped nobody watches the file.
#[derive(Clone, Debug)]
pub struct Keys {
    shared: Arc<Shared>,
    /// Ends the watching thread when it is dropped.
    _watching: Option<SyncSender<()>>,
}

#[derive(Debug)]
struct Shared {
    path: Option<PathBuf>,
    variable: Option<String>,
    rules: ArcSwap<Rules>,
    /// Whether nobody has had to show a key so far.
    open: AtomicBool,
    /// How often rules were put in force.
    changes: AtomicU64,
    state: Mutex<FileState>,
}

#[derive(Debug, Default)]
struct FileState {
    stamp: Option<Stamp>,
    content: Option<Digest>,
    trouble: Option<String>,
}

/// What changes when a file does, but for two changes within the clock's step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
}

impl Keys {
    /// The keys of `file`, which is watched from then on, and of `variable`'s text
    /// ([`KEYS_VARIABLE`]): `tenant:secret` or `tenant:sha256`, with commas between.
    ///
    /// # Errors
    /// The file cannot be read, or one of the two is wrong: one line that names key and place.
    pub fn open(file: Option<PathBuf>, variable: Option<&str>) -> Result<Self, TenancyError> {
        let shared = Shared {
            path: file,
            variable: variable.map(str::to_owned),
            rules: ArcSwap::from_pointee(Rules::default()),
            open: AtomicBool::new(true),
            changes: AtomicU64::new(0),
            state: Mutex::default(),
        };
        let text = shared.path.as_deref().map(read).transpose()?.unwrap_or_default();
        shared.take(&text)?;
        if let Some(path) = &shared.path {
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.stamp = stamp(path);
            state.content = Some(Digest::of(&text));
        }
        let shared = Arc::new(shared);
        let watching = match &shared.path {
            None => None,
            Some(path) => Some(watch(&shared).map_err(|e| TenancyError::io(path, "watch", e))?),
        };
        Ok(Self { shared, _watching: watching })
    }

    /// Who asks: `bearer` is the token of the `Authorization` header without its scheme, `user`
    /// the request's field of that name. Without any keys everybody is let in, and `user` names
    /// the tenant; with keys the key does.
    ///
    /// # Errors
    /// There are keys, and this is none that holds at `now`.
    pub fn authenticate(
        &self,
        bearer: Option<&str>,
        user: Option<&str>,
        now: UnixNanos,
    ) -> Result<Principal, AuthError> {
        let rules = self.shared.rules.load_full();
        if self.is_open() {
            return Ok(Principal::of_user(user, rules));
        }
        let secret = bearer.filter(|token| !token.is_empty()).ok_or(AuthError::Missing)?;
        if secret.len() > LONGEST_TOKEN {
            return Err(AuthError::Unknown);
        }
        let digest = Digest::of(secret);
        let found = rules.keys.get(&digest);
        let same = found.is_some_and(|key| key.digest.0.ct_eq(&digest.0).into());
        let key = found.filter(|_| same).ok_or(AuthError::Unknown)?;
        if key.revoked {
            return Err(AuthError::Revoked);
        }
        if key.expires.is_some_and(|expires| now >= expires) {
            return Err(AuthError::Expired);
        }
        let key = Arc::clone(key);
        Ok(Principal::of_key(key, rules))
    }

    /// Whether everybody is let in, since there never was a key.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.open.load(Ordering::Acquire)
    }

    /// How many keys there are, revoked and expired ones among them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.rules.load().keys.len()
    }

    /// Another number after each change of the rules.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Acquire)
    }

    /// Since when it matters what was spent: since the beginning of the longest period that a
    /// budget is for. None: there is no budget.
    #[must_use]
    pub fn spending_since(&self, now: UnixNanos) -> Option<UnixNanos> {
        let rules = self.shared.rules.load();
        rules.budgets().map(|budget| Period::of(budget.per, now).start).min()
    }

    /// Why the file, as it is now, does not hold; none while it does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    /// Looks at the file at once. True: what it says is new and holds.
    ///
    /// # Errors
    /// It does not hold; what held before still does.
    pub fn reload(&self) -> Result<bool, TenancyError> {
        self.shared.reload(true)
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.shared.rules.load_full()
    }
}

impl Shared {
    /// Puts a file's text in force.
    fn take(&self, text: &str) -> Result<(), TenancyError> {
        let place = self.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let mut rules =
            Rules::parse(text).map_err(|why| TenancyError::configuration(&place, why))?;
        if let Some(variable) = &self.variable {
            rules
                .add_variable(variable)
                .map_err(|why| TenancyError::configuration(KEYS_VARIABLE, why))?;
        }
        // Before the keys are there to be looked up, so that nobody slips through in between.
        if !rules.keys.is_empty() {
            self.open.store(false, Ordering::Release);
        }
        self.rules.store(Arc::new(rules));
        self.changes.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Looks at the file; `closely` also if nothing about it seems to have changed.
    fn reload(&self, closely: bool) -> Result<bool, TenancyError> {
        let Some(path) = &self.path else { return Ok(false) };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(path);
        let fresh = now.is_some_and(|now| {
            now.modified.elapsed().map_or(true, |since_change| since_change < FRESH)
        });
        if !closely && !fresh && now.is_some() && now == state.stamp {
            return Ok(false);
        }
        state.stamp = now;
        let read = read(path).and_then(|text| {
            let content = Some(Digest::of(&text));
            let new = content != state.content;
            if new {
                self.take(&text)?;
                state.content = content;
            }
            Ok(new)
        });
        match read {
            Ok(new) => {
                state.trouble = None;
                if new {
                    let keys = self.rules.load().keys.len();
                    tracing::info!(path = %path.display(), keys, "the keys were read again");
                }
                Ok(new)
            }
            Err(error) => {
                let reason = error.to_string();
                if state.trouble.as_ref() != Some(&reason) {
                    tracing::error!(%reason, "the keys are kept as they were before");
                    state.trouble = Some(reason);
                }
                Err(error)
            }
        }
    }
}

fn watch(shared: &Arc<Shared>) -> std::io::Result<SyncSender<()>> {
    let (sender, receiver) = sync_channel(1);
    let shared = Arc::clone(shared);
    let look = move |receiver: Receiver<()>| {
        while receiver.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            // What is wrong with it is logged, once.
            let _ = shared.reload(false);
        }
    };
    std::thread::Builder::new().name("tollgate-keys".to_owned()).spawn(move || look(receiver))?;
    Ok(sender)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok()?, bytes: metadata.len() })
}

/// The text of a file of keys.
pub(crate) fn read(path: &Path) -> Result<String, TenancyError> {
    let unreadable = |error| TenancyError::io(path, "read", error);
    let mut text = String::new();
    let opened = File::open(path).map_err(unreadable)?;
    opened.take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_LIMIT {
        let problem = format!("it is larger than {FILE_LIMIT} bytes");
        return Err(TenancyError::configuration(&path.display().to_string(), problem));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos(1_800_000_000_000_000_000);

    fn key(id: &str, secret: &str, more: &str) -> String {
        let digest = Digest::of(secret);
        format!("[[key]]\nid = \"{id}\"\nsha256 = \"{digest}\"\ntenant = \"acme\"\n{more}\n")
    }

    #[test]
    fn a_key_names_its_tenant_and_its_models() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let text = [
            key("good", "s1", "models = [\"gpt-4o*\"]"),
            key("revoked", "s2", "revoked = true"),
            key("expired", "s3", "expires = 2027-01-15T08:00:00Z"),
            key("later", "s4", "expires = 2027-01-15T08:00:01Z"),
        ];
        std::fs::write(&path, text.concat()).unwrap();
        let keys = Keys::open(Some(path), Some("env:tg-0123456789abcdef")).unwrap();
        assert_eq!((keys.count(), keys.is_open()), (5, false));
        let good = keys.authenticate(Some("s1"), Some("mallory"), NOW).unwrap();
        assert_eq!(good.tenant.as_deref(), Some("acme"));
        assert_eq!(good.key_id.as_deref(), Some("good"));
        assert!(good.allows("gpt-4o-mini") && !good.allows("gpt-4"));
        assert!(keys.authenticate(Some("s4"), None, NOW).unwrap().allows("anything"));
        let env = keys.authenticate(Some("tg-0123456789abcdef"), None, NOW).unwrap();
        assert_eq!(env.tenant.as_deref(), Some("env"));
        let cases = [
            (None, AuthError::Missing),
            (Some(""), AuthError::Missing),
            (Some("nope"), AuthError::Unknown),
            (Some("s2"), AuthError::Revoked),
            (Some("s3"), AuthError::Expired),
        ];
        for (bearer, expected) in cases {
            assert_eq!(keys.authenticate(bearer, None, NOW).unwrap_err(), expected);
        }
        let long = "x".repeat(5000);
        assert_eq!(keys.authenticate(Some(&long), None, NOW).unwrap_err(), AuthError::Unknown);
        assert_eq!(AuthError::Unknown.to_string(), AuthError::Revoked.to_string());
    }

    #[test]
    fn without_keys_the_user_is_the_tenant() {
        let keys = Keys::open(None, None).unwrap();
        assert!(keys.is_open());
        for (user, tenant) in [(Some("jane"), Some("jane")), (Some(""), None), (None, None)] {
            let principal = keys.authenticate(Some("sk-any"), user, NOW).unwrap();
            assert_eq!(principal.tenant.as_deref(), tenant);
            assert!(principal.key_id.is_none());
            assert!(principal.allows("anything"));
        }
    }

    #[test]
    fn a_file_is_read_again_and_a_bad_one_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let good = key("one", "s1", "");
        std::fs::write(&path, &good).unwrap();
        let keys = Keys::open(Some(path.clone()), None).unwrap();
        assert!(!keys.reload().unwrap(), "nothing changed");
        std::fs::write(&path, format!("{good}{}", key("two", "s2", ""))).unwrap();
        // By itself.
        let begun = std::time::Instant::now();
        while keys.count() < 2 && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(20));
        }
        keys.authenticate(Some("s2"), None, NOW).unwrap();

        std::fs::write(&path, "[[key]]\nid = 5").unwrap();
        let error = keys.reload().unwrap_err();
        assert!(error.to_string().contains("keys.toml: key[0].id at line 2"), "{error}");
        assert_eq!(keys.trouble(), Some(error.to_string()));
        keys.authenticate(Some("s2"), None, NOW).unwrap();

        std::fs::remove_file(&path).unwrap();
        keys.reload().unwrap_err();
        keys.authenticate(Some("s2"), None, NOW).unwrap();

        std::fs::write(&path, &good).unwrap();
        // The watching thread may have been first.
        keys.reload().unwrap();
        assert_eq!((keys.trouble(), keys.count()), (None, 1));
        assert_eq!(keys.authenticate(Some("s2"), None, NOW).unwrap_err(), AuthError::Unknown);
    }

    #[test]
    fn a_gateway_that_asked_for_keys_goes_on_asking() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        std::fs::write(&path, "").unwrap();
        let keys = Keys::open(Some(path.clone()), None).unwrap();
        assert!(keys.is_open());
        std::fs::write(&path, key("one", "s1", "")).unwrap();
        keys.reload().unwrap();
        assert!(!keys.is_open());
        std::fs::write(&path, "").unwrap();
        keys.reload().unwrap();
        assert_eq!(keys.authenticate(Some("s1"), None, NOW).unwrap_err(), AuthError::Unknown);
        assert_eq!(keys.authenticate(None, None, NOW).unwrap_err(), AuthError::Missing);
    }
}
