//! What is taken once stays so: beyond what is kept in memory, and whatever becomes of a commit.

use tollgate_domain::received::Group;
use tollgate_domain::span::SpanKind;
use tollgate_domain::time::Interval;
use tollgate_domain::{Span, SpanContext, SpanId, TraceId, UnixNanos};
use tollgate_ledger::LedgerSettings;
use tollgate_tenancy::Keys;

use super::window::Most;
use super::*;

const KEYS: &str = "acme:tg-acme-0123456789,umbrella:tg-umbrella-0123456789";

struct Bench {
    ledger: Ledger,
    ingest: Ingest,
    keys: Keys,
    runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// One whose senders show keys, if they must, and that remembers so much.
    fn new(keys: Option<&str>, most: Most) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = LedgerSettings::new(folder.path().to_owned());
        let ledger = Ledger::open(settings).unwrap().ledger;
        let ingest = Ingest::new(&ledger, keys.is_some(), None).unwrap();
        ingest.locked().window = Window::new(most);
        let keys = Keys::open(None, keys).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        Self { ledger, ingest, keys, runtime, _folder: folder }
    }

    fn caller(&self, tenant: &str) -> Caller {
        let secret = format!("tg-{tenant}-0123456789");
        Caller(self.keys.authenticate(Some(&secret), None, UnixNanos(1)).unwrap())
    }

    fn sort(&self, tenant: &str, span: &Span) -> (Result<Sorted<'_>, Refusal>, Outcomes) {
        let groups = vec![Group { origin: Arc::default(), spans: vec![span.clone()] }];
        let mut outcomes = Outcomes::new();
        let sorted = self.ingest.sort(&self.ledger, &self.caller(tenant), groups, &mut outcomes);
        (sorted, outcomes)
    }

    /// Takes a span; how many calls of it are billed.
    fn take(&self, tenant: &str, span: &Span) -> usize {
        let sorted = self.sort(tenant, span).0.unwrap();
        self.commit(tenant, sorted)
    }

    fn commit(&self, tenant: &str, sorted: Sorted<'_>) -> usize {
        let Sorted { calls, passed, taking } = sorted;
        let billed = calls.len();
        let caller = self.caller(tenant);
        let records = calls.into_iter().map(|call| record::of(call, &caller, UnixNanos(u64::MAX)));
        let mut payloads: Vec<_> =
            records.map(|record| Payload::Record(Arc::new(record))).collect();
        payloads.extend(passed.finish().map(|batch| Payload::Spans(Box::new(batch))));
        self.runtime.block_on(self.ledger.received(payloads)).unwrap();
        taking.committed();
        billed
    }
}

fn call(span: u64) -> Span {
    let context = SpanContext {
        trace_id: TraceId(7),
        span_id: SpanId(span),
        sampled: true,
        trace_state: None,
    };
    let ended = UnixNanos(1_700_000_000_000_000_000 + span);
    let mut made = Span::new(context, "chat", SpanKind::Client, Interval::new(UnixNanos(5), ended));
    made.attributes.set("gen_ai.operation.name", "chat");
    made.attributes.set("gen_ai.request.model", "m");
    made.attributes.set("gen_ai.usage.input_tokens", 7_i64);
    made.attributes.set("gen_ai.usage.output_tokens", 3_i64);
    made
}

fn plain(span: u64) -> Span {
    Span { attributes: Default::default(), ..call(span) }
}

#[test]
fn a_call_that_is_forgotten_is_found_in_the_ledger() {
    let few = Most { plain: 2, calls: 2 };
    for (keys, another) in [(Some(KEYS), 1), (None, 0)] {
        let bench = Bench::new(keys, few);
        assert_eq!(bench.take("acme", &call(1)), 1);
        for span in 2..9 {
            assert_eq!(
                (bench.take("acme", &call(span)), bench.take("acme", &plain(100 + span))),
                (1, 0)
            );
        }
        let id = window::Id::of(bench.ingest.scopes.of(keys.map(|_| "acme")), &call(1));
        assert_eq!(bench.ingest.locked().window.seen(id), None, "it is forgotten");
        let (sorted, outcomes) = bench.sort("acme", &call(1));
        assert_eq!((bench.commit("acme", sorted.unwrap()), outcomes["duplicate"]), (0, 1));
        // What somebody else has sent is no copy, if it is known who that is.
        assert_eq!(bench.take("umbrella", &call(3)), another);
    }
}

#[test]
fn a_restart_knows_what_was_taken() {
    let bench = Bench::new(Some(KEYS), window::MOST);
    assert_eq!((bench.take("acme", &call(1)), bench.take("acme", &plain(2))), (1, 0));
    let again = Ingest::new(&bench.ledger, true, None).unwrap();
    let bench = Bench { ingest: again, ..bench };
    for span in [call(1), plain(2)] {
        assert_eq!(bench.sort("acme", &span).1["duplicate"], 1);
        assert_eq!(bench.sort("umbrella", &span).1["duplicate"], 0);
    }
}

#[test]
fn what_others_have_under_way_outlives_a_commit_that_failed() {
    let bench = Bench::new(Some(KEYS), window::MOST);
    let under_way = bench.sort("acme", &call(1)).0.unwrap();
    // Another request does not get to the ledger: it failed, or whoever worked on it panicked.
    drop(bench.sort("acme", &call(2)).0.unwrap());
    assert!(bench.ingest.locked().stale);
    assert_eq!(bench.take("acme", &call(3)), 1, "which is forgotten, and the ledger asked");
    let (copy, _) = bench.sort("acme", &call(1));
    assert_eq!(copy.err().map(|refusal| refusal.kind), Some(ErrorKind::Overloaded));
    // That it is told to come again is no failure of anything.
    assert!(!bench.ingest.locked().stale);
    assert_eq!(bench.commit("acme", under_way), 1);
    assert_eq!(bench.sort("acme", &call(1)).1["duplicate"], 1);
    assert_eq!(bench.take("acme", &call(2)), 1, "what did not get there is new");
    assert!(bench.ingest.locked().pending.is_empty());
}

#[test]
fn a_commit_is_known_also_if_the_window_was_read_anew_meanwhile() {
    let bench = Bench::new(Some(KEYS), Most { plain: 1, calls: 1 });
    let under_way = bench.sort("acme", &call(1)).0.unwrap();
    bench.ingest.locked().window = Window::new(window::MOST);
    assert_eq!(bench.commit("acme", under_way), 1);
    assert_eq!(bench.sort("acme", &call(1)).1["duplicate"], 1);
}

#[test]
fn what_is_passed_on_is_of_whom_the_key_or_else_the_span_names() {
    let named = |span, key: &'static str, name| {
        let mut named = plain(span);
        named.attributes.set(key, name);
        named
    };
    // Of a call that is counted by the span below it.
    let mut client = call(6);
    client.attributes.set("user.id", "c");
    let spans = [
        plain(1),
        named(2, "tollgate.tenant", "a"),
        named(3, "llm.user", "b"),
        plain(4),
        named(5, "tenant.id", "a"),
        client,
        Span { parent: Some(SpanId(6)), ..call(7) },
    ];
    for (keys, wanted) in [
        (
            None,
            vec![
                (None, vec![1, 4]),
                (Some("a"), vec![2, 5]),
                (Some("b"), vec![3]),
                (Some("c"), vec![6]),
            ],
        ),
        (Some(KEYS), vec![(Some("acme"), vec![1, 2, 3, 4, 5, 6])]),
    ] {
        let bench = Bench::new(keys, window::MOST);
        let groups = vec![Group { origin: Arc::default(), spans: spans.to_vec() }];
        let caller = bench.caller("acme");
        let sorted = bench.ingest.sort(&bench.ledger, &caller, groups, &mut Outcomes::new());
        let batches: Vec<_> = sorted.unwrap().passed.finish().collect();
        let found = batches.iter().map(|batch| {
            let spans = batch.groups.iter().flat_map(|group| &group.spans);
            (batch.tenant.as_deref(), spans.map(|span| span.context.span_id.0).collect())
        });
        assert_eq!(found.collect::<Vec<_>>(), wanted);
    }
}
