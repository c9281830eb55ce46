//! Swaps of the plugin folder under load, as often as one likes: `tests/test_swaps.py` in release, by its count.

use std::process::Command;

use crate::process::{Outcome, cargo, root, run, target};
use crate::{building, python};

/// How often if nobody says.
const COUNT: u32 = 1000;

/// `[--count N]`
pub(crate) fn swaps(arguments: &[String]) -> Outcome {
    let count = match arguments {
        [] => COUNT,
        [flag, number] if flag == "--count" => {
            number.parse().map_err(|_| "--count takes a whole number".to_owned())?
        }
        _ => return Err("takes `--count N` and nothing else".to_owned()),
    };
    building::build_plugins()?;
    run(&mut cargo(["build", "--locked", "--release", "-p", "tollgate"]))?;
    let mut pytest = Command::new(python::environment()?);
    pytest.args(["-m", "pytest", "-s", "tests/test_swaps.py"]).current_dir(root());
    pytest.env("TOLLGATE_BIN", target().join("release").join("tollgate"));
    pytest.env("TOLLGATE_COMPONENTS", building::components_folder());
    run(pytest.env("TOLLGATE_SWAPS", count.to_string()))
}
