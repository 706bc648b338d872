//! Check and BatchCheck from the bytes of the request to the bytes of the answer. All other methods go on to the generated
//! service; these two are asked so often that messages in between would be a good part of what they cost.
//!
//! The bytes are gRPC's: a flag that says whether the message is compressed, which nothing on one machine gains from and
//! so is refused, its length in four bytes, and the message.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use hyper::service::Service;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Body as HttpBody, BoxFuture, Service as TowerService, StdError};
use tonic::metadata::MetadataMap;

use super::grpc::AuthorizationApi;

const CHECK: &str = "/postern.v1.AuthorizationService/Check";
const BATCH_CHECK: &str = "/postern.v1.AuthorizationService/BatchCheck";

/// What stands before a message: whether it is compressed, and its length.
pub(super) const HEAD: usize = 5;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");

/// The service, with a shorter way for checks.
#[derive(Clone, Debug)]
pub(super) struct Direct<S> {
    api: Arc<AuthorizationApi>,
    max_request_bytes: usize,
    inner: S,
}

/// The body of an answer.
#[derive(Debug)]
pub struct Reply(Content);

#[derive(Debug)]
enum Content {
    /// One message, then the status that says that all is well.
    Message(Bytes),
    /// The message has gone.
    Status,
    Nothing,
    /// As the generated services make them.
    Other(Body),
}

#[derive(Clone, Copy)]
enum Method {
    Check,
    BatchCheck,
}

// === impl Direct ===

impl<S> Direct<S> {
    pub(super) const fn new(api: Arc<AuthorizationApi>, max_request_bytes: usize, inner: S) -> Self {
        Self { api, max_request_bytes, inner }
    }

    fn unary<B>(&self, request: Request<B>, method: Method) -> BoxFuture<Response<Reply>, Infallible>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        let (api, limit) = (Arc::clone(&self.api), self.max_request_bytes);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            if let Some(encoding) = compression(&parts.headers) {
                return Ok(Reply::not_compressed(encoding));
            }
            let answer = match read(body, limit).await {
                Ok(message) => {
                    let metadata = MetadataMap::from_headers(parts.headers);
                    match method {
                        Method::Check => api.check_bytes(&metadata, &message).await,
                        Method::BatchCheck => api.batch_check_bytes(&metadata, &message).await,
                    }
                }
                Err(status) => Err(status),
            };
            Ok(match answer {
                Ok(answer) => Reply::whole(answer),
                Err(status) => Reply::status(status),
            })
        })
    }
}

impl<S, B> Service<Request<B>> for Direct<S>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send,
    S: TowerService<
            Request<B>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        > + Clone,
{
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Reply>, Infallible>;

    fn call(&self, request: Request<B>) -> Self::Future {
        match request.uri().path() {
            CHECK => self.unary(request, Method::Check),
            BATCH_CHECK => self.unary(request, Method::BatchCheck),
            _ => {
                // The generated service is always ready.
                let answer = self.inner.clone().call(request);
                Box::pin(async { Ok(answer.await?.map(Reply::from)) })
            }
        }
    }
}

/// How the message is compressed, if it is.
fn compression(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(&ENCODING).filter(|encoding| *encoding != IDENTITY)
}

/// The one message of a call. One that came in one piece is not copied.
async fn read<B>(body: B, limit: usize) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<StdError>,
{
    let mut body = pin!(body);
    let mut pieces = Pieces::default();
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        if let Ok(data) = frame.into_data() {
            pieces.add(data, limit)?;
        }
        if body.is_end_stream() {
            break;
        }
    }
    pieces.message()
}

/// What has come of a message.
#[derive(Default)]
struct Pieces {
    /// The only piece so far.
    first: Bytes,
    /// All pieces, where there is more than one.
    all: BytesMut,
    /// Of the message and its head, as soon as it is known.
    length: Option<usize>,
}

impl Pieces {
    fn add(&mut self, data: Bytes, limit: usize) -> Result<(), Status> {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = data;
        } else {
            if self.all.is_empty() {
                self.all.extend_from_slice(&std::mem::take(&mut self.first));
            }
            self.all.extend_from_slice(&data);
        }
        let so_far = if self.all.is_empty() { &*self.first } else { &*self.all };
        if self.length.is_none()
            && let Some((&[flag, a, b, c, d], _)) = so_far.split_first_chunk::<HEAD>()
        {
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            if flag != 0 {
                let what = if flag == 1 {
                    "compressed, and no `grpc-encoding` says how"
                } else {
                    "no message of gRPC"
                };
                return Err(Status::internal(format!(
                    "the first byte of the message is {flag}: it is {what}"
                )));
            }
            if length > limit {
                return Err(Status::out_of_range(format!(
                    "the message has {length} bytes, and {limit} are the most (`max-request-bytes`)"
                )));
            }
            let whole = length.saturating_add(HEAD);
            if so_far.len() < whole {
                // Room for all of it once, instead of more and more of it.
                let missing = whole.saturating_sub(so_far.len());
                if self.all.is_empty() {
                    self.all.reserve(whole);
                } else {
                    self.all.reserve(missing);
                }
            }
            self.length = Some(whole);
        }
        match self.length {
            Some(whole) if self.so_far() > whole => {
                Err(Status::internal("more than one message came for a call that takes one"))
            }
            _ => Ok(()),
        }
    }

    fn so_far(&self) -> usize {
        self.first.len().max(self.all.len())
    }

    fn message(self) -> Result<Bytes, Status> {
        match self.length {
            Some(whole) if self.so_far() == whole => {
                let all = if self.all.is_empty() { self.first } else { self.all.freeze() };
                Ok(all.slice(HEAD..))
            }
            None if self.so_far() == 0 => Err(Status::internal("no message came")),
            _ => Err(Status::internal("the message ended before its length")),
        }
    }
}

// === impl Reply ===

impl Reply {
    /// A message behind [`HEAD`] bytes that are still to be filled.
    fn whole(mut message: Vec<u8>) -> Response<Self> {
        let length = u32::try_from(message.len().saturating_sub(HEAD)).unwrap_or(u32::MAX);
        if let Some(head) = message.first_chunk_mut::<HEAD>() {
            let [a, b, c, d] = length.to_be_bytes();
            *head = [0, a, b, c, d];
        }
        let mut response = Response::new(Self(Content::Message(message.into())));
        response.headers_mut().insert(CONTENT_TYPE, GRPC);
        response
    }

    /// The refusal of a compressed message, which says what is taken.
    fn not_compressed(encoding: &HeaderValue) -> Response<Self> {
        let encoding = String::from_utf8_lossy(encoding.as_bytes());
        let mut refusal = Self::status(Status::unimplemented(format!(
            "messages that are compressed with `{encoding}` are not read; send them as they are"
        )));
        refusal.headers_mut().insert(ACCEPT_ENCODING, IDENTITY);
        refusal
    }

    /// Only a status.
    pub(super) fn status(status: Status) -> Response<Self> {
        status.into_http::<Body>().map(Self::from)
    }
}

impl From<Body> for Reply {
    fn from(body: Body) -> Self {
        Self(Content::Other(body))
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, next) = match &mut self.0 {
            Content::Other(body) => return Pin::new(body).poll_frame(context),
            Content::Message(message) => (Frame::data(std::mem::take(message)), Content::Status),
            Content::Status => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(STATUS, OK);
                (Frame::trailers(trailers), Content::Nothing)
            }
            Content::Nothing => return Poll::Ready(None),
        };
        self.0 = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Other(body) => body.is_end_stream(),
            Content::Nothing => true,
            Content::Message(_) | Content::Status => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    /// A message that comes in these pieces.
    fn pieces(all: &[&[u8]], limit: usize) -> Result<Bytes, Status> {
        let mut pieces = Pieces::default();
        for piece in all {
            pieces.add(Bytes::copy_from_slice(piece), limit)?;
        }
        pieces.message()
    }

    #[test]
    fn a_message_is_the_same_however_it_is_cut() {
        let whole = [&[0, 0, 0, 0, 6][..], b"abcdef"].concat();
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let cut = [&whole[..first], &whole[first..second], &whole[second..]];
                assert_eq!(pieces(&cut, 6).unwrap(), "abcdef", "{first} {second}");
            }
        }
        assert_eq!(pieces(&[&[0; 5]], 0).unwrap(), "");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let refused = |all: &[&[u8]]| pieces(all, 6).unwrap_err().code();
        assert_eq!(refused(&[]), Code::Internal, "nothing");
        assert_eq!(refused(&[&[0, 0, 0]]), Code::Internal, "not even a head");
        assert_eq!(refused(&[&[0, 0, 0, 0, 2, 1]]), Code::Internal, "half of it");
        assert_eq!(refused(&[&[0, 0, 0, 0, 1, 1, 0]]), Code::Internal, "more than it");
        assert_eq!(refused(&[&[0, 0, 0, 0, 1], &[1], &[0]]), Code::Internal, "more than it, later");
        assert_eq!(refused(&[&[1, 0, 0, 0, 1, 1]]), Code::Internal, "compressed");
        assert_eq!(refused(&[&[0, 0, 0, 0, 7]]), Code::OutOfRange, "too long, before it has come");
    }
}
