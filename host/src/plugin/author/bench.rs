//! `tollgate plugin bench`: what one item costs, by size of batch.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::project::component;
use super::test::{open, written};
use super::{ToolError, project};

#[derive(Args)]
pub(crate) struct Bench {
    /// The project's folder, or a component
    #[arg(default_value = ".")]
    plugin: PathBuf,
    /// Measure this case of `cases`; the first if absent, and a made-up request without cases
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// The configuration, JSON, in place of the case's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(super) fn run(self) -> Result<(), ToolError> {
        let (component, cases) = component(&self.plugin)?;
        let workshop = open(&component)?;
        let cases = if cases.is_dir() { written(&cases)? } else { Vec::new() };
        let case = match &self.case {
            Some(name) => {
                let found = cases.iter().find(|case| case.folder.ends_with(name));
                Some(
                    found
                        .ok_or_else(|| ToolError::Project(format!("no case is named {name:?}")))?,
                )
            }
            None => cases.first(),
        };
        let config = match (&self.config, case) {
            (Some(path), _) => project::read(path)?,
            (None, Some(case)) => case.config.clone(),
            (None, None) => "{}".to_owned(),
        };
        let measures = workshop
            .bench(&config, case.map(|case| &case.case))
            .map_err(|source| ToolError::Plugin { path: component.clone(), source })?;
        let about = workshop.about();
        let kib = |bytes: u64| bytes.div_ceil(1024);
        if self.json {
            let calls: Vec<_> = measures
                .calls
                .iter()
                .map(|m| {
                    json!({
                        "role": m.role.name(), "batch": m.batch, "p50_ns": m.p50_ns, "p99_ns": m.p99_ns,
                        "fuel": m.fuel, "bytes_in": m.bytes_in, "bytes_out": m.bytes_out,
                    })
                })
                .collect();
            let whole = json!({
                "plugin": about.plugin.name, "digest": about.plugin.digest, "calls": calls,
                "component_bytes": about.component_bytes, "compiled_bytes": about.compiled_bytes,
                "compile_ms": about.compiled_in.as_millis(), "start_us": measures.start.as_micros(),
            });
            println!("{whole}");
            return Ok(());
        }
        println!("{} {}", about.plugin.name, about.plugin.version);
        println!(
            "  component {} KiB, compiled {} KiB in {:.1?}, an instance starts in {:.1?}",
            kib(about.component_bytes),
            kib(about.compiled_bytes),
            about.compiled_in,
            measures.start
        );
        println!(
            "{:<20}{:>6}{:>12}{:>12}{:>12}{:>10}{:>10}",
            "for each item", "batch", "p50 ns", "p99 ns", "fuel", "bytes in", "out"
        );
        for m in &measures.calls {
            println!(
                "{:<20}{:>6}{:>12}{:>12}{:>12}{:>10}{:>10}",
                m.role.name(),
                m.batch,
                m.p50_ns,
                m.p99_ns,
                m.fuel,
                m.bytes_in,
                m.bytes_out
            );
        }
        Ok(())
    }
}
