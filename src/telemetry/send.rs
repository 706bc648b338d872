//! Takes encoded messages to their receiver, over gRPC or HTTP, and says what became of each.
//!
//! One way for every signal, and ours because the exporters of the SDK keep to themselves what a receiver refuses
//! in part, and read the variables once more on their own. A message is encoded once, however often it is tried.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use flate2::write::GzEncoder;
use prost::Message;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::otlp::{Compression, Problem, Protocol, Signal, Target};

/// Between the first two attempts; doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Between two attempts at most, unless the receiver asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const AGENT: &str = concat!("postern/", env!("CARGO_PKG_VERSION"));

/// The way to one receiver. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    signal: Signal,
    way: Way,
    timeout: Duration,
}

#[derive(Clone)]
enum Way {
    Grpc { channel: Channel, headers: MetadataMap, gzip: bool },
    Http { client: reqwest::Client, url: reqwest::Url, gzip: bool },
}

/// The receiver has taken a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Parts of it that it refused.
    pub rejected: u64,
    /// Why, in its words.
    pub message: String,
}

/// The receiver has not taken a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTaken {
    /// Whether it answered at all: it refused, or it could not be reached in time.
    pub refused: bool,
    /// What happened.
    pub reason: String,
    /// When another attempt makes sense; `None`: never.
    retry: Option<Pause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    Ours,
    AtLeast(Duration),
}

/// What all three services answer.
#[derive(Clone, PartialEq, Message)]
struct Reply {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

// === impl Sender ===

impl Sender {
    /// Connects when the first message is sent. Must run on the runtime that the connection is to live on.
    ///
    /// # Errors
    ///
    /// What is wrong with the certificates or the endpoint, by the variable.
    pub fn new(target: &Target) -> Result<Self, Problem> {
        let problem = |variable: &str, error: &dyn fmt::Display| Problem {
            variable: variable.to_owned(),
            value: None,
            wanted: format!("something that a connection can be made of: {error}"),
        };
        let gzip = target.compression == Compression::Gzip;
        let way = match target.protocol {
            Protocol::Grpc => {
                let endpoint = Endpoint::from_shared(target.endpoint.to_string())
                    .and_then(|endpoint| endpoint.user_agent(AGENT))
                    .map_err(|error| problem(&target.named_by, &error))?
                    .timeout(target.timeout)
                    .connect_timeout(target.timeout);
                let endpoint = if target.endpoint.scheme() == "https" {
                    endpoint
                        .tls_config(grpc_tls(target))
                        .map_err(|error| problem(&target.named_by, &error))?
                } else {
                    endpoint
                };
                let headers = headers(target).map_err(|error| problem(&target.named_by, &error))?;
                Way::Grpc {
                    channel: endpoint.connect_lazy(),
                    headers: MetadataMap::from_headers(headers),
                    gzip,
                }
            }
            Protocol::HttpProtobuf => {
                let mut headers = headers(target).map_err(|error| problem(&target.named_by, &error))?;
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
                if gzip {
                    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                let client =
                    http_client(target, headers).map_err(|error| problem(&target.named_by, &error))?;
                Way::Http { client, url: target.endpoint.clone(), gzip }
            }
        };
        Ok(Self { signal: target.signal, way, timeout: target.timeout })
    }

    /// Tries until the receiver takes or finally refuses the message, or the deadline is there.
    ///
    /// # Errors
    ///
    /// What the last attempt ended in.
    pub async fn deliver(&self, message: Bytes, within: Duration) -> Result<Taken, NotTaken> {
        let deadline = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = timeout_at(deadline, self.send(message.clone())).await;
            let failed = match attempt {
                Ok(Ok(taken)) => return Ok(taken),
                Ok(Err(failed)) => failed,
                Err(_) => return Err(NotTaken::unreachable("no answer in time")),
            };
            let wait = match failed.retry {
                None => return Err(failed),
                Some(Pause::Ours) => pause,
                Some(Pause::AtLeast(asked)) => asked.max(pause),
            };
            // An attempt that would begin after the deadline is none.
            if Instant::now() + wait >= deadline {
                return Err(failed);
            }
            sleep(wait).await;
            pause = LONGEST_PAUSE.min(pause.saturating_mul(2));
        }
    }

    /// One attempt.
    ///
    /// # Errors
    ///
    /// Why the receiver has not taken it.
    pub async fn send(&self, message: Bytes) -> Result<Taken, NotTaken> {
        match &self.way {
            Way::Grpc { channel, headers, gzip } => {
                let mut client = Grpc::new(channel.clone());
                if *gzip {
                    client = client.send_compressed(CompressionEncoding::Gzip);
                }
                client.ready().await.map_err(|error| NotTaken::unreachable(&chain(&error)))?;
                let mut request = Request::from_parts(headers.clone(), Default::default(), message);
                request.set_timeout(self.timeout);
                let path = PathAndQuery::from_static(method(self.signal));
                match client.unary(request, path, Raw).await {
                    Ok(reply) => Ok(reply.into_inner().into()),
                    Err(status) => Err(status.into()),
                }
            }
            Way::Http { client, url, gzip } => {
                let body = if *gzip { packed(&message)? } else { message };
                let sent = client.post(url.clone()).body(body).send().await;
                let response = sent.map_err(|error| NotTaken::unreachable(&chain(&error.without_url())))?;
                let status = response.status();
                if status.is_success() {
                    // A reply that cannot be read is still a success of the protocol.
                    let bytes = response.bytes().await.unwrap_or_default();
                    return Ok(Reply::decode(bytes).unwrap_or_default().into());
                }
                let asked = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
                let asked = asked.and_then(|after| after.parse().ok()).map(Duration::from_secs);
                let again = matches!(status.as_u16(), 429 | 502 | 503 | 504);
                Err(NotTaken {
                    refused: true,
                    reason: format!("the receiver answered {status}"),
                    retry: again.then(|| asked.map_or(Pause::Ours, Pause::AtLeast)),
                })
            }
        }
    }
}

impl NotTaken {
    fn unreachable(reason: &str) -> Self {
        Self { refused: false, reason: reason.to_owned(), retry: Some(Pause::Ours) }
    }
}

const fn method(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

fn headers(target: &Target) -> Result<HeaderMap, reqwest::header::InvalidHeaderName> {
    let mut headers = HeaderMap::new();
    for (name, value) in &target.headers.0 {
        // Values were looked at when the variables were read.
        if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(name.as_bytes())?, value);
        }
    }
    Ok(headers)
}

fn grpc_tls(target: &Target) -> ClientTlsConfig {
    let mut config = match &target.tls.authority {
        Some(authority) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &target.tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    config
}

fn http_client(target: &Target, headers: HeaderMap) -> Result<reqwest::Client, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .user_agent(AGENT)
        .default_headers(headers)
        .timeout(target.timeout)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(authority) = &target.tls.authority {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(authority)?);
    }
    if let Some((certificate, key)) = &target.tls.identity {
        let both = [key.as_slice(), b"\n", certificate.as_slice()].concat();
        builder = builder.identity(reqwest::Identity::from_pem(&both)?);
    }
    builder.build()
}

fn packed(message: &Bytes) -> Result<Bytes, NotTaken> {
    use std::io::Write as _;
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let written = encoder.write_all(message).and_then(|()| encoder.finish());
    written.map(Bytes::from).map_err(|error| NotTaken {
        refused: true,
        reason: error.to_string(),
        retry: None,
    })
}

/// An error and what it came from: the outermost one alone says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

// === the codec ===

/// Bytes out, a reply in.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Reply;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(item.remaining());
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Reply;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Reply>, Status> {
        Reply::decode(from).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

// === impls of std traits ===

impl From<Reply> for Taken {
    fn from(reply: Reply) -> Self {
        let partial = reply.partial_success.unwrap_or_default();
        Self { rejected: u64::try_from(partial.rejected).unwrap_or(0), message: partial.error_message }
    }
}

impl From<Status> for NotTaken {
    fn from(status: Status) -> Self {
        let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let retry = match status.code() {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Some(asked.map_or(Pause::Ours, Pause::AtLeast)),
            // Without a hint it will be exhausted for longer than anybody waits.
            Code::ResourceExhausted => asked.map(Pause::AtLeast),
            // Neither of these came from the receiver.
            Code::Unknown if std::error::Error::source(&status).is_some() => Some(Pause::Ours),
            _ => None,
        };
        // Made here, when there was no connection or it broke.
        let local = std::error::Error::source(&status).is_some() || status.code() == Code::DeadlineExceeded;
        let reason = match std::error::Error::source(&status) {
            Some(source) => chain(source),
            // The receiver's message may repeat what it was sent, such as a token.
            None => format!("the receiver answered {:?}", status.code()),
        };
        Self { refused: !local, reason, retry }
    }
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("signal", &self.signal).finish_non_exhaustive()
    }
}
