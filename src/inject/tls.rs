//! The certificate of the webhook: read from two files and, while serving, read again when they change. A pair that
//! cannot be used, such as a certificate whose key has not been written yet, is told once and changes nothing.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use super::metrics::InjectorMetrics;

/// Where the pair lies, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateFiles {
    /// The certificate and those that lead to the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why a pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("`{}` cannot be read: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file is no PEM of what it should hold.
    #[error("`{}` has no {wanted} in PEM: {source}", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was wanted.
        wanted: &'static str,
        /// What was found.
        source: pem::Error,
    },
    /// The two do not belong together, or are of a kind that is not known.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The pair that is presented to whoever connects.
pub(super) struct Certificate {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads the pair; gives with it the bytes that were read.
    pub(super) fn load(files: CertificateFiles) -> Result<(Arc<Self>, Read), CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let read = Read::of(&files)?;
        let key = read.certified(&files, &provider)?;
        Ok((Arc::new(Self { files, provider, current: ArcSwap::from_pointee(key) }), read))
    }

    /// What connections are accepted with.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, CertificateError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Looks at the files for ever. `read` is what was read last.
    pub(super) async fn watch(self: Arc<Self>, mut read: Read, every: Duration, metrics: InjectorMetrics) {
        let mut told = String::new();
        loop {
            tokio::time::sleep(every).await;
            let outcome = match Read::of(&self.files) {
                Ok(now) if now == read => continue,
                Ok(now) => now.certified(&self.files, &self.provider).map(|key| (now, key)),
                Err(error) => Err(error),
            };
            match outcome {
                Ok((now, key)) => {
                    self.current.store(Arc::new(key));
                    read = now;
                    told.clear();
                    metrics.certificate(true);
                    tracing::info!(certificate = %self.files.certificate.display(), "a new certificate is presented");
                }
                Err(error) => {
                    let error = error.to_string();
                    // Once for each kind of failure, not every few seconds.
                    if error != told {
                        metrics.certificate(false);
                        tracing::warn!(
                            error,
                            "the certificate on disk cannot be used; the one before is presented"
                        );
                        told = error;
                    }
                }
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

/// What the files held.
#[derive(PartialEq, Eq)]
pub(super) struct Read {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Read {
    fn of(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| CertificateError::Io { path: path.clone(), source })
        };
        Ok(Self { certificate: read(&files.certificate)?, key: read(&files.key)? })
    }

    fn certified(
        &self,
        files: &CertificateFiles,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, CertificateError> {
        let pem =
            |path: &PathBuf, wanted, source| CertificateError::Pem { path: path.clone(), wanted, source };
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
            .map_err(|source| pem(&files.certificate, "certificate", source))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|source| pem(&files.key, "private key", source))?;
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    }
}

/// The key is not shown.
impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").field("certificate", &self.certificate.len()).finish_non_exhaustive()
    }
}
