//! Whether a pod still has what was injected. Between two calls the API server fills in defaults, writes quantities in
//! its own way and leaves empty fields out, and other webhooks add what is theirs. So nothing is compared for equality:
//! what is there has to contain what is wanted.

use serde_json::Value;

/// The keys that tell items of a list apart, each before the next.
const IDENTITIES: [&str; 4] = ["mountPath", "name", "containerPort", "path"];

/// What stands around a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Value,
    /// A quantity such as `1024Mi`.
    Quantity,
    /// An object of quantities.
    Quantities,
}

/// Whether `there` has everything of `wanted`.
pub(super) fn contains(there: &Value, wanted: &Value) -> bool {
    kind_contains(there, wanted, Kind::Value)
}

fn kind_contains(there: &Value, wanted: &Value, kind: Kind) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            let kind = match (kind, key.as_str()) {
                (Kind::Quantities, _) | (_, "sizeLimit") => Kind::Quantity,
                (_, "limits" | "requests") => Kind::Quantities,
                _ => Kind::Value,
            };
            match there.get(key) {
                Some(there) => kind_contains(there, value, kind),
                None => is_empty(value),
            }
        }),
        (Value::Array(_), Value::Array(wanted)) if wanted.is_empty() => true,
        (Value::Array(there), Value::Array(wanted)) => {
            let identity =
                IDENTITIES.into_iter().find(|key| wanted.iter().all(|item| item.get(key).is_some()));
            match identity {
                Some(key) => wanted
                    .iter()
                    .all(|item| there.iter().any(|one| one.get(key) == item.get(key) && contains(one, item))),
                None => {
                    there.len() == wanted.len()
                        && there.iter().zip(wanted).all(|(there, wanted)| contains(there, wanted))
                }
            }
        }
        (Value::String(one), Value::String(other)) if kind == Kind::Quantity => {
            one == other || quantity(one).is_some_and(|one| Some(one) == quantity(other))
        }
        (there, wanted) => there == wanted,
    }
}

/// What the API server leaves out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// A quantity in billionths: `1Gi` is `1024Mi`, and `0.5` is `500m`.
fn quantity(text: &str) -> Option<i128> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: i128 = match text.strip_prefix(number)? {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => 1_000_000_000,
        "k" => 1_000_000_000_000,
        "M" => 10_i128.pow(15),
        "G" => 10_i128.pow(18),
        "T" => 10_i128.pow(21),
        "Ki" => 1_000_000_000 << 10,
        "Mi" => 1_000_000_000 << 20,
        "Gi" => 1_000_000_000 << 30,
        "Ti" => 1_000_000_000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    Some(digits.checked_mul(factor)? / scale)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_what_they_mean() {
        for (one, other) in [
            ("1024Mi", "1Gi"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("2048Ki", "2Mi"),
            ("1500m", "1.5"),
            ("1k", "1000"),
        ] {
            assert_eq!(quantity(one), quantity(other), "{one} {other}");
            assert!(quantity(one).is_some(), "{one}");
        }
        assert_ne!(quantity("1M"), quantity("1Mi"));
        for wrong in ["", "Mi", "1X", "1.2.3", "much", "1.-5"] {
            assert_eq!(quantity(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_added_is_left_out_of_account() {
        let wanted = json!({
            "name": "postern",
            "args": ["serve", "--uds=/s"],
            "env": [{ "name": "A", "value": "" }],
            "resources": { "requests": { "memory": "1024Mi", "cpu": "0.5" } },
            "volumeMounts": [{ "name": "s", "mountPath": "/s" }],
        });
        let there = json!({
            "name": "postern",
            "args": ["serve", "--uds=/s"],
            "env": [{ "name": "MESH", "value": "1" }, { "name": "A" }],
            "resources": { "requests": { "memory": "1Gi", "cpu": "500m" }, "limits": { "cpu": "2" } },
            "volumeMounts": [
                { "name": "token", "mountPath": "/token" },
                { "name": "s", "mountPath": "/s", "recursiveReadOnly": "Disabled" },
            ],
            "terminationMessagePath": "/dev/termination-log",
        });
        assert!(contains(&there, &wanted));
        for (pointer, wrong) in [
            ("/args", json!(["serve", "--uds=/s", "--tcp=0.0.0.0:1"])),
            ("/env", json!([])),
            ("/resources/requests/memory", json!("1025Mi")),
            ("/volumeMounts/1/mountPath", json!("/other")),
            ("/name", json!("other")),
        ] {
            let mut there = there.clone();
            *there.pointer_mut(pointer).unwrap() = wrong;
            assert!(!contains(&there, &wanted), "{pointer}");
        }
        // `1Gi` means a size only where a size is meant.
        assert!(!contains(&json!({ "value": "1Gi" }), &json!({ "value": "1024Mi" })));
    }
}
