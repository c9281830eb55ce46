//! Prints what a model computes, for comparison with another implementation:
//! `logits demo|FOLDER|FILE.gguf [GREEDY-TOKENS [PIECE]] < prompt.json`, where the input is a JSON array
//! of token ids.
//!
//! The answer is one JSON object: `logits`, one row per position of the prompt, and `greedy`, the
//! tokens that follow once the prompt was read at once, or `PIECE` tokens at a time.
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool for the people who check the model, not part of the gateway"
)]

use tollgate_model::{Model, ModelSource, Sampler, SamplingOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let model = args.next().ok_or("usage: logits MODEL [GREEDY-TOKENS [PIECE]] < prompt.json")?;
    let count: usize = args.next().map_or(Ok(0), |count| count.parse())?;
    let piece: usize = args.next().map_or(Ok(usize::MAX), |piece| piece.parse())?;
    let prompt: Vec<u32> = serde_json::from_reader(std::io::stdin())?;
    let model = Model::load(&model.parse::<ModelSource>()?)?;

    let logits = model.forward_all(&mut model.start_sequence()?, &prompt)?;
    let mut sequence = model.start_sequence()?;
    let mut sampler =
        Sampler::new(SamplingOptions { temperature: 0.0, ..SamplingOptions::default() });
    let mut next = Vec::new();
    for tokens in prompt.chunks(piece.max(1)) {
        next = model.forward(&mut sequence, tokens)?;
    }
    let mut greedy = Vec::with_capacity(count);
    while greedy.len() < count {
        let token = sampler.sample(&mut next)?;
        greedy.push(token);
        if greedy.len() < count {
            next = model.forward(&mut sequence, &[token])?;
        }
    }
    println!("{}", serde_json::json!({ "logits": logits, "greedy": greedy }));
    Ok(())
}
