//! What a plugin may use, and the settings of the host.

use std::path::PathBuf;
use std::time::Duration;

use crate::signature::TrustedKey;
/// Most memory that `plugins.toml` may allow one instance.
pub(crate) const MOST_MEMORY: usize = 1 << 30;

/// Where plugins are and how they are held.
#[derive(Clone, Debug)]
pub struct PluginHostSettings {
    /// The plugin folder.
    pub folder: PathBuf,
    /// How often the folder is looked at without an event, for file systems that send none.
    pub rescan_every: Duration,
    /// What each plugin may use.
    pub limits: Limits,
    /// Most instances of all plugins at the same time, warm or at work. Each memory takes 4 GiB of address space and its
    /// guards: 1024 take 6 TiB of the usual 128. More threads than that are in no gateway, so that a call finds a place: in
    /// place of the warm instance that was not used for longest, if no other.
    pub instances: u32,
    /// Where the host keeps compiled code, the last good contents and what the operator holds back. Made if it is not
    /// there; none: nothing is kept.
    pub state: Option<PathBuf>,
    /// That folder belongs to another host, which may be running: it is read, and nothing is kept.
    pub peeks: bool,
    /// Who turns WebAssembly into machine code.
    pub compiler: Compiler,
    /// When there are any, every plugin needs a signature by one of them: `NAME.wasm.minisig` beside `NAME.wasm`.
    pub trusted_keys: Vec<TrustedKey>,
}

/// Who turns WebAssembly into machine code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// This process. A component made for it can take any amount of time and memory: for tests and for tools that
    /// handle one's own components.
    InProcess,
    /// A process of its own with limits on memory and time: `PROGRAM plugin-compiler`, which calls
    /// [`crate::run_compiler`].
    Child(PathBuf),
}

impl Compiler {
    /// A child that runs the same program as this process, also when its file was replaced meanwhile.
    ///
    /// # Errors
    ///
    /// When the system does not tell where the program is.
    pub fn this_program() -> std::io::Result<Self> {
        // The link leads to the very file that runs, even if another one has its name by now.
        let link = PathBuf::from("/proc/self/exe");
        if link.exists() { Ok(Self::Child(link)) } else { std::env::current_exe().map(Self::Child) }
    }
}

impl PluginHostSettings {
    /// `folder` with the default limits, looked at every ten seconds at least, compiled in this process, nothing kept,
    /// no signatures asked for.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            rescan_every: Duration::from_secs(10),
            limits: Limits::default(),
            instances: 1024,
            state: None,
            peeks: false,
            compiler: Compiler::InProcess,
            trusted_keys: Vec::new(),
        }
    }
}

/// What one plugin may use. A deadline is processor time: a call that merely waits for a busy machine is not blamed,
/// up to twenty times its deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for one call.
    pub deadline_call: Duration,
    /// More time for each item of its batch.
    pub deadline_per_item: Duration,
    /// Time for instantiation, for `describe` and for `configure`, each.
    pub deadline_start: Duration,
    /// Memories and tables of one instance together.
    pub memory_bytes: usize,
    /// Data handed to the host in one call, answers and log lines alike.
    pub result_bytes: usize,
    /// Size of a component file.
    pub component_bytes: u64,
    /// Address space of a compiler's process, its program included.
    pub child_memory_bytes: u64,
    /// Processor time of a compiler's process, all its threads together, counted in whole seconds. By the clock it may take
    /// six times as long, since it waits for whatever else the machine has to do.
    pub child_time: Duration,
    /// Most instances of a plugin kept between calls.
    pub warm_instances: usize,
    /// Most instances of a plugin with `isolation = "tenant"` kept between calls, and so most tenants that have one; the
    /// one that was not used for longest goes first.
    pub warm_tenants: usize,
    /// Fewest and most calls that an instance serves before a fresh one takes its place.
    pub calls_per_instance: (u32, u32),
    /// Most items in a batch.
    pub batch_items: usize,
    /// Most bytes of text in a batch; a larger single span travels alone.
    pub batch_bytes: usize,
    /// An attribute's value in bytes; a longer one is left out going in and refused coming out.
    pub value_bytes: usize,
    /// Values of a list; a longer one is left out going in.
    pub list_values: usize,
    /// Attributes passed with one span; the rest is withheld, and does not leave by a filter that reads it.
    pub attributes_per_span: usize,
    /// Edits to one span: a filter may remove all that it is shown.
    pub edits_per_span: usize,
    /// Lines of one cost.
    pub cost_lines: usize,
    /// Lines of log a second, for each plugin.
    pub log_lines_per_second: u32,
    /// Whether a new file is tried on one made-up item for each of its roles before it serves.
    pub trial_call: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(4, usize::from);
        Self {
            deadline_call: Duration::from_millis(20),
            deadline_per_item: Duration::from_micros(200),
            deadline_start: Duration::from_secs(1),
            memory_bytes: 64 << 20,
            result_bytes: 1 << 20,
            component_bytes: 16 << 20,
            child_memory_bytes: 1 << 30,
            child_time: Duration::from_secs(10),
            warm_instances: threads.max(4),
            warm_tenants: 32,
            calls_per_instance: (500, 2000),
            batch_items: 512,
            batch_bytes: 1 << 20,
            value_bytes: 64 << 10,
            list_values: 1024,
            attributes_per_span: 128,
            edits_per_span: 128,
            cost_lines: 32,
            log_lines_per_second: 100,
            trial_call: true,
        }
    }
}
