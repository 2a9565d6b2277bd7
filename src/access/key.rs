//! Keys that tokens may be signed with: each is for one algorithm, which the configuration pins
//! (RFC 8725 3.1).

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, jwk::Jwk};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use thiserror::Error;

/// What the secrets of the documents begin with.
const EXAMPLE: &str = "at least thirty-two random bytes";

/// A key that tokens may be signed with, and the one algorithm it is for.
#[derive(Clone)]
pub struct Key {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    pub(super) encoding: Option<EncodingKey>,
    /// What the `iss` of its tokens must be, if not what that of others is.
    pub(super) issuer: Option<String>,
    /// The same of `aud`.
    pub(super) audience: Option<String>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid && self.algorithm == other.algorithm
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidKey {
    /// The algorithm is not one of those that are known.
    #[error(
        "`{0}` is not an algorithm; write HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
    )]
    Algorithm(String),
    /// There is a secret for a public key's algorithm, or the other way round, or neither.
    #[error("{0} takes `{1}`, and nothing else")]
    Takes(String, &'static str),
    /// The secret is too short (RFC 7518 3.2).
    #[error("the secret is {0} bytes long, {1} takes at least {2} random ones")]
    Short(usize, String, usize),
    /// It stands in documents that everybody can read.
    #[error(
        "the secret is the one of an example, which everybody knows; make one: openssl rand -base64 48"
    )]
    Known,
    #[error("{0}: {1}")]
    File(String, String),
    /// Its curve is not its algorithm's (RFC 7518 3.4).
    #[error(
        "{0} holds a key on another curve than that of {1}: ES256 takes P-256, ES384 takes P-384"
    )]
    Curve(String, String),
    #[error("{0} holds no public key for {1} in PEM: {2}")]
    Pem(String, String, String),
}

impl Key {
    /// Takes a key: a secret for HS, a file with a public key in PEM for all others.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] says what is wrong.
    pub fn parse(
        algorithm: &str,
        kid: Option<String>,
        secret: Option<&str>,
        file: Option<&str>,
    ) -> Result<Self, InvalidKey> {
        let name = || algorithm.to_owned();
        let parsed: Algorithm = algorithm
            .parse()
            .map_err(|_| InvalidKey::Algorithm(name()))?;
        let least = match parsed {
            Algorithm::HS256 => Some(32),
            Algorithm::HS384 => Some(48),
            Algorithm::HS512 => Some(64),
            _ => None,
        };
        let (decoding, encoding) = match (least, secret, file) {
            (Some(least), Some(secret), None) => {
                if secret.starts_with(EXAMPLE) {
                    return Err(InvalidKey::Known);
                }
                if secret.len() < least {
                    return Err(InvalidKey::Short(secret.len(), name(), least));
                }
                let encoding = EncodingKey::from_secret(secret.as_bytes());
                (DecodingKey::from_secret(secret.as_bytes()), Some(encoding))
            }
            (None, None, Some(file)) => {
                let pem = std::fs::read(file)
                    .map_err(|error| InvalidKey::File(file.into(), error.to_string()))?;
                let key = match parsed {
                    Algorithm::ES256 | Algorithm::ES384 if !is_on_curve(parsed, &pem) => {
                        return Err(InvalidKey::Curve(file.into(), name()));
                    }
                    Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(&pem),
                    Algorithm::EdDSA => DecodingKey::from_ed_pem(&pem),
                    _ => DecodingKey::from_rsa_pem(&pem),
                };
                let wrong = |error| InvalidKey::Pem(file.into(), name(), format!("{error}"));
                (key.map_err(wrong)?, None)
            }
            (Some(_), ..) => return Err(InvalidKey::Takes(name(), "secret")),
            (None, ..) => return Err(InvalidKey::Takes(name(), "public_key")),
        };
        Ok(Self {
            kid,
            algorithm: parsed,
            decoding,
            encoding,
            issuer: None,
            audience: None,
        })
    }

    /// The same for tokens of an issuer, or for an audience, of their own.
    #[must_use]
    pub fn of(self, issuer: Option<String>, audience: Option<String>) -> Self {
        Self {
            issuer,
            audience,
            ..self
        }
    }

    /// Whether a token that names `kid` may be signed with it.
    pub(super) fn is(&self, kid: Option<&str>) -> bool {
        self.kid.as_deref() == kid
    }

    /// A public key from a JWK set. Secrets are not taken from there.
    pub(super) fn of_jwk(jwk: &Jwk) -> Option<Self> {
        use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, KeyOperations, PublicKeyUse};
        if !matches!(
            jwk.common.public_key_use,
            None | Some(PublicKeyUse::Signature)
        ) {
            return None;
        }
        // What it is for, RFC 7517 4.3.
        let operations = jwk.common.key_operations.as_ref();
        if operations.is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
            return None;
        }
        let implied = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => Algorithm::ES256,
                EllipticCurve::P384 => Algorithm::ES384,
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
            _ => return None,
        };
        let algorithm = match jwk.common.key_algorithm {
            Some(named) => named.to_string().parse().ok()?,
            None => implied,
        };
        let decoding = DecodingKey::from_jwk(jwk).ok()?;
        // A key of one family must not be used with an algorithm of another.
        let fits = match family(implied) {
            // The curve settles the algorithm (RFC 7518 3.4).
            Family::Ec => algorithm == implied,
            of_it => std::mem::discriminant(&family(algorithm)) == std::mem::discriminant(&of_it),
        };
        fits.then(|| Self {
            kid: jwk.common.key_id.clone(),
            algorithm,
            decoding,
            encoding: None,
            issuer: None,
            audience: None,
        })
    }
}

/// Whether a public key in PEM is on the curve of an algorithm, as far as it says which (RFC 5480 2.1.1.1).
fn is_on_curve(algorithm: Algorithm, pem: &[u8]) -> bool {
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    let curve = match algorithm {
        Algorithm::ES256 => P256,
        _ => P384,
    };
    let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(pem) else {
        return true;
    };
    key.windows(curve.len()).any(|part| part == curve)
}

enum Family {
    Hmac,
    Rsa,
    Ec,
    Ed,
}

fn family(algorithm: Algorithm) -> Family {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Family::Hmac,
        Algorithm::ES256 | Algorithm::ES384 => Family::Ec,
        Algorithm::EdDSA => Family::Ed,
        _ => Family::Rsa,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The keys of RFC 7517 A.1 and RFC 8037 A.2.
    #[test]
    fn a_key_of_a_set_is_for_what_it_says() {
        let ec = json!({
            "kty": "EC", "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        });
        let rsa = json!({
            "kty": "RSA", "e": "AQAB",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        });
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let secret = json!({ "kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" });
        let taken = |key: &Value, name: &str, value: Value| {
            let mut key = key.clone();
            key[name] = value;
            let key: Option<Jwk> = serde_json::from_value(key).ok();
            key.and_then(|key| Key::of_jwk(&key))
                .map(|key| key.algorithm)
        };
        for (key, name, value, algorithm) in [
            (&ec, "kid", json!("1"), Some(Algorithm::ES256)),
            (&ec, "use", json!("sig"), Some(Algorithm::ES256)),
            (&ec, "use", json!("enc"), None),
            (&ec, "key_ops", json!(["verify"]), Some(Algorithm::ES256)),
            (&ec, "key_ops", json!(["sign"]), None),
            (&ec, "key_ops", json!(["deriveKey"]), None),
            (&ec, "alg", json!("ES256"), Some(Algorithm::ES256)),
            (&ec, "alg", json!("ES384"), None),
            (&ec, "alg", json!("HS256"), None),
            (&ec, "alg", json!("RS256"), None),
            (&ec, "crv", json!("P-521"), None),
            (&rsa, "kid", json!("1"), Some(Algorithm::RS256)),
            (&rsa, "alg", json!("PS512"), Some(Algorithm::PS512)),
            (&rsa, "alg", json!("HS256"), None),
            (&rsa, "alg", json!("ES256"), None),
            (&rsa, "alg", json!("RSA-OAEP"), None),
            (&rsa, "n", json!("?"), None),
            (&ed, "kid", json!("1"), Some(Algorithm::EdDSA)),
            (&ed, "alg", json!("RS256"), None),
            (&secret, "alg", json!("HS256"), None),
            (&secret, "kid", json!("1"), None),
        ] {
            assert_eq!(
                taken(key, name, value.clone()),
                algorithm,
                "{key} {name} {value}"
            );
        }
    }
}
