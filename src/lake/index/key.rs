//! A key as the index stores it: 128 bits.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::shard::Words;

/// The secret of one index, drawn when it is created. It never leaves the folder of the index.
pub(super) type Secret = [u64; 4];

/// A key of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexKey(Words);

impl IndexKey {
    /// The key of bytes that have one length, up to sixteen, in the whole table: they are their own key.
    pub(super) fn exact(bytes: &[u8]) -> Self {
        let mut words = [0_u8; 16];
        let width = bytes.len().min(words.len());
        words[..width].copy_from_slice(&bytes[..width]);
        let (low, high) = words.split_at(8);
        Self([word(low), word(high)])
    }

    /// The key of any bytes: a keyed hash, without known collisions for whoever does not know the secret.
    pub(super) fn hashed(bytes: &[u8], secret: Secret) -> Self {
        let mut hasher = SipHasher24::new_with_keys(secret[0], secret[1]);
        hasher.write(bytes);
        let hash = hasher.finish128();
        Self([hash.h1, hash.h2])
    }

    /// The key as bytes, to derive other keys from.
    pub fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&self.0[0].to_le_bytes());
        high.copy_from_slice(&self.0[1].to_le_bytes());
        bytes
    }

    pub(super) fn from_words(words: Words) -> Self {
        Self(words)
    }

    pub(super) fn words(self) -> Words {
        self.0
    }

    /// Where the key belongs: the top bits select the shard, the low ones the slot. Two multiplications folded to 64
    /// bits, with the secret, so that keys in sequence scatter and chosen ones cannot be made to meet.
    pub(super) fn hash(self, secret: Secret) -> u64 {
        let mixed = fold(self.0[0] ^ secret[2], self.0[1] ^ secret[3]);
        fold(mixed ^ secret[0], 0x9E37_79B9_7F4A_7C15)
    }
}

/// Two words mixed to one.
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}
