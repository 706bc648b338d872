//! Attribute values and where they come from (semantics, sections 3.2 and 3.6).
//!
//! Conditions borrow values from whatever holds them (a protobuf map, JSON, [`Attributes`]) through two small
//! traits, and copies nothing.

use std::fmt;
use std::ops::ControlFlow;

/// The value of one attribute, borrowed (semantics, section 3.6).
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// JSON's `null`, a protobuf value that is not set: as if it were not there.
    Missing,
    /// Text; dates and GUIDs are text too.
    Text(&'a str),
    /// A whole number.
    Number(i64),
    /// A truth value.
    Boolean(bool),
    /// Several values. Of none, or of nothing but [`Value::Missing`], it is a missing attribute.
    List(&'a dyn ValueList),
    /// Values by key, such as tags. Of none it is a missing attribute.
    Dictionary(&'a dyn AttributeBag),
    /// A value of no kind that any operator takes, such as a number with a fraction: present, but of the wrong
    /// type everywhere.
    Other,
}

/// Names and values: the attributes of one source, or a dictionary among them.
///
/// Names may be given in any letter case and order. For a dictionary's key the attribute may also be given by its
/// whole name, `…/tags:Project` beside or instead of a dictionary `…/tags`; the whole name comes first.
pub trait AttributeBag: fmt::Debug + Sync {
    /// Hands out every name with its value until told to break.
    fn visit<'a>(&'a self, each: &mut dyn FnMut(&'a str, Value<'a>) -> ControlFlow<()>) -> ControlFlow<()>;
}

/// The values of a list.
pub trait ValueList: fmt::Debug + Sync {
    /// How many.
    fn count(&self) -> usize;

    /// One of them; [`Value::Missing`] behind the end.
    fn at(&self, index: usize) -> Value<'_>;
}

/// No attributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAttributes;

/// Attributes of one source, owned; sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(String, OwnedValue)>);

/// The value of one attribute, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedValue {
    /// As [`Value::Missing`].
    Missing,
    /// As [`Value::Text`].
    Text(String),
    /// As [`Value::Number`].
    Number(i64),
    /// As [`Value::Boolean`].
    Boolean(bool),
    /// As [`Value::List`].
    List(Vec<Self>),
    /// As [`Value::Dictionary`].
    Dictionary(Attributes),
    /// As [`Value::Other`].
    Other,
}

impl AttributeBag for NoAttributes {
    fn visit<'a>(&'a self, _each: &mut dyn FnMut(&'a str, Value<'a>) -> ControlFlow<()>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

// === impl Attributes ===

impl Attributes {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The members of a JSON object; anything else has none.
    pub fn from_json(json: &serde_json::Value) -> Self {
        let members = json.as_object().into_iter().flatten();
        members.map(|(name, value)| (name.clone(), OwnedValue::from_json(value))).collect()
    }

    /// Everything that a bag hands out.
    pub fn from_bag(bag: &dyn AttributeBag) -> Self {
        let mut attributes = Self::new();
        let _ = bag.visit(&mut |name, value| {
            attributes.insert(name, OwnedValue::from(value));
            ControlFlow::Continue(())
        });
        attributes
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// By its name in this very letter case.
    pub fn get(&self, name: &str) -> Option<&OwnedValue> {
        let at = self.0.binary_search_by(|(other, _)| other.as_str().cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Gives an attribute, in place of one of the same name in the same letter case.
    pub fn insert(&mut self, name: impl Into<String>, value: OwnedValue) {
        let name = name.into();
        match self.0.binary_search_by(|(other, _)| other.cmp(&name)) {
            Ok(at) => {
                if let Some(member) = self.0.get_mut(at) {
                    member.1 = value;
                }
            }
            Err(at) => self.0.insert(at, (name, value)),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &OwnedValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl FromIterator<(String, OwnedValue)> for Attributes {
    fn from_iter<T: IntoIterator<Item = (String, OwnedValue)>>(members: T) -> Self {
        let mut attributes = Self::new();
        for (name, value) in members {
            attributes.insert(name, value);
        }
        attributes
    }
}

impl AttributeBag for Attributes {
    fn visit<'a>(&'a self, each: &mut dyn FnMut(&'a str, Value<'a>) -> ControlFlow<()>) -> ControlFlow<()> {
        self.0.iter().try_for_each(|(name, value)| each(name, value.borrow()))
    }
}

// === impl OwnedValue ===

impl OwnedValue {
    /// A number that is no 64-bit integer becomes [`OwnedValue::Other`]: `5.0` is no integer (semantics,
    /// section 10, row 13).
    pub fn from_json(json: &serde_json::Value) -> Self {
        Self::from(Value::from(json))
    }

    /// The same value, borrowed.
    pub fn borrow(&self) -> Value<'_> {
        match self {
            Self::Missing => Value::Missing,
            Self::Text(text) => Value::Text(text),
            Self::Number(number) => Value::Number(*number),
            Self::Boolean(boolean) => Value::Boolean(*boolean),
            Self::List(values) => Value::List(values),
            Self::Dictionary(entries) => Value::Dictionary(entries),
            Self::Other => Value::Other,
        }
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Missing => Self::Missing,
            Value::Text(text) => Self::Text(text.to_owned()),
            Value::Number(number) => Self::Number(number),
            Value::Boolean(boolean) => Self::Boolean(boolean),
            Value::List(list) => {
                Self::List((0..list.count()).map(|index| Self::from(list.at(index))).collect())
            }
            Value::Dictionary(bag) => Self::Dictionary(Attributes::from_bag(bag)),
            Value::Other => Self::Other,
        }
    }
}

/// As a person would write it in JSON; a value of no usable kind is `(unusable)`.
impl fmt::Display for OwnedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("null"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Boolean(boolean) => write!(f, "{boolean}"),
            Self::List(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Dictionary(entries) => {
                f.write_str("{")?;
                for (index, (name, value)) in entries.iter().enumerate() {
                    write!(f, "{}{name:?}: {value}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Self::Other => f.write_str("(unusable)"),
        }
    }
}

impl ValueList for Vec<OwnedValue> {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> Value<'_> {
        self.get(index).map_or(Value::Missing, OwnedValue::borrow)
    }
}

// === JSON ===

impl<'a> From<&'a serde_json::Value> for Value<'a> {
    fn from(json: &'a serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Missing,
            serde_json::Value::Bool(boolean) => Self::Boolean(*boolean),
            serde_json::Value::Number(number) => number.as_i64().map_or(Self::Other, Self::Number),
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(values) => Self::List(values),
            serde_json::Value::Object(members) => Self::Dictionary(members),
        }
    }
}

impl AttributeBag for serde_json::Map<String, serde_json::Value> {
    fn visit<'a>(&'a self, each: &mut dyn FnMut(&'a str, Value<'a>) -> ControlFlow<()>) -> ControlFlow<()> {
        self.iter().try_for_each(|(name, value)| each(name, value.into()))
    }
}

impl ValueList for Vec<serde_json::Value> {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> Value<'_> {
        self.get(index).map_or(Value::Missing, Value::from)
    }
}
