//! Files that are no plugins, or not quite: each is refused with a sentence, or serves, and the host goes on.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    missing_docs,
    reason = "a test"
)]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::craft::{self, Craft, component};
use support::{Fixture, expect, verdict};
use tollgate_plugin_host::Limits;

const API: (&str, &str) = ("package tollgate:plugin@0.1.0;", "package tollgate:plugin@0.2.0;");

/// Files by name.
fn junk() -> Vec<(&'static str, Vec<u8>)> {
    let good = component(Craft::default());
    let real = fs::read(support::built("cost_per_token")).unwrap();
    let unknown = [("world base {", "world base { import steal: func();")];
    let call_it = [("imports", "(import \"$root\" \"steal\" (func $steal))")];
    let foreign = [
        ("world base {", "world base { import acme:vault/secrets@1.0.0;"),
        (
            "package tollgate:plugin@0.1.0;",
            "package tollgate:plugin@0.1.0; package acme:vault@1.0.0 { interface secrets { read: func() -> string; } }",
        ),
    ];
    let no_lifecycle = [("export lifecycle;", "")];
    let no_role = [(
        "world cost-model-plugin { include base; export cost-model; }",
        "world cost-model-plugin { include base; }",
    )];
    let other_type = [("describe: func() -> plugin-info;", "describe: func() -> string;")];
    let other_field = [("max-batch: u32,", "max-batch: u32, more: u32,")];
    let inside = |name: &str, id: u8, content: &[u8]| craft::with_section(name, (id, content));
    vec![
        ("empty", Vec::new()),
        ("text", b"not wasm at all".to_vec()),
        ("zeros", vec![0; 4096]),
        ("only-magic", b"\0asm".to_vec()),
        ("only-preamble", craft::COMPONENT.to_vec()),
        ("core-module", wat::parse_str("(module (func (export \"price\")))").unwrap()),
        ("other-version", b"\0asm\x0e\0\x01\0".to_vec()),
        ("precompiled", wasmtime::Engine::default().precompile_component(&good).unwrap()),
        (
            "other-function",
            component(Craft { contract: &unknown, put: &call_it, ..Craft::default() }),
        ),
        (
            "other-interface",
            component(Craft {
                contract: &foreign,
                put: &[(
                    "imports",
                    "(import \"acme:vault/secrets@1.0.0\" \"read\" (func $read (param i32)))",
                )],
                ..Craft::default()
            }),
        ),
        (
            "other-api-version",
            component(Craft {
                contract: &[API],
                module: &[("@0.1.0#", "@0.2.0#")],
                ..Craft::default()
            }),
        ),
        ("no-lifecycle", component(Craft { contract: &no_lifecycle, ..Craft::default() })),
        ("no-role", component(Craft { contract: &no_role, ..Craft::default() })),
        ("other-type", component(Craft { contract: &other_type, ..Craft::default() })),
        ("one-field-more", component(Craft { contract: &other_field, ..Craft::default() })),
        ("nested-1000", craft::nested(1000)),
        ("nested-10000", craft::nested(10_000)),
        ("types-1000000", craft::many_types(1_000_000)),
        ("types-2000000", craft::many_types(2_000_000)),
        ("import-cycle", craft::import_cycle()),
        // The same within a plugin, so that a compiler sees them.
        (
            "plugin-nested-1000",
            inside("tollgate/nest-1k", craft::COMPONENT_SECTION, &craft::nested(1000)),
        ),
        (
            "plugin-types-900000",
            inside("tollgate/types-9", craft::MODULE_SECTION, &craft::module_of_types(900_000)),
        ),
        (
            "plugin-types-1000001",
            inside("tollgate/types-1", craft::MODULE_SECTION, &craft::module_of_types(1_000_001)),
        ),
        ("plugin-import-cycle", craft::plugin_with_cycle("tollgate/a-cycle")),
        ("custom-section-64-mib", craft::with_custom_section(&good, 64 << 20)),
        ("custom-section-1-mib", craft::with_custom_section(&good, 1 << 20)),
        ("one-byte-short", real[..real.len() - 1].to_vec()),
        ("one-byte-more", [real.as_slice(), b"\0"].concat()),
    ]
}

/// The host's own words, and the compiler's without what depends on offsets and versions.
fn settled(text: &str) -> String {
    let text = text.split(" (at offset").next().unwrap_or(text);
    text.to_owned()
}

#[test]
fn each_is_refused_with_a_sentence() {
    let files = junk();
    let fixture = Fixture::prepared(Limits::default(), |folder| {
        fs::copy(support::built("cost_per_token"), folder.join("a-good-one.wasm")).unwrap();
        for (name, bytes) in &files {
            fs::write(folder.join(format!("{name}.wasm")), bytes).unwrap();
        }
        fs::create_dir(folder.join("folder.wasm")).unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/etc/shadow", folder.join("shadow.wasm")).unwrap();
            std::os::unix::fs::symlink("/dev/zero", folder.join("zero.wasm")).unwrap();
            std::os::unix::fs::symlink("itself.wasm", folder.join("itself.wasm")).unwrap();
            let pipe = folder.join("pipe.wasm");
            assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
            std::os::unix::net::UnixListener::bind(folder.join("socket.wasm")).unwrap();
        }
    });
    let found: Vec<String> = fixture
        .host
        .status()
        .iter()
        .map(|status| {
            format!("{}: {}", status.file, settled(&verdict(&fixture.host, &status.file)))
        })
        .collect();
    expect("artefacts.txt", &found);
    assert_eq!(fixture.amount("mistral-7b", 7, 3), "0.0000013");
}

/// Files made from a good one; the good one stands beside them.
fn outcomes(made: impl IntoIterator<Item = Vec<u8>>) -> BTreeMap<String, usize> {
    let fixture = Fixture::prepared(Limits::default(), |folder| {
        for (number, bytes) in made.into_iter().enumerate() {
            fs::write(folder.join(format!("{number:05}.wasm")), bytes).unwrap();
        }
    });
    let mut outcomes = BTreeMap::new();
    for status in fixture.host.status() {
        let kind = status.error.as_ref().map_or("serves", |error| error.kind);
        *outcomes.entry(kind.to_owned()).or_default() += 1;
    }
    for identity in fixture.host.pin().plugins() {
        assert!(!identity.name.is_empty());
    }
    outcomes
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let mut count = 0;
    for plugin in ["cost_per_token", "hostile"] {
        let whole = fs::read(support::built(plugin)).unwrap();
        let cuts: Vec<Vec<u8>> =
            (0..whole.len()).step_by(1024).map(|end| whole[..end].to_vec()).collect();
        count += cuts.len();
        let outcomes = outcomes(cuts);
        // A cut between two sections leaves a component, which exports nothing.
        let refused = ["compile", "format", "interface"];
        assert!(outcomes.keys().all(|kind| refused.contains(&kind.as_str())), "{outcomes:?}");
    }
    assert!(count > 100, "{count} cuts");
}

#[test]
fn a_flipped_bit_is_refused_or_harmless() {
    let whole = component(Craft::default());
    // With the bit going round, and as many files as a folder takes.
    let step = whole.len().div_ceil(1_000).max(3);
    let places = (0..whole.len()).step_by(step);
    let flipped = places.map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    let outcomes = outcomes(flipped);
    let refused: usize =
        outcomes.values().sum::<usize>() - outcomes.get("serves").copied().unwrap_or(0);
    assert!(refused > whole.len() / step / 2, "{outcomes:?} of {}", whole.len());
}

#[test]
fn a_file_that_is_replaced_all_the_time_ends_as_its_last_content() {
    let good = fs::read(support::built("cost_per_token")).unwrap();
    let fixture = Fixture::new(&[("cost_per_token", "cost.wasm")], Limits::default());
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < Duration::from_secs(4) {
        let content = match count % 4 {
            0 => good.clone(),
            1 => good[..good.len() / 2].to_vec(),
            2 => Vec::new(),
            _ => craft::with_custom_section(&good, usize::try_from(count).unwrap()),
        };
        if count.is_multiple_of(2) {
            fixture.place("cost.wasm", &content);
        } else {
            // Not as one should: in place, so that a reader sees it half done.
            fs::write(fixture.folder.path().join("cost.wasm"), &content).unwrap();
        }
        assert_eq!(fixture.amount("mistral-7b", 7, 3), "0.0000013", "after {count} replacements");
        count += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(count > 100, "{count} replacements");
    let last = craft::with_custom_section(&good, 77);
    fixture.place("cost.wasm", &last);
    let digest = digest(&last);
    fixture.until("the last content", |host| {
        host.pin().plugins().any(|identity| identity.digest == digest)
    });
    assert_eq!(verdict(&fixture.host, "cost.wasm"), "serves as tollgate/cost-per-token");
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_folder_full_of_junk_costs_nothing_but_words() {
    let fixture = Fixture::new(&[("cost_per_token", "cost.wasm")], Limits::default());
    for number in 0..300_u32 {
        let path: &Path = fixture.folder.path();
        fs::write(path.join(format!("junk-{number}.wasm")), number.to_le_bytes()).unwrap();
    }
    fixture.until("all of it to be refused", |host| host.status().len() == 301);
    assert_eq!(fixture.amount("mistral-7b", 7, 3), "0.0000013");
}
