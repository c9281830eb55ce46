//! The engine over a tiny random model: what a request sees, and what it cannot do to others.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use tollgate_domain::record::FinishReason;
use tollgate_engine::{
    End, Engine, EngineError, EngineOptions, Event, Facts, GenerateRequest, Generation,
    SamplingOptions, SubmitError,
};
use tollgate_model::fixture::{self, Shape};
use tollgate_model::{ChatMessage, Model, ModelSource, Sampler};

fn greedy() -> SamplingOptions {
    SamplingOptions { temperature: 0.0, ..SamplingOptions::default() }
}

fn tiny(context_length: usize) -> Model {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &Shape { context_length, ..Shape::default() }).unwrap();
    fixture::device::load(&ModelSource::Folder(folder.path().into())).unwrap()
}

fn engine(max_running: usize, max_queued: usize) -> Engine {
    let options = EngineOptions { max_running, max_queued, ..EngineOptions::default() };
    Engine::start(tiny(1 << 20), options).unwrap()
}

fn request(prompt: &[u32], max_tokens: u32, sampling: SamplingOptions) -> GenerateRequest {
    let prompt_tokens = prompt.to_vec();
    GenerateRequest { prompt_tokens, max_tokens, sampling, ..GenerateRequest::default() }
}

/// One that keeps the engine busy until it is cancelled.
fn endless() -> GenerateRequest {
    GenerateRequest { ignore_eos: true, ..request(&[1, 2, 3], 1 << 20, greedy()) }
}

#[derive(Debug)]
struct Answer {
    text: String,
    end: End,
    output_tokens: u32,
    kinds: String,
    facts: Facts,
}

/// Reads to the end and checks what holds for every generation.
async fn answer(mut generation: Generation) -> Answer {
    let mut answer = Answer {
        text: String::new(),
        end: End::Cancelled,
        output_tokens: 0,
        kinds: String::new(),
        facts: Facts::default(),
    };
    let mut last = None;
    while let Some(event) = generation.next().await {
        let (kind, when) = match event {
            Event::Started { at } => ('s', at),
            Event::Prefilled { at, .. } => ('p', at),
            Event::Text { text, at, .. } => {
                assert!(!text.is_empty());
                answer.text.push_str(&text);
                ('t', at)
            }
            Event::Ended { end, output_tokens, device_time, facts, at, .. } => {
                assert!(output_tokens == 0 || device_time > Duration::ZERO);
                (answer.end, answer.output_tokens, answer.facts) = (end, output_tokens, facts);
                ('e', at)
            }
        };
        assert!(last.is_none_or(|last| last <= when), "time went backwards");
        last = Some(when);
        if kind != 't' || !answer.kinds.ends_with('t') {
            answer.kinds.push(kind);
        }
    }
    answer
}

async fn ask(engine: &Engine, request: GenerateRequest) -> Answer {
    answer(engine.submit(request).unwrap()).await
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "still not: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn finished(answer: &Answer) -> FinishReason {
    match &answer.end {
        End::Finished(reason) => *reason,
        other => panic!("not finished: {other:?}"),
    }
}

#[tokio::test]
async fn events_come_in_order_and_the_text_is_the_models() {
    let model = tiny(4096);
    // Longer than the chunk in which prompts are read.
    let prompt: Vec<u32> = (0..600u32).map(|i| i * 31 % 256).collect();
    let (mut sequence, mut sampler) = (model.start_sequence().unwrap(), Sampler::new(greedy()));
    let mut logits = model.forward(&mut sequence, &prompt).unwrap();
    let mut tokens = Vec::new();
    while tokens.len() < 40 {
        tokens.push(sampler.sample(&mut logits).unwrap());
        logits = model.forward(&mut sequence, &tokens[tokens.len() - 1..]).unwrap();
    }
    let expected = model.tokenizer().decode(&tokens).unwrap();

    let answer = ask(&engine(2, 4), request(&prompt, 40, greedy())).await;
    assert_eq!(answer.kinds, "spte");
    assert_eq!((finished(&answer), answer.output_tokens), (FinishReason::Length, 40));
    assert_eq!(answer.text, expected);
}

#[tokio::test]
async fn the_token_that_ends_the_text_counts() {
    let model = fixture::device::load(&ModelSource::Demo).unwrap();
    let tokenizer = model.tokenizer();
    let engine = Engine::start(
        model,
        EngineOptions { max_running: 1, max_queued: 1, ..EngineOptions::default() },
    )
    .unwrap();
    let message = ChatMessage { role: "user".into(), content: "What is Tollgate?".into() };
    let prompt = tokenizer.render_chat(&[message]).unwrap();
    let prompt = tokenizer.encode(&prompt, false).unwrap();
    let answer = ask(&engine, request(&prompt, 200, greedy())).await;
    assert_eq!(finished(&answer), FinishReason::Stop);
    assert_eq!(answer.output_tokens as usize, tokenizer.count(&answer.text).unwrap() + 1);
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_itself() {
    let engine = engine(2, 4);
    let sampling = SamplingOptions { seed: 11, ..SamplingOptions::default() };
    let whole = ask(&engine, request(&[1, 2], 60, sampling.clone())).await;
    let characters: Vec<char> = whole.text.chars().collect();
    for start in (4..characters.len().min(40) - 3).step_by(5) {
        let stop: String = characters[start..start + 3].iter().collect();
        let expected = &whole.text[..whole.text.find(&stop).unwrap()];
        let mut request = request(&[1, 2], 60, sampling.clone());
        request.stop = vec!["never in there".to_owned(), stop.clone()];
        let answer = ask(&engine, request).await;
        assert_eq!(finished(&answer), FinishReason::Stop, "{stop:?}");
        assert_eq!(answer.text, expected, "{stop:?}");
        assert!(answer.output_tokens <= whole.output_tokens);
    }
}

#[tokio::test]
async fn the_context_ends_a_text_and_a_prompt_that_does_not_fit_fails() {
    let options = EngineOptions { max_running: 2, max_queued: 8, ..EngineOptions::default() };
    let engine = Engine::start(tiny(32), options).unwrap();
    let answer = ask(&engine, request(&[1; 30], 100, greedy())).await;
    // Two positions are left to read tokens at; what is sampled after the last needs none.
    assert_eq!((finished(&answer), answer.output_tokens), (FinishReason::Length, 3));
    let answer = ask(&engine, request(&[1; 32], 100, greedy())).await;
    assert_eq!((finished(&answer), answer.output_tokens), (FinishReason::Length, 1));
    for prompt in [&[1; 33][..], &[], &[999_999]] {
        let answer = ask(&engine, request(prompt, 5, greedy())).await;
        let failed = matches!(answer.end, End::Failed(EngineError::Model(_)));
        assert!(failed && answer.kinds == "se" && answer.output_tokens == 0, "{answer:?}");
    }
    assert_eq!(finished(&ask(&engine, request(&[1], 5, greedy())).await), FinishReason::Length);
}

#[tokio::test]
async fn a_full_queue_refuses_and_whoever_gives_up_makes_room() {
    let engine = engine(1, 2);
    let mut running = engine.submit(endless()).unwrap();
    assert!(matches!(running.next().await, Some(Event::Started { .. })));
    let waiting = [engine.submit(endless()).unwrap(), engine.submit(endless()).unwrap()];
    assert_eq!(engine.submit(endless()).unwrap_err(), SubmitError::Busy);
    assert_eq!((engine.running(), engine.queued()), (1, 2));

    let [first, second] = waiting;
    drop(first);
    until("the one that gave up is gone", || engine.queued() == 1).await;
    let third = engine.submit(request(&[5], 3, greedy())).unwrap();
    drop(second);
    drop(running);
    let answer = answer(third).await;
    assert_eq!((answer.kinds.as_str(), answer.output_tokens), ("spte", 3));
    until("all are gone", || engine.running() == 0 && engine.queued() == 0).await;
}

#[tokio::test]
async fn cancelling_ends_with_what_was_used() {
    let engine = engine(1, 2);
    let mut generation = engine.submit(endless()).unwrap();
    while !matches!(generation.next().await, Some(Event::Text { .. })) {}
    let queued = engine.submit(endless()).unwrap();
    queued.cancel();
    let queued = answer(queued).await;
    assert!(matches!(queued.end, End::Cancelled) && queued.kinds == "e", "{queued:?}");
    generation.cancel();
    let answer = answer(generation).await;
    assert!(matches!(answer.end, End::Cancelled), "{answer:?}");
    assert!((1..1 << 20).contains(&answer.output_tokens), "{}", answer.output_tokens);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_text_whatever_else_runs() {
    let engine = engine(4, 8);
    let sampled = |seed| request(&[7, 8, 9], 50, SamplingOptions { seed, ..Default::default() });
    let alone = ask(&engine, sampled(5)).await;
    let others: Vec<_> = (0..3).map(|_| engine.submit(endless()).unwrap()).collect();
    let beside = ask(&engine, sampled(5)).await;
    assert_eq!((&alone.text, alone.output_tokens), (&beside.text, beside.output_tokens));
    assert_ne!(alone.text, ask(&engine, sampled(6)).await.text);
    drop(others);
}

#[tokio::test]
async fn a_short_answer_does_not_wait_for_a_long_one_nor_the_engine_for_a_reader() {
    let engine = engine(2, 2);
    let unread = engine.submit(endless()).unwrap();
    let short = ask(&engine, request(&[3], 4, greedy())).await;
    assert_eq!(short.output_tokens, 4);
    unread.cancel();
    let unread = answer(unread).await;
    assert!(matches!(unread.end, End::Cancelled), "the long one still ran: {unread:?}");
}

#[tokio::test]
async fn shutdown_cancels_what_runs_and_refuses_what_comes() {
    let engine = engine(1, 2);
    let mut running = engine.submit(endless()).unwrap();
    assert!(matches!(running.next().await, Some(Event::Started { .. })));
    let waiting = engine.submit(endless()).unwrap();
    engine.shutdown();
    for generation in [running, waiting] {
        assert!(matches!(answer(generation).await.end, End::Cancelled));
    }
    assert_eq!(engine.submit(endless()).unwrap_err(), SubmitError::Stopped);
}

#[tokio::test]
async fn what_ends_a_text_can_be_chosen() {
    let engine = engine(2, 4);
    let whole =
        ask(&engine, GenerateRequest { ignore_eos: true, ..request(&[1, 2], 60, greedy()) }).await;
    assert_eq!((finished(&whole), whole.output_tokens), (FinishReason::Length, 60));
    let asks = |changed: GenerateRequest| ask(&engine, changed);
    // Every token of the tiny model ends it: the first does, unless more are wanted.
    let all = || GenerateRequest {
        stop_token_ids: (0..257).chain(258..261).collect(),
        ..request(&[1, 2], 60, greedy())
    };
    let first = asks(all()).await;
    assert_eq!(
        (finished(&first), first.output_tokens, first.text.as_str()),
        (FinishReason::Stop, 1, "")
    );
    let later = asks(GenerateRequest { min_tokens: 7, ..all() }).await;
    assert_eq!(finished(&later), FinishReason::Stop);
    assert!(later.output_tokens >= 7, "{later:?}");
    // A stop string that is there from the start does not count before that either.
    let stop: String = whole.text.chars().take(1).collect();
    let stopped = asks(GenerateRequest {
        stop: vec![stop],
        min_tokens: 5,
        ignore_eos: true,
        ..request(&[1, 2], 60, greedy())
    });
    assert!((5..=60).contains(&stopped.await.output_tokens));
}

#[tokio::test]
async fn every_token_has_its_logprobs_once() {
    let engine = engine(2, 4);
    let sampling = SamplingOptions { logprobs: Some(2), seed: 4, ..SamplingOptions::default() };
    let mut generation = engine.submit(request(&[5, 6], 40, sampling.clone())).unwrap();
    let (mut tokens, mut count) = (Vec::new(), 0);
    while let Some(event) = generation.next().await {
        match event {
            Event::Text { logprobs, .. } => tokens.extend(logprobs),
            Event::Ended { logprobs, output_tokens, .. } => {
                tokens.extend(logprobs);
                count = output_tokens as usize;
            }
            Event::Started { .. } | Event::Prefilled { .. } => {}
        }
    }
    assert_eq!(tokens.len(), count);
    let model = tiny(4096);
    let mut sequence = model.start_sequence().unwrap();
    let mut logits = model.forward(&mut sequence, &[5, 6]).unwrap();
    for told in tokens {
        let total: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let expected = f64::from(logits[told.token as usize]) - total.ln();
        assert!((f64::from(told.logprob) - expected).abs() < 1e-4);
        assert!(told.top.len() == 2 && told.top[0].1 >= told.top[1].1);
        logits = model.forward(&mut sequence, &[told.token]).unwrap();
    }
}
