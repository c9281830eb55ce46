//! A process that is measured, with all it started: processor time and memory, from `/proc`; killed when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cores::Cores;

/// Clock ticks of a second in `/proc`, the same on every Linux.
const TICKS: f64 = 100.0;

pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it on the gateway's core; what it says goes to a file. Variables that would configure a gateway or lead requests
    /// elsewhere are not passed on.
    pub fn start(command: &Command, cores: Cores, log: &Path) -> Self {
        let mut command = cores.on_gateways(command);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_lowercase();
            let unwanted = ["tollgate_", "otel_"].iter().any(|prefix| text.starts_with(prefix));
            if unwanted || text.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        let file = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Self { child: command.spawn().unwrap(), log: log.to_owned() }
    }

    /// Fails with its last words if it has ended.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(15)..];
            panic!("it ended with {status}:\n{}", last.join("\n"));
        }
    }

    /// Of all its threads and children, since they began.
    pub fn processor_seconds(&self) -> f64 {
        let seconds = |id: u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let fields = fields(&stat);
            let ticks = fields.get(11..13).unwrap_or_default();
            ticks.iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS
        };
        self.family().into_iter().map(seconds).sum()
    }

    /// What they hold in memory, counted page by page, since the quick figure lags behind.
    pub fn resident_mib(&self) -> f64 {
        let kib = |id: u32| {
            let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap_or_default();
            line.split_whitespace().next().map_or(0.0, |kib| kib.parse::<f64>().unwrap())
        };
        self.family().into_iter().map(kib).sum::<f64>() / 1024.0
    }

    /// It and its descendants.
    fn family(&self) -> Vec<u32> {
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| {
                let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
                Some((id, fields(&stat).get(1)?.parse().ok()?))
            })
            .collect();
        let mut family = vec![self.child.id()];
        let mut at = 0;
        while let Some(&parent) = family.get(at) {
            family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
            at += 1;
        }
        family
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of a `stat` file, from the state on: the name of the program, in brackets, may hold anything.
fn fields(stat: &str) -> Vec<&str> {
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect()
}
