//! What is asked in which order: drawn by chance and encoded before the first call, so that neither is on the way of one.

use std::collections::HashMap;

use bytes::Bytes;
use fastrand::Rng;
use prost::Message;

use crate::proto::v1;

use super::call::Rpc;
use super::questions::{Expected, Question, Questions};

/// How the next question is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pick {
    /// One after the other, and again from the first.
    Order,
    /// Each with the same chance.
    Uniform,
    /// The one at position n with a chance in proportion to n to the power of minus this.
    Zipf(f64),
}

/// Messages that are drawn ahead; after these they come again.
const DRAWN: usize = 1 << 16;

/// Everything that is asked. Shared by all callers.
#[derive(Debug)]
pub struct Plan {
    pub(super) rpc: Rpc,
    pub(super) questions: Vec<Question>,
    messages: Vec<Encoded>,
    /// Positions in `messages`; never empty.
    order: Vec<u32>,
}

/// One message.
#[derive(Debug)]
pub(super) struct Encoded {
    /// All of it; of a message on a stream the context, which is left out when the one before it had the same.
    pub(super) bytes: Bytes,
    /// Which context that is.
    pub(super) context: usize,
    /// On a stream: the questions, without the id that they get when they are sent.
    pub(super) questions: Box<[Bytes]>,
    /// What it asks: positions in the questions.
    pub(super) asks: Box<[u32]>,
}

impl Plan {
    /// Draws and encodes. `batch` is how many questions go with one call of a batch.
    ///
    /// # Errors
    ///
    /// There is nothing to ask.
    pub fn new(rpc: Rpc, questions: Questions, batch: usize, pick: Pick, seed: u64) -> Result<Self, String> {
        let Questions { all: questions, first, .. } = questions;
        if questions.is_empty() || u32::try_from(questions.len()).is_err() {
            return Err(format!("{} questions cannot be asked; wanted 1 to {}", questions.len(), u32::MAX));
        }
        let batch = if rpc == Rpc::Check { 1 } else { batch.max(1) };
        let (contexts, count) = contexts(rpc, &questions);
        let encode = |items: &[u32], context: usize| encode(rpc, &questions, items, context);
        let (messages, order) = if batch == 1 {
            // Each question is encoded once, however often it is drawn.
            let messages = (0_u32..).zip(&contexts).map(|(position, context)| encode(&[position], *context));
            (messages.collect(), draw(questions.len(), first, pick, 1, seed))
        } else {
            let drawn = draw(questions.len(), first, pick, batch, seed);
            let messages: Vec<Encoded> = batches(&contexts, count, &drawn, batch, encode);
            let order = (0_u32..).take(messages.len()).collect();
            (messages, order)
        };
        Ok(Self { rpc, questions, messages, order })
    }

    /// The message of the call with this number.
    pub(super) fn message(&self, number: u64) -> Option<&Encoded> {
        let length = u64::try_from(self.order.len()).ok().filter(|length| *length > 0)?;
        let at = usize::try_from(number % length).ok()?;
        self.messages.get(*self.order.get(at)? as usize)
    }

    /// How many different questions there are.
    pub const fn distinct(&self) -> usize {
        self.questions.len()
    }

    pub(super) fn expected(&self, question: u32) -> Option<&Expected> {
        self.questions.get(question as usize)?.expected.as_ref()
    }
}

/// Positions of questions, a multiple of `batch` of them.
fn draw(count: usize, first: Option<(usize, f64)>, pick: Pick, batch: usize, seed: u64) -> Vec<u32> {
    let full = |length: usize| length.div_ceil(batch).saturating_mul(batch);
    let position = |at: usize| u32::try_from(at).unwrap_or_default();
    let mut rng = Rng::with_seed(seed);
    // Those that come first, and the others; or all of them, with the whole share.
    let (head, share) = first.unwrap_or((count, 1.0));
    if pick == Pick::Order && first.is_none() {
        return (0..full(count.max(batch))).map(|at| position(at % count)).collect();
    }
    let (mut head, mut tail) = (Wheel::new(head, pick), Wheel::new(count.saturating_sub(head), pick));
    let drawn = (0..full(count.max(DRAWN))).map(|_| {
        let of_head = tail.count == 0 || (head.count > 0 && rng.f64() < share);
        if of_head {
            position(head.turn(&mut rng))
        } else {
            position(head.count.saturating_add(tail.turn(&mut rng)))
        }
    });
    drawn.collect()
}

/// Draws positions below a count.
struct Wheel {
    count: usize,
    pick: Pick,
    /// For Zipf: the sum of the chances up to each.
    sums: Vec<f64>,
    turns: usize,
}

impl Wheel {
    fn new(count: usize, pick: Pick) -> Self {
        let mut sums = Vec::new();
        if let Pick::Zipf(exponent) = pick {
            let mut sum = 0.0;
            for rank in 1..=u32::try_from(count).unwrap_or(u32::MAX) {
                sum += f64::from(rank).powf(-exponent);
                sums.push(sum);
            }
        }
        Self { count, pick, sums, turns: 0 }
    }

    fn turn(&mut self, rng: &mut Rng) -> usize {
        let last = self.count.saturating_sub(1);
        let number = self.turns;
        self.turns = number.saturating_add(1);
        match self.pick {
            Pick::Order => number.checked_rem(self.count).unwrap_or_default(),
            Pick::Uniform => rng.usize(..=last),
            Pick::Zipf(_) => {
                let ball = rng.f64() * self.sums.last().copied().unwrap_or_default();
                self.sums.partition_point(|sum| *sum <= ball).min(last)
            }
        }
    }
}

/// What the questions of one message share, by number, and how many of these there are: of a batch the environment, on a
/// stream the subject as well.
fn contexts(rpc: Rpc, questions: &[Question]) -> (Vec<usize>, usize) {
    let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
    let contexts = questions
        .iter()
        .map(|Question { message, .. }| {
            let mut known = match rpc {
                Rpc::Check => Vec::new(),
                Rpc::BatchCheck | Rpc::CheckStream => key(&message.environment_attributes),
            };
            if let (Rpc::CheckStream, Some(subject)) = (rpc, &message.subject) {
                known.extend(key(&subject.attributes));
                let plain = v1::Subject { attributes: HashMap::new(), ..subject.clone() };
                known.extend(plain.encode_to_vec());
            }
            let next = numbers.len();
            *numbers.entry(known).or_insert(next)
        })
        .collect();
    (contexts, numbers.len())
}

/// Messages of `batch` questions that share their context; the last of each context may have fewer.
fn batches(
    contexts: &[usize],
    count: usize,
    drawn: &[u32],
    batch: usize,
    encode: impl Fn(&[u32], usize) -> Encoded,
) -> Vec<Encoded> {
    let mut open: Vec<Vec<u32>> = vec![Vec::new(); count];
    let mut messages = Vec::new();
    for position in drawn {
        let context = contexts.get(*position as usize).copied().unwrap_or_default();
        let Some(items) = open.get_mut(context) else { continue };
        items.push(*position);
        if items.len() == batch {
            messages.push(encode(items, context));
            items.clear();
        }
    }
    let rest = open.iter().enumerate().filter(|(_, items)| !items.is_empty());
    messages.extend(rest.map(|(context, items)| encode(items, context)));
    messages
}

/// The same for equal maps, whatever order they are walked in.
fn key(attributes: &HashMap<String, v1::AttributeValue>) -> Vec<u8> {
    let mut names: Vec<_> = attributes.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    let mut key = Vec::new();
    for (name, value) in names {
        for part in [name.as_bytes(), &value.encode_to_vec()] {
            key.extend(part.len().to_be_bytes());
            key.extend(part);
        }
    }
    key
}

fn encode(rpc: Rpc, questions: &[Question], items: &[u32], context: usize) -> Encoded {
    let asked =
        || items.iter().filter_map(|position| questions.get(*position as usize)).map(|one| &one.message);
    let first = asked().next().cloned().unwrap_or_default();
    let (bytes, questions) = match rpc {
        Rpc::Check => (first.encode_to_vec(), Vec::new()),
        Rpc::BatchCheck => {
            let items = asked().cloned().map(|message| {
                let v1::CheckRequest { subject, action, resource, request_attributes, agent, .. } = message;
                v1::BatchCheckItem { subject, action, resource, request_attributes, agent }
            });
            let message = v1::BatchCheckRequest {
                environment_attributes: first.environment_attributes,
                items: items.collect(),
                ..v1::BatchCheckRequest::default()
            };
            (message.encode_to_vec(), Vec::new())
        }
        Rpc::CheckStream => {
            let questions = asked().cloned().map(|message| {
                let v1::CheckRequest { action, resource, request_attributes, agent, .. } = message;
                let id = 0;
                v1::CheckStreamQuestion { id, action, resource, request_attributes, agent }
                    .encode_to_vec()
                    .into()
            });
            let shared = v1::CheckStreamContext {
                subject: first.subject,
                environment_attributes: first.environment_attributes,
                ..v1::CheckStreamContext::default()
            };
            let message =
                v1::CheckStreamRequest { context: Some(shared), ..v1::CheckStreamRequest::default() };
            (message.encode_to_vec(), questions.collect())
        }
    };
    Encoded { bytes: bytes.into(), context, questions: questions.into(), asks: items.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions(count: usize) -> Questions {
        let all = (0..count).map(|number| Question {
            message: v1::CheckRequest { request_id: number.to_string(), ..v1::CheckRequest::default() },
            expected: None,
        });
        Questions { all: all.collect(), ..Questions::default() }
    }

    #[test]
    fn in_order_each_question_comes_once_before_any_comes_again() {
        let plan = Plan::new(Rpc::Check, questions(5), 1, Pick::Order, 1).unwrap();
        let asked: Vec<u32> = (0..10).map(|number| plan.message(number).unwrap().asks[0]).collect();
        assert_eq!(asked, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
        let plan = Plan::new(Rpc::BatchCheck, questions(3), 2, Pick::Order, 1).unwrap();
        let asked: Vec<_> = (0..2).map(|number| plan.message(number).unwrap().asks.to_vec()).collect();
        assert_eq!(asked, [[0, 1], [2, 0]]);
        assert!(Plan::new(Rpc::Check, questions(0), 1, Pick::Order, 1).is_err());
    }

    #[test]
    fn chance_keeps_the_share_and_the_law_of_zipf() {
        let mut some = questions(1_000);
        some.first = Some((200, 0.9));
        let plan = Plan::new(Rpc::Check, some, 1, Pick::Zipf(1.0), 7).unwrap();
        let mut counts = vec![0_u32; 1_000];
        for number in 0..65_536 {
            counts[plan.message(number).unwrap().asks[0] as usize] += 1;
        }
        let head: u32 = counts[..200].iter().sum();
        assert!((58_000..60_000).contains(&head), "{head}");
        // The first is asked ten times as often as the tenth: within what chance does to a few hundred.
        let ratio = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((8.0..12.5).contains(&ratio), "{ratio}");
        let drawn = |seed| draw(100, None, Pick::Uniform, 1, seed);
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }

    #[test]
    fn a_batch_has_one_environment() {
        let mut some = questions(4);
        let value = v1::AttributeValue { value: Some(v1::attribute_value::Value::Boolean(true)) };
        for odd in [1, 3] {
            some.all[odd].message.environment_attributes.insert("isPrivateLink".into(), value.clone());
        }
        let plan = Plan::new(Rpc::BatchCheck, some, 2, Pick::Order, 1).unwrap();
        let asked: Vec<_> = (0..2).map(|number| plan.message(number).unwrap().asks.to_vec()).collect();
        assert_eq!(asked, [[0, 2], [1, 3]]);
    }
}
