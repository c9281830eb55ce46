//! Who asks, as a key or the request's `user` field tells, with the rules of that moment: a
//! request is limited from start to end by the rules it came under.

use std::fmt;
use std::sync::Arc;

use crate::rules::{Key, Rules};

/// Who asks.
#[derive(Clone)]
pub struct Principal {
    /// Who pays: the key's tenant; without keys the request's `user` field.
    pub tenant: Option<String>,
    /// Which key was shown.
    pub key_id: Option<String>,
    pub(crate) key: Option<Arc<Key>>,
    pub(crate) rules: Arc<Rules>,
}

impl Principal {
    pub(crate) fn of_key(key: Arc<Key>, rules: Arc<Rules>) -> Self {
        Self {
            tenant: Some(key.tenant.clone()),
            key_id: Some(key.id.clone()),
            key: Some(key),
            rules,
        }
    }

    pub(crate) fn of_user(user: Option<&str>, rules: Arc<Rules>) -> Self {
        let tenant = user.filter(|user| !user.is_empty()).map(str::to_owned);
        Self { tenant, key_id: None, key: None, rules }
    }

    /// Whether it has a budget, so that it matters beforehand what a request will cost.
    #[must_use]
    pub fn has_budgets(&self) -> bool {
        let of_key = self.key.as_ref().is_some_and(|key| !key.allotment.budgets.is_empty());
        of_key || !self.rules.tenant(self.tenant.as_deref()).budgets.is_empty()
    }

    /// Where its requests wait for a model of this process: the higher, the sooner. The key's, else
    /// the tenant's, else 0.
    #[must_use]
    pub fn priority(&self) -> i32 {
        let of_key = self.key.as_ref().and_then(|key| key.allotment.priority);
        of_key.or(self.rules.tenant(self.tenant.as_deref()).priority).unwrap_or_default()
    }

    /// Whether it may use this model.
    #[must_use]
    pub fn allows(&self, model: &str) -> bool {
        self.key.as_ref().is_none_or(|key| {
            key.models.is_empty() || key.models.iter().any(|pattern| pattern.matches(model))
        })
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Principal");
        shown.field("tenant", &self.tenant).field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// No key was shown.
    #[error("no API key was given; send it as `Authorization: Bearer KEY`")]
    Missing,
    /// No such key.
    #[error("incorrect API key")]
    Unknown,
    /// It was revoked. The client is told what it is told of an unknown one.
    #[error("incorrect API key")]
    Revoked,
    /// Its time is over.
    #[error("the API key has expired")]
    Expired,
}

impl AuthError {
    /// Its name in logs and metrics, which tell more than the client hears.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}
