//! Packs a release: the program, its plugins, manual and completions, the licences of all that is in it, a bill of materials
//! (CycloneDX), and checksums.
//!
//! It builds nothing; `cargo xtask release` does, and then calls this. What comes out depends on what goes in and on nothing
//! else: entries are sorted, every time is the one that is given, and no path of the machine is in any file. A crate of
//! its own, since xtask, which has to start within seconds, has no dependencies.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod archive;
mod cargo;
mod error;
mod licences;
mod npm;
mod pages;
mod part;
mod sbom;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use sha2::{Digest, Sha256};

use archive::Entry;
use error::ReleaseError;

/// What is packed, and where it goes.
#[derive(Debug, Parser)]
struct Wanted {
    /// The top of the repository.
    #[arg(long, value_name = "FOLDER")]
    root: PathBuf,
    /// The program. It is run, for its manual and completions.
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// The components of the plugins' build.
    #[arg(long, value_name = "FOLDER")]
    components: PathBuf,
    /// The folder of cargo's build outputs that the program lies in: the dashboard's packages are looked for there.
    #[arg(long, value_name = "FOLDER")]
    built: PathBuf,
    /// The program has no dashboard.
    #[arg(long)]
    without_dashboard: bool,
    /// What the program was compiled for.
    #[arg(long, value_name = "TRIPLE")]
    target: String,
    /// The time that all files get, in seconds since 1970.
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    epoch: u32,
    /// Where archive, bill of materials and checksums are written.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match pack(&Wanted::parse()) {
        Ok(files) => {
            for file in files {
                println!("{}", file.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("tollgate-release: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pack(wanted: &Wanted) -> Result<Vec<PathBuf>, ReleaseError> {
    let plugins = stage::plugins(&wanted.root, &wanted.components)?;
    let mut parts = cargo::program(&wanted.root, &wanted.target)?;
    if !wanted.without_dashboard {
        npm::add(&mut parts, &wanted.root, &wanted.built)?;
    }
    for plugin in &plugins {
        cargo::add_plugin(&mut parts, &wanted.root, plugin)?;
    }
    let version = parts.product()?.version.clone();
    let bill = sbom::written(&parts, wanted.epoch)?;
    let name = format!("tollgate-{version}-{}", wanted.target);
    let mut entries = stage::entries(&wanted.root, &wanted.program, plugins)?;
    entries.push(Entry::file("LICENCES-OF-PARTS.txt", licences::written(&parts)?.into_bytes()));
    entries.push(Entry::file("sbom.cdx.json", bill.clone()));
    let archive = archive::written(&name, entries, wanted.epoch)?;
    let files = [(format!("{name}.tar.gz"), archive), (format!("{name}.cdx.json"), bill)];
    let sums: String =
        files.iter().map(|(name, content)| format!("{}  {name}\n", sha256(content))).collect();
    let mut paths = Vec::new();
    for (name, content) in files.into_iter().chain([("SHA256SUMS".to_owned(), sums.into_bytes())]) {
        paths.push(write(&wanted.out, &name, &content)?);
    }
    Ok(paths)
}

fn write(folder: &Path, name: &str, content: &[u8]) -> Result<PathBuf, ReleaseError> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, content))
        .map_err(|source| ReleaseError::Write { path: path.clone(), source })?;
    Ok(path)
}

/// The SHA-256 in small hexadecimal digits.
fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
