//! `postern repo`: begins a repository of signed publications and looks after it.

use std::fmt::Write;
use std::future::Future;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use tracing::Instrument;

use crate::clock::Clock;
use crate::repository::{
    About, Entry, KeyError, Keys, Lifetime, Lifetimes, Location, LocationError, Opening, Options,
    PublishError, Recover, Repository, RoleType, Status, Store,
};

use super::traced::{self, Writes};
use super::{Exit, bundle, print, print_error, print_json, publish, report};

pub(super) const EXAMPLES: &str = "\
Examples:
  postern repo init --at /tmp/repo --keys /tmp/keys --dev
  postern repo status --at /tmp/repo --keys /tmp/keys
  postern repo refresh --at s3://policies/contoso --keys online-keys
  postern repo history --at /tmp/repo --keys /tmp/keys
  postern repo rollback 2 --at /tmp/repo --keys /tmp/keys --message 'serial 3 locked us out'
  postern repo rotate-key timestamp --at /tmp/repo --keys /tmp/keys

Exit codes: 0 done, 1 not done, 2 wrong usage.";

/// What to do with a repository.
#[derive(Args, Debug)]
pub(super) struct RepoArgs {
    #[command(subcommand)]
    command: RepoCommand,
}

#[derive(Debug, Subcommand)]
enum RepoCommand {
    /// Begin a repository: make its keys, and sign that nothing is published yet
    Init(InitArgs),
    /// Renew the timestamp so that what is published holds for longer; run it from a cron
    Refresh(RefreshArgs),
    /// List what was published, newest first
    History(HistoryArgs),
    /// Publish the content of an earlier serial again, as a new serial
    Rollback(RollbackArgs),
    /// Replace the key of a role by a new one
    RotateKey(RotateArgs),
    /// Show versions, keys and when they end
    Status(StatusArgs),
}

/// Which repository, and with which keys.
#[derive(Args, Debug)]
struct WhereArgs {
    /// Repository: a directory, s3://, az:// or gs://
    #[arg(long, value_name = "URL", env = "POSTERN_REPO")]
    at: String,
    /// Directory with keys and root.json
    #[arg(long, value_name = "DIR", env = "POSTERN_KEYS")]
    keys: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct InitArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// One key for every role: for development, where losing it costs nothing
    #[arg(long)]
    dev: bool,
    /// How long the root holds
    #[arg(long, value_name = "DURATION", default_value = "365d")]
    root_expires: Lifetime,
    /// How long the timestamp holds
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    timestamp_expires: Lifetime,
}

#[derive(Args, Debug)]
struct RefreshArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// How long the timestamp holds
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    timestamp_expires: Lifetime,
    /// Do not believe the timestamp that is there: build on the newest snapshot that verifies
    #[arg(long)]
    recover: bool,
}

#[derive(Args, Debug)]
struct HistoryArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// How many to list
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    limit: usize,
}

#[derive(Args, Debug)]
struct RollbackArgs {
    /// Serial whose content is published again
    serial: u64,
    #[command(flatten)]
    place: WhereArgs,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Who publishes it [default: the user]
    #[arg(long, value_name = "WHO", env = "POSTERN_BY")]
    by: Option<String>,
    /// How long the content holds
    #[arg(long, value_name = "DURATION", default_value = "90d")]
    expires: Lifetime,
    /// How long the timestamp holds
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    timestamp_expires: Lifetime,
    /// Pass over a number that a publisher took and never finished
    #[arg(long)]
    take_over: bool,
    /// Publish even what is published already
    #[arg(long)]
    force: bool,
}

#[derive(Args, Debug)]
struct RotateArgs {
    /// Role whose key is replaced
    role: RoleName,
    #[command(flatten)]
    place: WhereArgs,
    /// Who replaces it [default: the user]
    #[arg(long, value_name = "WHO", env = "POSTERN_BY")]
    by: Option<String>,
    /// How long the new root holds
    #[arg(long, value_name = "DURATION", default_value = "365d")]
    root_expires: Lifetime,
    /// How long the timestamp holds
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    timestamp_expires: Lifetime,
    /// Do not believe the timestamp that is there: build on the newest snapshot that verifies
    #[arg(long)]
    recover: bool,
}

#[derive(Args, Debug)]
struct StatusArgs {
    #[command(flatten)]
    place: WhereArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Root,
    Targets,
    Snapshot,
    Timestamp,
}

impl RoleName {
    const fn role(self) -> RoleType {
        match self {
            Self::Root => RoleType::Root,
            Self::Targets => RoleType::Targets,
            Self::Snapshot => RoleType::Snapshot,
            Self::Timestamp => RoleType::Timestamp,
        }
    }
}

/// A repository as the command line names it.
pub(super) struct Place<'a> {
    pub(super) at: &'a str,
    pub(super) keys: &'a Path,
}

/// Why a command did nothing.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    code: &'static str,
    message: String,
}

impl Failure {
    pub(super) fn failed(message: String) -> Self {
        Self { exit: Exit::Failed, code: "FAILED", message }
    }

    /// Why, for programs.
    pub(super) const fn code(&self) -> &'static str {
        self.code
    }
}

impl From<bundle::Failure> for Failure {
    fn from(failure: bundle::Failure) -> Self {
        match failure {
            bundle::Failure::Refused(refused) => Self {
                exit: Exit::Failed,
                code: "POLICY_REFUSED",
                message: format!(
                    "the policy is refused: {}\n{}",
                    report::summary(&refused.problems, refused.files),
                    report::problems(&refused.problems)
                ),
            },
            bundle::Failure::Said(message) => Self::failed(message),
        }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        Self { exit: Exit::Failed, code: error.code(), message: error.to_string() }
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self { exit: Exit::Failed, code: "KEY", message: error.to_string() }
    }
}

impl From<LocationError> for Failure {
    fn from(error: LocationError) -> Self {
        let (exit, code) = match error {
            LocationError::NotUnderstood { .. } => (Exit::Usage, "USAGE"),
            LocationError::NotOpened { .. } => (Exit::Failed, "UNREACHABLE"),
        };
        Self { exit, code, message: error.to_string() }
    }
}

impl Place<'_> {
    fn store(&self, create: bool) -> Result<Store, Failure> {
        Ok(Location::parse(self.at)?.open(Opening { create, ..Opening::default() })?)
    }

    pub(super) async fn open(&self) -> Result<Repository, Failure> {
        self.open_as(Recover::No).await
    }

    async fn open_as(&self, recover: Recover) -> Result<Repository, Failure> {
        let opened = Repository::open(self.store(false)?, Keys::open(self.keys)?, recover);
        Ok(opened.instrument(traced::opening()).await?)
    }
}

impl WhereArgs {
    fn place(&self) -> Place<'_> {
        Place { at: &self.at, keys: &self.keys }
    }
}

pub(super) fn run(arguments: &RepoArgs) -> Exit {
    let (json, result) = match &arguments.command {
        RepoCommand::Init(arguments) => writing(Writes::Init, &arguments.place, init(arguments)),
        RepoCommand::Refresh(arguments) => writing(Writes::Refresh, &arguments.place, refresh(arguments)),
        RepoCommand::History(arguments) => (arguments.place.json, block_on(history(arguments))),
        RepoCommand::Rollback(arguments) => writing(Writes::Rollback, &arguments.place, rollback(arguments)),
        RepoCommand::RotateKey(arguments) => writing(Writes::RotateKey, &arguments.place, rotate(arguments)),
        RepoCommand::Status(arguments) => (arguments.place.json, block_on(status(arguments))),
    };
    done(json, result)
}

fn writing(
    writes: Writes,
    place: &WhereArgs,
    what: impl Future<Output = Result<Exit, Failure>>,
) -> (bool, Result<Exit, Failure>) {
    (place.json, traced::block_on(writes, &place.at, what))
}

/// Runs a command that only reads, and whatever has done its part about spans.
pub(super) fn block_on(what: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(error.to_string()))?;
    runtime.block_on(what)
}

pub(super) fn done(json: bool, result: Result<Exit, Failure>) -> Exit {
    let failure = match result {
        Ok(exit) => return exit,
        Err(failure) => failure,
    };
    if json {
        let error = serde_json::json!({ "error": { "code": failure.code, "message": failure.message } });
        if let Err(error) = print_json(&error) {
            print_error(&error);
        }
    } else {
        print_error(&format_args!("{} ({})", failure.message, failure.code));
    }
    failure.exit
}

pub(super) fn told(value: &impl serde::Serialize) -> Result<Exit, Failure> {
    print_json(value).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(Exit::Yes)
}

pub(super) fn now() -> Timestamp {
    // Whole seconds, as in all the metadata.
    let now = Clock::system().now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Who publishes, as far as the machine knows.
pub(super) fn by(given: Option<&str>) -> String {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    given
        .map(str::to_owned)
        .or_else(|| variable("USER"))
        .or_else(|| variable("USERNAME"))
        .unwrap_or_else(|| "unknown".to_owned())
}

async fn init(arguments: &InitArgs) -> Result<Exit, Failure> {
    let InitArgs { place, dev, root_expires, timestamp_expires } = arguments;
    let store = place.place().store(true)?;
    let keys = Keys::create(&place.keys, *dev)?;
    let lifetimes = Lifetimes { root: *root_expires, timestamp: *timestamp_expires, ..Lifetimes::default() };
    let begun = Repository::init(store, keys, lifetimes, now()).instrument(traced::writing());
    let repository = begun.await?;
    let (at, keys) = (&place.at, place.keys.display());
    let root = repository.keys().root_path();
    if place.json {
        return told(&serde_json::json!({ "at": at, "keys": place.keys, "trustedRoot": root, "dev": dev }));
    }
    let mut text = format!("began a repository at {at}\n");
    if *dev {
        let _written = writeln!(text, "  one key for every role, for development: {keys}/dev.pem");
    } else {
        let _written = writeln!(
            text,
            "  keys in {keys}: move root.pem offline; the cron that refreshes needs timestamp.pem and root.json only"
        );
    }
    let _written = write!(
        text,
        "next:\n  postern publish DIR --to {at} --keys {keys}\n  postern serve --source {at} --trusted-root {}\n",
        root.display()
    );
    print(&text);
    Ok(Exit::Yes)
}

async fn refresh(arguments: &RefreshArgs) -> Result<Exit, Failure> {
    let RefreshArgs { place, timestamp_expires, recover } = arguments;
    let recover = if *recover { Recover::Yes } else { Recover::No };
    let mut repository = place.place().open_as(recover).await?;
    let lifetimes = Lifetimes { timestamp: *timestamp_expires, ..Lifetimes::default() };
    let renewed = repository.refresh(lifetimes, recover, now()).instrument(traced::writing()).await?;
    if place.json {
        return told(&serde_json::json!({
            "timestamp": renewed.timestamp,
            "expires": renewed.expires.to_string(),
            "snapshot": renewed.snapshot,
        }));
    }
    if let Some(version) = renewed.snapshot {
        print(&format!("renewed the snapshot: version {version}\n"));
    }
    print(&format!("renewed the timestamp: version {}, until {}\n", renewed.timestamp, renewed.expires));
    Ok(Exit::Yes)
}

async fn rollback(arguments: &RollbackArgs) -> Result<Exit, Failure> {
    let RollbackArgs { serial, place, message, by: who, expires, timestamp_expires, take_over, force } =
        arguments;
    let mut repository = place.place().open().await?;
    let lifetimes = Lifetimes { targets: *expires, timestamp: *timestamp_expires, ..Lifetimes::default() };
    let options = Options { lifetimes, force: *force, take_over: *take_over };
    let about = About { message: message.clone(), by: by(who.as_deref()), ..About::default() };
    let published = repository.rollback(*serial, about, options, now()).instrument(traced::writing()).await?;
    traced::published(&published.publication);
    publish::tell(&published, &place.at, place.json)
}

async fn rotate(arguments: &RotateArgs) -> Result<Exit, Failure> {
    let RotateArgs { role, place, by: who, root_expires, timestamp_expires, recover } = arguments;
    let recover = if *recover { Recover::Yes } else { Recover::No };
    let mut repository = place.place().open_as(recover).await?;
    let lifetimes = Lifetimes { root: *root_expires, timestamp: *timestamp_expires, ..Lifetimes::default() };
    let who = by(who.as_deref());
    let rotated = repository.rotate_key(role.role(), &who, lifetimes, recover, now());
    let rotated = rotated.instrument(traced::writing()).await?;
    if place.json {
        return told(&serde_json::json!({
            "role": role.role().to_string(),
            "root": rotated.root,
            "key": rotated.key,
            "retired": rotated.retired,
            "serial": rotated.serial,
        }));
    }
    let mut text =
        format!("root {} names a new key for {}: {}\n", rotated.root, role.role(), rotated.key.display());
    for path in &rotated.retired {
        let _written = writeln!(text, "put aside: {}", path.display());
    }
    if let Some(serial) = rotated.serial {
        let _written = writeln!(text, "signed the current content again: serial {serial}");
    }
    print(&text);
    Ok(Exit::Yes)
}

async fn history(arguments: &HistoryArgs) -> Result<Exit, Failure> {
    let HistoryArgs { place, limit } = arguments;
    let repository = place.place().open().await?;
    let entries = repository.history(*limit).await?;
    if place.json {
        let entries: Vec<_> = entries.iter().map(entry_json).collect();
        return told(&serde_json::json!({ "publications": entries }));
    }
    if entries.is_empty() {
        print("nothing was published yet\n");
    }
    let mut text = String::new();
    for entry in &entries {
        let _written = write!(text, "{:>6}  {:<10}", entry.serial, entry.state.as_str());
        if let Some(note) = &entry.note {
            let _written = write!(text, "  {}  {}", note.published_at, note.published_by);
            if let Some(serial) = note.rolled_back_to {
                let _written = write!(text, "  (back to {serial})");
            }
            if !note.message.is_empty() {
                let _written = write!(text, "  {}", note.message);
            }
            let short: String = entry.bundle_sha256.chars().take(12).collect();
            let _written = write!(text, "\n        {} {short}", note.policy_name);
        }
        text.push('\n');
    }
    print(&text);
    Ok(Exit::Yes)
}

fn entry_json(entry: &Entry) -> serde_json::Value {
    let mut json = serde_json::json!({ "serial": entry.serial, "state": entry.state.as_str() });
    if let (Some(object), Some(note)) = (json.as_object_mut(), &entry.note) {
        if let Ok(serde_json::Value::Object(note)) = serde_json::to_value(note) {
            object.extend(note);
        }
        object.insert("bundleSha256".to_owned(), entry.bundle_sha256.clone().into());
        object.insert("bundleLength".to_owned(), entry.bundle_length.into());
    }
    json
}

async fn status(arguments: &StatusArgs) -> Result<Exit, Failure> {
    let place = &arguments.place;
    let repository = place.place().open().await?;
    let (status, now) = (repository.status()?, now());
    let warnings = warnings(&status, now);
    if place.json {
        let roles: Vec<_> = status
            .roles
            .iter()
            .map(|role| {
                serde_json::json!({
                    "role": role.role.to_string(),
                    "version": role.version,
                    "expires": role.expires.to_string(),
                    "expired": role.expires <= now,
                    "threshold": role.threshold,
                    "keyIds": role.key_ids,
                    "canSign": role.can_sign,
                })
            })
            .collect();
        let publication = status.publication.as_ref().map(|publication| publish::Told::new(publication, &[]));
        return told(&serde_json::json!({
            "at": place.at, "publication": publication, "roles": roles, "warnings": warnings,
        }));
    }
    let mut text = match &status.publication {
        Some(publication) => format!(
            "serial {} of {}, published {} by {}\n",
            publication.serial, publication.policy_name, publication.published_at, publication.published_by
        ),
        None => "nothing was published yet\n".to_owned(),
    };
    for role in &status.roles {
        let _written = writeln!(
            text,
            "  {:<10} version {:<4} ends {} ({}){}",
            role.role.to_string(),
            role.version,
            role.expires,
            relative(role.expires, now),
            if role.can_sign { "" } else { "; its key is not here" },
        );
    }
    for warning in &warnings {
        let _written = writeln!(text, "warning: {warning}");
    }
    print(&text);
    Ok(Exit::Yes)
}

/// What ends soon, and what to do about it.
fn warnings(status: &Status, now: Timestamp) -> Vec<String> {
    let soon = |role: RoleType| match role {
        RoleType::Timestamp => SignedDuration::from_hours(6),
        RoleType::Root => SignedDuration::from_hours(24 * 30),
        _ => SignedDuration::from_hours(24 * 14),
    };
    let renew = |role: RoleType| match role {
        RoleType::Timestamp | RoleType::Snapshot => "renew it with `postern repo refresh`",
        RoleType::Root => "renew it with `postern repo rotate-key root`",
        _ => "publish again with `postern publish --force`",
    };
    let left = |expires: Timestamp| expires.duration_since(now);
    status
        .roles
        .iter()
        .filter(|role| left(role.expires) <= soon(role.role))
        .map(|role| {
            let ends = if role.expires <= now { "has expired" } else { "ends soon" };
            format!("{} {ends} ({}); {}", role.role, relative(role.expires, now), renew(role.role))
        })
        .collect()
}

/// `in 3 days`, `2 hours ago`.
fn relative(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.duration_since(now).as_secs();
    let far = seconds.unsigned_abs();
    let (number, unit) = match far {
        0..120 => (far, "second"),
        120..7_200 => (far / 60, "minute"),
        7_200..172_800 => (far / 3_600, "hour"),
        _ => (far / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    if seconds < 0 { format!("{number} {unit}{plural} ago") } else { format!("in {number} {unit}{plural}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let now: Timestamp = "2026-01-31T10:00:00Z".parse().unwrap();
        for (at, text) in [
            ("2026-02-03T10:00:00Z", "in 3 days"),
            ("2026-01-31T13:30:00Z", "in 3 hours"),
            ("2026-01-31T10:00:01Z", "in 1 second"),
            ("2026-01-31T09:50:00Z", "10 minutes ago"),
        ] {
            assert_eq!(relative(at.parse().unwrap(), now), text);
        }
    }
}
