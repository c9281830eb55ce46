//! Whatever happens to the folder, what serves is the last good version until there is a better one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use support::{Fixture, amount, built, usage};
use tollgate_plugin_host::{Limits, PluginHost, PluginHostSettings};

const COST: &str = "cost.wasm";

/// A folder whose changes only events can tell of.
fn by_events_only(folder: tempfile::TempDir) -> Fixture {
    let settings = PluginHostSettings {
        rescan_every: Duration::from_secs(3600),
        ..PluginHostSettings::new(folder.path())
    };
    Fixture { host: PluginHost::start(settings).unwrap(), folder }
}

fn prices(n: u32) -> String {
    format!(
        "[[plugin]]\nfile = \"{COST}\"\nconfig = {{ default = {{ input = \"${n}/M\", output = \"$0/M\" }} }}\n"
    )
}

fn costs(host: &PluginHost, n: u32) -> bool {
    amount(&host.pin().price(None, &usage("m", 1_000_000, 0))) == n.to_string()
}

/// Asks for a price all the time; joining it fails if there was ever none.
struct Clients {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Clients {
    fn of(host: &PluginHost) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (host, until) = (host.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut asked = 0;
            while !until.load(Ordering::Acquire) {
                let outcome = host.pin().price(None, &usage("m", 1, 1));
                assert!(outcome.cost().is_some(), "{outcome:?}");
                asked += 1;
                thread::sleep(Duration::from_micros(200));
            }
            asked
        });
        Self { stop, thread }
    }

    fn were_always_answered(self) {
        self.stop.store(true, Ordering::Release);
        assert!(self.thread.join().unwrap() > 0);
    }
}

#[test]
fn kubernetes_swaps_its_data_link() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let version = |n: u32| format!("..2026_11_22_00_00_{n:02}.1");
    let write = |n: u32| {
        fs::create_dir(at(&version(n))).unwrap();
        fs::copy(built("cost_per_token"), at(&version(n)).join(COST)).unwrap();
        fs::write(at(&version(n)).join("plugins.toml"), prices(n)).unwrap();
    };
    write(1);
    symlink(version(1), at("..data")).unwrap();
    symlink("..data/cost.wasm", at(COST)).unwrap();
    symlink("..data/plugins.toml", at("plugins.toml")).unwrap();
    let swap = |n: u32| {
        write(n);
        symlink(version(n), at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        fs::remove_dir_all(at(&version(n - 1))).unwrap();
    };
    let settings = PluginHostSettings {
        rescan_every: Duration::from_secs(3600),
        ..PluginHostSettings::new(folder.path())
    };
    let host = PluginHost::start(settings).unwrap();
    assert!(costs(&host, 1));
    let clients = Clients::of(&host);
    for n in 2..6 {
        swap(n);
        support::until(&host, "the swap", |host| costs(host, n));
    }
    // Faster than anybody looks.
    for n in 6..12 {
        swap(n);
    }
    support::until(&host, "the last swap", |host| costs(host, 11));
    clients.were_always_answered();
    support::until(&host, "no error", |host| host.status().iter().all(|s| s.error.is_none()));
}

#[test]
fn a_folder_that_goes_and_comes_back_is_watched_again() {
    let parent = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir_in(parent.path()).unwrap();
    fs::copy(built("cost_per_token"), folder.path().join(COST)).unwrap();
    let fixture = by_events_only(folder);
    let path = fixture.folder.path().to_owned();
    let clients = Clients::of(&fixture.host);
    for n in 1..4 {
        let away = parent.path().join(format!("away-{n}"));
        fs::rename(&path, &away).unwrap();
        if n == 2 {
            // Long enough to be missed.
            thread::sleep(Duration::from_millis(1500));
        }
        fs::create_dir(&path).unwrap();
        fs::copy(away.join(COST), path.join(COST)).unwrap();
        fs::write(path.join("plugins.toml"), prices(n)).unwrap();
        fixture.until("the folder's return", |host| costs(host, n));
        fixture.place("plugins.toml", prices(n + 100).as_bytes());
        fixture.until("an event from the new folder", |host| costs(host, n + 100));
    }
    clients.were_always_answered();
}

#[test]
fn editors_and_copies_in_progress_are_waited_for() {
    let fixture = Fixture::new(&[("cost_per_token", COST)], Limits::default());
    let at = |name: &str| fixture.folder.path().join(name);
    let clients = Clients::of(&fixture.host);
    // As an editor does that keeps a backup: the name is free for a moment.
    fs::write(at("plugins.toml"), prices(1)).unwrap();
    fixture.until("the first prices", |host| costs(host, 1));
    fs::write(at(".plugins.toml.swp"), "swap").unwrap();
    fs::write(at("4913"), "").unwrap();
    fs::rename(at("plugins.toml"), at("plugins.toml~")).unwrap();
    fs::write(at("plugins.toml"), prices(2)).unwrap();
    fs::remove_file(at("4913")).unwrap();
    fixture.until("the edited prices", |host| costs(host, 2));

    // As a slow copy does.
    let whole = [fs::read(built("cost_per_token")).unwrap(), b"\0\x05\x04note".to_vec()].concat();
    fs::remove_file(at(COST)).unwrap();
    let mut slow = fs::File::create(at(COST)).unwrap();
    for piece in whole.chunks(whole.len() / 10) {
        slow.write_all(piece).unwrap();
        slow.flush().unwrap();
        thread::sleep(Duration::from_millis(60));
    }
    drop(slow);
    let digest = |host: &PluginHost| host.pin().plugins().next().unwrap().digest.clone();
    let before = digest(&fixture.host);
    fixture.until("the copy", |host| digest(host) != before);
    clients.were_always_answered();
}

#[test]
fn a_file_that_never_rests_holds_up_nothing_else() {
    let fixture = Fixture::new(&[("cost_per_token", COST)], Limits::default());
    let clients = Clients::of(&fixture.host);
    let stop = Arc::new(AtomicBool::new(false));
    let (until, folder) = (Arc::clone(&stop), fixture.folder.path().to_owned());
    let restless = thread::spawn(move || {
        let whole = fs::read(built("cost_device_seconds")).unwrap();
        for n in 0_usize.. {
            if until.load(Ordering::Acquire) {
                break;
            }
            // Now whole, now cut off, now gone.
            let length = [whole.len(), whole.len() / 2, 0][n % 3];
            fs::write(folder.join(".arriving-restless"), &whole[..length]).unwrap();
            fs::rename(folder.join(".arriving-restless"), folder.join("restless.wasm")).unwrap();
            if n % 5 == 0 {
                fs::remove_file(folder.join("restless.wasm")).unwrap();
            }
            thread::sleep(Duration::from_millis(10));
        }
        fs::write(folder.join("restless.wasm"), &whole).unwrap();
    });
    for n in 1..3 {
        fixture.place("plugins.toml", prices(n).as_bytes());
        fixture.until("the others' changes", |host| costs(host, n));
    }
    stop.store(true, Ordering::Release);
    restless.join().unwrap();
    fixture.until("what it came to in the end", |host| {
        host.pin().plugins().any(|plugin| plugin.name == "tollgate/cost-device-seconds")
    });
    clients.were_always_answered();
}

#[test]
fn what_is_no_file_of_the_folder_is_reported_and_harmless() {
    let fixture = Fixture::new(&[("cost_per_token", COST)], Limits::default());
    let at = |name: &str| fixture.folder.path().join(name);
    let outside = tempfile::tempdir().unwrap();
    fs::copy(built("cost_device_seconds"), outside.path().join("x.wasm")).unwrap();
    fs::create_dir(at("folder.wasm")).unwrap();
    symlink(outside.path().join("x.wasm"), at("outside.wasm")).unwrap();
    symlink(Path::new("/etc/passwd"), at("passwd.wasm")).unwrap();
    symlink("loop.wasm", at("loop.wasm")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe.wasm"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let expected = [
        ("folder.wasm", "it is a folder"),
        ("outside.wasm", "leads out of the plugin folder"),
        ("pipe.wasm", "it is a pipe"),
        ("passwd.wasm", "leads out of the plugin folder"),
    ];
    fixture.until("four reports", |host| {
        expected.iter().all(|(file, said)| {
            host.status().iter().any(|status| {
                status.file == *file
                    && status.error.as_ref().is_some_and(|error| error.message.contains(said))
            })
        })
    });
    assert_eq!(fixture.host.pin().generation(), 1);
    assert_eq!(fixture.host.status().len(), 5);
}

#[test]
fn a_pin_and_a_signature_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(built("cost_per_token"), folder.path().join(COST)).unwrap();
    let content = fs::read(built("cost_per_token")).unwrap();
    let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let sign =
        |content: &[u8]| minisign::sign(None, &pair.sk, content, None, None).unwrap().into_string();
    let settings = PluginHostSettings {
        rescan_every: Duration::from_secs(1),
        trusted_keys: vec![pair.pk.to_base64().parse().unwrap()],
        ..PluginHostSettings::new(folder.path())
    };
    let fixture = Fixture { host: PluginHost::start(settings).unwrap(), folder };
    let refused = |host: &PluginHost, kind: &str| {
        host.status().iter().any(|s| s.error.as_ref().is_some_and(|e| e.kind == kind))
    };
    let serves = |host: &PluginHost| host.pin().plugins().count() == 1;
    assert!(refused(&fixture.host, "signature") && !serves(&fixture.host));
    fixture.place("cost.wasm.minisig", sign(b"something else").as_bytes());
    fixture.until("a wrong signature", |host| {
        host.status()
            .iter()
            .any(|s| s.error.as_ref().is_some_and(|error| error.message.contains("of other bytes")))
    });
    let pin = |digest: &str| format!("[[plugin]]\nfile = \"{COST}\"\nsha256 = \"{digest}\"\n");
    fixture.place("plugins.toml", pin(&"0".repeat(64)).as_bytes());
    fixture.place("cost.wasm.minisig", sign(&content).as_bytes());
    fixture.until("a wrong pin", |host| refused(host, "pin"));
    assert!(!serves(&fixture.host));
    let message = fixture.host.status().remove(0).error.unwrap().message;
    let digest = message.split([' ', ',']).find(|word| word.len() == 64).unwrap();
    fixture.place("plugins.toml", pin(digest).as_bytes());
    fixture.until("both right", serves);
}
