//! HMAC-SHA-256, so that a hash can be told from another only by who has the salt.
//!
//! A plain hash of an e-mail address is undone by hashing every address one knows. With the salt as a key,
//! `printf '%s' VALUE | openssl dgst -sha256 -hmac SALT` gives the same digits, to look somebody up on purpose.

use sha2::{Digest, Sha256};

const BLOCK: usize = 64;

/// A salt, made ready.
#[derive(Debug, Clone)]
pub(crate) struct KeyedHash {
    inner: Sha256,
    outer: Sha256,
}

impl KeyedHash {
    pub(crate) fn new(salt: &[u8]) -> Self {
        let mut key = [0_u8; BLOCK];
        let shortened = Sha256::digest(salt);
        let salt = if salt.len() > BLOCK { shortened.as_slice() } else { salt };
        key.iter_mut().zip(salt).for_each(|(to, from)| *to = *from);
        let start = |pad: u8| Sha256::new_with_prefix(key.map(|byte| byte ^ pad));
        Self { inner: start(0x36), outer: start(0x5c) }
    }

    /// The first digits of the hash, in hexadecimal.
    pub(crate) fn of<'a>(&self, parts: impl Iterator<Item = &'a [u8]>, digits: usize) -> String {
        let mut inner = self.inner.clone();
        parts.for_each(|part| inner.update(part));
        let mut outer = self.outer.clone();
        outer.update(inner.finalize());
        let hash = outer.finalize();
        let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        nibbles.take(digits).filter_map(|nibble| char::from_digit(nibble.into(), 16)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, cases 1, 2 and 6.
    #[test]
    fn known_answers() {
        let hash = |salt: &[u8], text: &[u8]| KeyedHash::new(salt).of([text].into_iter(), 64);
        assert_eq!(
            hash(&[0x0b; 20], b"Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hash(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hash(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
