//! What is injected: the file that the chart renders. It is read once and checked whole, so that a mistake in it ends the
//! start and not the pods of others.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

/// The profile of pods that name none.
pub(super) const DEFAULT_PROFILE: &str = "default";

/// The configuration of the injector.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InjectorConfig {
    /// The prefix of every label and annotation, for example `postern.dev`.
    pub(super) domain: String,
    /// What is injected, by name.
    pub(super) profiles: BTreeMap<String, Profile>,
    /// What holds for the pods of a namespace that say nothing themselves.
    #[serde(default)]
    pub(super) namespaces: BTreeMap<String, NamespaceDefaults>,
}

/// The sidecar and all that belongs to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Profile {
    /// The sidecar, an item of `initContainers`.
    pub(super) container: Map<String, Value>,
    /// Its volumes.
    pub(super) volumes: Vec<Map<String, Value>>,
    /// Variables of the containers that ask.
    pub(super) application_env: Vec<Map<String, Value>>,
    /// Mounts of the containers that ask.
    pub(super) application_volume_mounts: Vec<Map<String, Value>>,
    #[serde(default)]
    pub(super) pod_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) pod_annotations: BTreeMap<String, String>,
    pub(super) pod_security_context: PodSecurityContext,
    /// What the sidecar needs of the grace period after the application has ended.
    pub(super) drain_seconds: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PodSecurityContext {
    #[serde(default)]
    pub(super) supplemental_groups: Vec<u64>,
    #[serde(default)]
    pub(super) fs_group: Option<u64>,
    #[serde(default)]
    pub(super) fs_group_change_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NamespaceDefaults {
    #[serde(default)]
    pub(super) profile: Option<String>,
    /// The containers that get the socket, where a pod has them.
    #[serde(default)]
    pub(super) containers: Vec<String>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not JSON of this shape.
    #[error("the configuration cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It is, and does not fit together.
    #[error("{}", .0.join("\n"))]
    Problems(Vec<String>),
}

// === impls ===

impl InjectorConfig {
    /// Reads and checks it.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_str(text)?;
        let mut problems = Vec::new();
        if config.domain.is_empty() || config.domain.contains(['/', ' ']) {
            problems.push(format!("`domain` is `{}`; wanted a name such as `postern.dev`", config.domain));
        }
        if !config.profiles.contains_key(DEFAULT_PROFILE) {
            problems.push(format!("`profiles` has no `{DEFAULT_PROFILE}`"));
        }
        for (name, profile) in &config.profiles {
            profile.check(&format!("profiles.{name}"), &mut problems);
        }
        for (namespace, defaults) in &config.namespaces {
            if let Some(profile) = &defaults.profile
                && !config.profiles.contains_key(profile)
            {
                problems.push(format!(
                    "`namespaces.{namespace}.profile` is `{profile}`; wanted one of {}",
                    config.profile_names()
                ));
            }
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Problems(problems)) }
    }

    pub(super) fn profile_names(&self) -> String {
        self.profiles.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }

    /// A label or annotation of ours.
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.domain)
    }
}

impl Profile {
    pub(super) fn container_name(&self) -> &str {
        text(&self.container, "name").unwrap_or_default()
    }

    /// The ports that the sidecar listens on.
    pub(super) fn ports(&self) -> impl Iterator<Item = u64> {
        self.container
            .get("ports")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|port| port.get("containerPort").and_then(Value::as_u64))
    }

    fn check(&self, at: &str, problems: &mut Vec<String>) {
        if self.container_name().is_empty() {
            problems.push(format!("`{at}.container.name` is missing"));
        }
        // Without it the sidecar would be an init container that never ends, and no pod would ever start.
        if text(&self.container, "restartPolicy") != Some("Always") {
            problems.push(format!("`{at}.container.restartPolicy` is not `Always`, as of a native sidecar"));
        }
        for (list, key, items) in [
            ("volumes", "name", &self.volumes),
            ("applicationEnv", "name", &self.application_env),
            ("applicationVolumeMounts", "mountPath", &self.application_volume_mounts),
        ] {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                match text(item, key) {
                    None | Some("") => problems.push(format!("`{at}.{list}[{index}].{key}` is missing")),
                    Some(name) if !seen.insert(name) => {
                        problems.push(format!("`{at}.{list}` has `{name}` twice"));
                    }
                    Some(_) => {}
                }
            }
        }
        for mount in &self.application_volume_mounts {
            let volume = text(mount, "name").unwrap_or_default();
            if !self.volumes.iter().any(|one| text(one, "name") == Some(volume)) {
                problems.push(format!(
                    "`{at}.applicationVolumeMounts` mounts `{volume}`, which is not in `{at}.volumes`"
                ));
            }
        }
    }
}

/// The text at a key of an object.
pub(super) fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn profile() -> Value {
        json!({
            "container": { "name": "postern", "restartPolicy": "Always" },
            "volumes": [{ "name": "socket" }],
            "applicationEnv": [{ "name": "POSTERN_CONNECT", "value": "unix:///s" }],
            "applicationVolumeMounts": [{ "name": "socket", "mountPath": "/run" }],
            "podSecurityContext": { "supplementalGroups": [65532] },
            "drainSeconds": 10,
        })
    }

    #[test]
    fn all_problems_at_once() {
        let mut wrong = profile();
        wrong["container"] = json!({ "restartPolicy": "Never" });
        wrong["volumes"] = json!([{ "name": "a" }, { "name": "a" }, {}]);
        let text = json!({
            "domain": "",
            "profiles": { "other": wrong },
            "namespaces": { "shop": { "profile": "large" } },
        });
        let ConfigError::Problems(problems) = InjectorConfig::from_json(&text.to_string()).unwrap_err()
        else {
            panic!()
        };
        assert_eq!(
            problems,
            [
                "`domain` is ``; wanted a name such as `postern.dev`",
                "`profiles` has no `default`",
                "`profiles.other.container.name` is missing",
                "`profiles.other.container.restartPolicy` is not `Always`, as of a native sidecar",
                "`profiles.other.volumes` has `a` twice",
                "`profiles.other.volumes[2].name` is missing",
                "`profiles.other.applicationVolumeMounts` mounts `socket`, which is not in \
                 `profiles.other.volumes`",
                "`namespaces.shop.profile` is `large`; wanted one of `other`",
            ]
        );
    }

    #[test]
    fn a_misspelt_key_is_no_default() {
        let text = json!({ "domain": "d", "profiles": { "default": profile() }, "namespace": {} });
        let error = InjectorConfig::from_json(&text.to_string()).unwrap_err().to_string();
        assert!(error.contains("unknown field `namespace`"), "{error}");
    }
}
