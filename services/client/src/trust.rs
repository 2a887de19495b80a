//! Whom a client trusts over TLS and QUIC.

use std::sync::Arc;

use base64::Engine as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::options::Options;

/// The SHA-256 of a certificate in DER form.
pub type CertificateHash = [u8; 32];

/// Whose certificates are good.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Trust {
    /// Those that the public authorities vouch for; and the one for development whose hash the edge's plain HTTP address
    /// ([`Options::http`]) tells, as a page that came from there would.
    #[default]
    Public,
    /// Those that these vouch for: certificates in DER form.
    Authorities(Vec<Vec<u8>>),
    /// Those with these hashes, and no others: as `serverCertificateHashes` of a browser's `WebTransport`.
    Hashes(Vec<CertificateHash>),
}

impl Trust {
    /// The authorities of a PEM file's text.
    ///
    /// # Errors
    /// [`Error::Options`] if there are none in it.
    pub fn from_pem(text: &[u8]) -> Result<Self, Error> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).map(|c| c.map(|c| c.to_vec())).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(Self::Authorities(all)),
            Ok(_) => Err(Error::Options("there is no certificate in PEM form".into())),
            Err(error) => Err(Error::Options(format!("the certificates cannot be read: {error}"))),
        }
    }

    /// One certificate, by its hash in Base64, as `/v1/certificate-hashes` writes it.
    ///
    /// # Errors
    /// [`Error::Options`] if it is no such hash.
    pub fn from_hash(text: &str) -> Result<Self, Error> {
        let hash = decode(text).ok_or_else(|| Error::Options(format!("`{text}` is not the Base64 of a SHA-256")))?;
        Ok(Self::Hashes(vec![hash]))
    }
}

fn decode(text: &str) -> Option<CertificateHash> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()?.try_into().ok()
}

/// What an edge tells of its certificates for development at [`Options::http`]. None for others.
///
/// # Errors
/// As [`crate::http::get`], and [`Error::Protocol`] for an answer that is none.
pub async fn certificate_hashes(options: &Options) -> Result<Vec<CertificateHash>, Error> {
    #[derive(serde::Deserialize)]
    struct Told {
        hashes: Vec<Hash>,
    }
    #[derive(serde::Deserialize)]
    struct Hash {
        algorithm: String,
        value: String,
    }
    let answer = Box::pin(crate::http::get(options, "/v1/certificate-hashes")).await?;
    let told: Told = serde_json::from_slice(&answer.body).map_err(|e| Error::Protocol(e.to_string()))?;
    let all = told.hashes.into_iter().filter(|h| h.algorithm == "sha-256");
    Ok(all.filter_map(|h| decode(&h.value)).collect())
}

/// How to connect by TLS and QUIC.
pub(crate) async fn config(options: &Options, alpn: &[&[u8]]) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| Error::Options(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    let hashes = match &options.trust {
        // Over TLS the hash would come from whom it is to prove.
        Trust::Public if options.http.starts_with("http:") => certificate_hashes(options).await.unwrap_or_default(),
        Trust::Public | Trust::Authorities(_) => Vec::new(),
        Trust::Hashes(hashes) => hashes.clone(),
    };
    match &options.trust {
        Trust::Authorities(all) => {
            for one in all {
                roots
                    .add(CertificateDer::from(one.clone()))
                    .map_err(|e| Error::Options(format!("an authority's certificate cannot be used: {e}")))?;
            }
        }
        _ => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let mut config = if hashes.is_empty() {
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        let verifier = Arc::new(ByHash { hashes, provider });
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

/// Trusts certificates by their SHA-256.
#[derive(Debug)]
struct ByHash {
    hashes: Vec<CertificateHash>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByHash {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let hash = Sha256::digest(certificate);
        if self.hashes.iter().any(|h| h[..] == hash[..]) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_trusted_is_checked_before_anything_is_sent() {
        let hash = base64::engine::general_purpose::STANDARD.encode([7; 32]);
        assert_eq!(Trust::from_hash(&hash), Ok(Trust::Hashes(vec![[7; 32]])));
        for wrong in ["", "no Base64", "AAAA", &format!("{hash}AAAA")] {
            assert!(Trust::from_hash(wrong).is_err(), "{wrong}");
        }
        for wrong in [&b""[..], b"-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n", b"text"] {
            assert!(Trust::from_pem(wrong).is_err());
        }
        let one = b"-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        assert_eq!(Trust::from_pem(one), Ok(Trust::Authorities(vec![vec![1, 2, 3]])));
    }
}
