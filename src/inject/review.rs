//! AdmissionReview, version v1: the question of the API server and the answer to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::InjectorConfig;
use super::pod::{AskedBy, Outcome, inject};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: GroupVersionKind,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: String,
    operation: String,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

/// How a review ended, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ending {
    Injected,
    Unchanged,
    LeftAlone,
    Refused,
}

/// Answers one AdmissionReview; `Err` says why it is none.
pub(super) fn answer(
    config: &InjectorConfig,
    asked_by: AskedBy,
    body: &[u8],
) -> Result<(Vec<u8>, Ending), String> {
    let review: Review =
        serde_json::from_slice(body).map_err(|error| format!("no {KIND} can be read: {error}"))?;
    if review.api_version != API_VERSION || review.kind != KIND {
        return Err(format!(
            "`{}` of `{}` is not answered; wanted `{KIND}` of `{API_VERSION}`",
            review.kind, review.api_version
        ));
    }
    let request = review.request.ok_or_else(|| format!("the {KIND} has no `request`"))?;
    let mut response =
        Response { uid: &request.uid, allowed: true, patch_type: None, patch: None, status: None };
    let outcome = judge(config, asked_by, &request);
    let name = name(&request.object);
    let (namespace, dry_run) = (request.namespace.as_str(), request.dry_run);
    let ending = match outcome {
        Ok(Outcome::LeftAlone(why)) => {
            tracing::info!(namespace, pod = name, dry_run, why, "left alone");
            Ending::LeftAlone
        }
        Ok(Outcome::Injected { profile, patch }) => {
            tracing::info!(namespace, pod = name, dry_run, profile, operations = patch.len(), "injected");
            if patch.is_empty() {
                Ending::Unchanged
            } else {
                let patch = serde_json::to_vec(&patch).map_err(|error| error.to_string())?;
                response.patch_type = Some("JSONPatch");
                response.patch = Some(STANDARD.encode(patch));
                Ending::Injected
            }
        }
        Err(problems) => {
            let message = problems.join("; ");
            tracing::warn!(namespace, pod = name, dry_run, message, "refused");
            response.allowed = false;
            response.status =
                Some(Status { code: 422, reason: "Invalid", message: format!("postern: {message}") });
            Ending::Refused
        }
    };
    let answer = Answer { api_version: API_VERSION, kind: KIND, response };
    serde_json::to_vec(&answer).map(|bytes| (bytes, ending)).map_err(|error| error.to_string())
}

/// A review of a small pod that asks, to see whether a webhook answers.
pub fn probe(domain: &str) -> Vec<u8> {
    serde_json::json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "request": {
            "uid": "probe",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "namespace": "probe",
            "operation": "CREATE",
            "dryRun": true,
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": { "name": "probe", "labels": { format!("{domain}/inject"): "true" } },
                "spec": { "containers": [{ "name": "probe", "image": "probe" }] },
            },
        },
    })
    .to_string()
    .into_bytes()
}

/// The operations of the answer to [`probe`]; or why it is not what it should be.
pub fn probed(body: &[u8]) -> Result<usize, String> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|error| format!("the answer is no {KIND}: {error}"))?;
    let response =
        answer.get("response").ok_or_else(|| format!("the answer is no {KIND}: it has no `response`"))?;
    if response.get("allowed").and_then(Value::as_bool) != Some(true) {
        let message = response.get("status").and_then(|status| status.get("message")?.as_str());
        return Err(format!("the pod is refused: {}", message.unwrap_or("without a reason")));
    }
    let patch = response.get("patch").and_then(Value::as_str).ok_or("the pod is left as it is")?;
    let patch = STANDARD.decode(patch).map_err(|error| format!("the patch is no base64: {error}"))?;
    let patch: Vec<Value> =
        serde_json::from_slice(&patch).map_err(|error| format!("the patch is no JSON Patch: {error}"))?;
    Ok(patch.len())
}

fn judge(config: &InjectorConfig, asked_by: AskedBy, request: &Request) -> Result<Outcome, Vec<String>> {
    let GroupVersionKind { group, version, kind } = &request.kind;
    if (group.as_str(), version.as_str(), kind.as_str()) != ("", "v1", "Pod") {
        return Err(vec![format!(
            "`{kind}` of `{group}/{version}` is none of this webhook's; its rules must name pods only"
        )]);
    }
    if request.operation != "CREATE" || !request.sub_resource.is_empty() {
        return Ok(Outcome::LeftAlone("containers are given when a pod is made, and only then"));
    }
    inject(config, asked_by, &request.namespace, &request.object)
}

/// The pod for people: one that a controller makes has no name yet.
fn name(pod: &Value) -> &str {
    let metadata = pod.get("metadata");
    ["name", "generateName"]
        .into_iter()
        .filter_map(|key| metadata?.get(key)?.as_str())
        .find(|name| !name.is_empty())
        .unwrap_or("without a name")
}
