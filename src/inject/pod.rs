//! From a pod that asks to the pod as it should be. Pure: the same pod and configuration give the same answer.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::config::{DEFAULT_PROFILE, InjectorConfig, Profile, text};
use super::contains::contains;
use super::patch::{self, Operation};

/// Kubernetes' own, where a pod says nothing.
const DEFAULT_GRACE_SECONDS: u64 = 30;

/// Words of the pod: whether, which profile, and which containers.
const INJECT: &str = "inject";
const PROFILE: &str = "profile";
const CONTAINERS: &str = "containers";
/// Words of the injector: the profile that was injected, and the grace period that the application had.
const INJECTED: &str = "injected";
const APPLICATION_GRACE: &str = "application-grace-seconds";

/// What made the API server ask: a webhook for pods that say so, or one for namespaces whose pods need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// The pod itself.
    Pod,
    /// Its namespace.
    Namespace,
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing, because of this.
    LeftAlone(&'static str),
    /// It has the sidecar; the patch is empty if it had before.
    Injected {
        /// Which one.
        profile: String,
        /// What to change.
        patch: Vec<Operation>,
    },
}

/// The pod on its way.
struct Injection<'a> {
    config: &'a InjectorConfig,
    profile: &'a Profile,
    /// It was injected before, perhaps by another version: what is ours may be replaced.
    marked: bool,
    problems: Vec<String>,
}

/// What the pod says of itself.
struct Wish<'a> {
    profile: &'a str,
    /// Names from its annotation.
    containers: Option<Vec<&'a str>>,
}

/// Decides on a pod, and gives the patch that makes it what it should be; or everything that is wrong with it.
pub fn inject(
    config: &InjectorConfig,
    asked_by: AskedBy,
    namespace: &str,
    pod: &Value,
) -> Result<Outcome, Vec<String>> {
    let mut problems = Vec::new();
    let wish = match wish(config, asked_by, namespace, pod, &mut problems) {
        Ok(wish) => wish,
        Err(why) if problems.is_empty() => return Ok(Outcome::LeftAlone(why)),
        Err(_) => return Err(problems),
    };
    let Some(profile) = config.profiles.get(wish.profile) else {
        problems.push(format!(
            "the profile `{}` is unknown; wanted one of {}",
            wish.profile,
            config.profile_names()
        ));
        return Err(problems);
    };
    let marked = word(pod, "annotations", &config.key(INJECTED)).is_some();
    let mut injection = Injection { config, profile, marked, problems };
    let mut wanted = pod.clone();
    let done = injection.apply(&mut wanted, namespace, &wish);
    if done.is_none() {
        injection.problems.push("the pod has no `metadata` and `spec` with `containers`".to_owned());
    }
    if !injection.problems.is_empty() {
        return Err(injection.problems);
    }
    Ok(Outcome::Injected { profile: wish.profile.to_owned(), patch: patch::between(pod, &wanted) })
}

/// `Err` when the pod is to be left alone, with the reason, or when there are problems.
fn wish<'a>(
    config: &'a InjectorConfig,
    asked_by: AskedBy,
    namespace: &str,
    pod: &'a Value,
    problems: &mut Vec<String>,
) -> Result<Wish<'a>, &'static str> {
    let key = config.key(INJECT);
    let mut said = Vec::new();
    for place in ["labels", "annotations"] {
        match word(pod, place, &key) {
            None | Some("") => {}
            Some("true") => said.push(true),
            Some("false") => said.push(false),
            Some(other) => {
                problems.push(format!("`metadata.{place}['{key}']` is `{other}`; wanted `true` or `false`"))
            }
        }
    }
    if said.contains(&true) && said.contains(&false) {
        problems
            .push(format!("the label `{key}` says one thing and the annotation another; remove one of them"));
    }
    if !problems.is_empty() {
        return Err("");
    }
    match (said.first(), asked_by) {
        (Some(false), _) => return Err("the pod refuses it"),
        (None, AskedBy::Pod) => return Err("the pod does not ask for it"),
        (Some(true), _) | (None, AskedBy::Namespace) => {}
    }
    check_words(config, pod, problems);
    let defaults = config.namespaces.get(namespace);
    let containers = word(pod, "annotations", &config.key(CONTAINERS)).map(|names| {
        let names: Vec<&str> = names.split(',').map(str::trim).collect();
        if names.iter().any(|name| name.is_empty()) {
            problems.push(format!(
                "the annotation `{}` is `{}`; wanted names of containers, separated by commas",
                config.key(CONTAINERS),
                names.join(",")
            ));
        }
        names
    });
    let profile = word(pod, "annotations", &config.key(PROFILE))
        .or_else(|| defaults?.profile.as_deref())
        .unwrap_or(DEFAULT_PROFILE);
    Ok(Wish { profile, containers })
}

/// A misspelt annotation would be one that is not heeded.
fn check_words(config: &InjectorConfig, pod: &Value, problems: &mut Vec<String>) {
    let ours: BTreeSet<String> = config
        .profiles
        .values()
        .flat_map(|profile| profile.pod_annotations.keys().chain(profile.pod_labels.keys()).cloned())
        .collect();
    let prefix = config.key("");
    for (place, known) in [
        ("labels", &[INJECT][..]),
        ("annotations", &[INJECT, PROFILE, CONTAINERS, INJECTED, APPLICATION_GRACE]),
    ] {
        let words = pod.get("metadata").and_then(|metadata| metadata.get(place)).and_then(Value::as_object);
        for key in words.into_iter().flat_map(Map::keys) {
            let Some(name) = key.strip_prefix(&prefix) else { continue };
            if !known.contains(&name) && !ours.contains(key) {
                let known: Vec<String> = known
                    .iter()
                    .filter(|name| ![INJECTED, APPLICATION_GRACE].contains(name))
                    .map(|name| format!("`{prefix}{name}`"))
                    .collect();
                problems.push(format!("`metadata.{place}` has `{key}`; wanted one of {}", known.join(", ")));
            }
        }
    }
}

impl Injection<'_> {
    /// `None` when the pod is no pod.
    fn apply(&mut self, pod: &mut Value, namespace: &str, wish: &Wish<'_>) -> Option<()> {
        let spec = pod.get_mut("spec")?.as_object_mut()?;
        self.check_pod(spec);
        let asking = self.asking(spec, namespace, wish)?;
        self.sidecar(spec)?;
        self.volumes(spec)?;
        self.applications(spec, &asking);
        self.security(spec)?;
        self.check_mounts(spec);
        let key = self.config.key(APPLICATION_GRACE);
        let metadata = pod.get("metadata")?;
        let recorded = metadata
            .get("annotations")
            .and_then(|annotations| annotations.get(&key)?.as_str()?.parse().ok())
            .filter(|_| self.marked);
        let application = self.grace(pod.get_mut("spec")?.as_object_mut()?, recorded);
        let metadata = pod.get_mut("metadata")?.as_object_mut()?;
        self.words(metadata, wish.profile, application)
    }

    /// What no sidecar can be put into.
    fn check_pod(&mut self, spec: &Map<String, Value>) {
        if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
            self.problems.push(
                "`spec.hostNetwork` is true: the admin port of the sidecar would be one of the node; wanted a pod \
                 with a network of its own"
                    .to_owned(),
            );
        }
        if let Some(os) = spec.get("os").and_then(|os| os.get("name")?.as_str())
            && os != "linux"
        {
            self.problems.push(format!("`spec.os.name` is `{os}`; wanted `linux`: the sidecar has no other"));
        }
        let ports: Vec<u64> = self.profile.ports().collect();
        for (list, container) in all_containers(spec) {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            if name == self.profile.container_name() && list == "initContainers" {
                continue;
            }
            for port in container.get("ports").and_then(Value::as_array).into_iter().flatten() {
                let number = port.get("containerPort").and_then(Value::as_u64).unwrap_or_default();
                let tcp =
                    port.get("protocol").and_then(Value::as_str).is_none_or(|protocol| protocol == "TCP");
                if tcp && ports.contains(&number) {
                    self.problems.push(format!(
                        "container `{name}` listens on port {number}, on which the sidecar answers probes; wanted \
                         another one, or a profile with another"
                    ));
                }
            }
        }
    }

    /// Names of the containers that get the socket.
    fn asking(
        &mut self,
        spec: &Map<String, Value>,
        namespace: &str,
        wish: &Wish<'_>,
    ) -> Option<BTreeSet<String>> {
        let sidecar = self.profile.container_name();
        let name = |container: &Value| container.get("name").and_then(Value::as_str).map(str::to_owned);
        let main: BTreeSet<String> = spec.get("containers")?.as_array()?.iter().filter_map(name).collect();
        let all: BTreeSet<String> = all_containers(spec)
            .filter_map(|(_, container)| name(container))
            .filter(|name| name != sidecar)
            .collect();
        if let Some(wanted) = &wish.containers {
            for name in wanted.iter().filter(|name| !name.is_empty() && !all.contains(**name)) {
                let there: Vec<String> = all.iter().map(|name| format!("`{name}`")).collect();
                self.problems.push(format!(
                    "the annotation `{}` names `{name}`; the pod's containers are {}",
                    self.config.key(CONTAINERS),
                    there.join(", ")
                ));
            }
            return Some(wanted.iter().map(|name| (*name).to_owned()).collect());
        }
        let defaults = self.config.namespaces.get(namespace).map(|defaults| &defaults.containers);
        let some: BTreeSet<String> =
            defaults.into_iter().flatten().filter(|name| all.contains(*name)).cloned().collect();
        Some(if some.is_empty() { main } else { some })
    }

    fn sidecar(&mut self, spec: &mut Map<String, Value>) -> Option<()> {
        let wanted = Value::Object(self.profile.container.clone());
        let name = self.profile.container_name();
        let is_it = |container: &Value| container.get("name").and_then(Value::as_str) == Some(name);
        if all_containers(spec)
            .any(|(list, container)| is_it(container) && (!self.marked || list == "containers"))
        {
            self.problems.push(format!(
                "there is a container `{name}` which was not injected; rename it, or set `{}` to `false`",
                self.config.key(INJECT)
            ));
            return Some(());
        }
        let containers = list(spec, "initContainers")?;
        match containers.iter_mut().find(|container| is_it(container)) {
            Some(there) if contains(there, &wanted) => {}
            Some(there) => *there = wanted,
            // First: it starts before all others, init containers included, and ends after all others.
            None => containers.insert(0, wanted),
        }
        Some(())
    }

    fn volumes(&mut self, spec: &mut Map<String, Value>) -> Option<()> {
        let volumes = list(spec, "volumes")?;
        for volume in &self.profile.volumes {
            let name = text(volume, "name");
            let wanted = Value::Object(volume.clone());
            match volumes.iter_mut().find(|one| one.get("name").and_then(Value::as_str) == name) {
                None => volumes.push(wanted),
                Some(there) if contains(there, &wanted) => {}
                Some(there) if self.marked => *there = wanted,
                Some(_) => self.problems.push(format!(
                    "there is another volume `{}`, which the sidecar needs; rename it",
                    name.unwrap_or_default()
                )),
            }
        }
        Some(())
    }

    fn applications(&mut self, spec: &mut Map<String, Value>, asking: &BTreeSet<String>) {
        for key in ["initContainers", "containers"] {
            let containers = spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten();
            for container in containers.filter_map(Value::as_object_mut) {
                let Some(name) = text(container, "name").filter(|name| asking.contains(*name)) else {
                    continue;
                };
                let name = name.to_owned();
                if self.application(container, &name).is_none() {
                    self.problems
                        .push(format!("`env` and `volumeMounts` of container `{name}` are no lists"));
                }
            }
        }
    }

    /// The address of the socket, and the socket.
    fn application(&mut self, container: &mut Map<String, Value>, name: &str) -> Option<()> {
        let variables = list(container, "env")?;
        for variable in &self.profile.application_env {
            let (key, wanted) = (text(variable, "name"), Value::Object(variable.clone()));
            match variables.iter_mut().find(|one| one.get("name").and_then(Value::as_str) == key) {
                None => variables.push(wanted),
                Some(there) if contains(there, &wanted) => {}
                Some(there) if self.marked => *there = wanted,
                Some(there) => self.problems.push(format!(
                    "container `{name}` sets `{}` to `{}`; wanted nothing, for the injector sets it, or `{}`",
                    key.unwrap_or_default(),
                    there.get("value").and_then(Value::as_str).unwrap_or("something else"),
                    text(variable, "value").unwrap_or_default()
                )),
            }
        }
        let mounts = list(container, "volumeMounts")?;
        for mount in &self.profile.application_volume_mounts {
            let (path, wanted) = (text(mount, "mountPath"), Value::Object(mount.clone()));
            match mounts.iter_mut().find(|one| one.get("mountPath").and_then(Value::as_str) == path) {
                None => mounts.push(wanted),
                Some(there) if contains(there, &wanted) => {}
                Some(there) if self.marked => *there = wanted,
                Some(there) => self.problems.push(format!(
                    "container `{name}` mounts `{}` at {}, where the socket belongs; mount it elsewhere",
                    there.get("name").and_then(Value::as_str).unwrap_or_default(),
                    path.unwrap_or_default()
                )),
            }
        }
        Some(())
    }

    /// The group of the socket. An `fsGroup` of the pod's own stays: files in a volume then have that group, and all
    /// containers are in it.
    fn security(&mut self, spec: &mut Map<String, Value>) -> Option<()> {
        let wanted = &self.profile.pod_security_context;
        let context = object(spec, "securityContext")?;
        if !wanted.supplemental_groups.is_empty() {
            let groups = list(context, "supplementalGroups")?;
            for group in &wanted.supplemental_groups {
                let group = Value::from(*group);
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
        }
        if let Some(group) = wanted.fs_group
            && context.get("fsGroup").is_none_or(Value::is_null)
        {
            context.insert("fsGroup".to_owned(), group.into());
            if let Some(policy) = &wanted.fs_group_change_policy {
                context.insert("fsGroupChangePolicy".to_owned(), policy.as_str().into());
            }
        }
        Some(())
    }

    /// A profile may mount a volume that the pod brings along, such as credentials.
    fn check_mounts(&mut self, spec: &Map<String, Value>) {
        let volumes: BTreeSet<&str> = spec
            .get("volumes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|volume| volume.get("name")?.as_str())
            .collect();
        let mounts =
            self.profile.container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten();
        for name in mounts.filter_map(|mount| mount.get("name")?.as_str()) {
            if !volumes.contains(name) {
                self.problems
                    .push(format!("the sidecar mounts the volume `{name}`, which the pod does not have"));
            }
        }
    }

    /// The sidecar is told to stop when the application has ended, so its time comes on top. Gives the application's.
    fn grace(&self, spec: &mut Map<String, Value>, recorded: Option<u64>) -> u64 {
        const KEY: &str = "terminationGracePeriodSeconds";
        let now = spec.get(KEY).and_then(Value::as_u64).unwrap_or(DEFAULT_GRACE_SECONDS);
        let application = recorded.unwrap_or(now);
        let wanted = application.saturating_add(self.profile.drain_seconds);
        if now < wanted {
            spec.insert(KEY.to_owned(), wanted.into());
        }
        application
    }

    fn words(&mut self, metadata: &mut Map<String, Value>, profile: &str, application: u64) -> Option<()> {
        let marks = [
            (self.config.key(INJECTED), profile.to_owned()),
            (self.config.key(APPLICATION_GRACE), application.to_string()),
        ];
        let annotations = object(metadata, "annotations")?;
        for (key, value) in marks {
            annotations.insert(key, value.into());
        }
        for (key, value) in &self.profile.pod_annotations {
            match annotations.get(key).and_then(Value::as_str) {
                Some(there) if there != value && !self.marked => {
                    self.problems.push(format!("the annotation `{key}` is the injector's to set; remove it"));
                }
                _ => {
                    annotations.insert(key.clone(), value.as_str().into());
                }
            }
        }
        let labels = object(metadata, "labels")?;
        for (key, value) in &self.profile.pod_labels {
            match labels.get(key).and_then(Value::as_str) {
                Some(there) if there != value && !self.marked => {
                    self.problems.push(format!("the label `{key}` is the injector's to set; remove it"));
                }
                _ => {
                    labels.insert(key.clone(), value.as_str().into());
                }
            }
        }
        Some(())
    }
}

/// What a label or an annotation says.
fn word<'a>(pod: &'a Value, place: &str, key: &str) -> Option<&'a str> {
    pod.get("metadata")?.get(place)?.get(key)?.as_str()
}

fn all_containers(spec: &Map<String, Value>) -> impl Iterator<Item = (&'static str, &Value)> {
    ["initContainers", "containers"].into_iter().flat_map(|key| {
        spec.get(key).and_then(Value::as_array).into_iter().flatten().map(move |container| (key, container))
    })
}

/// The list at a key, made if there is none; `None` when something else is there.
fn list<'a>(object: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Vec<Value>> {
    let value = object.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut()
}

/// The same of an object.
fn object<'a>(object: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    let value = object.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut()
}
