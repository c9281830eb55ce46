//! A plugin that goes bad is left alone, rolled back and kept from others' data, and its figures say so.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use support::{Fixture, amount, built, span, usage};
use tollgate_domain::{BreakerState, CostOutcome, FaultKind, Resource, Span};
use tollgate_plugin_host::{Limits, PluginHost, PluginMeter, PluginStatus, Role};

const COST: &str = "cost.wasm";
const HOSTILE: &str = "hostile.wasm";
/// What the hostile plugin costs when it behaves, and what the table has for (7, 3).
const BEHAVES: &str = "0.01";
const BY_TABLE: &str = "0.0000013";

fn untried() -> Limits {
    Limits { trial_call: false, ..Limits::default() }
}

/// Writes plugins.toml and waits for the set that it makes.
fn manifest(fixture: &Fixture, text: &str) {
    let before = fixture.host.pin().generation();
    fixture.place("plugins.toml", text.as_bytes());
    fixture.until(text, |host| host.pin().generation() > before);
}

fn hostile(more: &str) -> String {
    format!("[[plugin]]\nfile = \"{HOSTILE}\"\norder = -1\n{more}\n")
}

fn status(host: &PluginHost, file: &str) -> PluginStatus {
    host.status().into_iter().find(|status| status.file == file).unwrap()
}

fn meter(host: &PluginHost, plugin: &str, role: Role) -> PluginMeter {
    let all = host.meters();
    all.into_iter().find(|meter| meter.plugin == plugin && meter.role == role).unwrap()
}

fn faults(host: &PluginHost, calls: usize) -> Vec<FaultKind> {
    let ask = |_| match host.pin().price(None, &usage("m", 1, 1)) {
        CostOutcome::PluginFailed(fault) => Some(fault.kind),
        _ => None,
    };
    (0..calls).filter_map(ask).collect()
}

fn opened(host: &PluginHost, file: &str) -> bool {
    matches!(status(host, file).breaker, BreakerState::Open { .. })
}

#[test]
fn who_asks_is_told_which_cost_models_linger() {
    let fixture = Fixture::new(&[("hostile", HOSTILE)], untried());
    manifest(&fixture, &hostile("config = { act = \"loop\", on = \"price\" }"));
    assert_eq!(faults(&fixture.host, 1), [FaultKind::Deadline]);
    assert!(!fixture.host.pin().prices_quickly());
    manifest(&fixture, &hostile(""));
    fixture
        .until("a quick answer", |host| faults(host, 1).is_empty() && host.pin().prices_quickly());
}

#[test]
fn after_five_faults_a_plugin_is_left_alone_for_a_while() {
    let fixture = Fixture::new(&[("hostile", HOSTILE)], untried());
    manifest(&fixture, &hostile("config = { act = \"trap\", on = \"price\" }"));
    let host = &fixture.host;
    assert_eq!(status(host, HOSTILE).breaker, BreakerState::Closed);
    let kinds = faults(host, 20);
    assert_eq!(kinds[..5], [FaultKind::Trap; 5]);
    assert_eq!(kinds[5..].iter().filter(|kind| **kind == FaultKind::Trap).count(), 0, "{kinds:?}");
    assert!(opened(host, HOSTILE));
    // It is one plugin: in its other roles it is not asked either, and a filter fails closed.
    let mut spans = vec![span(), span()];
    let enriched = host.pin().enrich(None, &Resource::default(), &mut spans);
    assert_eq!(enriched.iter().map(|f| f.kind).collect::<Vec<_>>(), [FaultKind::BreakerOpen]);
    assert_eq!(spans.len(), 2);
    let filtered = host.pin().filter("console", None, &Resource::default(), spans);
    assert_eq!((filtered.kept.len(), filtered.dropped), (0, 2));

    let figures = meter(host, "tollgate/hostile", Role::CostModel);
    assert_eq!((figures.calls, figures.items), (5, 5));
    assert_eq!(figures.faults, [(FaultKind::Trap, 5), (FaultKind::BreakerOpen, 15)]);
    assert_eq!(figures.latency.count, 5);
    assert_eq!((figures.instances, figures.in_flight), (0, 0), "a trap costs the instance");
    assert_eq!(figures.instances_started, 5);

    // Nothing but time mends it: one call is let through and fails, then it is open for longer.
    fixture.until("another try", |host| faults(host, 1) == [FaultKind::Trap]);
    assert!(opened(host, HOSTILE));
    // Another configuration is another plugin.
    manifest(&fixture, &hostile(""));
    assert_eq!(fixture.amount("m", 1, 1), BEHAVES);
    assert_eq!(status(host, HOSTILE).breaker, BreakerState::Closed);
    let figures = meter(host, "tollgate/hostile", Role::CostModel);
    assert_eq!((figures.calls, figures.instances, figures.in_flight), (7, 1, 0), "figures go on");
    assert!(figures.memory_bytes > 0);
}

#[test]
fn an_item_that_cannot_be_priced_opens_nothing_but_an_error_of_the_call_does() {
    let fixture = Fixture::new(&[("hostile", HOSTILE)], untried());
    manifest(&fixture, &hostile("config = { act = \"huge-failure\", n = 100, on = \"price\" }"));
    assert_eq!(faults(&fixture.host, 20), [FaultKind::Reported; 20]);
    assert_eq!(status(&fixture.host, HOSTILE).breaker, BreakerState::Closed);
    manifest(&fixture, &hostile("config = { act = \"error\", on = \"price\" }"));
    assert_eq!(faults(&fixture.host, 6)[4..], [FaultKind::Reported, FaultKind::BreakerOpen]);
}

#[test]
fn a_cost_model_that_fails_closed_keeps_requests_out() {
    let fixture = Fixture::new(&[("hostile", HOSTILE), ("cost_per_token", COST)], untried());
    let trap = "on-failure = \"closed\"\nmatch = { models = [\"gpt-*\"] }\nconfig = { act = \"trap\", on = \"price\" }";
    manifest(&fixture, &hostile(trap));
    let (theirs, other) = (usage("gpt-4o", 0, 0), usage("mistral-7b", 7, 3));
    let pinned = fixture.host.pin();
    for _ in 0..5 {
        assert_eq!(pinned.admits(None, &theirs), Ok(()));
        assert_eq!(pinned.price(None, &theirs).status(), "plugin_failed");
    }
    let refused = pinned.admits(None, &theirs).unwrap_err();
    assert_eq!(refused.fault.kind, FaultKind::BreakerOpen);
    assert!(refused.retry_after <= Duration::from_secs(1), "{refused:?}");
    // What it is not for goes on, and is priced by the other.
    assert_eq!(pinned.admits(None, &other), Ok(()));
    assert_eq!(amount(&pinned.price(None, &other)), BY_TABLE);
    // After the pause one is let in to try, and no second.
    fixture.until("one let in", |_| pinned.admits(None, &theirs).is_ok());
    assert!(pinned.admits(None, &theirs).is_err());
    assert_eq!(pinned.price(None, &theirs).reason(), Some("trap"));
    assert!(pinned.admits(None, &theirs).is_err());
    // One that fails open lets everybody in.
    manifest(&fixture, &hostile(&trap.replace("closed", "open")));
    let set = fixture.host.pin();
    assert_eq!(set.admits(None, &theirs), Ok(()));
    assert_eq!(set.price(None, &theirs).reason(), Some("breaker_open"), "it is the same plugin");
}

#[test]
fn spans_of_what_failed_leave_or_stay_as_the_operator_says() {
    let fixture = Fixture::new(&[("hostile", HOSTILE)], untried());
    let resource = Resource::default();
    // Role, policy, and whether the spans go on.
    let cases = [
        ("attribute-enricher", "", true),
        ("attribute-enricher", "on-failure = \"open\"\n", true),
        ("attribute-enricher", "on-failure = \"closed\"\n", false),
        ("export-filter", "", false),
        ("export-filter", "on-failure = \"closed\"\n", false),
        ("export-filter", "on-failure = \"open\"\n", true),
    ];
    for (role, policy, go_on) in cases {
        let shown = format!("{role} {policy}");
        manifest(
            &fixture,
            &hostile(&format!("roles = [\"{role}\"]\n{policy}config = {{ act = \"trap\" }}")),
        );
        let set = fixture.host.pin();
        let enriches = role == "attribute-enricher";
        let mut spans = vec![span(), span()];
        let failed = set.enrich(None, &resource, &mut spans);
        assert_eq!(failed.len(), usize::from(enriches), "{shown}");
        assert_eq!(
            spans,
            if go_on || !enriches { vec![span(), span()] } else { vec![] },
            "{shown}"
        );
        let filtered = set.filter("console", None, &resource, vec![span(), span()]);
        assert_eq!(filtered.faults.len(), usize::from(!enriches), "{shown}");
        let left = if go_on || enriches { 2 } else { 0 };
        assert_eq!((filtered.kept.len(), filtered.dropped), (left, 2 - left), "{shown}");
        // Its other roles rest.
        assert_eq!(set.price(None, &usage("m", 1, 1)).reason(), Some("no_cost_plugin"), "{shown}");
    }
}

#[test]
fn instances_are_shared_as_far_as_isolation_allows() {
    let fixture = Fixture::new(&[("hostile", HOSTILE)], untried());
    // Its cost is how often the instance was called.
    let fickle = "config = { act = \"fickle\" }\n";
    let calls = ["a", "b", "a", "a", "b", "c", "a"];
    let cases = [
        ("plugin", vec![1, 2, 3, 4, 5, 6, 7]),
        ("tenant", vec![1, 1, 2, 3, 2, 1, 4]),
        ("batch", vec![1; 7]),
    ];
    for (isolation, expected) in cases {
        manifest(&fixture, &hostile(&format!("isolation = \"{isolation}\"\n{fickle}")));
        let set = fixture.host.pin();
        let cost = |tenant| set.price(Some(tenant), &usage("m", 1, 1)).cost().unwrap().total;
        let seen: Vec<i128> = calls.map(|tenant| cost(tenant).pico).to_vec();
        assert_eq!(seen, expected, "{isolation}");
        assert_eq!(status(&fixture.host, HOSTILE).isolation.name(), isolation);
    }
    // No tenant is one of its own.
    manifest(&fixture, &hostile(&format!("isolation = \"tenant\"\n{fickle}")));
    let set = fixture.host.pin();
    let seen = [None, Some("a"), None, Some("")]
        .map(|tenant| amount(&set.price(tenant, &usage("m", 1, 1))));
    assert_eq!(seen.map(|a| a.ends_with('2')), [false, false, true, false]);
}

#[test]
fn as_many_tenants_as_there_may_be_keep_an_instance() {
    let limits = Limits { warm_tenants: 2, ..untried() };
    let fixture = Fixture::new(&[("hostile", HOSTILE)], limits);
    manifest(&fixture, &hostile("isolation = \"tenant\"\nconfig = { act = \"fickle\" }"));
    let set = fixture.host.pin();
    let cost = |tenant| set.price(Some(tenant), &usage("m", 1, 1)).cost().unwrap().total.pico;
    // `b` was not used for longest when `c` comes, and `a` when `b` comes back.
    let seen = ["a", "b", "a", "c", "c", "b", "a"].map(cost);
    assert_eq!(seen, [1, 1, 2, 1, 2, 1, 1]);
    let figures = meter(&fixture.host, "tollgate/hostile", Role::CostModel);
    assert_eq!((figures.instances, figures.instances_started), (2, 5));
}

#[test]
fn limits_of_one_plugin_are_its_own() {
    let fixture = Fixture::new(&[("hostile", HOSTILE), ("cost_per_token", COST)], untried());
    let reason = || fixture.host.pin().price(None, &usage("mistral-7b", 7, 3));
    let grow = "config = { act = \"memory-bomb\", on = \"price\" }\n[plugin.limits]\ncall-ms = 5000\nmemory-mib = ";
    manifest(&fixture, &hostile(&format!("{grow}4")));
    assert_eq!(reason().reason(), Some("memory"));
    // The other way round: one that needs more than usual.
    let leak = "config = { act = \"leak\", n = 100000000 }\n[plugin.limits]\ncall-ms = 5000\nmemory-mib = ";
    manifest(&fixture, &hostile(&format!("{leak}64")));
    assert_eq!(reason().reason(), Some("memory"));
    manifest(&fixture, &hostile(&format!("{leak}200")));
    assert_eq!(amount(&reason()), BEHAVES);
    let slow = "config = { act = \"slow\", n = 2000, on = \"price\" }\n[plugin.limits]\ncall-ms = ";
    manifest(&fixture, &hostile(&format!("{slow}1")));
    assert_eq!(reason().reason(), Some("deadline"));
    manifest(&fixture, &hostile(&format!("{slow}60000")));
    assert_eq!(amount(&reason()), BEHAVES);
    // A file that is too large for its own limit.
    fixture.place(
        "plugins.toml",
        format!("[[plugin]]\nfile = \"{COST}\"\nlimits = {{ component-mib = 1 }}\n").as_bytes(),
    );
    fixture.place(COST, &vec![0; (1 << 20) + 1]);
    fixture.until("too large", |host| {
        status(host, COST).error.is_some_and(|error| error.kind == "too_large")
    });
}

#[test]
fn a_shadow_prices_beside_and_never_instead() {
    let fixture = Fixture::new(&[("cost_per_token", COST)], Limits::default());
    fs::copy(built("cost_per_token"), fixture.folder.path().join("candidate.wasm")).unwrap();
    // The same plugin with other prices: two of a name are fine where one is in the shadow.
    manifest(
        &fixture,
        "[[plugin]]\nfile = \"candidate.wasm\"\norder = -9\nshadow = true\n\
         config = { default = { input = \"$1/M\", output = \"$2/M\" } }\n",
    );
    fixture.until("both", |host| host.pin().plugins().count() == 2);
    let (host, asked) = (&fixture.host, usage("mistral-7b", 7, 3));
    let set = host.pin();
    assert_eq!(amount(&set.price(Some("acme"), &asked)), BY_TABLE);
    let shadow = set.shadow(Some("acme"), &asked);
    assert_eq!(shadow.len(), 1);
    assert_eq!(
        (&*shadow[0].file, amount(&shadow[0].outcome).as_str()),
        ("candidate.wasm", "0.000013")
    );
    assert!(
        status(host, "candidate.wasm").shadow && status(host, "candidate.wasm").error.is_none()
    );
    let calls: BTreeMap<bool, u64> = host.meters().iter().map(|m| (m.shadow, m.calls)).collect();
    assert_eq!(calls, [(false, 1), (true, 1)].into(), "each has its own figures");
    // Without the one that bills nothing is billed.
    manifest(
        &fixture,
        "[[plugin]]\nfile = \"candidate.wasm\"\nshadow = true\n[[plugin]]\nfile = \"cost.wasm\"\nenabled = false\n",
    );
    let set = host.pin();
    assert_eq!(
        set.price(None, &asked),
        CostOutcome::Unpriced { reason: tollgate_domain::UnpricedReason::NoCostPlugin }
    );
    assert_eq!(set.shadow(None, &asked).len(), 1);
}

#[test]
fn a_shadow_that_also_edits_edits_nothing() {
    let fixture = Fixture::new(&[("hostile", HOSTILE)], untried());
    manifest(&fixture, &hostile("shadow = true\nconfig = { act = \"trap\" }"));
    let set = fixture.host.pin();
    let mut spans: Vec<Span> = vec![span()];
    assert_eq!(set.enrich(None, &Resource::default(), &mut spans), []);
    assert_eq!(set.filter("x", None, &Resource::default(), spans).kept.len(), 1);
    assert_eq!(status(&fixture.host, HOSTILE).roles, [Role::CostModel]);
}

#[test]
fn a_dry_run_counts_for_nothing() {
    let fixture = Fixture::new(&[("hostile", HOSTILE), ("enrich_labels", "e.wasm")], untried());
    manifest(&fixture, &hostile("config = { act = \"trap\", on = \"price\" }"));
    let host = &fixture.host;
    for _ in 0..9 {
        let outcome = host.try_price(HOSTILE, None, &usage("m", 1, 1)).unwrap();
        assert_eq!(outcome.reason(), Some("trap"));
    }
    assert_eq!(status(host, HOSTILE).breaker, BreakerState::Closed);
    let figures = meter(host, "tollgate/hostile", Role::CostModel);
    assert_eq!((figures.calls, figures.faults.len()), (0, 0));
    let kind = |name| host.try_price(name, None, &usage("m", 1, 1)).unwrap_err().kind();
    assert_eq!(kind("e.wasm"), "not_a_cost_model");
    assert_eq!(kind("nowhere.wasm"), "unknown_plugin");
    assert!(host.try_price("tollgate/hostile", None, &usage("m", 1, 1)).is_ok());
}

#[test]
fn a_bad_new_version_is_rolled_back_by_itself() {
    let fixture = Fixture::new(&[("cost_per_token", COST)], Limits::default());
    let host = &fixture.host;
    let good = status(host, COST).identity.unwrap();
    // Its trial is three calls, one for each of its roles, and every fourth call of an instance traps.
    let config = "config = { act = \"trap-at\", n = 4, on = \"price\" }\n";
    fixture.place("plugins.toml", format!("[[plugin]]\nfile = \"{COST}\"\n{config}").as_bytes());
    fixture.until("refused settings", |host| status(host, COST).error.is_some());
    fixture.place(COST, &fs::read(built("hostile")).unwrap());
    fixture.until("the new one", |host| host.pin().plugins().any(|p| p.name == "tollgate/hostile"));
    let bad = host.pin();
    fixture.until("the old one", |host| {
        let _ = bad.price(None, &usage("mistral-7b", 7, 3));
        host.pin().plugins().any(|plugin| *plugin == good)
    });
    assert_eq!(fixture.amount("mistral-7b", 7, 3), BY_TABLE);
    let now = status(host, COST);
    let held = now.held.unwrap();
    assert!(held.contains("breaker") && held.contains("trap"), "{held}");
    assert_eq!(now.error.unwrap().kind, "rejected");
    assert_eq!((now.identity.as_ref(), now.previous), (Some(&good), None));
    assert_ne!(now.digest_of_file.as_deref(), Some(good.digest.as_str()));
    // The same bytes again, a scan, a touched file: it stays away.
    fixture.place(COST, &fs::read(built("hostile")).unwrap());
    host.rescan().unwrap();
    assert_eq!(fixture.amount("mistral-7b", 7, 3), BY_TABLE);
    assert_eq!(status(host, COST).error.unwrap().kind, "rejected");
    // Other bytes are taken.
    fixture.place("plugins.toml", b"");
    let other = [fs::read(built("cost_per_token")).unwrap(), b"\0\x05\x04note".to_vec()].concat();
    fixture.place(COST, &other);
    fixture.until("other bytes", |host| {
        let now = status(host, COST);
        now.error.is_none()
            && now.held.is_none()
            && now.identity.is_some_and(|i| i.digest != good.digest)
    });
}

#[test]
fn the_operator_rolls_back_disables_and_enables() {
    let fixture = Fixture::new(&[("cost_per_token", COST)], Limits::default());
    let host = &fixture.host;
    assert_eq!(host.roll_back(COST).unwrap_err().kind(), "no_previous");
    assert_eq!(host.roll_back("nowhere.wasm").unwrap_err().kind(), "unknown_plugin");
    assert_eq!(host.disable("nowhere.wasm").unwrap_err().kind(), "unknown_plugin");
    assert_eq!(host.enable("../x.wasm").unwrap_err().kind(), "unknown_plugin");

    let first = status(host, COST).identity.unwrap();
    fixture.place(COST, &fs::read(built("hostile")).unwrap());
    host.rescan().unwrap();
    fixture.until("the new one", |_| fixture.amount("mistral-7b", 7, 3) == BEHAVES);
    assert_eq!(status(host, COST).previous.as_ref(), Some(&first));
    let pinned = host.pin();
    let now = host.roll_back(COST).unwrap();
    assert_eq!(
        (now.identity.as_ref(), now.roles.as_slice()),
        (Some(&first), &[Role::CostModel][..])
    );
    assert_eq!(fixture.amount("mistral-7b", 7, 3), BY_TABLE, "at once");
    assert_eq!(amount(&pinned.price(None, &usage("m", 1, 1))), BEHAVES, "what is pinned goes on");
    assert_eq!(host.roll_back(COST).unwrap_err().kind(), "no_previous");
    host.rescan().unwrap();
    assert_eq!(fixture.amount("mistral-7b", 7, 3), BY_TABLE);

    // Enabling allows what was rolled back from.
    host.enable(COST).unwrap();
    assert_eq!(fixture.amount("mistral-7b", 7, 3), BEHAVES);
    assert!(status(host, COST).error.is_none());

    host.disable(COST).unwrap();
    assert_eq!(host.pin().plugins().count(), 0);
    host.rescan().unwrap();
    let now = status(host, COST);
    assert!(now.identity.is_none() && !now.enabled && now.held.is_some(), "{now:?}");
    host.enable(COST).unwrap();
    assert_eq!(fixture.amount("mistral-7b", 7, 3), BEHAVES);
}

#[test]
fn a_pin_and_roles_that_are_not_there_are_refusals() {
    let fixture = Fixture::new(&[("cost_per_token", COST)], Limits::default());
    let host = &fixture.host;
    let digest = status(host, COST).identity.unwrap().digest;
    let wrong = "0".repeat(64);
    let cases = [
        (format!("sha256 = \"{wrong}\""), Some("pin")),
        (format!("sha256 = \"{}\"", digest.to_uppercase()), None),
        ("roles = [\"export-filter\"]".to_owned(), Some("roles")),
        ("roles = [\"cost-model\"]".to_owned(), None),
    ];
    for (more, kind) in cases {
        fixture
            .place("plugins.toml", format!("[[plugin]]\nfile = \"{COST}\"\n{more}\n").as_bytes());
        fixture.until(&more, |host| status(host, COST).error.map(|error| error.kind) == kind);
        assert_eq!(fixture.amount("mistral-7b", 7, 3), BY_TABLE, "the last good goes on: {more}");
    }
    // A pin forbids what it does not name, also to a rollback.
    let newer = fs::read(built("hostile")).unwrap();
    fixture.place("plugins.toml", b"");
    fixture.place(COST, &newer);
    fixture.until("the new one", |_| fixture.amount("mistral-7b", 7, 3) == BEHAVES);
    let digest = status(host, COST).identity.unwrap().digest;
    fixture.place(
        "plugins.toml",
        format!("[[plugin]]\nfile = \"{COST}\"\nsha256 = \"{digest}\"\n").as_bytes(),
    );
    host.rescan().unwrap();
    assert_eq!(host.roll_back(COST).unwrap_err().kind(), "previous_refused");
    assert_eq!(fixture.amount("mistral-7b", 7, 3), BEHAVES);
}
