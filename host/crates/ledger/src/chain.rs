//! The hash chain: each entry's hash is over the one before it and over all that the entry says,
//! framed so that no two different entries are the same bytes.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use tollgate_domain::value::from_hex;

use crate::entry::{Kind, Seq};

/// SHA-256 of an entry and of all before it. Shown as 64 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

/// What a hash is over.
pub(crate) struct Link<'a> {
    pub(crate) seq: Seq,
    pub(crate) kind: Kind,
    pub(crate) number: Option<u64>,
    pub(crate) started_seq: Option<u64>,
    pub(crate) version: u32,
    pub(crate) body: &'a str,
}

impl Link<'_> {
    /// The hash of this entry after one whose hash is `before`.
    pub(crate) fn after(&self, before: &Hash) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(before.0);
        hasher.update(self.seq.0.to_le_bytes());
        hasher.update([self.kind as u8]);
        // Neither of the two is ever zero where it is there.
        hasher.update(self.number.unwrap_or(0).to_le_bytes());
        hasher.update(self.started_seq.unwrap_or(0).to_le_bytes());
        hasher.update(self.version.to_le_bytes());
        hasher.update(self.body.as_bytes());
        Hash(hasher.finalize().into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const_hex::display(self.0).fmt(f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = from_hex(text).and_then(|bytes| bytes.try_into().ok());
        hash.ok_or_else(|| format!("{text:?} is not a hash: 64 hex digits"))
    }
}

impl TryFrom<Vec<u8>> for Hash {
    type Error = ();

    fn try_from(bytes: Vec<u8>) -> Result<Self, ()> {
        bytes.try_into().map(Self).map_err(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(body: &str) -> Link<'_> {
        let (seq, kind) = (Seq(2), Kind::Finished);
        Link { seq, kind, number: Some(1), started_seq: Some(1), version: 1, body }
    }

    #[test]
    fn every_part_counts() {
        let before = Hash::default();
        let hash = link("{}").after(&before);
        let others = [
            link("{} ").after(&before),
            link("{}").after(&hash),
            Link { seq: Seq(3), ..link("{}") }.after(&before),
            Link { kind: Kind::Aborted, ..link("{}") }.after(&before),
            Link { number: Some(2), ..link("{}") }.after(&before),
            Link { started_seq: None, ..link("{}") }.after(&before),
            Link { version: 2, ..link("{}") }.after(&before),
        ];
        for other in others {
            assert_ne!(other, hash);
        }
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("zz".repeat(32).parse::<Hash>().is_err() && "ab".parse::<Hash>().is_err());
        assert!(format!("0x{hash}").parse::<Hash>().is_err());
    }
}
