//! One turn of llama.cpp, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::{Taken, Work};

/// llama.cpp with a model, waiting for work.
pub(crate) struct Beside {
    child: Child,
    work: ChildStdin,
    taken: BufReader<ChildStdout>,
}

impl Beside {
    pub(crate) fn start(python: &Path, model: &Path, threads: usize) -> Self {
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/engine/llama_cpp.py"))
            .arg(model)
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let work = child.stdin.take().unwrap();
        let taken = BufReader::new(child.stdout.take().unwrap());
        Self { child, work, taken }
    }

    pub(crate) fn turn(&mut self, work: &Work, prompts: &[Vec<u32>]) -> Taken {
        let asked = serde_json::json!({ "prompts": prompts, "written": work.written });
        writeln!(self.work, "{asked}").unwrap();
        // llama.cpp writes lines of its own to standard output.
        let mut line = String::new();
        let answer = loop {
            line.clear();
            assert!(self.taken.read_line(&mut line).unwrap() > 0, "llama.cpp has ended");
            if let Some(answer) = line.strip_prefix("taken ") {
                break answer;
            }
        };
        let taken: serde_json::Value = serde_json::from_str(answer).unwrap();
        let seconds = |key: &str| taken[key].as_f64().unwrap();
        Taken {
            first: seconds("first"),
            whole: seconds("whole"),
            processors: seconds("processors"),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
