//! Which spans are of one call, and how much is remembered of them.

use proptest::prelude::*;

use super::*;

const NOW: UnixNanos = UnixNanos(1);

fn at(span: u64) -> Id {
    Id { scope: Scope::SERVED, trace: TraceId(1), span: SpanId(span) }
}

fn known(span: u64, parent: u64, billed: bool) -> Known {
    let parent = (parent > 0).then_some(SpanId(parent));
    Known { billed, call: billed, ..Known::plain(at(span), parent) }
}

fn call(span: u64, parent: u64) -> Known {
    Known { call: true, ..known(span, parent, false) }
}

fn in_trace(trace: u128, known: Known) -> Known {
    Known { id: Id { trace: TraceId(trace), ..known.id }, ..known }
}

fn window() -> Window {
    Window::new(MOST)
}

/// What becomes of a call that arrives.
fn arrives(window: &mut Window, known: Known) -> Verdict {
    window.note(&known, NOW);
    let verdict = window.verdict(&known);
    match verdict {
        Verdict::Counted => window.counted(&known, NOW),
        Verdict::Choice => window.note(&Known { billed: true, prompt: None, ..known }, NOW),
        Verdict::New => window.note(&Known { billed: true, ..known }, NOW),
    }
    verdict
}

/// In whichever order a client's span (1), the one of its connection (2) and the server's (3)
/// arrive, the second of the calls is known to be counted.
#[test]
fn one_of_a_client_and_a_server_is_billed() {
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    for order in orders {
        let mut window = window();
        let mut billed = 0;
        for span in order {
            if span == 2 {
                window.note(&known(span, span - 1, false), NOW);
            } else if arrives(&mut window, call(span, span - 1)) == Verdict::New {
                billed += 1;
            }
        }
        // Until the span between them is known nothing says that they are of one call.
        let wanted = if order[2] == 2 { 2 } else { 1 };
        assert_eq!(billed, wanted, "{order:?}");
    }
}

#[test]
fn siblings_are_calls_of_their_own() {
    let mut window = window();
    assert_eq!(arrives(&mut window, call(2, 1)), Verdict::New);
    assert_eq!(arrives(&mut window, call(3, 1)), Verdict::New);
    assert_eq!(window.verdict(&call(1, 0)), Verdict::Counted, "their parent is not");
    assert_eq!(window.verdict(&in_trace(2, call(1, 0))), Verdict::New, "of another trace");
}

#[test]
fn an_answer_is_billed_once_if_it_has_a_real_id() {
    let (mut window, scopes) = (window(), Scopes::default());
    for (answer, wanted) in
        [("chatcmpl-0123456789abcdef", Verdict::Counted), ("chatcmpl-1", Verdict::New)]
    {
        let answer = scopes.answer(Naming::Answer, answer);
        let first = Known { answer, ..call(5, 0) };
        arrives(&mut window, first.clone());
        assert_eq!(window.verdict(&in_trace(9, Known { answer, ..call(9, 0) })), wanted);
        assert_ne!(window.verdict(&Known { parent: Some(SpanId(4)), ..first }), Verdict::Counted);
    }
}

/// Servers name requests as their clients do, and those may give several the same name.
#[test]
fn a_request_is_the_same_for_its_answer_and_its_choices_only() {
    let scopes = Scopes::default();
    let id = |naming| scopes.answer(naming, "chatcmpl-req-0123456789abcdef");
    let request = |trace, span, parent, prompt| {
        let answer = id(Naming::Request);
        in_trace(trace, Known { answer, prompt: Some(prompt), ..call(span, parent) })
    };
    let answer =
        |trace, span| in_trace(trace, Known { answer: id(Naming::Answer), ..call(span, 0) });
    let cases: [(&[Known], &[Verdict]); 6] = [
        // Two calls in two traces, which a mesh gave one name; their clients tell of the answers.
        (&[request(1, 21, 20, 10), request(2, 22, 20, 10)], &[Verdict::New, Verdict::New]),
        (&[request(1, 21, 20, 10), answer(3, 1)], &[Verdict::New, Verdict::Counted]),
        (
            &[answer(3, 1), request(1, 21, 20, 10), request(2, 22, 20, 10)],
            &[Verdict::New, Verdict::Counted, Verdict::New],
        ),
        // Choices of one request.
        (
            &[request(1, 11, 10, 10), request(1, 12, 10, 10), request(1, 13, 10, 10)],
            &[Verdict::New, Verdict::Choice, Verdict::Choice],
        ),
        (
            &[answer(3, 1), request(1, 11, 10, 10), request(1, 12, 10, 10)],
            &[Verdict::New, Verdict::Counted, Verdict::Counted],
        ),
        // Another prompt, and nobody's children.
        (
            &[
                request(1, 11, 10, 10),
                request(1, 12, 10, 9),
                request(4, 1, 0, 5),
                request(4, 2, 0, 5),
            ],
            &[Verdict::New; 4],
        ),
    ];
    for (number, (spans, wanted)) in cases.into_iter().enumerate() {
        let mut window = window();
        let found: Vec<_> = spans.iter().map(|known| arrives(&mut window, known.clone())).collect();
        assert_eq!(found, wanted, "case {number}");
    }
}

#[test]
fn what_a_sender_says_changes_nothing_for_another() {
    let (mut window, scopes) = (window(), Scopes::default());
    let of =
        |tenant, known: Known| Known { id: Id { scope: scopes.of(tenant), ..known.id }, ..known };
    let answer = scopes.answer(Naming::Answer, "chatcmpl-0123456789abcdef");
    let (ours, theirs) = (Some("acme"), Some("umbrella"));
    window.note(&of(theirs, known(1, 0, false)), NOW);
    arrives(&mut window, of(theirs, Known { answer, ..call(3, 2) }));
    assert_eq!(window.seen(of(ours, known(1, 0, false)).id), None);
    assert_eq!(window.seen(of(theirs, known(1, 0, false)).id), Some(Seen::Recorded));
    for wanted in [Verdict::New, Verdict::Counted] {
        let told = of(ours, Known { answer, ..call(2, 1) });
        assert_eq!(window.verdict(&told), wanted);
        // What was served here is known for all.
        window.note(&known(3, 2, true), NOW);
    }
    assert_eq!(window.seen(of(ours, known(3, 2, true)).id), Some(Seen::Recorded));
}

#[test]
fn who_pays_is_what_the_nearest_above_says() {
    let mut window = window();
    let payer = |tenant: Option<&str>, user: Option<&str>| Payer {
        tenant: tenant.map(str::to_owned),
        user: user.map(str::to_owned),
    };
    let far = payer(Some("far"), Some("user"));
    window.note(&Known { payer: far.kept(), ..call(1, 0) }, NOW);
    window.note(&Known { payer: payer(Some("near"), None).kept(), ..call(2, 1) }, NOW);
    window.note(&known(3, 2, false), NOW);
    window.note(&call(4, 3), NOW);
    assert_eq!(window.payer(at(4)), payer(Some("near"), Some("user")));
    assert_eq!(window.payer(at(2)), far);
    assert_eq!(window.payer(at(9)), Payer::default());
}

#[test]
fn loops_end() {
    let mut window = window();
    window.note(&known(1, 2, true), NOW);
    window.note(&known(2, 1, true), NOW);
    assert_eq!(window.verdict(&call(1, 2)), Verdict::Counted);
    assert!(window.depth(at(1)) <= FAR);
}

#[test]
fn a_flood_of_plain_spans_makes_no_call_forgotten() {
    let mut window = Window::new(Most { plain: 10, calls: 10 });
    arrives(&mut window, call(3, 2));
    window.note(&known(2, 1, false), NOW);
    for span in 100..200 {
        window.note(&known(span, 0, false), NOW);
    }
    assert_eq!(window.seen(at(3)), Some(Seen::Recorded));
    assert_eq!((window.seen(at(2)), window.seen(at(100))), (None, None));
    // Nor that one above it is counted, though the span between them is forgotten.
    assert_eq!(arrives(&mut window, call(1, 0)), Verdict::Counted);
    assert!(window.covers(UnixNanos(0)), "no call is forgotten");
    for span in 200..220 {
        window.note(&call(span, 0), UnixNanos(span));
    }
    assert_eq!(
        (window.seen(at(3)), window.seen(at(1)), window.seen(at(219))),
        (None, None, Some(Seen::Recorded))
    );
    assert!(!window.covers(UnixNanos(209)) && window.covers(UnixNanos(210)));
}

#[test]
fn what_is_pending_is_told_apart() {
    let mut window = window();
    window.note(&Known { pending: true, ..known(1, 0, false) }, NOW);
    assert_eq!(window.seen(at(1)), Some(Seen::Pending));
    window.note(&known(1, 0, false), NOW);
    assert_eq!(window.seen(at(1)), Some(Seen::Recorded));
}

proptest! {
    /// Whatever is noted, also in one trace that never ends and of parents that never come, no more is
    /// kept than may be.
    #[test]
    fn it_is_bounded(
        spans in prop::collection::vec((0..3_u128, 1..60_u64, 0..2000_u64, 0..4_u8, 0..2_u8), 0..600),
    ) {
        let (scopes, most) = (Scopes::default(), Most { plain: 16, calls: 8 });
        let mut window = Window::new(most);
        for (number, (trace, span, parent, kind, sender)) in spans.into_iter().enumerate() {
            let scope = scopes.of((sender > 0).then_some("acme"));
            let naming = if kind == 3 { Naming::Request } else { Naming::Answer };
            let known = Known {
                id: Id { scope, trace: TraceId(trace), span: SpanId(span) },
                parent: (parent > 0).then_some(SpanId(parent)),
                call: kind > 0,
                billed: kind > 1,
                answer: scopes.answer(naming, &format!("chatcmpl-0123456789-{}", number % 100)),
                prompt: Some(1),
                ..known(1, 0, false)
            };
            window.note(&known, NOW);
            let (spans, above) = (window.spans.0.len(), window.above_billed.len());
            prop_assert!(spans <= most.plain + most.calls, "{spans} spans");
            prop_assert!(above <= most.calls, "{above} unknown parents");
            prop_assert!(window.answers.len() <= most.calls);
            let queues = [window.plain.len(), window.calls.len(), window.unknown.len()];
            prop_assert!(queues.iter().all(|length| *length <= most.plain));
        }
    }
}
