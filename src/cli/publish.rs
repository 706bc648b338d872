//! `postern publish`: makes a policy the current publication of a repository.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use tracing::Instrument;

use crate::bundle;
use crate::repository::{About, Lifetime, Lifetimes, Options, Publication, PublishError, Published};

use super::repo::{self, Failure, Place};
use super::traced::{self, Writes};
use super::validate::HowToLoad;
use super::{Exit, print};

pub(super) const EXAMPLES: &str = "\
Examples:
  postern publish examples/contoso --to /tmp/repo --keys /tmp/keys --message 'first policy'
  postern publish contoso.bundle --to s3://policies/contoso --keys keys --expires 30d --json

Of two publishers at the same time one wins; the other is told so (CONFLICT) and has changed nothing.

Exit codes: 0 published (or the same already is, with --if-changed), 1 not published, 2 wrong usage.";

/// What to publish, and where.
#[derive(Args, Debug)]
pub(super) struct PublishArgs {
    /// Policy directory, or a bundle that `postern bundle build` made
    #[arg(value_name = "DIR|BUNDLE")]
    what: PathBuf,
    /// Repository to publish to: a directory, s3://, az:// or gs://
    #[arg(long, value_name = "URL", env = "POSTERN_REPO")]
    to: String,
    /// Directory with the keys of targets, snapshot and timestamp, and root.json
    #[arg(long, value_name = "DIR", env = "POSTERN_KEYS")]
    keys: PathBuf,
    /// Name of the policy, which readers are told [default: that of the bundle or the directory]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Why it is published
    #[arg(long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Who publishes it [default: the user]
    #[arg(long, value_name = "WHO", env = "POSTERN_BY")]
    by: Option<String>,
    /// How long the content holds, for example 90d; then readers want a new publication
    #[arg(long, value_name = "DURATION", default_value = "90d")]
    expires: Lifetime,
    /// How long the timestamp holds, for example 7d; `postern repo refresh` renews it
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    timestamp_expires: Lifetime,
    /// Pass over a number that a publisher took and never finished
    #[arg(long)]
    take_over: bool,
    /// Publish even what is published already
    #[arg(long)]
    force: bool,
    /// Exit with 0 when the same is published already: for schedules and deployments
    #[arg(long, conflicts_with = "force")]
    if_changed: bool,
    #[command(flatten)]
    how: HowToLoad,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is published: bytes, and what they say of themselves.
struct Content {
    bytes: Bytes,
    name: String,
    digest: String,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told<'a> {
    serial: u64,
    bundle_sha256: &'a str,
    bundle_length: u64,
    bundle_path: &'a str,
    published_at: String,
    published_by: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rolled_back_to: Option<u64>,
    policy_name: &'a str,
    policy_digest: &'a str,
    expires: String,
    expires_role: String,
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    passed_over: &'a [u64],
}

impl<'a> Told<'a> {
    pub(super) fn new(publication: &'a Publication, passed_over: &'a [u64]) -> Self {
        Self {
            serial: publication.serial,
            bundle_sha256: &publication.bundle_sha256,
            bundle_length: publication.bundle_length,
            bundle_path: &publication.bundle_path,
            published_at: publication.published_at.to_string(),
            published_by: &publication.published_by,
            message: &publication.message,
            rolled_back_to: publication.rolled_back_to,
            policy_name: &publication.policy_name,
            policy_digest: &publication.policy_digest,
            expires: publication.expires.to_string(),
            expires_role: publication.expires_role.to_string(),
            passed_over,
        }
    }
}

pub(super) fn run(arguments: &PublishArgs) -> Exit {
    repo::done(arguments.json, traced::block_on(Writes::Publish, &arguments.to, publish(arguments)))
}

async fn publish(arguments: &PublishArgs) -> Result<Exit, Failure> {
    let content = traced::compiling().in_scope(|| content(arguments))?;
    let place = Place { at: &arguments.to, keys: &arguments.keys };
    let mut repository = place.open().await?;
    let about = About {
        policy_name: content.name,
        policy_digest: content.digest,
        message: arguments.message.clone(),
        by: repo::by(arguments.by.as_deref()),
    };
    let lifetimes = Lifetimes {
        targets: arguments.expires,
        timestamp: arguments.timestamp_expires,
        ..Lifetimes::default()
    };
    let options = Options { lifetimes, force: arguments.force, take_over: arguments.take_over };
    let writing = repository.publish(content.bytes, about, options, repo::now());
    match writing.instrument(traced::writing()).await {
        Ok(published) => {
            traced::published(&published.publication);
            tell(&published, &arguments.to, arguments.json)
        }
        Err(PublishError::Same { serial }) if arguments.if_changed => unchanged(serial, arguments),
        Err(error) => Err(error.into()),
    }
}

/// Nothing was to be done, which `--if-changed` takes for done.
fn unchanged(serial: u64, arguments: &PublishArgs) -> Result<Exit, Failure> {
    if arguments.json {
        return repo::told(&serde_json::json!({ "serial": serial, "unchanged": true }));
    }
    print(&format!("serial {serial} at {} has the same bundle: nothing is published\n", arguments.to));
    Ok(Exit::Yes)
}

pub(super) fn tell(published: &Published, to: &str, json: bool) -> Result<Exit, Failure> {
    let Published { publication, passed_over } = published;
    if json {
        return repo::told(&Told::new(publication, passed_over));
    }
    for number in passed_over {
        print(&format!("passed over serial {number}, which was never finished\n"));
    }
    print(&format!(
        "published serial {} to {to}\n  bundle  {} ({} bytes)\n  holds   until {} ({})\n",
        publication.serial,
        publication.bundle_sha256,
        publication.bundle_length,
        publication.expires,
        publication.expires_role,
    ));
    Ok(Exit::Yes)
}

/// The bundle that is in the file, checked to its last byte; or the one that the directory makes.
fn content(arguments: &PublishArgs) -> Result<Content, Failure> {
    let path = arguments.what.as_path();
    let unusable = |error: &dyn std::fmt::Display| Failure::failed(format!("`{}`: {error}", path.display()));
    let bytes = if bundle::is_bundle(path) {
        std::fs::read(path).map_err(|error| unusable(&error))?
    } else {
        let path = path.canonicalize().map_err(|error| unusable(&error))?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let name = arguments.name.as_deref().unwrap_or(&name);
        let about = bundle::About { name, ..bundle::About::default() };
        let built = super::bundle::built(&path, arguments.how, &about)?;
        super::bundle::warned(&built.warnings);
        built.bytes
    };
    let bytes = Bytes::from(bytes);
    let bundle = bundle::from_bytes(bytes.clone()).map_err(|error| unusable(&error))?;
    let name = arguments.name.clone().unwrap_or_else(|| bundle.manifest.name.clone());
    Ok(Content { bytes, name, digest: bundle.policy.digest().to_owned() })
}
