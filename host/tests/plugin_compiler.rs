//! The compiler's process, run by the real program: what is made to break it takes nothing else with it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

mod components;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use components::{bomb, built, usage};
use tollgate_plugin_host::{Compiler, Limits, PluginHost, PluginHostSettings};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tollgate");
const COST: &str = "cost.wasm";

/// A plugin folder with the bundled price list, and a folder for what is kept.
struct Place {
    plugins: tempfile::TempDir,
    data: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place =
            Self { plugins: tempfile::tempdir().unwrap(), data: tempfile::tempdir().unwrap() };
        place.put(COST, &fs::read(built("cost_per_token")).unwrap());
        place
    }

    fn put(&self, name: &str, content: &[u8]) {
        let arriving = self.plugins.path().join(".arriving");
        fs::write(&arriving, content).unwrap();
        fs::rename(arriving, self.plugins.path().join(name)).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.data.path().join("plugins")
    }

    fn compiled(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state().join("compiled")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn start(&self, program: &str, limits: Limits) -> PluginHost {
        let settings = PluginHostSettings {
            rescan_every: Duration::from_secs(1),
            compiler: Compiler::Child(program.into()),
            state: Some(self.state()),
            limits,
            ..PluginHostSettings::new(self.plugins.path())
        };
        PluginHost::start(settings).unwrap()
    }
}

/// Patient, since a debug build compiles slowly and the machine may be busy.
fn patient() -> Limits {
    Limits { child_time: Duration::from_secs(120), ..Limits::default() }
}

fn priced(host: &PluginHost) -> bool {
    host.pin().price(None, &usage()).cost().is_some()
}

/// Kind and message of what is wrong with a file, once something is.
fn refusal(host: &PluginHost, file: &str) -> (&'static str, String) {
    let began = Instant::now();
    loop {
        let status = host.status();
        if let Some(error) = status.iter().find(|s| s.file == file).and_then(|s| s.error.clone()) {
            return (error.kind, error.message);
        }
        assert!(began.elapsed() < Duration::from_secs(180), "{file} is not refused: {status:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What the compiler does with a file while requests are priced.
fn refusal_while_pricing(limits: Limits, content: &[u8]) -> (&'static str, String) {
    let place = Place::new();
    let host = place.start(PROGRAM, limits);
    assert!(priced(&host), "{:#?}", host.status());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut asked = 0;
            while !stop.load(Ordering::Acquire) {
                assert!(priced(&host));
                asked += 1;
                thread::sleep(Duration::from_millis(1));
            }
            asked
        });
        place.put("bad.wasm", content);
        let refusal = refusal(&host, "bad.wasm");
        stop.store(true, Ordering::Release);
        assert!(client.join().unwrap() > 0);
        assert!(priced(&host), "the good one serves on");
        refusal
    })
}

#[test]
fn a_compile_bomb_is_stopped_at_its_time_while_requests_are_priced() {
    let mut limits = patient();
    limits.child_memory_bytes = 16 << 30;
    // The good one is in the cache by then, or it would have too little time.
    let place = Place::new();
    drop(place.start(PROGRAM, limits.clone()));
    limits.child_time = Duration::from_secs(3);
    let host = place.start("/nowhere", limits.clone());
    assert!(priced(&host));
    drop(host);
    let host = place.start(PROGRAM, limits);
    place.put("bad.wasm", &bomb(7 << 20));
    let (kind, message) = refusal(&host, "bad.wasm");
    assert_eq!(kind, "compile_time", "{message}");
    assert!(message.contains("more than 3s of processor time"), "{message}");
    assert!(priced(&host));
    assert_eq!(place.compiled().len(), 1, "nothing of it is kept");
}

#[test]
fn a_compile_bomb_that_needs_memory_gets_no_more_than_its_share() {
    let limits = Limits { child_memory_bytes: 512 << 20, ..patient() };
    let (kind, message) = refusal_while_pricing(limits, &bomb(7 << 20));
    assert_eq!(kind, "compile_memory", "{message}");
    assert!(message.contains("536870912 bytes of memory"), "{message}");
}

#[test]
fn what_does_not_compile_is_refused_in_the_compilers_words() {
    let mut invalid = components::with_roles();
    // A core module whose only function has no end.
    invalid.extend(b"\x01\x16\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x0a\x02\x01\0");
    let (kind, message) = refusal_while_pricing(patient(), &invalid);
    assert_eq!(kind, "compile", "{message}");
    assert!(message.contains("copy it again") && message.contains("offset"), "{message}");
}

#[test]
fn compiled_code_outlives_a_restart_and_is_checked() {
    let place = Place::new();
    assert!(priced(&place.start(PROGRAM, patient())));
    let cached = place.compiled();
    assert_eq!(cached.len(), 1);

    // Where nothing can be compiled, nothing is.
    let unusable = "/nowhere/to/be/found";
    assert!(priced(&place.start(unusable, patient())), "it is from the cache");

    let mut damaged = fs::read(&cached[0]).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&cached[0], &damaged).unwrap();
    let host = place.start(unusable, patient());
    assert!(!priced(&host));
    let (kind, message) = refusal(&host, COST);
    assert_eq!(kind, "compiler");
    assert!(message.contains(unusable), "{message}");
    drop(host);

    assert!(priced(&place.start(PROGRAM, patient())), "it is compiled again");
    assert!(priced(&place.start(unusable, patient())));
}

#[test]
fn a_folder_that_others_can_write_is_no_place_for_compiled_code() {
    let place = Place::new();
    fs::create_dir(place.state()).unwrap();
    fs::set_permissions(place.state(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(priced(&place.start(PROGRAM, patient())));
    assert_eq!(place.compiled(), [] as [PathBuf; 0]);

    fs::set_permissions(place.state(), fs::Permissions::from_mode(0o700)).unwrap();
    // Somebody else's. Only root can give files away, so only root can test it.
    if std::os::unix::fs::chown(place.state(), Some(65534), None).is_ok() {
        assert!(priced(&place.start(PROGRAM, patient())));
        assert_eq!(place.compiled(), [] as [PathBuf; 0]);
    }
}

#[test]
fn the_plugin_folder_is_no_place_for_what_is_kept() {
    let place = Place::new();
    let settings = PluginHostSettings {
        state: Some(place.plugins.path().to_owned()),
        ..PluginHostSettings::new(place.plugins.path())
    };
    let error = PluginHost::start(settings).unwrap_err();
    assert_eq!(error.kind(), "state");
}

/// What the process itself says and ends with.
fn compiler(memory: u64, input: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let mut child = Command::new(PROGRAM)
        .args(["plugin-compiler", "--cpu-seconds=600", &format!("--memory-bytes={memory}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    let out = child.wait_with_output().unwrap();
    (out.status.code(), out.stdout, String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn the_process_answers_with_machine_code_or_a_reason() {
    let (code, out, said) = compiler(1 << 30, &fs::read(built("cost_per_token")).unwrap());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(out.starts_with(b"\x7fELF"));
    for garbage in [&b""[..], b"(component", b"\0asm\x0d\0\x01\0\xff", &out] {
        let (code, out, said) = compiler(1 << 30, garbage);
        assert_eq!((code, out.len()), (Some(65), 0), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_plugin_is_checked_and_inspected_without_a_gateway() {
    let run = |arguments: &[&str]| {
        let out = Command::new(PROGRAM).arg("plugin").args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let path = built("cost_per_token");
    let good = path.to_str().unwrap();
    let (code, out, said) = run(&["check", good]);
    assert_eq!(code, Some(0), "{out}{said}");
    for step in ["read", "format", "pin", "signature", "interface", "compile", "trial"] {
        assert!(out.lines().any(|line| line.trim_start().starts_with(step)), "{step}: {out}");
    }
    assert!(out.contains("ok: tollgate/cost-per-token"), "{out}");

    let place = Place::new();
    place.put("bad.wasm", b"\0asm\x01\0\0\0");
    let bad = place.plugins.path().join("bad.wasm");
    let (code, out, _) = run(&["check", "--json", good, bad.to_str().unwrap()]);
    let answers: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &answers[0]["ok"], &answers[1]["ok"]),
        (Some(1), &true.into(), &false.into())
    );
    assert_eq!((&answers[1]["kind"], &answers[1]["failed"]), (&"format".into(), &"format".into()));

    let (code, out, _) = run(&["check", good, "--config", "{\"nonsense\": 1}"]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("refused: it refuses its configuration") && out.contains("nonsense"),
        "{out}"
    );

    let other = format!("[[plugin]]\nfile = \"cost.wasm\"\nsha256 = \"{}\"\n", "00".repeat(32));
    place.put("plugins.toml", other.as_bytes());
    let cost = place.plugins.path().join(COST);
    let (code, out, _) = run(&["check", "--plugins-toml", cost.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(out.contains("pin") && out.contains("FAILED"), "{out}");

    let (code, out, _) = run(&["inspect", "--json", good]);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(answer["roles"], serde_json::json!(["cost-model"]));
    assert_eq!((&answer["currency"], &answer["api_version"]), (&"USD".into(), &"0.1.0".into()));
    assert_eq!(answer["bytes"], fs::metadata(Path::new(good)).unwrap().len());
    let (code, out, _) = run(&["inspect", good]);
    assert_eq!(code, Some(0));
    assert!(out.contains("cost-model") && out.contains("compiled"), "{out}");
    let (code, _, said) = run(&["inspect", "nowhere.wasm"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("nowhere.wasm"), "{said}");
}
