//! Finds the policy files below a directory.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::report::Report;
use crate::model::Problem;

/// A larger file is refused before it is read.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The syntax of a file, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Json,
    /// One JSON value a line.
    JsonLines,
    Yaml,
}

impl Syntax {
    /// `None` for what is no policy file.
    pub(super) fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// A file's bytes and its path relative to the directory, with `/` between the parts.
pub(super) type Bytes = (String, Vec<u8>);

/// Every policy file below a directory, or the one file, in the order of the paths.
pub(super) fn gather(root: &Path, report: &mut Report) -> Vec<Bytes> {
    let shown = root.display().to_string();
    let metadata = match fs::metadata(root) {
        Ok(metadata) => metadata,
        Err(error) => {
            report.push(unreadable(&shown, &error));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    if metadata.is_dir() {
        for (relative, path) in below(root, report) {
            files.extend(read(&path, &relative, report).map(|bytes| (relative, bytes)));
        }
    } else {
        let name = root.file_name().map_or_else(|| shown.clone(), |name| name.to_string_lossy().into_owned());
        if Syntax::of(&name).is_none() {
            report.push(Problem::error("UnsupportedFile", format!("`{shown}` is no policy file")).help(
                "wanted a directory, or a file whose name ends in .json, .jsonl, .ndjson, .yaml or .yml",
            ));
            return Vec::new();
        }
        files.extend(read(root, &name, report).map(|bytes| (name, bytes)));
    }
    files
}

/// The policy files of a directory tree. Names that begin with a dot are skipped: a mounted ConfigMap holds
/// symbolic links `x.json` → `..data/x.json`, and its `..data` must not be read a second time. Every directory is
/// entered once, however many links lead to it, so loops end.
fn below(root: &Path, report: &mut Report) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut entered = HashSet::new();
    let mut open = vec![(String::new(), root.to_path_buf())];
    while let Some((prefix, directory)) = open.pop() {
        let shown = || if prefix.is_empty() { root.display().to_string() } else { prefix.clone() };
        match fs::canonicalize(&directory) {
            Ok(real) => {
                if !entered.insert(real) {
                    continue;
                }
            }
            Err(error) => {
                report.push(unreadable(&shown(), &error));
                continue;
            }
        }
        let entries = match fs::read_dir(&directory).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(error) => {
                report.push(unreadable(&shown(), &error));
                continue;
            }
        };
        let mut names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
        // The last is opened first; which of several links to one directory is taken does not depend on the disk.
        names.sort_by(|left, right| right.cmp(left));
        for name in names {
            let lossy = name.to_string_lossy();
            if lossy.starts_with('.') {
                continue;
            }
            let relative = if prefix.is_empty() { lossy.into_owned() } else { format!("{prefix}/{lossy}") };
            let path = directory.join(&name);
            // This follows links.
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => open.push((relative, path)),
                Ok(_) if Syntax::of(&relative).is_some() => found.push((relative, path)),
                // A broken link without an extension may have been meant for a directory.
                Err(error) if Syntax::of(&relative).is_some() || !has_extension(&relative) => {
                    report.push(unreadable(&relative, &error));
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

fn has_extension(relative: &str) -> bool {
    Path::new(relative).extension().is_some()
}

fn read(path: &Path, shown: &str, report: &mut Report) -> Option<Vec<u8>> {
    let too_large = || {
        Problem::error("FileTooLarge", format!("`{shown}` is larger than 256 MiB"))
            .help("split the export into several files")
    };
    // A pipe or device would be waited for, or never end.
    let regular = fs::metadata(path).and_then(|metadata| {
        if metadata.is_file() { Ok(metadata) } else { Err(std::io::Error::other("not a regular file")) }
    });
    let read = regular.and_then(|metadata| {
        if metadata.len() > MAX_BYTES {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        // It may grow while it is read.
        fs::File::open(path)?.take(MAX_BYTES.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_BYTES).then_some(bytes))
    });
    match read {
        Ok(Some(bytes)) => return Some(bytes),
        Ok(None) => report.push(too_large()),
        Err(error) => report.push(unreadable(shown, &error)),
    }
    None
}

fn unreadable(shown: &str, error: &std::io::Error) -> Problem {
    Problem::error("Unreadable", format!("cannot read `{shown}`: {error}"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn gathered(root: &Path) -> (Vec<String>, Vec<String>) {
        let mut report = Report::default();
        let files = gather(root, &mut report);
        let problems = report.finish(&[], &[]);
        (
            files.into_iter().map(|(path, _)| path).collect(),
            problems.iter().map(|problem| problem.message.clone()).collect(),
        )
    }

    #[test]
    fn a_tree_in_the_order_of_paths() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("b/c")).unwrap();
        fs::create_dir_all(root.path().join(".git")).unwrap();
        for name in [
            "z.json",
            "a.YAML",
            "b/x.jsonl",
            "b/c/y.yml",
            "b.ndjson",
            "README.md",
            ".hidden.json",
            ".git/x.json",
        ] {
            fs::write(root.path().join(name), "{}").unwrap();
        }
        let (files, problems) = gathered(root.path());
        assert_eq!(files, ["a.YAML", "b.ndjson", "b/c/y.yml", "b/x.jsonl", "z.json"]);
        assert!(problems.is_empty());
        let (files, _) = gathered(&root.path().join("b/x.jsonl"));
        assert_eq!(files, ["x.jsonl"]);
    }

    #[test]
    fn a_mounted_config_map_is_read_once() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("..2026_11_22_00_00_00.1")).unwrap();
        fs::write(root.path().join("..2026_11_22_00_00_00.1/x.json"), "{}").unwrap();
        symlink("..2026_11_22_00_00_00.1", root.path().join("..data")).unwrap();
        symlink("..data/x.json", root.path().join("x.json")).unwrap();
        assert_eq!(gathered(root.path()).0, ["x.json"]);
    }

    #[test]
    fn loops_end_and_broken_links_are_told() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/x.json"), "{}").unwrap();
        symlink("..", root.path().join("a/up")).unwrap();
        symlink("a", root.path().join("again")).unwrap();
        symlink("self", root.path().join("self")).unwrap();
        symlink("nowhere", root.path().join("gone.json")).unwrap();
        let (files, problems) = gathered(root.path());
        assert_eq!(files, ["a/x.json"]);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[1].starts_with("cannot read `gone.json`"), "{problems:?}");
        assert!(problems[0].starts_with("cannot read `self`"), "{problems:?}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let (_, problems) = gathered(&root.path().join("none"));
        assert!(problems[0].contains("none`"), "{problems:?}");
        fs::write(root.path().join("x.txt"), "{}").unwrap();
        let (_, problems) = gathered(&root.path().join("x.txt"));
        assert!(problems[0].ends_with("is no policy file"), "{problems:?}");
        let large = fs::File::create(root.path().join("large.json")).unwrap();
        large.set_len(MAX_BYTES + 1).unwrap();
        let (files, problems) = gathered(root.path());
        assert!(files.is_empty());
        assert_eq!(problems, ["`large.json` is larger than 256 MiB"]);
        let made = std::process::Command::new("mkfifo").arg(root.path().join("pipe.json")).status();
        if made.is_ok_and(|status| status.success()) {
            fs::remove_file(root.path().join("large.json")).unwrap();
            assert_eq!(gathered(root.path()).1, ["cannot read `pipe.json`: not a regular file"]);
        }
    }
}
