//! What spans go through: the program, or a stock agent.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::places::components;

/// Clock ticks of a second in `/proc`, the same on every Linux.
const TICKS: f64 = 100.0;

/// Longest start.
const START: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
pub enum Durability {
    Power,
    Process,
}

pub enum Kind {
    Tollgate { name: &'static str, plugins: &'static [&'static str], durability: Durability },
    Rotel(PathBuf),
}

impl Kind {
    pub fn name(&self) -> &str {
        match self {
            Self::Tollgate { name, .. } => name,
            Self::Rotel(_) => "rotel",
        }
    }
}

/// A process that takes spans; killed when dropped.
pub struct Subject {
    child: Child,
    endpoint: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Subject {
    pub fn start(kind: &Kind, program: &Path, receiver: &str) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let endpoint = free();
        let mut command = match kind {
            Kind::Tollgate { plugins, durability, .. } => {
                tollgate(program, folder.path(), plugins, *durability, endpoint, receiver)
            }
            Kind::Rotel(path) => rotel(path, endpoint, receiver),
        };
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_lowercase();
            if ["tollgate_", "otel_", "rotel_"].iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let subject = Self { child: command.spawn().unwrap(), endpoint, _folder: folder };
        let begun = Instant::now();
        while TcpStream::connect(endpoint).is_err() {
            assert!(begun.elapsed() < START, "{} did not start", kind.name());
            thread::sleep(Duration::from_millis(20));
        }
        subject
    }

    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// Of all its threads, since it began.
    pub fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name of the program, in brackets, may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        ticks / TICKS
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tollgate(
    program: &Path,
    folder: &Path,
    plugins: &[&str],
    durability: Durability,
    endpoint: SocketAddr,
    receiver: &str,
) -> Command {
    let given = folder.join("plugins-given");
    fs::create_dir(&given).unwrap();
    for name in plugins {
        let file = format!("{name}.wasm");
        fs::copy(components().join(&file), given.join(file)).unwrap();
    }
    let config = folder.join("tollgate.toml");
    // The agent compresses, whatever it is told.
    let otlp =
        "[[exporter]]\nkind = \"otlp\"\nprotocol = \"http/protobuf\"\ncompression = \"gzip\"\n";
    fs::write(&config, format!("{otlp}endpoint = \"{receiver}\"\n")).unwrap();
    let durability = match durability {
        Durability::Power => "power",
        Durability::Process => "process",
    };
    let mut command = Command::new(program);
    command.args(["serve", "--listen", "127.0.0.1:0", "--model", "none", "--log", "warn"]);
    command.args(["--ledger-durability", durability, "--otlp-listen", &endpoint.to_string()]);
    command.arg("--data-dir").arg(folder).arg("--plugins").arg(given).arg("--config").arg(config);
    command
}

fn rotel(path: &Path, endpoint: SocketAddr, receiver: &str) -> Command {
    let mut command = Command::new(path);
    command.args(["start", "--otlp-http-endpoint", &endpoint.to_string()]);
    command.args(["--otlp-grpc-endpoint", &free().to_string(), "--exporter", "otlp"]);
    command.args(["--otlp-exporter-endpoint", receiver, "--otlp-exporter-protocol", "http"]);
    command
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
