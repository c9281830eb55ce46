//! Sequences that are read for what they are: texts to embed, and prompts whose tokens' likelihood is
//! asked.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use tollgate_engine::{
    Choices, EmbedRequest, End, Engine, EngineOptions, Event, Facts, GenerateRequest,
    SamplingOptions, SubmitError, TokenLogprobs,
};
use tollgate_model::fixture::{self, Shape, device};
use tollgate_model::{Embedder, Model, ModelSource, Row, Wanted};

const POOLING: &str = r#"{"pooling_mode_mean_tokens": true}"#;

fn tiny(mean: bool) -> Model {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &Shape { context_length: 512, ..Shape::default() }).unwrap();
    if mean {
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        std::fs::write(folder.path().join("1_Pooling/config.json"), POOLING).unwrap();
    }
    device::load(&ModelSource::Folder(folder.path().into())).unwrap()
}

fn engine(mean: bool, blocks: usize, options: EngineOptions) -> Engine {
    let model = tiny(mean);
    let kv_memory = Some(blocks * model.kv_block_bytes());
    Engine::start(model, EngineOptions { kv_memory, ..options }).unwrap()
}

fn text(number: usize) -> Vec<u32> {
    (0..5 + number * 17 % 90).map(|at| ((at * 7 + number * 31) % 256) as u32).collect()
}

/// What the model makes of a text in one pass.
fn alone(model: &Model, tokens: &[u32], dimensions: Option<usize>) -> Vec<f32> {
    let mut store = model.kv_store(40 * model.kv_block_bytes()).unwrap();
    let blocks: Vec<u32> = (0..40).collect();
    let wanted = Wanted { states: true, ..Wanted::NOTHING };
    let row = Row { blocks: &blocks, start: 0, tokens, wanted };
    let mut embedder = Embedder::new(model.info().embedding.as_ref().unwrap());
    embedder.push(0, &model.forward_batch(&mut store, &[row]).unwrap().remove(0).states);
    embedder.finish(dimensions).unwrap()
}

/// The vectors, and what each met.
async fn vectors(mut embeddings: Choices) -> Vec<(Vec<f32>, Facts)> {
    let mut all = vec![(Vec::new(), Facts::default()); embeddings.len()];
    while let Some((number, event)) = embeddings.next().await {
        match event.unwrap() {
            Event::Ended { end: End::Embedded(vector), facts, output_tokens: 0, .. } => {
                *all.get_mut(number).unwrap() = (vector, facts);
            }
            Event::Started { .. } | Event::Prefilled { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    all
}

#[tokio::test]
async fn vectors_are_those_of_each_text_alone_however_they_are_read() {
    for mean in [false, true] {
        let model = tiny(mean);
        let inputs: Vec<Vec<u32>> = (0..20).map(text).collect();
        for (blocks, max_running, max_step_tokens) in [(64, 8, 256), (8, 3, 7), (64, 1, 1 << 20)] {
            let options =
                EngineOptions { max_running, max_step_tokens, ..EngineOptions::default() };
            let engine = engine(mean, blocks, options);
            for dimensions in [None, Some(5)] {
                let request =
                    EmbedRequest { inputs: inputs.clone(), dimensions, ..EmbedRequest::default() };
                let told = vectors(engine.submit_embeddings(request).unwrap()).await;
                for (input, (vector, facts)) in inputs.iter().zip(told) {
                    let alone = alone(&model, input, dimensions);
                    assert!(vector == alone || (!device::by_kernels() && near(&vector, &alone)));
                    assert!(facts.passes > 0 && (!mean || facts.cached_tokens == 0));
                }
            }
            assert_eq!((engine.queued(), engine.running(), engine.kv_use().held), (0, 0, 0));
        }
    }
}

#[tokio::test]
async fn many_texts_need_no_more_places_than_may_run_and_one_does() {
    let options = EngineOptions { max_running: 4, max_queued: 4, ..EngineOptions::default() };
    let engine = engine(false, 64, options);
    let many = |count: usize| EmbedRequest {
        inputs: (0..count).map(text).collect(),
        ..EmbedRequest::default()
    };
    let first = engine.submit_embeddings(many(300)).unwrap();
    assert_eq!(vectors(first).await.len(), 300);
    // Given up in the middle: those that stand behind end too, and no text is embedded any more.
    let mut given_up = engine.submit_embeddings(many(300)).unwrap();
    while let Some((_, Some(event))) = given_up.next().await {
        if matches!(event, Event::Ended { end: End::Embedded(_), .. }) {
            given_up.cancel();
            break;
        }
    }
    let mut embedded = 0;
    while let Some((_, Some(event))) = given_up.next().await {
        embedded += usize::from(matches!(event, Event::Ended { end: End::Embedded(_), .. }));
    }
    assert!(embedded < 100, "{embedded}");
    assert_eq!((engine.queued(), engine.running()), (0, 0));
    engine.shutdown();
    assert_eq!(engine.submit_embeddings(many(1)).unwrap_err(), SubmitError::Stopped);
}

/// The same but for rounding, where passes do not have the same bits.
fn near(left: &[f32], right: &[f32]) -> bool {
    let far = |(left, right): (&f32, &f32)| (left - right).abs() > 1e-4;
    left.len() == right.len() && !left.iter().zip(right).any(far)
}

fn as_likely(left: &[TokenLogprobs], right: &[TokenLogprobs]) -> bool {
    let tokens = |all: &[TokenLogprobs]| all.iter().map(|told| told.token).collect::<Vec<_>>();
    let likely = |all: &[TokenLogprobs]| all.iter().map(|told| told.logprob).collect::<Vec<_>>();
    tokens(left) == tokens(right) && near(&likely(left), &likely(right))
}

async fn told(engine: &Engine, request: &GenerateRequest) -> (Vec<TokenLogprobs>, u32, End) {
    let mut generation = engine.submit(request.clone()).unwrap();
    let mut told = Vec::new();
    while let Some(event) = generation.next().await {
        match event {
            Event::Prefilled { prompt, .. } => told = prompt,
            Event::Ended { end, output_tokens, .. } => return (told, output_tokens, end),
            Event::Started { .. } | Event::Text { .. } => {}
        }
    }
    panic!("no end")
}

#[tokio::test]
async fn a_prompt_is_told_whole_whatever_is_in_memory_already() {
    let request = GenerateRequest {
        prompt_tokens: text(4),
        max_tokens: 3,
        ignore_eos: true,
        sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
        prompt_logprobs: Some(2),
        ..GenerateRequest::default()
    };
    let whole = engine(false, 64, EngineOptions::default());
    let (expected, tokens, _) = told(&whole, &request).await;
    let of: Vec<u32> = expected.iter().map(|told| told.token).collect();
    assert_eq!((of.as_slice(), tokens), (&request.prompt_tokens[1..], 3));
    assert!(expected.iter().all(|told| told.top.len() == 2 && told.logprob <= told.top[0].1));
    let plain = GenerateRequest { prompt_logprobs: None, ..request.clone() };
    let options = EngineOptions { max_running: 1, max_step_tokens: 7, ..EngineOptions::default() };
    let pieces = engine(false, 64, options);
    assert!(told(&pieces, &plain).await.0.is_empty());
    let only_read = GenerateRequest { max_tokens: 0, ..request.clone() };
    for (request, written) in [(&request, 3), (&only_read, 0)] {
        let (told, tokens, end) = told(&pieces, request).await;
        let same = told == expected || (!device::by_kernels() && as_likely(&told, &expected));
        assert!(same && tokens == written, "{tokens}");
        assert!(matches!(end, End::Finished(_)), "{end:?}");
    }
}
