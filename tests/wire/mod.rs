//! A sidecar in this process, asked over a Unix socket: its clock and its policy are in the test's hand.

use std::collections::HashMap;

use jiff::Timestamp;
use postern::authorizer::{Authorizer, CacheSettings};
use postern::clock::Clock;
use postern::drain::Drain;
use postern::metrics::Metrics;
use postern::policy::Policy;
use postern::proto::v1;
use postern::proto::v1::attribute_value::Value as Wire;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use postern::readiness::Readiness;
use postern::server::grpc::{self, AuthorizationApi, GrpcSettings};
use postern::server::health::Health;
use postern::server::limits::RequestLimit;
use postern::server::status::PolicyFeed;
use postern::server::{Transport, connections};
use postern::snapshot::{PolicyWriter, cell};
use serde_json::Value;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

pub(crate) struct Sidecar {
    /// Opened with the first question, and then the same for all.
    stream: Option<OpenStream>,
    runtime: tokio::runtime::Runtime,
    client: AuthorizationServiceClient<Channel>,
    writer: PolicyWriter,
    clock: Clock,
    _socket: tempfile::TempDir,
}

struct OpenStream {
    questions: tokio::sync::mpsc::Sender<v1::CheckStreamRequest>,
    answers: tonic::Streaming<v1::CheckStreamResponse>,
    last_id: u64,
}

impl Sidecar {
    pub(crate) fn start(cache: CacheSettings) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let socket = tempfile::tempdir().unwrap();
        let path = socket.path().join("s");
        let (writer, reader) = cell();
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let authorizer = Authorizer::new(reader, cache, clock.clone());
        let client = runtime.block_on(async {
            let settings =
                GrpcSettings { max_batch_items: 10, max_request_bytes: 1 << 20, reflection: false };
            let (_activated, activations) = tokio::sync::watch::channel(0);
            let drain = Drain::new();
            let feed = PolicyFeed { readiness: Readiness::new(), activations, drain: drain.clone() };
            let api = AuthorizationApi::new(
                authorizer,
                settings,
                Transport::Unix,
                &Metrics::new("", ""),
                feed,
                None,
            );
            let limit = RequestLimit::new(usize::MAX, usize::MAX);
            let services = grpc::services(api, &Health::new().await, settings, limit).unwrap();
            let listener = UnixListenerStream::new(tokio::net::UnixListener::bind(&path).unwrap());
            tokio::spawn(connections::serve(listener, services, drain));
            let channel = Endpoint::try_from(format!("unix://{}", path.display())).unwrap();
            AuthorizationServiceClient::new(channel.connect().await.unwrap())
        });
        Self { stream: None, runtime, client, writer, clock, _socket: socket }
    }

    pub(crate) fn activate(&mut self, policy: Policy) {
        drop(self.writer.activate(policy, 0, Timestamp::UNIX_EPOCH));
    }

    pub(crate) fn set_clock(&self, now: Timestamp) {
        self.clock.set(now);
    }

    pub(crate) fn check(&mut self, request: v1::CheckRequest) -> Result<v1::CheckResult, Status> {
        let answer = self.runtime.block_on(self.client.check(request))?;
        Ok(answer.into_inner().result.expect("an answer holds a result"))
    }

    #[allow(dead_code, reason = "not every test asks batches")]
    pub(crate) fn batch(
        &mut self,
        request: v1::BatchCheckRequest,
    ) -> Result<Vec<v1::BatchCheckItemResult>, Status> {
        let answer = self.runtime.block_on(self.client.batch_check(request))?;
        Ok(answer.into_inner().results)
    }

    /// Asks in a new context over the one stream, which goes through every policy and all times that this sidecar is
    /// given.
    #[allow(dead_code, reason = "not every test asks over a stream")]
    pub(crate) fn stream(
        &mut self,
        context: v1::CheckStreamContext,
        mut questions: Vec<v1::CheckStreamQuestion>,
    ) -> Vec<v1::check_stream_answer::Outcome> {
        self.runtime.block_on(async {
            if self.stream.is_none() {
                let (questions, receiver) = tokio::sync::mpsc::channel(1);
                let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
                let answers = self.client.check_stream(receiver).await.unwrap().into_inner();
                self.stream = Some(OpenStream { questions, answers, last_id: 0 });
            }
            let open = self.stream.as_mut().unwrap();
            for question in &mut questions {
                open.last_id += 1;
                question.id = open.last_id;
            }
            let ids: Vec<u64> = questions.iter().map(|question| question.id).collect();
            let message = v1::CheckStreamRequest { context: Some(context), questions, ..Default::default() };
            open.questions.send(message).await.unwrap();
            let mut answers = Vec::new();
            while answers.len() < ids.len() {
                answers.extend(open.answers.message().await.unwrap().expect("it stays open").answers);
            }
            assert_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), ids);
            answers.into_iter().map(|answer| answer.outcome.expect("an outcome")).collect()
        })
    }
}

/// A bag of attributes as messages; a JSON null is a value that is not set.
pub(crate) fn attributes(bag: &Value) -> HashMap<String, v1::AttributeValue> {
    let members = bag.as_object().into_iter().flatten();
    members.map(|(name, value)| (name.clone(), attribute(value))).collect()
}

fn attribute(value: &Value) -> v1::AttributeValue {
    let value = match value {
        Value::Null => None,
        Value::Bool(boolean) => Some(Wire::Boolean(*boolean)),
        Value::Number(number) => Some(Wire::Number(number.as_i64().expect("a whole number"))),
        Value::String(text) => Some(Wire::Text(text.clone())),
        Value::Array(values) => {
            Some(Wire::List(v1::AttributeList { values: values.iter().map(attribute).collect() }))
        }
        Value::Object(_) => Some(Wire::Dictionary(v1::AttributeDictionary { entries: attributes(value) })),
    };
    v1::AttributeValue { value }
}

/// Whether messages can say it: lists and dictionaries hold no lists and dictionaries there.
#[allow(dead_code, reason = "cases are written so that they can be said")]
pub(crate) fn can_say(bag: &Value) -> bool {
    let compound = |value: &Value| value.is_array() || value.is_object();
    bag.as_object().into_iter().flatten().all(|(_, value)| match value {
        Value::Array(values) => !values.iter().any(compound),
        Value::Object(members) => !members.values().any(compound),
        _ => true,
    })
}

/// As the model has it.
pub(crate) fn valid_until(result: &v1::CheckResult) -> Option<Timestamp> {
    let at = result.valid_until.as_ref()?;
    Some(Timestamp::new(at.seconds, at.nanos).expect("a moment"))
}

/// The last part of an id; none of an empty one.
pub(crate) fn name(id: &str) -> Option<String> {
    id.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The eligibility that an answer offers to activate.
pub(crate) fn eligibility(result: &v1::CheckResult) -> Option<String> {
    result.steps.iter().find_map(|step| match &step.kind {
        Some(v1::step::Kind::ActivateRole(activation)) => name(&activation.eligibility_id),
        _ => None,
    })
}
