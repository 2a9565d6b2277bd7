//! Tokens that are refused for how they are made: without a signature, with that of another key or
//! algorithm, with a header that asks for more than that, in an odd form.

use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::KeyPair;

use super::{BadTokens, Keyring, b64, claims, sign_raw, sign_with, token};

pub(super) fn add_to(bad: &mut BadTokens, ring: &Keyring) {
    unsigned(bad);
    of_other_keys(bad, ring);
    with_odd_headers(bad);
    in_odd_forms(bad);
}

/// Of no algorithm, or of one that is not known.
fn unsigned(bad: &mut BadTokens) {
    let payload = claims().to_string();
    for alg in [
        "none", "None", "NONE", "nOnE", "", "hs256", "HS1", "RS1", "ES256K", "dir", "A128KW",
    ] {
        let unsigned = format!("{}.{}", b64(format!(r#"{{"alg":"{alg}"}}"#)), b64(&payload));
        bad.add(&format!("alg {alg}, no signature"), format!("{unsigned}."));
        bad.add(
            &format!("alg {alg}, a signature"),
            sign_raw(&format!(r#"{{"alg":"{alg}"}}"#), &payload),
        );
    }
}

fn of_other_keys(bad: &mut BadTokens, ring: &Keyring) {
    let payload = claims().to_string();
    // A public key is no secret, whatever the header says.
    for (alg, algorithm) in [
        ("HS256", Algorithm::HS256),
        ("HS384", Algorithm::HS384),
        ("HS512", Algorithm::HS512),
    ] {
        for kid in ["r256", "p256", "e256", "d"] {
            let key = EncodingKey::from_secret(ring.rsa_public.as_bytes());
            let header = format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
            bad.add(
                "HS signed with the RSA public key",
                sign_with(&header, &payload, &key, algorithm),
            );
        }
        let key = EncodingKey::from_secret(b"another secret of the same length");
        bad.add(
            "another secret",
            sign_with(&format!(r#"{{"alg":"{alg}"}}"#), &payload, &key, algorithm),
        );
    }
    // Each key is for one algorithm.
    for (kid, algorithm, key) in &ring.signers {
        for other in &ring.signers {
            if other.0 != *kid
                && std::mem::discriminant(algorithm) != std::mem::discriminant(&other.1)
            {
                let header = format!(r#"{{"alg":"{algorithm:?}","kid":"{}"}}"#, other.0);
                bad.add(
                    "a key id of another algorithm",
                    sign_with(&header, &payload, key, *algorithm),
                );
            }
        }
    }
    for (alg, key) in [
        (
            "ES256",
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key"),
        ),
        (
            "EdDSA",
            KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key"),
        ),
    ] {
        let pem = key.serialize_pem();
        let (key, algorithm) = match alg {
            "ES256" => (EncodingKey::from_ec_pem(pem.as_bytes()), Algorithm::ES256),
            _ => (EncodingKey::from_ed_pem(pem.as_bytes()), Algorithm::EdDSA),
        };
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        bad.add(
            "a stranger's key",
            sign_with(&header, &payload, &key.expect("a key"), algorithm),
        );
    }
}

/// Signed with the secret all the same.
fn with_odd_headers(bad: &mut BadTokens) {
    let payload = claims().to_string();
    for parameter in [
        r#""jku":"https://evil.example/keys""#,
        r#""jwk":{"kty":"oct","k":"AAAA"}"#,
        r#""x5u":"https://evil.example""#,
        r#""x5c":["AAAA"]"#,
        r#""crit":["exp"]"#,
        r#""crit":[]"#,
        r#""enc":"A128GCM""#,
        r#""zip":"DEF""#,
        r#""b64":false"#,
        r#""kid":"unknown""#,
        r#""kid":"../../h""#,
        r#""kid":"r256""#,
        r#""kid":5"#,
        r#""kid":null"#,
        r#""kid":["h"]"#,
        r#""typ":"JWE""#,
        r#""typ":5"#,
        r#""typ":null"#,
        r#""alg":"HS256""#,
        r#""alg":"none""#,
    ] {
        bad.add(
            parameter,
            sign_raw(&format!(r#"{{"alg":"HS256",{parameter}}}"#), &payload),
        );
        bad.add(
            parameter,
            sign_raw(&format!(r#"{{{parameter},"alg":"HS256"}}"#), &payload),
        );
    }
    for odd in [
        "[]",
        "\"x\"",
        "null",
        "{}",
        "{",
        "",
        "{\"alg\":5}",
        "\u{feff}{\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\"}x",
    ] {
        bad.add("an odd header", sign_raw(odd, &payload));
    }
}

/// Made of a good one.
fn in_odd_forms(bad: &mut BadTokens) {
    let good = token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (h, p, s) = (parts[0], parts[1], parts[2]);
    for odd in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        h.into(),
        format!("{h}.{p}"),
        format!("{h}.{p}."),
        format!("{h}..{s}"),
        format!(".{p}.{s}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.x"),
        format!("{good}x"),
        format!("{good}="),
        format!("{good}=="),
        format!("{good} x"),
        format!("{good},{good}"),
        format!("{p}.{h}.{s}"),
        format!("{h}.{h}.{s}"),
        format!("{h}=.{p}.{s}"),
        format!("{h}.{p}=.{s}"),
        format!("{h}.{p}.{}", &s[1..]),
        format!("{h}.{p}.{s}AAAA"),
        format!("{h}.{p}.{}", s.to_uppercase()),
        format!("{h}.{p}.{}", "A".repeat(s.len())),
        "x".repeat(9000),
        format!("{h}.{}.{s}", "A".repeat(9000)),
        format!("\"{good}\""),
        format!("Bearer {good}"),
        format!("{h}.{p}+.{s}"),
        format!("{h}.{p}/.{s}"),
    ] {
        bad.add("an odd form", odd);
    }
    // Any other character anywhere makes it another token.
    for at in (0..good.len()).step_by(5) {
        let mut other = good.clone().into_bytes();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        bad.add(
            "one character is another",
            String::from_utf8(other).expect("ASCII"),
        );
    }
}
