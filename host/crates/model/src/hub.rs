//! Files of a model on the Hugging Face hub, through the cache that every Hugging Face tool shares.
//!
//! `HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` mean what they mean to the other
//! tools. A branch is resolved to a commit first and all files come from that commit, so a push in
//! the middle of a download mixes nothing. When the hub cannot be reached, what the cache holds of
//! the revision is used, with a warning.

use std::path::PathBuf;

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use crate::ModelError;

/// One repository at one commit.
pub(crate) struct HubRepo {
    id: String,
    /// Where the cache keeps the commit's files.
    snapshot: PathBuf,
    /// None when only the cache is to be used.
    online: Option<Online>,
}

struct Online {
    api: ApiRepo,
    files: Vec<String>,
    /// The revision as it was asked for, in the cache, and its commit.
    revision: CacheRepo,
    commit: String,
}

impl HubRepo {
    pub(crate) fn open(id: &str, revision: &str) -> Result<Self, ModelError> {
        let failed = |reason: String| failed(id, "the list of files", reason);
        if is_set("HF_HUB_OFFLINE") {
            return Self::cached(id, revision).ok_or_else(|| {
                failed(format!("HF_HUB_OFFLINE is set and the cache has no revision `{revision}`"))
            });
        }
        match fetched(id, revision) {
            Ok(repo) => Ok(repo),
            Err(reason) => {
                let repo = Self::cached(id, revision).ok_or_else(|| failed(reason.clone()))?;
                tracing::warn!(
                    model = id,
                    reason,
                    "the hub cannot be asked, the cached revision is used"
                );
                Ok(repo)
            }
        }
    }

    /// The revision as the cache has it, if it has; nothing is fetched for it.
    pub(crate) fn cached(id: &str, revision: &str) -> Option<Self> {
        let reference = folder(id).join("refs").join(revision);
        let commit = std::fs::read_to_string(reference)
            .map_or(revision.to_owned(), |commit| commit.trim().to_owned());
        let snapshot = snapshot(id, &commit);
        snapshot.is_dir().then(|| Self { id: id.to_owned(), snapshot, online: None })
    }

    /// The file's place on disk, after fetching it if need be.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf, ModelError> {
        let path = self.snapshot.join(name);
        if path.exists() {
            return Ok(path);
        }
        match &self.online {
            Some(online) if online.files.iter().any(|file| file == name) => {
                online.api.get(name).map_err(|error| failed(&self.id, name, error.to_string()))
            }
            Some(_) => Err(failed(&self.id, name, "the repository has no such file".to_owned())),
            None => Err(failed(&self.id, name, "the file is not in the cache".to_owned())),
        }
    }

    /// Like [`HubRepo::file`], for one that not every model has.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<PathBuf>, ModelError> {
        let there = match &self.online {
            Some(online) => online.files.iter().any(|file| file == name),
            None => self.snapshot.join(name).exists(),
        };
        there.then(|| self.file(name)).transpose()
    }

    /// Notes in the cache which commit the revision is, once all its files are there: what is used
    /// when the hub cannot be reached.
    pub(crate) fn remember(&self) {
        if let Some(online) = &self.online
            && let Err(error) = online.revision.create_ref(&online.commit)
        {
            tracing::warn!(model = self.id, %error, "the cache cannot note the revision's commit");
        }
    }
}

fn fetched(id: &str, revision: &str) -> Result<HubRepo, String> {
    let mut builder = ApiBuilder::from_env().with_progress(true).with_retries(3);
    if let Some(token) = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()) {
        builder = builder.with_token(Some(token));
    }
    let api = builder.build().map_err(|error| error.to_string())?;
    let at =
        |revision: &str| Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
    let info = api.repo(at(revision)).info().map_err(|error| error.to_string())?;
    let files = info.siblings.into_iter().map(|file| file.rfilename).collect();
    let snapshot = snapshot(id, &info.sha);
    let online = Online {
        api: api.repo(at(&info.sha)),
        files,
        revision: Cache::from_env().repo(at(revision)),
        commit: info.sha,
    };
    Ok(HubRepo { id: id.to_owned(), snapshot, online: Some(online) })
}

fn folder(id: &str) -> PathBuf {
    Cache::from_env().path().join(Repo::model(id.to_owned()).folder_name())
}

fn snapshot(id: &str, commit: &str) -> PathBuf {
    folder(id).join("snapshots").join(commit)
}

fn is_set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| {
        !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "false" | "no")
    })
}

fn failed(id: &str, file: &str, reason: String) -> ModelError {
    ModelError::Hub { id: id.to_owned(), file: file.to_owned(), reason }
}
