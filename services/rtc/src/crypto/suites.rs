//! Ciphers, hashes and MACs of DTLS, by ring.

use dimpl::crypto::{
    Aad, Buf, Cipher, Dtls12CipherSuite, Dtls13CipherSuite, HashAlgorithm, HashContext, HashProvider, HmacProvider,
    Nonce, SupportedDtls12CipherSuite, SupportedDtls13CipherSuite, TmpBuf,
};
use dimpl::{CryptoError, CryptoOperation};
use ring::aead::quic::{self, HeaderProtectionKey};
use ring::aead::{self, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::{digest, hmac};

/// Bytes of the tag that each of these ciphers puts after a record.
const TAG_BYTES: usize = 16;

/// What is negotiated, best first: all have AES in hardware, or else like ChaCha.
pub(super) static SUITES: &[&dyn SupportedDtls12CipherSuite] = &[
    &Suite {
        suite: Dtls12CipherSuite::ECDHE_ECDSA_AES128_GCM_SHA256,
        hash: HashAlgorithm::SHA256,
        algorithm: &AES_128_GCM,
        explicit_nonce_bytes: 8,
    },
    &Suite {
        suite: Dtls12CipherSuite::ECDHE_ECDSA_AES256_GCM_SHA384,
        hash: HashAlgorithm::SHA384,
        algorithm: &AES_256_GCM,
        explicit_nonce_bytes: 8,
    },
    &Suite {
        suite: Dtls12CipherSuite::ECDHE_ECDSA_CHACHA20_POLY1305_SHA256,
        hash: HashAlgorithm::SHA256,
        algorithm: &CHACHA20_POLY1305,
        explicit_nonce_bytes: 0,
    },
];

/// dimpl wants one of DTLS 1.3, which we do not negotiate. This is the one for which ring has the mask of record numbers.
pub(super) static SUITES_13: &[&dyn SupportedDtls13CipherSuite] = &[&ChaCha13];

struct Suite {
    suite: Dtls12CipherSuite,
    hash: HashAlgorithm,
    algorithm: &'static aead::Algorithm,
    /// The part of the nonce that each record carries; the rest is a secret of the handshake.
    explicit_nonce_bytes: usize,
}

impl std::fmt::Debug for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Suite").field(&self.suite).finish()
    }
}

impl SupportedDtls12CipherSuite for Suite {
    fn suite(&self) -> Dtls12CipherSuite {
        self.suite
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.hash
    }

    fn key_lengths(&self) -> (usize, usize, usize) {
        (0, self.algorithm.key_len(), self.algorithm.nonce_len() - self.explicit_nonce_bytes)
    }

    fn explicit_nonce_len(&self) -> usize {
        self.explicit_nonce_bytes
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn create_cipher(&self, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        sealed(self.algorithm, key)
    }
}

#[derive(Debug)]
struct ChaCha13;

impl SupportedDtls13CipherSuite for ChaCha13 {
    fn suite(&self) -> Dtls13CipherSuite {
        Dtls13CipherSuite::CHACHA20_POLY1305_SHA256
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::SHA256
    }

    fn key_len(&self) -> usize {
        CHACHA20_POLY1305.key_len()
    }

    fn iv_len(&self) -> usize {
        CHACHA20_POLY1305.nonce_len()
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn create_cipher(&self, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
        sealed(&CHACHA20_POLY1305, key)
    }

    fn encrypt_sn(&self, sn_key: &[u8], sample: &[u8; 16]) -> [u8; 16] {
        // QUIC's header protection is the same (RFC 9001 §5.4.4); a record number has two bytes at most.
        let key = HeaderProtectionKey::new(&quic::CHACHA20, sn_key).expect("the key has the suite's length");
        let mask = key.new_mask(sample).expect("a sample has 16 bytes");
        let mut all = [0; 16];
        all[..mask.len()].copy_from_slice(&mask);
        all
    }
}

fn sealed(algorithm: &'static aead::Algorithm, key: &[u8]) -> Result<Box<dyn Cipher>, CryptoError> {
    let key =
        UnboundKey::new(algorithm, key).map_err(|_| CryptoError::OperationFailed(CryptoOperation::CreateCipher))?;
    Ok(Box::new(Sealed(LessSafeKey::new(key))))
}

/// One direction's key; nonces are dimpl's business.
#[derive(Debug)]
struct Sealed(LessSafeKey);

impl Cipher for Sealed {
    fn encrypt(&mut self, plaintext: &mut Buf, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce.0);
        self.0
            .seal_in_place_append_tag(nonce, aead::Aad::from(&aad[..]), plaintext)
            .map_err(|_| CryptoError::OperationFailed(CryptoOperation::Encrypt))
    }

    fn decrypt(&mut self, ciphertext: &mut TmpBuf, aad: Aad, nonce: Nonce) -> Result<(), CryptoError> {
        let nonce = aead::Nonce::assume_unique_for_key(nonce.0);
        let length = self
            .0
            .open_in_place(nonce, aead::Aad::from(&aad[..]), ciphertext.as_mut())
            .map_err(|_| CryptoError::OperationFailed(CryptoOperation::Decrypt))?
            .len();
        ciphertext.truncate(length);
        Ok(())
    }
}

/// Hashes and MACs.
#[derive(Debug)]
pub(super) struct Hashes;

impl HashProvider for Hashes {
    fn create_hash(&self, algorithm: HashAlgorithm) -> Box<dyn HashContext> {
        // Each suite above has one of the two.
        let algorithm = if algorithm == HashAlgorithm::SHA384 { &digest::SHA384 } else { &digest::SHA256 };
        Box::new(Hashing(digest::Context::new(algorithm)))
    }
}

struct Hashing(digest::Context);

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hashing")
    }
}

impl HashContext for Hashing {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn clone_and_finalize(&self, out: &mut Buf) {
        out.clear();
        out.extend_from_slice(self.0.clone().finish().as_ref());
    }
}

impl HmacProvider for Hashes {
    fn hmac(&self, hash: HashAlgorithm, key: &[u8], data: &[u8], out: &mut [u8]) -> Result<usize, CryptoError> {
        let algorithm = match hash {
            HashAlgorithm::SHA256 => hmac::HMAC_SHA256,
            HashAlgorithm::SHA384 => hmac::HMAC_SHA384,
            _ => return Err(CryptoError::UnsupportedHmacHash(hash)),
        };
        let tag = hmac::sign(&hmac::Key::new(algorithm, key), data);
        let tag = tag.as_ref();
        out.get_mut(..tag.len()).ok_or(CryptoError::UnsupportedHmacHash(hash))?.copy_from_slice(tag);
        Ok(tag.len())
    }
}
