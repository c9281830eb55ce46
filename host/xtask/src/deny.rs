//! `cargo deny`, by the rules of `.deny.toml`, over both workspaces.
//!
//! Not a step of `cargo xtask test`, since it takes minutes to install and its database of advisories comes from GitHub.
//! `tests/test_licences.py` holds licences and sources at each run.

use crate::building::plugins_folder;
use crate::process::{Outcome, root, run};
use crate::tools::Tool;

const TOOL: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

/// What is known without a network.
const LOCAL: [&str; 3] = ["bans", "licenses", "sources"];

/// Runs all checks, or with `--offline` those that need no database.
pub(crate) fn deny(arguments: &[String]) -> Outcome {
    let offline = match arguments {
        [] => false,
        [flag] if flag == "--offline" => true,
        _ => return Err("takes `--offline` and nothing else".to_owned()),
    };
    let program = TOOL.installed()?;
    for folder in [root(), plugins_folder()] {
        let mut command = std::process::Command::new(&program);
        command.current_dir(&folder).arg("--locked").arg("--config").arg(root().join(".deny.toml"));
        command.args(["check", "--hide-inclusion-graph"]);
        // What only the other workspace needs is no mistake of the rules.
        command.args(["--allow", "license-not-encountered"]).args(LOCAL);
        if !offline {
            command.arg("advisories");
        }
        run(&mut command).map_err(|reason| match offline {
            true => reason,
            false => format!(
                "{reason}; if its database of advisories cannot be reached, `cargo xtask deny --offline` checks the rest"
            ),
        })?;
    }
    Ok(())
}
