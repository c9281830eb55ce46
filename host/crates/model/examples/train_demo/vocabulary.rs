//! The tokenizer: byte-level BPE learned from the corpus, with five special tokens.

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Result, Tokenizer};

use crate::corpus::Topic;

pub const BEGIN: &str = "<|begin|>";
pub const END: &str = "<|end|>";
pub const SPECIALS: [&str; 5] = [BEGIN, END, "<|user|>", "<|assistant|>", "<|system|>"];

/// Writes a conversation as `<|begin|><|user|>question<|end|><|assistant|>answer<|end|>`.
pub const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{% if message.role not in ['system', 'user', \
    'assistant'] %}{{ raise_exception('unknown role ' ~ message.role) }}{% endif %}{{ '<|' ~ message.role ~ '|>' ~ \
    (message.content | trim) ~ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

pub fn train(topics: &[Topic], size: usize) -> Result<Tokenizer> {
    let specials = SPECIALS.map(|text| AddedToken::from(text, true).normalized(false));
    let mut trainer = BpeTrainer::builder()
        .vocab_size(size)
        .special_tokens(specials.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build();
    let texts: Vec<&str> = topics
        .iter()
        .flat_map(|topic| {
            topic.questions.iter().chain(topic.answers.iter().cycle().take(2 * topic.answers.len()))
        })
        .map(String::as_str)
        .collect();
    let mut learner = tokenizers::TokenizerBuilder::<
        BPE,
        tokenizers::NormalizerWrapper,
        ByteLevel,
        tokenizers::PostProcessorWrapper,
        tokenizers::DecoderWrapper,
    >::default()
    .with_model(BPE::default())
    .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
    .build()?;
    learner.train(&mut trainer, texts.into_iter())?;
    let mut tokenizer = Tokenizer::new(learner.get_model().clone());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    tokenizer.add_special_tokens(specials)?;
    let begin = tokenizer.token_to_id(BEGIN).ok_or("no begin token")?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{BEGIN} $A"))?
        .try_pair(format!("{BEGIN} $A $B:1"))?
        .special_tokens(vec![(BEGIN, begin)])
        .build()?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}
