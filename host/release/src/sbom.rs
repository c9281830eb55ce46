//! The bill of materials: CycloneDX 1.6, as JSON.
//!
//! It has no serial number, which would have to be random; with the time that is given, the same parts make the same text.
//! `tests/test_release.py` holds it against CycloneDX's own schema.

use jiff::Timestamp;
use serde::Serialize;

use crate::error::ReleaseError;
use crate::part::{Part, Parts};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bill<'a> {
    #[serde(rename = "$schema")]
    schema: &'a str,
    bom_format: &'a str,
    spec_version: &'a str,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<Component<'a>>,
    dependencies: Vec<Needs<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    timestamp: String,
    tools: Tools<'a>,
    component: Component<'a>,
}

#[derive(Serialize)]
struct Tools<'a> {
    components: [Tool<'a>; 1],
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'a str,
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct Component<'a> {
    r#type: &'a str,
    #[serde(rename = "bom-ref")]
    reference: String,
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authors: Vec<Author<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash<'a>>,
    licenses: [Licence<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(rename = "externalReferences", skip_serializing_if = "Vec::is_empty")]
    external_references: Vec<Reference<'a>>,
}

#[derive(Serialize)]
struct Author<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Hash<'a> {
    alg: &'a str,
    content: &'a str,
}

#[derive(Serialize)]
struct Licence<'a> {
    expression: &'a str,
}

#[derive(Serialize)]
struct Reference<'a> {
    r#type: &'a str,
    url: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Needs<'a> {
    r#ref: String,
    depends_on: &'a [String],
}

/// The text of it. `epoch` is in seconds since 1970.
pub(crate) fn written(parts: &Parts, epoch: u32) -> Result<Vec<u8>, ReleaseError> {
    let product = parts.product()?;
    let timestamp = Timestamp::from_second(i64::from(epoch))
        .map_err(|why| ReleaseError::malformed("the time of the release", why))?;
    let bill = Bill {
        schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
        bom_format: "CycloneDX",
        spec_version: "1.6",
        version: 1,
        metadata: Metadata {
            timestamp: timestamp.to_string(),
            tools: Tools {
                components: [Tool {
                    r#type: "application",
                    name: env!("CARGO_PKG_NAME"),
                    version: env!("CARGO_PKG_VERSION"),
                }],
            },
            component: component(product),
        },
        components: parts.others().map(component).collect(),
        dependencies: std::iter::once(product).chain(parts.others()).map(needs).collect(),
    };
    let mut text = serde_json::to_vec_pretty(&bill)
        .map_err(|why| ReleaseError::malformed("the bill of materials", why))?;
    text.push(b'\n');
    Ok(text)
}

fn component(part: &Part) -> Component<'_> {
    Component {
        r#type: if part.is_application { "application" } else { "library" },
        reference: part.reference(),
        name: &part.name,
        version: &part.version,
        description: part.description.as_deref(),
        authors: part.authors.iter().map(|name| Author { name }).collect(),
        hashes: part
            .checksum
            .iter()
            .map(|checksum| Hash { alg: checksum.algorithm, content: &checksum.digits })
            .collect(),
        licenses: [Licence { expression: &part.licence }],
        purl: part.package_url(),
        external_references: part
            .repository
            .iter()
            .map(|url| Reference { r#type: "vcs", url })
            .collect(),
    }
}

fn needs(part: &Part) -> Needs<'_> {
    Needs { r#ref: part.reference(), depends_on: &part.needs }
}
