//! Two JSON values beside each other: the lines that differ, and a few around them.

use serde_json::Value;
use similar::TextDiff;

/// A unified diff, indented.
pub(super) fn lines(old_name: &str, old: &Value, new_name: &str, new: &Value) -> String {
    let (old, new) = (format!("{old:#}\n"), format!("{new:#}\n"));
    let diff = TextDiff::from_lines(&old, &new);
    let mut shown = String::new();
    for line in diff.unified_diff().context_radius(3).header(old_name, new_name).to_string().lines()
    {
        shown.push_str("      ");
        shown.push_str(line);
        shown.push('\n');
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn what_differs_is_marked() {
        let (old, new) = (json!({ "a": 1, "total": "0.1" }), json!({ "a": 1, "total": "0.2" }));
        let shown = super::lines("out.json", &old, "answer", &new);
        assert!(shown.contains("      -  \"total\": \"0.1\"\n"), "{shown}");
        assert!(shown.contains("      +  \"total\": \"0.2\"\n"), "{shown}");
    }
}
