//! Where plugins need a signature, what lost its own serves no more, and what never lost it goes on.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::fs;
use std::time::Duration;

use minisign::KeyPair;
use support::{built, usage};
use tollgate_plugin_host::{PluginHost, PluginHostError, PluginHostSettings};

const COST: &str = "cost.wasm";
const SIGNATURE: &str = "cost.wasm.minisig";

/// A cost model, another content each time, and its signature.
fn version(n: u8, keys: &KeyPair) -> (Vec<u8>, String) {
    let mut content = fs::read(built("cost_per_token")).unwrap();
    // A custom section that has one byte of name and one of content.
    content.extend([0, 3, 1, b'v', n]);
    let signature = minisign::sign(None, &keys.sk, content.as_slice(), None, None).unwrap();
    (content, signature.into_string())
}

/// Folders that last longer than one host.
struct Place {
    plugins: tempfile::TempDir,
    data: tempfile::TempDir,
    keys: KeyPair,
}

impl Place {
    fn new() -> Self {
        Self {
            plugins: tempfile::tempdir().unwrap(),
            data: tempfile::tempdir().unwrap(),
            keys: KeyPair::generate_unencrypted_keypair().unwrap(),
        }
    }

    fn start(&self) -> PluginHost {
        self.try_start().unwrap()
    }

    fn try_start(&self) -> Result<PluginHost, PluginHostError> {
        PluginHost::start(PluginHostSettings {
            rescan_every: Duration::from_secs(1),
            state: Some(self.data.path().join("plugins")),
            trusted_keys: vec![self.keys.pk.to_base64().parse().unwrap()],
            ..PluginHostSettings::new(self.plugins.path())
        })
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let temporary = self.plugins.path().join(".arriving");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(temporary, self.plugins.path().join(name)).unwrap();
    }

    /// The file first, as plugins/README.md says.
    fn put_version(&self, n: u8) {
        let (content, signature) = version(n, &self.keys);
        self.put(COST, &content);
        self.put(SIGNATURE, signature.as_bytes());
    }

    fn withdraw(&self) {
        fs::remove_file(self.plugins.path().join(SIGNATURE)).unwrap();
    }
}

/// Digests of what serves and of what the file holds, and the kind of error.
type Seen = (Option<String>, Option<String>, Option<&'static str>);

fn seen(host: &PluginHost) -> Seen {
    let Some(status) = host.status().into_iter().next() else { return (None, None, None) };
    (status.identity.map(|i| i.digest), status.digest_of_file, status.error.map(|e| e.kind))
}

fn serves(host: &PluginHost) -> bool {
    host.pin().price(None, &usage("m", 1, 1)).cost().is_some()
}

fn until(host: &PluginHost, what: &str, expected: &Seen) {
    support::until(host, what, |host| seen(host) == *expected);
    assert_eq!(host.pin().plugins().count(), usize::from(expected.0.is_some()), "{what}");
}

#[test]
fn a_content_whose_signature_is_withdrawn_serves_no_more() {
    let place = Place::new();
    place.put_version(1);
    let host = place.start();
    let (one, _, none) = seen(&host);
    assert!(one.is_some() && none.is_none());
    place.withdraw();
    until(&host, "the withdrawal", &(None, one.clone(), Some("signature")));
    // Neither a command nor a restart brings it back.
    assert!(host.roll_back(COST).is_err());
    host.enable(COST).unwrap();
    assert_eq!(seen(&host).0, None);
    drop(host);
    let host = place.start();
    until(&host, "the restart", &(None, one.clone(), Some("signature")));
    place.put(COST, b"broken");
    support::until(&host, "another content", |host| seen(host).1 != one);
    assert_eq!(seen(&host).0, None);
    // A signature does.
    place.put_version(1);
    until(&host, "the signature", &(one.clone(), one, None));
}

#[test]
fn what_was_good_before_serves_if_it_kept_its_signature() {
    let place = Place::new();
    place.put_version(1);
    let host = place.start();
    let one = seen(&host).0;
    place.put_version(2);
    support::until(&host, "the second", |host| seen(host).0 != one && seen(host).2.is_none());
    let two = seen(&host).0;
    place.withdraw();
    until(&host, "the withdrawal", &(one.clone(), two.clone(), Some("signature")));
    drop(host);
    let host = place.start();
    until(&host, "the restart", &(one.clone(), two.clone(), Some("signature")));
    // A broken file takes nobody's signature away.
    place.put(COST, b"broken");
    support::until(&host, "a broken file", |host| seen(host).1 != two);
    assert_eq!(seen(&host).0, one);
    place.put_version(1);
    until(&host, "the first again", &(one.clone(), one.clone(), None));
    place.withdraw();
    until(&host, "the last withdrawal", &(None, one, Some("signature")));
}

#[test]
fn a_withdrawal_while_nothing_runs_counts_too() {
    let place = Place::new();
    place.put_version(1);
    let host = place.start();
    let one = seen(&host).0;
    drop(host);
    place.withdraw();
    let host = place.start();
    assert_eq!(seen(&host), (None, one.clone(), Some("signature")), "not for one scan");
    place.put(SIGNATURE, version(2, &place.keys).1.as_bytes());
    until(&host, "a signature of other bytes", &(None, one.clone(), Some("signature")));
    // One by whom nobody trusts.
    let stranger = KeyPair::generate_unencrypted_keypair().unwrap();
    place.put(SIGNATURE, version(1, &stranger).1.as_bytes());
    until(&host, "a stranger's signature", &(None, one, Some("signature")));
}

#[test]
fn a_file_and_its_signature_are_exchanged_one_after_the_other() {
    let place = Place::new();
    place.put_version(0);
    let host = place.start();
    for n in 1..6 {
        let before = seen(&host).0;
        let (content, signature) = version(n, &place.keys);
        // The other way round for each second one.
        if n % 2 == 0 {
            place.put(SIGNATURE, signature.as_bytes());
            place.put(COST, &content);
        } else {
            place.put_version(n);
        }
        support::until(&host, "the exchange", |host| {
            assert!(serves(host), "nothing serves during exchange {n}");
            seen(host).0 != before && seen(host).2.is_none()
        });
    }
}

#[test]
fn two_hosts_do_not_share_what_they_keep() {
    let place = Place::new();
    place.put_version(1);
    let host = place.start();
    let error = place.try_start().unwrap_err();
    assert_eq!(error.kind(), "state_in_use");
    assert!(error.to_string().contains("--admin URL"), "{error}");
    assert!(serves(&host));
    drop(host);
    assert!(serves(&place.start()));
}
