//! Many sequences in one pass: each gets what it would get alone, to the last bit on the CPU and up to
//! rounding on a GPU.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use serde_json::json;
use tollgate_model::config::LlamaConfig;
use tollgate_model::fixture::{self, Shape, device};
use tollgate_model::llama::Llama;
use tollgate_model::{
    BLOCK_TOKENS, Computed, KvStore, Model, ModelError, ModelSource, Row, Sampler, SamplingOptions,
    Wanted,
};

fn tiny(folder: &Path, shape: &Shape) -> Model {
    fixture::write(folder, shape).unwrap();
    device::load(&ModelSource::Folder(folder.into())).unwrap()
}

fn shapes() -> Vec<Shape> {
    let base = Shape::default();
    let llama3 = json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32 } });
    vec![
        base.clone(),
        Shape { kv_heads: 1, tied_embeddings: false, ..base.clone() },
        Shape { kv_heads: 4, dtype: DType::F16, ..base.clone() },
        Shape { dtype: DType::BF16, config: llama3, ..base.clone() },
        Shape {
            config: json!({ "architectures": ["MistralForCausalLM"], "sliding_window": 21 }),
            ..base.clone()
        },
        Shape { config: json!({ "head_dim": 22, "hidden_size": 31 }), ..base },
    ]
}

fn tokens(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * i * 7 + i * (seed + 3) + seed) % 256).collect()
}

#[test]
fn logits_are_those_of_the_forward_pass_that_trains() {
    for shape in shapes() {
        let folder = tempfile::tempdir().unwrap();
        let model = tiny(folder.path(), &shape);
        let config = std::fs::read(folder.path().join("config.json")).unwrap();
        let weights = folder.path().join("model.safetensors");
        let mut weights: HashMap<String, Tensor> =
            candle_core::safetensors::load(weights, &Device::Cpu).unwrap();
        let reference = Llama::assemble(LlamaConfig::from_json(&config).unwrap(), |name, _| {
            weights.remove(name).unwrap().to_dtype(DType::F32)
        });
        let reference = reference.unwrap();
        let prompt = tokens(5, 70);
        let input = Tensor::new(prompt.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let hidden = reference.hidden_states(&input).unwrap();
        let expected: Vec<Vec<f32>> =
            reference.logits(&hidden).unwrap().squeeze(0).unwrap().to_vec2().unwrap();
        let ours = model.forward_all(&mut model.start_sequence().unwrap(), &prompt).unwrap();
        for (position, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
            let off = ours.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let most = device::rounding(shape.dtype).max(2e-4);
            assert!(off < most, "{shape:?} at {position}: {off}");
        }
    }
}

/// A sequence under way: its tokens, how far it is, and its blocks.
struct Way {
    tokens: Vec<u32>,
    done: usize,
    blocks: Vec<u32>,
    expected: Vec<Vec<f32>>,
}

/// Moves all that have something left by some tokens, and checks what comes out.
fn pass(
    model: &Model,
    store: &mut KvStore,
    ways: &mut [Way],
    rounding: f32,
    counts: &mut impl FnMut() -> usize,
) {
    let takes: Vec<usize> =
        ways.iter().map(|way| counts().min(way.tokens.len() - way.done)).collect();
    let moving = || ways.iter().zip(&takes).filter(|(_, take)| **take > 0);
    let rows: Vec<Row<'_>> = moving()
        .map(|(way, take)| Row {
            blocks: &way.blocks,
            start: way.done,
            tokens: &way.tokens[way.done..way.done + take],
            wanted: if way.done % 3 == 1 { Wanted::NOTHING } else { Wanted::LOGITS },
        })
        .collect();
    let logits = model.forward_batch(store, &rows).unwrap();
    assert_eq!(logits.len(), rows.len());
    for (((way, take), row), logits) in moving().zip(&rows).zip(logits) {
        let logits = logits.logits;
        assert_eq!(logits.is_some(), row.wanted.logits);
        if let Some(logits) = logits {
            let expected = &way.expected[way.done + take - 1];
            let off = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(logits == *expected || off < rounding, "not the same: {off} apart");
        }
    }
    drop(rows);
    ways.iter_mut().zip(takes).for_each(|(way, take)| way.done += take);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn nobody_notices_the_others(
        shape in 0..6usize,
        lengths in prop::collection::vec(1..90usize, 1..9),
        counts in prop::collection::vec(0..40usize, 64),
        shuffle in 0..64u32,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let shape = &shapes()[shape];
        let model = tiny(folder.path(), shape);
        let mut store = model.kv_store(64 * model.kv_block_bytes()).unwrap();
        // An odd factor visits all 64 blocks.
        let mut blocks = (0..64u32).map(|i| (i * (shuffle | 1) + shuffle) % 64);
        let mut ways: Vec<Way> = lengths.iter().enumerate().map(|(seed, length)| {
            let tokens = tokens(seed as u32, *length);
            let expected = model.forward_all(&mut model.start_sequence().unwrap(), &tokens).unwrap();
            let blocks = blocks.by_ref().take(length.div_ceil(BLOCK_TOKENS)).collect();
            Way { tokens, done: 0, blocks, expected }
        }).collect();
        prop_assume!(ways.iter().all(|way| way.blocks.len() == way.tokens.len().div_ceil(BLOCK_TOKENS)));
        let mut counts = counts.into_iter().cycle();
        for _ in 0..400 {
            pass(&model, &mut store, &mut ways, device::rounding(shape.dtype), &mut || counts.next().unwrap());
        }
    }
}

#[test]
fn a_sequence_that_fails_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &Shape::default()).unwrap();
    let path = folder.path().join("model.safetensors");
    let mut weights = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let table = weights.get_mut("model.embed_tokens.weight").unwrap();
    let nan = Tensor::full(f32::NAN, (1, 32), &Device::Cpu).unwrap();
    *table = table.slice_assign(&[200..201, 0..32], &nan).unwrap();
    // The head is the same table: token 200 has no logit for anybody.
    candle_core::safetensors::save(&weights, &path).unwrap();
    let model = device::load(&ModelSource::Folder(folder.path().into())).unwrap();
    let mut store = model.kv_store(8 * model.kv_block_bytes()).unwrap();
    let bad = Row { blocks: &[0], start: 0, tokens: &[1, 200, 3], wanted: Wanted::LOGITS };
    let good = Row { blocks: &[1], start: 0, tokens: &[1, 2, 3], wanted: Wanted::LOGITS };
    let numbers = |computed: &Computed| {
        computed.logits.iter().flatten().filter(|logit| logit.is_finite()).count()
    };
    let out = model.forward_batch(&mut store, &[bad, good, bad]).unwrap();
    assert_eq!(out.iter().map(numbers).collect::<Vec<_>>(), [0, 260, 0]);
    // What it left in its block does no harm to the next.
    let next = Row { blocks: &[0], start: 0, tokens: &[1, 2], wanted: Wanted::LOGITS };
    let out = model.forward_batch(&mut store, &[next]).unwrap();
    assert_eq!(numbers(&out[0]), 260);
}

#[test]
fn a_store_has_the_memory_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path(), &Shape::default());
    let block = model.kv_block_bytes();
    // Two layers, two heads of 8 keys and of 8 values, which take the room of 16 for the kernels.
    let values = if device::by_kernels() { 16 } else { 8 };
    assert_eq!(block, 2 * 2 * (8 + values) * BLOCK_TOKENS * 4);
    for (bytes, blocks) in [(block, 1), (2 * block - 1, 1), (100 * block + 5, 100)] {
        let store = model.kv_store(bytes).unwrap();
        assert_eq!((store.blocks(), store.bytes()), (blocks, blocks * block));
    }
    for bytes in [0, block - 1, usize::MAX] {
        let error = model.kv_store(bytes).unwrap_err();
        assert!(matches!(error, ModelError::KvMemory { .. }), "{error}");
    }
    let mut store = model.kv_store(4 * block).unwrap();
    for (blocks, start, tokens, mention) in [
        (&[0][..], 0, &[1; 17][..], "blocks"),
        (&[4], 0, &[1], "blocks"),
        (&[0, 1], 0, &[], "at least one"),
        (&[0], 0, &[261], "vocabulary"),
        (&[0], usize::MAX, &[1], "context"),
    ] {
        let row = Row { blocks, start, tokens, wanted: Wanted::LOGITS };
        let message = model.forward_batch(&mut store, &[row]).unwrap_err().to_string();
        assert!(message.contains(mention), "{message}");
    }
    assert_eq!(model.forward_batch(&mut store, &[]).unwrap(), Vec::<Computed>::new());
}

/// What is told of a prompt is what would be told of its tokens were they sampled, and its states are
/// those that its logits come from, whatever pieces it is read in.
#[test]
fn what_follows_and_states_are_those_of_the_logits() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny(folder.path(), &Shape::default());
    let tokens = tokens(5, 45);
    let all = model.forward_all(&mut model.start_sequence().unwrap(), &tokens).unwrap();
    let expected = |at: usize| {
        let bias = vec![(tokens[at + 1], 1e6)];
        let options = SamplingOptions {
            temperature: 0.0,
            logprobs: Some(3),
            logit_bias: bias,
            ..SamplingOptions::default()
        };
        Sampler::new(options).choose(&mut all[at].clone(), &[]).unwrap().1.unwrap()
    };
    let blocks = [0, 1, 2];
    let read = |pieces: &[usize]| {
        let mut store = model.kv_store(3 * model.kv_block_bytes()).unwrap();
        let (mut start, mut told, mut states) = (0, Vec::new(), Vec::new());
        for piece in pieces {
            let end = (start + piece).min(tokens.len());
            let following = &tokens[(start + 1).min(tokens.len())..(end + 1).min(tokens.len())];
            let wanted = Wanted { states: true, following: Some((following, 3)), logits: false };
            let row = Row { blocks: &blocks, start, tokens: &tokens[start..end], wanted };
            let computed = model.forward_batch(&mut store, &[row]).unwrap().remove(0);
            told.extend(computed.following);
            states.extend(computed.states);
            start = end;
        }
        (told, states)
    };
    let (told, states) = read(&[45]);
    assert_eq!(states.len(), 45 * 32);
    let (told_in_pieces, states_in_pieces) = read(&[7, 30, 8]);
    let expected: Vec<_> = (0..44).map(expected).collect();
    if device::by_kernels() {
        assert_eq!(told, expected);
        assert_eq!((told_in_pieces, states_in_pieces), (told, states));
    } else {
        assert_eq!((told.len(), states_in_pieces.len()), (expected.len(), states.len()));
        let told = told.iter().zip(&told_in_pieces).zip(&expected);
        let far = |a: f32, b: f32| (a - b).abs() > 1e-3;
        assert!(!told.into_iter().any(|((a, b), c)| {
            a.token != c.token || far(a.logprob, c.logprob) || far(b.logprob, c.logprob)
        }));
        assert!(!states.iter().zip(&states_in_pieces).any(|(a, b)| far(*a, *b)));
    }
}
