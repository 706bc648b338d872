//! Syntax tree to program: constants folded, literals converted once, sets sorted, names lower-cased, NOT pushed
//! down (see `program` for the form).

use std::collections::HashMap;

use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes};

use super::ast::{self, Expression, ExpressionKind, Form, Literal, OperandKind};
use super::evaluate::{self, Budget, Context, Truth};
use super::operator::{Family, Operator, Test};
use super::program::{
    self, Bounds, Damaged, Integer, MAX_GROUPS, Operand, Place, Program, Uses, WideInteger, class, flag,
    operand, tag,
};
use super::scalar::{self, Block};
use super::text::{self, Simple};
use crate::model::{NoAttributes, Wildcards};

/// A tree that nests deeper was built by hand; its program is undefined, which never grants.
const MAX_DEPTH: usize = 1_024;

/// Compiles a condition. The same condition gives the same bytes.
///
/// What no parsed condition holds, such as a literal that does not fit its operator, is undefined.
pub fn compile(condition: &ast::Condition, wildcards: Wildcards) -> Program {
    compile_expression(&condition.root, wildcards)
}

pub(super) fn compile_expression(expression: &Expression, wildcards: Wildcards) -> Program {
    let guid_operators = has_guid_operators(expression, 0);
    assemble(&lower(expression, false, wildcards, 0), wildcards, guid_operators)
}

/// Whether one is written anywhere, though it may decide nothing.
fn has_guid_operators(expression: &Expression, depth: usize) -> bool {
    if let ExpressionKind::Comparison(comparison) = &expression.kind {
        return comparison.operator.family() == Family::Guid;
    }
    depth <= MAX_DEPTH && expression.children().iter().any(|part| has_guid_operators(part, depth + 1))
}

fn assemble(node: &Node<'_>, wildcards: Wildcards, guid_operators: bool) -> Program {
    let mut writer = Writer { wildcards, guid_operators, ..Writer::default() };
    let program = writer.node(node, 0).and_then(|()| writer.finish());
    program.unwrap_or_else(|Damaged| undefined())
}

fn undefined() -> Program {
    let mut writer = Writer::default();
    writer.constant(Truth::Undefined);
    writer.finish().unwrap_or(Program(Vec::new()))
}

/// A condition without NOT and, but at the root, without constants.
enum Node<'a> {
    Constant(Truth),
    Group { or: bool, parts: Vec<Self> },
    Leaf { expression: &'a Expression, negated: bool },
}

fn lower(expression: &Expression, negated: bool, wildcards: Wildcards, depth: usize) -> Node<'_> {
    if depth > MAX_DEPTH {
        return Node::Constant(Truth::Undefined);
    }
    match &expression.kind {
        ExpressionKind::Not(part) => lower(part, !negated, wildcards, depth + 1),
        ExpressionKind::Or(parts) => group(!negated, parts, negated, wildcards, depth),
        ExpressionKind::And(parts) => group(negated, parts, negated, wildcards, depth),
        _ => {
            let leaf = Node::Leaf { expression, negated };
            match constant(&leaf, expression, wildcards) {
                Some(truth) => Node::Constant(truth),
                None => leaf,
            }
        }
    }
}

fn group(or: bool, parts: &[Expression], negated: bool, wildcards: Wildcards, depth: usize) -> Node<'_> {
    // What decides a group alone, and what changes nothing in it.
    let (deciding, neutral) = if or { (Truth::True, Truth::False) } else { (Truth::False, Truth::True) };
    let mut undefined = false;
    let mut kept = Vec::new();
    for part in parts {
        match lower(part, negated, wildcards, depth + 1) {
            Node::Constant(truth) if truth == deciding => return Node::Constant(deciding),
            Node::Constant(truth) => undefined |= truth != neutral,
            Node::Group { or: same, parts } if same == or => {
                for part in parts {
                    match part {
                        Node::Constant(_) => undefined = true,
                        other => kept.push(other),
                    }
                }
            }
            other => kept.push(other),
        }
    }
    match (kept.len(), undefined) {
        (0, true) => Node::Constant(Truth::Undefined),
        (0, false) => Node::Constant(neutral),
        (1, false) => kept.pop().unwrap_or(Node::Constant(neutral)),
        (_, undefined) => {
            if undefined {
                kept.push(Node::Constant(Truth::Undefined));
            }
            Node::Group { or, parts: kept }
        }
    }
}

/// The value of a leaf that reads nothing, found by evaluating it.
fn constant(leaf: &Node<'_>, expression: &Expression, wildcards: Wildcards) -> Option<Truth> {
    let ExpressionKind::Comparison(comparison) = &expression.kind else {
        return None;
    };
    let reads = |side: &ast::Operand| matches!(side.kind, OperandKind::Attribute(_));
    if reads(&comparison.left) || reads(&comparison.right) {
        return None;
    }
    let program = assemble(leaf, wildcards, false);
    let nothing = &NoAttributes;
    let context = Context {
        action: "",
        sub_operation: None,
        now: jiff::Timestamp::UNIX_EPOCH,
        request: nothing,
        resource: nothing,
        principal: nothing,
        environment: nothing,
    };
    // Two literals of 8 KB fit this budget; those that do not are compared when the condition is evaluated.
    evaluate::evaluate(program.as_bytes(), &context, &mut Budget::default()).ok()
}

/// A literal in the form that it is compared in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Guid(u128),
    Block(u128, u128),
}

/// Lays nodes and pool.
#[derive(Default)]
struct Writer {
    wildcards: Wildcards,
    nodes: Vec<u8>,
    pool: Vec<u8>,
    /// What lies in the pool already.
    places: HashMap<Vec<u8>, u32>,
    uses: Uses,
    guid_operators: bool,
}

impl Writer {
    fn finish(self) -> Result<Program, Damaged> {
        Program::build(self.uses, self.guid_operators, &self.nodes, &self.pool)
    }

    fn node(&mut self, node: &Node<'_>, depth: usize) -> Result<(), Damaged> {
        match node {
            Node::Constant(truth) => {
                self.constant(*truth);
                Ok(())
            }
            Node::Leaf { expression, negated } => self.leaf(expression, *negated),
            Node::Group { or, parts } => {
                if depth >= MAX_GROUPS {
                    return Err(Damaged);
                }
                let tag = if *or { tag::OR } else { tag::AND };
                let start = self.nodes.len();
                self.put(&program::Group { tag, unused: [0; 3], end: U32::ZERO });
                for part in parts {
                    self.node(part, depth + 1)?;
                }
                let end = U32::new(u32::try_from(self.nodes.len()).map_err(|_| Damaged)?);
                let header = program::Group { tag, unused: [0; 3], end };
                let place = self.nodes.get_mut(start..).and_then(|tail| tail.get_mut(..size_of_val(&header)));
                place.ok_or(Damaged)?.copy_from_slice(header.as_bytes());
                Ok(())
            }
        }
    }

    fn put<T: IntoBytes + Immutable>(&mut self, record: &T) {
        self.nodes.extend_from_slice(record.as_bytes());
    }

    fn constant(&mut self, truth: Truth) {
        self.put(&program::Constant { tag: tag::CONSTANT, truth: truth as u8, unused: [0; 2] });
    }

    fn leaf(&mut self, expression: &Expression, negated: bool) -> Result<(), Damaged> {
        let mut flags = if negated { flag::NEGATED } else { 0 };
        match &expression.kind {
            ExpressionKind::ActionMatches(pattern) => {
                if self.wildcards == Wildcards::Strict {
                    flags |= flag::STRICT;
                }
                if !pattern.contains('*') {
                    flags |= flag::EXACT;
                }
                self.uses = self.uses.with(Uses::ACTION);
                let text = self.intern(pattern.to_ascii_lowercase().as_bytes())?;
                self.put(&program::Name { tag: tag::ACTION, flags, unused: [0; 2], text });
            }
            ExpressionKind::SubOperationMatches(name) => {
                self.uses = self.uses.with(Uses::SUB_OPERATION);
                let text = self.intern(name.to_ascii_lowercase().as_bytes())?;
                self.put(&program::Name { tag: tag::SUB_OPERATION, flags, unused: [0; 2], text });
            }
            ExpressionKind::Exists(attribute) => {
                let operand = self.attribute(attribute)?;
                self.put(&program::Exists { tag: tag::EXISTS, flags, unused: [0; 2], operand });
            }
            ExpressionKind::Comparison(comparison) => return self.comparison(comparison, negated),
            ExpressionKind::Or(_) | ExpressionKind::And(_) | ExpressionKind::Not(_) => return Err(Damaged),
        }
        Ok(())
    }

    fn comparison(&mut self, comparison: &ast::Comparison, negated: bool) -> Result<(), Damaged> {
        let operator = comparison.operator;
        let (Some(mut left), Some(mut right)) =
            (side(&comparison.left, operator, true), side(&comparison.right, operator, false))
        else {
            self.constant(Truth::Undefined);
            return Ok(());
        };
        let mut test = operator.test();
        let mut flags = if operator.is_negated() == negated { 0 } else { flag::NEGATED };
        if operator.ignores_case() {
            flags |= flag::IGNORE_CASE;
        }
        if let Some(quantifier) = comparison.quantifier {
            // "Some pair does not" is "not: every pair does": De Morgan takes the operator's own negation out.
            if quantifier.all_left() != operator.is_negated() {
                flags |= flag::ALL_LEFT;
            }
            if quantifier.all_right() != operator.is_negated() {
                flags |= flag::ALL_RIGHT;
            }
        } else if operator.family() != Family::Member {
            flags |= flag::SCALAR;
        }
        if test == Test::Between && operator.family() == Family::Address && !right.is_attribute() {
            test = Test::Inside;
        }
        if test == Test::Like {
            test = right.simplify();
        }
        // Constants go to the right where the sides may be exchanged.
        let one_way = flags & (flag::ALL_LEFT | flag::ALL_RIGHT);
        let symmetric = test == Test::Equal && (one_way == 0 || one_way == flag::ALL_LEFT | flag::ALL_RIGHT);
        if symmetric && operator.family() != Family::Member && !left.is_attribute() && right.is_attribute() {
            std::mem::swap(&mut left, &mut right);
        }
        left.normalise(false);
        right.normalise(test == Test::Between);
        if flags & flag::SCALAR != 0 && (left.is_several() || right.is_several() && test != Test::Between) {
            self.constant(Truth::Undefined);
            return Ok(());
        }
        if test == Test::Equal && right.is_several() && flags & flag::ALL_RIGHT == 0 {
            flags |= flag::SORTED;
        }
        let left = self.side(&left)?;
        let right = self.side(&right)?;
        self.put(&program::Comparison {
            tag: tag::COMPARISON,
            flags,
            family: operator.family() as u8,
            test: test as u8,
            left,
            right,
        });
        Ok(())
    }

    fn side(&mut self, side: &Side<'_>) -> Result<Operand, Damaged> {
        match side {
            Side::Attribute(attribute) => self.attribute(attribute),
            Side::Constants(values) => {
                let (class, place) = self.constants(values)?;
                let kind = if values.len() == 1 { operand::CONSTANT } else { operand::CONSTANTS };
                Ok(Operand { kind, detail: class, unused: [0; 2], path: U32::ZERO, place })
            }
        }
    }

    fn attribute(&mut self, attribute: &ast::Attribute) -> Result<Operand, Damaged> {
        let mut made =
            Operand { kind: operand::UTC_NOW, detail: 0, unused: [0; 2], path: U32::ZERO, place: EMPTY };
        if attribute.is_utc_now() {
            self.uses = self.uses.with(Uses::UTC_NOW);
            return Ok(made);
        }
        if attribute.is_sub_operation() {
            self.uses = self.uses.with(Uses::SUB_OPERATION);
            made.kind = operand::SUB_OPERATION;
            return Ok(made);
        }
        self.uses = self.uses.with(match attribute.source {
            ast::Source::Request => Uses::REQUEST,
            ast::Source::Resource => Uses::RESOURCE,
            ast::Source::Principal => Uses::PRINCIPAL,
            ast::Source::Environment => Uses::ENVIRONMENT,
        });
        made.detail = attribute.source as u8;
        let (name, path, kind) = attribute_name(attribute);
        made.kind = kind;
        made.path = U32::new(u32::try_from(path).map_err(|_| Damaged)?);
        made.place = self.intern(name.as_bytes())?;
        Ok(made)
    }

    fn constants(&mut self, values: &[Value]) -> Result<(u8, Place), Damaged> {
        let class = match values.first().ok_or(Damaged)? {
            Value::Text(_) => class::TEXT,
            Value::Integer(_) => class::INTEGER,
            Value::Boolean(_) => class::BOOLEAN,
            Value::Guid(_) => class::GUID,
            Value::Block(..) => class::BLOCK,
        };
        if let [Value::Text(text)] = values {
            return Ok((class, self.intern(text.as_bytes())?));
        }
        let mut bytes = Vec::new();
        for value in values {
            match value {
                Value::Text(text) => bytes.extend_from_slice(self.intern(text.as_bytes())?.as_bytes()),
                Value::Integer(integer) => bytes.extend_from_slice(Integer::new(*integer).as_bytes()),
                Value::Boolean(boolean) => {
                    bytes.extend_from_slice(Integer::new(i64::from(*boolean)).as_bytes());
                }
                Value::Guid(guid) => bytes.extend_from_slice(WideInteger::new(*guid).as_bytes()),
                Value::Block(low, high) => {
                    let bounds = Bounds { low: WideInteger::new(*low), high: WideInteger::new(*high) };
                    bytes.extend_from_slice(bounds.as_bytes());
                }
            }
        }
        let mut place = self.intern(&bytes)?;
        place.length = U32::new(u32::try_from(values.len()).map_err(|_| Damaged)?);
        Ok((class, place))
    }

    /// Bytes in the pool, each run once.
    fn intern(&mut self, bytes: &[u8]) -> Result<Place, Damaged> {
        let length = U32::new(u32::try_from(bytes.len()).map_err(|_| Damaged)?);
        if let Some(&start) = self.places.get(bytes) {
            return Ok(Place { start: U32::new(start), length });
        }
        let start = u32::try_from(self.pool.len()).map_err(|_| Damaged)?;
        self.pool.extend_from_slice(bytes);
        self.places.insert(bytes.to_vec(), start);
        Ok(Place { start: U32::new(start), length })
    }
}

/// An attribute's name as it is looked up, the length of its path and the kind of its operand.
pub(super) fn attribute_name(attribute: &ast::Attribute) -> (String, usize, u8) {
    let name = attribute.name.to_ascii_lowercase();
    let path = name.find(':').unwrap_or(0);
    match attribute.form {
        Form::Plain => (name, path, operand::ATTRIBUTE),
        // The whole name is the dictionary's.
        Form::Keys => (name, 0, operand::KEYS),
        Form::ExactKey => {
            let mut exact = attribute.name.clone();
            if let Some(path) = exact.get_mut(..path) {
                path.make_ascii_lowercase();
            }
            (exact, path, operand::EXACT_KEY)
        }
    }
}

const EMPTY: Place = Place { start: U32::ZERO, length: U32::ZERO };

/// One side of a comparison on its way into a program.
enum Side<'a> {
    Attribute(&'a ast::Attribute),
    Constants(Vec<Value>),
}

/// `None` when a literal does not fit.
fn side(operand: &ast::Operand, operator: Operator, left: bool) -> Option<Side<'_>> {
    let literals = match &operand.kind {
        OperandKind::Attribute(attribute) => return Some(Side::Attribute(attribute)),
        OperandKind::Literal(literal) => std::slice::from_ref(literal),
        OperandKind::List(literals) => literals.as_slice(),
    };
    if literals.is_empty() {
        return None;
    }
    if !left && operator.takes_bounds() {
        return bounds(literals, operator);
    }
    let values: Option<Vec<Value>> = literals.iter().map(|literal| value(literal, operator, left)).collect();
    values.map(Side::Constants)
}

/// The right side of an operator that ends in `InRange`.
fn bounds(literals: &[Literal], operator: Operator) -> Option<Side<'static>> {
    if operator.family() == Family::Address {
        let block = match literals {
            [Literal::Text(block)] => Block::parse(block).filter(|_| block.contains('/'))?,
            [Literal::Text(low), Literal::Text(high)] => Block::between(low, high)?,
            _ => return None,
        };
        return Some(Side::Constants(vec![Value::Block(block.low, block.high)]));
    }
    let [low, high] = literals else {
        return None;
    };
    Some(Side::Constants(vec![value(low, operator, false)?, value(high, operator, false)?]))
}

fn value(literal: &Literal, operator: Operator, left: bool) -> Option<Value> {
    Some(match (operator.family(), literal) {
        (Family::Text, Literal::Text(written)) if operator.ignores_case() => Value::Text(text::fold(written)),
        (Family::Text | Family::Member, Literal::Text(written)) => Value::Text(written.clone()),
        (Family::Number | Family::Member, Literal::Integer(integer)) => Value::Integer(*integer),
        (Family::Boolean | Family::Member, Literal::Boolean(boolean)) => Value::Boolean(*boolean),
        (Family::DateTime, Literal::Text(written)) => Value::Integer(scalar::date_time(written)?),
        (Family::TimeOfDay, Literal::Text(written)) => Value::Integer(scalar::time_of_day(written)?),
        (Family::Guid, Literal::Guid(guid)) => Value::Guid(guid.as_u128()),
        (Family::Guid, Literal::Text(written)) => Value::Guid(scalar::guid_literal(written)?),
        (Family::Address, Literal::Text(written)) if left => Value::Guid(scalar::address(written)?),
        (Family::Address, Literal::Text(written)) => {
            let block = Block::parse(written)?;
            Value::Block(block.low, block.high)
        }
        _ => return None,
    })
}

impl Side<'_> {
    const fn is_attribute(&self) -> bool {
        matches!(self, Self::Attribute(_))
    }

    fn is_several(&self) -> bool {
        matches!(self, Self::Constants(values) if values.len() > 1)
    }

    /// Sets have no order and no repetition; bounds do.
    fn normalise(&mut self, bounds: bool) {
        if let Self::Constants(values) = self
            && !bounds
        {
            values.sort();
            values.dedup();
        }
    }

    /// Patterns that are simpler tests become those.
    fn simplify(&mut self) -> Test {
        let Self::Constants(values) = self else {
            return Test::Like;
        };
        let mut plain = Vec::new();
        let count = values.len();
        for value in values.iter() {
            let Value::Text(pattern) = value else {
                return Test::Like;
            };
            match text::simplify(pattern) {
                Some(Simple::Equal(literal)) => plain.push(Value::Text(literal)),
                Some(Simple::StartsWith(literal)) if count == 1 => {
                    *values = vec![Value::Text(literal)];
                    return Test::StartsWith;
                }
                _ => return Test::Like,
            }
        }
        *values = plain;
        Test::Equal
    }
}
