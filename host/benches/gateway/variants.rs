//! What of a gateway is on: everything, all but one thing, nothing but forwarding.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::places::{components, from_top};
use crate::servers::{MODEL, Receiver, Upstream};

/// The plugins that come with the gateway and have to do with a forwarded request.
const COST: &[&str] = &["cost_per_token"];
const BUNDLED: &[&str] = &["cost_per_token", "enrich_labels", "filter_redact"];

/// One way to set a gateway up. Its ledger cannot be turned off.
#[derive(Clone, Debug)]
pub struct Variant {
    pub name: &'static str,
    /// Keys are asked for.
    pub keys: bool,
    /// Key, tenant and model have limits, and the tenant a budget, all higher than what is asked.
    limits: bool,
    plugins: &'static [&'static str],
    otlp: bool,
    ndjson: bool,
    console: bool,
    /// Records survive a power cut, not only the end of the process.
    power: bool,
    /// Measured in a quick run too: whatever can be on or off is on in one of these and off in another.
    pub is_quick: bool,
}

const EVERYTHING: Variant = Variant {
    name: "everything",
    keys: true,
    limits: true,
    plugins: BUNDLED,
    otlp: true,
    ndjson: true,
    console: false,
    power: false,
    is_quick: false,
};

pub const VARIANTS: &[Variant] = &[
    Variant { is_quick: true, ..EVERYTHING },
    Variant { name: "everything, durability power", power: true, is_quick: true, ..EVERYTHING },
    Variant { name: "everything and the console", console: true, is_quick: true, ..EVERYTHING },
    Variant { name: "without limits and budget", limits: false, ..EVERYTHING },
    Variant { name: "without keys and limits", keys: false, limits: false, ..EVERYTHING },
    Variant { name: "without enrich and filter", plugins: COST, ..EVERYTHING },
    Variant { name: "without any plugin", plugins: &[], ..EVERYTHING },
    Variant { name: "without OTLP", otlp: false, ..EVERYTHING },
    Variant { name: "without NDJSON", ndjson: false, ..EVERYTHING },
    Variant {
        name: "nothing but forwarding",
        keys: false,
        limits: false,
        plugins: &[],
        otlp: false,
        ndjson: false,
        is_quick: true,
        ..EVERYTHING
    },
];

impl Variant {
    /// Whether requests have a price.
    pub fn prices(&self) -> bool {
        !self.plugins.is_empty()
    }

    /// Whether spans go to a receiver.
    pub fn exports_otlp(&self) -> bool {
        self.otlp
    }

    /// How many exporters there are.
    pub fn exporters(&self) -> usize {
        [self.otlp, self.ndjson, self.console].into_iter().filter(|on| *on).count()
    }

    /// Writes its files into `folder`, with an empty ledger; the command that serves, and the secret of a key.
    pub fn prepare(
        &self,
        folder: &Path,
        listen: SocketAddr,
        upstream: &Upstream,
        receiver: &Receiver,
    ) -> (Command, Option<String>) {
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).unwrap();
            folder.join(name)
        };
        let data = folder.join("data");
        if data.exists() {
            // What was compiled stays.
            fs::remove_dir_all(data.join("ledger")).unwrap();
        }
        let plugins = folder.join("plugins");
        fs::create_dir_all(&plugins).unwrap();
        for name in self.plugins {
            let file = format!("{name}.wasm");
            fs::copy(components().join(&file), plugins.join(file)).unwrap();
        }
        let backends = format!(
            "[[backend]]\nname = \"fixed\"\nurl = \"http://{}/v1\"\nprovider = \"vllm\"\n",
            upstream.address
        );
        let mut command = Command::new(program());
        command.current_dir(folder).args(["serve", "--model", "none", "--listen"]);
        command.arg(listen.to_string()).arg("--data-dir").arg(data).arg("--plugins").arg(plugins);
        command.arg("--backends").arg(write("backends.toml", &backends));
        command.arg("--config").arg(write("tollgate.toml", &self.exporter_tables(receiver)));
        let durability = if self.power { "power" } else { "process" };
        command.args(["--ledger-durability", durability]);
        command.args(["--console", if self.console { "tree" } else { "off" }]);
        let secret = self.keys.then(|| {
            let file = write("keys.toml", &self.key_tables());
            command.arg("--keys-file").arg(&file);
            self.new_key(&file)
        });
        (command, secret)
    }

    fn exporter_tables(&self, receiver: &Receiver) -> String {
        let otlp = format!(
            "[[exporter]]\nkind = \"otlp\"\nprotocol = \"http/protobuf\"\nendpoint = \"http://{}\"\n",
            receiver.address
        );
        let ndjson = "[[exporter]]\nkind = \"ndjson\"\n".to_owned();
        let on: String = [(self.otlp, otlp), (self.ndjson, ndjson)]
            .into_iter()
            .filter_map(|(on, text)| on.then_some(text))
            .collect();
        if on.is_empty() { "exporter = []\n".to_owned() } else { on }
    }

    fn key_tables(&self) -> String {
        if !self.limits {
            return String::new();
        }
        let limits = "requests-per-minute = 100000000\ntokens-per-minute = 10000000000\nconcurrent = 100000\n";
        format!(
            "[[tenant]]\nname = \"acme\"\n[tenant.limits]\n{limits}\n\
             [[tenant.budget]]\namount = \"1000000\"\ncurrency = \"USD\"\nper = \"month\"\n\n\
             [[model]]\nname = \"{MODEL}\"\n[model.limits]\n{limits}\n"
        )
    }

    /// As an operator makes one.
    fn new_key(&self, file: &Path) -> String {
        let mut command = Command::new(program());
        command.args(["key", "create", "--tenant", "acme", "--keys-file"]).arg(file);
        if self.limits {
            command.args(["--requests-per-minute", "100000000", "--concurrent", "100000"]);
            command.args(["--tokens-per-minute", "10000000000"]);
        }
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let told = String::from_utf8(done.stdout).unwrap();
        let secret = told.lines().find_map(|line| line.strip_prefix("secret")).unwrap();
        secret.trim().to_owned()
    }
}

/// The gateway: the one that was built with this, or `TOLLGATE_BIN`.
pub fn program() -> PathBuf {
    std::env::var_os("TOLLGATE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_tollgate").into(), from_top)
}
