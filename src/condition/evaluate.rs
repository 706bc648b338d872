//! Evaluating a program (semantics, sections 3.2 and 3.4 to 3.6).
//!
//! Allocates nothing, follows nodes forward only and stops at the end of its [`Budget`]. Bytes that contradict
//! themselves end in [`EvalError::Damaged`]; no bytes make it panic or read past their end.

use std::ops::ControlFlow;

use arrayvec::ArrayVec;
use jiff::Timestamp;

use super::ast::Source;
use super::operator::{Family, Test};
use super::program::{
    self, Bounds, Damaged, Integer, MAX_GROUPS, Operand, Place, ProgramRef, WideInteger, class, flag,
    operand, tag,
};
use super::scalar::{self, Block, SECONDS_PER_DAY, TICKS_PER_SECOND};
use super::text;
use crate::model::{AttributeBag, Value, ValueList, Wildcards, pattern_matches};

/// What conditions read.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The operation that the request names.
    pub action: &'a str,
    /// Its suboperation; an empty one is none.
    pub sub_operation: Option<&'a str>,
    /// The check's own time (semantics, section 2.7).
    pub now: Timestamp,
    /// `@Request`.
    pub request: &'a dyn AttributeBag,
    /// `@Resource`.
    pub resource: &'a dyn AttributeBag,
    /// `@Principal`.
    pub principal: &'a dyn AttributeBag,
    /// `@Environment`; a `UtcNow` in it is ignored (semantics, section 10, row 9).
    pub environment: &'a dyn AttributeBag,
}

/// Kleene's three values (semantics, section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Truth {
    /// Does not grant; a deny assignment with it does not apply.
    False = 0,
    /// Does not grant; a deny assignment with it applies.
    Undefined = 1,
    /// Grants.
    True = 2,
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The program contradicts itself.
    #[error("the compiled condition contradicts itself")]
    Damaged,
    /// The condition is too much work on these attributes.
    #[error("the condition takes more steps than allowed")]
    BudgetExceeded,
}

/// How much work evaluations may still do, counted in steps: a node, a pair that is compared, an attribute that is
/// looked at, 64 bytes that are compared, 8 characters that are folded, 4 moves of a pattern.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// 64 to a step.
    units: u64,
}

const UNITS_PER_STEP: u64 = 64;

/// A value and how long it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The value.
    pub truth: Truth,
    /// The nearest moment at which a comparison with `@Environment[UtcNow]` that took part changes; the value
    /// holds until then for the same request. `None`: time played no part.
    pub holds_until: Option<Timestamp>,
}

/// Evaluates a program.
///
/// # Errors
///
/// [`EvalError`]: then there is no value; a role assignment grants nothing, a deny assignment applies.
pub fn evaluate(program: &[u8], context: &Context<'_>, steps: &mut Budget) -> Result<Truth, EvalError> {
    evaluate_until(program, context, steps).map(|verdict| verdict.truth)
}

/// Evaluates a program and says until when the value holds.
///
/// # Errors
///
/// As [`evaluate`].
pub fn evaluate_until(
    program: &[u8],
    context: &Context<'_>,
    steps: &mut Budget,
) -> Result<Verdict, EvalError> {
    let program = ProgramRef::open(program)?;
    let mut evaluation = Evaluation { program, context, budget: steps, horizon: i64::MAX };
    let truth = evaluation.run()?;
    let holds_until =
        if evaluation.horizon == i64::MAX { None } else { scalar::timestamp(evaluation.horizon) };
    Ok(Verdict { truth, holds_until })
}

impl From<Damaged> for EvalError {
    fn from(Damaged: Damaged) -> Self {
        Self::Damaged
    }
}

// === impl Truth ===

impl Truth {
    const fn of(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }

    /// Kleene's NOT.
    #[must_use]
    pub const fn not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Undefined => Self::Undefined,
            Self::True => Self::False,
        }
    }

    /// Kleene's AND: the lesser.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        if (self as u8) < other as u8 { self } else { other }
    }

    /// Kleene's OR: the greater.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        if self as u8 > other as u8 { self } else { other }
    }

    /// Whether a condition on a role assignment or a role grants (semantics, section 3.5).
    pub const fn grants(self) -> bool {
        matches!(self, Self::True)
    }

    /// Whether a condition on a deny assignment lets it apply (semantics, section 2.4).
    pub const fn denies(self) -> bool {
        !matches!(self, Self::False)
    }
}

// === impl Budget ===

impl Budget {
    /// So many steps.
    pub fn new(steps: u32) -> Self {
        Self { units: u64::from(steps) * UNITS_PER_STEP }
    }

    /// How many steps are left.
    pub fn steps(&self) -> u64 {
        self.units / UNITS_PER_STEP
    }

    #[inline]
    fn charge(&mut self, units: u64) -> Result<(), EvalError> {
        self.units = self.units.checked_sub(units).ok_or(EvalError::BudgetExceeded)?;
        Ok(())
    }

    #[inline]
    fn step(&mut self) -> Result<(), EvalError> {
        self.charge(UNITS_PER_STEP)
    }

    /// For so many moves of a pattern along a text.
    #[inline]
    pub(super) fn moves(&mut self, count: usize) -> Result<(), EvalError> {
        self.charge((count as u64).saturating_mul(UNITS_PER_STEP / 4))
    }

    /// For folding so many characters.
    #[inline]
    pub(super) fn folds(&mut self, count: usize) -> Result<(), EvalError> {
        self.charge((count as u64).saturating_mul(UNITS_PER_STEP / 8))
    }

    /// For comparing so many bytes.
    #[inline]
    pub(super) fn bytes(&mut self, count: usize) -> Result<(), EvalError> {
        self.charge(count as u64)
    }
}

impl Default for Budget {
    /// 65,536 steps: every condition of the documents takes fewer than a hundred.
    fn default() -> Self {
        Self::new(65_536)
    }
}

// === the evaluation ===

struct Evaluation<'e, 'a> {
    program: ProgramRef<'a>,
    context: &'e Context<'a>,
    budget: &'e mut Budget,
    /// The nearest instant at which a comparison with the time changes.
    horizon: i64,
}

/// A group that is being evaluated.
struct Frame {
    end: usize,
    or: bool,
    value: Truth,
}

/// A value in the form that its operator compares.
#[derive(Clone, Copy)]
enum Item<'a> {
    Text(&'a [u8]),
    Integer(i64),
    Boolean(bool),
    Wide(u128),
    Block(Block),
}

/// What stands on a side, found.
#[derive(Clone, Copy)]
enum Side<'a> {
    /// Nothing, or more than one thing of one name.
    Missing,
    /// One value; `None` when it is of the wrong type.
    One(Option<Item<'a>>),
    List(&'a dyn ValueList),
    Keys(&'a dyn AttributeBag),
    Constants(u8, Place),
}

/// What a name leads to.
pub(super) enum Found<'a> {
    Missing,
    /// Several that differ in letter case only.
    Ambiguous,
    Value(Value<'a>),
    /// The keys of a dictionary that has some.
    Keys(&'a dyn AttributeBag),
}

/// Which role a side plays, where that decides how its values are read.
#[derive(Clone, Copy)]
struct Reading {
    family: Family,
    /// Whether it is the side of the block in `IpMatch`.
    block: bool,
}

impl<'a> Evaluation<'_, 'a> {
    fn run(&mut self) -> Result<Truth, EvalError> {
        let nodes = self.program.nodes;
        let mut groups: ArrayVec<Frame, MAX_GROUPS> = ArrayVec::new();
        let mut at = 0;
        loop {
            let rest = nodes.get(at..).ok_or(EvalError::Damaged)?;
            let &tag = rest.first().ok_or(EvalError::Damaged)?;
            self.budget.step()?;
            if let tag::AND | tag::OR = tag {
                let group: &program::Group = program::record(rest)?;
                let end = group.end.get() as usize;
                let bound = groups.last().map_or(nodes.len(), |outer| outer.end);
                at += size_of::<program::Group>();
                if at >= end || end > bound {
                    return Err(EvalError::Damaged);
                }
                let or = tag == tag::OR;
                let value = Truth::of(!or);
                groups.try_push(Frame { end, or, value }).map_err(|_| EvalError::Damaged)?;
                continue;
            }
            let (mut value, length) = self.leaf(tag, rest)?;
            at += length;
            // Fold the value into the groups that end here or are decided.
            loop {
                let Some(group) = groups.last_mut() else {
                    return Ok(value);
                };
                group.value = if group.or { group.value.or(value) } else { group.value.and(value) };
                let decided = group.value == Truth::of(group.or);
                if !decided && at < group.end {
                    break;
                }
                if at > group.end {
                    return Err(EvalError::Damaged);
                }
                (value, at) = (group.value, group.end);
                groups.pop();
            }
        }
    }

    fn leaf(&mut self, tag: u8, nodes: &[u8]) -> Result<(Truth, usize), EvalError> {
        Ok(match tag {
            tag::CONSTANT => {
                let node: &program::Constant = program::record(nodes)?;
                let truth = match node.truth {
                    0 => Truth::False,
                    1 => Truth::Undefined,
                    2 => Truth::True,
                    _ => return Err(EvalError::Damaged),
                };
                (truth, size_of_val(node))
            }
            tag::ACTION => {
                let node: &program::Name = program::record(nodes)?;
                (negate(node.flags, Truth::of(self.action_matches(node)?)), size_of_val(node))
            }
            tag::SUB_OPERATION => {
                let node: &program::Name = program::record(nodes)?;
                let name = node.text.bytes(self.program.pool)?;
                self.budget.bytes(name.len())?;
                let same = self.sub_operation().is_some_and(|given| text::is_name(given.as_bytes(), name));
                (negate(node.flags, Truth::of(same)), size_of_val(node))
            }
            tag::EXISTS => {
                let node: &program::Exists = program::record(nodes)?;
                (negate(node.flags, Truth::of(self.exists(&node.operand)?)), size_of_val(node))
            }
            tag::COMPARISON => {
                let node: &program::Comparison = program::record(nodes)?;
                (negate(node.flags, self.compare(node)?), size_of_val(node))
            }
            _ => return Err(EvalError::Damaged),
        })
    }

    fn sub_operation(&self) -> Option<&'a str> {
        self.context.sub_operation.filter(|name| !name.is_empty())
    }

    fn action_matches(&mut self, node: &program::Name) -> Result<bool, EvalError> {
        let pattern = node.text.bytes(self.program.pool)?;
        let action = self.context.action;
        self.budget.bytes(pattern.len().saturating_add(action.len()))?;
        if node.flags & flag::EXACT != 0 {
            return Ok(text::is_name(action.as_bytes(), pattern));
        }
        let pattern = str::from_utf8(pattern).map_err(|_| EvalError::Damaged)?;
        let wildcards = if node.flags & flag::STRICT == 0 { Wildcards::Collapse } else { Wildcards::Strict };
        Ok(pattern_matches(pattern, action, wildcards))
    }

    /// Present, though perhaps in more than one spelling.
    fn exists(&mut self, operand: &Operand) -> Result<bool, EvalError> {
        Ok(match operand.kind {
            operand::UTC_NOW => true,
            operand::SUB_OPERATION => self.sub_operation().is_some(),
            operand::ATTRIBUTE | operand::EXACT_KEY | operand::KEYS => {
                !matches!(self.find(operand)?, Found::Missing)
            }
            _ => return Err(EvalError::Damaged),
        })
    }

    // --- comparing ---

    fn compare(&mut self, node: &program::Comparison) -> Result<Truth, EvalError> {
        let family = family(node.family)?;
        let test = test(node.test)?;
        let left_reading = Reading { family, block: false };
        let right_reading = match test {
            // The bounds of addresses are read together, from their texts.
            Test::Between if family == Family::Address => Reading { family: Family::Text, block: false },
            _ => Reading { family, block: test == Test::Inside },
        };
        let left = self.side(&node.left, left_reading)?;
        let right = self.side(&node.right, right_reading)?;
        if matches!(left, Side::Missing) || matches!(right, Side::Missing) {
            return Ok(Truth::Undefined);
        }
        let ignore_case = node.flags & flag::IGNORE_CASE != 0;
        let [left_is_now, right_is_now] = [&node.left, &node.right].map(|side| side.kind == operand::UTC_NOW);
        if test == Test::Between {
            let value = self.single(left, left_reading)?;
            let bounds = self.bounds(right, right_reading)?;
            if left_is_now && let Some((Item::Integer(low), Item::Integer(high))) = bounds {
                self.expect_change(family, low);
                self.expect_change(family, high);
            }
            return Ok(between(value, bounds));
        }
        if node.flags & flag::SCALAR != 0 {
            let left = self.single(left, left_reading)?;
            let right = self.single(right, right_reading)?;
            match (left_is_now, left, right_is_now, right) {
                (true, _, false, Some(Item::Integer(value)))
                | (false, Some(Item::Integer(value)), true, _) => self.expect_change(family, value),
                _ => {}
            }
            return pair(test, ignore_case, left, right, self.budget);
        }
        if family == Family::Member && !self.is_single(right)? {
            return Ok(Truth::Undefined);
        }
        self.quantified(node.flags, test, (left, left_reading), (right, right_reading))
    }

    /// Every left value with every right value, as far as they are needed (semantics, sections 3.4 and 3.5).
    fn quantified(
        &mut self,
        flags: u8,
        test: Test,
        left: (Side<'a>, Reading),
        right: (Side<'a>, Reading),
    ) -> Result<Truth, EvalError> {
        let pool = self.program.pool;
        let all_left = flags & flag::ALL_LEFT != 0;
        let all_right = flags & flag::ALL_RIGHT != 0;
        let ignore_case = flags & flag::IGNORE_CASE != 0;
        let join = |all: bool, value: Truth, next| if all { value.and(next) } else { value.or(next) };
        let mut outer = Truth::of(all_left);
        each(left.0, left.1, pool, self.budget, &mut |l, budget| {
            let inner = if flags & flag::SORTED != 0 {
                is_in(l, right.0, ignore_case, pool, budget)?
            } else {
                let mut inner = Truth::of(all_right);
                each(right.0, right.1, pool, budget, &mut |r, budget| {
                    inner = join(all_right, inner, pair(test, ignore_case, l, r, budget)?);
                    Ok(inner != Truth::of(!all_right))
                })?;
                inner
            };
            outer = join(all_left, outer, inner);
            Ok(outer != Truth::of(!all_left))
        })?;
        Ok(outer)
    }

    /// Notes when a comparison of the time with a value changes: when the value is reached, and just behind it.
    fn expect_change(&mut self, family: Family, value: i64) {
        let now = scalar::ticks(self.context.now);
        let candidates = if family == Family::DateTime {
            [value, value.saturating_add(1), i64::MAX]
        } else {
            let day = SECONDS_PER_DAY * TICKS_PER_SECOND;
            let midnight = now - now.rem_euclid(day);
            let at = midnight.saturating_add(value.saturating_mul(TICKS_PER_SECOND));
            [at, at.saturating_add(TICKS_PER_SECOND), midnight.saturating_add(day)]
        };
        for candidate in candidates {
            if candidate > now && candidate < self.horizon {
                self.horizon = candidate;
            }
        }
    }

    // --- sides ---

    fn side(&mut self, operand: &Operand, reading: Reading) -> Result<Side<'a>, EvalError> {
        Ok(match operand.kind {
            operand::CONSTANT => Side::One(Some(constant(operand.detail, operand.place, self.program.pool)?)),
            operand::CONSTANTS if operand.place.length.get() > 0 => {
                Side::Constants(operand.detail, operand.place)
            }
            operand::UTC_NOW => Side::One(self.now(reading.family)),
            operand::SUB_OPERATION => match self.sub_operation() {
                Some(name) => Side::One(reading.item(Value::Text(name))),
                None => Side::Missing,
            },
            operand::ATTRIBUTE | operand::EXACT_KEY | operand::KEYS => match self.find(operand)? {
                Found::Missing | Found::Ambiguous => Side::Missing,
                Found::Keys(dictionary) => Side::Keys(dictionary),
                Found::Value(Value::List(list)) => Side::List(list),
                Found::Value(value) => Side::One(reading.item(value)),
            },
            _ => return Err(EvalError::Damaged),
        })
    }

    /// A date and time, and nothing else; for the extension the time of day that it is.
    fn now(&self, family: Family) -> Option<Item<'a>> {
        let ticks = scalar::ticks(self.context.now);
        match family {
            Family::DateTime => Some(Item::Integer(ticks)),
            Family::TimeOfDay => {
                Some(Item::Integer(ticks.div_euclid(TICKS_PER_SECOND).rem_euclid(SECONDS_PER_DAY)))
            }
            _ => None,
        }
    }

    /// The one value of a side; `None` when there are several, or it is of the wrong type.
    fn single(&mut self, side: Side<'a>, reading: Reading) -> Result<Option<Item<'a>>, EvalError> {
        if let Side::One(item) = side {
            return Ok(item);
        }
        let mut count = 0_u8;
        let mut only = None;
        each(side, reading, self.program.pool, self.budget, &mut |item, _| {
            count += 1;
            only = item;
            Ok(count < 2)
        })?;
        Ok(only.filter(|_| count == 1))
    }

    fn is_single(&mut self, side: Side<'a>) -> Result<bool, EvalError> {
        let mut count = 0_u8;
        let reading = Reading { family: Family::Text, block: false };
        each(side, reading, self.program.pool, self.budget, &mut |_, _| {
            count += 1;
            Ok(count < 2)
        })?;
        Ok(count == 1)
    }

    /// The two bounds on the right of an `InRange` operator; for addresses a block of them.
    fn bounds(
        &mut self,
        side: Side<'a>,
        reading: Reading,
    ) -> Result<Option<(Item<'a>, Item<'a>)>, EvalError> {
        let mut items: ArrayVec<Item<'a>, 2> = ArrayVec::new();
        let mut fits = true;
        each(side, reading, self.program.pool, self.budget, &mut |item, _| {
            fits &= item.is_some_and(|item| items.try_push(item).is_ok());
            Ok(fits)
        })?;
        let text = |bytes| str::from_utf8(bytes).ok();
        Ok(match items.as_slice() {
            _ if !fits => None,
            // Addresses: one block, or two that are its ends.
            [Item::Text(block)] => text(block)
                .filter(|block| block.contains('/'))
                .and_then(Block::parse)
                .map(|block| (Item::Block(block), Item::Block(block))),
            [Item::Text(low), Item::Text(high)] => text(low)
                .zip(text(high))
                .and_then(|(low, high)| Block::between(low, high))
                .map(|block| (Item::Block(block), Item::Block(block))),
            [low, high] => Some((*low, *high)),
            _ => None,
        })
    }

    // --- attributes ---

    /// Finds an attribute (semantics, section 3.2 and section 10, row 11).
    fn find(&mut self, operand: &Operand) -> Result<Found<'a>, EvalError> {
        let name = operand.place.bytes(self.program.pool)?;
        let bag = match operand.detail {
            source if source == Source::Request as u8 => self.context.request,
            source if source == Source::Resource as u8 => self.context.resource,
            source if source == Source::Principal as u8 => self.context.principal,
            source if source == Source::Environment as u8 => self.context.environment,
            _ => return Err(EvalError::Damaged),
        };
        find(bag, name, operand.path.get() as usize, operand.kind, self.budget)
    }
}

const fn negate(flags: u8, truth: Truth) -> Truth {
    if flags & flag::NEGATED == 0 { truth } else { truth.not() }
}

/// Finds what a name leads to: first the attribute of that whole name, then the key of a dictionary.
///
/// The name is in lower case, but for an exact key behind its path. `path` is the length of the name up to its first colon, 0 without one.
pub(super) fn find<'a>(
    bag: &'a dyn AttributeBag,
    name: &[u8],
    path: usize,
    kind: u8,
    budget: &mut Budget,
) -> Result<Found<'a>, EvalError> {
    let (path, key) = if path == 0 || kind == operand::KEYS {
        (name, None)
    } else {
        let (path, key) = name.split_at_checked(path).ok_or(EvalError::Damaged)?;
        (path, Some(key.split_first().ok_or(EvalError::Damaged)?.1))
    };
    let exact = kind == operand::EXACT_KEY;
    let mut whole = Match::None;
    let mut dictionary = Match::None;
    search(bag, budget, |given, value, budget| {
        let given = given.as_bytes();
        if given.len() == name.len() {
            let same = if exact {
                let (given_path, given_key) = given.split_at_checked(path.len()).unwrap_or_default();
                given_key.strip_prefix(b":") == key && text::is_name(given_path, path)
            } else {
                text::is_name(given, name)
            };
            if same && is_present(value, 2, budget)? {
                whole.add(value);
            }
        } else if given.len() == path.len()
            && let Value::Dictionary(_) = value
            && text::is_name(given, path)
            && is_present(value, 2, budget)?
        {
            dictionary.add(value);
        }
        Ok(())
    })?;
    if kind == operand::KEYS {
        return Ok(match whole {
            Match::One(Value::Dictionary(entries)) => Found::Keys(entries),
            Match::Several => Found::Ambiguous,
            Match::None | Match::One(_) => Found::Missing,
        });
    }
    let (Some(key), Match::None, Match::One(Value::Dictionary(entries))) = (key, whole, dictionary) else {
        return Ok(match (whole, dictionary) {
            (Match::One(value), _) => Found::Value(value),
            (Match::Several, _) | (Match::None, Match::Several) => Found::Ambiguous,
            (Match::None, _) => Found::Missing,
        });
    };
    let mut found = Match::None;
    search(entries, budget, |given, value, budget| {
        let given = given.as_bytes();
        let same = if exact { given == key } else { text::is_name(given, key) };
        if same && is_present(value, 1, budget)? {
            found.add(value);
        }
        Ok(())
    })?;
    Ok(match found {
        Match::None => Found::Missing,
        Match::One(value) => Found::Value(value),
        Match::Several => Found::Ambiguous,
    })
}

#[derive(Clone, Copy)]
enum Match<'a> {
    None,
    One(Value<'a>),
    Several,
}

impl<'a> Match<'a> {
    const fn add(&mut self, value: Value<'a>) {
        *self = if let Self::None = self { Self::One(value) } else { Self::Several };
    }
}

/// Visits all of a bag, which may stop with an error.
#[inline]
fn search<'a>(
    bag: &'a dyn AttributeBag,
    budget: &mut Budget,
    mut each: impl FnMut(&'a str, Value<'a>, &mut Budget) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let mut result = Ok(());
    let _ = bag.visit(&mut |name, value| {
        result = budget.step().and_then(|()| each(name, value, budget));
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result
}

/// Whether a value counts as there: a list or a dictionary with nothing in it does not (semantics, section 9,
/// row 15; section 10, row 13). Looks at most so many levels deep, and deeper ones count as something.
pub(super) fn is_present(value: Value<'_>, levels: u8, budget: &mut Budget) -> Result<bool, EvalError> {
    match (value, levels) {
        (Value::Missing, _) => Ok(false),
        (Value::List(list), 1..) => {
            for index in 0..list.count() {
                budget.bytes(8)?;
                if !matches!(list.at(index), Value::Missing) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Value::Dictionary(entries), 1..) => {
            let mut result = Ok(false);
            let _ = entries.visit(&mut |_, value| {
                result = budget.bytes(8).and_then(|()| is_present(value, levels - 1, budget));
                if let Ok(false) = result { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            result
        }
        _ => Ok(true),
    }
}

// === items ===

impl Reading {
    /// An attribute's value as the operator takes it; `None` for a value of the wrong type.
    #[inline]
    fn item<'a>(self, value: Value<'a>) -> Option<Item<'a>> {
        Some(match (self.family, value) {
            (Family::Text | Family::Member, Value::Text(text)) => Item::Text(text.as_bytes()),
            (Family::Number | Family::Member, Value::Number(number)) => Item::Integer(number),
            (Family::Number, Value::Text(text)) => Item::Integer(scalar::integer_value(text)?),
            (Family::Boolean | Family::Member, Value::Boolean(boolean)) => Item::Boolean(boolean),
            (Family::Boolean, Value::Text(text)) => Item::Boolean(scalar::boolean(text)?),
            (Family::DateTime, Value::Text(text)) => Item::Integer(scalar::date_time(text)?),
            (Family::Guid, Value::Text(text)) => Item::Wide(scalar::guid(text)?),
            (Family::TimeOfDay, Value::Text(text)) => Item::Integer(scalar::time_of_day(text)?),
            (Family::Address, Value::Text(text)) if self.block => Item::Block(Block::parse(text)?),
            (Family::Address, Value::Text(text)) => Item::Wide(scalar::address(text)?),
            _ => return None,
        })
    }
}

/// A constant that stands alone.
#[inline]
fn constant(class: u8, place: Place, pool: &[u8]) -> Result<Item<'_>, Damaged> {
    Ok(match class {
        class::TEXT => Item::Text(place.bytes(pool)?),
        class::INTEGER => Item::Integer(place.record::<Integer>(pool)?.get()),
        class::BOOLEAN => Item::Boolean(place.record::<Integer>(pool)?.get() != 0),
        class::GUID => Item::Wide(place.record::<WideInteger>(pool)?.get()),
        class::BLOCK => {
            let bounds: &Bounds = place.record(pool)?;
            Item::Block(Block { low: bounds.low.get(), high: bounds.high.get() })
        }
        _ => return Err(Damaged),
    })
}

/// What is done with one value of a side; `false` ends the walk.
type Visit<'v, 'a> = &'v mut dyn FnMut(Option<Item<'a>>, &mut Budget) -> Result<bool, EvalError>;

/// Walks the values of a side.
fn each<'a>(
    side: Side<'a>,
    reading: Reading,
    pool: &'a [u8],
    budget: &mut Budget,
    visit: Visit<'_, 'a>,
) -> Result<(), EvalError> {
    match side {
        Side::Missing => {}
        Side::One(item) => {
            budget.step()?;
            visit(item, budget)?;
        }
        Side::List(list) => {
            for index in 0..list.count() {
                budget.step()?;
                if !visit(reading.item(list.at(index)), budget)? {
                    break;
                }
            }
        }
        Side::Keys(dictionary) => {
            search_until(dictionary, budget, &mut |key, value, budget| {
                if !is_present(value, 1, budget)? {
                    return Ok(true);
                }
                visit(reading.item(Value::Text(key)), budget)
            })?;
        }
        Side::Constants(class, place) => {
            let size = match class {
                class::TEXT | class::INTEGER | class::BOOLEAN => 8,
                class::GUID => 16,
                class::BLOCK => 32,
                _ => return Err(EvalError::Damaged),
            };
            let mut at = place;
            for _ in 0..place.length.get() {
                budget.step()?;
                let item = if class == class::TEXT {
                    Item::Text(at.record::<Place>(pool)?.bytes(pool)?)
                } else {
                    constant(class, at, pool)?
                };
                if !visit(Some(item), budget)? {
                    break;
                }
                at.start.set(at.start.get().checked_add(size).ok_or(EvalError::Damaged)?);
            }
        }
    }
    Ok(())
}

/// As [`search`], until told to stop.
fn search_until<'a>(
    bag: &'a dyn AttributeBag,
    budget: &mut Budget,
    each: &mut dyn FnMut(&'a str, Value<'a>, &mut Budget) -> Result<bool, EvalError>,
) -> Result<(), EvalError> {
    let mut result = Ok(true);
    let _ = bag.visit(&mut |name, value| {
        result = budget.step().and_then(|()| each(name, value, budget));
        if let Ok(true) = result { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result.map(drop)
}

/// Whether a value is in a sorted set of constants, which are never of the wrong type.
fn is_in(
    item: Option<Item<'_>>,
    set: Side<'_>,
    ignore_case: bool,
    pool: &[u8],
    budget: &mut Budget,
) -> Result<Truth, EvalError> {
    let Side::Constants(class, place) = set else {
        return Err(EvalError::Damaged);
    };
    budget.step()?;
    Ok(Truth::of(match (item, class) {
        (Some(Item::Text(text)), class::TEXT) => {
            let mut set: &[Place] = place.records(pool)?;
            loop {
                let Some(middle) = set.get(set.len() / 2) else {
                    break false;
                };
                let candidate = middle.bytes(pool)?;
                budget.folds(candidate.len().min(text.len()).saturating_add(1))?;
                let (before, behind) = set.split_at_checked(set.len() / 2).ok_or(EvalError::Damaged)?;
                set = match text::order(candidate, text, ignore_case) {
                    std::cmp::Ordering::Equal => break true,
                    std::cmp::Ordering::Greater => before,
                    std::cmp::Ordering::Less => behind.get(1..).unwrap_or_default(),
                };
            }
        }
        (Some(Item::Integer(integer)), class::INTEGER) => {
            let set: &[Integer] = place.records(pool)?;
            set.binary_search_by(|candidate| candidate.get().cmp(&integer)).is_ok()
        }
        (Some(Item::Wide(wide)), class::GUID) => {
            let set: &[WideInteger] = place.records(pool)?;
            set.binary_search_by(|candidate| candidate.get().cmp(&wide)).is_ok()
        }
        _ => return Ok(Truth::Undefined),
    }))
}

/// One value with one value; undefined when one of them is of the wrong type.
#[inline]
fn pair(
    test: Test,
    ignore_case: bool,
    left: Option<Item<'_>>,
    right: Option<Item<'_>>,
    budget: &mut Budget,
) -> Result<Truth, EvalError> {
    let (Some(left), Some(right)) = (left, right) else {
        return Ok(Truth::Undefined);
    };
    Ok(Truth::of(match (left, right, test) {
        (Item::Text(left), Item::Text(right), test) => match test {
            Test::Equal => text::equal(left, right, ignore_case, budget)?,
            Test::StartsWith => text::starts_with(left, right, ignore_case, budget)?,
            Test::Like => text::like(left, right, ignore_case, budget)?,
            Test::EndsWith => text::ends_with(left, right, budget)?,
            Test::Contains => text::contains(left, right, budget)?,
            _ => return Err(EvalError::Damaged),
        },
        (Item::Integer(left), Item::Integer(right), test) => match test {
            Test::Equal => left == right,
            Test::Greater => left > right,
            Test::GreaterOrEqual => left >= right,
            Test::Less => left < right,
            Test::LessOrEqual => left <= right,
            _ => return Err(EvalError::Damaged),
        },
        (Item::Boolean(left), Item::Boolean(right), Test::Equal) => left == right,
        (Item::Wide(left), Item::Wide(right), Test::Equal) => left == right,
        (Item::Wide(address), Item::Block(block), Test::Inside) => block.contains(address),
        _ => return Ok(Truth::Undefined),
    }))
}

/// Both bounds included.
fn between(value: Option<Item<'_>>, bounds: Option<(Item<'_>, Item<'_>)>) -> Truth {
    match (value, bounds) {
        (Some(Item::Integer(value)), Some((Item::Integer(low), Item::Integer(high)))) => {
            Truth::of(low <= value && value <= high)
        }
        (Some(Item::Wide(address)), Some((Item::Block(block), _))) => Truth::of(block.contains(address)),
        _ => Truth::Undefined,
    }
}

const fn family(byte: u8) -> Result<Family, Damaged> {
    Ok(match byte {
        0 => Family::Text,
        1 => Family::Number,
        2 => Family::DateTime,
        3 => Family::Boolean,
        4 => Family::Guid,
        5 => Family::TimeOfDay,
        6 => Family::Address,
        7 => Family::Member,
        _ => return Err(Damaged),
    })
}

const fn test(byte: u8) -> Result<Test, Damaged> {
    Ok(match byte {
        0 => Test::Equal,
        1 => Test::StartsWith,
        2 => Test::Like,
        3 => Test::EndsWith,
        4 => Test::Contains,
        5 => Test::Greater,
        6 => Test::GreaterOrEqual,
        7 => Test::Less,
        8 => Test::LessOrEqual,
        9 => Test::Inside,
        10 => Test::Between,
        _ => return Err(Damaged),
    })
}
