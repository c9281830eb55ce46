//! What `tollgate plugin new` writes, compiled into this program: the example plugins, the SDKs and the contract.
//!
//! The Rust SDK is not on a registry, so a project gets its sources, with a manifest that stands alone.

use include_dir::{Dir, include_dir};

use super::project::Language;

/// A file to write: its path in the project, and what is in it.
pub(super) type Written = (String, String);

static EXAMPLES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/examples");
static RUST_SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk/src");
const RUST_SDK_MANIFEST: &str = include_str!("../../../../plugins/sdk/Cargo.toml");
const WORKSPACE_MANIFEST: &str = include_str!("../../../../plugins/Cargo.toml");
const LOCK: &str = include_str!("../../../../plugins/Cargo.lock");
const CONTRACT: &str = include_str!("../../../../wit/since-v0.1.0/plugin.wit");
const PYTHON_FILTER: &str = include_str!("../../../../plugins/sdk-python/tollgate_filter.py");
const PYTHON_MONEY: &str = include_str!("../../../../plugins/sdk-python/tollgate_money.py");
const PYTHON_SPANS: &str = include_str!("../../../../plugins/sdk-python/tollgate_spans.py");
const PYTHON_USAGE: &str = include_str!("../../../../plugins/sdk-python/tollgate_usage.py");
const PYTHON_REQUIREMENTS: &str = include_str!("../../../../plugins/sdk-python/requirements.txt");
const JAVASCRIPT_FILTER: &str =
    include_str!("../../../../plugins/sdk-javascript/tollgate-filter.js");
const JAVASCRIPT_MONEY: &str = include_str!("../../../../plugins/sdk-javascript/tollgate-money.js");
const JAVASCRIPT_SPANS: &str = include_str!("../../../../plugins/sdk-javascript/tollgate-spans.js");
const JAVASCRIPT_USAGE: &str = include_str!("../../../../plugins/sdk-javascript/tollgate-usage.js");
const PACKAGE: &str = include_str!("../../../../plugins/sdk-javascript/package.json");
const PACKAGE_LOCK: &str = include_str!("../../../../plugins/sdk-javascript/package-lock.json");

/// The example of a language and role (`cost`, `enricher`, `filter`, `trace-filter`), under another name.
pub(super) fn example(language: Language, role: &str, name: &str) -> Vec<Written> {
    let example = format!("{}-{role}", language.name());
    let mut files = Vec::new();
    if let Some(folder) = EXAMPLES.get_dir(&example) {
        collect(folder, &mut files);
    }
    for (path, content) in &mut files {
        *path = path.strip_prefix(&format!("{example}/")).unwrap_or(path).to_owned();
        *content = content.replace(&example, name);
    }
    files
}

/// What a project of this language and role needs beside its own files.
pub(super) fn beside(language: Language, role: &str) -> Vec<Written> {
    let file = |path: &str, content: &str| (path.to_owned(), content.to_owned());
    let ignored = file(".gitignore", "/build\n/target\n/node_modules\n/.venv\n__pycache__/\n");
    let contract = file("wit/deps/tollgate-plugin/plugin.wit", CONTRACT);
    let mut files = vec![ignored];
    match language {
        Language::Rust => files.push(file("Cargo.lock", LOCK)),
        Language::Python => files.extend([contract, file("requirements.txt", PYTHON_REQUIREMENTS)]),
        Language::Javascript => files.extend([
            contract,
            file("package.json", PACKAGE),
            file("package-lock.json", PACKAGE_LOCK),
        ]),
    }
    files.extend(sdk(language, role).into_iter().map(|(path, content)| file(path, content)));
    files
}

/// The parts of the SDK that a role needs; Rust has its own as a crate.
fn sdk(language: Language, role: &str) -> Vec<(&'static str, &'static str)> {
    let [money, usage, spans, filter] = match language {
        Language::Rust => return Vec::new(),
        Language::Python => [
            ("tollgate_money.py", PYTHON_MONEY),
            ("tollgate_usage.py", PYTHON_USAGE),
            ("tollgate_spans.py", PYTHON_SPANS),
            ("tollgate_filter.py", PYTHON_FILTER),
        ],
        Language::Javascript => [
            ("tollgate-money.js", JAVASCRIPT_MONEY),
            ("tollgate-usage.js", JAVASCRIPT_USAGE),
            ("tollgate-spans.js", JAVASCRIPT_SPANS),
            ("tollgate-filter.js", JAVASCRIPT_FILTER),
        ],
    };
    match role {
        "cost" => vec![money, usage],
        "filter" => vec![spans, filter],
        "trace-filter" => vec![spans, filter, money],
        _ => vec![spans],
    }
}

/// The Rust SDK as a crate that stands alone, below `folder/`.
pub(super) fn rust_sdk(folder: &str) -> Vec<Written> {
    let mut files = Vec::new();
    collect(&RUST_SDK, &mut files);
    for (path, content) in &mut files {
        *path = format!("{folder}/src/{path}");
        *content = content.replace("../../wit/since-v0.1.0", "wit");
    }
    files.push((format!("{folder}/Cargo.toml"), standing_alone(RUST_SDK_MANIFEST)));
    files.push((format!("{folder}/wit/plugin.wit"), CONTRACT.to_owned()));
    files
}

/// The profiles that keep a component small and its build short, which only a workspace's own manifest can have.
pub(super) fn release_profile() -> &'static str {
    let from = WORKSPACE_MANIFEST.find("[profile.release]").unwrap_or(WORKSPACE_MANIFEST.len());
    WORKSPACE_MANIFEST.get(from..).unwrap_or_default()
}

/// A manifest with everything in place that it takes from its workspace, and without what only the workspace's own
/// tests and lints need.
fn standing_alone(manifest: &str) -> String {
    let mut alone = String::new();
    let mut kept = true;
    for line in manifest.lines() {
        if line.starts_with('[') {
            kept = !matches!(line, "[dev-dependencies]" | "[lints]");
        }
        if !kept {
            continue;
        }
        let key = line.strip_suffix(".workspace = true");
        let given = key.and_then(|key| {
            let prefix = format!("{key} = ");
            WORKSPACE_MANIFEST.lines().find(|line| line.starts_with(&prefix))
        });
        alone.push_str(given.unwrap_or(line));
        alone.push('\n');
    }
    alone
}

fn collect(folder: &Dir<'_>, files: &mut Vec<Written>) {
    for file in folder.files() {
        if let (Some(path), Some(content)) = (file.path().to_str(), file.contents_utf8()) {
            files.push((path.to_owned(), content.to_owned()));
        }
    }
    folder.dirs().for_each(|inner| collect(inner, files));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_stands_alone() {
        let files = rust_sdk("sdk");
        assert!(files.len() > 20, "{}", files.len());
        for (path, content) in &files {
            assert!(!content.contains("../../wit"), "{path}");
            assert!(!content.contains("workspace = true"), "{path}: {content}");
        }
        let profile = release_profile();
        assert!(profile.contains("panic = \"abort\"") && profile.contains("build-override"));
    }

    #[test]
    fn there_is_an_example_of_everything() {
        for language in [Language::Rust, Language::Python, Language::Javascript] {
            for role in ["cost", "enricher", "filter", "trace-filter"] {
                let files = example(language, role, "acme-thing");
                let has = |end: &str| files.iter().any(|(path, _)| path.ends_with(end));
                assert!(has("README.md") && has("config.schema.json") && has("in.json"));
                assert!(has("out.json"), "{} {role}", language.name());
                let old = format!("{}-{role}", language.name());
                assert!(files.iter().all(|(_, content)| !content.contains(&old)));
            }
        }
    }
}
