//! The public key of an X.509 certificate (RFC 5280 §4.1): the one thing in it that DTLS between peers looks at. Whom a
//! certificate belongs to is told by its fingerprint in the SDP.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OBJECT: u8 = 0x06;
const BITS: u8 = 0x03;
/// `[0]`: the version, which a certificate of version 1 leaves out.
const VERSION: u8 = 0xa0;

/// id-ecPublicKey, prime256v1, secp384r1 (RFC 5480 §2.1.1).
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

/// A curve that keys are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
}

/// The curve and the point of a certificate's key; `None` if it is no certificate, or its key is no such one.
pub fn public_key(certificate: &[u8]) -> Option<(Curve, &[u8])> {
    let mut whole = certificate;
    let mut certificate = take(&mut whole, SEQUENCE)?;
    let mut tbs = take(&mut certificate, SEQUENCE)?;
    if tbs.first() == Some(&VERSION) {
        take(&mut tbs, VERSION)?;
    }
    // Serial number; algorithm, issuer, validity, subject.
    take(&mut tbs, INTEGER)?;
    for _ in 0..4 {
        take(&mut tbs, SEQUENCE)?;
    }
    let mut key = take(&mut tbs, SEQUENCE)?;
    let mut algorithm = take(&mut key, SEQUENCE)?;
    if take(&mut algorithm, OBJECT)? != EC_PUBLIC_KEY {
        return None;
    }
    let curve = match take(&mut algorithm, OBJECT)? {
        P256 => Curve::P256,
        P384 => Curve::P384,
        _ => return None,
    };
    // The first byte says how many bits at the end mean nothing.
    let point = take(&mut key, BITS)?.strip_prefix(&[0])?;
    Some((curve, point))
}

/// Takes the first element off, and gives its content (X.690 §8.1).
fn take<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&found, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Lengths of one, two and three bytes: no certificate is larger.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |all, b| (all << 8) | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> (Vec<u8>, Vec<u8>) {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let params = rcgen::CertificateParams::new(vec!["x".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.der().to_vec(), rcgen::PublicKeyData::der_bytes(&key).to_vec())
    }

    #[test]
    fn the_key_of_a_certificate_is_found() {
        let (der, key) = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(public_key(&der), Some((Curve::P256, &key[..])));
        let (der, key) = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(public_key(&der), Some((Curve::P384, &key[..])));
        let (der, _) = certificate(&rcgen::PKCS_ED25519);
        assert_eq!(public_key(&der), None);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let (der, _) = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        for length in 0..der.len() {
            assert_eq!(public_key(&der[..length]), None, "{length}");
        }
        bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
            let _ = public_key(bytes);
            let mut broken = der.clone();
            for pair in bytes.chunks_exact(2) {
                let at = usize::from(pair[0]) % broken.len();
                broken[at] = pair[1];
            }
            let _ = public_key(&broken);
        });
    }
}
