//! `postern status`: which policy a running sidecar answers by, and how updating goes.

use clap::Args;
use serde_json::json;

use crate::cli::{Exit, print, print_error, print_json};
use crate::proto::v1;
use crate::proto::v1::authorization_service_client::AuthorizationServiceClient;

use super::question::flag_of;
use super::tree::plain;
use super::{ClientTls, NoAnswer, Sidecar, tell_failure, tell_usage, timestamp};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  postern status --connect unix:///run/postern/postern.sock
  postern status --connect http://127.0.0.1:4770 --json
  postern status --connect https://pdp.example:4770 --tls-ca ca.pem --tls-cert me.pem --tls-key me.key

Exit codes: 0 a policy is active and updating goes well, 1 the sidecar cannot be reached, 2 wrong usage,
3 there is no policy, it is stale or expired, or the newest state of the source was refused.";

/// Which sidecar.
#[derive(Args, Debug)]
pub(in crate::cli) struct StatusArgs {
    /// Ask the sidecar at this address: unix:///path, http://host:port or https://host:port
    #[arg(long, value_name = "ADDRESS", env = "POSTERN_CONNECT")]
    connect: String,
    #[command(flatten)]
    tls: ClientTls,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(arguments: &StatusArgs) -> Exit {
    let sidecar = match Sidecar::at(&arguments.connect, &arguments.tls) {
        Ok(sidecar) => sidecar,
        Err(message) => return tell_usage(&[message.to_owned()]),
    };
    let answer = sidecar.call(async |channel| {
        AuthorizationServiceClient::new(channel).get_policy_status(v1::GetPolicyStatusRequest {}).await
    });
    let told = match &answer {
        Ok(answer) => tell(&answer.status.clone().unwrap_or_default(), arguments.json),
        Err(no_answer) => Ok(tell_failure(no_answer, arguments.json, flag_of)),
    };
    told.unwrap_or_else(|error| {
        print_error(&error);
        Exit::Failed
    })
}

/// The digest of the policy that a sidecar answers by; `None` where there is none, or it does not say.
pub(in crate::cli) fn active_digest(sidecar: Sidecar<'_>) -> Result<Option<String>, NoAnswer> {
    let answer = sidecar.call(async |channel| {
        AuthorizationServiceClient::new(channel).get_policy_status(v1::GetPolicyStatusRequest {}).await
    });
    match answer {
        Ok(answer) => Ok(answer.status.and_then(|status| status.policy).map(|policy| policy.digest)),
        Err(NoAnswer::Status(_)) => Ok(None),
        Err(no_answer) => Err(no_answer),
    }
}

fn tell(status: &v1::PolicyStatus, json: bool) -> std::io::Result<Exit> {
    let freshness = match status.policy.as_ref().map(v1::PolicyIdentity::freshness) {
        None => "none",
        Some(v1::PolicyFreshness::Fresh) => "fresh",
        Some(v1::PolicyFreshness::Stale) => "stale",
        Some(v1::PolicyFreshness::Expired) => "expired",
        Some(v1::PolicyFreshness::Unspecified) => "unknown",
    };
    let well = freshness == "fresh" && status.update_problems.is_empty();
    let exit = if well { Exit::Yes } else { Exit::No };
    let publication = status.publication.as_ref();
    if json {
        print_json(&json!({
            "policy": status.policy.as_ref().map(|policy| json!({
                "serial": policy.serial,
                "digest": policy.digest,
                "generation": policy.generation,
                "freshness": freshness,
                "ageSeconds": policy.age_seconds,
            })),
            "activatedAt": timestamp(status.activated_at.as_ref()),
            "publication": publication.map(|publication| json!({
                "source": publication.source,
                "policyName": publication.policy_name,
                "publishedAt": timestamp(publication.published_at.as_ref()),
                "publishedBy": publication.published_by,
                "message": publication.message,
                "expiresAt": timestamp(publication.expires_at.as_ref()),
                "confirmedAt": timestamp(publication.confirmed_at.as_ref()),
            })),
            "updateProblems": status.update_problems,
            "updateFailedAt": timestamp(status.update_failed_at.as_ref()),
        }))?;
        return Ok(exit);
    }
    let mut lines = Vec::new();
    match &status.policy {
        None => lines.push(("policy", "none is active yet".to_owned())),
        Some(policy) => {
            lines.push(("policy", format!("serial {}, generation {}", policy.serial, policy.generation)));
            lines.push(("digest", policy.digest.clone()));
            let age = match publication {
                Some(_) => format!("{freshness}, confirmed {} s ago", policy.age_seconds),
                None => freshness.to_owned(),
            };
            lines.push(("freshness", age));
        }
    }
    let mut time = |name, at: Option<&prost_types::Timestamp>| {
        if let Some(at) = timestamp(at) {
            lines.push((name, at));
        }
    };
    time("activated", status.activated_at.as_ref());
    if let Some(publication) = publication {
        time("published", publication.published_at.as_ref());
        time("expires", publication.expires_at.as_ref());
        for (name, text) in [
            ("name", &publication.policy_name),
            ("by", &publication.published_by),
            ("message", &publication.message),
            ("source", &publication.source),
        ] {
            if !text.is_empty() {
                lines.push((name, text.clone()));
            }
        }
    }
    if let Some(at) = timestamp(status.update_failed_at.as_ref()) {
        lines.push(("update", format!("refused at {at}")));
    }
    lines.extend(status.update_problems.iter().map(|problem| ("", problem.clone())));
    let text: String = lines.iter().map(|(name, value)| format!("{name:<10}{}\n", plain(value))).collect();
    print(&text);
    Ok(exit)
}
