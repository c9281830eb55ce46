//! Who is let in, and what limits are shared through.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::given::{Given, RedisAway};
use crate::secret::{self, Secret};

/// Variable that holds keys themselves.
pub const KEYS: &str = "TOLLGATE_KEYS";
/// Variable that holds the address of Redis itself, which may have a password in it.
pub const REDIS_URL: &str = "TOLLGATE_REDIS_URL";

/// Keys, limits and what they are shared through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenancy {
    /// File of keys, limits and budgets.
    pub keys_file: Option<PathBuf>,
    /// Keys of the environment, as `tenant:key` with commas between.
    pub keys: Option<Secret>,
    /// Whether everybody is let in without a key, also from elsewhere.
    pub anonymous: bool,
    /// Address of the Redis that limits are shared through.
    pub redis_url: Option<Secret>,
    /// Authorities that its certificate is checked by, instead of the system's.
    pub redis_ca_file: Option<PathBuf>,
    /// What happens while it is away.
    pub redis_away: RedisAway,
}

/// What was given, with the secrets that it names.
pub(crate) fn resolve(
    given: &Given,
    variable: impl Fn(&str) -> Option<String>,
    faults: &mut Vec<String>,
) -> Tenancy {
    let redis_url = match (variable(REDIS_URL), &given.redis_url_file) {
        (Some(_), Some(file)) => Err(format!(
            "the address of Redis is given twice, by {REDIS_URL} and by redis-url-file = {}; keep one of them",
            file.display()
        )),
        (Some(url), None) => Ok(Some(url)),
        (None, Some(file)) => secret::read(file)
            .map(Some)
            .map_err(|problem| format!("the address of Redis: {problem}")),
        (None, None) => Ok(None),
    };
    let redis_url = redis_url.and_then(|url| {
        let secret = url.map(|url| secret::header_value(&url));
        secret.transpose().map_err(|problem| format!("the address of Redis {problem}"))
    });
    let redis_url = redis_url.unwrap_or_else(|fault| {
        faults.push(fault);
        None
    });
    Tenancy {
        keys_file: given.keys_file.clone(),
        keys: variable(KEYS).map(Secret::new),
        anonymous: given.anonymous.unwrap_or_default(),
        redis_url,
        redis_ca_file: given.redis_ca_file.clone(),
        redis_away: given.redis_away.unwrap_or_default(),
    }
}

impl Tenancy {
    /// Why `listen`, as `setting` says, must not be served on as things are: others can reach it, and
    /// there are no keys. `open` says whether there are none.
    #[must_use]
    pub fn unguarded(&self, setting: &str, listen: SocketAddr, open: bool) -> Option<String> {
        let exposed = open && !self.anonymous && !listen.ip().is_loopback();
        exposed.then(|| {
            format!(
                "{setting} is {listen}, which others can reach, and there are no keys; make one with \
                 `tollgate key create --keys-file keys.toml --tenant NAME` and name the file with \
                 --keys-file, or listen on 127.0.0.1, or let everybody in with --anonymous"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(given: &Given, variables: &[(&str, &str)]) -> (Tenancy, Vec<String>) {
        let mut faults = Vec::new();
        let variable = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        (resolve(given, variable, &mut faults), faults)
    }

    #[test]
    fn secrets_come_from_the_environment_or_a_file_and_are_not_shown() {
        let url = "redis://:hunter2@localhost/0";
        let variables = [(REDIS_URL, url), (KEYS, "acme:tg-hunter2")];
        let (tenancy, faults) = resolved(&Given::default(), &variables);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(tenancy.redis_url.as_ref().map(Secret::reveal), Some(url));
        assert!(!format!("{tenancy:?}").contains("hunter2"), "{tenancy:?}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{url}\n")).unwrap();
        let given = Given { redis_url_file: Some(file.path().to_owned()), ..Given::default() };
        let (tenancy, faults) = resolved(&given, &[]);
        assert_eq!((tenancy.redis_url.as_ref().map(Secret::reveal), faults.len()), (Some(url), 0));
        assert!(resolved(&given, &variables).1[0].contains("given twice"));
    }

    #[test]
    fn what_others_can_reach_needs_keys() {
        let (tenancy, _) = resolved(&Given::default(), &[]);
        let anonymous = Tenancy { anonymous: true, ..tenancy.clone() };
        for (listen, open, fine) in [
            ("127.0.0.1:8080", true, true),
            ("[::1]:8080", true, true),
            ("0.0.0.0:8080", true, false),
            ("0.0.0.0:8080", false, true),
        ] {
            let listen: SocketAddr = listen.parse().unwrap();
            assert_eq!(
                tenancy.unguarded("listen", listen, open).is_none(),
                fine,
                "{listen} {open}"
            );
            assert!(anonymous.unguarded("listen", listen, open).is_none());
        }
    }
}
