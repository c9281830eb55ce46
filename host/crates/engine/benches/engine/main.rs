//! What the engine makes of a processor, or of a GPU: `cargo xtask bench engine [--beside llama.cpp]
//! [--model FILE.gguf|FOLDER]... [--shapes 15m,110m,1100m,8b] [--packings f32,q4_k,folder] [--threads N]
//! [--turns N] [--device cpu|cuda] [--sequences 1,4,16] [--written N] [--step-tokens N]`.
//!
//! Without a model, a random one of each shape in each packing; `folder` is safetensors in bf16. Of each:
//! tokens of a prompt read per second, tokens written per second by so many sequences, and time to first
//! token. Other programs
//! use the machine too, so each thing is measured in several turns and the median counts; with llama.cpp
//! beside it, the two take turns on the same file, prompts and threads, and the ratio is the median of
//! the turns' ratios: once of the time that passed, once of the time that processors spent.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a benchmark prints, and ends at the first fault"
)]

mod beside;
mod ours;

use std::path::{Path, PathBuf};

use beside::Beside;
use ours::Ours;
use tollgate_model::fixture::{self, Shape, gguf};
use tollgate_model::{ComputeDevice, Model, ModelSource};

/// What is asked for in one turn.
struct Work {
    name: String,
    sequences: usize,
    /// Tokens of each prompt.
    prompt: u32,
    /// Tokens that each sequence writes.
    written: u32,
}

/// A prompt to read, and answers to write by so many sequences.
fn all_work(sequences: &str, written: u32) -> Vec<Work> {
    let read = Work { name: "prefill".to_owned(), sequences: 1, prompt: 512, written: 1 };
    let write = |sequences: &str| {
        let name = format!("decode {sequences}");
        Work { name, sequences: sequences.parse().unwrap(), prompt: 32, written }
    };
    std::iter::once(read).chain(sequences.split(',').map(write)).collect()
}

/// How long it took, in seconds.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// From the request to the first token, the mean of all sequences: one that reads prompts one after another has
    /// its very first token sooner, and its last later.
    first: f64,
    /// From the request to the last token of all.
    whole: f64,
    /// What processors spent on all of it.
    processors: f64,
}

impl Work {
    /// Tokens per second: of the prompt; or written, the time to read the prompts included, since with several
    /// sequences some write while others read.
    fn rate(&self, taken: &Taken) -> f64 {
        match self.written {
            1 => f64::from(self.prompt) / taken.first,
            _ => self.tokens() / taken.whole,
        }
    }

    /// Tokens per second of one processor's time, prompts included.
    fn processor_rate(&self, taken: &Taken) -> f64 {
        match self.written {
            1 => f64::from(self.prompt) / taken.processors,
            _ => self.tokens() / taken.processors,
        }
    }

    fn tokens(&self) -> f64 {
        self.sequences as f64 * f64::from(self.written)
    }

    /// Prompts that begin unlike all others, so that nothing of them is found in a cache.
    fn prompts(&self, turn: usize) -> Vec<Vec<u32>> {
        let one = |sequence| {
            let mut number: usize = turn * 1000 + sequence * 40 + self.sequences;
            let mut token = move || {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                u32::try_from((number >> 40) % 200).unwrap()
            };
            (0..self.prompt).map(|_| token()).collect()
        };
        (0..self.sequences).map(one).collect()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| {
        let places = arguments.windows(2).filter(move |pair| pair[0] == name);
        places.map(|pair| pair[1].clone()).collect::<Vec<_>>()
    };
    let one =
        |name: &str, otherwise: &str| given(name).pop().unwrap_or_else(|| otherwise.to_owned());
    let threads = std::thread::available_parallelism().unwrap().to_string();
    let threads: usize = one("--threads", &threads).parse().unwrap();
    let turns: usize = one("--turns", "5").parse().unwrap();
    // `cargo xtask` installs llama.cpp and says which Python has it.
    let python = given("--llama-python").pop();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
    let device: ComputeDevice = one("--device", "cpu").parse().unwrap();
    let work = all_work(&one("--sequences", "1,4,16"), one("--written", "48").parse().unwrap());
    let most = work.iter().map(|work| work.sequences).max().unwrap();
    let step_tokens: usize = one("--step-tokens", "256").parse().unwrap();
    println!("{threads} threads, median of {turns} turns, tokens per second");
    let mut rows = Vec::new();
    let mut measure = |name: &str, source: &ModelSource| {
        let model = Model::load_on(source, device).unwrap();
        println!("\n{name} on {}", model.info().device);
        let ours = Ours::start(model, most, step_tokens);
        let beside = match source {
            ModelSource::Gguf(file) => {
                python.as_ref().map(|python| Beside::start(Path::new(python), file, threads))
            }
            _ => None,
        };
        rows.push(compare(name, &work, &ours, beside, turns));
    };
    for model in given("--model") {
        measure(&model, &model.parse().unwrap());
    }
    if given("--model").is_empty() {
        for shape in one("--shapes", "110m").split(',') {
            for packing in one("--packings", "f32,f16,q8_0,q4_k").split(',') {
                let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
                measure(&format!("{shape} {packing}"), &random(folder.path(), shape, packing));
            }
        }
    }
    println!(
        "\n{{\"bench\":\"engine\",\"threads\":{threads},\"turns\":{turns},\"models\":[{}]}}",
        rows.join(",")
    );
}

/// A random model, as a GGUF file or a folder.
fn random(folder: &Path, shape: &str, packing: &str) -> ModelSource {
    let (hidden, feed_forward, layers, heads, kv_heads) = match shape {
        "15m" => (288, 768, 6, 6, 6),
        "110m" => (768, 2048, 12, 12, 12),
        // As TinyLlama, and as Llama 3 8B but for its vocabulary.
        "1100m" => (2048, 5632, 22, 32, 4),
        "8b" => (4096, 14336, 32, 32, 8),
        _ => panic!("no shape `{shape}`; there are 15m, 110m, 1100m and 8b"),
    };
    let config = serde_json::json!({ "vocab_size": 32_000, "hidden_size": hidden,
        "intermediate_size": feed_forward, "num_hidden_layers": layers,
        "num_attention_heads": heads });
    let mut shape = Shape { context_length: 1024, kv_heads, config, ..Shape::default() };
    if packing == "folder" {
        (shape.dtype, shape.tied_embeddings) = (fixture::DType::BF16, false);
        fixture::write(folder, &shape).unwrap();
        return ModelSource::Folder(folder.into());
    }
    fixture::write(folder, &shape).unwrap();
    let packing = gguf::packing(packing).unwrap_or_else(|| panic!("no packing `{packing}`"));
    gguf::pack(folder, packing, &[]).unwrap();
    ModelSource::Gguf(PathBuf::from(folder).join("model.gguf"))
}

/// All work by turns; a line of the table each, and the JSON object of the model.
fn compare(
    name: &str,
    all_work: &[Work],
    ours: &Ours,
    mut beside: Option<Beside>,
    turns: usize,
) -> String {
    println!("\n{name} ({} MiB)", ours.weight_bytes() >> 20);
    if beside.is_some() {
        println!(
            "  {:<10} {:>9} {:>9} {:>6}   of processor time: {:>7} {:>7} {:>6}",
            "", "ours", "theirs", "ratio", "ours", "theirs", "ratio"
        );
    }
    let mut fields =
        vec![format!("\"model\":{name:?},\"weights_mib\":{}", ours.weight_bytes() >> 20)];
    for work in all_work {
        // The first is not counted: memory is touched, caches fill.
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        for turn in 0..=turns {
            let prompts = work.prompts(turn);
            let mut mine_now = || ours.turn(work, &prompts);
            let first = (turn % 2 == 0).then(&mut mine_now);
            let other = beside.as_mut().map(|beside| beside.turn(work, &prompts));
            let now = first.unwrap_or_else(mine_now);
            if turn > 0 {
                mine.push(now);
                theirs.extend(other);
            }
        }
        let first_ms = median(mine.iter().map(|taken| taken.first * 1000.0));
        let rate = median(mine.iter().map(|taken| work.rate(taken)));
        let key = work.name.replace(' ', "_");
        fields.push(format!("\"{key}\":{rate:.1},\"{key}_first_ms\":{first_ms:.1}"));
        print!("  {:<10} {rate:>9.1}", work.name);
        if !theirs.is_empty() {
            let their_rate = median(theirs.iter().map(|taken| work.rate(taken)));
            let their_first = median(theirs.iter().map(|taken| taken.first * 1000.0));
            let ratio_of = |of: fn(&Work, &Taken) -> f64| {
                median(mine.iter().zip(&theirs).map(|(a, b)| of(work, a) / of(work, b)))
            };
            let (ratio, processors) = (ratio_of(rate_of), ratio_of(processor_rate_of));
            let spent = |of: &[Taken]| median(of.iter().map(|taken| work.processor_rate(taken)));
            let (my_processors, their_processors) = (spent(&mine), spent(&theirs));
            print!(" {their_rate:>9.1} {ratio:>6.2}                     {my_processors:>7.1}");
            print!(" {their_processors:>7.1} {processors:>6.2}");
            print!("   first token {first_ms:.1} ms, theirs {their_first:.1} ms");
            fields.push(format!(
                "\"{key}_beside\":{{\"rate\":{their_rate:.1},\"first_ms\":{their_first:.1},\
                 \"ratio\":{ratio:.3},\"of_processor_time\":{{\"ours\":{my_processors:.1},\
                 \"theirs\":{their_processors:.1},\"ratio\":{processors:.3}}}}}"
            ));
        } else {
            print!("   first token {first_ms:.1} ms");
        }
        println!();
    }
    format!("{{{}}}", fields.join(","))
}

fn rate_of(work: &Work, taken: &Taken) -> f64 {
    work.rate(taken)
}

fn processor_rate_of(work: &Work, taken: &Taken) -> f64 {
    work.processor_rate(taken)
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
