//! Trains the demo model from its corpus: `cargo run --release -p tollgate-model --example
//! train_demo`.
//!
//! Everything follows from the seed and the corpus: tokenizer, initial weights, the order of
//! documents. The result is a folder in the Hugging Face layout that [`tollgate_model`] loads like
//! any other.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a command-line tool for the people who maintain the demo model, not part of the gateway"
)]

mod corpus;
mod documents;
mod loss;
mod optimizer;
mod output;
mod progress;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::{Device, Result, Tensor, Var};
use clap::Parser;
use documents::Batch;
use progress::Progress;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tollgate_model::config::{LlamaConfig, RopeScaling};
use tollgate_model::llama::Llama;

/// Trains the demo model from its corpus.
#[derive(Parser)]
pub struct Options {
    /// Optimizer steps; the learning rate falls to nearly nothing over them.
    #[arg(long, default_value_t = 5500)]
    steps: usize,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Stop after this many minutes even if steps are left.
    #[arg(long)]
    minutes: Option<f64>,
    /// The folder with the corpus, one or more `.txt` files.
    #[arg(long, default_value = "host/assets/demo-model/corpus")]
    corpus: PathBuf,
    /// Where the model goes, at checkpoints and at the end.
    #[arg(long, default_value = "target/demo-model")]
    out: PathBuf,
    /// Tokens in a batch, padding included.
    #[arg(long, default_value_t = 1024)]
    batch_tokens: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 3e-3)]
    learning_rate: f64,
    /// Entries of the tokenizer.
    #[arg(long, default_value_t = 2048)]
    vocabulary: usize,
    /// Worker threads; each takes its share of every batch.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Continue from the weights of this folder (its tokenizer is kept; the optimizer starts
    /// afresh).
    #[arg(long)]
    resume: Option<PathBuf>,
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let options = Options::parse();
    if std::env::var_os(THREADS).is_none() {
        return in_single_threads();
    }
    let topics = corpus::read(&options.corpus)?;
    let (training, held_out) = corpus::split(topics);
    let tokenizer = match &options.resume {
        Some(folder) => tokenizers::Tokenizer::from_file(folder.join("tokenizer.json"))?,
        None => vocabulary::train(&training, options.vocabulary)?,
    };
    let vars = match &options.resume {
        Some(folder) => load(&folder.join("model.safetensors"))?,
        None => BTreeMap::new(),
    };
    let config = shape(tokenizer.get_vocab_size(true));
    let (model, vars) = initialize(config, &vars, options.seed)?;
    let parameters: usize = vars.values().map(|var| var.elem_count()).sum();
    println!(
        "{} topics, {} question-answer pairs, {} held out; {parameters} parameters, {} tokens in the vocabulary",
        training.len(),
        training.iter().map(|topic| topic.questions.len() * topic.answers.len()).sum::<usize>(),
        held_out.len(),
        tokenizer.get_vocab_size(true),
    );
    let mut stream =
        documents::Stream::new(&training, &tokenizer, options.seed, options.batch_tokens);
    let validation = documents::validation(&held_out, &tokenizer, options.batch_tokens);
    let mut progress = Progress::new(parameters);
    let mut optimizer = optimizer::AdamW::new(vars.values().cloned().collect());
    let mut saved = Instant::now();
    for step in 0..options.steps {
        let rate = learning_rate(step, options.steps, options.learning_rate);
        let batch = stream.next();
        let labels = batch.label_count();
        let (loss, gradients) = gradients(&model, &optimizer, &batch, options.workers)?;
        let norm = optimizer.step(&gradients, rate);
        optimizer.publish()?;
        progress.record(loss, labels, batch.token_count());
        let timed_out = options.minutes.is_some_and(|limit| progress.elapsed() > limit * 60.0);
        let last = step + 1 == options.steps || timed_out;
        if (step + 1) % 50 == 0 || last {
            progress.print(step + 1, rate, norm, stream.epochs());
        }
        if saved.elapsed() > Duration::from_secs(240) || last {
            progress.validation = evaluate(&model, &validation)?;
            println!("step {}: validation loss {:.4}", step + 1, progress.validation);
            output::write(&options.out, &tokenizer, model.config(), &vars)?;
            saved = Instant::now();
        }
        if last {
            progress.summary(step + 1);
            break;
        }
    }
    Ok(())
}

/// How many threads candle shares one multiplication among.
const THREADS: &str = "RAYON_NUM_THREADS";

/// Runs this program again with one thread for each multiplication. The workers already keep every
/// core busy; more threads than cores make a step several times slower.
fn in_single_threads() -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut again = std::process::Command::new(std::env::current_exe()?);
    let status = again.args(std::env::args_os().skip(1)).env(THREADS, "1").status()?;
    if status.success() { Ok(()) } else { Err(format!("training ended with {status}").into()) }
}

fn shape(vocabulary: usize) -> LlamaConfig {
    LlamaConfig {
        architecture: "LlamaForCausalLM".to_owned(),
        vocabulary,
        hidden: 192,
        feed_forward: 512,
        layers: 4,
        heads: 6,
        kv_heads: 2,
        head_dim: 32,
        context_length: 512,
        sliding_window: None,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied_embeddings: true,
        qkv_bias: false,
        generates: true,
        head_norms: false,
    }
}

/// A model over fresh variables, or over `known` ones where it has them.
fn initialize(
    config: LlamaConfig,
    known: &BTreeMap<String, Tensor>,
    seed: u64,
) -> Result<(Llama, BTreeMap<String, Var>)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut vars = BTreeMap::new();
    let into_residual = 1.0 / (2.0 * config.layers as f32).sqrt();
    let model = Llama::assemble(config, |name, shape| {
        let count = shape.iter().product();
        let values: Vec<f32> = match name {
            _ if name.contains("norm") => vec![1.0; count],
            _ if name.contains("embed") => normal(&mut rng, count, 0.02),
            _ if name.contains("o_proj") || name.contains("down_proj") => {
                normal(&mut rng, count, 0.05 * into_residual)
            }
            _ => normal(&mut rng, count, 0.05),
        };
        let tensor = match known.get(name) {
            Some(tensor) => tensor.clone(),
            None => Tensor::from_vec(values, shape, &Device::Cpu)?,
        };
        let var = Var::from_tensor(&tensor)?;
        let tensor = var.as_tensor().clone();
        vars.insert(name.to_owned(), var);
        Ok::<_, candle_core::Error>(tensor)
    })?;
    Ok((model, vars))
}

fn load(path: &std::path::Path) -> Result<BTreeMap<String, Tensor>> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
    tensors
        .into_iter()
        .map(|(name, tensor)| Ok((name, tensor.to_dtype(candle_core::DType::F32)?)))
        .collect()
}

fn normal(rng: &mut StdRng, count: usize, deviation: f32) -> Vec<f32> {
    let mut draw = || {
        let (u, v): (f32, f32) = (1.0 - rng.random::<f32>(), rng.random());
        deviation * (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    };
    (0..count).map(|_| draw()).collect()
}

/// Warm-up over 3 % of the steps, then a cosine down to 2 % of the highest rate.
fn learning_rate(step: usize, steps: usize, highest: f64) -> f64 {
    let warm_up = (steps * 3 / 100).max(20);
    if step < warm_up {
        return highest * (step + 1) as f64 / warm_up as f64;
    }
    let way = (step - warm_up) as f64 / (steps - warm_up).max(1) as f64;
    highest * (0.02 + 0.98 * 0.5 * (1.0 + (std::f64::consts::PI * way).cos()))
}

/// The mean loss over the batch's labels and its gradients, in the optimizer's order. Each worker
/// takes every n-th row; their sums are added in the workers' order, so the result does not depend
/// on timing.
fn gradients(
    model: &Llama,
    optimizer: &optimizer::AdamW,
    batch: &Batch,
    workers: usize,
) -> Result<(f32, Vec<Vec<f32>>)> {
    let total = batch.label_count();
    let shares = batch.shares(workers);
    let work = |share: &Batch| -> Result<(f32, Vec<Vec<f32>>)> {
        let loss = batch_loss(model, share, total)?;
        let store = loss.backward()?;
        let gradients = optimizer
            .vars()
            .iter()
            .map(|var| match store.get(var.as_tensor()) {
                Some(gradient) => gradient.flatten_all()?.to_vec1::<f32>(),
                None => Ok(vec![0.0; var.elem_count()]),
            })
            .collect::<Result<_>>()?;
        Ok((loss.to_scalar()?, gradients))
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = shares.iter().map(|share| scope.spawn(|| work(share))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut results = results.into_iter();
    let (mut loss, mut sum) = results.next().unwrap()?;
    for result in results {
        let (more, gradients) = result?;
        loss += more;
        for (sum, gradient) in sum.iter_mut().zip(gradients) {
            sum.iter_mut().zip(gradient).for_each(|(sum, more)| *sum += more);
        }
    }
    Ok((loss, sum))
}

fn batch_loss(model: &Llama, batch: &Batch, total: usize) -> Result<Tensor> {
    let tokens = Tensor::from_vec(batch.tokens.clone(), (batch.rows, batch.width), &Device::Cpu)?;
    let hidden = model.hidden_states(&tokens)?.flatten(0, 1)?;
    let positions = Tensor::new(batch.label_positions.as_slice(), &Device::Cpu)?;
    let logits = model.logits(&hidden.index_select(&positions, 0)?)?;
    loss::cross_entropy(&logits, batch.labels.clone(), total)
}

fn evaluate(model: &Llama, batches: &[Batch]) -> Result<f32> {
    let total = batches.iter().map(Batch::label_count).sum();
    batches.iter().map(|batch| batch_loss(model, batch, total)?.to_scalar::<f32>()).sum()
}
