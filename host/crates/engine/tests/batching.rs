//! Batches over a tiny random model: whoever shares a pass, a prefix or too little memory writes what
//! it would write alone, and the facts say what it met.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_engine::{
    End, Engine, EngineError, EngineOptions, Event, Facts, GenerateRequest, Generation,
    SamplingOptions,
};
use tollgate_model::fixture::{self, Shape};
use tollgate_model::{Model, ModelError, ModelSource};

fn tiny(context_length: usize) -> Model {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &Shape { context_length, ..Shape::default() }).unwrap();
    fixture::device::load(&ModelSource::Folder(folder.path().into())).unwrap()
}

/// An engine with so many blocks.
fn engine(blocks: usize, max_running: usize, max_step_tokens: usize) -> Engine {
    let model = tiny(4096);
    let kv_memory = Some(blocks * model.kv_block_bytes());
    let options = EngineOptions { max_running, max_queued: 256, kv_memory, max_step_tokens };
    Engine::start(model, options).unwrap()
}

/// A prompt that shares its beginning with others, and how much to write; odd ones are sampled.
fn request(number: u32, tenant: Option<&str>) -> GenerateRequest {
    let shared = (0..40).map(|i| i * 5 % 256);
    let own = (0..1 + number * 13 % 50).map(|i| (i * number + 7) % 256);
    GenerateRequest {
        prompt_tokens: shared.take((number as usize % 3) * 20).chain(own).collect(),
        max_tokens: 5 + number * 7 % 60,
        sampling: SamplingOptions {
            temperature: if number.is_multiple_of(2) { 0.0 } else { 1.0 },
            seed: u64::from(number),
            ..SamplingOptions::default()
        },
        tenant: tenant.map(Arc::from),
        ..GenerateRequest::default()
    }
}

#[derive(Debug)]
struct Answer {
    text: String,
    tokens: u32,
    end: End,
    device_time: Duration,
    facts: Facts,
}

async fn answer(mut generation: Generation) -> Answer {
    let mut text = String::new();
    loop {
        match generation.next().await.unwrap() {
            Event::Text { text: more, .. } => text.push_str(&more),
            Event::Ended { end, output_tokens: tokens, device_time, facts, .. } => {
                return Answer { text, tokens, end, device_time, facts };
            }
            Event::Started { .. } | Event::Prefilled { .. } => {}
        }
    }
}

/// What each request writes when it is alone.
async fn alone(numbers: std::ops::Range<u32>) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    for number in numbers {
        let engine = engine(256, 1, 1 << 20);
        let answer = answer(engine.submit(request(number, None)).unwrap()).await;
        let facts = answer.facts;
        assert_eq!(
            (facts.batch_max, facts.chunks, facts.preemptions, facts.cached_tokens),
            (1, 1, 0, 0)
        );
        assert_eq!((facts.device_share_ppm, facts.passes), (1_000_000, answer.tokens));
        all.push((answer.text, answer.tokens));
    }
    all
}

#[tokio::test]
async fn whatever_is_shared_the_text_is_the_same() {
    let expected = alone(0..12).await;
    // Enough memory; too little, so that some are preempted; and short pieces.
    for (blocks, max_running, max_step_tokens) in [(256, 12, 256), (12, 12, 64), (24, 6, 7)] {
        let engine = engine(blocks, max_running, max_step_tokens);
        let mut met = Facts::default();
        for _ in 0..2 {
            let all: Vec<_> =
                (0..12).map(|number| engine.submit(request(number, None)).unwrap()).collect();
            for (number, generation) in all.into_iter().enumerate() {
                let answer = answer(generation).await;
                assert!(matches!(answer.end, End::Finished(_)), "{answer:?}");
                assert_eq!((answer.text, answer.tokens), expected[number], "{number} of {blocks}");
                let facts = answer.facts;
                assert!(facts.kv_blocks_peak >= 1 && facts.kv_blocks_peak as usize <= blocks);
                assert!(
                    facts.batch_mean() >= 1.0 && facts.batch_mean() <= f64::from(facts.batch_max)
                );
                assert!(facts.passes + facts.cached_tokens >= answer.tokens);
                assert!(answer.device_time > Duration::ZERO && facts.device_share_ppm > 0);
                met.cached_tokens += facts.cached_tokens;
                met.preemptions += facts.preemptions;
                met.recomputed_tokens += facts.recomputed_tokens;
                met.chunks = met.chunks.max(facts.chunks);
                met.batch_max = met.batch_max.max(facts.batch_max);
            }
        }
        assert!(met.batch_max > 1 && met.cached_tokens > 0, "{met:?}");
        assert_eq!(met.preemptions > 0, blocks == 12, "{met:?}");
        assert_eq!(met.chunks > 5, max_step_tokens == 7, "{met:?}");
        let usage = engine.kv_use();
        assert_eq!((usage.total, usage.held), (blocks, 0));
    }
}

#[tokio::test]
async fn prefixes_are_shared_within_a_tenant_only() {
    let engine = engine(256, 4, 256);
    let ask = |tenant| {
        let request = GenerateRequest { prompt_tokens: vec![9; 100], ..request(1, tenant) };
        answer(engine.submit(request).unwrap())
    };
    let mut cached = Vec::new();
    for tenant in [Some("a"), Some("a"), Some("b"), None, None, Some("b")] {
        cached.push(ask(tenant).await.facts.cached_tokens);
    }
    assert_eq!(cached, [0, 96, 0, 0, 96, 96]);
}

#[tokio::test]
async fn device_time_is_shared_out_and_nothing_is_left_over() {
    let engine = engine(256, 4, 256);
    let began = Instant::now();
    let all: Vec<_> = (0..4).map(|_| engine.submit(request(4, None)).unwrap()).collect();
    let mut sum = Duration::ZERO;
    for generation in all {
        let answer = answer(generation).await;
        assert!(answer.facts.device_share_ppm < 1_000_000, "{answer:?}");
        sum += answer.device_time;
    }
    assert!(sum <= began.elapsed());
}

#[tokio::test]
async fn what_can_never_fit_into_memory_fails_and_what_fits_is_cut_off() {
    let engine = engine(4, 2, 64);
    assert_eq!(engine.info().context_length, 64);
    let long = GenerateRequest { prompt_tokens: vec![1; 65], max_tokens: 5, ..request(0, None) };
    let End::Failed(EngineError::Model(error)) = answer(engine.submit(long).unwrap()).await.end
    else {
        panic!("it fits")
    };
    assert!(matches!(error, ModelError::ContextExceeded { wanted: 65, context_length: 64 }));
    let fits = GenerateRequest { prompt_tokens: vec![1; 60], max_tokens: 900, ..request(0, None) };
    let answer = answer(engine.submit(fits).unwrap()).await;
    assert_eq!((answer.tokens, answer.facts.kv_blocks_peak), (5, 4));
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Many clients for a while: some leave, some read slowly, some never read; the rest get their text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_or_dawdle_change_nothing_for_others() {
    let expected = alone(0..12).await;
    for seed in 0..3 {
        let mut dice = Dice(seed);
        let engine = engine(16 + 8 * seed as usize, 5, 32);
        let mut clients = Vec::new();
        for _ in 0..60 {
            let number = dice.roll(12) as u32;
            let tenant = ["a", "b", "c"][dice.roll(3) as usize];
            let mut generation = engine.submit(request(number, Some(tenant))).unwrap();
            let (fate, when) = (dice.roll(4), dice.roll(10) as usize);
            let expected = expected[number as usize].clone();
            clients.push(tokio::spawn(async move {
                match fate {
                    // Leaves after some events.
                    0 => {
                        for _ in 0..when {
                            if generation.next().await.is_none() {
                                break;
                            }
                        }
                    }
                    // Gives up, and waits for the end.
                    1 => {
                        tokio::time::sleep(Duration::from_millis(when as u64)).await;
                        generation.cancel();
                        let answer = answer(generation).await;
                        assert!(expected.0.starts_with(&answer.text), "{answer:?}");
                    }
                    // Reads late.
                    2 => {
                        tokio::time::sleep(Duration::from_millis(10 * when as u64)).await;
                        let answer = answer(generation).await;
                        assert_eq!((answer.text, answer.tokens), expected);
                    }
                    _ => {
                        let answer = answer(generation).await;
                        assert_eq!((answer.text, answer.tokens), expected);
                    }
                }
            }));
        }
        for client in clients {
            client.await.unwrap();
        }
        let start = Instant::now();
        while engine.running() + engine.queued() + engine.kv_use().held > 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "somebody is left");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The texts of some choices, and their facts.
async fn choose(engine: &Engine, request: &GenerateRequest, seeds: &[u64]) -> Vec<(String, Facts)> {
    let mut choices = engine.submit_choices(request, seeds).unwrap();
    let mut told = vec![(String::new(), Facts::default()); choices.len()];
    while let Some((number, event)) = choices.next().await {
        match event.unwrap() {
            Event::Text { text, .. } => told.get_mut(number).unwrap().0.push_str(&text),
            Event::Ended { end, facts, .. } => {
                assert!(matches!(end, End::Finished(_)), "{end:?}");
                told.get_mut(number).unwrap().1 = facts;
            }
            Event::Started { .. } | Event::Prefilled { .. } => {}
        }
    }
    told
}

#[tokio::test]
async fn choices_share_the_prompt_and_write_what_each_would_alone() {
    let prompt: Vec<u32> = (0..100).map(|i| i * 7 % 256).collect();
    let request = GenerateRequest {
        prompt_tokens: prompt,
        max_tokens: 20,
        ignore_eos: true,
        ..GenerateRequest::default()
    };
    let seeds = [3, 4, 5, 6];
    let mut alone = Vec::new();
    for seed in seeds {
        let engine = engine(64, 1, 256);
        alone.extend(choose(&engine, &request, &[seed]).await);
    }
    // Together; one after another; with company, and too little memory for all.
    for (blocks, max_running, company) in [(64, 8, 0), (64, 1, 0), (24, 8, 4)] {
        let engine = engine(blocks, max_running, 64);
        let others: Vec<_> =
            (0..company).map(|number| engine.submit(company_of(number)).unwrap()).collect();
        let together = choose(&engine, &request, &seeds).await;
        for (place, ((text, facts), (expected, _))) in together.iter().zip(&alone).enumerate() {
            assert_eq!(text, expected, "choice {place} of {max_running}");
            // 6 whole blocks of 16 tokens are found; the rest is read by each.
            let found = if place == 0 { 0 } else { 96 };
            assert!(company > 0 || facts.cached_tokens == found, "choice {place}: {facts:?}");
        }
        assert_ne!(together[0].0, together[1].0, "each draws by its own seed");
        for other in others {
            answer(other).await;
        }
        assert_eq!((engine.queued(), engine.kv_use().held), (0, 0));
    }
}

/// Something else to do, of a tenant of its own.
fn company_of(number: u32) -> GenerateRequest {
    GenerateRequest { max_tokens: 60, ..request(number, Some("company")) }
}

#[tokio::test]
async fn choices_have_places_in_the_queue_and_end_together_when_they_are_given_up() {
    let engine = engine(64, 1, 256);
    let endless = GenerateRequest {
        prompt_tokens: vec![1, 2, 3],
        max_tokens: 900,
        ignore_eos: true,
        ..GenerateRequest::default()
    };
    let most = engine.max_queued();
    let all: Vec<u64> = (0..most as u64 + 1).collect();
    assert!(engine.submit_choices(&endless, &all).is_err(), "more than may wait");
    assert_eq!(engine.queued(), 0);
    let mut choices = engine.submit_choices(&endless, &all[..3]).unwrap();
    let (mut ended, mut cancelled) = (0, false);
    while let Some((_, event)) = choices.next().await {
        match event.unwrap() {
            Event::Text { .. } if !cancelled => {
                choices.cancel();
                cancelled = true;
            }
            Event::Ended { end, .. } => {
                assert!(matches!(end, End::Cancelled), "{end:?}");
                ended += 1;
            }
            _ => {}
        }
    }
    assert_eq!(ended, 3);
    drop(engine.submit_choices(&endless, &all[..3]).unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while engine.queued() + engine.running() > 0 {
        assert!(Instant::now() < deadline, "dropping gives all of them up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let nothing = GenerateRequest { prompt_tokens: Vec::new(), ..request(1, None) };
    let mut choices = engine.submit_choices(&nothing, &[1, 2]).unwrap();
    let mut failed = 0;
    while let Some((_, event)) = choices.next().await {
        if let Event::Ended { end, .. } = event.unwrap() {
            failed += usize::from(matches!(end, End::Failed(_)));
        }
    }
    assert_eq!((failed, engine.queued()), (2, 0), "no choice is left waiting for one that failed");
}
