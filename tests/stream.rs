//! Streams of questions over real sockets: what is shared and what is not, order, errors, a policy that changes
//! meanwhile, a caller that does not read, limits, records and the end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use postern::proto::v1;
use postern::proto::v1::attribute_value::Value as Attribute;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use postern::proto::v1::check_stream_answer::Outcome;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

const CAROL: &str = "a0000000-0000-4000-8000-000000000003";

/// A stream and both its ends.
struct Open {
    questions: mpsc::Sender<v1::CheckStreamRequest>,
    answers: Streaming<v1::CheckStreamResponse>,
}

impl Open {
    async fn new(channel: Channel) -> Self {
        let (questions, receiver) = mpsc::channel(64);
        let answers =
            AuthorizationServiceClient::new(channel).check_stream(ReceiverStream::new(receiver)).await;
        Self { questions, answers: answers.unwrap().into_inner() }
    }

    async fn send(&self, message: v1::CheckStreamRequest) {
        self.questions.send(message).await.unwrap();
    }

    async fn response(&mut self) -> v1::CheckStreamResponse {
        self.answers.message().await.unwrap().expect("it goes on")
    }

    /// So many answers, in however many responses.
    async fn answers(&mut self, count: usize) -> Vec<v1::CheckStreamAnswer> {
        let mut answers = Vec::new();
        while answers.len() < count {
            answers.extend(self.response().await.answers);
        }
        answers
    }

    /// Asks one thing and gives its one answer.
    async fn ask(&mut self, message: v1::CheckStreamRequest) -> Outcome {
        let wanted = message.questions[0].id;
        self.send(message).await;
        let [answer] = <[_; 1]>::try_from(self.answers(1).await).unwrap();
        assert_eq!(answer.id, wanted);
        answer.outcome.unwrap()
    }
}

fn subject(principal: &str) -> Option<v1::Subject> {
    Some(v1::Subject { principal_id: principal.into(), ..Default::default() })
}

fn action(name: &str) -> Option<v1::Action> {
    request("", name, "").action
}

fn resource(scope: &str) -> Option<v1::Resource> {
    request("", "", scope).resource
}

fn context(principal: &str) -> Option<v1::CheckStreamContext> {
    Some(v1::CheckStreamContext { subject: subject(principal), ..Default::default() })
}

fn question(id: u64, name: &str, scope: &str) -> v1::CheckStreamQuestion {
    v1::CheckStreamQuestion { id, action: action(name), resource: resource(scope), ..Default::default() }
}

fn message(questions: impl IntoIterator<Item = v1::CheckStreamQuestion>) -> v1::CheckStreamRequest {
    v1::CheckStreamRequest { questions: questions.into_iter().collect(), ..Default::default() }
}

fn asked_by(
    principal: &str,
    questions: impl IntoIterator<Item = v1::CheckStreamQuestion>,
) -> v1::CheckStreamRequest {
    v1::CheckStreamRequest { context: context(principal), ..message(questions) }
}

fn decision(outcome: &Outcome) -> v1::Decision {
    match outcome {
        Outcome::Result(result) => result.decision(),
        Outcome::Error(error) => panic!("{error:?}"),
    }
}

fn fields(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Result(result) => panic!("{result:?}"),
        Outcome::Error(error) => {
            assert_eq!(error.code, Code::InvalidArgument as i32, "{error:?}");
            error.field_violations.iter().map(|violation| violation.field.clone()).collect()
        }
    }
}

fn ids(answers: &[v1::CheckStreamAnswer]) -> Vec<u64> {
    answers.iter().map(|answer| answer.id).collect()
}

async fn count(sidecar: &Sidecar, line: &str) -> u64 {
    let (_, metrics) = http(sidecar.admin(), "/metrics").await;
    let value = metrics.lines().find_map(|found| found.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

// === what is asked ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_is_named_once_and_answered_as_by_check() {
    let sidecar = Sidecar::start(&[]).await;
    for channel in [sidecar.tcp().await, sidecar.uds().await] {
        let mut check = AuthorizationServiceClient::new(channel.clone());
        let mut open = Open::new(channel).await;
        let asked = [
            (READ, vault("app")),
            (DELETE, vault("app")),
            (DELETE, vault("locked")),
            (GET_SECRET, "/".into()),
        ];
        let mut next = 0;
        for principal in [ALICE, BOB] {
            let mut wanted = Vec::new();
            for (name, scope) in &asked {
                let answer = check.check(request(principal, name, scope)).await.unwrap().into_inner();
                wanted.push(answer.result.unwrap());
            }
            // One message names the subject; those behind it do not.
            let questions: Vec<_> = asked
                .iter()
                .map(|(name, scope)| {
                    next += 1;
                    question(next, name, scope)
                })
                .collect();
            let (first, others) = questions.split_at(2);
            open.send(asked_by(principal, first.to_vec())).await;
            for other in others {
                open.send(message([other.clone()])).await;
            }
            let answers = open.answers(asked.len()).await;
            assert_eq!(ids(&answers), (next - 3..=next).collect::<Vec<_>>());
            let results: Vec<_> = answers
                .into_iter()
                .map(|answer| match answer.outcome.unwrap() {
                    Outcome::Result(result) => result,
                    Outcome::Error(error) => panic!("{error:?}"),
                })
                .collect();
            assert_eq!(results, wanted);
        }
        drop(open.questions);
        assert!(open.answers.message().await.unwrap().is_none(), "OK when everything is answered");
    }
}

fn text(value: &str) -> v1::AttributeValue {
    v1::AttributeValue { value: Some(Attribute::Text(value.into())) }
}

fn attributes(name: &str, value: &str) -> HashMap<String, v1::AttributeValue> {
    HashMap::from([(name.to_owned(), text(value))])
}

/// Carol may read where four attributes say so, one of each source.
fn write_condition(sidecar: &Sidecar) {
    let name = "d0000000-0000-4000-8000-000000000003";
    let condition = "@Resource[ns/t:r] StringEquals 'yes' AND @Request[ns/t:q] StringEquals 'yes' AND \
                     @Principal[ns/t:p] StringEquals 'yes' AND @Environment[net] StringEquals 'yes'";
    let assignment = json!([{
        "id": format!("{SUBSCRIPTION}/providers/Microsoft.Authorization/roleAssignments/{name}"),
        "name": name, "principalId": CAROL, "principalType": "User", "scope": SUBSCRIPTION,
        "roleDefinitionId": role_definition_id(), "roleDefinitionName": "Vault Operator",
        "condition": condition, "conditionVersion": "2.0",
        "type": "Microsoft.Authorization/roleAssignments",
    }]);
    std::fs::write(sidecar.policy.path().join("carol.json"), assignment.to_string()).unwrap();
}

async fn generation(sidecar: &Sidecar, wanted: u64) {
    let reached = async || count(sidecar, "postern_policy_generation ").await == wanted;
    eventually("the generation", reached).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_replaces_and_nothing_is_taken_from_the_question_before() {
    use v1::Decision::{Allowed, NotAllowed};

    let sidecar = Sidecar::start(&[]).await;
    write_condition(&sidecar);
    generation(&sidecar, 2).await;
    let mut open = Open::new(sidecar.uds().await).await;
    let mut next = 0;
    let mut ask = async |context: Option<&v1::CheckStreamContext>,
                         change: &dyn Fn(&mut v1::CheckStreamQuestion)| {
        next += 1;
        // Everything that Carol has to bring.
        let mut question = question(next, READ, &vault("app"));
        question.resource.as_mut().unwrap().attributes = attributes("ns/t:r", "yes");
        question.request_attributes = attributes("ns/t:q", "yes");
        change(&mut question);
        open.ask(v1::CheckStreamRequest { context: context.cloned(), ..message([question]) }).await
    };
    let mut carol = context(CAROL).unwrap();
    carol.subject.as_mut().unwrap().attributes = attributes("ns/t:p", "yes");
    carol.environment_attributes = attributes("net", "yes");
    let whole = |_: &mut v1::CheckStreamQuestion| {};

    assert_eq!(decision(&ask(Some(&carol), &whole).await), Allowed);
    assert_eq!(decision(&ask(None, &whole).await), Allowed, "the context holds on");
    // What the question before brought is gone.
    let bare = |question: &mut v1::CheckStreamQuestion| question.request_attributes.clear();
    assert_eq!(decision(&ask(None, &bare).await), NotAllowed, "the attributes of a request");
    let plain = |question: &mut v1::CheckStreamQuestion| question.resource = resource(&vault("app"));
    assert_eq!(decision(&ask(None, &plain).await), NotAllowed, "those of a resource");
    let nothing =
        |question: &mut v1::CheckStreamQuestion| (question.action, question.resource) = (None, None);
    assert_eq!(fields(&ask(None, &nothing).await), ["action", "resource"]);

    // In the context they are shared, with all that is in them.
    let mut shared = carol.clone();
    (shared.action, shared.resource) = (action(READ), resource(&vault("app")));
    shared.resource.as_mut().unwrap().attributes = attributes("ns/t:r", "yes");
    assert_eq!(decision(&ask(Some(&shared), &nothing).await), Allowed);
    assert_eq!(decision(&ask(None, &plain).await), NotAllowed, "a resource replaces its attributes, too");
    let elsewhere = |question: &mut v1::CheckStreamQuestion| {
        question.resource = resource("/");
        question.action = None;
    };
    assert_eq!(decision(&ask(None, &elsewhere).await), NotAllowed);
    assert_eq!(decision(&ask(None, &nothing).await), Allowed, "it changed no context");
    let data = |question: &mut v1::CheckStreamQuestion| {
        question.action = Some(v1::Action { name: READ.into(), data_action: true, ..Default::default() });
    };
    assert_eq!(decision(&ask(None, &data).await), NotAllowed, "an action brings its plane");

    // A context replaces the last one as a whole.
    assert_eq!(fields(&ask(Some(&carol), &nothing).await), ["action", "resource"]);
    let mut less = carol.clone();
    less.environment_attributes.clear();
    assert_eq!(decision(&ask(Some(&less), &whole).await), NotAllowed, "the environment");
    let mut less = carol.clone();
    less.subject = subject(CAROL);
    assert_eq!(decision(&ask(Some(&less), &whole).await), NotAllowed, "the attributes of the subject");
    let mut other = carol.clone();
    other.subject.as_mut().unwrap().principal_id = BOB.into();
    assert_eq!(decision(&ask(Some(&other), &whole).await), NotAllowed, "the subject");
    other.subject.as_mut().unwrap().group_ids = vec![TEAM.into()];
    assert_eq!(decision(&ask(Some(&other), &whole).await), Allowed, "its groups");
    other.subject.as_mut().unwrap().group_ids.clear();
    assert_eq!(decision(&ask(Some(&other), &whole).await), NotAllowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_of_the_context_and_that_of_a_question() {
    let sidecar = Sidecar::start(&[]).await;
    let channel = sidecar.uds().await;
    let mut check = AuthorizationServiceClient::new(channel.clone());
    let mut open = Open::new(channel).await;
    let user = v1::AgentContext { on_behalf_of: subject(ALICE), ..Default::default() };
    let approved = v1::AgentContext {
        approval: Some(v1::AgentApproval {
            by: subject(ALICE),
            verdict: v1::ApprovalVerdict::Approve.into(),
        }),
        ..user.clone()
    };
    let nobody = v1::AgentContext::default();
    let mut by_agent = context(BOB).unwrap();
    by_agent.agent = Some(user.clone());
    let own = |id, agent: &v1::AgentContext| v1::CheckStreamQuestion {
        agent: Some(agent.clone()),
        ..question(id, DELETE, &vault("app"))
    };
    let questions =
        vec![question(1, DELETE, &vault("app")), own(2, &approved), own(3, &nobody), own(4, &user)];
    let mut asked = asked_by(BOB, questions);
    asked.context = Some(by_agent);
    open.send(asked).await;
    let answers = open.answers(4).await;
    for (answer, agent) in answers.iter().zip([&user, &approved, &nobody, &user]) {
        let asked = v1::CheckRequest { agent: Some(agent.clone()), ..request(BOB, DELETE, &vault("app")) };
        let wanted = check.check(asked).await.unwrap().into_inner().result;
        match answer.outcome.as_ref().unwrap() {
            Outcome::Result(result) => assert_eq!(Some(result), wanted.as_ref(), "question {}", answer.id),
            Outcome::Error(error) => panic!("{error:?}"),
        }
    }
    // Without the agent it is another question.
    open.send(asked_by(BOB, [question(5, DELETE, &vault("app"))])).await;
    let plain = open.answers(1).await;
    assert_ne!(plain[0].outcome, answers[0].outcome);

    // An approval is for one action.
    let mut refused = asked_by(BOB, [question(6, DELETE, &vault("app"))]);
    refused.context.as_mut().unwrap().agent = Some(approved);
    open.send(refused).await;
    let status = open.answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "context.agent.approval");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_question_has_its_own_error_and_the_stream_goes_on() {
    let sidecar = Sidecar::start(&[]).await;
    let mut open = Open::new(sidecar.uds().await).await;
    let bad = v1::CheckStreamQuestion { action: action("*"), ..question(2, READ, "nowhere") };
    open.send(asked_by(ALICE, [question(1, READ, &vault("app")), bad, question(3, READ, &vault("app"))]))
        .await;
    open.send(message([question(4, DELETE, &vault("locked"))])).await;
    let answers = open.answers(4).await;
    assert_eq!(ids(&answers), [1, 2, 3, 4]);
    let outcomes: Vec<_> = answers.iter().map(|answer| answer.outcome.as_ref().unwrap()).collect();
    assert_eq!(decision(outcomes[0]), v1::Decision::Allowed);
    assert_eq!(fields(outcomes[1]), ["action.name", "resource.scope"]);
    assert_eq!(decision(outcomes[2]), v1::Decision::Allowed);
    assert_eq!(decision(outcomes[3]), v1::Decision::Denied);
    assert_eq!(count(&sidecar, "postern_invalid_requests_total ").await, 1);
    assert_eq!(count(&sidecar, "postern_stream_questions_total{transport=\"unix\"} ").await, 4);
    assert_eq!(count(&sidecar, "postern_check_streams{transport=\"unix\"} ").await, 1);
    drop(open);
    let closed = async || count(&sidecar, "postern_check_streams{transport=\"unix\"} ").await == 0;
    eventually("the end of the stream", closed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_rule_ends_the_stream_behind_the_answers() {
    let sidecar = Sidecar::start(&["--max-batch-items", "3"]).await;
    let channel = sidecar.tcp().await;
    let ask = |id| question(id, READ, &vault("app"));
    for (broken, field) in [
        (message([ask(2)]), "questions[0].id"),
        (asked_by("", [ask(3)]), "context.subject.principal_id"),
        (message((3..7).map(ask)), "questions"),
    ] {
        let mut open = Open::new(channel.clone()).await;
        open.send(asked_by(ALICE, [ask(1), ask(2)])).await;
        open.send(broken).await;
        assert_eq!(ids(&open.answers(2).await), [1, 2]);
        let status = open.answers.message().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    }
    // No context, so nobody asks.
    let mut open = Open::new(channel).await;
    open.send(message([ask(1)])).await;
    assert_eq!(open.answers.message().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_free_order_a_large_message_holds_back_none_behind_it() {
    let sidecar = Sidecar::start(&["--max-batch-items", "10000", "--workers", "2"]).await;
    // Five thousand questions in one message, and one behind them.
    let ask = async |order: v1::AnswerOrder| {
        let mut open = Open::new(sidecar.uds().await).await;
        let options = Some(v1::CheckStreamOptions { order: order.into() });
        let large = (1..=5000).map(|id| question(id, READ, &vault("app")));
        open.send(v1::CheckStreamRequest { options, ..asked_by(ALICE, large) }).await;
        open.send(message([question(5001, READ, &vault("app"))])).await;
        drop(open.questions);
        let mut ids = Vec::new();
        while let Some(response) = open.answers.message().await.unwrap() {
            for answer in response.answers {
                assert_eq!(decision(answer.outcome.as_ref().unwrap()), v1::Decision::Allowed);
                ids.push(answer.id);
            }
        }
        ids
    };
    assert_eq!(ask(v1::AnswerOrder::AsAsked).await, (1..=5001).collect::<Vec<_>>());
    let first = async || {
        let mut ids = ask(v1::AnswerOrder::AsDecided).await;
        let first = ids[0];
        ids.retain(|id| *id != 5001);
        assert_eq!(ids, (1..=5000).collect::<Vec<_>>(), "those of one message stay in their order");
        first
    };
    // Which of two threads is faster is up to the machine, but not for long.
    eventually("the later one first", async || first().await == 5001).await;
}

// === what happens meanwhile ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_changes_in_mid_stream_is_named() {
    let sidecar = Sidecar::start(&[]).await;
    let mut open = Open::new(sidecar.uds().await).await;
    open.send(asked_by(ALICE, [question(1, READ, &vault("app"))])).await;
    let first = open.response().await;
    assert_eq!(decision(first.answers[0].outcome.as_ref().unwrap()), v1::Decision::Allowed);
    let before = first.policy.unwrap();
    assert_eq!((before.generation, before.digest.len()), (1, 71));
    revoke_alice(sidecar.policy.path());
    let mut id = 1;
    let after = loop {
        id += 1;
        open.send(message([question(id, READ, &vault("app"))])).await;
        let response = open.response().await;
        let (policy, outcome) = (response.policy.unwrap(), response.answers[0].outcome.clone().unwrap());
        match policy.generation {
            1 => assert_eq!((decision(&outcome), policy.digest.as_str()), (v1::Decision::Allowed, "")),
            _ => {
                assert_eq!(decision(&outcome), v1::Decision::NotAllowed);
                break policy;
            }
        }
    };
    assert_eq!((after.generation, after.digest.len()), (2, 71));
    assert_ne!(after.digest, before.digest);
    open.send(message([question(id + 1, READ, &vault("app"))])).await;
    let policy = open.response().await.policy.unwrap();
    assert_eq!((policy.generation, policy.digest.as_str()), (2, ""));
}

/// Questions without end, counted as they are sent.
fn endless(sent: &Arc<AtomicU64>) -> impl tokio_stream::Stream<Item = v1::CheckStreamRequest> + use<> {
    let sent = Arc::clone(sent);
    tokio_stream::iter(1_u64..).map(move |id| {
        sent.store(id, Ordering::Relaxed);
        let question = question(id, READ, &vault("app"));
        if id == 1 { asked_by(ALICE, [question]) } else { message([question]) }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_not_read_from() {
    let sidecar = Sidecar::start(&[]).await;
    let channel = sidecar.tcp().await;
    let sent = Arc::new(AtomicU64::new(0));
    let mut client = AuthorizationServiceClient::new(channel.clone());
    let mut answers = client.check_stream(endless(&sent)).await.unwrap().into_inner();
    // It stands still when it has not moved while many others were answered, on the same connection, too.
    let mut check = AuthorizationServiceClient::new(channel);
    let (mut before, mut same) = (0, 0);
    while same < 20 {
        for _ in 0..25 {
            let answer = check.check(request(ALICE, READ, &vault("app"))).await.unwrap().into_inner();
            assert_eq!(answer.result.unwrap().decision(), v1::Decision::Allowed);
        }
        let now = sent.load(Ordering::Relaxed);
        same = if now == before && now > 0 { same + 1 } else { 0 };
        before = now;
    }
    let asked = count(&sidecar, "postern_stream_questions_total{transport=\"tcp\"} ").await;
    // An answer has some 500 bytes; two windows and two buffers are a few megabytes.
    assert!(asked < 20_000, "{asked} were answered without being read");
    assert!(before < 40_000, "{before} were sent without being read");

    // Whoever reads again goes on, in order, and nothing is missing.
    let mut last = 0;
    while last < before + 1000 {
        for answer in answers.message().await.unwrap().unwrap().answers {
            assert_eq!(answer.id, last + 1);
            last = answer.id;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_streams_and_says_what_was_not_answered() {
    let dir = policy();
    for workers in ["1", "2"] {
        let arguments = ["--drain-grace", "1m", "--workers", workers];
        let mut process = Process::start(dir.path(), &arguments, &[]);
        process.ready().await;
        // One waits, one asks without end, one has ended its side.
        let mut idle = Open::new(connect_tcp(process.tcp).await).await;
        idle.send(asked_by(ALICE, [question(1, READ, &vault("app"))])).await;
        idle.response().await;
        let sent = Arc::new(AtomicU64::new(0));
        let mut client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
        let mut busy = client.check_stream(endless(&sent)).await.unwrap().into_inner();
        let reader = tokio::spawn(async move {
            let mut last = 0;
            loop {
                match busy.message().await {
                    Ok(Some(response)) => {
                        for answer in response.answers {
                            assert_eq!(answer.id, last + 1, "nothing is left out");
                            assert_eq!(decision(&answer.outcome.unwrap()), v1::Decision::Allowed);
                            last = answer.id;
                        }
                    }
                    Ok(None) => panic!("it had more to ask"),
                    Err(status) => return (last, status),
                }
            }
        });
        eventually("load", async || sent.load(Ordering::Relaxed) > 1000).await;
        process.signal("TERM");
        let draining = |status: &Status| {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert_eq!(status.get_details_error_info().unwrap().reason, "DRAINING");
        };
        let (last, status) = reader.await.unwrap();
        draining(&status);
        assert!(last > 0 && last <= sent.load(Ordering::Relaxed));
        draining(&idle.answers.message().await.unwrap_err());
        drop(idle);
        drop(client);
        assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
        assert!(!process.log().contains("cutting"), "{}", process.log());
    }
}

// === limits ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_those_of_other_calls() {
    let arguments = ["--max-concurrent-requests", "2", "--max-request-bytes", "2048"];
    let sidecar = Sidecar::start(&arguments).await;
    let channel = sidecar.uds().await;
    let ask = |id| question(id, READ, &vault("app"));
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = Open::new(channel.clone()).await;
        stream.send(asked_by(ALICE, [ask(1)])).await;
        assert_eq!(stream.response().await.question_limit, 1000);
        open.push(stream);
    }
    // Streams that wait take no place from a Check, but there are only so many.
    let mut client = AuthorizationServiceClient::new(channel.clone());
    assert!(client.check(request(ALICE, READ, &vault("app"))).await.is_ok());
    let refused = client.check_stream(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("TOO_MANY_STREAMS", "2"));
    let shed = "postern_requests_shed_total{reason=\"limit\",transport=\"unix\"} ";
    assert_eq!(count(&sidecar, shed).await, 1);

    // A message that is too large.
    let mut stream = open.pop().unwrap();
    let mut large = ask(2);
    large.request_attributes = attributes("a", &"x".repeat(4096));
    stream.send(message([large])).await;
    let status = stream.answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    drop(stream);
    let free = async || client.clone().check_stream(tokio_stream::empty()).await.is_ok();
    eventually("the place", free).await;
}

// === records ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_recorded_as_a_check_is_and_can_be_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.jsonl");
    let mut sidecar = Sidecar::start(&["--records", &format!("file:{}", path.display())]).await;
    write_condition(&sidecar);
    generation(&sidecar, 2).await;
    let channel = sidecar.uds().await;
    let mut check = AuthorizationServiceClient::new(channel.clone());
    let mut carol = context(CAROL).unwrap();
    carol.subject.as_mut().unwrap().attributes = attributes("ns/t:p", "yes");
    carol.environment_attributes = attributes("net", "yes");
    carol.agent = Some(v1::AgentContext { on_behalf_of: subject(ALICE), ..Default::default() });
    (carol.action, carol.resource) = (action(READ), resource(&vault("app")));
    let own = v1::CheckStreamQuestion {
        request_attributes: attributes("ns/t:q", "yes"),
        agent: Some(v1::AgentContext::default()),
        ..question(2, DELETE, &vault("locked"))
    };
    let shared = v1::CheckStreamQuestion { id: 7, ..Default::default() };
    let malformed = v1::CheckStreamQuestion { action: action("*"), ..question(8, "", "") };
    let questions = [own.clone(), shared.clone(), malformed];
    for (id, question) in [("own", &own), ("shared", &shared)] {
        let request = v1::CheckRequest {
            subject: carol.subject.clone(),
            action: question.action.clone().or(carol.action.clone()),
            resource: question.resource.clone().or(carol.resource.clone()),
            request_attributes: question.request_attributes.clone(),
            environment_attributes: carol.environment_attributes.clone(),
            agent: question.agent.clone().or(carol.agent.clone()),
            request_id: id.into(),
        };
        check.check(request).await.unwrap();
    }
    let mut open = Open::new(channel).await;
    let request_id = "m-1".to_owned();
    open.send(v1::CheckStreamRequest { context: Some(carol), request_id, ..message(questions) }).await;
    open.answers(3).await;
    open.send(asked_by(ALICE, [question(9, READ, &vault("app"))])).await;
    open.answers(1).await;
    drop((open, check));
    sidecar.begin_drain();
    let policy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(sidecar.policy.path()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), policy.path().join(file.file_name())).unwrap();
    }
    sidecar.ended().await.unwrap();

    let text = std::fs::read_to_string(&path).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let streamed: Vec<&Value> = records.iter().filter(|record| record["method"] == "CheckStream").collect();
    let by_check: Vec<&Value> = records.iter().filter(|record| record["method"] == "Check").collect();
    assert_eq!((streamed.len(), by_check.len(), records.len()), (3, 2, 5), "nothing of the malformed one");
    for (streamed, check) in streamed.iter().zip(&by_check) {
        assert_eq!(streamed["request_id"], "m-1");
        let without = |record: &Value| {
            let mut record = record.as_object().unwrap().clone();
            for name in ["time", "duration_ns", "method", "request_id", "stream_id", "question_id"] {
                record.remove(name);
            }
            record
        };
        assert_eq!(without(streamed), without(check));
    }
    let ids: Vec<_> = streamed.iter().map(|record| record["question_id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [2, 7, 9]);
    let stream = streamed[0]["stream_id"].as_str().unwrap();
    assert_eq!(stream.len(), 32);
    assert!(streamed.iter().all(|record| record["stream_id"] == stream));
    assert_eq!(streamed[2]["request"]["subject"], json!({"principal_id": ALICE}));

    let output = postern()
        .args(["replay", path.to_str().unwrap(), "--policy", policy.path().to_str().unwrap(), "--json"])
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!((output.status.code(), &told["decisions"]), (Some(0), &json!(5)), "{told}");
}
