//! Secrets of keys, and what is kept of them.
//!
//! A secret is 256 random bits, so nobody finds it by trying, and a plain SHA-256 of it is as good
//! as any slow hash: those make guessing of *weak* secrets expensive, and would cost each request
//! the same milliseconds. What is kept is the digest; the secret is shown once.

use std::fmt;

use sha2::{Digest as _, Sha256};
use tollgate_domain::value::from_hex;

use crate::error::TenancyError;

/// What every secret that is made here begins with, so that scanners of leaked secrets know it.
pub const SECRET_PREFIX: &str = "tg-";

/// 62^43 is the first power of 62 above 2^256.
const SECRET_LENGTH: usize = 43;
const ID_LENGTH: usize = 12;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The SHA-256 of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub(crate) [u8; 32]);

impl Digest {
    /// That of a secret.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Reads 64 hex digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        from_hex(hex)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const_hex::display(self.0).fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A new secret: `tg-` and 43 letters and digits.
pub(crate) fn new_secret() -> Result<String, TenancyError> {
    Ok(format!("{SECRET_PREFIX}{}", random(SECRET_LENGTH)?))
}

/// A new key's id.
pub(crate) fn new_id() -> Result<String, TenancyError> {
    Ok(format!("key-{}", random(ID_LENGTH)?))
}

/// As many letters and digits, each as likely as any other.
pub(crate) fn random(length: usize) -> Result<String, TenancyError> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0u8; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes).map_err(TenancyError::Random)?;
        // 248 is the largest multiple of 62 in a byte; what is above would favour some letters.
        let letters = bytes.iter().filter(|byte| **byte < 248);
        for letter in letters.filter_map(|byte| ALPHABET.get(usize::from(byte % 62))) {
            if text.len() < length {
                text.push(char::from(*letter));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn secrets_are_long_different_and_letters_and_digits() {
        let secrets: HashSet<String> = (0..200).map(|_| new_secret().unwrap()).collect();
        assert_eq!(secrets.len(), 200);
        for secret in &secrets {
            let rest = secret.strip_prefix(SECRET_PREFIX).unwrap();
            assert_eq!(rest.len(), SECRET_LENGTH);
            assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric()), "{secret}");
        }
        let used: HashSet<char> = secrets.iter().flat_map(|secret| secret[3..].chars()).collect();
        assert_eq!(used.len(), 62, "8600 draws miss none of 62");
    }

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        let digest = Digest::of("abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), hex);
        assert_eq!(Digest::parse(&hex.to_uppercase()), Some(digest));
        for wrong in ["", "abc", &hex[1..], &format!("{hex}0"), &format!("g{}", &hex[1..])] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }
}
