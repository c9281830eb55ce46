//! Detached minisign signatures: `NAME.wasm.minisig` beside `NAME.wasm`.
//!
//! What is signed is the content. A signature says nothing of the name a file has or the configuration it gets. It is asked
//! for when a content is loaded, and of the content that a file holds for as long as it serves (`trust`).

use std::fmt;
use std::str::FromStr;

use minisign_verify::{PublicKey, Signature};

use crate::error::PluginHostError;

/// What a signature's file is named after its plugin's.
pub(crate) const SUFFIX: &str = ".minisig";

/// Most bytes of a signature's file.
pub(crate) const LIMIT: u64 = 4 << 10;

/// A minisign public key that the operator trusts. Read from its line of base64, `RW...`, or from the text of the file
/// that `minisign -G` writes.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustedKey(PublicKey);

/// Text that is no minisign public key.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a minisign public key; it is the line that begins with RW in the .pub file of `minisign -G`"
)]
pub struct KeyError(#[source] minisign_verify::Error);

impl FromStr for TrustedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        // In a file the key follows a line of comment.
        let line = text.trim().lines().last().unwrap_or_default();
        PublicKey::from_base64(line.trim()).map(Self).map_err(KeyError)
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrustedKey")
    }
}

/// Whether one of the keys signed these bytes. Without keys nothing is asked for.
pub(crate) fn check(
    keys: &[TrustedKey],
    file: &str,
    bytes: &[u8],
    signature: Option<&str>,
) -> Result<(), PluginHostError> {
    if keys.is_empty() {
        return Ok(());
    }
    let refused = |what| PluginHostError::Signature { file: format!("{file}{SUFFIX}"), what };
    let text = signature.ok_or_else(|| refused("is not there"))?;
    let signature = Signature::decode(text).map_err(|_| refused("is not a minisign signature"))?;
    // Signatures of the old kind make the verifier hold the whole file twice over; `minisign` has not made them for years.
    if keys.iter().any(|key| key.0.verify(bytes, &signature, false).is_ok()) {
        return Ok(());
    }
    Err(refused("is by no trusted key, or of other bytes"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use minisign::{KeyPair, PublicKeyBox};

    use super::*;

    fn signed(bytes: &[u8]) -> (TrustedKey, String) {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let signature = minisign::sign(None, &pair.sk, Cursor::new(bytes), None, None).unwrap();
        (pair.pk.to_base64().parse().unwrap(), signature.into_string())
    }

    #[test]
    fn only_a_trusted_key_over_these_very_bytes_is_enough() {
        let (key, signature) = signed(b"content");
        let (other, of_other) = signed(b"content");
        let both = [other.clone(), key.clone()];
        let check = |keys: &[TrustedKey], bytes: &[u8], signature: Option<&str>| {
            check(keys, "a.wasm", bytes, signature).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[], b"content", None), Ok(()));
        assert_eq!(check(&both, b"content", Some(&signature)), Ok(()));
        assert_eq!(check(&both, b"content", Some(&of_other)), Ok(()));
        for (bytes, signature, said) in [
            (&b"content"[..], None, "is not there"),
            (b"content", Some("hello"), "is not a minisign"),
            (b"content", Some(of_other.as_str()), "by no trusted key"),
            (b"contenT", Some(signature.as_str()), "of other bytes"),
        ] {
            let error = check(std::slice::from_ref(&key), bytes, signature).unwrap_err();
            assert!(error.contains("a.wasm.minisig") && error.contains(said), "{error}");
        }
    }

    #[test]
    fn keys_are_read_in_both_forms() {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let line: TrustedKey = pair.pk.to_base64().parse().unwrap();
        let file: PublicKeyBox = pair.pk.to_box().unwrap();
        assert!(file.to_string().parse::<TrustedKey>().unwrap() == line);
        for bad in ["", "RW", "untrusted comment: x\nRW"] {
            assert!(bad.parse::<TrustedKey>().unwrap_err().to_string().contains("minisign -G"));
        }
    }
}
