//! The decoder for GPUs against the kernels of the CPU: the same files, the same rows, the same blocks.
//!
//! On the GPU of `TOLLGATE_TEST_DEVICE` if it says one; else its code is computed by the CPU.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use serde_json::json;
use tollgate_model::fixture::{self, Shape, device};
use tollgate_model::{
    BLOCK_TOKENS, ComputeDevice, Computed, KvStore, Model, ModelError, ModelSource, Row, Wanted,
};

/// How far off numbers may be, as a part of how large they are. These models with their large weights make
/// much of every rounding: on the CPU 15 bits of activations are told from 24 in the third digit.
const FULL: f32 = 2e-5;
const F16: f32 = 2e-2;
const BF16: f32 = 0.15;
/// Activations of eight bits.
const PACKED: f32 = 0.3;

fn other() -> ComputeDevice {
    match device::device().unwrap() {
        ComputeDevice::Cpu => ComputeDevice::CpuTensors,
        given => given,
    }
}

/// The same model by the CPU's kernels and on the other device.
fn both(source: &ModelSource) -> [Model; 2] {
    [ComputeDevice::Cpu, other()].map(|device| Model::load_on(source, device).unwrap())
}

fn written(folder: &Path, shape: &Shape) -> ModelSource {
    fixture::write(folder, shape).unwrap();
    ModelSource::Folder(folder.into())
}

fn tokens(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * i * 7 + i * (seed + 3) + seed) % 256).collect()
}

/// The length of the difference as a part of the length of what is expected; no number if one is none.
fn apart(expected: &[f32], found: &[f32]) -> f32 {
    assert_eq!(expected.len(), found.len());
    let length = |numbers: &mut dyn Iterator<Item = f32>| {
        numbers.map(|number| f64::from(number) * f64::from(number)).sum::<f64>().sqrt()
    };
    let off = length(&mut expected.iter().zip(found).map(|(expected, found)| expected - found));
    if expected.is_empty() { 0.0 } else { (off / length(&mut expected.iter().copied())) as f32 }
}

fn shapes() -> Vec<(&'static str, Shape, f32)> {
    let base = Shape { context_length: 512, ..Shape::default() };
    let with = |config: serde_json::Value| Shape { config, ..base.clone() };
    let llama3 = json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32 } });
    let yarn = json!({ "rope_scaling": { "rope_type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 64 } });
    vec![
        ("llama", base.clone(), FULL),
        (
            "one key head, a head of its own",
            Shape { kv_heads: 1, tied_embeddings: false, ..base.clone() },
            FULL,
        ),
        ("as many key heads", Shape { kv_heads: 4, ..base.clone() }, FULL),
        ("f16", Shape { dtype: DType::F16, ..base.clone() }, F16),
        ("bf16", Shape { dtype: DType::BF16, ..base.clone() }, BF16),
        ("llama 3's frequencies", with(llama3), FULL),
        ("yarn", with(yarn), FULL),
        (
            "a window",
            with(json!({ "architectures": ["MistralForCausalLM"], "sliding_window": 21 })),
            FULL,
        ),
        ("biases", with(json!({ "architectures": ["Qwen2ForCausalLM"] })), FULL),
        (
            "norms of heads",
            with(json!({ "architectures": ["Qwen3ForCausalLM"], "head_dim": 16 })),
            FULL,
        ),
        ("odd widths", with(json!({ "head_dim": 22, "hidden_size": 31 })), FULL),
    ]
}

#[test]
fn logits_are_those_of_the_kernels() {
    for (name, shape, bound) in shapes() {
        let folder = tempfile::tempdir().unwrap();
        let [cpu, device] = both(&written(folder.path(), &shape));
        assert_ne!(cpu.info().device, device.info().device);
        assert_eq!(cpu.info().parameters, device.info().parameters);
        let tokens = tokens(5, 300);
        let [expected, found] = [&cpu, &device]
            .map(|model| model.forward_all(&mut model.start_sequence().unwrap(), &tokens).unwrap());
        let off = apart(&expected.concat(), &found.concat());
        println!("{name}: {off}");
        assert!(off < bound, "{name}: {off}");
    }
}

/// Sequences of every length, some reading a prompt in pieces while others write, in blocks that are
/// nobody's neighbours; what the first two read they share.
#[test]
fn batches_pieces_and_shared_prefixes_are_those_of_the_kernels() {
    for (name, shape, bound) in shapes() {
        let folder = tempfile::tempdir().unwrap();
        let models = both(&written(folder.path(), &shape));
        let [expected, found] = models.each_ref().map(run);
        for (step, (expected, found)) in expected.iter().zip(&found).enumerate() {
            for (row, (expected, found)) in expected.iter().zip(found).enumerate() {
                assert_eq!(expected.logits.is_some(), found.logits.is_some());
                let logits = apart(
                    expected.logits.as_deref().unwrap_or_default(),
                    found.logits.as_deref().unwrap_or_default(),
                );
                let states = apart(&expected.states, &found.states);
                let off = logits.max(states);
                // One row has fewer numbers than the whole, and is farther off at times.
                assert!(off < 3.0 * bound, "{name}, pass {step}, row {row}: {off}");
                assert_eq!(expected.following.len(), found.following.len());
                for (expected, found) in expected.following.iter().zip(&found.following) {
                    assert_eq!(expected.token, found.token);
                    assert!((expected.logprob - found.logprob).abs() < 20.0 * bound);
                }
            }
        }
    }
}

/// What comes of passes in which sequences are at very different places.
fn run(model: &Model) -> Vec<Vec<Computed>> {
    let mut store = model.kv_store(128 * model.kv_block_bytes()).unwrap();
    let texts: Vec<Vec<u32>> = [300, 260, 40, 17, 3, 200].map(|count| tokens(5, count)).into();
    // The second reads on after the first's beginning, from the blocks of that.
    let own = |sequence: usize| (0..20).map(move |i| ((i * 6 + sequence) % 128) as u32);
    let mut blocks: Vec<Vec<u32>> = (0..6).map(|sequence| own(sequence).collect()).collect();
    let shared = 96 / BLOCK_TOKENS;
    let first: Vec<u32> = blocks[0][..shared].to_vec();
    blocks[1].splice(..shared, first);
    let mut done = [0, 96, 0, 0, 0, 0];
    let pieces: [[usize; 6]; 6] = [
        [120, 0, 0, 0, 0, 0],
        [90, 100, 30, 1, 1, 64],
        [1, 1, 1, 16, 1, 64],
        [1, 1, 1, 0, 1, 72],
        [40, 62, 8, 0, 0, 0],
        [48, 0, 0, 0, 0, 0],
    ];
    pieces.iter().map(|takes| pass(model, &mut store, &texts, &blocks, &mut done, takes)).collect()
}

fn pass(
    model: &Model,
    store: &mut KvStore,
    texts: &[Vec<u32>],
    blocks: &[Vec<u32>],
    done: &mut [usize],
    takes: &[usize],
) -> Vec<Computed> {
    let rows: Vec<Row<'_>> = (0..texts.len())
        .filter(|sequence| takes[*sequence] > 0)
        .map(|sequence| {
            let (start, end) = (done[sequence], done[sequence] + takes[sequence]);
            let following = &texts[sequence][start + 1..(end + 1).min(texts[sequence].len())];
            let wanted = Wanted {
                logits: sequence != 2,
                states: sequence == 2,
                following: (sequence == 5).then_some((following, 2)),
            };
            let tokens = &texts[sequence][start..end];
            Row { blocks: &blocks[sequence], start, tokens, wanted }
        })
        .collect();
    let computed = model.forward_batch(store, &rows).unwrap();
    drop(rows);
    done.iter_mut().zip(takes).for_each(|(done, take)| *done += take);
    computed
}

#[test]
fn packed_weights_are_multiplied_as_they_are() {
    let packings = [
        (GgmlDType::F32, 10.0 * FULL),
        (GgmlDType::F16, 2.0 * F16),
        (GgmlDType::BF16, 2.0 * BF16),
        (GgmlDType::Q8_0, PACKED),
        (GgmlDType::Q6K, PACKED),
        (GgmlDType::Q5K, PACKED),
        (GgmlDType::Q4K, PACKED),
        (GgmlDType::Q4_0, PACKED),
        (GgmlDType::Q5_1, PACKED),
    ];
    for architecture in ["LlamaForCausalLM", "Qwen3ForCausalLM"] {
        for (packing, bound) in packings {
            let folder = tempfile::tempdir().unwrap();
            let config = json!({ "architectures": [architecture], "hidden_size": 256,
                "head_dim": 64, "intermediate_size": 512 });
            fixture::write(folder.path(), &Shape { config, ..Shape::default() }).unwrap();
            fixture::gguf::pack(folder.path(), packing, &[]).unwrap();
            let [cpu, device] = both(&ModelSource::Gguf(folder.path().join("model.gguf")));
            let text = tokens(2, 60);
            // As a prompt and as tokens one by one, which have kernels of their own.
            let [expected, found] = [&cpu, &device].map(|model| {
                let mut sequence = model.start_sequence().unwrap();
                let mut all = vec![model.forward(&mut sequence, &text[..50]).unwrap()];
                all.extend(text[50..].iter().map(|t| model.forward(&mut sequence, &[*t]).unwrap()));
                all
            });
            let off = apart(&expected.concat(), &found.concat());
            println!("{architecture} {packing:?}: {off}");
            assert!(off < bound, "{architecture} {packing:?}: {off}");
        }
    }
}

#[test]
fn keys_and_values_have_the_type_of_the_weights_and_no_more_memory_than_they_may() {
    let folder = tempfile::tempdir().unwrap();
    for (dtype, bytes) in [(DType::F32, 4), (DType::F16, 2), (DType::BF16, 2)] {
        let source = written(folder.path(), &Shape { dtype, ..Shape::default() });
        let [cpu, device] = both(&source);
        let block = device.kv_block_bytes();
        // Two layers, two heads of 8 keys and of 8 values.
        assert_eq!(block, 2 * 2 * (8 + 8) * BLOCK_TOKENS * bytes);
        let mut store = device.kv_store(7 * block + 5).unwrap();
        assert_eq!((store.blocks(), store.bytes()), (7, 7 * block));
        for bytes in [0, block - 1, usize::MAX, 1 << 45] {
            let error = device.kv_store(bytes).unwrap_err();
            assert!(matches!(error, ModelError::KvMemory { .. }), "{error}");
        }
        if other() != ComputeDevice::CpuTensors {
            // As many blocks as can be counted, but no GPU has the memory.
            let error = device.kv_store(1 << 42).unwrap_err();
            assert!(matches!(error, ModelError::KvMemory { .. }), "{error}");
        }
        // A store of one is no store of the other.
        let row = Row { blocks: &[0], start: 0, tokens: &[1], wanted: Wanted::LOGITS };
        assert!(cpu.forward_batch(&mut store, &[row]).is_err());
        assert!(device.forward_batch(&mut store, &[row]).is_ok());
    }
}
