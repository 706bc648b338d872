//! What explanations and lists have in common, for people and for programs.

use serde_json::{Map, Value, json};

use crate::proto::v1;
use crate::proto::v1::attribute_value::Value as Kind;

use super::timestamp;
use super::tree::plain;

/// A JSON object without the members that say nothing: `null` and the empty text. Lists stay.
pub(super) fn object(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            Value::Object(members.into_iter().filter(|(_, value)| !value.is_null() && value != "").collect())
        }
        other => other,
    }
}

/// The name of a value of an enumeration without its prefix; a newer sidecar may know more.
pub(super) fn word<'a>(name: &'a str, prefix: &str) -> &'a str {
    match name.strip_prefix(prefix) {
        None | Some("UNSPECIFIED") => "UNKNOWN",
        Some(word) => word,
    }
}

pub(super) fn objects<T>(list: &[T], object: impl Fn(&T) -> Value) -> Vec<Value> {
    list.iter().map(object).collect()
}

pub(super) fn assignment_json(wire: Option<&v1::AssignmentInfo>) -> Value {
    let Some(wire) = wire else { return Value::Null };
    object(json!({
        "id": wire.id,
        "roleDefinitionId": wire.role_definition_id,
        "roleName": wire.role_name,
        "scope": wire.scope,
        "principalId": wire.principal_id,
        "start": timestamp(wire.start.as_ref()),
        "end": timestamp(wire.end.as_ref()),
        "eligibilityId": wire.eligibility_id,
    }))
}

/// An assignment as one line: its role, where, whose and when.
pub(super) fn assignment_line(wire: &v1::AssignmentInfo) -> String {
    let mut line = format!(
        "\"{}\" at {}, assigned to {}",
        plain(&wire.role_name),
        plain(&wire.scope),
        plain(&wire.principal_id)
    );
    if let Some(start) = timestamp(wire.start.as_ref()) {
        line.push_str(&format!(", from {start}"));
    }
    if let Some(end) = timestamp(wire.end.as_ref()) {
        line.push_str(&format!(", until {end}"));
    }
    if !wire.eligibility_id.is_empty() {
        line.push_str(", activated");
    }
    line
}

/// What may be activated, as one line.
pub(super) fn activation_line(wire: &v1::RoleActivation) -> String {
    let mut line = format!("\"{}\" at {}", plain(&wire.role_name), plain(&wire.scope));
    if let Some(until) = timestamp(wire.eligible_until.as_ref()) {
        line.push_str(&format!(", eligible until {until}"));
    }
    line
}

/// A name in quotes, or the id of what has none.
pub(super) fn named(name: &str, id: &str) -> String {
    if name.is_empty() { plain(id).into_owned() } else { format!("\"{}\"", plain(name)) }
}

pub(super) fn attribute_json(wire: &v1::AttributeValue) -> Value {
    match &wire.value {
        None => Value::Null,
        Some(Kind::Text(text)) => Value::from(text.as_str()),
        Some(Kind::Number(number)) => Value::from(*number),
        Some(Kind::Boolean(boolean)) => Value::from(*boolean),
        Some(Kind::List(list)) => list.values.iter().map(attribute_json).collect(),
        Some(Kind::Dictionary(dictionary)) => {
            let entries = dictionary.entries.iter().map(|(key, value)| (key.clone(), attribute_json(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

/// `1 role assignment`, `2 role assignments`, for a line that sums up.
pub(super) fn summary(counts: &[(usize, &str, &str)], truncated: bool) -> String {
    let counts: Vec<_> =
        counts.iter().map(|(number, one, many)| crate::cli::report::counted(*number, one, many)).collect();
    let cut = if truncated { "; more is left out, because there is too much" } else { "" };
    format!("{}{cut}\n", counts.join(", "))
}
