//! What can go wrong with a plugin file or with the host, and what went wrong in one call.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use tollgate_domain::{FaultKind, PluginFault, PluginIdentity};
use wasmtime::Trap;

/// Any error below one of ours.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// Why the host could not start, or why a file of the plugin folder is not used. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginHostError {
    /// The plugin folder cannot be read.
    #[error("cannot read the plugin folder {folder}: create it, or name another one")]
    Folder {
        /// The folder.
        folder: String,
        /// Why.
        source: io::Error,
    },
    /// wasmtime or the watcher's thread did not start.
    #[error("cannot start the WebAssembly engine")]
    Engine(#[source] Cause),
    /// A file cannot be read.
    #[error("cannot read it; let the gateway's user read it, or copy it again")]
    Read(#[source] io::Error),
    /// Not a plain file inside the folder.
    #[error("it is {0}; put a plain .wasm file into the folder")]
    NotAFile(&'static str),
    /// Larger than the limit.
    #[error(
        "it has {bytes} bytes and the limit is {limit}; strip it, or raise `component-mib` under [plugin.limits] in plugins.toml"
    )]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Not a component.
    #[error("{0}")]
    Format(&'static str),
    /// Built for a version of the contract that this host does not speak.
    #[error(
        "it was built for {interface} version {found}, and this gateway speaks version {spoken}; build it again with the \
         SDK of version {spoken}, or use a gateway that speaks {found}"
    )]
    ApiVersion {
        /// `tollgate:plugin/cost-model`.
        interface: String,
        /// What the file names.
        found: String,
        /// What the host has.
        spoken: &'static str,
    },
    /// It exports nothing that a plugin must export.
    #[error("it exports {0}; build it with the plugin SDK")]
    Exports(&'static str),
    /// It imports something that no plugin is given.
    #[error("it imports {0}, which no plugin is given; remove what needs it, or build without it")]
    Import(String),
    /// The compiler refused it.
    #[error("it does not compile; it may be truncated or damaged, so copy it again")]
    Compile(#[source] Cause),
    /// It compiles, and asks for memories or tables from the start that no plugin may have.
    #[error("it asks for more memory or tables than a plugin may have; build it with less")]
    Outsized(#[source] Cause),
    /// Compiling it took too long.
    #[error(
        "compiling it takes more than {limit:?} of processor time, so it was stopped; make it smaller, or raise \
         `compile-s` under [plugin.limits] in plugins.toml"
    )]
    CompileTime {
        /// The limit.
        limit: Duration,
    },
    /// Compiling it took too much memory, or made too much of it.
    #[error(
        "compiling it takes more than {limit} bytes of {what}, so it was stopped; make it smaller, or raise \
         `compile-mib` under [plugin.limits] in plugins.toml"
    )]
    CompileMemory {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The compiler broke over it.
    #[error(
        "the compiler crashed on it ({0}); nothing else is affected, but such a file should not be used: build it again"
    )]
    CompilerCrash(String),
    /// The compiler's process cannot be used at all.
    #[error(
        "cannot run the compiler {program}; see that it can be executed and that there are processes to spare"
    )]
    Compiler {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Not the content that `plugins.toml` pins.
    #[error(
        "its SHA-256 is {found}, and plugins.toml has sha256 = {pinned:?}; put the pinned file here, or change the pin if \
         this one is wanted"
    )]
    Pin {
        /// Its digest.
        found: String,
        /// The digest asked for.
        pinned: String,
    },
    /// Its signature is missing or wrong.
    #[error(
        "its signature {file} {what}; sign it with `minisign -S` and a key of which the public half is trusted"
    )]
    Signature {
        /// The signature's file.
        file: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The folder for what the host keeps cannot be used.
    #[error(
        "cannot use {folder} to keep compiled code and the last good plugins; make it writable for this user"
    )]
    State {
        /// The folder.
        folder: String,
        /// Why.
        source: io::Error,
    },
    /// Another host has that folder.
    #[error(
        "{folder} is in use by a running gateway or another command; ask that gateway with --admin URL, or name another \
         data folder"
    )]
    StateInUse {
        /// The folder.
        folder: String,
    },
    /// Its imports or exports have the wrong types.
    #[error("it does not fit the contract; build it again with the plugin SDK")]
    Link(#[source] Cause),
    /// `describe` failed.
    #[error(
        "`describe` failed; have the plugin mended, or raise `start-ms` or `memory-mib` under [plugin.limits] in \
         plugins.toml if it needs more"
    )]
    Describe(#[source] CallFault),
    /// `describe` said something that is not acceptable.
    #[error("`describe` says something unacceptable: {0}; have the plugin mended and built again")]
    Described(String),
    /// `configure` failed.
    #[error(
        "`configure` failed; correct `config` in plugins.toml, or raise `start-ms` or `memory-mib` under [plugin.limits] \
         if it needs more"
    )]
    Configure(#[source] CallFault),
    /// `configure` refused the configuration.
    #[error("it refuses its configuration: {0}; correct `config` in plugins.toml")]
    Configuration(String),
    /// Its currency is not one.
    #[error(
        "`currency` answered {0:?}, which is not an ISO 4217 code such as \"USD\"; correct the currency in its `config`, \
         or have the plugin mended"
    )]
    Currency(String),
    /// It failed on the made-up item that every new file is tried on.
    #[error(
        "it failed the trial call of its {role}; correct `config` in plugins.toml, have the plugin mended, or raise \
         `call-ms` or `memory-mib` under [plugin.limits] if it needs more"
    )]
    Trial {
        /// The role.
        role: &'static str,
        /// How.
        source: CallFault,
    },
    /// Another file has a plugin of this name.
    #[error(
        "its name {name:?} is taken by {other}; remove one of the two, or give each an entry in plugins.toml with a \
         `match` of its own"
    )]
    Duplicate {
        /// The name.
        name: String,
        /// The file that has it.
        other: String,
    },
    /// `plugins.toml` asks for a role that it does not have.
    #[error(
        "`roles` in plugins.toml names {role}, which it does not export; it has {has}: correct `roles`, or leave it out"
    )]
    Roles {
        /// The role.
        role: &'static str,
        /// What it exports.
        has: String,
    },
    /// `plugins.toml` has it price in the shadow, and it does not price.
    #[error(
        "`shadow = true` in plugins.toml is for cost models, and this one is used as {roles} only: it would do nothing at \
         all; take `shadow` out, or say `enabled = false` if that is meant"
    )]
    Shadow {
        /// What it is used as.
        roles: String,
    },
    /// It is asked for a price and is no cost model.
    #[error("it is no cost model but {roles}; name a plugin that has the role cost-model")]
    NoCostModel {
        /// What it does.
        roles: String,
    },
    /// This very content was rolled back from.
    #[error(
        "this content was rolled back: {why}; drop another build, or try it again with `tollgate plugin enable {file}`"
    )]
    Rejected {
        /// The file.
        file: String,
        /// Who rolled it back, and why.
        why: String,
    },
    /// The watcher's thread has too much to do, or is gone.
    #[error("the plugin host is busy or stopping; try again shortly")]
    Busy,
    /// `plugins.toml` names a file that is not there.
    #[error(
        "plugins.toml has an entry for it, but there is no such file{}; put it into the folder, or correct the name",
        near.as_ref().map(|near| format!("; did you mean {near}, which has no entry?")).unwrap_or_default()
    )]
    Absent {
        /// A file without an entry that may have been meant.
        near: Option<String>,
    },
    /// `plugins.toml` is not acceptable.
    #[error("plugins.toml: {0}")]
    Manifest(String),
}

impl PluginHostError {
    /// A short, stable name of what kind of error this is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "folder",
            Self::Engine(_) => "engine",
            Self::Read(_) | Self::NotAFile(_) => "file",
            Self::TooLarge { .. } => "too_large",
            Self::Format(_) => "format",
            Self::ApiVersion { .. } => "api_version",
            Self::Exports(_) | Self::Import(_) | Self::Link(_) => "interface",
            Self::Compile(_) => "compile",
            Self::Outsized(_) => "outsized",
            Self::CompileTime { .. } => "compile_time",
            Self::CompileMemory { .. } => "compile_memory",
            Self::CompilerCrash(_) => "compile_crash",
            Self::Compiler { .. } => "compiler",
            Self::Pin { .. } => "pin",
            Self::Signature { .. } => "signature",
            Self::State { .. } => "state",
            Self::StateInUse { .. } => "state_in_use",
            Self::Describe(_) | Self::Described(_) => "describe",
            Self::Configure(_) | Self::Configuration(_) | Self::Currency(_) => "configure",
            Self::Trial { .. } => "trial",
            Self::Duplicate { .. } => "duplicate",
            Self::Roles { .. } | Self::NoCostModel { .. } => "roles",
            Self::Shadow { .. } => "shadow",
            Self::Rejected { .. } => "rejected",
            Self::Busy => "busy",
            Self::Absent { .. } => "absent",
            Self::Manifest(_) => "manifest",
        }
    }

    /// Whether the same bytes with the same configuration would fail again, so that there is no point in another try.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            // The pin and the signature change without the file.
            Self::Read(_)
            | Self::NotAFile(_)
            | Self::Engine(_)
            | Self::Compiler { .. }
            | Self::Duplicate { .. }
            | Self::Pin { .. }
            | Self::Signature { .. }
            | Self::Rejected { .. } => false,
            Self::Describe(fault) | Self::Configure(fault) | Self::Trial { source: fault, .. } => {
                fault.kind != FaultKind::Unavailable
            }
            _ => true,
        }
    }
}

/// The whole chain of causes in one line.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !line.is_empty() && !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = cause.source();
    }
    text
}

/// One failed call, before it is known whose.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {message}", kind.name())]
pub struct CallFault {
    /// What kind of failure.
    pub kind: FaultKind,
    /// What happened, in one line.
    pub message: String,
    /// Whether the plugin as a whole is to blame, so that its breaker counts it.
    pub(crate) blames_plugin: bool,
}

impl CallFault {
    pub(crate) fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), blames_plugin: true }
    }

    /// The same, but of one item, or of the host: not a reason to stop asking the plugin.
    pub(crate) fn blameless(mut self) -> Self {
        self.blames_plugin = false;
        self
    }

    /// Every place for an instance is taken by one that is at work.
    pub(crate) fn full() -> Self {
        let why = "as many plugin instances are at work as may be; see in `tollgate plugin inspect FILE --admin URL` which \
                   plugin takes long";
        Self::new(FaultKind::Unavailable, why).blameless()
    }

    /// Whether it is no plugin's fault, and may pass soon.
    pub(crate) fn is_full(&self) -> bool {
        self.kind == FaultKind::Unavailable && !self.blames_plugin
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(FaultKind::InvalidAnswer, message)
    }

    pub(crate) fn of(self, plugin: &PluginIdentity) -> PluginFault {
        PluginFault { plugin: plugin.clone(), kind: self.kind, message: self.message }
    }

    /// What an error of wasmtime means. `memory_refused`: whether the guest was denied memory during the call;
    /// `last_words`: the last line it wrote to its standard error.
    pub(crate) fn classify(
        error: &wasmtime::Error,
        memory_refused: bool,
        last_words: &str,
    ) -> Self {
        let said =
            if last_words.is_empty() { String::new() } else { format!("; it said: {last_words}") };
        if let Some(trap) = error.downcast_ref::<Trap>() {
            let (kind, what) = match trap {
                Trap::Interrupt => (FaultKind::Deadline, "it ran past its deadline".to_owned()),
                Trap::StackOverflow => (FaultKind::Stack, "it recursed past its stack".to_owned()),
                Trap::InvalidChar
                | Trap::StringOutOfBounds
                | Trap::ListOutOfBounds
                | Trap::InvalidDiscriminant
                | Trap::UnalignedPointer => {
                    (FaultKind::InvalidAnswer, format!("its answer is malformed: {trap}"))
                }
                _ if memory_refused => {
                    (FaultKind::Memory, "it asked for more memory than it may have".to_owned())
                }
                other => (FaultKind::Trap, other.to_string()),
            };
            return Self::new(kind, what + &said);
        }
        let root = error.root_cause().to_string();
        if root.contains("fuel allocated for hostcalls") {
            return Self::new(
                FaultKind::ResultTooLarge,
                "it handed over more data than the host takes",
            );
        }
        if let Some(denied) = error.downcast_ref::<Denied>() {
            return Self::new(FaultKind::Trap, format!("{denied}{said}"));
        }
        if let Some(rest) = root.strip_prefix("unknown import: `") {
            let function = rest.split('`').next().unwrap_or(rest);
            return Self::new(
                FaultKind::Trap,
                format!("it called {function}, which no plugin is given{said}"),
            );
        }
        if root.contains("handle limit exceeded") {
            return Self::new(FaultKind::Memory, "it holds on to more resources than it may have");
        }
        if memory_refused {
            return Self::new(
                FaultKind::Memory,
                format!("it asked for more memory than it may have{said}"),
            );
        }
        Self::new(FaultKind::InvalidAnswer, format!("its answer is malformed: {root}"))
    }
}

/// A host function ended the call.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Denied(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_every_cause_once() {
        let error = PluginHostError::Describe(CallFault::new(
            FaultKind::Deadline,
            "it ran past its deadline",
        ));
        let text = chain(&error);
        assert!(text.starts_with("`describe` failed; have the plugin mended"), "{text}");
        assert!(text.ends_with("if it needs more: deadline: it ran past its deadline"), "{text}");
    }
}
