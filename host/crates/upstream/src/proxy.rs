//! Which proxy stands between us and a server: the one that the backend names, else the one that the environment names for
//! all programs, by the rules of curl.
//!
//! What is loopback is never asked for by a proxy of the environment, which could not reach it.

use std::net::IpAddr;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;

/// What a backend writes that wants none.
const NONE: &str = "none";

/// A proxy that speaks HTTP.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Proxy {
    /// Scheme and authority, without credentials.
    pub uri: Uri,
    /// `proxy-authorization`; no log shows it.
    pub credentials: Option<HeaderValue>,
}

impl Proxy {
    /// The one for requests to `url`, if there is one. `named`: what the backend says. The error is a sentence.
    pub fn of(
        url: &Uri,
        named: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        match named {
            Some(NONE) => Ok(None),
            Some(named) => Self::read(named, url).map(Some).map_err(|why| format!("proxy: {why}")),
            None => Self::of_environment(url, environment),
        }
    }

    fn of_environment(
        url: &Uri,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        let first = |names: &[&'static str]| {
            let set = |name: &&'static str| environment(name).map(|value| (*name, value));
            names.iter().filter_map(set).find(|(_, value)| !value.trim().is_empty())
        };
        let found = match url.scheme_str() {
            Some("https") => first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            _ => first(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
        };
        let Some((name, value)) = found else { return Ok(None) };
        let spared = first(&["NO_PROXY", "no_proxy"]).map(|(_, value)| value).unwrap_or_default();
        if is_loopback(url) || is_spared(url, spared) {
            return Ok(None);
        }
        Self::read(&value, url).map(Some).map_err(|why| {
            format!("{name} of the environment: {why}, or write proxy = \"{NONE}\" at the backend")
        })
    }

    fn read(text: &str, url: &Uri) -> Result<Self, String> {
        const WANTED: &str = "it must be http://HOST:PORT or https://HOST:PORT";
        let matcher = Matcher::builder().all(text.trim().to_owned()).build();
        let found = matcher.intercept(url).ok_or(WANTED)?;
        if !matches!(found.uri().scheme_str(), Some("http" | "https")) {
            return Err(format!("SOCKS is not spoken here: {WANTED}"));
        }
        Ok(Self { uri: found.uri().clone(), credentials: found.basic_auth().cloned() })
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        let uri = self.uri.to_string();
        uri.trim_end_matches('/').to_owned()
    }
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = host.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_spared(url: &Uri, spared: String) -> bool {
    // Which the matcher reads as all names, but no addresses.
    let all = spared.split(',').any(|entry| entry.trim() == "*");
    all || Matcher::builder().all("http://any").no(spared).build().intercept(url).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        url: &str,
        named: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<Option<Proxy>, String> {
        let get = |name: &str| {
            environment.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        };
        Proxy::of(&url.parse().unwrap(), named, get)
    }

    #[test]
    fn the_backend_says_else_the_environment() {
        let all: &[(&str, &str)] = &[
            ("HTTPS_PROXY", "http://secure:1"),
            ("http_proxy", "plain:2"),
            ("ALL_PROXY", "http://all:3"),
            ("NO_PROXY", "spared.example, 10.0.0.0/8, [fd00::1]"),
        ];
        let only_all: &[(&str, &str)] = &[("HTTPS_PROXY", " "), ("all_proxy", "https://all:3")];
        type Case<'a> = (&'a str, Option<&'a str>, &'a [(&'a str, &'a str)], Option<&'a str>);
        let cases: &[Case<'_>] = &[
            ("https://api.example/v1", None, all, Some("http://secure:1")),
            ("http://api.example/v1", None, all, Some("http://plain:2")),
            ("https://api.example/v1", None, only_all, Some("https://all:3")),
            ("http://api.example/v1", None, only_all, Some("https://all:3")),
            ("http://api.example/v1", None, &[], None),
            ("https://spared.example/v1", None, all, None),
            ("https://a.spared.example/v1", None, all, None),
            ("https://unspared.example/v1", None, all, Some("http://secure:1")),
            ("http://10.1.2.3:8000/v1", None, all, None),
            ("http://192.168.0.1:8000/v1", None, all, Some("http://plain:2")),
            ("http://localhost:8000/v1", None, all, None),
            ("http://127.0.0.2:8000/v1", None, all, None),
            ("http://[::1]:8000/v1", None, all, None),
            ("http://10.1.2.3/v1", None, &[("ALL_PROXY", "a:1"), ("no_proxy", "x, *")], None),
            (
                "https://api.example/v1",
                None,
                &[("HTTPS_PROXY", "http://a:1"), ("NO_PROXY", "*")],
                None,
            ),
            // What the backend names holds for whatever it is.
            ("http://127.0.0.1:8000/v1", Some("http://own:4"), all, Some("http://own:4")),
            ("https://spared.example/v1", Some("own:4"), all, Some("http://own:4")),
            ("https://api.example/v1", Some("none"), all, None),
        ];
        for (url, named, environment, expected) in cases {
            let found = of(url, *named, environment).unwrap();
            assert_eq!(found.map(|proxy| proxy.place()).as_deref(), *expected, "{url} {named:?}");
        }
    }

    #[test]
    fn credentials_go_along_and_are_not_shown() {
        let proxy =
            of("https://a/v1", Some("http://user:p%40ss@proxy:3128/"), &[]).unwrap().unwrap();
        assert_eq!(proxy.credentials.as_ref().unwrap(), "Basic dXNlcjpwQHNz");
        assert_eq!(proxy.place(), "http://proxy:3128");
        assert!(!format!("{proxy:?}").contains("dXNl"), "{proxy:?}");
    }

    #[test]
    fn what_is_no_proxy_is_refused_where_it_would_be_used() {
        for wrong in
            ["", "http://", "ftp://proxy:1", "socks5://proxy:1", "http://pro xy:1", "/proxy"]
        {
            let why = of("https://a/v1", Some(wrong), &[]).unwrap_err();
            assert!(why.contains("http://HOST:PORT"), "{why}");
        }
        let environment = [("ALL_PROXY", "socks5h://secret:word@proxy:1")];
        let why = of("https://a/v1", None, &environment).unwrap_err();
        assert!(
            why.contains("ALL_PROXY") && why.contains("SOCKS") && !why.contains("word"),
            "{why}"
        );
        assert_eq!(of("https://localhost/v1", None, &environment), Ok(None));
    }
}
