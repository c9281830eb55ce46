//! The admin API from the other side: one request, one answer, in time.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tollgate_settings::{ADMIN_TOKEN, Secret};
use url::Url;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for an answer: a reload compiles what is new in the folder.
const ANSWER: Duration = Duration::from_secs(150);

/// Which gateway is meant, and what opens its door. The token itself is taken from
/// `TOLLGATE_ADMIN_TOKEN` or from a file, never from the command line, which others can see.
#[derive(clap::Args)]
pub struct Target {
    /// Admin API of the gateway, such as http://127.0.0.1:9090
    #[arg(long, value_name = "URL", value_parser = address)]
    pub(crate) admin: Url,

    #[command(flatten)]
    pub(crate) token: Token,
}

/// Reads the address of an admin API. What has no scheme, as `--admin-listen` has none, is told with one.
pub(crate) fn address(written: &str) -> Result<Url, String> {
    let read = |text: &str| {
        let url = Url::parse(text).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
    };
    read(written).ok_or_else(|| match read(&format!("http://{written}")) {
        Some(_) if !written.contains("://") => format!("write http://{written}"),
        _ => "it is not the address of an admin API, which looks like http://127.0.0.1:9090"
            .to_owned(),
    })
}

/// Where the token is.
#[derive(clap::Args)]
pub struct Token {
    /// File with the token of the admin API; or set TOLLGATE_ADMIN_TOKEN to the token itself
    #[arg(long, env = "TOLLGATE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The token's file is no good.
    #[error("{0}")]
    Token(String),
    /// Nobody answers.
    #[error("cannot reach the gateway's admin API: {0}; is it served there (--admin-listen)?")]
    Unreachable(Box<ureq::Transport>),
    /// The token is missing or wrong.
    #[error(
        "the gateway did not let us in: {0} Set TOLLGATE_ADMIN_TOKEN or --admin-token-file to the \
         token that the gateway was started with."
    )]
    Unauthorized(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// What answered is no admin API.
    #[error("what {url} answered is no answer of an admin API: {why}")]
    Malformed {
        /// What was asked.
        url: Url,
        /// What is wrong with it.
        why: String,
    },
}

/// What is asked of a gateway.
pub(crate) enum Ask<'a> {
    /// To show something.
    Get,
    /// To do something.
    Post,
    /// To do something with this JSON.
    Send(&'a str),
}

/// The gateway's admin API.
pub(crate) struct Client {
    admin: Url,
    token: Option<Secret>,
    agent: ureq::Agent,
    patience: Duration,
}

impl Client {
    pub(crate) fn of(target: &Target) -> Result<Self, ClientError> {
        Self::new(&target.admin, &target.token)
    }

    pub(crate) fn new(admin: &Url, token: &Token) -> Result<Self, ClientError> {
        let variable = std::env::var(ADMIN_TOKEN).ok();
        let token = tollgate_settings::admin_token(variable, token.admin_token_file.as_deref())
            .map_err(ClientError::Token)?;
        // A token follows no redirect.
        let agent = ureq::AgentBuilder::new().timeout_connect(CONNECT).redirects(0).build();
        Ok(Self { admin: admin.clone(), token, agent, patience: ANSWER })
    }

    /// With another patience than one that waits for compilers.
    pub(crate) fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Asks the route of these segments, which need no escaping.
    pub(crate) fn ask<T: DeserializeOwned>(
        &self,
        ask: &Ask<'_>,
        route: &[&str],
    ) -> Result<T, ClientError> {
        let text = self.text(ask, route)?;
        serde_json::from_str(&text).map_err(|error| ClientError::Malformed {
            url: self.url(route),
            why: error.to_string(),
        })
    }

    /// Likewise, for an answer that is no JSON.
    pub(crate) fn text(&self, ask: &Ask<'_>, route: &[&str]) -> Result<String, ClientError> {
        let url = self.url(route);
        let method = if matches!(ask, Ask::Get) { "GET" } else { "POST" };
        let mut request = self.agent.request_url(method, &url).timeout(self.patience);
        if let Some(token) = &self.token {
            request = request.set("Authorization", &format!("Bearer {}", token.reveal()));
        }
        let answered = match ask {
            Ask::Get | Ask::Post => request.call(),
            Ask::Send(json) => request.set("Content-Type", "application/json").send_string(json),
        };
        let malformed = |why: String| ClientError::Malformed { url: url.clone(), why };
        match answered {
            Ok(answer) if answer.status() == 200 => {
                answer.into_string().map_err(|error| malformed(error.to_string()))
            }
            Ok(answer) => Err(malformed(format!("status {}", answer.status()))),
            Err(ureq::Error::Status(status, answer)) => {
                let text = answer.into_string().unwrap_or_default();
                Err(match serde_json::from_str::<Refusal>(&text) {
                    Ok(refusal) if status == 401 => {
                        ClientError::Unauthorized(refusal.error.message)
                    }
                    Ok(refusal) => ClientError::Refused(refusal.error.message),
                    Err(_) => malformed(format!("status {status}")),
                })
            }
            Err(ureq::Error::Transport(error)) => Err(ClientError::Unreachable(Box::new(error))),
        }
    }

    fn url(&self, route: &[&str]) -> Url {
        let mut url = self.admin.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(route);
        }
        url
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalMessage,
}

#[derive(Deserialize)]
struct RefusalMessage {
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_told_with_one() {
        for good in ["http://127.0.0.1:9090", "https://gateway.example/tollgate/"] {
            assert_eq!(
                address(good).unwrap().as_str().trim_end_matches('/'),
                good.trim_end_matches('/')
            );
        }
        for (written, told) in [
            ("127.0.0.1:9090", "write http://127.0.0.1:9090"),
            ("localhost:9090", "write http://localhost:9090"),
            ("[::1]:9090", "write http://[::1]:9090"),
            ("ftp://gateway:9090", "looks like http://127.0.0.1:9090"),
            ("", "looks like http://127.0.0.1:9090"),
            ("a b", "looks like http://127.0.0.1:9090"),
        ] {
            let error = address(written).unwrap_err();
            assert!(error.contains(told), "{written}: {error}");
        }
    }
}
