//! Asks a model on the command line: `ask [--model demo|FOLDER|HF-ID] [--plain] [--temperature T]
//! QUESTION...`
#![expect(
    clippy::print_stdout,
    reason = "a command-line tool for the people who maintain the demo model, not part of the gateway"
)]

use std::time::Instant;

use clap::Parser;
use tollgate_model::{ChatMessage, Model, ModelSource, Sampler, SamplingOptions};

/// Asks a model and prints its answers.
#[derive(Parser)]
struct Options {
    /// `demo`, a folder, or a Hugging Face id.
    #[arg(long, default_value = "demo")]
    model: String,
    /// Continue the text as it is, without the chat template.
    #[arg(long)]
    plain: bool,
    /// 0 for the likeliest answer.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tokens an answer may have.
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// One or more questions, each answered by itself.
    #[arg(required = true)]
    questions: Vec<String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let model = Model::load(&options.model.parse::<ModelSource>()?)?;
    let tokenizer = model.tokenizer();
    for question in &options.questions {
        let prompt = match options.plain {
            true => tokenizer.encode(question, true)?,
            false => {
                let message = ChatMessage { role: "user".to_owned(), content: question.clone() };
                tokenizer.encode(&tokenizer.render_chat(&[message])?, false)?
            }
        };
        let start = Instant::now();
        let mut sampler = Sampler::new(SamplingOptions {
            temperature: options.temperature,
            seed: options.seed,
            ..SamplingOptions::default()
        });
        let mut sequence = model.start_sequence()?;
        let mut logits = model.forward(&mut sequence, &prompt)?;
        let prefill = start.elapsed();
        let mut answer = Vec::new();
        let mut end = "length";
        while answer.len() < options.max_tokens {
            let token = sampler.sample(&mut logits)?;
            if tokenizer.stop_tokens().contains(&token) {
                end = "stop";
                break;
            }
            answer.push(token);
            logits = model.forward(&mut sequence, &[token])?;
        }
        let rate = answer.len() as f64 / (start.elapsed() - prefill).as_secs_f64();
        println!("> {question}\n{}", tokenizer.decode(&answer)?.trim());
        println!(
            "[{end}, {} + {} tokens, prefill {prefill:.1?}, {rate:.0} tokens/s]\n",
            prompt.len(),
            answer.len()
        );
    }
    Ok(())
}
