//! The forward pass over a tiny random model: however a sequence is cut up, the logits are the
//! same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::DType;
use serde_json::json;
use tollgate_model::fixture::{self, Shape, device};
use tollgate_model::{
    ChatMessage, ErrorKind, Model, ModelError, ModelSource, Sampler, SamplingOptions,
};

fn tiny(shape: &Shape) -> Model {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), shape).unwrap();
    device::load(&ModelSource::Folder(folder.path().into())).unwrap()
}

fn shapes() -> Vec<Shape> {
    let base = Shape::default();
    let llama3 = json!({ "rope_scaling": { "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32 } });
    vec![
        base.clone(),
        Shape { kv_heads: 1, tied_embeddings: false, ..base.clone() },
        Shape { kv_heads: 4, dtype: DType::F16, shards: 3, ..base.clone() },
        Shape { dtype: DType::BF16, config: llama3, ..base.clone() },
        Shape {
            config: json!({ "architectures": ["MistralForCausalLM"], "sliding_window": 16 }),
            ..base.clone()
        },
        Shape { config: json!({ "head_dim": 16 }), ..base },
    ]
}

fn assert_close(left: &[f32], right: &[f32], stored: DType, what: &str) {
    assert_eq!(left.len(), right.len(), "{what}");
    let largest = left.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let most = device::rounding(stored).max(1e-4);
    assert!(largest < most, "{what}: logits differ by {largest}");
}

#[test]
fn prefill_at_once_in_chunks_and_token_by_token_agree() {
    let tokens: Vec<u32> = (0..100u32).map(|i| (i * 37 + 11) % 256).collect();
    for shape in shapes() {
        let model = tiny(&shape);
        let all = model.forward_all(&mut model.start_sequence().unwrap(), &tokens).unwrap();
        for chunk in [1, 7, 64, 99, 100] {
            let mut sequence = model.start_sequence().unwrap();
            let mut end = 0;
            for part in tokens.chunks(chunk) {
                let logits = model.forward(&mut sequence, part).unwrap();
                end += part.len();
                assert_eq!(sequence.len(), end);
                assert_close(
                    &logits,
                    &all[end - 1],
                    shape.dtype,
                    &format!("{shape:?} in chunks of {chunk}, at {end}"),
                );
            }
        }
    }
}

#[test]
fn a_sliding_window_forgets_and_attention_does_not_look_ahead() {
    let windowed = Shape {
        config: json!({ "sliding_window": 4, "num_hidden_layers": 1 }),
        ..Shape::default()
    };
    let model = tiny(&windowed);
    let last =
        |tokens: &[u32]| model.forward(&mut model.start_sequence().unwrap(), tokens).unwrap();
    assert_close(
        &last(&[1, 2, 3, 4, 5]),
        &last(&[9, 2, 3, 4, 5]),
        DType::F32,
        "token 0 is out of the window",
    );
    assert_ne!(last(&[1, 2, 3, 4, 5]), last(&[1, 9, 3, 4, 5]), "token 1 is in the window");
    let model = tiny(&Shape::default());
    let all =
        |tokens: &[u32]| model.forward_all(&mut model.start_sequence().unwrap(), tokens).unwrap();
    assert_close(
        &all(&[1, 2, 3])[1],
        &all(&[1, 2, 200])[1],
        DType::F32,
        "position 1 does not see position 2",
    );
}

#[test]
fn sequences_do_not_touch_each_other() {
    let model = tiny(&Shape::default());
    let (mut one, mut two) = (model.start_sequence().unwrap(), model.start_sequence().unwrap());
    model.forward(&mut one, &[1, 2, 3]).unwrap();
    model.forward(&mut two, &[200, 100]).unwrap();
    let expected = model.forward(&mut model.start_sequence().unwrap(), &[1, 2, 3, 4]).unwrap();
    assert_close(
        &model.forward(&mut one, &[4]).unwrap(),
        &expected,
        DType::F32,
        "after another sequence ran",
    );
}

#[test]
fn what_does_not_fit_is_an_error_and_the_sequence_lives_on() {
    let model = tiny(&Shape { context_length: 8, ..Shape::default() });
    let mut sequence = model.start_sequence().unwrap();
    model.forward(&mut sequence, &[1, 2, 3, 4, 5]).unwrap();
    let too_long = model.forward(&mut sequence, &[1, 2, 3, 4]).unwrap_err();
    assert!(
        matches!(too_long, ModelError::ContextExceeded { wanted: 9, context_length: 8 }),
        "{too_long}"
    );
    for bad in [&[][..], &[261], &[1, u32::MAX]] {
        let error = model.forward(&mut sequence, bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{bad:?}: {error}");
    }
    let logits = model.forward(&mut sequence, &[6, 7, 8]).unwrap();
    let expected =
        model.forward(&mut model.start_sequence().unwrap(), &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    assert_close(&logits, &expected, DType::F32, "after refused calls");
    assert_eq!(model.forward(&mut sequence, &[1]).unwrap_err().kind(), ErrorKind::Request);
}

#[test]
fn the_demo_model_answers_what_it_was_trained_on() {
    let model = device::load(&ModelSource::Demo).unwrap();
    let tokenizer = model.tokenizer();
    let ask = |prompt: &[u32]| {
        let mut sampler =
            Sampler::new(SamplingOptions { temperature: 0.0, ..SamplingOptions::default() });
        let mut sequence = model.start_sequence().unwrap();
        let mut logits = model.forward(&mut sequence, prompt).unwrap();
        let mut answer = Vec::new();
        loop {
            let token = sampler.sample(&mut logits).unwrap();
            if tokenizer.stop_tokens().contains(&token) {
                return tokenizer.decode(&answer).unwrap();
            }
            answer.push(token);
            assert!(answer.len() < 150, "the model does not come to an end");
            logits = model.forward(&mut sequence, &[token]).unwrap();
        }
    };
    let question = "Explain PagedAttention in two sentences.";
    let message = ChatMessage { role: "user".into(), content: question.into() };
    let chat = tokenizer.encode(&tokenizer.render_chat(&[message]).unwrap(), false).unwrap();
    for prompt in [chat, tokenizer.encode(question, true).unwrap()] {
        let answer = ask(&prompt);
        assert!(answer.contains("PagedAttention") && answer.trim().ends_with('.'), "{answer}");
    }
}
