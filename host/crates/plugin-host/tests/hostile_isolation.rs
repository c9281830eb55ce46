//! What one plugin, one call or one instance may learn of another, or of the world outside: nothing.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use support::craft::{Craft, component};
use support::{Fixture, amount, shown, span, usage, verdict};
use tollgate_domain::{CostOutcome, Resource};
use tollgate_plugin_host::Limits;
use tracing_subscriber::fmt::MakeWriter;

const HOSTILE: &str = "hostile.wasm";
const SECRET: &str = "sk-9f8e7d6c5b4a";

fn lenient() -> Limits {
    Limits { trial_call: false, deadline_call: Duration::from_millis(300), ..Limits::default() }
}

/// All that the process logged, whatever thread did.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The log of this process; tests share it, so each looks for words of its own.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    log
});

fn logged() -> String {
    String::from_utf8_lossy(&LOG.0.lock().unwrap()).into_owned()
}

#[test]
fn nothing_of_the_world_outside_gets_in() {
    let hostile = Fixture::new(&[("hostile", HOSTILE)], lenient());
    hostile.configure(HOSTILE, "{ act = 'probe' }");
    let ask = || match hostile.host.pin().price(None, &usage("m", 1, 1)) {
        CostOutcome::PluginFailed(fault) => fault.message,
        other => amount(&other),
    };
    let report = ask();
    // The same in every call and on every instance: no clock, no randomness.
    assert_eq!(report, ask());
    // Either it was told nothing, or it died of asking.
    let leaks = [
        "HOME",
        "PATH",
        "CARGO",
        "hostname: got",
        "connect: got",
        "listen: got",
        "list /: got",
        "file: got",
    ];
    for leak in leaks {
        assert!(!report.contains(leak), "{leak} in {report}");
    }
}

#[test]
fn memory_of_an_earlier_instance_is_gone() {
    let hostile = Fixture::new(&[("hostile", HOSTILE)], lenient());
    for _ in 0..5 {
        hostile.configure(HOSTILE, "{ act = 'stain', on = 'price' }");
        for _ in 0..4 {
            let outcome = shown(&hostile.host.pin().price(None, &usage("m", 1, 1)));
            assert!(outcome.starts_with("trap: "), "{outcome}");
        }
        hostile.configure(HOSTILE, "{ act = 'sniff', on = 'price' }");
        for _ in 0..4 {
            assert_eq!(hostile.amount("m", 1, 1), "0", "bytes of somebody else");
        }
    }
}

#[test]
fn a_trap_while_another_plugin_runs_is_its_own() {
    let fixture = Fixture::prepared(lenient(), |folder| {
        for (plugin, file) in [("hostile", HOSTILE), ("hostile_other_name", "other.wasm")] {
            std::fs::copy(support::built(plugin), folder.join(file)).unwrap();
        }
        let manifest = "[[plugin]]\nfile = 'hostile.wasm'\norder = -1\nconfig = { act = 'slow', n = 20, on = 'price' }\n\
                        [[plugin]]\nfile = 'other.wasm'\nconfig = { act = 'trap', on = 'enrich' }\n";
        std::fs::write(folder.join("plugins.toml"), manifest).unwrap();
    });
    let set = fixture.host.pin();
    assert_eq!(set.plugins().count(), 2, "{:?}", fixture.host.status());
    std::thread::scope(|threads| {
        let pricing: Vec<_> = (0..2)
            .map(|_| {
                threads.spawn(|| {
                    (0..20).map(|_| amount(&set.price(None, &usage("m", 1, 1)))).collect::<Vec<_>>()
                })
            })
            .collect();
        let resource = Resource::default();
        let mut traps = 0;
        while pricing.iter().any(|thread| !thread.is_finished()) || traps == 0 {
            let mut spans = vec![span()];
            let faults = set.enrich(None, &resource, &mut spans);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert_eq!(faults[0].plugin.name, "tollgate/hostile-other");
            assert_eq!(spans, [span()]);
            traps += 1;
        }
        for thread in pricing {
            assert_eq!(thread.join().unwrap(), ["0.01"; 20]);
        }
    });
}

#[test]
fn lines_stand_under_the_name_of_who_wrote_them() {
    LazyLock::force(&LOG);
    let limits = Limits { log_lines_per_second: 100_000, ..lenient() };
    let fixture = Fixture::prepared(limits, |folder| {
        for (plugin, file) in [("hostile", HOSTILE), ("hostile_other_name", "other.wasm")] {
            std::fs::copy(support::built(plugin), folder.join(file)).unwrap();
        }
        let manifest = "[[plugin]]\nfile = 'hostile.wasm'\nconfig = { act = 'log-control', n = 50, on = 'price' }\n\
                        [[plugin]]\nfile = 'other.wasm'\nconfig = { act = 'log-control', n = 50, on = 'enrich' }\n";
        std::fs::write(folder.join("plugins.toml"), manifest).unwrap();
    });
    let set = fixture.host.pin();
    std::thread::scope(|threads| {
        threads.spawn(|| set.price(None, &usage("m", 1, 1)));
        threads.spawn(|| set.enrich(None, &Resource::default(), &mut vec![span()]));
    });
    let text = logged();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("one\\u{a}two")).collect();
    // Nothing of the guest's ends a line, colours it or turns it round.
    assert!(!text.contains(['\u{1b}', '\0', '\u{202e}', '\r']));
    let of = |name: &str| lines.iter().filter(|line| line.contains(&format!("{name:?}"))).count();
    assert_eq!((of("tollgate/hostile"), of("tollgate/hostile-other"), lines.len()), (50, 50, 100));
}

#[test]
fn a_secret_in_a_configuration_is_not_told() {
    LazyLock::force(&LOG);
    let fixture = Fixture::new(&[("hostile", HOSTILE)], Limits::default());
    let configs = [
        format!("[[plugin]]\nfile = '{HOSTILE}'\nconfig = {{ secret = '{SECRET}' }}\n"),
        format!(
            "[[plugin]]\nfile = '{HOSTILE}'\nconfig = {{ secret = '{SECRET}', act = 'trap', on = 'configure' }}\n"
        ),
        format!(
            "[[plugin]]\nfile = '{HOSTILE}'\nconfig = {{ secret = '{SECRET}', unknown = 1 }}\n"
        ),
        // Broken in the very line that holds it.
        format!("[[plugin]]\nfile = '{HOSTILE}'\nconfig = {{ secret = '{SECRET}', }} }}\n"),
        format!("[[plugin]]\nfile = '{HOSTILE}'\nunknown = '{SECRET}'\n"),
    ];
    for (index, config) in configs.iter().enumerate() {
        fixture.place("plugins.toml", config.as_bytes());
        if index == 0 {
            fixture.until("the first one to serve", |host| host.pin().generation() > 1);
        } else {
            let before: Vec<_> = fixture.host.status().into_iter().map(|s| s.error).collect();
            fixture.until("a refusal", |host| {
                let now: Vec<_> = host.status().into_iter().map(|status| status.error).collect();
                now.iter().any(Option::is_some) && (index == 1 || now != before)
            });
        }
        let status = format!("{:?}", fixture.host.status());
        assert!(!status.contains(SECRET), "{status}");
        assert!(!verdict(&fixture.host, "plugins.toml").contains(SECRET));
    }
    assert!(!logged().contains(SECRET), "in the log");
    assert!(logged().contains("plugins.toml is not used"));
}

/// Long for a request with a long name of a model, and a trap for any other.
fn long_or_trap() -> Vec<u8> {
    let put = [
        ("items", "(global $text (mut i32) (i32.const 0))"),
        (
            "realloc",
            "(if (i32.eq (local.get $align) (i32.const 1)) (then (global.set $text (local.get $size))))",
        ),
        (
            "price",
            "(if (i32.lt_u (global.get $text) (i32.const 200)) (then unreachable))
             (local.set 0 (i32.const 1500000000))
             (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))",
        ),
    ];
    component(Craft { put: &put, ..Craft::default() })
}

#[test]
fn a_trap_in_one_instance_leaves_another_of_the_same_plugin_alone() {
    let limits = Limits { deadline_call: Duration::from_secs(60), ..lenient() };
    let fixture = Fixture::prepared(limits, |folder| {
        std::fs::write(folder.join("crafted.wasm"), long_or_trap()).unwrap();
    });
    let set = fixture.host.pin();
    let ask = |model: &str| shown(&set.price(None, &usage(model, 1, 1)));
    let long = "m".repeat(300);
    let in_flight = || fixture.host.meters().first().map_or(0, |meter| meter.in_flight);
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| ask(&long));
        while in_flight() == 0 {
            assert!(!answer.is_finished(), "it is too quick for this test");
            std::thread::yield_now();
        }
        // Fewer than open the breaker.
        for _ in 0..4 {
            assert!(ask("m").starts_with("trap: "));
        }
        assert_eq!((in_flight(), answer.is_finished()), (1, false), "they were meant to overlap");
        assert_eq!(answer.join().unwrap(), "0.01");
    });
    assert_eq!(ask(&long), "0.01");
}
