//! The certificate of the TLS listener and of QUIC: from PEM files, read again when they change, or made here for
//! development. Whoever connects gets the newest; whoever is connected stays.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Serialize;
use sha2::{Digest, Sha256};
use ticker_market::Time;
use ticker_runtime::Drain;

/// How often files are looked at, and whether a development certificate is due.
const REFRESH: Duration = Duration::from_secs(10);

/// A PEM file is not larger.
const FILE_BYTES_MAX: u64 = 1 << 20;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1_000;

/// A development certificate is valid for so long. Browsers take none of more than 14 days by its hash.
const VALID_MILLIS: i64 = 13 * DAY_MILLIS;

/// It begins so long before it is made, for whoever's clock is behind ours.
const EARLY_MILLIS: i64 = 60 * 60 * 1_000;

/// After so long the next one is made: its hash is told before it is used.
const PREPARE_MILLIS: i64 = 9 * DAY_MILLIS;

/// After so long the next one is used.
const ROTATE_MILLIS: i64 = 10 * DAY_MILLIS;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {} (set by {key}): {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        key: &'static str,
        /// The operating system's reason.
        why: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} (set by {key}) holds no {what} in PEM form: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        key: &'static str,
        /// What it should hold.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key do not serve together.
    #[error("tls_certificate and tls_key cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
    /// Only one of the two files is named.
    #[error("tls_certificate and tls_key belong together: set both, or neither for a development certificate")]
    Half,
    /// A development certificate could not be made.
    #[error("a development certificate could not be made: {0}")]
    Development(String),
}

/// The hash of a certificate, for `serverCertificateHashes` of a browser's `WebTransport`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct CertificateHash {
    algorithm: &'static str,
    /// Base64 of the SHA-256 of the certificate's DER form.
    value: String,
    /// Microseconds since the Unix epoch.
    not_after: i64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Certificates(RwLock<Source>);

#[derive(Debug)]
enum Source {
    Files(Files),
    Development(Development),
}

impl Certificates {
    /// Reads the files, or makes a development certificate for `names` where none is named.
    pub(crate) fn open(
        files: (Option<&Path>, Option<&Path>),
        names: Vec<String>,
        now: Time,
    ) -> Result<Self, CertificateError> {
        let source = match files {
            (Some(certificate), Some(key)) => Source::Files(Files::open(certificate, key)?),
            (None, None) => Source::Development(Development::new(names, now)?),
            _ => return Err(CertificateError::Half),
        };
        Ok(Self(RwLock::new(source)))
    }

    /// Reads files that have changed, makes the next development certificate when it is due. Says whether new connections
    /// get another certificate now; after an error they get the one that they got before.
    pub(crate) fn refresh(&self, now: Time) -> Result<bool, CertificateError> {
        // Only this writes, so nothing is lost by looking before the lock is taken; TLS handshakes do not wait for files.
        let files = match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Source::Files(files) => Some((files.certificate.clone(), files.key.clone(), files.sha256)),
            Source::Development(_) => None,
        };
        if let Some((certificate, key, before)) = files {
            let read = Files::open(&certificate, &key)?;
            if read.sha256 == before {
                return Ok(false);
            }
            *self.0.write().unwrap_or_else(PoisonError::into_inner) = Source::Files(read);
            return Ok(true);
        }
        match &mut *self.0.write().unwrap_or_else(PoisonError::into_inner) {
            Source::Development(development) => development.refresh(now),
            Source::Files(_) => Ok(false),
        }
    }

    /// Hashes of development certificates: the one in use, and (for a day before the change) the next. None for those
    /// from files, which a browser checks as any other.
    pub(crate) fn hashes(&self) -> Vec<CertificateHash> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Source::Files(_) => Vec::new(),
            Source::Development(all) => [Some(&all.current), all.next.as_ref()]
                .into_iter()
                .flatten()
                .map(|made| CertificateHash {
                    algorithm: "sha-256",
                    value: base64::engine::general_purpose::STANDARD.encode(made.sha256),
                    not_after: made.not_after.micros(),
                })
                .collect(),
        }
    }

    /// Keeps them fresh until the drain: every few seconds, and at SIGHUP.
    pub(crate) async fn keep_fresh(self: Arc<Self>, drain: Drain) {
        let mut every = tokio::time::interval(REFRESH);
        // Without files a hangup means what it always does: the terminal is gone, and the program ends.
        let from_files = matches!(&*self.0.read().unwrap_or_else(PoisonError::into_inner), Source::Files(_));
        let mut hangup = Hangups::new(from_files);
        loop {
            tokio::select! {
                () = drain.started() => return,
                _ = every.tick() => {}
                () = hangup.next() => {}
            }
            let all = Arc::clone(&self);
            let now = Time(ticker_runtime::clock::now_nanos());
            let Ok(result) = tokio::task::spawn_blocking(move || all.refresh(now)).await else { continue };
            match result {
                Ok(false) => {}
                Ok(true) => {
                    metrics::counter!("ticker_edge_certificate_reloads_total").increment(1);
                    tracing::info!("new connections get a new certificate");
                }
                Err(error) => {
                    metrics::counter!("ticker_edge_certificate_reload_failures_total").increment(1);
                    tracing::warn!(%error, "the certificate could not be read again; the one before serves on");
                }
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Source::Files(files) => Arc::clone(&files.certified),
            Source::Development(development) => Arc::clone(&development.current.certified),
        })
    }
}

/// A certificate from files.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    certified: Arc<CertifiedKey>,
    /// Of both files' bytes.
    sha256: [u8; 32],
}

impl Files {
    fn open(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let (chain_pem, key_pem) = (read(certificate, "tls_certificate")?, read(key, "tls_key")?);
        let content = |path: &Path, key, what, why: &dyn std::fmt::Display| CertificateError::Content {
            path: path.to_owned(),
            key,
            what,
            why: why.to_string(),
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain_pem).collect();
        let chain = match chain {
            Ok(chain) if !chain.is_empty() => chain,
            Ok(_) => return Err(content(certificate, "tls_certificate", "certificate", &"there is none in it")),
            Err(why) => return Err(content(certificate, "tls_certificate", "certificate", &why)),
        };
        let private =
            PrivateKeyDer::from_pem_slice(&key_pem).map_err(|why| content(key, "tls_key", "private key", &why))?;
        let certified = CertifiedKey::from_der(chain, private, &provider()).map_err(CertificateError::Unusable)?;
        let mut sha256 = Sha256::new_with_prefix(&chain_pem);
        sha256.update(&key_pem);
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Self { certificate, key, certified: Arc::new(certified), sha256: sha256.finalize().into() })
    }
}

fn read(path: &Path, key: &'static str) -> Result<Vec<u8>, CertificateError> {
    let failed = |why| CertificateError::File { path: path.to_owned(), key, why };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(failed(std::io::Error::other("it is far too large for a PEM file")));
    }
    std::fs::read(path).map_err(failed)
}

/// Certificates for development: P-256, self-signed, kept in memory only.
#[derive(Debug)]
struct Development {
    names: Vec<String>,
    current: Made,
    /// Made before it is used, so that its hash can be told in time.
    next: Option<Made>,
}

#[derive(Debug)]
struct Made {
    certified: Arc<CertifiedKey>,
    sha256: [u8; 32],
    made: Time,
    not_after: Time,
}

impl Development {
    fn new(names: Vec<String>, now: Time) -> Result<Self, CertificateError> {
        Ok(Self { current: Made::new(&names, now)?, names, next: None })
    }

    fn refresh(&mut self, now: Time) -> Result<bool, CertificateError> {
        let age = |made: &Made| now.since(made.made) / 1_000_000;
        if age(&self.current) >= ROTATE_MILLIS {
            // After a long sleep the prepared one may be old as well.
            let next = self.next.take().filter(|next| age(next) < PREPARE_MILLIS);
            self.current = next.map_or_else(|| Made::new(&self.names, now), Ok)?;
            return Ok(true);
        }
        if age(&self.current) >= PREPARE_MILLIS && self.next.is_none() {
            self.next = Some(Made::new(&self.names, now)?);
        }
        Ok(false)
    }
}

impl Made {
    fn new(names: &[String], now: Time) -> Result<Self, CertificateError> {
        let failed = |why: rcgen::Error| CertificateError::Development(why.to_string());
        let not_before = now.plus_millis(-EARLY_MILLIS);
        let not_after = not_before.plus_millis(VALID_MILLIS);
        let system = |time: Time| SystemTime::UNIX_EPOCH + Duration::from_millis(time.millis().max(0) as u64);
        let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(failed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "ticker, for development");
        (params.not_before, params.not_after) = (system(not_before).into(), system(not_after).into());
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let der = certificate.der().clone();
        let sha256 = Sha256::digest(&der).into();
        let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let certified = CertifiedKey::from_der(vec![der], private, &provider()).map_err(CertificateError::Unusable)?;
        Ok(Self { certified: Arc::new(certified), sha256, made: now, not_after })
    }
}

/// What computes: ring.
pub(crate) fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// SIGHUPs, where there are such signals.
struct Hangups {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    #[cfg(unix)]
    fn new(wanted: bool) -> Self {
        let signal = || tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
        Self { signal: wanted.then(signal).flatten() }
    }

    #[cfg(not(unix))]
    fn new(_: bool) -> Self {
        Self {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(1_800_000_000_000_000_000);

    fn after(days: i64) -> Time {
        START.plus_millis(days * DAY_MILLIS)
    }

    fn development() -> Certificates {
        Certificates::open((None, None), vec!["localhost".into(), "127.0.0.1".into()], START).expect("it can be made")
    }

    #[test]
    fn a_development_certificate_is_short_lived_and_its_next_is_told_in_time() {
        let all = development();
        let first = all.hashes();
        assert_eq!(first.len(), 1);
        assert!(first[0].not_after - START.micros() < 14 * DAY_MILLIS * 1_000);
        assert!(!all.refresh(after(8)).expect("nothing to do"));
        assert_eq!(all.hashes(), first);
        assert!(!all.refresh(after(9)).expect("it can be made"));
        let both = all.hashes();
        assert_eq!((both.len(), &both[0]), (2, &first[0]));
        assert!(all.refresh(after(10)).expect("it is there"));
        assert_eq!(all.hashes(), both[1..]);
        assert!(!all.refresh(after(17)).expect("nothing to do"));
        assert!(!all.refresh(after(18)).expect("it can be made"));
        assert_eq!(all.hashes().len(), 2);
    }

    #[test]
    fn after_a_long_sleep_the_certificate_is_a_new_one() {
        let all = development();
        all.refresh(after(9)).expect("it can be made");
        let both = all.hashes();
        assert!(all.refresh(after(100)).expect("it can be made"));
        let now = all.hashes();
        assert!(now.len() == 1 && !both.contains(&now[0]));
        assert!(now[0].not_after > after(110).micros());
    }

    fn write_pair(certificate: &Path, key: &Path) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it can be made");
        let pem = |label: &str, der: &[u8]| {
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        std::fs::write(certificate, pem("CERTIFICATE", made.cert.der())).expect("written");
        std::fs::write(key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).expect("written");
    }

    #[test]
    fn files_are_read_again_when_they_change_and_kept_when_they_are_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        write_pair(&certificate, &key);
        let all = Certificates::open((Some(&certificate), Some(&key)), Vec::new(), START).expect("readable");
        let served = |all: &Certificates| match &*all.0.read().expect("not poisoned") {
            Source::Files(files) => Arc::clone(&files.certified),
            Source::Development(_) => panic!("files"),
        };
        let first = served(&all);
        assert!(!all.refresh(START).expect("unchanged") && all.hashes().is_empty());
        write_pair(&certificate, &key);
        assert!(all.refresh(START).expect("readable"));
        let second = served(&all);
        assert_ne!(first.cert, second.cert);
        // Half of a change: a certificate that does not belong to the key.
        let good = std::fs::read(&key).expect("readable");
        write_pair(&certificate, &key);
        std::fs::write(&key, good).expect("written");
        assert!(matches!(all.refresh(START), Err(CertificateError::Unusable(_))));
        std::fs::write(&certificate, "nothing").expect("written");
        assert!(matches!(all.refresh(START), Err(CertificateError::Content { .. })));
        assert_eq!(served(&all).cert, second.cert);
        assert!(matches!(
            Certificates::open((Some(&certificate), None), Vec::new(), START),
            Err(CertificateError::Half)
        ));
    }
}
