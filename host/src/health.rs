//! `tollgate health`: whether the gateway with these settings takes requests, for what watches over containers that
//! have no other program in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tollgate_settings::Given;

use crate::{config, fail, say};

/// Longest wait for the answer. A gateway that takes longer for it serves nobody well.
const PATIENCE: Duration = Duration::from_secs(4);

/// Which gateway is asked: the one that serves with these settings.
#[derive(Args)]
pub struct Health {
    #[command(flatten)]
    given: Given,
}

/// Exit code 0 if it takes requests, 1 if it does not, or if nobody can tell.
pub fn run(arguments: Health) -> ExitCode {
    let settings = match config::resolve(arguments.given) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, 1),
    };
    match ask(settings.listen) {
        Ok(()) => {
            say("ready");
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why, 1),
    }
}

/// Asks `/ready`.
fn ask(listen: SocketAddr) -> Result<(), String> {
    let address = reachable(listen);
    let agent = ureq::AgentBuilder::new().timeout(PATIENCE).redirects(0).build();
    match agent.get(&format!("http://{address}/ready")).call() {
        Ok(answer) if answer.status() == 200 => Ok(()),
        Ok(answer) => {
            Err(format!("{address} answers with status {}: is it a gateway?", answer.status()))
        }
        Err(ureq::Error::Status(_, answer)) => {
            let text = answer.into_string().unwrap_or_default();
            let told: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let reason = told.get("reason").and_then(serde_json::Value::as_str);
            Err(format!("{address} is not ready: {}", reason.unwrap_or("it does not say why")))
        }
        Err(ureq::Error::Transport(error)) => Err(format!(
            "{address} does not answer: {error}; if the gateway serves elsewhere, say so with --listen"
        )),
    }
}

/// Where to ask whoever listens at an address, which may stand for all of this machine's.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_asked_at_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("192.0.2.7:80", "192.0.2.7:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
