//! Files that somebody may have meant to be plugins, and that are none by their names: each is told of once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::folder;

/// Most of them that are told of.
const MOST: usize = 64;
/// How packed files end.
const PACKED: [&str; 6] = [".gz", ".zst", ".xz", ".bz2", ".br", ".zip"];

/// What was seen so far, and in how many scans in a row: a link may lead nowhere for a moment.
#[derive(Default)]
pub(crate) struct Ignored(BTreeMap<String, u32>);

impl Ignored {
    /// Looks at the folder, and tells of what is there for the second time. Answers what it told.
    pub fn look(&mut self, folder: &Path) -> Vec<(String, &'static str)> {
        let found = files(folder);
        self.0.retain(|name, _| found.contains_key(name));
        let mut told = Vec::new();
        for (name, why) in found {
            let seen = self.0.entry(name.clone()).or_default();
            *seen = seen.saturating_add(1);
            if *seen == 2 {
                tracing::warn!(file = name, "ignored in the plugin folder: {why}");
                told.push((name, why));
            }
        }
        told
    }
}

fn files(folder: &Path) -> BTreeMap<String, &'static str> {
    let mut found = BTreeMap::new();
    // Whoever lists it says what is wrong with it.
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if found.len() < MOST
            && let Some(why) = why(folder, &name)
        {
            found.insert(name, why);
        }
    }
    found
}

fn why(folder: &Path, name: &str) -> Option<&'static str> {
    if folder::is_plugin_name(name) {
        let dangles = fs::metadata(folder.join(name)).is_err();
        return dangles
            .then_some("it is a link that leads nowhere; put the file there, or remove the link");
    }
    if name.starts_with(['.', '~', '#']) || name.chars().any(char::is_control) {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let unpacked = PACKED.iter().find_map(|packed| lower.strip_suffix(packed));
    if unpacked.is_some_and(|name| name.ends_with(".wasm")) {
        Some("it is packed; unpack it")
    } else if lower.ends_with(".wasm") {
        Some("the names of plugins end in .wasm, in small letters; rename it")
    } else if lower.ends_with(".cwasm") {
        Some("compiled machine code is never loaded from here; put the .wasm component here")
    } else if lower.ends_with(".wat") || lower.ends_with(".wast") {
        Some("it is the text of a module; put the .wasm component here")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_of_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let told_of = ["A.WASM", "a.wasm.GZ", "b.cwasm", "c.wat"];
        let silent =
            ["a.wasm", ".a.wasm", "a.wasm~", "a.wasm.minisig", "plugins.toml", "README.md", "a.gz"];
        for name in told_of.iter().chain(&silent) {
            fs::write(at(name), "").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("nowhere", at("z.wasm")).unwrap();
        let mut ignored = Ignored::default();
        assert_eq!(ignored.look(folder.path()), []);
        let told: Vec<String> =
            ignored.look(folder.path()).into_iter().map(|(name, _)| name).collect();
        let link = if cfg!(unix) { &["z.wasm"][..] } else { &[] };
        assert_eq!(told, [&told_of[..], link].concat());
        assert_eq!(ignored.look(folder.path()), []);
        // One that goes and comes again is another.
        fs::remove_file(at("c.wat")).unwrap();
        assert_eq!(ignored.look(folder.path()), []);
        fs::write(at("c.wat"), "").unwrap();
        assert_eq!(ignored.look(folder.path()), []);
        assert_eq!(ignored.look(folder.path()).len(), 1);
    }
}
