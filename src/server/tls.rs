//! Mutual TLS of the TCP listener: a certificate of our own, one of every client, and both kept current while serving.
//!
//! The files are read every few seconds. What two looks in a row find is taken, so that files that are being replaced,
//! one after the other or through the symbolic links of a mounted secret, are never taken half. What cannot be used is
//! told, and the older one stays. Connections that are open keep what they began with.
//!
//! There are no sessions to resume: every connection shows its certificate.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

use crate::metrics::{Counter, Metrics};
use crate::telemetry::names::metric;

use super::accept::{Counted, Door, Occasionally, Place, Refused};
use super::spiffe::SpiffeRule;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// A handshake that takes longer is cut.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Chains and bundles of authorities are far below this.
const MOST_BYTES: u64 = 4 << 20;

/// What mutual TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Our certificate and what leads to its authority, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authorities of clients, PEM.
    pub client_ca: PathBuf,
    /// Who of those that the authorities vouch for; all of them where this is empty.
    pub allow: Vec<SpiffeRule>,
}

/// What the files say now.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ArcSwap<ServerConfig>>);

/// Everything that is wrong with the files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct TlsProblems(pub Vec<String>);

/// Keeps [`Tls`] current.
#[derive(Debug)]
pub struct TlsReloader {
    settings: TlsSettings,
    tls: Tls,
    /// When the chain in use ends, in seconds since 1970.
    expires: u64,
    /// Of the files that were last taken or refused.
    judged: Contents,
    /// Of the last look.
    seen: Contents,
}

/// The files as they are: what cannot be read is a word of the system.
#[derive(Debug)]
struct Files {
    cert: Result<Vec<u8>, String>,
    key: Result<Vec<u8>, String>,
    client_ca: Result<Vec<u8>, String>,
}

/// Tells files apart without keeping a key around.
type Contents = [u8; 32];

/// Lets in whom the authorities vouch for, and of these who is named.
#[derive(Debug)]
struct NamedClients {
    chain: Arc<dyn ClientCertVerifier>,
    allow: Vec<SpiffeRule>,
    told: Mutex<Occasionally>,
}

// === impls ===

impl Tls {
    /// Reads the files for the first time.
    pub fn start(settings: TlsSettings) -> Result<(Self, TlsReloader), TlsProblems> {
        let files = Files::read(&settings);
        let (config, expires) = files.config(&settings)?;
        let tls = Self(Arc::new(ArcSwap::from_pointee(config)));
        let contents = files.contents();
        Ok((tls.clone(), TlsReloader { settings, tls, expires, judged: contents, seen: contents }))
    }

    async fn handshake(
        config: Arc<ServerConfig>,
        connection: TcpStream,
    ) -> Result<TlsStream<TcpStream>, (Refused, String)> {
        match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(connection)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
                let named = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
                let why = if inner == Some(&named) { Refused::Identity } else { Refused::Handshake };
                Err((why, error.to_string()))
            }
            Err(_late) => Err((Refused::Timeout, format!("no handshake within {HANDSHAKE:?}"))),
        }
    }
}

/// The connections of a TCP listener, each after its handshake.
pub fn incoming(
    listener: TcpListener,
    tls: Tls,
    door: Door,
) -> impl Stream<Item = io::Result<Counted<TlsStream<TcpStream>>>> {
    type Done = (Result<TlsStream<TcpStream>, (Refused, String)>, SocketAddr, Place);
    let handshakes: JoinSet<Done> = JoinSet::new();
    stream::unfold((listener, tls, door, handshakes), |(listener, tls, mut door, mut handshakes)| async {
        let connection = loop {
            tokio::select! {
                Some(done) = handshakes.join_next() => match done {
                    Ok((Ok(connection), _, place)) => break door.admit(connection, place),
                    Ok((Err((why, what)), peer, _)) => door.refuse(why, &format_args!("{peer}: {what}")),
                    // Tasks are aborted with the set alone, which is dropped with this loop.
                    Err(error) => tracing::error!(%error, "a handshake ended without a result"),
                },
                (connection, peer, place) = door.accept_tcp(&listener) => {
                    let config = tls.0.load_full();
                    handshakes.spawn(async move { (Tls::handshake(config, connection).await, peer, place) });
                }
            }
        };
        Some((Ok(connection), (listener, tls, door, handshakes)))
    })
}

impl TlsReloader {
    /// Looks until the process ends.
    pub async fn run(mut self, metrics: Metrics) {
        let outcome = |outcome| metrics.counter(&metric::TLS_RELOADS, &[outcome]);
        let (taken, refused) = (outcome("taken"), outcome("refused"));
        let expires = metrics.gauge(&metric::TLS_EXPIRES, &[]);
        expires.set(self.expires);
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A mount may hang.
            let look = tokio::task::spawn_blocking(move || {
                let outcome = self.look();
                (self, outcome)
            });
            let Ok((this, outcome)) = look.await else { return };
            self = this;
            // Before the count, so that whoever sees a reload sees its certificate.
            expires.set(self.expires);
            self.tell(outcome, &taken, &refused);
        }
    }

    /// `None` where there is nothing new, or nothing that has settled.
    fn look(&mut self) -> Option<Result<(), TlsProblems>> {
        let files = Files::read(&self.settings);
        let contents = files.contents();
        let settled = std::mem::replace(&mut self.seen, contents) == contents;
        if !settled || contents == self.judged {
            return None;
        }
        self.judged = contents;
        Some(files.config(&self.settings).map(|(config, expires)| {
            self.tls.0.store(Arc::new(config));
            self.expires = expires;
        }))
    }

    fn tell(&self, outcome: Option<Result<(), TlsProblems>>, taken: &Counter, refused: &Counter) {
        match outcome {
            None => {}
            Some(Ok(())) => {
                taken.inc();
                tracing::info!(cert = %self.settings.cert.display(), "new connections use the new certificates");
            }
            Some(Err(problems)) => {
                refused.inc();
                tracing::error!("the new certificates cannot be used, the older ones stay: {problems}");
            }
        }
    }
}

impl Files {
    fn read(settings: &TlsSettings) -> Self {
        let read = |path: &Path| {
            let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
            if size > MOST_BYTES {
                return Err(format!(
                    "it has {size} bytes; certificates and keys have less than {MOST_BYTES}"
                ));
            }
            fs::read(path).map_err(|error| error.to_string())
        };
        Self { cert: read(&settings.cert), key: read(&settings.key), client_ca: read(&settings.client_ca) }
    }

    fn contents(&self) -> Contents {
        let mut hash = Sha256::new();
        for file in [&self.cert, &self.key, &self.client_ca] {
            let (readable, bytes) = match file {
                Ok(bytes) => (1, bytes.as_slice()),
                Err(error) => (0, error.as_bytes()),
            };
            hash.update([readable]);
            hash.update(bytes.len().to_le_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }

    /// What connections are accepted with, and when its chain ends. All problems at once.
    fn config(&self, settings: &TlsSettings) -> Result<(ServerConfig, u64), TlsProblems> {
        let mut problems = Vec::new();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut tell = |setting: &str, path: &Path, problem: String| {
            problems.push(format!("`{}` (`--{setting}`): {problem}", path.display()));
        };
        let chain = certificates(&self.cert).and_then(|chain| Ok((end(&chain)?, chain)));
        if let Err(problem) = &chain {
            tell("tls-cert", &settings.cert, problem.clone());
        }
        let key = self.key.as_ref().map_err(Clone::clone).and_then(|pem| {
            PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
                "wanted a private key as PEM, not encrypted: PKCS #8, PKCS #1 or SEC 1".to_owned()
            })
        });
        if let Err(problem) = &key {
            tell("tls-key", &settings.key, problem.clone());
        }
        let clients =
            certificates(&self.client_ca).and_then(|authorities| clients(authorities, settings, &provider));
        if let Err(problem) = &clients {
            tell("tls-client-ca", &settings.client_ca, problem.clone());
        }
        if let (Ok((expires, chain)), Ok(key), Ok(clients)) = (chain, key, clients) {
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map(|builder| builder.with_client_cert_verifier(clients))
                .and_then(|builder| builder.with_single_cert(chain, key));
            match config {
                Ok(mut config) => {
                    config.alpn_protocols = vec![b"h2".to_vec()];
                    config.session_storage = Arc::new(NoServerSessionStorage {});
                    config.send_tls13_tickets = 0;
                    return Ok((config, expires));
                }
                Err(error) => {
                    tell(
                        "tls-cert",
                        &settings.cert,
                        format!("with the key `{}`: {error}", settings.key.display()),
                    );
                }
            }
        }
        Err(TlsProblems(problems))
    }
}

fn certificates(pem: &Result<Vec<u8>, String>) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = pem.as_ref().map_err(Clone::clone)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err("wanted certificates as PEM; there is none".into()),
        Err(error) => Err(format!("wanted certificates as PEM: {error}")),
    }
}

/// When the first of a chain ends: from then on clients refuse all of it. In seconds since 1970.
fn end(chain: &[CertificateDer<'_>]) -> Result<u64, String> {
    let ends = chain.iter().enumerate().map(|(number, certificate)| {
        // Of everything else in it rustls is the judge.
        let parsed = CertificateInner::<Raw>::from_der(certificate)
            .map_err(|error| format!("certificate {}: {error}", number.saturating_add(1)))?;
        Ok(parsed.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
    });
    ends.reduce(|one, other| Ok(one?.min(other?))).unwrap_or(Ok(0))
}

/// An authority that cannot be read is a reason to refuse all: whoever it vouches for would be locked out unnoticed.
fn clients(
    authorities: Vec<CertificateDer<'static>>,
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for (number, authority) in authorities.into_iter().enumerate() {
        roots.add(authority).map_err(|error| format!("certificate {}: {error}", number.saturating_add(1)))?;
    }
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| error.to_string())?;
    if settings.allow.is_empty() {
        return Ok(chain);
    }
    Ok(Arc::new(NamedClients { chain, allow: settings.allow.clone(), told: Mutex::default() }))
}

impl NamedClients {
    /// The standard wants exactly one URI in the certificate of a workload.
    fn name(certificate: &CertificateDer<'_>) -> Result<String, String> {
        let certificate = webpki::EndEntityCert::try_from(certificate).map_err(|error| error.to_string())?;
        let mut uris = certificate.valid_uri_names();
        match (uris.next(), uris.next()) {
            (Some(one), None) => Ok(one.to_owned()),
            (None, _) => Err("a certificate without a SPIFFE id".into()),
            (Some(_), Some(_)) => Err("a certificate with more than one URI, which is no SPIFFE id".into()),
        }
    }

    fn allows(&self, certificate: &CertificateDer<'_>) -> bool {
        let name = Self::name(certificate);
        if name.as_ref().is_ok_and(|name| self.allow.iter().any(|rule| rule.allows(name))) {
            return true;
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).now();
        if let Some(count) = told {
            let who = name.map_or_else(|problem| problem, |name| format!("`{name}`"));
            tracing::warn!(count, "`tls-allow-spiffe` does not let in {who}");
        }
        false
    }
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        if self.allows(end_entity) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
