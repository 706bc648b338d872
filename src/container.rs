//! How much of the machine this process may use: the limits of its control group, version 1 or 2. They make defaults,
//! nothing else. A leaf: imports nothing of the crate.
//!
//! ```text
//! /proc/self/cgroup ── which group ──▶ /sys/fs/cgroup/… ── its files, and those of the groups above ──▶ the least
//! ```
//!
//! In a container the files often lie at the root of the mount while the path is that of the host; what is not there is
//! passed over.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";
const GROUPS: &str = "/proc/self/cgroup";
/// Version 1 writes the largest number of pages there is for no limit; no machine has a 64th of it.
const UNLIMITED: u64 = 1 << 57;

/// A number and the file that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Thousandths of a core, or bytes.
    pub value: u64,
    /// Where it is written.
    pub file: PathBuf,
}

/// What a process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Cores that it may run on.
    pub cores: usize,
    /// Of their time, in thousandths of a core.
    pub cpu: Option<Limit>,
    /// Memory in bytes.
    pub memory: Option<Limit>,
}

// === impl Container ===

impl Container {
    /// Of this process.
    pub fn here() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::read(Path::new(MOUNT), &fs::read_to_string(GROUPS).unwrap_or_default(), cores)
    }

    /// Of a process in these groups, as `/proc/self/cgroup` writes them, on so many cores.
    pub fn read(mount: &Path, groups: &str, cores: usize) -> Self {
        let mut found = Self { cores, cpu: None, memory: None };
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let below = |root: PathBuf| levels(&root, path);
            if controllers.is_empty() {
                // Version 2, alone or beside version 1.
                for group in below(mount.to_owned()).into_iter().chain(below(mount.join("unified"))) {
                    found.cpu = least(found.cpu, quota(&group.join("cpu.max")));
                    found.memory = least(found.memory, bytes(&group.join("memory.max")));
                }
                continue;
            }
            for controller in controllers.split(',') {
                // The mount has the name of all of its controllers, and links of each.
                let roots = [mount.join(controllers), mount.join(controller)];
                for group in roots.into_iter().flat_map(below) {
                    match controller {
                        "cpu" => found.cpu = least(found.cpu, quota_1(&group)),
                        "memory" => {
                            found.memory = least(found.memory, bytes(&group.join("memory.limit_in_bytes")));
                        }
                        _ => {}
                    }
                }
            }
        }
        found
    }

    /// How many threads find a core to run on, at least one, and why so many. A quota is rounded down: a thread that
    /// shares a core waits, one that has used up the quota is stopped, and all its requests with it.
    pub fn threads(&self) -> (usize, String) {
        if let Some(limit) = &self.cpu {
            let whole = usize::try_from(limit.value / 1000).unwrap_or(usize::MAX).max(1);
            // The system's word on cores knows of quotas, too.
            if whole <= self.cores {
                let (whole_cores, rest) = (limit.value / 1000, limit.value % 1000);
                return (whole, format!("{} allows {whole_cores}.{rest:03} cores", limit.file.display()));
            }
        }
        (self.cores, "the cores that this process may run on".into())
    }

    /// A share of the memory, but no more than this, and why so much.
    pub fn share(&self, divisor: u64, most: u64) -> (u64, String) {
        match &self.memory {
            Some(limit) if limit.value / divisor.max(1) < most => {
                let share = limit.value / divisor.max(1);
                (
                    share,
                    format!("1/{divisor} of the {} bytes that {} allows", limit.value, limit.file.display()),
                )
            }
            Some(_) => (most, "the memory limit allows it".into()),
            None => (most, "there is no memory limit".into()),
        }
    }
}

/// The group, and each above it up to the root. A path that is none here is that of the host: then there is the root.
fn levels(root: &Path, path: &str) -> Vec<PathBuf> {
    let mut levels = Vec::new();
    let inside = path.trim_start_matches('/');
    // A group outside of the own namespace is written with `..`; it says nothing about files here.
    if !inside.is_empty() && !inside.split('/').any(|part| part == "..") {
        let own = root.join(inside);
        levels.extend(own.ancestors().take_while(|level| *level != root).map(Path::to_owned));
    }
    levels.push(root.to_owned());
    levels
}

fn least(one: Option<Limit>, other: Option<Limit>) -> Option<Limit> {
    match (one, other) {
        (Some(one), Some(other)) if other.value < one.value => Some(other),
        (None, other) => other,
        (one, _) => one,
    }
}

fn quota(file: &Path) -> Option<Limit> {
    let text = fs::read_to_string(file).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    cores(quota.parse().ok()?, period.parse().ok()?, file.to_owned())
}

fn quota_1(group: &Path) -> Option<Limit> {
    let file = group.join("cpu.cfs_quota_us");
    // No limit is -1, which is no such number.
    let quota = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
    let period = fs::read_to_string(group.join("cpu.cfs_period_us")).ok()?.trim().parse().ok()?;
    cores(quota, period, file)
}

fn cores(quota: u64, period: u64, file: PathBuf) -> Option<Limit> {
    let value = quota.checked_mul(1000)?.checked_div(period)?;
    (quota > 0).then_some(Limit { value, file })
}

fn bytes(file: &Path) -> Option<Limit> {
    let value: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (1..UNLIMITED).contains(&value).then(|| Limit { value, file: file.to_owned() })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        dir
    }

    /// A value and its file.
    type Told = Option<(u64, String)>;

    fn read(tree: &TempDir, groups: &str) -> (Told, Told) {
        let found = Container::read(tree.path(), groups, 8);
        let told = |limit: Limit| {
            let file = limit.file.strip_prefix(tree.path()).unwrap().to_str().unwrap().to_owned();
            (limit.value, file)
        };
        (found.cpu.map(told), found.memory.map(told))
    }

    fn limit(value: u64, file: &str) -> Told {
        Some((value, file.to_owned()))
    }

    #[test]
    fn version_2_in_a_namespace_of_its_own() {
        let tree = tree(&[("cpu.max", "150000 100000"), ("memory.max", "134217728")]);
        assert_eq!(read(&tree, "0::/\n"), (limit(1500, "cpu.max"), limit(128 << 20, "memory.max")));
    }

    #[test]
    fn version_2_is_bound_by_the_groups_above() {
        let tree = tree(&[
            ("cpu.max", "max 100000"),
            ("pod/cpu.max", "50000 100000"),
            ("pod/memory.max", "1000000"),
            ("pod/own/cpu.max", "200000 100000"),
            ("pod/own/memory.max", "900000"),
        ]);
        let found = read(&tree, "0::/pod/own\n");
        assert_eq!(found, (limit(500, "pod/cpu.max"), limit(900_000, "pod/own/memory.max")));
        let (none, memory) = read(&tree, "0::/\n");
        assert_eq!((none, memory), (None, None), "`max` is no limit, and what lies below is another's");
    }

    #[test]
    fn version_1_with_the_path_of_the_host_or_here() {
        let groups = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n";
        let mounted = tree(&[
            ("cpu,cpuacct/cpu.cfs_quota_us", "250000"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000"),
            ("memory/memory.limit_in_bytes", "67108864"),
        ]);
        let found = read(&mounted, groups);
        let (cpu, memory) = ("cpu,cpuacct/cpu.cfs_quota_us", "memory/memory.limit_in_bytes");
        assert_eq!(found, (limit(2500, cpu), limit(64 << 20, memory)));
        let whole = tree(&[
            ("cpu/cpu.cfs_quota_us", "-1"),
            ("cpu/cpu.cfs_period_us", "100000"),
            ("cpu/docker/abc/cpu.cfs_quota_us", "100000"),
            ("cpu/docker/abc/cpu.cfs_period_us", "50000"),
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/docker/abc/memory.limit_in_bytes", "9223372036854771712"),
        ]);
        assert_eq!(read(&whole, groups), (limit(2000, "cpu/docker/abc/cpu.cfs_quota_us"), None));
    }

    #[test]
    fn what_makes_no_sense_limits_nothing() {
        let odd = tree(&[("cpu.max", "many 100000"), ("memory.max", "-5"), ("secret/cpu.max", "1 1")]);
        for groups in ["", "0::/\n", "nonsense", "0::/../secret\n", "0:\n", "0::/nonexistent/deep\n"] {
            assert_eq!(read(&odd, groups), (None, None), "{groups}");
        }
        let zero = tree(&[("cpu.max", "100000 0"), ("memory.max", "0")]);
        assert_eq!(read(&zero, "0::/\n"), (None, None));
    }

    #[test]
    fn numbers_for_defaults() {
        let cpu = |value| Some(Limit { value, file: "/cpu.max".into() });
        let with = |cores, cpu| Container { cores, cpu, memory: None }.threads();
        for (cores, quota, threads) in [(8, 500, 1), (8, 1999, 1), (8, 2000, 2), (2, 2500, 2), (8, 8000, 8)] {
            let (found, why) = with(cores, cpu(quota));
            assert_eq!(found, threads, "{quota}");
            assert!(why.starts_with("/cpu.max allows "), "{why}");
        }
        assert_eq!(with(8, cpu(1500)).1, "/cpu.max allows 1.500 cores");
        for none in [with(4, None), with(4, cpu(16_000))] {
            assert_eq!(none, (4, "the cores that this process may run on".into()));
        }
        let memory = Some(Limit { value: 128 << 20, file: "/memory.max".into() });
        let container = Container { cores: 1, cpu: None, memory };
        let (share, why) = container.share(16, 32 << 20);
        assert_eq!((share, why.as_str()), (8 << 20, "1/16 of the 134217728 bytes that /memory.max allows"));
        assert_eq!(container.share(4, 1 << 20), (1 << 20, "the memory limit allows it".into()));
    }

    #[test]
    fn this_process_is_somewhere() {
        let here = Container::here();
        assert!(here.cores >= 1 && here.threads().0 >= 1);
        for limit in [here.cpu, here.memory].into_iter().flatten() {
            assert!(limit.value > 0 && limit.file.is_file(), "{limit:?}");
        }
    }
}
