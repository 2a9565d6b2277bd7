//! Secrets that outlive the process: derived from the certificate's key.

use std::fmt;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

/// What other secrets are derived from. It is never printed.
#[derive(Clone)]
pub(crate) struct Secret(Prk);

/// The length of a derived secret, in bytes.
struct Len<const N: usize>;

impl<const N: usize> KeyType for Len<N> {
    fn len(&self) -> usize {
        N
    }
}

impl Secret {
    /// That of a private key (HKDF, RFC 5869).
    pub(super) fn of(key: &[u8]) -> Self {
        Self(Salt::new(HKDF_SHA256, b"seventh").extract(key))
    }

    /// A secret for one purpose: other words give another.
    pub(crate) fn derive<const N: usize>(&self, purpose: &[&[u8]]) -> [u8; N] {
        let mut secret = [0; N];
        let derived = self.0.expand(purpose, Len::<N>);
        let filled = derived.and_then(|derived| derived.fill(&mut secret));
        filled.expect("it is far shorter than HKDF gives");
        secret
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_and_purpose_give_the_same_and_others_give_others() {
        let secret = Secret::of(b"a key");
        let derived: [u8; 32] = secret.derive(&[b"a", b"b"]);
        assert_eq!(Secret::of(b"a key").derive::<32>(&[b"a", b"b"]), derived);
        assert_ne!(secret.derive::<32>(&[b"a", b"c"]), derived);
        assert_ne!(Secret::of(b"another").derive::<32>(&[b"a", b"b"]), derived);
        assert_eq!(format!("{secret:?}"), "(secret)");
    }
}
