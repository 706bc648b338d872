//! Check and BatchCheck from the bytes of the request to the bytes of the answer. All other methods go on to the generated
//! service; these two are asked so often that messages in between would be a good part of what they cost.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};

use super::grpc::AuthorizationApi;

const CHECK: &str = "/postern.v1.AuthorizationService/Check";
const BATCH_CHECK: &str = "/postern.v1.AuthorizationService/BatchCheck";

/// The service, with a shorter way for checks.
#[derive(Clone, Debug)]
pub(super) struct Direct<S> {
    api: Arc<AuthorizationApi>,
    max_request_bytes: usize,
    inner: S,
}

/// One of the two methods.
struct Unary<F>(F);

/// A message as it lies in its bytes.
#[derive(Debug, Default)]
struct Raw;

type Answer = Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, Status>> + Send>>;

impl<S> Direct<S> {
    pub(super) const fn new(api: Arc<AuthorizationApi>, max_request_bytes: usize, inner: S) -> Self {
        Self { api, max_request_bytes, inner }
    }

    fn unary<B, F>(&self, request: http::Request<B>, method: F) -> BoxFuture<http::Response<Body>, Infallible>
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
        F: FnMut(Request<Bytes>) -> Answer + Send + 'static,
    {
        let limit = Some(self.max_request_bytes);
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw).apply_max_message_size_config(limit, None);
            Ok(grpc.unary(Unary(method), request).await)
        })
    }
}

impl<S: NamedService> NamedService for Direct<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Direct<S>
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
    S: Service<
            http::Request<B>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future = BoxFuture<http::Response<Body>, Infallible>,
        >,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let api = Arc::clone(&self.api);
        match request.uri().path() {
            CHECK => self.unary(request, move |request| {
                let api = Arc::clone(&api);
                Box::pin(async move { api.check_bytes(request).await })
            }),
            BATCH_CHECK => self.unary(request, move |request| {
                let api = Arc::clone(&api);
                Box::pin(async move { api.batch_check_bytes(request).await })
            }),
            _ => self.inner.call(request),
        }
    }
}

impl<F: FnMut(Request<Bytes>) -> Answer> UnaryService<Bytes> for Unary<F> {
    type Response = Vec<u8>;
    type Future = Answer;

    fn call(&mut self, request: Request<Bytes>) -> Answer {
        (self.0)(request)
    }
}

// === the codec ===

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
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
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(item.len());
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
