//! What a restart finds in what is kept: tests of the registry alone, without the thread that owns it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use arc_swap::ArcSwap;

use crate::engine::Runtime;
use crate::folder;
use crate::limits::PluginHostSettings;
use crate::meter::Meters;
use crate::registry::{Registry, Shared};
use crate::set::PluginSet;
use crate::state::{Hold, Holds};
use crate::status::PluginStatus;

const FILE: &str = "cost.wasm";

fn built(name: &str) -> PathBuf {
    let plugins =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugins/target/wasm32-wasip2/release");
    let file = plugins.join(format!("{name}.wasm"));
    assert!(file.exists(), "{name}.wasm is missing: run `cargo xtask build-plugins`");
    file
}

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
    let shared = Arc::new(Shared {
        set: ArcSwap::from_pointee(PluginSet::new(0, Vec::new())),
        status: ArcSwap::from_pointee(Vec::new()),
        meters: Meters::default(),
    });
    let (_commands, obeyed) = mpsc::sync_channel(1);
    let (alarm, _reminders) = mpsc::sync_channel(1);
    let mut registry = Registry::new(settings, runtime, Arc::clone(&shared), obeyed, alarm);
    registry.scan(&folder::list(folder.path()).unwrap(), &HashSet::new());
    let status = shared.status.load().first().unwrap().now();
    (status, registry.holds)
}

#[test]
fn a_broken_file_has_the_last_good_content_serve() {
    let good = fs::read(built("cost_per_token")).unwrap();
    let other = fs::read(built("hostile")).unwrap();
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
