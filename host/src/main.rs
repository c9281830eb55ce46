//! The `tollgate` command.

mod admin;
mod audit;
mod config;
mod doctor;
mod health;
mod key;
mod log;
mod manual;
mod plugin;
mod prices;
mod table;
mod top;

use std::io::{Read, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tollgate_settings::{Given, Settings};

/// Requests of many sizes are made and dropped on many threads at once, for weeks: the allocator that gateways take for
/// that. The ledger's SQLite has it, too.
#[cfg(all(unix, not(target_env = "musl")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Observability gateway for LLM inference.
#[derive(Parser)]
#[command(name = "tollgate", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve an OpenAI-compatible API, traced and priced
    Serve(Box<Given>),
    /// Examine whether a gateway could run with the same settings, and say how to mend what is wrong
    Doctor(Box<doctor::Doctor>),
    /// Ask the gateway with the same settings whether it takes requests: exit code 0 if it does, 1 if not
    Health(Box<health::Health>),
    /// Write a settings file in which every setting is explained
    Init(config::Init),
    /// Check a settings file, or show its JSON Schema
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Estimate how many tokens a text has, with OpenAI's tokenizers
    Count {
        /// Model whose tokenizer to use; one that is not OpenAI's is estimated with cl100k_base
        #[arg(long, default_value = "gpt-4o-mini")]
        model: String,
        /// The text; standard input if absent
        text: Option<String>,
    },
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Write, build, test, check, list and steer plugins
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    Report(Box<audit::Report>),
    Reprice(Box<audit::Reprice>),
    Top(top::Top),
    /// Check the ledger itself
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    Reconcile(Box<audit::Reconcile>),
    ImportPrices(prices::ImportPrices),
    /// Write what a shell completes this command with, to be put where it looks for that
    Completions(manual::Completions),
    /// Show the manual page, or write those of all commands
    Man(manual::Man),
    /// What a gateway runs to compile a plugin: WebAssembly in, machine code out
    #[command(hide = true)]
    PluginCompiler {
        /// Address space
        #[arg(long)]
        memory_bytes: u64,
        /// Processor time
        #[arg(long)]
        cpu_seconds: u64,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(given) => serve(*given),
        Command::Doctor(arguments) => doctor::run(*arguments),
        Command::Health(arguments) => health::run(*arguments),
        Command::Init(arguments) => config::init(&arguments),
        Command::Config(command) => config::run(command),
        Command::Count { model, text } => count(&model, text),
        Command::Key(command) => key::run(command),
        Command::Plugin(command) => plugin::run(command),
        Command::Report(arguments) => audit::report(&arguments),
        Command::Reprice(arguments) => audit::reprice(&arguments),
        Command::Audit(command) => audit::audit(&command),
        Command::Reconcile(arguments) => audit::reconcile(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::ImportPrices(arguments) => prices::run(&arguments),
        Command::Completions(arguments) => manual::completions(Arguments::command(), &arguments),
        Command::Man(arguments) => manual::man(Arguments::command(), &arguments),
        Command::PluginCompiler { memory_bytes, cpu_seconds } => {
            tollgate_plugin_host::run_compiler(memory_bytes, cpu_seconds).into()
        }
    }
}

fn serve(given: Given) -> ExitCode {
    let settings = match config::resolve(given) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, 2),
    };
    if let Err(message) = log::start(&settings.log, settings.log_format) {
        return fail(&message, 2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}"), 1),
    };
    runtime.block_on(async {
        match run(settings).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => fail(&*error, 1),
        }
    })
}

/// Runs until SIGTERM or SIGINT; whether everything was drained.
async fn run(settings: Settings) -> Result<bool, Box<dyn std::error::Error>> {
    // Before anything is started, so that a signal sent while a model loads is not lost.
    let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
    let running = tollgate::start(settings).await?;
    tokio::select! {
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
    }
    let clean = running.shut_down().await;
    tracing::info!(clean, "stopped");
    Ok(clean)
}

fn signal(kind: tokio::signal::unix::SignalKind) -> std::io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(kind)
}

#[expect(clippy::print_stdout, reason = "its answer is its output")]
fn count(model: &str, text: Option<String>) -> ExitCode {
    let text = match text {
        Some(text) => text,
        None => {
            let mut text = String::new();
            if let Err(error) = std::io::stdin().read_to_string(&mut text) {
                return fail(&format!("cannot read standard input: {error}"), 1);
            }
            text
        }
    };
    println!("{} (estimate)", tollgate_model::estimate::count_tokens(model, &text));
    ExitCode::SUCCESS
}

/// A reader that has seen enough and closed the pipe is no error.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}

#[expect(clippy::print_stderr, reason = "the log may not run yet")]
fn fail(error: &(impl std::fmt::Display + ?Sized), code: u8) -> ExitCode {
    eprintln!("tollgate: {error}");
    ExitCode::from(code)
}
