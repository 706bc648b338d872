//! A policy directory, or a bundle in its place: read, compiled, activated, watched.
//!
//! ```text
//! inotify, SIGHUP, a slow poll ─▶ debounce ─▶ load + compile (blocking pool) ─┬─ refused ─▶ the active policy stays
//!                                                                             ├─ same digest ─▶ nothing
//!                                                                             └─ activate: one pointer
//! ```
//!
//! The [`Updater`] owns the [`Activator`], and with it the only writer. A failure is logged, counted and told by `/readyz`.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::{Instrument, Span};

use crate::bundle::{self, BundleError};
use crate::condition::Extensions;
use crate::documents::{self, Lenience, ReadOptions};
use crate::model::{Problem, Problems, Severity};
use crate::policy::{CompileOptions, Policy};

use super::activate::{Activator, Hangup, Update, fetching, verifying};

/// How often the directory is looked at where changes cannot be watched.
const POLL_WITHOUT_WATCH: Duration = Duration::from_secs(2);
/// How often it is looked at besides being watched: network and virtual file systems lose events.
const POLL_BESIDE_WATCH: Duration = Duration::from_secs(30);
/// A stream of edits is not waited out for ever: after this many debounce times it is loaded as it is.
const MAX_DEBOUNCES: u32 = 10;
/// Deeper than any policy directory; ends a cycle of symbolic links.
const MAX_DEPTH: usize = 16;

/// How a directory is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// How documents of real exports are taken.
    pub lenience: Lenience,
    /// How patterns are read.
    pub compile: CompileOptions,
}

impl LoadOptions {
    /// How the documents are read.
    pub fn reading(&self) -> ReadOptions {
        let extensions = Extensions { enabled: self.compile.condition_extensions };
        ReadOptions { lenience: self.lenience, extensions }
    }
}

/// A directory that became a policy.
#[derive(Debug)]
pub struct Loaded {
    /// What decides.
    pub policy: Policy,
    /// What was found and let pass.
    pub warnings: Problems,
    /// How many files were read.
    pub files: usize,
}

/// A directory that is no policy.
#[derive(Debug)]
pub struct Refused {
    /// Everything that is wrong, warnings included.
    pub problems: Problems,
    /// How many files were read.
    pub files: usize,
}

/// Keeps the active policy that of the directory.
#[derive(Debug)]
pub struct Updater {
    /// The directory or file.
    pub path: PathBuf,
    /// How it is read.
    pub options: LoadOptions,
    /// How long a change must be followed by silence.
    pub debounce: Duration,
    /// What makes it the active one.
    pub activator: Activator,
}

/// Reads a directory or a document and compiles it, or opens a bundle: what `--policy` names becomes a policy here and
/// nowhere else. Blocks.
pub fn load(path: &Path, options: LoadOptions) -> Result<Loaded, Refused> {
    if bundle::is_bundle(path) {
        return load_bundle(path, options);
    }
    let (documents, mut problems) = fetching().in_scope(|| documents::load(path, options.reading()));
    let files = documents.files.len();
    if problems.has_errors() {
        problems.sort();
        return Err(Refused { problems, files });
    }
    match verifying().in_scope(|| Policy::compile(&documents, options.compile)) {
        Ok(policy) => {
            problems.sort();
            Ok(Loaded { policy, warnings: problems, files })
        }
        Err(more) => {
            problems.extend(more);
            problems.sort();
            Err(Refused { problems, files })
        }
    }
}

/// A bundle says itself how it was compiled. Read into memory: whoever copies another file over it would change a mapped
/// one below the policy that decides.
fn load_bundle(path: &Path, options: LoadOptions) -> Result<Loaded, Refused> {
    let bundle = bundle::read(path, bundle::Limits::default()).map_err(|error| {
        let code = match &error {
            BundleError::OtherFormat { .. } => "OtherBundleFormat",
            _ => "InvalidBundle",
        };
        let mut problems = Problems::new();
        problems.push(Problem::error(code, format!("`{}`: {error}", path.display())));
        Refused { problems, files: 1 }
    })?;
    let mut warnings = Problems::new();
    if options.compile != CompileOptions::default() && options.compile != bundle.policy.options() {
        let said = "`--strict-wildcards` and `--condition-extensions` say something else than the bundle";
        warnings.push(
            Problem::warning("OptionsOfBundle", said).help("give them to `postern bundle build` instead"),
        );
    }
    Ok(Loaded { policy: bundle.policy, warnings, files: 1 })
}

// === impl Updater ===

impl Updater {
    /// Loads the directory once, and again whenever it changes. Ends only when the first load is refused: later
    /// there is a policy to go on with.
    pub async fn run(mut self) -> Result<(), Refused> {
        // Watching begins before the first load, so that an edit in between is not lost.
        let mut changes = Changes::watch(&self.path);
        let mut hangup = Hangup::catch();
        let mut digest = self.load_first().await?;
        loop {
            let why = tokio::select! {
                () = changes.next(self.debounce) => "change",
                () = hangup.next() => "SIGHUP",
            };
            self.reload(why, &mut digest).await;
            changes.follow();
        }
    }

    async fn load_first(&mut self) -> Result<String, Refused> {
        let update = Update::begin(self.path.display());
        let loaded =
            self.load().instrument(update.0.clone()).await.inspect_err(|_refused| update.failed())?;
        log_problems(&loaded.warnings);
        update.ended("activated");
        Ok(update.0.in_scope(|| self.activate(loaded)))
    }

    async fn reload(&mut self, why: &'static str, digest: &mut String) {
        let update = Update::begin(self.path.display());
        match self.load().instrument(update.0.clone()).await {
            Ok(loaded) if loaded.policy.digest() == digest => {
                update.ended("unchanged");
                tracing::debug!(why, "the policy is unchanged");
                self.activator.unchanged();
                tokio::task::spawn_blocking(move || drop(loaded));
            }
            Ok(loaded) => {
                log_problems(&loaded.warnings);
                update.ended("activated");
                *digest = update.0.in_scope(|| self.activate(loaded));
            }
            Err(refused) => {
                update.failed();
                let errors = refused.problems.count(Severity::Error);
                tracing::error!(why, errors, "the changed policy is refused, the active one stays");
                log_problems(&refused.problems);
                self.activator.refused(refused.problems.iter().map(ToString::to_string).collect());
            }
        }
    }

    async fn load(&self) -> Result<Loaded, Refused> {
        let (path, options) = (self.path.clone(), self.options);
        let update = Span::current();
        let load = move || update.in_scope(|| load(&path, options));
        tokio::task::spawn_blocking(load).await.unwrap_or_else(|error| {
            // A panic of a reader must not take the sidecar with it: the active policy is still good.
            let mut problems = Problems::new();
            problems.push(Problem::error("InternalError", format!("the policy could not be read: {error}")));
            Err(Refused { problems, files: 0 })
        })
    }

    fn activate(&mut self, loaded: Loaded) -> String {
        tracing::info!(files = loaded.files, "the policy directory is read");
        self.activator.activate(loaded.policy, None).policy.digest().to_owned()
    }
}

fn log_problems(problems: &Problems) {
    for problem in problems {
        match problem.severity {
            Severity::Warning => tracing::warn!("{problem}"),
            Severity::Error => tracing::error!("{problem}"),
        }
    }
}

// === Changes ===

/// Tells when the directory may have changed. Wrong alarms are cheap: an unchanged digest activates nothing.
struct Changes {
    path: PathBuf,
    events: mpsc::Receiver<()>,
    poll: tokio::time::Interval,
    /// `None` where watching is not possible.
    watcher: Option<RecommendedWatcher>,
    /// What the watch is on: a directory that was replaced has to be watched anew.
    watched: Option<(PathBuf, u64, u64)>,
    seen: u64,
}

impl Changes {
    fn watch(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // One place is enough: an alarm that is pending covers what comes after it.
        let (send, events) = mpsc::channel(1);
        let watcher = match watcher(&path, send) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(
                    %error,
                    every = ?POLL_WITHOUT_WATCH,
                    "the policy directory cannot be watched and is looked at from time to time instead"
                );
                None
            }
        };
        let period = if watcher.is_some() { POLL_BESIDE_WATCH } else { POLL_WITHOUT_WATCH };
        let mut poll = interval_at(Instant::now() + period, period);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (watched, seen) = (identity(&path), fingerprint(&path));
        Self { path, events, poll, watcher, watched, seen }
    }

    /// Waits for a change and for the silence behind it.
    async fn next(&mut self, debounce: Duration) {
        loop {
            tokio::select! {
                Some(()) = self.events.recv() => {
                    let deadline = Instant::now() + debounce.saturating_mul(MAX_DEBOUNCES);
                    while Instant::now() < deadline
                        && matches!(timeout(debounce, self.events.recv()).await, Ok(Some(())))
                    {}
                    self.seen = self.look().await;
                    return;
                }
                _ = self.poll.tick() => {
                    let found = self.look().await;
                    if found != self.seen {
                        self.seen = found;
                        return;
                    }
                }
            }
        }
    }

    async fn look(&self) -> u64 {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || fingerprint(&path)).await.unwrap_or(self.seen)
    }

    /// Watches the directory that is there now, if it is another one than before.
    fn follow(&mut self) {
        let now = identity(&self.path);
        if now == self.watched || now.is_none() {
            return;
        }
        if self.watcher.is_some() {
            let seen = self.seen;
            *self = Self::watch(&self.path);
            // What was written between the load and the new watch shows in the fingerprint: look at once.
            self.seen = seen;
            self.poll.reset_immediately();
        } else {
            self.watched = now;
        }
    }
}

fn watcher(path: &Path, send: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let target = path.to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let concerns_us = match event {
            // Reading files makes events too, and loading reads every file.
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => false,
            Ok(event) => {
                event.need_rescan()
                    || event.paths.is_empty()
                    || event.paths.iter().any(|path| path.starts_with(&target))
            }
            Err(_) => true,
        };
        if concerns_us {
            // Full means that an alarm is pending already.
            let _pending = send.try_send(());
        }
    })?;
    watcher.watch(path, RecursiveMode::Recursive)?;
    // The parent tells when the directory itself is replaced, or the link that leads to it, and a file when an
    // editor writes a new one in its place. Not being allowed to watch it leaves the poll.
    if let Some(parent) = path.parent()
        && let Err(error) = watcher.watch(parent, RecursiveMode::NonRecursive)
    {
        tracing::debug!(%error, "the directory above the policy cannot be watched");
    }
    Ok(watcher)
}

fn identity(path: &Path) -> Option<(PathBuf, u64, u64)> {
    let real = fs::canonicalize(path).ok()?;
    let found = fs::metadata(&real).ok()?;
    Some((real, found.dev(), found.ino()))
}

/// Names, sizes and times of everything below a path, as one number. Blocks, but opens no file.
fn fingerprint(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    // What cannot be read counts as one more state.
    if let Err(error) = fingerprint_into(path, MAX_DEPTH, &mut hasher) {
        error.kind().hash(&mut hasher);
    }
    hasher.finish()
}

fn fingerprint_into(path: &Path, depth: usize, hasher: &mut DefaultHasher) -> io::Result<()> {
    let found = fs::metadata(path)?;
    path.hash(hasher);
    (found.ino(), found.len(), found.mtime(), found.mtime_nsec()).hash(hasher);
    let Some(depth) = depth.checked_sub(1).filter(|_| found.is_dir()) else {
        return Ok(());
    };
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if let Err(error) = fingerprint_into(&entry.path(), depth, hasher) {
            error.kind().hash(hasher);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn sees(changes: &mut Changes) -> bool {
        timeout(Duration::from_secs(10), changes.next(Duration::from_millis(20))).await.is_ok()
    }

    #[tokio::test]
    async fn edits_and_new_directories_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.json"), "[]").unwrap();
        let mut changes = Changes::watch(dir.path());
        fs::write(dir.path().join("a.json"), "{}").unwrap();
        assert!(sees(&mut changes).await);
        fs::create_dir(dir.path().join("sub")).unwrap();
        assert!(sees(&mut changes).await);
        fs::write(dir.path().join("sub/b.json"), "{}").unwrap();
        assert!(sees(&mut changes).await);
    }

    #[tokio::test]
    async fn the_link_swap_of_a_config_map_is_seen_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let version = |number: u32| {
            let name = format!("..v{number}");
            fs::create_dir(dir.path().join(&name)).unwrap();
            fs::write(dir.path().join(&name).join("a.json"), number.to_string()).unwrap();
            symlink(&name, dir.path().join("..data_tmp")).unwrap();
            fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        };
        version(1);
        symlink("..data/a.json", dir.path().join("a.json")).unwrap();
        let mut changes = Changes::watch(dir.path());
        for number in 2..4 {
            version(number);
            assert!(sees(&mut changes).await, "{number}");
            changes.follow();
        }
    }

    #[tokio::test]
    async fn a_replaced_directory_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        for name in ["v1", "v2"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        symlink("v1", &link).unwrap();
        let mut changes = Changes::watch(&link);
        symlink("v2", dir.path().join("next")).unwrap();
        fs::rename(dir.path().join("next"), &link).unwrap();
        assert!(sees(&mut changes).await, "the swap");
        changes.follow();
        fs::write(dir.path().join("v2/a.json"), "{}").unwrap();
        assert!(sees(&mut changes).await, "an edit behind the new link");
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.json"), "[]").unwrap();
        let mut changes = Changes::watch(dir.path());
        fs::read(dir.path().join("a.json")).unwrap();
        let waited = timeout(Duration::from_millis(300), changes.next(Duration::from_millis(20))).await;
        assert!(waited.is_err());
    }

    #[test]
    fn the_fingerprint_survives_what_is_missing_and_circular() {
        let dir = tempfile::tempdir().unwrap();
        let before = fingerprint(dir.path());
        symlink(".", dir.path().join("loop")).unwrap();
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        assert_ne!(fingerprint(dir.path()), before);
        fingerprint(&dir.path().join("missing"));
    }
}
