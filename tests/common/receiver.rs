//! A receiver of OTLP: the services of the protocol over gRPC or POSTs of HTTP, in clear text or TLS, and what a
//! receiver can do to its senders: take, take in part, refuse, be unavailable, or not answer for a while.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Take,
    /// One span or record of each message is refused.
    TakeLess,
    Refuse,
    Unavailable,
    Stall,
}

#[derive(Clone, Default)]
pub struct Receiver(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    mood: Mood,
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
    headers: Vec<(String, String)>,
    messages: usize,
}

impl Receiver {
    /// Over gRPC, on a port of its own choice.
    pub async fn grpc() -> (Self, SocketAddr) {
        Self::grpc_on("127.0.0.1:0".parse().unwrap(), None).await
    }

    pub async fn grpc_on(address: SocketAddr, tls: Option<Identity>) -> (Self, SocketAddr) {
        let receiver = Self::default();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let traces = TraceServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip);
        let metrics = MetricsServiceServer::new(receiver.clone());
        let logs = LogsServiceServer::new(receiver.clone()).accept_compressed(CompressionEncoding::Gzip);
        let router = server(tls).add_service(traces).add_service(metrics).add_service(logs);
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        (receiver, address)
    }

    /// Over HTTP.
    pub async fn http() -> (Self, SocketAddr) {
        Self::http_with(None).await
    }

    pub async fn http_with(tls: Option<Identity>) -> (Self, SocketAddr) {
        let receiver = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/v1/traces", post(http_traces))
            .route("/v1/metrics", post(http_metrics))
            .route("/v1/logs", post(http_logs))
            .with_state(receiver.clone());
        let router = server(tls).accept_http1(true).add_routes(Routes::from(router));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        (receiver, address)
    }

    pub fn set(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    /// All spans in the order of their arrival.
    pub fn spans(&self) -> Vec<Span> {
        let inner = self.0.lock().unwrap();
        let resources = inner.traces.iter().flat_map(|export| &export.resource_spans);
        resources.flat_map(|one| &one.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    /// All log records in the order of their arrival.
    pub fn records(&self) -> Vec<LogRecord> {
        let inner = self.0.lock().unwrap();
        let resources = inner.logs.iter().flat_map(|export| &export.resource_logs);
        resources.flat_map(|one| &one.scope_logs).flat_map(|scope| scope.log_records.clone()).collect()
    }

    /// What the sender of log records says of itself.
    pub fn resource_of_records(&self, key: &str) -> Option<String> {
        let inner = self.0.lock().unwrap();
        let resource = inner.logs.first()?.resource_logs.first()?.resource.clone()?;
        value(&resource.attributes, key)
    }

    pub fn resource(&self, key: &str) -> Option<String> {
        let inner = self.0.lock().unwrap();
        let resource = inner.traces.first()?.resource_spans.first()?.resource.clone()?;
        value(&resource.attributes, key)
    }

    /// The newest metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        let inner = self.0.lock().unwrap();
        let resources = inner.metrics.last().into_iter().flat_map(|export| &export.resource_metrics);
        resources.flat_map(|one| &one.scope_metrics).flat_map(|scope| scope.metrics.clone()).collect()
    }

    pub fn pushes(&self) -> usize {
        self.0.lock().unwrap().metrics.len()
    }

    /// Messages of spans and of records that came, whatever became of them.
    pub fn messages(&self) -> usize {
        self.0.lock().unwrap().messages
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let inner = self.0.lock().unwrap();
        inner.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn mood(&self) -> Mood {
        self.0.lock().unwrap().mood
    }

    fn note<'a>(&self, headers: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let mut inner = self.0.lock().unwrap();
        inner.messages += 1;
        inner.headers.extend(
            headers.map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned())),
        );
    }

    /// Whether a message of spans or records is taken whole.
    async fn judge(&self) -> Result<bool, Mood> {
        while self.mood() == Mood::Stall {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match self.mood() {
            Mood::Take | Mood::Stall => Ok(true),
            Mood::TakeLess => Ok(false),
            mood => Err(mood),
        }
    }

    /// What becomes of a message of spans; the number of those that are refused.
    async fn traces(&self, mut request: ExportTraceServiceRequest) -> Result<i64, Mood> {
        let whole = self.judge().await?;
        if !whole {
            request.resource_spans[0].scope_spans[0].spans.pop();
        }
        self.0.lock().unwrap().traces.push(request);
        Ok(i64::from(!whole))
    }

    /// The same of log records.
    async fn logs(&self, mut request: ExportLogsServiceRequest) -> Result<i64, Mood> {
        let whole = self.judge().await?;
        if !whole {
            request.resource_logs[0].scope_logs[0].log_records.pop();
        }
        self.0.lock().unwrap().logs.push(request);
        Ok(i64::from(!whole))
    }
}

fn server(tls: Option<Identity>) -> Server {
    match tls {
        Some(identity) => Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap(),
        None => Server::builder(),
    }
}

fn refusal(mood: Mood) -> Status {
    if mood == Mood::Unavailable { Status::unavailable("later") } else { Status::invalid_argument("no") }
}

fn http_refusal(mood: Mood) -> StatusCode {
    if mood == Mood::Unavailable { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_REQUEST }
}

fn reply(rejected: i64) -> ExportTraceServiceResponse {
    let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: rejected,
        error_message: "one too many".into(),
    });
    ExportTraceServiceResponse { partial_success }
}

fn reply_to_logs(rejected: i64) -> ExportLogsServiceResponse {
    let partial_success = (rejected > 0).then(|| ExportLogsPartialSuccess {
        rejected_log_records: rejected,
        error_message: "one too many".into(),
    });
    ExportLogsServiceResponse { partial_success }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.note(request.metadata().as_ref().iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        let rejected = self.traces(request.into_inner()).await.map_err(refusal)?;
        Ok(Response::new(reply(rejected)))
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.note(request.metadata().as_ref().iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        let rejected = self.logs(request.into_inner()).await.map_err(refusal)?;
        Ok(Response::new(reply_to_logs(rejected)))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.lock().unwrap().metrics.push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn http_traces(
    State(receiver): State<Receiver>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Vec<u8>, StatusCode> {
    receiver.note(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let rejected = receiver.traces(unpacked(&headers, &body)).await.map_err(http_refusal)?;
    Ok(reply(rejected).encode_to_vec())
}

async fn http_logs(
    State(receiver): State<Receiver>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Vec<u8>, StatusCode> {
    receiver.note(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    let rejected = receiver.logs(unpacked(&headers, &body)).await.map_err(http_refusal)?;
    Ok(reply_to_logs(rejected).encode_to_vec())
}

async fn http_metrics(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    receiver.0.lock().unwrap().metrics.push(unpacked(&headers, &body));
    ExportMetricsServiceResponse::default().encode_to_vec()
}

fn unpacked<M: Message + Default>(headers: &HeaderMap, body: &Bytes) -> M {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    if headers.get("content-encoding").is_none() {
        return M::decode(body.clone()).unwrap();
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
    M::decode(&plain[..]).unwrap()
}

/// A value as text; lists with commas.
pub fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(text(found.value.clone()?.value?))
}

fn text(value: any_value::Value) -> String {
    match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::BoolValue(flag) => flag.to_string(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
        any_value::Value::ArrayValue(list) => {
            list.values.into_iter().map(|one| text(one.value.unwrap())).collect::<Vec<_>>().join(",")
        }
        other => panic!("{other:?}"),
    }
}

pub fn attribute(span: &Span, key: &str) -> Option<String> {
    value(&span.attributes, key)
}

pub fn of_event(event: &Event, key: &str) -> Option<String> {
    value(&event.attributes, key)
}
