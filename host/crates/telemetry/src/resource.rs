//! What all our spans share: who we are, which version, in which deployment.

use tollgate_domain::span::{Attributes, Resource};

use crate::names::resource as names;
use crate::text;

/// Service name if the environment has none.
const DEFAULT_SERVICE: &str = "tollgate";

/// Deployment if the environment has none: the tutorial's.
const DEFAULT_DEPLOYMENT: &str = "local";

/// The resource that `env` describes; `env` looks a variable up.
///
/// `OTEL_RESOURCE_ATTRIBUTES` (percent-decoded) adds to and replaces what we say of ourselves,
/// `OTEL_SERVICE_NAME` and the tutorial's `DEPLOY_ENV` replace both. The deployment is under its
/// old and its new name. An `OTEL_RESOURCE_ATTRIBUTES` that cannot be read is dropped whole, as
/// the specification asks, with a warning.
pub fn resource(env: impl Fn(&str) -> Option<String>) -> Resource {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let mut attributes = Attributes::new();
    attributes.set(names::SERVICE_NAME, DEFAULT_SERVICE);
    attributes.set(names::SERVICE_VERSION, env!("CARGO_PKG_VERSION"));
    let given = env("OTEL_RESOURCE_ATTRIBUTES").map(|text| text::pairs(&text));
    match given {
        None => {}
        Some(Ok(pairs)) => pairs.into_iter().for_each(|(key, value)| attributes.set(key, value)),
        Some(Err(pair)) => {
            tracing::warn!(%pair, "OTEL_RESOURCE_ATTRIBUTES is not key=value,... and is ignored");
        }
    }
    attributes.set_some(names::SERVICE_NAME, env("OTEL_SERVICE_NAME"));
    deployment(&mut attributes, env("DEPLOY_ENV"));
    // Not OpenTelemetry's own SDK, whose name no other may use.
    attributes.set(names::SDK_NAME, DEFAULT_SERVICE);
    attributes.set(names::SDK_LANGUAGE, "rust");
    attributes.set(names::SDK_VERSION, env!("CARGO_PKG_VERSION"));
    Resource { attributes }
}

fn deployment(attributes: &mut Attributes, named: Option<String>) {
    let both = [names::DEPLOYMENT_ENVIRONMENT_NAME, names::DEPLOYMENT_ENVIRONMENT];
    let given = both.iter().find_map(|key| attributes.get(key).cloned());
    let deployment = named.map(Into::into).or(given).unwrap_or(DEFAULT_DEPLOYMENT.into());
    for key in both {
        attributes.set(key, deployment.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn told(variables: Variables, key: &str) -> String {
        let env = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        match resource(env).attributes.get(key) {
            Some(tollgate_domain::Value::Text(text)) => text.clone(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_environment_is_honoured_in_order() {
        let attributes =
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a%20b,team=x,deployment.environment=prod");
        let cases: [(Variables, &str, &str); 10] = [
            (&[], "service.name", "tollgate"),
            (&[], "deployment.environment", "local"),
            (&[], "telemetry.sdk.language", "rust"),
            (&[attributes], "service.name", "a b"),
            (&[attributes], "team", "x"),
            (&[attributes], "deployment.environment.name", "prod"),
            (&[attributes, ("DEPLOY_ENV", "staging")], "deployment.environment", "staging"),
            (&[attributes, ("OTEL_SERVICE_NAME", "c")], "service.name", "c"),
            (&[attributes, ("OTEL_SERVICE_NAME", "")], "service.name", "a b"),
            (&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=%zz")], "service.name", "tollgate"),
        ];
        for (variables, key, value) in cases {
            assert_eq!(told(variables, key), value, "{key} with {variables:?}");
        }
    }
}
