//! Pages of the documentation for the archive, where fewer files lie, and some elsewhere than in the repository: links lead to
//! where a page lies there, and what does not lie there is named and linked no more.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// `text`, the page `from` of the repository, for its place in the archive. `places`: where each file of the repository
/// lies in the archive.
pub(crate) fn relink(text: &str, from: &str, places: &BTreeMap<&str, &str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, link)) = next_link(rest) {
        out.push_str(before);
        out.push_str(&match moved(link.target, from, places) {
            Some(target) => format!("{}[{}]({target})", link.mark, link.text),
            None => link.text.to_owned(),
        });
        rest = link.after;
    }
    out.push_str(rest);
    out
}

struct Link<'a> {
    /// `!` of an image.
    mark: &'a str,
    text: &'a str,
    target: &'a str,
    after: &'a str,
}

/// The first `[text](target)` of a text, and what stands before it. Neither part has brackets of its own in our pages.
fn next_link(text: &str) -> Option<(&str, Link<'_>)> {
    let mut searched = 0;
    loop {
        let middle = searched + text.get(searched..)?.find("](")?;
        let (head, tail) = (text.get(..middle)?, text.get(middle + 2..)?);
        searched = middle + 2;
        let (Some(open), Some(close)) = (head.rfind('['), tail.find(')')) else { continue };
        let (target, after) = (tail.get(..close)?, tail.get(close + 1..)?);
        let label = head.get(open + 1..)?;
        if target.contains(char::is_whitespace) || label.contains(']') {
            continue;
        }
        let before = head.get(..open)?;
        let mark = if before.ends_with('!') { "!" } else { "" };
        let before = before.strip_suffix(mark).unwrap_or(before);
        return Some((before, Link { mark, text: label, target, after }));
    }
}

/// Where a link leads in the archive; none if its file is not there.
fn moved(target: &str, from: &str, places: &BTreeMap<&str, &str>) -> Option<String> {
    if target.contains("://") || target.starts_with('#') {
        return Some(target.to_owned());
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, format!("#{anchor}")),
        None => (target, String::new()),
    };
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    let file = plain(&folder.join(path))?;
    let to = places.get(file.to_str()?)?;
    let here = Path::new(places.get(from)?).parent().unwrap_or(Path::new(""));
    let up = "../".repeat(here.components().count());
    Some(format!("{up}{to}{anchor}"))
}

/// Without `.` and `..`; none if it leads out of the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir => plain.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_what_is_there_and_nowhere_else() {
        let places = BTreeMap::from([
            ("README.md", "README.md"),
            ("host/OTLP.md", "docs/OTLP.md"),
            ("host/SIZING.md", "docs/SIZING.md"),
            ("host/a.png", "docs/a.png"),
        ]);
        let text = "![A page](host/a.png) and [spans](host/OTLP.md#whole-traces), [none](host/NONE.md), a[0](x y) \
                    and [elsewhere](https://example.org/a).";
        assert_eq!(
            relink(text, "README.md", &places),
            "![A page](docs/a.png) and [spans](docs/OTLP.md#whole-traces), none, a[0](x y) and \
             [elsewhere](https://example.org/a)."
        );
        let text =
            "[here](#there) [`sizing`](SIZING.md) [first](../README.md#run-it) [out](../../x.md)";
        assert_eq!(
            relink(text, "host/OTLP.md", &places),
            "[here](#there) [`sizing`](../docs/SIZING.md) [first](../README.md#run-it) out"
        );
        assert_eq!(relink("[half](", "README.md", &places), "[half](");
    }
}
