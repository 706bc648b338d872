//! Attributes from the command line: `NAME=VALUE` flags, and a JSON file with the four sources.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value as Json;

use crate::proto::v1;
use crate::proto::v1::attribute_value::Value;

/// Attributes by name.
pub(super) type Attributes = HashMap<String, v1::AttributeValue>;

/// What conditions read.
#[derive(Args, Debug)]
#[command(next_help_heading = "Attributes, read by conditions")]
pub(super) struct AttributeArgs {
    /// What the operation asks for (@Request); VALUE is JSON, or else text; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    request_attribute: Vec<String>,
    /// The stored object (@Resource)
    #[arg(long, value_name = "NAME=VALUE")]
    resource_attribute: Vec<String>,
    /// The principal's custom security attributes (@Principal)
    #[arg(long, value_name = "NAME=VALUE")]
    principal_attribute: Vec<String>,
    /// Circumstances (@Environment); the time is the check's own
    #[arg(long, value_name = "NAME=VALUE")]
    environment_attribute: Vec<String>,
    /// JSON object with any of `request`, `resource`, `principal` and `environment`, each an object of names and
    /// values; the flags win
    #[arg(long, value_name = "FILE")]
    attributes: Option<PathBuf>,
}

/// The four sources.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) request: Attributes,
    pub(super) resource: Attributes,
    pub(super) principal: Attributes,
    pub(super) environment: Attributes,
}

impl AttributeArgs {
    /// Reads flags and file, or says everything that is wrong with them.
    pub(super) fn read(&self, mistakes: &mut Vec<String>) -> Sources {
        let mut sources =
            self.attributes.as_deref().map(|file| from_file(file, mistakes)).unwrap_or_default();
        sources.request.extend(from_flags("--request-attribute", &self.request_attribute, mistakes));
        sources.resource.extend(from_flags("--resource-attribute", &self.resource_attribute, mistakes));
        sources.principal.extend(from_flags("--principal-attribute", &self.principal_attribute, mistakes));
        sources.environment.extend(from_flags(
            "--environment-attribute",
            &self.environment_attribute,
            mistakes,
        ));
        sources
    }
}

/// Reads the values of one flag.
pub(super) fn from_flags(flag: &str, values: &[String], mistakes: &mut Vec<String>) -> Attributes {
    let mut attributes = Attributes::new();
    for value in values {
        let Some((name, text)) = value.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            mistakes.push(format!("`{flag}` is `{value}`; wanted NAME=VALUE"));
            continue;
        };
        match from_text(text) {
            Ok(value) => {
                if attributes.insert(name.to_owned(), value).is_some() {
                    mistakes.push(format!("`{flag}` gives `{name}` twice"));
                }
            }
            Err(wrong) => mistakes.push(format!("`{flag}` `{name}` {wrong}")),
        }
    }
    attributes
}

/// JSON, or text as it stands.
fn from_text(text: &str) -> Result<v1::AttributeValue, String> {
    match serde_json::from_str(text) {
        Ok(json) => from_json(&json),
        Err(error) if text.trim_start().starts_with(['{', '[', '"']) => {
            Err(format!("begins like JSON and is none: {error}"))
        }
        Err(_) => Ok(v1::AttributeValue { value: Some(Value::Text(text.to_owned())) }),
    }
}

fn from_json(json: &Json) -> Result<v1::AttributeValue, String> {
    let value = match json {
        Json::Null => None,
        Json::Bool(boolean) => Some(Value::Boolean(*boolean)),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Some(Value::Number(number)),
            None => {
                return Err(format!(
                    "is `{number}`, no 64-bit whole number; for text write it in JSON quotes"
                ));
            }
        },
        Json::String(text) => Some(Value::Text(text.clone())),
        Json::Array(values) => {
            let values = values.iter().map(from_json).collect::<Result<_, _>>()?;
            Some(Value::List(v1::AttributeList { values }))
        }
        Json::Object(members) => {
            let entries = members
                .iter()
                .map(|(key, value)| Ok((key.clone(), from_json(value)?)))
                .collect::<Result<_, String>>()?;
            Some(Value::Dictionary(v1::AttributeDictionary { entries }))
        }
    };
    Ok(v1::AttributeValue { value })
}

fn from_file(path: &Path, mistakes: &mut Vec<String>) -> Sources {
    let read = std::fs::read(path).map_err(|error| error.to_string());
    let json = read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
    let members = match json {
        Ok(Json::Object(members)) => members,
        Ok(_) => {
            mistakes.push(format!("`--attributes` `{}` holds no JSON object", path.display()));
            return Sources::default();
        }
        Err(error) => {
            mistakes.push(format!("`--attributes` cannot read `{}`: {error}", path.display()));
            return Sources::default();
        }
    };
    let mut sources = Sources::default();
    for (source, attributes) in &members {
        let into = match source.as_str() {
            "request" => &mut sources.request,
            "resource" => &mut sources.resource,
            "principal" => &mut sources.principal,
            "environment" => &mut sources.environment,
            _ => {
                mistakes.push(format!(
                    "`--attributes` holds `{source}`; wanted `request`, `resource`, `principal` or `environment`"
                ));
                continue;
            }
        };
        let Json::Object(attributes) = attributes else {
            mistakes.push(format!("`--attributes` `{source}` is no object of names and values"));
            continue;
        };
        for (name, value) in attributes {
            match from_json(value) {
                Ok(value) => {
                    into.insert(name.clone(), value);
                }
                Err(wrong) => mistakes.push(format!("`--attributes` `{source}.{name}` {wrong}")),
            }
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_or_text() {
        let value = |text| from_text(text).unwrap().value;
        assert_eq!(value("alpine"), Some(Value::Text("alpine".into())));
        assert_eq!(value("a=b"), Some(Value::Text("a=b".into())));
        assert_eq!(value(""), Some(Value::Text(String::new())));
        assert_eq!(
            value("00000000-0000-4000-a002-000000000001"),
            Some(Value::Text("00000000-0000-4000-a002-000000000001".into()))
        );
        assert_eq!(value("\"5\""), Some(Value::Text("5".into())));
        assert_eq!(value("5"), Some(Value::Number(5)));
        assert_eq!(value("true"), Some(Value::Boolean(true)));
        assert_eq!(value("null"), None);
        assert!(matches!(value("[\"a\", 1]"), Some(Value::List(list)) if list.values.len() == 2));
        assert!(matches!(value("{\"a\": 1}"), Some(Value::Dictionary(held)) if held.entries.len() == 1));
        for wrong in ["5.5", "99999999999999999999", "[1", "{a}", "\"x"] {
            assert!(from_text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_mistake_is_told() {
        let mut mistakes = Vec::new();
        let given = ["a=1", "=2", "b", "a=2", "c=0.5", "d=x=y"].map(str::to_owned);
        let attributes = from_flags("--x", &given, &mut mistakes);
        assert!(attributes.contains_key("a") && attributes.contains_key("d"));
        assert_eq!(
            mistakes,
            [
                "`--x` is `=2`; wanted NAME=VALUE",
                "`--x` is `b`; wanted NAME=VALUE",
                "`--x` gives `a` twice",
                "`--x` `c` is `0.5`, no 64-bit whole number; for text write it in JSON quotes",
            ]
        );
    }
}
