//! What is put under load: a gateway of ours, SMG, what does nothing but forward, or the upstream itself.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use tollgate_ledger::LedgerReader;

use crate::client::{Ask, Connection};
use crate::cores::Cores;
use crate::floors;
use crate::process::Process;
use crate::servers::{Receiver, Upstream};
use crate::variants::Variant;

/// How long a start, and the delivery of what is on record, may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// For whatever a process does right after a request or its start.
const MOMENT: Duration = Duration::from_millis(200);

pub struct Subject {
    pub plain: Ask,
    pub streamed: Ask,
    pub process: Option<Process>,
    /// Where its records are, and how many exporters read them.
    ledger: Option<(PathBuf, usize)>,
}

/// What a subject needs around it.
pub struct Surroundings {
    pub cores: Cores,
    pub upstream: Upstream,
    pub receiver: Receiver,
}

impl Subject {
    /// No gateway at all.
    pub fn direct(around: &Surroundings) -> Self {
        Self::at(around.upstream.address, None, None)
    }

    /// What does nothing but forward.
    pub fn floor(floor: &str, folder: &Path, around: &Surroundings) -> Self {
        let address = free_address();
        let command = floors::command(floor, address, around.upstream.address);
        let process = Process::start(&command, around.cores, &folder.join("log.txt"));
        let mut subject = Self::at(address, None, Some(process));
        subject.wait_for("chat.completion");
        subject
    }

    /// A gateway of ours that serves, with an empty ledger. `folder` is its own over all rounds.
    pub fn tollgate(variant: &Variant, folder: &Path, around: &Surroundings) -> Self {
        let address = free_address();
        let taken = around.receiver.taken.load(Ordering::Relaxed);
        let (command, key) = variant.prepare(folder, address, &around.upstream, &around.receiver);
        let process = Process::start(&command, around.cores, &folder.join("log.txt"));
        let mut subject = Self::at(address, key, Some(process));
        subject.ledger = Some((folder.join("data/ledger"), variant.exporters()));
        let status = if variant.prices() { "priced" } else { "unpriced" };
        subject.wait_for(&format!("\"status\":\"{status}\""));
        subject.settle();
        let has_come = around.receiver.taken.load(Ordering::Relaxed) > taken;
        assert_eq!(has_come, variant.exports_otlp(), "{}: spans at the receiver", variant.name);
        subject
    }

    /// SMG that serves, as its guide starts it, quiet.
    pub fn smg(program: &Path, folder: &Path, around: &Surroundings) -> Self {
        let address = free_address();
        let mut command = Command::new(program);
        command.args(["launch", "--backend", "vllm", "--log-level", "error", "--worker-urls"]);
        command.arg(format!("http://{}", around.upstream.address));
        command.args(["--host", "127.0.0.1", "--port"]).arg(address.port().to_string());
        command.arg("--prometheus-port").arg(free_address().port().to_string());
        let process = Process::start(&command, around.cores, &folder.join("log.txt"));
        let mut subject = Self::at(address, None, Some(process));
        subject.wait_for("chat.completion");
        subject.settle();
        subject
    }

    fn at(address: SocketAddr, key: Option<String>, process: Option<Process>) -> Self {
        let plain = Ask::new(address, key.clone(), false);
        Self { plain, streamed: Ask::new(address, key, true), process, ledger: None }
    }

    /// Waits until it answers, and the answer has this in it.
    fn wait_for(&mut self, words: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let began = Instant::now();
        let mut said = String::new();
        while !said.contains(words) {
            let process = self.process.as_mut().unwrap();
            process.assert_alive();
            assert!(began.elapsed() < PATIENCE, "it does not say {words}, but {said}");
            thread::sleep(Duration::from_millis(20));
            said = runtime.block_on(async {
                let asked = async {
                    let mut connection = Connection::open(&self.plain).await.ok()?;
                    connection.ask(&self.plain).await.ok()
                };
                let answer =
                    tokio::time::timeout(Duration::from_secs(5), asked).await.ok().flatten();
                answer.map_or(String::new(), |answer| {
                    String::from_utf8_lossy(&answer.last).into_owned()
                })
            });
        }
    }

    /// Waits until all exporters have delivered all that is on record, so that what a request costs later is counted too.
    pub fn settle(&self) {
        thread::sleep(MOMENT);
        let Some((ledger, exporters)) = &self.ledger else { return };
        let began = Instant::now();
        loop {
            let reader = LedgerReader::open(ledger).unwrap();
            let records = reader.head().unwrap().records;
            let done = reader.cursors().unwrap().into_iter();
            let done = done.filter(|(_, cursor)| cursor.records == records).count();
            if done == *exporters {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "what is on record is not delivered");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn processor_seconds(&self) -> Option<f64> {
        self.process.as_ref().map(Process::processor_seconds)
    }

    pub fn resident_mib(&self) -> Option<f64> {
        self.process.as_ref().map(Process::resident_mib)
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
