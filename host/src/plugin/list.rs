//! `tollgate plugin list`: the plugins of a running gateway, or, without one, what the gate says
//! to each file of a folder.

use tollgate_http_api::{PluginView, PluginsView};

use super::place::{Opened, Place};
use super::{PluginError, pretty};
use crate::admin::Ask;
use crate::table::{Table, short};

/// Which plugins.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,

    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A list, and what it makes of the folder.
pub(super) struct Listed {
    /// For standard output.
    pub(super) text: String,
    /// What in the folder is not used as it lies there, in words; `None` also where nobody asked for that.
    pub(super) not_used: Option<String>,
}

/// The list. That of a running gateway tells how it is; that of a folder is a check of it.
pub(super) fn run(arguments: &Arguments) -> Result<Listed, PluginError> {
    let (found, is_check) = match arguments.place.open()? {
        Opened::Gateway(client) => {
            let found: PluginsView = client.ask(&Ask::Get, &["admin", "plugins"])?;
            (found, false)
        }
        Opened::Folder(host) => {
            let plugins = host.status().iter().map(PluginView::from).collect();
            (PluginsView { generation: host.pin().generation(), plugins }, true)
        }
    };
    let text = if arguments.json { pretty(&found)? } else { table(&found.plugins) };
    Ok(Listed { text, not_used: not_used(&found.plugins).filter(|_| is_check) })
}

/// Which files are not used as they lie in the folder: those that are refused, and those in whose place an older
/// content serves. What was disabled was meant to be.
pub(super) fn not_used(plugins: &[PluginView]) -> Option<String> {
    let is_not = |plugin: &&PluginView| plugin.error.is_some() || plugin.state == "held";
    let files: Vec<&str> = plugins.iter().filter(is_not).map(|plugin| &*plugin.file).collect();
    let (is, it) = if files.len() == 1 { ("is", "it lies") } else { ("are", "they lie") };
    (!files.is_empty()).then(|| {
        format!("{} {is} not used as {it} in the folder; the list says why", files.join(", "))
    })
}

/// One line for each file, and what is wrong with it below.
pub(super) fn table(plugins: &[PluginView]) -> String {
    if plugins.is_empty() {
        return "no plugins".to_owned();
    }
    let mut table = Table::new(["FILE", "PLUGIN", "VERSION", "ROLES", "STATE", "DIGEST", "SINCE"]);
    for plugin in plugins {
        let identity = plugin.plugin.as_ref();
        let digest = identity.map(|identity| identity.digest.as_str());
        table.row([
            plugin.file.as_str(),
            identity.map_or("-", |identity| &identity.name),
            identity.map_or("-", |identity| &identity.version),
            &some(&plugin.roles.join(",")),
            &state(plugin),
            digest.map_or("-", short),
            &since(plugin),
        ]);
        if let Some(held) = &plugin.held {
            table.note(&format!("held: {held}"));
        }
        if let Some(error) = &plugin.error {
            table.note(&format!("{}: {}", error.kind, error.message));
        }
    }
    table.text()
}

/// The state, and the breaker's where it is not closed.
fn state(plugin: &PluginView) -> String {
    match plugin.breaker.state.as_str() {
        "closed" => plugin.state.clone(),
        breaker => format!("{} (breaker {})", plugin.state, breaker.replace('_', "-")),
    }
}

/// The time to the second.
fn since(plugin: &PluginView) -> String {
    let since = plugin.since.as_deref().unwrap_or_default();
    some(&since.split_once('.').map_or(since.to_owned(), |(seconds, _)| format!("{seconds}Z")))
}

fn some(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_for_people() {
        let plugin = |file: &str, state: &str, breaker: &str, error: serde_json::Value| {
            let plugin: PluginView = serde_json::from_value(json!({
                "file": file, "state": state, "enabled": true, "shadow": false,
                "plugin": {"name": "acme/price", "version": "1.0.0", "digest": "ab".repeat(32)},
                "description": null, "api_version": null, "roles": ["cost-model", "export-filter"],
                "since": "2026-11-22T20:00:01.250Z", "isolation": "plugin",
                "breaker": {"state": breaker}, "held": null, "previous": null,
                "digest_of_file": null, "error": error,
            }))
            .unwrap();
            plugin
        };
        let error = json!({"kind": "compile", "message": "it does not compile"});
        let mut refused = plugin("long-name.wasm", "refused", "closed", error);
        (refused.plugin, refused.since, refused.roles) = (None, None, Vec::new());
        let text = table(&[
            plugin("a.wasm", "serving", "half_open", serde_json::Value::Null),
            refused.clone(),
        ]);
        assert_eq!(
            text,
            "\
FILE            PLUGIN      VERSION  ROLES                     STATE                        DIGEST        SINCE
a.wasm          acme/price  1.0.0    cost-model,export-filter  serving (breaker half-open)  abababababab  2026-11-22T20:00:01Z
long-name.wasm  -           -        -                         refused                      -             -
  compile: it does not compile
"
        );
        assert_eq!(table(&[]), "no plugins");
        let mut held = plugin("held.wasm", "held", "closed", serde_json::Value::Null);
        held.held = Some("rolled back".to_owned());
        let off = plugin("off.wasm", "disabled", "closed", serde_json::Value::Null);
        let fine = plugin("a.wasm", "serving", "open", serde_json::Value::Null);
        assert_eq!(not_used(&[fine.clone(), off]), None);
        assert_eq!(
            not_used(&[fine, refused.clone(), held]).unwrap(),
            "long-name.wasm, held.wasm are not used as they lie in the folder; the list says why"
        );
        let one = "long-name.wasm is not used as it lies in the folder; the list says why";
        assert_eq!(not_used(&[refused]).unwrap(), one);
    }
}
