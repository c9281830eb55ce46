//! What is measured, for how long and how often.

use std::path::PathBuf;

use clap::Parser;

use crate::places::from_top;

/// What a gateway adds to requests that it forwards.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Seconds of load of each kind
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// How often everything is measured; medians are shown
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Connections of the heavy load
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Requests per second of the open loop
    #[arg(long, default_value_t = 500)]
    pub rate: u32,
    /// Milliseconds between two tokens of a paced stream
    #[arg(long, default_value_t = 5)]
    pub pace: u64,
    /// Only what has this in its name; `direct` is measured all the same
    #[arg(long)]
    pub only: Option<String>,
    /// The program `smg` to measure beside it, from the top of the repository [default: the one on the PATH]
    #[arg(long)]
    pub smg: Option<PathBuf>,
    /// Tiny numbers, to see that it runs
    #[arg(long)]
    pub quick: bool,
    /// What `cargo bench` passes
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// What was typed; under `cargo test`, which does not pass `--bench`, tiny numbers, and none if another test is meant.
    pub fn given() -> Option<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if arguments.iter().any(|argument| argument == "--bench") {
            return Some(Self::parse().adjusted());
        }
        if arguments.iter().any(|argument| argument == "--list") {
            return None;
        }
        let is_name =
            |argument: &&String| !argument.starts_with('-') && argument.parse::<usize>().is_err();
        let mut names = arguments.iter().filter(is_name);
        names.all(|name| "bench_gateway".contains(name.as_str())).then(|| {
            let quick = Self::parse_from(["gateway", "--quick"]);
            Self { smg: None, ..quick }.adjusted()
        })
    }

    /// SMG, if it is there.
    pub fn smg(&self) -> Option<PathBuf> {
        let found = || {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path)
                .map(|folder| folder.join("smg"))
                .find(|file| file.is_file())
        };
        match &self.smg {
            Some(program) => Some(from_top(program)),
            None if self.quick => None,
            None => found(),
        }
    }

    fn adjusted(self) -> Self {
        match self.quick {
            true => Self { seconds: 0.1, rounds: 1, connections: 4, rate: 50, pace: 1, ..self },
            false => self,
        }
    }
}
