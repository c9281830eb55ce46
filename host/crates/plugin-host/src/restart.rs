//! What a restart finds in what is kept: tests of the registry alone, without the thread that owns it.

use std::collections::HashSet;
use std::fs;

use crate::engine::Runtime;
use crate::folder;
use crate::limits::PluginHostSettings;
use crate::state::{Hold, Holds};
use crate::status::PluginStatus;
use crate::testing::{Alone, built};

const FILE: &str = "cost.wasm";

/// What a first scan makes of a file with this content and of what is kept.
fn first_scan(content: &[u8], kept: &[(&str, &[u8])], hold: Hold) -> (PluginStatus, Holds) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), content).unwrap();
    let settings = PluginHostSettings::new(folder.path());
    let runtime = Runtime::start(&settings).unwrap();
    let state = &runtime.state;
    let holds = Holds { files: [(FILE.to_owned(), hold)].into() };
    state.set_holds(&holds).unwrap();
    for (digest, bytes) in kept {
        state.keep(digest, bytes, None).unwrap();
    }
    let mut alone = Alone::new(settings, runtime);
    alone.registry.scan(&folder::list(folder.path()).unwrap(), &HashSet::new());
    let status = alone.shared.status.load().first().unwrap().now();
    (status, alone.registry.holds)
}

#[test]
fn a_broken_file_has_the_last_good_content_serve() {
    let good = built("cost_per_token");
    let other = built("hostile");
    let digest = |bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.wasm"), bytes).unwrap();
        folder::read(folder.path(), "x.wasm", u64::MAX).unwrap().digest
    };
    let (good_digest, other_digest) = (digest(&good), digest(&other));
    let hold = |serving: &str| Hold { serving: Some(serving.to_owned()), ..Hold::default() };
    let kept = [(good_digest.as_str(), good.as_slice())];

    let (status, holds) = first_scan(&good[..1000], &kept, hold(&good_digest));
    assert_eq!(status.identity.map(|i| i.digest), Some(good_digest.clone()));
    assert!(status.error.is_some() && status.held.is_some());
    assert_eq!(holds.files[FILE].serving.as_ref(), Some(&good_digest));

    // Not what was rolled back from, and not what is not kept.
    let mut rejected = hold(&good_digest);
    rejected.rejected.insert(good_digest.clone());
    assert!(first_scan(b"broken", &kept, rejected).0.identity.is_none());
    assert!(first_scan(b"broken", &[], hold(&good_digest)).0.identity.is_none());

    // The file itself was rolled back from before the restart: what served then serves again.
    let mut rolled_back = hold(&good_digest);
    rolled_back.rejected.insert(other_digest.clone());
    let (status, _) = first_scan(&other, &kept, rolled_back);
    assert_eq!(status.identity.map(|i| i.digest), Some(good_digest.clone()));
    assert_eq!(status.error.map(|error| error.kind), Some("rejected"));
    assert_eq!(status.digest_of_file.as_ref(), Some(&other_digest));

    // Replaced while the gateway was down: it serves, and there is something to go back to.
    let (status, holds) = first_scan(&other, &kept, hold(&good_digest));
    assert_eq!(status.identity.map(|i| i.digest), Some(other_digest.clone()));
    assert_eq!(status.previous.map(|i| i.digest), Some(good_digest.clone()));
    assert_eq!(holds.files[FILE].serving.as_ref(), Some(&other_digest));

    let disabled = Hold { disabled: true, ..Hold::default() };
    let (status, _) = first_scan(&good, &[], disabled);
    assert!(status.identity.is_none() && !status.enabled && status.error.is_none());
}
