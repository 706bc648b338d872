//! JSON Patch (RFC 6902): from one document to another, in as few operations as pods need.

use serde::Serialize;
use serde_json::Value;

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// Puts a value where there is none, or before the item of a list.
    Add {
        /// Where, as a JSON Pointer.
        path: String,
        /// What.
        value: Value,
    },
    /// Puts a value in the place of another.
    Replace {
        /// Where.
        path: String,
        /// What.
        value: Value,
    },
    /// Takes a value away.
    Remove {
        /// Where.
        path: String,
    },
}

/// The steps from one document to the other; none when they are equal.
pub(super) fn between(old: &Value, new: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    walk("", old, new, &mut operations);
    operations
}

fn walk(path: &str, old: &Value, new: &Value, operations: &mut Vec<Operation>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                operations.push(Operation::Remove { path: below(path, key) });
            }
            for (key, value) in new {
                match old.get(key) {
                    Some(old) => walk(&below(path, key), old, value, operations),
                    None => operations.push(Operation::Add { path: below(path, key), value: value.clone() }),
                }
            }
        }
        (Value::Array(olds), Value::Array(news)) if news.len() >= olds.len() => {
            let more = news.len() - olds.len();
            let (front, behind) = news.split_at(more);
            let (same, back) = news.split_at(olds.len());
            if all_same(olds, same) {
                for (index, (old, new)) in olds.iter().zip(same).enumerate() {
                    walk(&below(path, &index.to_string()), old, new, operations);
                }
                for value in back {
                    operations.push(Operation::Add { path: below(path, "-"), value: value.clone() });
                }
            } else if all_same(olds, behind) {
                for (index, value) in front.iter().enumerate() {
                    operations
                        .push(Operation::Add { path: below(path, &index.to_string()), value: value.clone() });
                }
                for (index, (old, new)) in olds.iter().zip(behind).enumerate() {
                    walk(&below(path, &(index + more).to_string()), old, new, operations);
                }
            } else {
                operations.push(Operation::Replace { path: path.to_owned(), value: new.clone() });
            }
        }
        (_, new) => operations.push(Operation::Replace { path: path.to_owned(), value: new.clone() }),
    }
}

/// Whether each item is still the one that it was, though perhaps changed.
fn all_same(olds: &[Value], news: &[Value]) -> bool {
    olds.iter()
        .zip(news)
        .all(|(old, new)| old == new || old.get("name").is_some_and(|name| Some(name) == new.get("name")))
}

/// The pointer to a key; `~` and `/` in it are written otherwise.
fn below(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn applied_it_gives_the_other() {
        let named = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
        for (old, new, steps) in [
            (json!({}), json!({}), 0),
            (json!({ "a": 1 }), json!({ "a": 2 }), 1),
            (json!({ "a": 1 }), json!({ "b/c~d": [1] }), 2),
            (json!({ "l": named(&["a", "b"]) }), json!({ "l": named(&["x", "a", "b"]) }), 1),
            (json!({ "l": named(&["a"]) }), json!({ "l": named(&["a", "y", "z"]) }), 2),
            (json!({ "l": [] }), json!({ "l": [1, 2] }), 2),
            (
                json!({ "l": [{ "name": "a", "env": [] }] }),
                json!({ "l": [{ "name": "x" }, { "name": "a", "env": [1] }] }),
                2,
            ),
            (json!({ "l": [1, 2, 3] }), json!({ "l": [3] }), 1),
            (json!({ "l": [1, 2] }), json!({ "l": [2, 3, 4] }), 1),
            (json!({ "a": null }), json!({ "a": { "b": 1 } }), 1),
        ] {
            let operations = between(&old, &new);
            assert_eq!(operations.len(), steps, "{operations:?}");
            let patch: json_patch::Patch =
                serde_json::from_value(serde_json::to_value(&operations).unwrap()).unwrap();
            let mut patched = old.clone();
            json_patch::patch(&mut patched, &patch).unwrap();
            assert_eq!(patched, new, "{old} {operations:?}");
        }
    }
}
