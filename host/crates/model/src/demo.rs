//! The demo model, trained by this repository (`host/assets/demo-model/README.md`) and carried in
//! the binary.

use crate::embedding::Said;
use crate::files::ModelFiles;

macro_rules! asset {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/demo-model/", $name))
            .as_slice()
    };
}

/// Its name wherever a model's name is shown.
pub const NAME: &str = "tollgate-demo";

pub(crate) fn files() -> ModelFiles {
    ModelFiles {
        name: NAME.to_owned(),
        config: asset!("config.json").into(),
        tokenizer: asset!("tokenizer.json").into(),
        tokenizer_config: Some(asset!("tokenizer_config.json").into()),
        generation_config: Some(asset!("generation_config.json").into()),
        chat_template: None,
        embedding: Said::Nothing,
        weights: vec![asset!("model.safetensors").into()],
    }
}
