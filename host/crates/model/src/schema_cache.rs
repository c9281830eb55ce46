//! Schemas that have become grammars, kept for the next request that names one: clients mostly send the
//! same few again and again, and compiling one takes longer than reading a short prompt.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Constraint;

/// Schemas that are kept; the one whose last use is longest ago goes first. What each may take is
/// bounded where it is compiled.
const KEPT: usize = 32;

/// The latest schemas, by their JSON as it came.
#[derive(Default)]
pub(crate) struct SchemaCache(Mutex<VecDeque<(Box<str>, Constraint)>>);

impl SchemaCache {
    /// The beginning of an answer that a schema holds, if it is known.
    pub(crate) fn get(&self, schema: &str) -> Option<Constraint> {
        let mut kept = self.lock();
        let at = kept.iter().position(|(known, _)| **known == *schema)?;
        let used = kept.remove(at)?;
        let constraint = used.1.clone();
        kept.push_back(used);
        Some(constraint)
    }

    /// Keeps a beginning.
    pub(crate) fn put(&self, schema: &str, constraint: &Constraint) {
        let mut kept = self.lock();
        // Two may have compiled the same at a time.
        kept.retain(|(known, _)| **known != *schema);
        while kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((schema.into(), constraint.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Box<str>, Constraint)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SchemaCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaCache").field("kept", &self.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, ModelSource};

    #[test]
    fn the_latest_are_kept_and_none_has_gone_on() {
        let tokenizer = Model::load(&ModelSource::Demo).unwrap().tokenizer();
        let cache = SchemaCache::default();
        let schema = |number: usize| format!(r#"{{"const":"{number}"}}"#);
        for number in 0..KEPT {
            cache.put(&schema(number), &tokenizer.constraint(&schema(number)).unwrap());
        }
        let mut used = cache.get(&schema(0)).unwrap();
        let token = tokenizer.encode("\"", false).unwrap();
        used.accept(token[0]).unwrap();
        cache.put(&schema(KEPT), &tokenizer.constraint(&schema(KEPT)).unwrap());
        assert!(cache.get(&schema(1)).is_none(), "it was used longest ago");
        assert!(cache.get(&schema(KEPT)).is_some());
        let mut again = cache.get(&schema(0)).unwrap();
        assert!(again.accept(token[0]).is_ok(), "it begins at the beginning");
        assert_eq!(cache.lock().len(), KEPT);
    }
}
