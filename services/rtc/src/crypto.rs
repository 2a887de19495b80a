//! Cryptography for str0m, by ring, as everywhere else in this workspace: its own backends bring aws-lc (which needs cmake)
//! even where only RustCrypto is asked for, because they make certificates with it.
//!
//! DTLS 1.2 with ECDHE and ECDSA, which every browser speaks. There is no media, so nothing here serves SRTP.

mod der;
mod dtls;
mod keys;
mod suites;

use ring::{digest, hmac, rand};
use str0m::crypto as of;

pub use der::public_key;
pub use dtls::RECORDS_MAX;

/// What str0m calls.
pub(crate) fn provider() -> of::CryptoProvider {
    of::CryptoProvider {
        srtp_provider: &Ring,
        sha1_hmac_provider: &Ring,
        sha1_provider: &Ring,
        sha256_provider: &Ring,
        dtls_provider: &Ring,
    }
}

/// Bytes that nobody can guess.
///
/// # Errors
/// When the system has no randomness to give.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let random = rand::generate::<[u8; N]>(&rand::SystemRandom::new()).map_err(|_| NoRandomness)?;
    Ok(random.expose())
}

/// The system has no randomness to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the system has no randomness to give")]
pub struct NoRandomness;

/// HMAC-SHA-1, for the credentials of TURN servers.
pub fn hmac_sha1(key: &[u8], message: &[u8]) -> [u8; 20] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key), message);
    tag.as_ref().try_into().expect("SHA-1 has 20 bytes")
}

/// SHA-256, for fingerprints of certificates.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, data).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[derive(Debug)]
struct Ring;

impl of::Sha1HmacProvider for Ring {
    fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
        payloads.iter().for_each(|p| context.update(p));
        context.sign().as_ref().try_into().expect("SHA-1 has 20 bytes")
    }
}

impl of::Sha1Provider for Ring {
    fn sha1(&self, data: &[u8]) -> [u8; 20] {
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, data);
        hash.as_ref().try_into().expect("SHA-1 has 20 bytes")
    }
}

impl of::Sha256Provider for Ring {
    fn sha256(&self, data: &[u8]) -> [u8; 32] {
        sha256(data)
    }
}

/// Never called: DTLS keeps the keys of SRTP to itself (see [`dtls`]).
impl of::SrtpProvider for Ring {
    fn aes_128_cm_sha1_80(&self) -> &'static dyn of::SupportedAes128CmSha1_80 {
        &NoMedia
    }

    fn aead_aes_128_gcm(&self) -> &'static dyn of::SupportedAeadAes128Gcm {
        &NoMedia
    }

    fn aead_aes_256_gcm(&self) -> &'static dyn of::SupportedAeadAes256Gcm {
        &NoMedia
    }

    fn srtp_aes_128_ecb_round(&self, _key: &[u8], _input: &[u8], _output: &mut [u8]) {}

    fn srtp_aes_256_ecb_round(&self, _key: &[u8], _input: &[u8], _output: &mut [u8]) {}
}

/// A cipher that refuses everything.
#[derive(Debug)]
struct NoMedia;

fn refused<T>() -> Result<T, of::CryptoError> {
    Err(of::CryptoError::Other("no media".to_owned()))
}

impl of::SupportedAes128CmSha1_80 for NoMedia {
    fn create_cipher(&self, _key: [u8; 16], _encrypt: bool) -> Box<dyn of::Aes128CmSha1_80Cipher> {
        Box::new(NoMedia)
    }
}

impl of::SupportedAeadAes128Gcm for NoMedia {
    fn create_cipher(&self, _key: [u8; 16], _encrypt: bool) -> Box<dyn of::AeadAes128GcmCipher> {
        Box::new(NoMedia)
    }
}

impl of::SupportedAeadAes256Gcm for NoMedia {
    fn create_cipher(&self, _key: [u8; 32], _encrypt: bool) -> Box<dyn of::AeadAes256GcmCipher> {
        Box::new(NoMedia)
    }
}

impl of::Aes128CmSha1_80Cipher for NoMedia {
    fn encrypt(&mut self, _iv: &[u8; 16], _input: &[u8], _output: &mut [u8]) -> Result<(), of::CryptoError> {
        refused()
    }

    fn decrypt(&mut self, _iv: &[u8; 16], _input: &[u8], _output: &mut [u8]) -> Result<(), of::CryptoError> {
        refused()
    }
}

impl of::AeadAes128GcmCipher for NoMedia {
    fn encrypt(&mut self, _: &[u8; 12], _: &[u8], _: &[u8], _: &mut [u8]) -> Result<(), of::CryptoError> {
        refused()
    }

    fn decrypt(&mut self, _: &[u8; 12], _: &[&[u8]], _: &[u8], _: &mut [u8]) -> Result<usize, of::CryptoError> {
        refused()
    }
}

impl of::AeadAes256GcmCipher for NoMedia {
    fn encrypt(&mut self, _: &[u8; 12], _: &[u8], _: &[u8], _: &mut [u8]) -> Result<(), of::CryptoError> {
        refused()
    }

    fn decrypt(&mut self, _: &[u8; 12], _: &[&[u8]], _: &[u8], _: &mut [u8]) -> Result<usize, of::CryptoError> {
        refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_rfcs() {
        // RFC 2202, test case 2; RFC 6234 §8.5, "abc".
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(&hmac_sha1(b"Jefe", b"what do ya want for nothing?")),
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
        );
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
