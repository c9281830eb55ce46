//! Builds of the hostile fixture that differ in what cannot be configured: its description.

use crate::building::{WASM, components_folder, plugins_folder};
use crate::process::{Outcome, cargo_in, copy_if_changed, run};

/// The crate, and its features: each gives a component of its own, `hostile_FEATURE.wasm`.
const PACKAGE: &str = "hostile";
const FEATURES: &[&str] =
    &["describe-loop", "describe-trap", "describe-changes", "describe-huge", "other-name"];

/// Builds each. The ordinary build comes afterwards, since they all leave their output in the same place first.
pub(crate) fn build_variants() -> Outcome {
    for feature in FEATURES {
        let arguments = ["build", "--locked", "--release", "--target", WASM, "-p", PACKAGE];
        let mut command = cargo_in(&plugins_folder(), arguments);
        command.args(["--features", feature, "--quiet", "--target-dir"]);
        run(command.arg(plugins_folder().join("target")))?;
        let name = format!("{PACKAGE}_{}.wasm", feature.replace('-', "_"));
        let output = components_folder().join(format!("{PACKAGE}.wasm"));
        copy_if_changed(&output, &components_folder().join(name))?;
    }
    Ok(())
}
