//! What `tollgate key create|list|revoke` do to `keys.toml`.
//!
//! Comments and the order of the rest are kept. A file is written whole beside the old one and
//! takes its place at once, readable by its owner only, so that nobody ever reads half of it; what
//! the gateway would refuse is not written. Whoever edits holds a lock, so that of two processes
//! that edit at once neither undoes what the other did.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tollgate_domain::UnixNanos;
use tollgate_domain::text::one_line;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use crate::error::TenancyError;
use crate::keys::read;
use crate::rules::Rules;
use crate::secret::{Digest, new_id, new_secret};

/// How long to wait for another who edits.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// What a new key is to be.
#[derive(Clone, Debug, Default)]
pub struct KeyOrder {
    /// Who pays.
    pub tenant: String,
    /// Patterns of the models that it may use; empty: all.
    pub models: Vec<String>,
    /// When it stops to hold.
    pub expires: Option<UnixNanos>,
    /// A word to whoever reads the list.
    pub note: Option<String>,
    /// Its limits.
    pub limits: crate::Limits,
}

/// A key that was made.
#[derive(Clone)]
pub struct NewKey {
    /// Its name in lists and on records.
    pub id: String,
    /// What the client shows. It is kept nowhere: show it once.
    pub secret: String,
}

/// A key as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyInfo {
    /// Its id.
    pub id: String,
    /// Who pays.
    pub tenant: String,
    /// Patterns of the models that it may use; empty: all.
    pub models: Vec<String>,
    /// When it was made.
    pub created: Option<UnixNanos>,
    /// When it stops to hold.
    pub expires: Option<UnixNanos>,
    /// Whether it was revoked.
    pub revoked: bool,
    /// A word to whoever reads the list.
    pub note: Option<String>,
}

/// Makes a key and adds it to the file, which is made if it is missing.
///
/// # Errors
/// The file is wrong as it is or would be, cannot be written, or another process does not let go
/// of it.
pub fn create(path: &Path, order: &KeyOrder, now: UnixNanos) -> Result<NewKey, TenancyError> {
    let new = NewKey { id: new_id()?, secret: new_secret()? };
    edit(path, |document| {
        let keys =
            document.entry("key").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
        let Some(keys) = keys.as_array_of_tables_mut() else {
            return Err(not_tables(path));
        };
        keys.push(table(&new, order, now));
        Ok(())
    })?;
    Ok(new)
}

/// Marks a key as revoked; a gateway that watches the file takes note within seconds. False: it
/// was revoked before.
///
/// # Errors
/// There is no such key, or as for [`create`].
pub fn revoke(path: &Path, id: &str) -> Result<bool, TenancyError> {
    let mut new = false;
    edit(path, |document| {
        let keys = match document.get_mut("key") {
            None => None,
            Some(keys) => Some(keys.as_array_of_tables_mut().ok_or_else(|| not_tables(path))?),
        };
        let named = |key: &&mut Table| key.get("id").and_then(Item::as_str) == Some(id);
        let key = keys.and_then(|keys| keys.iter_mut().find(named));
        let key = key.ok_or_else(|| TenancyError::NoSuchKey {
            path: path.to_owned(),
            id: one_line(id, 64),
        })?;
        new = key.get("revoked").and_then(Item::as_bool) != Some(true);
        key.insert("revoked", value(true));
        Ok(())
    })?;
    Ok(new)
}

/// All keys of the file, by tenant and id.
///
/// # Errors
/// The file is wrong or cannot be read.
pub fn list(path: &Path) -> Result<Vec<KeyInfo>, TenancyError> {
    let rules = parse(path, &read(path)?)?;
    let mut keys: Vec<KeyInfo> = rules
        .keys
        .values()
        .map(|key| KeyInfo {
            id: key.id.clone(),
            tenant: key.tenant.clone(),
            models: key.models.iter().map(ToString::to_string).collect(),
            created: key.created,
            expires: key.expires,
            revoked: key.revoked,
            note: key.note.clone(),
        })
        .collect();
    keys.sort_by(|a, b| (&a.tenant, a.created, &a.id).cmp(&(&b.tenant, b.created, &b.id)));
    Ok(keys)
}

fn table(new: &NewKey, order: &KeyOrder, now: UnixNanos) -> Table {
    let mut table = Table::new();
    table.insert("id", value(&new.id));
    table.insert("sha256", value(Digest::of(&new.secret).to_string()));
    table.insert("tenant", value(&order.tenant));
    if !order.models.is_empty() {
        table.insert("models", value(order.models.iter().collect::<Array>()));
    }
    if let Some(expires) = order.expires {
        table.insert("expires", value(written(expires)));
    }
    table.insert("created", value(written(now)));
    if let Some(note) = &order.note {
        table.insert("note", value(note));
    }
    let limits = [
        ("requests-per-minute", order.limits.requests_per_minute),
        ("tokens-per-minute", order.limits.tokens_per_minute),
        ("concurrent", order.limits.concurrent),
    ];
    if !order.limits.is_empty() {
        let mut written = Table::new();
        for (name, limit) in limits {
            if let Some(limit) = limit {
                written.insert(name, value(i64::try_from(limit).unwrap_or(i64::MAX)));
            }
        }
        table.insert("limits", Item::Table(written));
    }
    table
}

/// A moment as RFC 3339, in whole seconds.
fn written(moment: UnixNanos) -> String {
    let seconds = i64::try_from(moment.seconds()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

fn not_tables(path: &Path) -> TenancyError {
    let problem = "key: write each as a table of its own, [[key]], to have it edited";
    TenancyError::configuration(&path.display().to_string(), problem)
}

fn parse(path: &Path, text: &str) -> Result<Rules, TenancyError> {
    Rules::parse(text).map_err(|why| TenancyError::configuration(&path.display().to_string(), why))
}

/// Changes the file while nobody else does.
fn edit(
    path: &Path,
    change: impl FnOnce(&mut DocumentMut) -> Result<(), TenancyError>,
) -> Result<(), TenancyError> {
    // A link stays a link: what it leads to is edited.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let _lock = lock(path)?;
    let text = match read(path) {
        Err(TenancyError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            String::new()
        }
        read => read?,
    };
    parse(path, &text)?;
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        let why = one_line(error.message(), 512);
        TenancyError::configuration(&path.display().to_string(), why)
    })?;
    change(&mut document)?;
    let text = document.to_string();
    parse(path, &text)?;
    write(path, &text)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// The lock of the file, which lies beside it and stays there: were it removed, two could hold two
/// files of that name.
fn lock(path: &Path) -> Result<File, TenancyError> {
    let path = &beside(path, ".lock");
    let unlockable = |error| TenancyError::io(path, "lock", error);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(unlockable)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(unlockable(error)),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= PATIENCE => {
                return Err(TenancyError::Busy { path: path.to_owned() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
        }
    }
}

/// Puts the text in the file's place: all of it or nothing, on the disk when this returns.
fn write(path: &Path, text: &str) -> Result<(), TenancyError> {
    let new = beside(path, ".new");
    let written = (|| {
        // Left behind by a process that died; nobody else is here while the lock is held.
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        like_before(path, &file)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    })();
    written.map_err(|error| TenancyError::io(path, "write", error))
}

/// Gives the new file the mode and the owner of the one whose place it takes: a gateway that runs as
/// somebody else must be able to read it as before.
fn like_before(path: &Path, new: &File) -> std::io::Result<()> {
    let before = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        before => before?,
    };
    let own = new.metadata()?;
    if (own.uid(), own.gid()) != (before.uid(), before.gid()) {
        std::os::unix::fs::fchown(new, Some(before.uid()), Some(before.gid()))?;
    }
    new.set_permissions(before.permissions())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{AuthError, Keys, Limits};

    const NOW: UnixNanos = UnixNanos(1_800_000_000_000_000_000);

    fn order(tenant: &str) -> KeyOrder {
        KeyOrder { tenant: tenant.to_owned(), ..KeyOrder::default() }
    }

    #[test]
    fn a_key_is_made_used_listed_and_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let wanted = KeyOrder {
            models: vec!["gpt-4o*".to_owned()],
            expires: Some(NOW.plus(Duration::from_secs(60))),
            note: Some("Jane's \"laptop\"".to_owned()),
            limits: Limits { concurrent: Some(2), ..Limits::default() },
            ..order("acme")
        };
        let new = create(&path, &wanted, NOW).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&new.secret), "the secret is kept nowhere");
        let keys = Keys::open(Some(path.clone()), None).unwrap();
        let principal = keys.authenticate(Some(&new.secret), None, NOW).unwrap();
        assert_eq!(principal.key_id, Some(new.id.clone()));
        assert!(principal.allows("gpt-4o") && !principal.allows("o1"));

        let info = KeyInfo {
            id: new.id.clone(),
            tenant: "acme".to_owned(),
            models: wanted.models.clone(),
            created: Some(NOW),
            expires: wanted.expires,
            revoked: false,
            note: wanted.note.clone(),
        };
        assert_eq!(list(&path).unwrap(), std::slice::from_ref(&info));
        assert!(revoke(&path, &new.id).unwrap());
        assert!(!revoke(&path, &new.id).unwrap());
        assert_eq!(list(&path).unwrap(), [KeyInfo { revoked: true, ..info }]);
        keys.reload().unwrap();
        let refused = keys.authenticate(Some(&new.secret), None, NOW).unwrap_err();
        assert_eq!(refused, AuthError::Revoked);
        let error = revoke(&path, "nope").unwrap_err();
        assert!(matches!(error, TenancyError::NoSuchKey { .. }), "{error}");
    }

    #[test]
    fn the_rest_of_the_file_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real.toml");
        let link = folder.path().join("keys.toml");
        let before =
            "# Ours.\n[defaults.limits]\nconcurrent = 8 # at once\n\n[[tenant]]\nname = 'acme'\n";
        std::fs::write(&real, before).unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let first = create(&link, &order("acme"), NOW).unwrap();
        create(&link, &order("acme"), NOW).unwrap();
        revoke(&link, &first.id).unwrap();
        let after = std::fs::read_to_string(&real).unwrap();
        let mode = std::fs::metadata(&real).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "who could read it still can");
        assert!(after.starts_with(before), "{after}");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_the_gateway_would_refuse_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        create(&path, &order(""), NOW).map(|_| ()).unwrap_err();
        assert!(!path.exists());
        for text in ["nonsense", "key = []\n"] {
            std::fs::write(&path, text).unwrap();
            let error = create(&path, &order("acme"), NOW).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("keys.toml: "), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn of_many_who_edit_at_once_none_undoes_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let path = path.clone();
                std::thread::spawn(move || {
                    for _ in 0..5 {
                        let key = create(&path, &order(&format!("t{n}")), NOW).unwrap();
                        revoke(&path, &key.id).unwrap();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let keys = list(&path).unwrap();
        assert_eq!(keys.len(), 40);
        assert!(keys.iter().all(|key| key.revoked));
    }
}
