//! What the engine makes of a processor: `cargo xtask bench engine [--model FILE.gguf|FOLDER]...`.
//!
//! Without a model, a random one of 124 million parameters in each of `--packings` (f32, q8_0, q4_k,
//! ...; separated by commas). Of each: tokens of a prompt read per second, tokens written per second
//! at 1, 4 and 16 sequences, and time to first token. `RAYON_NUM_THREADS` sets the threads.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a benchmark prints, and ends at the first fault"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tollgate_engine::{Engine, EngineOptions, Event, GenerateRequest, Generation, SamplingOptions};
use tollgate_model::fixture::{self, Shape, gguf};
use tollgate_model::{Model, ModelSource};

/// Tokens of the prompt that is read, and of the others.
const PROMPT: u32 = 512;
const SHORT_PROMPT: u32 = 32;

/// Tokens that each sequence writes.
const WRITTEN: u32 = 48;

const SEQUENCES: [usize; 3] = [1, 4, 16];

/// Times that each thing is measured; the best counts, since others use the machine too.
const TIMES: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| {
        let places = arguments.windows(2).filter(move |pair| pair[0] == name);
        places.map(|pair| pair[1].clone()).collect::<Vec<_>>()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    println!(
        "{:<24} {:>10} {:>12} {:>10} {:>10} {:>10} {:>12}",
        "model", "MiB", "prefill t/s", "1: t/s", "4: t/s", "16: t/s", "first ms"
    );
    let mut rows = Vec::new();
    let mut measure = |name: &str, source: &ModelSource| {
        rows.push(runtime.block_on(measure(name, Model::load(source).unwrap())));
    };
    for model in given("--model") {
        measure(&model, &model.parse().unwrap());
    }
    if given("--model").is_empty() {
        let packings = given("--packings").pop().unwrap_or_else(|| "f32,bf16,q8_0,q4_k".to_owned());
        for packing in packings.split(',') {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            measure(packing, &random(folder.path(), packing));
        }
    }
    println!("\n{{\"bench\":\"engine\",\"models\":[{}]}}", rows.join(","));
}

/// A random model, as a GGUF file.
fn random(folder: &Path, packing: &str) -> ModelSource {
    let config = serde_json::json!({ "vocab_size": 32_000, "hidden_size": 768,
        "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12 });
    let shape = Shape { context_length: 1024, kv_heads: 12, config, ..Shape::default() };
    fixture::write(folder, &shape).unwrap();
    let packing = gguf::packing(packing).unwrap_or_else(|| panic!("no packing `{packing}`"));
    gguf::pack(folder, packing, &[]).unwrap();
    ModelSource::Gguf(PathBuf::from(folder).join("model.gguf"))
}

async fn measure(name: &str, model: Model) -> String {
    let bytes = model.weight_bytes() >> 20;
    let options = EngineOptions { max_running: 16, ..EngineOptions::default() };
    let engine = Engine::start(model, options).unwrap();
    let mut prefill = f64::INFINITY;
    for time in 0..TIMES {
        let seen = watch(engine.submit(request(PROMPT, 1, time)).unwrap()).await;
        prefill = prefill.min((seen.prefilled - seen.started).as_secs_f64());
    }
    let prefill = f64::from(PROMPT) / prefill;
    let mut first = Duration::MAX;
    let mut written = SEQUENCES.map(|_| 0.0f64);
    for (sequences, written) in SEQUENCES.iter().zip(&mut written) {
        for time in 0..TIMES {
            let began = Instant::now();
            let all = (0..*sequences).map(|sequence| {
                let number = time * 100 + sequence + sequences * 1000;
                tokio::spawn(watch(engine.submit(request(SHORT_PROMPT, WRITTEN, number)).unwrap()))
            });
            let all: Vec<_> = all.collect();
            let (mut from, mut to) = (None::<Instant>, began);
            for one in all {
                let seen = one.await.unwrap();
                from = Some(from.map_or(seen.prefilled, |from| from.min(seen.prefilled)));
                to = to.max(seen.ended);
                if *sequences == 1 {
                    first = first.min(seen.prefilled - began);
                }
            }
            let tokens = *sequences as f64 * f64::from(WRITTEN - 1);
            *written = written.max(tokens / (to - from.unwrap()).as_secs_f64());
        }
    }
    let first = first.as_secs_f64() * 1000.0;
    let [one, four, sixteen] = written;
    println!(
        "{name:<24} {bytes:>10} {prefill:>12.0} {one:>10.1} {four:>10.1} {sixteen:>10.1} {first:>12.1}"
    );
    format!(
        r#"{{"model":{name:?},"weights_mib":{bytes},"prefill_tokens_per_s":{prefill:.1},"decode_tokens_per_s":{{"1":{one:.1},"4":{four:.1},"16":{sixteen:.1}}},"first_token_ms":{first:.1}}}"#
    )
}

/// When things happened.
struct Seen {
    started: Instant,
    prefilled: Instant,
    ended: Instant,
}

async fn watch(mut generation: Generation) -> Seen {
    let now = Instant::now();
    let mut seen = Seen { started: now, prefilled: now, ended: now };
    while let Some(event) = generation.next().await {
        match event {
            Event::Started { at } => seen.started = at,
            Event::Prefilled { at } => seen.prefilled = at,
            Event::Ended { at, .. } => seen.ended = at,
            Event::Text { .. } => {}
        }
    }
    seen
}

/// A prompt that begins unlike all others, so that nothing of it is found in the cache.
fn request(prompt: u32, max_tokens: u32, number: usize) -> GenerateRequest {
    let number = u32::try_from(number).unwrap();
    GenerateRequest {
        prompt_tokens: (0..prompt).map(|i| (i * 7 + number * 131 + i * number) % 200).collect(),
        max_tokens,
        sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
        ignore_eos: true,
        ..GenerateRequest::default()
    }
}
