//! One stream of `CheckStream`: the callers of a connection write to it, and a reader gives each the answers to its
//! questions. A stream that ends takes the calls with it that wait for answers; the next call opens another.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::call::{Answers, Raw, answered, wire};
use super::plan::Encoded;

/// The field `questions` of `CheckStreamRequest` and `id` of `CheckStreamQuestion`, as they stand before their values; a
/// test holds them to the contract.
const QUESTION: u8 = 3 << 3 | 2;
const ID: u8 = 1 << 3;

/// The stream of one connection, opened when it is used.
pub(super) struct Lane {
    grpc: Grpc<Channel>,
    open: RefCell<Option<Open>>,
}

/// A stream that is open.
struct Open {
    /// Bounded by the callers: each waits for its answers.
    messages: mpsc::UnboundedSender<Bytes>,
    waiting: Rc<RefCell<Queue>>,
    /// Of the last question.
    id: u64,
    /// The context that the last message set.
    context: Option<usize>,
}

/// Calls without all of their answers, in the order that they were sent.
#[derive(Default)]
struct Queue {
    calls: VecDeque<Waiting>,
    /// The stream takes no more.
    closed: bool,
}

/// A call that waits for answers.
struct Waiting {
    /// Of its first question.
    id: u64,
    wanted: usize,
    answers: Answers,
    tell: oneshot::Sender<Result<Answers, Code>>,
}

impl Lane {
    pub(super) fn new(grpc: Grpc<Channel>) -> Rc<Self> {
        Rc::new(Self { grpc, open: RefCell::default() })
    }

    /// Asks what a message asks.
    pub(super) async fn call(&self, message: &Encoded) -> Result<Answers, Code> {
        let answers = self.send(message);
        // A reader that is gone has told nobody.
        answers.await.unwrap_or(Err(Code::Unavailable))
    }

    fn send(&self, message: &Encoded) -> oneshot::Receiver<Result<Answers, Code>> {
        let mut open = self.open.borrow_mut();
        if open.as_ref().is_some_and(|open| open.waiting.borrow().closed) {
            *open = None;
        }
        let open = open.get_or_insert_with(|| {
            let (messages, receiver) = mpsc::unbounded_channel();
            let waiting = Rc::new(RefCell::new(Queue::default()));
            tokio::task::spawn_local(read(self.grpc.clone(), receiver, Rc::clone(&waiting)));
            Open { messages, waiting, id: 0, context: None }
        });
        let (tell, told) = oneshot::channel();
        let id = open.id.saturating_add(1);
        let wanted = message.questions.len();
        open.waiting.borrow_mut().calls.push_back(Waiting { id, wanted, answers: Answers::new(), tell });
        let same = open.context == Some(message.context);
        let bytes = written(message, id, same);
        open.id = open.id.saturating_add(wanted as u64);
        open.context = Some(message.context);
        // A stream that has just ended has a reader that tells so.
        let _ended = open.messages.send(bytes);
        told
    }
}

/// A message with the ids of its questions.
fn written(message: &Encoded, first: u64, same_context: bool) -> Bytes {
    let questions: usize = message.questions.iter().map(|question| question.len().saturating_add(24)).sum();
    let mut bytes = BytesMut::with_capacity(message.bytes.len().saturating_add(questions));
    if !same_context {
        bytes.put_slice(&message.bytes);
    }
    for (id, question) in (first..).zip(&message.questions) {
        let length = 1 + prost::encoding::encoded_len_varint(id) + question.len();
        bytes.put_u8(QUESTION);
        prost::encoding::encode_varint(length as u64, &mut bytes);
        bytes.put_u8(ID);
        prost::encoding::encode_varint(id, &mut bytes);
        bytes.put_slice(question);
    }
    bytes.freeze()
}

/// Gives answers to whoever waits for them until the stream ends.
async fn read(
    mut grpc: Grpc<Channel>,
    messages: mpsc::UnboundedReceiver<Bytes>,
    waiting: Rc<RefCell<Queue>>,
) {
    let ended = answers(&mut grpc, messages, &waiting).await;
    let mut waiting = waiting.borrow_mut();
    waiting.closed = true;
    for call in waiting.calls.drain(..) {
        let _given_up = call.tell.send(Err(ended));
    }
}

/// The code that the stream ended with.
async fn answers(
    grpc: &mut Grpc<Channel>,
    messages: mpsc::UnboundedReceiver<Bytes>,
    waiting: &RefCell<Queue>,
) -> Code {
    if grpc.ready().await.is_err() {
        return Code::Unavailable;
    }
    let path = PathAndQuery::from_static("/postern.v1.AuthorizationService/CheckStream");
    let messages = Request::new(UnboundedReceiverStream::new(messages));
    let mut stream = match grpc.streaming(messages, path, Raw::<wire::Stream>::default()).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status.code(),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                let mut waiting = waiting.borrow_mut();
                for answer in message.answers {
                    if !waiting.take(answer) {
                        // An answer that nobody asked for: nothing of this stream can be trusted.
                        return Code::DataLoss;
                    }
                }
            }
            Ok(None) => return Code::Unavailable,
            Err(status) => return status.code(),
        }
    }
}

impl Queue {
    /// Gives one answer to the call that waits for it; false when that is not the next one.
    fn take(&mut self, answer: wire::StreamAnswer) -> bool {
        let Some(call) = self.calls.front_mut() else { return false };
        if answer.id != call.id.saturating_add(call.answers.len() as u64) {
            return false;
        }
        call.answers.push(answered(answer.result, answer.error));
        if call.answers.len() == call.wanted
            && let Some(call) = self.calls.pop_front()
        {
            let _given_up = call.tell.send(Ok(call.answers));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::load::Rpc;
    use crate::load::plan::{Pick, Plan};
    use crate::load::questions::constant;
    use crate::proto::v1;

    #[test]
    fn what_is_written_is_a_message_of_the_contract() {
        let mut questions = constant();
        questions.all.push(questions.all[0].clone());
        let asked = questions.all[0].message.clone();
        let plan = Plan::new(Rpc::CheckStream, questions, 2, Pick::Order, 1).unwrap();
        let message = plan.message(0).unwrap();
        let read = v1::CheckStreamRequest::decode(written(message, 300, false)).unwrap();
        assert_eq!(read.context.unwrap().subject, asked.subject);
        let ids: Vec<u64> = read.questions.iter().map(|question| question.id).collect();
        assert_eq!(ids, [300, 301]);
        assert_eq!(read.questions[1].action, asked.action);
        assert_eq!(read.questions[1].resource, asked.resource);
        let read = v1::CheckStreamRequest::decode(written(message, 1, true)).unwrap();
        assert!(read.context.is_none() && read.questions.len() == 2);
    }
}
