//! The same small model as a GGUF file, in every packing, and as a folder of the unpacked weights.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use serde_json::json;
use tollgate_model::fixture::gguf::pack;
use tollgate_model::fixture::{self, Shape};
use tollgate_model::{Model, ModelSource};

const PACKINGS: [GgmlDType; 9] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q8_0,
    GgmlDType::Q6K,
    GgmlDType::Q5K,
    GgmlDType::Q4K,
    GgmlDType::Q4_0,
    // One that has no kernel.
    GgmlDType::Q5_1,
];

fn shape(family: &str) -> Shape {
    let architecture = match family {
        "llama" => "LlamaForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        _ => "Qwen3ForCausalLM",
    };
    let config = json!({ "architectures": [architecture], "hidden_size": 256, "head_dim": 64,
        "intermediate_size": 512, "rope_theta": 5000.0 });
    Shape { tied_embeddings: false, config, ..Shape::default() }
}

fn load(folder: &Path) -> [Model; 2] {
    let file = ModelSource::Gguf(folder.join("model.gguf"));
    [Model::load(&file).unwrap(), Model::load(&ModelSource::Folder(folder.into())).unwrap()]
}

fn logits(model: &Model) -> Vec<Vec<f32>> {
    let tokens: Vec<u32> = (0..40u32).map(|i| (i * i * 31 + 7) % 256).collect();
    model.forward_all(&mut model.start_sequence().unwrap(), &tokens).unwrap()
}

fn farthest(left: &[Vec<f32>], right: &[Vec<f32>]) -> f32 {
    let pairs = left.iter().flatten().zip(right.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn packed_weights_compute_what_unpacked_ones_do() {
    let mut sizes = HashMap::new();
    for family in ["llama", "qwen2", "qwen3"] {
        for packing in PACKINGS {
            let folder = tempfile::tempdir().unwrap();
            fixture::write(folder.path(), &shape(family)).unwrap();
            pack(folder.path(), packing, &[]).unwrap();
            let [packed, unpacked] = load(folder.path());
            assert_eq!(packed.info().parameters, unpacked.info().parameters);
            assert_eq!(packed.info().dtype, format!("{packing:?}").to_lowercase());
            let off = farthest(&logits(&packed), &logits(&unpacked));
            // Beside whole numbers, activations are rounded to fifteen bits, and these models with
            // their large weights make much of it: 0.008.
            let rounded = !matches!(
                packing,
                GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 | GgmlDType::Q5_1
            );
            assert!(off < if rounded { 0.05 } else { 1e-3 }, "{family} {packing:?}: {off}");
            sizes.insert(packing, (packed.weight_bytes(), unpacked.weight_bytes()));
        }
    }
    // Bits of each weight that are kept, of 32.
    for (packing, bits) in [
        (GgmlDType::F16, 16.0),
        (GgmlDType::Q8_0, 8.5),
        (GgmlDType::Q6K, 8.6),
        (GgmlDType::Q5K, 8.7),
        (GgmlDType::Q4K, 4.7),
        (GgmlDType::Q4_0, 4.5),
    ] {
        let (packed, unpacked) = sizes[&packing];
        let found = packed as f64 / unpacked as f64 * 32.0;
        assert!((found - bits).abs() < 0.1, "{packing:?}: {found}");
    }
}

#[test]
fn rotary_factors_stretch_as_the_configuration_of_the_folder_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut shape = shape("llama");
    let llama3 = json!({ "rope_type": "linear", "factor": 4.0 });
    shape.config.as_object_mut().unwrap().insert("rope_scaling".to_owned(), llama3);
    fixture::write(folder.path(), &shape).unwrap();
    pack(folder.path(), GgmlDType::F32, &[4.0; 32]).unwrap();
    let [with_factors, scaled] = load(folder.path());
    assert!(farthest(&logits(&with_factors), &logits(&scaled)) < 1e-4);
}

#[test]
fn the_tokenizer_of_a_file_cuts_text_as_its_family_does() {
    let folder = tempfile::tempdir().unwrap();
    for family in ["llama", "qwen2"] {
        fixture::write(folder.path(), &shape(family)).unwrap();
        pack(folder.path(), GgmlDType::F32, &[]).unwrap();
        let [model, _] = load(folder.path());
        let tokenizer = model.tokenizer();
        assert_eq!(tokenizer.count("this").unwrap(), 3);
        assert_eq!(tokenizer.stop_tokens(), [258]);
        let text = "naïve 12345 text\n\n  the end 😀";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, false).unwrap()).unwrap(), text);
    }
}
