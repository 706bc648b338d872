//! Operations from a file: names, names with their plane, or the output of `az provider operation list`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::model::Action;
use crate::proto::v1;

/// Mistakes that are told; a file of another kind has one for every entry.
const MOST_MISTAKES: usize = 10;

/// Reads all operations, each once and in order, or says what is wrong with them.
pub(super) fn read(path: &Path) -> Result<Vec<v1::Action>, Vec<String>> {
    let cannot = |error: &dyn std::fmt::Display| {
        vec![format!("`--operations` cannot read `{}`: {error}", path.display())]
    };
    let bytes = std::fs::read(path).map_err(|error| cannot(&error))?;
    let json = serde_json::from_slice(&bytes).map_err(|error| cannot(&error))?;
    from_json(&json)
}

fn from_json(json: &Value) -> Result<Vec<v1::Action>, Vec<String>> {
    let (mut found, mut mistakes) = (BTreeSet::new(), Vec::new());
    let mut open = vec![json];
    while let Some(value) = open.pop() {
        match entry(value) {
            Entry::Holds(inner) => open.extend(inner),
            Entry::Operation(name, data_action) => match Action::parse(name) {
                Ok(_) => {
                    found.insert((name.to_owned(), data_action));
                }
                Err(error) => mistakes.push(format!("`--operations` holds `{name}`, which {error}")),
            },
            Entry::Other => {
                let mut text = value.to_string();
                if let Some((end, _)) = text.char_indices().nth(60) {
                    text.truncate(end);
                    text.push('…');
                }
                mistakes.push(format!(
                    "`--operations` holds `{text}`; wanted a name, an object with `name` and `isDataAction`, or \
                     the output of `az provider operation list`"
                ));
            }
        }
    }
    // The last was found first.
    mistakes.reverse();
    if mistakes.is_empty() && found.is_empty() {
        mistakes.push("`--operations` holds no operations".to_owned());
    }
    let more = mistakes.len().saturating_sub(MOST_MISTAKES);
    if more > 0 {
        mistakes.truncate(MOST_MISTAKES);
        mistakes.push(format!("`--operations` holds {more} more such entries"));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let action = |(name, data_action)| v1::Action { name, data_action, sub_operation: String::new() };
    Ok(found.into_iter().map(action).collect())
}

enum Entry<'a> {
    /// A list, a provider or a resource type: their `name` is none of an operation.
    Holds(Vec<&'a Value>),
    Operation(&'a str, bool),
    Other,
}

fn entry(value: &Value) -> Entry<'_> {
    match value {
        Value::Array(values) => Entry::Holds(values.iter().collect()),
        Value::String(name) => Entry::Operation(name, false),
        Value::Object(members) => {
            let lists: Vec<_> = ["operations", "resourceTypes", "value"]
                .iter()
                .filter_map(|name| members.get(*name))
                .collect();
            if !lists.is_empty() {
                return if lists.iter().all(|list| list.is_array() || list.is_null()) {
                    Entry::Holds(lists.into_iter().filter(|list| !list.is_null()).collect())
                } else {
                    Entry::Other
                };
            }
            match (members.get("name"), members.get("isDataAction")) {
                (Some(Value::String(name)), None | Some(Value::Null)) => Entry::Operation(name, false),
                (Some(Value::String(name)), Some(Value::Bool(data_action))) => {
                    Entry::Operation(name, *data_action)
                }
                _ => Entry::Other,
            }
        }
        _ => Entry::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: &Value) -> Vec<(String, bool)> {
        from_json(json).unwrap().into_iter().map(|action| (action.name, action.data_action)).collect()
    }

    #[test]
    fn the_three_shapes() {
        let expected = [("A.B/c/read".to_owned(), false), ("A.B/d/read".to_owned(), true)];
        assert_eq!(read(&json!(["A.B/c/read", "A.B/c/read"])), expected[..1]);
        let described = json!([{"name": "A.B/d/read", "isDataAction": true}, {"name": "A.B/c/read", "isDataAction": null}]);
        assert_eq!(read(&described), expected);
        let providers = json!([{
            "name": "A.B",
            "displayName": "A",
            "operations": [{"name": "A.B/c/read", "isDataAction": false, "origin": "user"}],
            "resourceTypes": [
                {"name": "d", "operations": [{"name": "A.B/d/read", "isDataAction": true}]},
                {"name": "e", "operations": []},
            ],
        }]);
        assert_eq!(read(&providers), expected);
        assert_eq!(read(&json!({"value": [described]})), expected);
    }

    #[test]
    fn everything_else_is_told() {
        let mistakes = from_json(&json!(["A.B/*", 1, {"name": "A.B/c", "isDataAction": "yes"}])).unwrap_err();
        assert_eq!(mistakes.len(), 3);
        assert!(
            mistakes[0].starts_with("`--operations` holds `A.B/*`, which holds a wildcard"),
            "{mistakes:?}"
        );
        assert!(mistakes[1].starts_with("`--operations` holds `1`; wanted"), "{mistakes:?}");
        assert_eq!(from_json(&json!([])).unwrap_err(), ["`--operations` holds no operations"]);
        assert_eq!(from_json(&json!(vec![1; 30])).unwrap_err().len(), MOST_MISTAKES + 1);
        assert!(from_json(&json!([{"operations": {}}])).is_err());
    }
}
