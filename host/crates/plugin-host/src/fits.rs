//! Whether what plugins.toml says of a plugin means anything for what it does.

use crate::error::PluginHostError;
use crate::manifest::Entry;
use crate::role::Role;

/// Refuses what would switch off what the plugin does, or asks for what it does not. `has`: what it exports.
pub(crate) fn check(has: &[Role], entry: &Entry) -> Result<(), PluginHostError> {
    let mut wanted = entry.roles.iter().flatten();
    if let Some(role) = wanted.find(|role| !has.contains(role)) {
        return Err(PluginHostError::Roles { role: role.name(), has: names(has) });
    }
    let roles = used(has, entry);
    if entry.shadow && !roles.contains(&Role::CostModel) {
        return Err(PluginHostError::Shadow { roles: names(&roles) });
    }
    Ok(())
}

/// Settings that do nothing for it.
pub(crate) fn idle(has: &[Role], entry: &Entry) -> Vec<&'static str> {
    if used(has, entry).contains(&Role::ExportFilter) {
        return Vec::new();
    }
    let settings = [
        (entry.whole_traces, "whole-traces: it is no export-filter"),
        (entry.matching.names_exporters(), "match.exporters: it is no export-filter"),
    ];
    settings.into_iter().filter_map(|(is_set, what)| is_set.then_some(what)).collect()
}

fn used(has: &[Role], entry: &Entry) -> Vec<Role> {
    let is_used = |role: &&Role| entry.roles.as_ref().is_none_or(|roles| roles.contains(role));
    has.iter().filter(is_used).copied().collect()
}

fn names(roles: &[Role]) -> String {
    roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn what_means_nothing_is_refused_or_named() {
        use Role::{AttributeEnricher, CostModel, ExportFilter};
        let cases: [(&[Role], &str, &str, usize); 8] = [
            (&[CostModel], "shadow = true", "", 0),
            (&[CostModel, ExportFilter], "shadow = true", "", 0),
            (&[ExportFilter], "shadow = true", "shadow", 0),
            (&[CostModel, ExportFilter], "shadow = true\nroles = [\"export-filter\"]", "shadow", 0),
            (&[CostModel], "roles = [\"export-filter\"]", "roles", 0),
            (&[CostModel], "whole-traces = true\nmatch = { exporters = [\"otlp\"] }", "", 2),
            (&[CostModel, ExportFilter], "match = { exporters = [\"otlp\"] }", "", 0),
            (&[AttributeEnricher], "match = { exporters = [\"otlp\"], models = [\"m\"] }", "", 1),
        ];
        for (has, text, refused, idle_settings) in cases {
            let text = format!("[[plugin]]\nfile = \"a.wasm\"\n{text}\n");
            let entry = Manifest::parse(&text).unwrap().entry("a.wasm");
            let kind = check(has, &entry).map_or_else(|error| error.kind(), |()| "");
            assert_eq!((kind, idle(has, &entry).len()), (refused, idle_settings), "{text}");
        }
    }
}
