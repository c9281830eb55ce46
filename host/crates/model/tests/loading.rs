//! Folders that are not what they should be: refused with a message that says which file and what
//! about it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use candle_core::DType;
use candle_core::quantized::gguf_file::{self, Value};
use tollgate_model::fixture::{self, Shape};
use tollgate_model::{ChatMessage, Model, ModelError, ModelSource};

fn load(folder: &Path) -> Result<Model, ModelError> {
    Model::load(&ModelSource::Folder(folder.into()))
}

#[test]
fn info_says_what_was_loaded() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &Shape { dtype: DType::BF16, shards: 2, ..Shape::default() })
        .unwrap();
    let model = load(folder.path()).unwrap();
    let info = model.info();
    assert_eq!(info.name, folder.path().file_name().unwrap().to_string_lossy());
    assert_eq!(
        (info.architecture.as_str(), info.dtype.as_str(), info.device.as_str()),
        ("LlamaForCausalLM", "bf16", "cpu")
    );
    assert_eq!((info.vocabulary, info.context_length), (261, 128));
    let block = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64 + 2 * 32;
    assert_eq!(info.parameters, 261 * 32 + 2 * block + 32);
    let tokenizer = model.tokenizer();
    assert_eq!(tokenizer.stop_tokens(), [257]);
    assert_eq!(tokenizer.encode("hi", true).unwrap(), [256, 104, 105]);
    assert_eq!(tokenizer.count("hi").unwrap(), 2);
    assert_eq!(tokenizer.decode(&[256, 104, 105, 257]).unwrap(), "hi");
    let messages = [ChatMessage { role: "user".into(), content: "hi".into() }];
    assert_eq!(
        tokenizer.render_chat(&messages).unwrap(),
        "<|begin|><|user|>hi<|end|><|assistant|>"
    );
}

#[test]
fn a_broken_folder_is_refused_with_the_reason() {
    type Break = fn(&Path);
    fn replace(folder: &Path, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        std::fs::write(folder.join(file), text.replace(from, to)).unwrap();
    }
    let table: &[(Break, &str)] = &[
        (|f| std::fs::remove_file(f.join("config.json")).unwrap(), "config.json"),
        (|f| std::fs::remove_file(f.join("tokenizer.json")).unwrap(), "tokenizer.json"),
        (|f| std::fs::remove_file(f.join("model.safetensors")).unwrap(), "model.safetensors"),
        (|f| std::fs::write(f.join("config.json"), "{").unwrap(), "config.json: not JSON"),
        (|f| std::fs::write(f.join("tokenizer.json"), "{}").unwrap(), "tokenizer.json"),
        (
            |f| std::fs::write(f.join("tokenizer_config.json"), "[").unwrap(),
            "tokenizer_config.json",
        ),
        (|f| std::fs::write(f.join("chat_template.jinja"), "{% if %}").unwrap(), "chat template"),
        (|f| std::fs::write(f.join("chat_template.jinja"), [0xff]).unwrap(), "chat_template.jinja"),
        (
            |f| std::fs::write(f.join("model.safetensors"), b"nonsense").unwrap(),
            "model.safetensors",
        ),
        (|f| std::fs::write(f.join("model.safetensors"), b"").unwrap(), "model.safetensors"),
        (|f| std::fs::write(f.join("model.safetensors.index.json"), "{}").unwrap(), "index.json"),
        (|f| replace(f, "config.json", "LlamaForCausalLM", "GPT2LMHeadModel"), "GPT2LMHeadModel"),
        (
            |f| replace(f, "config.json", "\"num_hidden_layers\":2", "\"num_hidden_layers\":3"),
            "model.layers.2",
        ),
        (
            |f| replace(f, "config.json", "\"intermediate_size\":64", "\"intermediate_size\":48"),
            "gate_proj",
        ),
        (
            |f| {
                let (tied, untied) = ("embeddings\":true", "embeddings\":false");
                replace(f, "config.json", tied, untied);
            },
            "lm_head",
        ),
    ];
    for (break_it, mention) in table {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &Shape::default()).unwrap();
        break_it(folder.path());
        let message = load(folder.path()).unwrap_err().to_string();
        assert!(message.contains(mention), "expected {mention}: {message}");
    }
}

#[test]
fn a_model_without_a_template_says_so() {
    let folder = tempfile::tempdir().unwrap();
    fixture::write(folder.path(), &Shape::default()).unwrap();
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    let tokenizer = load(folder.path()).unwrap().tokenizer();
    assert!(!tokenizer.has_chat_template());
    assert!(tokenizer.render_chat(&[]).unwrap_err().to_string().contains("/v1/completions"));
    assert_eq!(
        tokenizer.stop_tokens(),
        [257],
        "config.json and generation_config.json still name it"
    );
}

/// The little that `check` reads of a GGUF file, and no tensors.
fn gguf(metadata: &[(&str, &str)]) -> Result<Model, ModelError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let values: Vec<(&str, Value)> =
        metadata.iter().map(|(key, text)| (*key, Value::String((*text).to_owned()))).collect();
    let pairs: Vec<(&str, &Value)> = values.iter().map(|(key, value)| (*key, value)).collect();
    gguf_file::write(&mut std::fs::File::create(&path).unwrap(), &pairs, &[]).unwrap();
    Model::load(&ModelSource::Gguf(path))
}

#[test]
fn gguf_that_is_not_run_exactly_is_refused_by_name() {
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[], "architecture"),
        (&[("general.architecture", "falcon")], "falcon"),
        (&[("general.architecture", "llama"), ("tokenizer.ggml.model", "llama")], "tokenizer"),
        (
            &[
                ("general.architecture", "llama"),
                ("tokenizer.ggml.model", "gpt2"),
                ("tokenizer.ggml.pre", "unheard-of"),
            ],
            "unheard-of",
        ),
        (
            &[
                ("general.architecture", "llama"),
                ("tokenizer.ggml.model", "gpt2"),
                ("tokenizer.ggml.pre", "llama-bpe"),
            ],
            "tokenizer.ggml.tokens",
        ),
    ];
    for (metadata, mention) in cases {
        let message = gguf(metadata).unwrap_err().to_string();
        assert!(message.contains(mention) && message.contains("model.gguf"), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for bytes in [&b""[..], b"GGUF", b"nonsense", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"]
    {
        std::fs::write(&path, bytes).unwrap();
        let message = Model::load(&ModelSource::Gguf(path.clone())).unwrap_err().to_string();
        assert!(message.contains("model.gguf"), "{message}");
    }
}
