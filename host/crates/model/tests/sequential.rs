//! A model that runs one sequence at a time: what holds whatever family it is of.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::{Value, json};
use tollgate_model::fixture::{self, Shape};
use tollgate_model::{BLOCK_TOKENS, Model, ModelError, ModelSource, Passes, Row, Wanted};

/// Gemma has the tensors of a Llama without a head.
fn write(folder: &Path, config: &Value) {
    fixture::write(folder, &Shape::default()).unwrap();
    let file = folder.join("config.json");
    let mut all: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    std::fs::write(file, all.to_string()).unwrap();
}

fn load(folder: &Path) -> Result<Model, ModelError> {
    Model::load(&ModelSource::Folder(folder.into()))
}

fn model() -> Model {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &json!({"architectures": ["GemmaForCausalLM"], "head_dim": 8}));
    load(folder.path()).unwrap()
}

const BLOCKS: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

fn row<'a>(start: usize, tokens: &'a [u32], wanted: Wanted<'a>) -> Row<'a> {
    Row { blocks: &BLOCKS, start, tokens, wanted }
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}

#[test]
fn it_says_what_it_is() {
    let model = model();
    let info = model.info();
    assert_eq!((info.passes, info.generates, &info.embedding), (Passes::Alone, true, &None));
    assert_eq!((info.architecture.as_str(), info.context_length), ("GemmaForCausalLM", 128));
    assert_eq!(model.weight_bytes() as u64, info.parameters * 4);
}

#[test]
fn pieces_come_to_what_the_whole_comes_to_and_sequences_do_not_meet() {
    let model = model();
    let prompt: Vec<u32> = (0..60).map(|at| (at * 37 + 11) % 250).collect();
    let all = model.forward_all(&mut model.start_sequence().unwrap(), &prompt).unwrap();
    let whole = model.forward(&mut model.start_sequence().unwrap(), &prompt).unwrap();
    assert!(close(&whole, &all[59]));
    let (mut one, mut other) = (model.start_sequence().unwrap(), model.start_sequence().unwrap());
    for (at, piece) in prompt.chunks(7).enumerate() {
        let logits = model.forward(&mut one, piece).unwrap();
        assert!(close(&logits, &all[(at * 7 + 6).min(59)]), "piece {at}");
        model.forward(&mut other, &[at as u32, 3]).unwrap();
    }
    let first = model.forward(&mut model.start_sequence().unwrap(), &prompt).unwrap();
    assert_eq!(first, whole, "what is left of others would show");
}

#[test]
fn a_store_goes_on_with_its_sequence_or_begins_one() {
    let model = model();
    let mut store = model.kv_store(8 * model.kv_block_bytes()).unwrap();
    assert_eq!((store.blocks(), store.bytes()), (8, 8 * model.kv_block_bytes()));
    let mut pass = |row| model.forward_batch(&mut store, &[row]).map(|mut all| all.remove(0));
    let begun = pass(row(0, &[5, 6, 7], Wanted::LOGITS)).unwrap().logits.unwrap();
    let onward = pass(row(3, &[8], Wanted::LOGITS)).unwrap().logits.unwrap();
    assert!(!close(&begun, &onward));
    for start in [3, 5, 1] {
        let error = pass(row(start, &[9], Wanted::LOGITS)).unwrap_err().to_string();
        assert!(error.contains("goes on with the sequence"), "{error}");
    }
    assert_eq!(pass(row(0, &[5, 6, 7], Wanted::LOGITS)).unwrap().logits.unwrap(), begun);
    assert!(pass(row(3, &[8], Wanted { states: true, ..Wanted::NOTHING })).is_err());
    let two = [row(0, &[5], Wanted::LOGITS), row(0, &[6], Wanted::LOGITS)];
    let error = model.forward_batch(&mut store, &two).unwrap_err().to_string();
    assert!(error.contains("one sequence at a time"), "{error}");
    assert!(model.kv_store(model.kv_block_bytes() - 1).is_err());
    let too_long: Vec<u32> = vec![1; 8 * BLOCK_TOKENS + 1];
    assert!(model.forward_batch(&mut store, &[row(0, &too_long, Wanted::LOGITS)]).is_err());
}

#[test]
fn what_follows_is_told_of_each_token() {
    let model = model();
    let prompt = [9, 4, 200, 31];
    let all = model.forward_all(&mut model.start_sequence().unwrap(), &prompt).unwrap();
    let mut store = model.kv_store(8 * model.kv_block_bytes()).unwrap();
    let wanted = Wanted { following: Some((&prompt[1..], 2)), ..Wanted::LOGITS };
    let computed = model.forward_batch(&mut store, &[row(0, &prompt, wanted)]).unwrap().remove(0);
    assert!(close(&computed.logits.unwrap(), &all[3]));
    assert_eq!(computed.following.len(), 3);
    for ((told, logits), token) in computed.following.iter().zip(&all).zip(&prompt[1..]) {
        let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
        let expected = logits[*token as usize] - sum.ln();
        assert!((told.logprob - expected).abs() < 1e-3, "{} {expected}", told.logprob);
        assert_eq!((told.token, told.top.len()), (*token, 2));
    }
}

#[test]
fn weights_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (config, mention) in [
        (json!({"architectures": ["Gemma2ForCausalLM"], "head_dim": 8}), "feedforward_layernorm"),
        (json!({"architectures": ["GemmaForCausalLM"], "head_dim": 16}), "q_proj"),
    ] {
        write(folder.path(), &config);
        let message = load(folder.path()).unwrap_err().to_string();
        assert!(message.contains("weights") && message.contains(mention), "{message}");
    }
}
