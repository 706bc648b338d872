//! One call: bytes that were encoded before go out as they are, and of what comes back only that is decoded which is
//! counted. So the client costs as little as it can, and what it measures is the sidecar.

use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use smallvec::{SmallVec, smallvec};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::proto::v1;
use crate::record::Outcome;

use super::plan::Encoded;
use super::stream::Lane;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rpc {
    /// One question a call.
    Check,
    /// Several questions a call.
    BatchCheck,
    /// Messages of one question or several over one stream for each connection; a call is a message and its answers.
    CheckStream,
}

/// The answer to one question; several come with one call of a batch.
pub(super) type Answers = SmallVec<[Result<Answer, Code>; 1]>;

/// What is counted of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) executed_as: v1::ExecutedAs,
    pub(super) cached: bool,
}

/// Calls over one connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Caller {
    way: Way,
    /// How long an answer is waited for.
    patience: Duration,
}

#[derive(Clone)]
enum Way {
    Check(Grpc<Channel>),
    BatchCheck(Grpc<Channel>),
    /// All callers of the connection share its stream.
    CheckStream(Rc<Lane>),
}

impl Rpc {
    /// As the contract has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Check => "Check",
            Self::BatchCheck => "BatchCheck",
            Self::CheckStream => "CheckStream",
        }
    }
}

impl Caller {
    pub(super) fn new(channel: Channel, rpc: Rpc, patience: Duration) -> Self {
        let grpc = Grpc::new(channel);
        let way = match rpc {
            Rpc::Check => Way::Check(grpc),
            Rpc::BatchCheck => Way::BatchCheck(grpc),
            Rpc::CheckStream => Way::CheckStream(Lane::new(grpc)),
        };
        Self { way, patience }
    }

    /// Makes one call. A code means that none of its questions was answered.
    pub(super) async fn call(&mut self, message: &Encoded) -> Result<Answers, Code> {
        let patience = self.patience;
        match tokio::time::timeout(patience, self.unlimited(message)).await {
            Ok(answered) => answered,
            Err(_elapsed) => Err(Code::DeadlineExceeded),
        }
    }

    async fn unlimited(&mut self, message: &Encoded) -> Result<Answers, Code> {
        match &mut self.way {
            Way::Check(grpc) => {
                grpc.ready().await.map_err(|_| Code::Unavailable)?;
                let path = PathAndQuery::from_static("/postern.v1.AuthorizationService/Check");
                let message = Request::new(message.bytes.clone());
                match grpc.unary(message, path, Raw::<wire::Check>::default()).await {
                    Ok(answer) => Ok(smallvec![decision(answer.into_inner().result)]),
                    // An answer: the policy's data do not suffice.
                    Err(status) if status.code() == Code::FailedPrecondition => {
                        Ok(smallvec![Ok(Answer::UNDECIDED)])
                    }
                    Err(status) => Err(status.code()),
                }
            }
            Way::BatchCheck(grpc) => {
                grpc.ready().await.map_err(|_| Code::Unavailable)?;
                let path = PathAndQuery::from_static("/postern.v1.AuthorizationService/BatchCheck");
                let message = Request::new(message.bytes.clone());
                let answer = grpc.unary(message, path, Raw::<wire::Batch>::default()).await;
                let answer = answer.map_err(|status| status.code())?.into_inner();
                Ok(answer.results.into_iter().map(|item| answered(item.result, item.error)).collect())
            }
            Way::CheckStream(lane) => lane.call(message).await,
        }
    }
}

impl Answer {
    const UNDECIDED: Self =
        Self { outcome: Outcome::Undecided, executed_as: v1::ExecutedAs::Unspecified, cached: false };
}

/// One of several.
pub(super) fn answered(result: Option<wire::Result>, error: Option<wire::Error>) -> Result<Answer, Code> {
    match error.map(|error| Code::from_i32(error.code)) {
        Some(Code::FailedPrecondition) => Ok(Answer::UNDECIDED),
        Some(code) => Err(code),
        None => decision(result),
    }
}

/// A message without a decision is none that this version knows.
fn decision(result: Option<wire::Result>) -> Result<Answer, Code> {
    let result = result.ok_or(Code::Unknown)?;
    let outcome = match v1::Decision::try_from(result.decision) {
        Ok(v1::Decision::Allowed) => Outcome::Allowed,
        Ok(v1::Decision::NotAllowed) => Outcome::NotAllowed,
        Ok(v1::Decision::Denied) => Outcome::Denied,
        Ok(v1::Decision::Unspecified) | Err(_) => return Err(Code::Unknown),
    };
    let executed_as = v1::ExecutedAs::try_from(result.executed_as).map_err(|_| Code::Unknown)?;
    Ok(Answer { outcome, executed_as, cached: result.cached })
}

/// The parts of the contract's messages that are counted; a test holds them to it.
pub(super) mod wire {
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(in crate::load) struct Check {
        #[prost(message, optional, tag = "1")]
        pub(in crate::load) result: Option<Result>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(in crate::load) struct Result {
        #[prost(int32, tag = "1")]
        pub(in crate::load) decision: i32,
        #[prost(bool, tag = "9")]
        pub(in crate::load) cached: bool,
        #[prost(int32, tag = "11")]
        pub(in crate::load) executed_as: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::load) struct Batch {
        #[prost(message, repeated, tag = "1")]
        pub(in crate::load) results: Vec<Item>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(in crate::load) struct Item {
        #[prost(message, optional, tag = "1")]
        pub(in crate::load) result: Option<Result>,
        #[prost(message, optional, tag = "2")]
        pub(in crate::load) error: Option<Error>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(in crate::load) struct Error {
        #[prost(int32, tag = "1")]
        pub(in crate::load) code: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(in crate::load) struct Stream {
        #[prost(message, repeated, tag = "1")]
        pub(in crate::load) answers: Vec<StreamAnswer>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(in crate::load) struct StreamAnswer {
        #[prost(uint64, tag = "1")]
        pub(in crate::load) id: u64,
        #[prost(message, optional, tag = "2")]
        pub(in crate::load) result: Option<Result>,
        #[prost(message, optional, tag = "3")]
        pub(in crate::load) error: Option<Error>,
    }
}

/// Sends bytes, reads a message.
#[derive(Debug)]
pub(super) struct Raw<M>(std::marker::PhantomData<M>);

impl<M> Default for Raw<M> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<M: prost::Message + Default + 'static> Codec for Raw<M> {
    type Encode = Bytes;
    type Decode = M;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<M> Encoder for Raw<M> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(message.len());
        into.put(message);
        Ok(())
    }
}

impl<M: prost::Message + Default> Decoder for Raw<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        M::decode(from).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn what_is_read_is_what_the_contract_says() {
        let result = v1::CheckResult {
            decision: v1::Decision::Denied.into(),
            reason: "because".into(),
            cached: true,
            executed_as: v1::ExecutedAs::User.into(),
            ..v1::CheckResult::default()
        };
        let whole = v1::CheckResponse { result: Some(result.clone()), ..v1::CheckResponse::default() };
        let read = wire::Check::decode(whole.encode_to_vec().as_slice()).unwrap();
        let answer = Answer { outcome: Outcome::Denied, executed_as: v1::ExecutedAs::User, cached: true };
        assert_eq!(decision(read.result), Ok(answer));
        use v1::batch_check_item_result::Outcome as Of;
        let error = |code: Code| Of::Error(v1::CheckError { code: code as i32, ..v1::CheckError::default() });
        let outcomes = [Of::Result(result), error(Code::FailedPrecondition), error(Code::InvalidArgument)];
        let whole = v1::BatchCheckResponse {
            results: outcomes.map(|outcome| v1::BatchCheckItemResult { outcome: Some(outcome) }).into(),
            ..v1::BatchCheckResponse::default()
        };
        let read = wire::Batch::decode(whole.encode_to_vec().as_slice()).unwrap();
        let read: Vec<_> = read.results.iter().map(|item| answered(item.result, item.error)).collect();
        assert_eq!(read, [Ok(answer), Ok(Answer::UNDECIDED), Err(Code::InvalidArgument)]);
        use v1::check_stream_answer::Outcome as Streamed;
        let outcome = Streamed::Error(v1::CheckError { code: 5, ..v1::CheckError::default() });
        let answers = vec![v1::CheckStreamAnswer { id: 9, outcome: Some(outcome) }];
        let whole = v1::CheckStreamResponse { answers, ..v1::CheckStreamResponse::default() };
        let read = wire::Stream::decode(whole.encode_to_vec().as_slice()).unwrap();
        let answer = read.answers.first().unwrap();
        assert_eq!((answer.id, answered(answer.result, answer.error)), (9, Err(Code::NotFound)));
        assert_eq!(decision(None), Err(Code::Unknown));
        assert_eq!(decision(Some(wire::Result::default())), Err(Code::Unknown));
    }
}
