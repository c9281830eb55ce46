//! Commands while the thread that carries them out is busy.

use std::collections::HashSet;
use std::fs;
use std::sync::mpsc;

use super::*;
use crate::engine::Runtime;
use crate::limits::PluginHostSettings;
use crate::testing::{Alone, built};

/// A registry of a folder with these files.
fn alone(files: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Alone) {
    let folder = tempfile::tempdir().unwrap();
    for (file, content) in files {
        fs::write(folder.path().join(file), content).unwrap();
    }
    let settings = PluginHostSettings::new(folder.path());
    let runtime = Runtime::start(&settings).unwrap();
    (folder, Alone::new(settings, runtime))
}

fn scan(folder: &tempfile::TempDir, alone: &mut Alone) -> bool {
    alone.registry.scan(&folder::list(folder.path()).unwrap(), &HashSet::new())
}

#[test]
fn a_rollback_does_not_wait_for_every_new_file() {
    let content = built("cost_per_token");
    let (folder, mut alone) = alone(&[("a.wasm", content.clone())]);
    scan(&folder, &mut alone);
    fs::write(folder.path().join("a.wasm"), [content, b"\0\x05\x04note".to_vec()].concat())
        .unwrap();
    scan(&folder, &mut alone);
    for (file, plugin) in [
        ("b.wasm", "enrich_labels"),
        ("c.wasm", "filter_redact"),
        ("d.wasm", "cost_device_seconds"),
    ] {
        fs::write(folder.path().join(file), built(plugin)).unwrap();
    }
    let (answer, answered) = mpsc::sync_channel(1);
    let command = Command::RollBack("a.wasm".to_owned(), answer);
    alone.commands.send(Order { command, claim: Claim::default() }).unwrap();
    let (rescan, rescanned) = mpsc::sync_channel(1);
    let command = Command::Rescan(rescan);
    alone.commands.send(Order { command, claim: Claim::default() }).unwrap();
    let shared = Arc::clone(&alone.shared);
    let at_the_answer = std::thread::spawn(move || {
        answered.recv().unwrap().unwrap();
        shared.status.load().len()
    });
    assert!(scan(&folder, &mut alone), "somebody waits for a scan");
    assert!(at_the_answer.join().unwrap() < 4, "it was answered after all of them");
    assert_eq!(alone.shared.status.load().len(), 4);
    assert_eq!(alone.registry.holds.files["a.wasm"].rejected.len(), 1);
    // A scan that began before it was asked for is not the one.
    assert!(rescanned.try_recv().is_err());
    scan(&folder, &mut alone);
    rescanned.try_recv().unwrap().unwrap();
}

#[test]
fn what_was_given_up_is_not_done() {
    let (folder, mut alone) = alone(&[("a.wasm", built("cost_per_token"))]);
    scan(&folder, &mut alone);
    let patience = Duration::from_millis(20);
    let disable = |alone: &Alone| {
        let ((answer, answered), claim) = (mpsc::sync_channel(1), Claim::default());
        let command = Command::Disable("a.wasm".to_owned(), answer);
        alone.commands.send(Order { command, claim: claim.clone() }).unwrap();
        (answered, claim)
    };
    let (answered, claim) = disable(&alone);
    assert!(matches!(answer(&answered, &claim, patience), Err(ControlError::Busy)));
    scan(&folder, &mut alone);
    assert_eq!(
        alone.shared.set.load().plugins().count(),
        1,
        "the client was told that nothing was done"
    );

    let (answered, claim) = disable(&alone);
    scan(&folder, &mut alone);
    assert!(answer(&answered, &claim, patience).unwrap().is_ok());
    assert_eq!(alone.shared.set.load().plugins().count(), 0);

    // Begun, and not done in time.
    let (_answer, answered) = mpsc::sync_channel::<()>(1);
    let begun = Claim::default();
    assert!(begun.take());
    let late = answer(&answered, &begun, patience);
    assert!(matches!(late, Err(ControlError::UnderWay)));
}
