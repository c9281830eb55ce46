//! Which processor core does what: one is the gateway's alone, another has load, upstream and receiver.
//!
//! By the command `taskset`, which every Linux has: threads and processes stay where what started them was put.

use std::fs;
use std::process::{Command, Stdio};

/// The cores of a run; the same one twice where there is but one.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    pub gateway: usize,
    pub load: usize,
}

impl Cores {
    /// The first two that this process may use. Moves this process, which must have one thread only, to the load's.
    pub fn choose() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let mut allowed = list.unwrap().trim().split(',').flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse::<usize>().unwrap()..=last.parse().unwrap()
        });
        let gateway = allowed.next().unwrap();
        let load = allowed.next().unwrap_or(gateway);
        let mut taskset = Command::new("taskset");
        taskset.args(["-c", "-p", &load.to_string(), &std::process::id().to_string()]);
        let done = taskset.stdout(Stdio::null()).status();
        assert!(done.is_ok_and(|status| status.success()), "taskset (of util-linux) is missing");
        Self { gateway, load }
    }

    /// The same command, on the gateway's core. It has the same process id as it would have without.
    pub fn on_gateways(self, command: &Command) -> Command {
        let mut taskset = Command::new("taskset");
        taskset.args(["-c", &self.gateway.to_string()]);
        taskset.arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            taskset.current_dir(folder);
        }
        taskset
    }
}
