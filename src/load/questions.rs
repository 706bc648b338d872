//! Questions and the answers that are expected of them: read from lines of JSON, or judged by a policy in this process.

use std::io::{self, BufRead, Read};

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use crate::proto::v1;
use crate::record::names::field;
use crate::record::{Candidate, Field, Outcome};
use crate::server::convert;
use crate::server::record::RecordedQuestion;

/// Longer lines are no questions.
const LONGEST_LINE: usize = 16 << 20;
/// Lines that are told one by one.
const MOST_TOLD: usize = 20;

/// One question.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) message: v1::CheckRequest,
    /// What a right answer says, where that is known.
    pub(super) expected: Option<Expected>,
}

/// What a right answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) outcome: Outcome,
    /// With whose rights, of an agent's action; `None` where that is not said.
    pub(super) executed_as: Option<v1::ExecutedAs>,
    /// From when on it may be another one, because time plays a part.
    pub(super) until: Option<Timestamp>,
}

/// Questions from one source, in its order.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    pub(super) all: Vec<Question>,
    /// How many of them, from the first, are drawn with this share; the rest with what is left of it.
    pub(super) first: Option<(usize, f64)>,
    /// Lines that hold no question that can be asked, by why.
    pub skipped: Vec<(String, u64)>,
}

/// Why there are no questions.
#[derive(Debug)]
pub enum Unreadable {
    /// The file cannot be read.
    Io(io::Error),
    /// Lines are malformed: what is wrong with the first of them, and how many there are.
    Lines(Vec<String>, usize),
}

// === reading ===

impl Questions {
    /// Reads lines of JSON and adds what they ask. A line is a record of `serve --records`; an object with `request`
    /// and, where an answer is expected, `decision`; the `request` of a record by itself; or flat, as the cases of the
    /// tests are: `principal`, `groups`, `action`, `data_action`, `scope`, `sub_operation`, `attributes`, `decision`.
    ///
    /// # Errors
    ///
    /// Every line that is none of these.
    pub fn read(&mut self, name: &str, mut input: impl BufRead) -> Result<(), Unreadable> {
        let mut told = Vec::new();
        let mut malformed = 0_usize;
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let read = input.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line);
            if read.map_err(Unreadable::Io)? == 0 {
                break;
            }
            let read = if !line.ends_with(b"\n") && line.len() >= LONGEST_LINE {
                input.skip_until(b'\n').map_err(Unreadable::Io)?;
                Err(Skip::Malformed(format!("is longer than {LONGEST_LINE} bytes")))
            } else if line.trim_ascii().is_empty() {
                continue;
            } else {
                read_line(&line)
            };
            match read {
                Ok(question) => self.all.push(question),
                Err(Skip::Malformed(wrong)) => {
                    malformed = malformed.saturating_add(1);
                    if told.len() < MOST_TOLD {
                        told.push(format!("{name}:{number} {wrong}"));
                    }
                }
                Err(Skip::NotAsked(why)) => match self.skipped.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, count)) => *count = count.saturating_add(1),
                    None => self.skipped.push((why, 1)),
                },
            }
        }
        if malformed == 0 { Ok(()) } else { Err(Unreadable::Lines(told, malformed)) }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Forgets what answers are expected.
    pub fn expect_nothing(&mut self) {
        for question in &mut self.all {
            question.expected = None;
        }
    }

    /// How many have an answer that is expected.
    pub fn expecting(&self) -> usize {
        self.all.iter().filter(|question| question.expected.is_some()).count()
    }

    /// Expects what a policy answers to each of them now.
    pub fn expect(&mut self, policy: &Candidate) {
        let now = Timestamp::now();
        for question in &mut self.all {
            question.expected = judged(policy, &question.message, now);
        }
    }
}

/// What a policy answers; `None` to what is no question.
pub(super) fn judged(policy: &Candidate, message: &v1::CheckRequest, now: Timestamp) -> Option<Expected> {
    let asked = convert::check_request(message).ok()?;
    let answer = policy.authorizer().check_at(&policy.snapshot, &asked.request, asked.agent.as_ref(), now);
    Some(match &answer {
        Ok(given) => {
            let result = convert::result(&policy.snapshot, &asked, given);
            Expected {
                outcome: Outcome::of(&answer),
                executed_as: Some(result.executed_as()),
                until: given.evaluation.valid_until,
            }
        }
        Err(_) => Expected {
            outcome: Outcome::Undecided,
            executed_as: None,
            // When time would change that is not known.
            until: policy.snapshot.policy.depends_on_time().then_some(now),
        },
    })
}

/// Why a line is not asked.
enum Skip {
    Malformed(String),
    NotAsked(String),
}

fn read_line(line: &[u8]) -> Result<Question, Skip> {
    let malformed = |wrong: String| Skip::Malformed(wrong);
    let json: Json =
        serde_json::from_slice(line).map_err(|error| malformed(format!("is no JSON: {error}")))?;
    let Json::Object(members) = &json else {
        return Err(malformed("is no JSON object".to_owned()));
    };
    let (request, expected) = if let Some(request) = members.get(field::REQUEST) {
        recorded(members)?;
        (RecordedQuestion::read(request).map_err(malformed)?, expected(members)?)
    } else if members.contains_key("subject") {
        (RecordedQuestion::read(&json).map_err(malformed)?, None)
    } else if members.contains_key("principal") {
        let request = RecordedQuestion::read(&flat(members)?).map_err(malformed)?;
        // What was decided at another time says nothing of now.
        let timeless = !members.contains_key("now");
        (request, if timeless { expected(members)? } else { None })
    } else if members.contains_key(field::KIND) {
        recorded(members)?;
        return Err(Skip::NotAsked("hold no question".to_owned()));
    } else {
        return Err(malformed("holds no question: wanted `request`, `subject` or `principal`".to_owned()));
    };
    if let Err(violations) = request.asked() {
        return Err(malformed(format!("cannot be asked: {violations}")));
    }
    Ok(Question { message: request.into_message(), expected })
}

/// Whether a record can be asked again.
fn recorded(members: &Map<String, Json>) -> Result<(), Skip> {
    match members.get(field::KIND).map(Json::as_str) {
        None | Some(Some("decision")) => {}
        Some(Some("difference")) => {
            return Err(Skip::NotAsked("are what a candidate said".to_owned()));
        }
        Some(_) => {
            return Err(Skip::Malformed(
                "is no record: `kind` is neither `decision` nor `difference`".to_owned(),
            ));
        }
    }
    // A label that is hidden does not change the question.
    let labels = [Field::RequestId, Field::PrincipalType, Field::UserType, Field::ApproverType];
    let mut masked = members.get(field::MASKED).and_then(Json::as_array).into_iter().flatten();
    match masked
        .find_map(|path| path.as_str().filter(|path| !labels.iter().any(|label| label.path() == *path)))
    {
        Some(path) => Err(Skip::NotAsked(format!("lack `{path}`, which was masked"))),
        None => Ok(()),
    }
}

/// The decision that stands beside a question.
fn expected(members: &Map<String, Json>) -> Result<Option<Expected>, Skip> {
    let text = |name: &str| match members.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Skip::Malformed(format!("`{name}` is no text"))),
    };
    let Some(decision) = text(field::DECISION)? else { return Ok(None) };
    let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.name() == decision);
    let outcome = outcome.ok_or_else(|| {
        Skip::Malformed(format!(
            "`decision` is `{decision}`; wanted `Allowed`, `NotAllowed`, `Denied` or `Undecided`"
        ))
    })?;
    let executed_as = match text(field::EXECUTED_AS)? {
        // A record leaves out what is empty, other lines what they do not speak of.
        None => members.contains_key(field::KIND).then_some(v1::ExecutedAs::Unspecified),
        Some("agent") => Some(v1::ExecutedAs::Agent),
        Some("user") => Some(v1::ExecutedAs::User),
        Some(other) => {
            return Err(Skip::Malformed(format!("`executed_as` is `{other}`; wanted `agent` or `user`")));
        }
    };
    let until = match text(field::VALID_UNTIL)? {
        None => None,
        Some(time) => Some(
            time.parse()
                .map_err(|_| Skip::Malformed(format!("`valid_until` is `{time}`, which is no time")))?,
        ),
    };
    Ok(Some(Expected { outcome, executed_as, until }))
}

/// The flat form as the request of a record.
fn flat(members: &Map<String, Json>) -> Result<Json, Skip> {
    if members.contains_key("agent") {
        return Err(Skip::NotAsked("are an agent's in the flat form; write them as `request`".to_owned()));
    }
    let mut request = json!({"subject": {}, "action": {}, "resource": {}});
    let names = [
        ("principal", "/subject", "principal_id"),
        ("groups", "/subject", "group_ids"),
        ("action", "/action", "name"),
        ("data_action", "/action", "data_action"),
        ("sub_operation", "/action", "sub_operation"),
        ("scope", "/resource", "scope"),
    ];
    let attributes = [
        ("principal", "/subject", "attributes"),
        ("resource", "/resource", "attributes"),
        ("request", "", "request_attributes"),
        ("environment", "", "environment_attributes"),
    ];
    let mut put = |place: &str, name: &str, value: &Json| {
        if let Some(object) = request.pointer_mut(place).and_then(Json::as_object_mut) {
            object.insert(name.to_owned(), value.clone());
        }
    };
    for (from, place, name) in names {
        if let Some(value) = members.get(from).filter(|value| !value.is_null()) {
            put(place, name, value);
        }
    }
    match members.get("attributes") {
        None | Some(Json::Null) => {}
        Some(Json::Object(sources)) => {
            for (source, value) in sources {
                let Some((_, place, name)) = attributes.iter().find(|(from, ..)| from == source) else {
                    return Err(Skip::Malformed(format!(
                        "`attributes.{source}` is no source; wanted `request`, `resource`, `principal` or `environment`"
                    )));
                };
                put(place, name, value);
            }
        }
        Some(_) => return Err(Skip::Malformed("`attributes` is no object".to_owned())),
    }
    Ok(request)
}

/// One made-up question: for the responder that answers without looking.
pub fn constant() -> Questions {
    let message = v1::CheckRequest {
        subject: Some(v1::Subject {
            principal_id: "33333333-3333-4333-8333-333333333333".to_owned(),
            group_ids: (0..10).map(|group| format!("44444444-4444-4444-8444-{group:012}")).collect(),
            ..v1::Subject::default()
        }),
        action: Some(v1::Action {
            name: "Microsoft.Storage/storageAccounts/read".to_owned(),
            ..v1::Action::default()
        }),
        resource: Some(v1::Resource {
            scope: "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg-0017/providers/\
                    Microsoft.Storage/storageAccounts/st0017"
                .to_owned(),
            ..v1::Resource::default()
        }),
        ..v1::CheckRequest::default()
    };
    Questions { all: vec![Question { message, expected: None }], ..Questions::default() }
}

impl Question {
    /// In words, for people who look for it.
    pub(super) fn told(&self) -> String {
        let message = &self.message;
        let who = message.subject.as_ref().map_or("", |subject| &subject.principal_id);
        let (what, plane) = message.action.as_ref().map_or(("", ""), |action| {
            (action.name.as_str(), if action.data_action { "data action " } else { "" })
        });
        let place = message.resource.as_ref().map_or("", |resource| &resource.scope);
        format!("{who} {plane}{what} at {place}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Result<Questions, Unreadable> {
        let mut questions = Questions::default();
        questions.read("x", lines.as_bytes()).map(|()| questions)
    }

    const FLAT: &str = r#"{"principal":"p","groups":["g"],"action":"A/b/read","data_action":true,"scope":"/subscriptions/50000000-0000-4000-8000-000000000001","attributes":{"request":{"a":1},"environment":{"b":true}},"decision":"Denied"}"#;

    #[test]
    fn every_form_of_a_line() {
        let request =
            r#"{"subject":{"principal_id":"p"},"action":{"name":"A/b/read"},"resource":{"scope":"/"}}"#;
        let lines = [
            FLAT.to_owned(),
            request.to_owned(),
            String::new(),
            format!(r#"{{"request":{request},"decision":"Allowed","executed_as":"user"}}"#),
            format!(r#"{{"kind":"decision","request":{request},"decision":"NotAllowed","valid_until":"2026-01-01T00:00:00Z"}}"#),
            format!(r#"{{"kind":"difference","request":{request}}}"#),
            format!(r#"{{"kind":"decision","request":{request},"masked":["subject.principal_id"]}}"#),
            format!(r#"{{"kind":"decision","request":{request},"masked":["subject.principal_type"]}}"#),
            r#"{"principal":"p","action":"A/b/read","scope":"/","now":"2026-01-01T00:00:00Z","decision":"Allowed"}"#.to_owned(),
        ];
        let questions = read(&lines.join("\n")).unwrap();
        let outcomes: Vec<_> = questions
            .all
            .iter()
            .map(|question| question.expected.as_ref().map(|expected| expected.outcome))
            .collect();
        assert_eq!(
            outcomes,
            [Some(Outcome::Denied), None, Some(Outcome::Allowed), Some(Outcome::NotAllowed), None, None]
        );
        let first = &questions.all[0].message;
        assert_eq!(first.subject.as_ref().unwrap().group_ids, ["g"]);
        assert!(first.action.as_ref().unwrap().data_action);
        assert_eq!((first.request_attributes.len(), first.environment_attributes.len()), (1, 1));
        assert_eq!(questions.skipped.len(), 2, "{:?}", questions.skipped);
    }

    #[test]
    fn lines_that_are_no_questions_are_all_told() {
        let lines = [
            "{",
            "[]",
            "{}",
            r#"{"principal":"p","action":"A/b/*","scope":"/"}"#,
            r#"{"principal":"p","action":"A/b/read","scope":"/","decision":"Maybe"}"#,
            r#"{"principal":"p","action":"A/b/read","scope":"/","attributes":{"other":{}}}"#,
        ];
        let Err(Unreadable::Lines(told, 6)) = read(&lines.join("\n")) else { panic!("taken") };
        for (line, wanted) in
            told.iter().zip(["JSON", "object", "`request`", "action.name", "`Maybe`", "other"])
        {
            assert!(line.contains(wanted), "{line}");
        }
    }
}
