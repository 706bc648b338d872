//! The decision cache: for requests that are dear to evaluate, and for no others.
//!
//! A hit costs a microsecond or two, most of it memory; a common request is evaluated in less. So the cache is
//! asked only from a cost that is known before evaluating (see [`cost`]), found by `benches/check.rs`.
//!
//! INVARIANT (cache key): the key holds the generation of the snapshot and every input that evaluation reads, as it
//! came, never a mere hash of it. An entry can therefore answer the one question it was made for, under the one
//! policy it was made with, and nothing has to be invalidated: entries of older generations are never asked for and
//! age out. Imports `model` and `policy`.

use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use moka::sync::Cache;
use moka::{Equivalent, Expiry};

use crate::model::{CheckRequest, Plane, PrincipalId};
use crate::policy::Evaluation;

/// When the cache is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// Never.
    Off,
    /// For requests whose [`cost`] is at least this; 0 means always.
    CostAtLeast(u32),
}

/// Decisions by everything they depend on.
#[derive(Debug)]
pub struct DecisionCache {
    entries: Cache<Key, Cached>,
    policy: CachePolicy,
}

/// What evaluation reads, as the caller gave it.
#[derive(Clone, Copy)]
struct KeyRef<'a> {
    generation: u64,
    request: &'a CheckRequest<'a>,
}

/// The same, kept. Principal and scope are in normal form, the rest as it came.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    generation: u64,
    principal: Principal,
    groups: Box<[String]>,
    action: Box<str>,
    plane: Plane,
    scope: Box<str>,
}

#[derive(Debug, PartialEq, Eq)]
enum Principal {
    Guid(u128),
    Text(Box<str>),
}

#[derive(Clone, Debug)]
struct Cached {
    evaluation: Evaluation,
    /// Set when the evaluation holds for a limited time only.
    lifetime: Option<Duration>,
}

/// What a request will cost to evaluate, in principals that the caller asserts times levels of the scope: known at
/// once, and what evaluation time grows with.
pub fn cost(request: &CheckRequest<'_>) -> u32 {
    let principals = request.subject.groups.len().saturating_add(1);
    let levels = request.scope.as_str().bytes().filter(|&byte| byte == b'/').count();
    u32::try_from(principals.saturating_mul(levels)).unwrap_or(u32::MAX)
}

impl DecisionCache {
    /// A cache of at most `max_bytes`, keys and values together.
    pub fn new(policy: CachePolicy, max_bytes: u64) -> Self {
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &Key, value: &Cached| key.weight().saturating_add(value.weight()))
            .expire_after(Lifetime)
            .build();
        Self { entries, policy }
    }

    /// Whether this request is worth asking for.
    pub fn serves(&self, request: &CheckRequest<'_>) -> bool {
        match self.policy {
            CachePolicy::Off => false,
            CachePolicy::CostAtLeast(0) => true,
            CachePolicy::CostAtLeast(least) => cost(request) >= least,
        }
    }

    /// The decision that was made for this request under this generation and still holds at `now`.
    pub fn get(&self, generation: u64, request: &CheckRequest<'_>, now: Timestamp) -> Option<Evaluation> {
        let cached = self.entries.get(&KeyRef { generation, request })?;
        // The cache's own clock removes entries; the decision's clock says whether one still holds.
        cached.evaluation.valid_until.is_none_or(|end| now < end).then_some(cached.evaluation)
    }

    /// Keeps a decision. The caller keeps "undecided" out: it is no [`Evaluation`].
    pub fn insert(
        &self,
        generation: u64,
        request: &CheckRequest<'_>,
        evaluation: &Evaluation,
        now: Timestamp,
    ) {
        let lifetime = match evaluation.valid_until.map(|end| Duration::try_from(end.duration_since(now))) {
            None => None,
            Some(Ok(left)) if !left.is_zero() => Some(left),
            // Over already.
            Some(_) => return,
        };
        let cached = Cached { evaluation: evaluation.clone(), lifetime };
        self.entries.insert(KeyRef { generation, request }.keep(), cached);
    }

    /// Entries and bytes, as of the cache's last housekeeping.
    pub fn size(&self) -> (u64, u64) {
        (self.entries.entry_count(), self.entries.weighted_size())
    }

    /// Does the housekeeping that is otherwise done now and then.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        self.entries.run_pending_tasks();
    }
}

// === keys ===

impl KeyRef<'_> {
    fn keep(&self) -> Key {
        let request = self.request;
        Key {
            generation: self.generation,
            principal: match request.subject.principal {
                PrincipalId::Guid(guid) => Principal::Guid(guid.as_u128()),
                PrincipalId::Text(text) => Principal::Text(text.into()),
            },
            groups: request.subject.groups.into(),
            action: request.action.as_str().into(),
            plane: request.plane,
            scope: request.scope.as_str().into(),
        }
    }
}

/// Must feed the hasher as the implementation for [`Key`] does.
impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let request = self.request;
        self.generation.hash(state);
        match request.subject.principal {
            PrincipalId::Guid(guid) => guid.as_u128().hash(state),
            PrincipalId::Text(text) => text.hash(state),
        }
        request.subject.groups.hash(state);
        request.action.as_str().hash(state);
        request.plane.hash(state);
        request.scope.as_str().hash(state);
    }
}

/// Must feed the hasher as the implementation for [`KeyRef`] does.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.generation.hash(state);
        match &self.principal {
            Principal::Guid(guid) => guid.hash(state),
            Principal::Text(text) => text.hash(state),
        }
        self.groups.hash(state);
        self.action.hash(state);
        self.plane.hash(state);
        self.scope.hash(state);
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        // Taken apart so that a new field of either cannot be forgotten here.
        let Key { generation, principal, groups, action, plane, scope } = key;
        let CheckRequest { subject, action: asked_action, plane: asked_plane, scope: asked_scope, .. } =
            self.request;
        let same_principal = match (subject.principal, principal) {
            (PrincipalId::Guid(asked), Principal::Guid(kept)) => asked.as_u128() == *kept,
            (PrincipalId::Text(asked), Principal::Text(kept)) => *asked == **kept,
            _ => false,
        };
        self.generation == *generation
            && same_principal
            && *asked_plane == *plane
            && asked_action.as_str() == &**action
            && asked_scope.as_str() == &**scope
            && subject.groups == &**groups
    }
}

// === weights and lifetimes ===

impl Key {
    fn weight(&self) -> u32 {
        let principal = match &self.principal {
            Principal::Guid(_) => 0,
            Principal::Text(text) => text.len(),
        };
        let groups: usize =
            self.groups.iter().map(|group| group.len().saturating_add(size_of::<String>())).sum();
        let bytes = [size_of::<Self>(), principal, groups, self.action.len(), self.scope.len()];
        u32::try_from(bytes.into_iter().fold(0_usize, usize::saturating_add)).unwrap_or(u32::MAX)
    }
}

impl Cached {
    fn weight(&self) -> u32 {
        // The cache's own share of an entry, measured at about 200 bytes.
        let bytes = size_of::<Self>().saturating_add(200);
        let spilled = if self.evaluation.audited.spilled() {
            self.evaluation.audited.len().saturating_mul(8)
        } else {
            0
        };
        u32::try_from(bytes.saturating_add(spilled)).unwrap_or(u32::MAX)
    }
}

/// Each entry lives as long as its decision holds.
struct Lifetime;

impl Expiry<Key, Cached> for Lifetime {
    fn expire_after_create(&self, _key: &Key, value: &Cached, _now: Instant) -> Option<Duration> {
        value.lifetime
    }

    // Without this an overwritten entry would keep the deadline of the one before.
    fn expire_after_update(
        &self,
        _key: &Key,
        value: &Cached,
        _now: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        value.lifetime
    }
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;

    use super::*;
    use crate::model::{Action, Decision, Scope, Subject, Why};

    const VAULT: &str = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/app";

    fn request<'a>(
        principal: &'a str,
        groups: &'a [String],
        action: &'a str,
        scope: &'a str,
    ) -> CheckRequest<'a> {
        CheckRequest::new(
            Subject { principal: PrincipalId::new(principal), groups },
            Action::parse(action).unwrap(),
            Plane::Control,
            Scope::parse(scope).unwrap(),
        )
    }

    fn evaluation(valid_until: Option<Timestamp>) -> Evaluation {
        Evaluation {
            decision: Decision::NotAllowed(Why::NoRoleAssignment),
            audited: SmallVec::new(),
            valid_until,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn every_input_is_part_of_the_key() {
        let cache = DecisionCache::new(CachePolicy::CostAtLeast(0), 1 << 20);
        let groups = ["g1".to_owned(), "g2".to_owned()];
        let base = request("alice", &groups, "A.B/c/read", VAULT);
        cache.insert(1, &base, &evaluation(None), at(0));
        assert_eq!(cache.get(1, &base, at(0)), Some(evaluation(None)));

        assert!(cache.get(2, &base, at(0)).is_none(), "generation");
        let joined = ["g1g2".to_owned()];
        for (other, what) in [
            (request("bob", &groups, "A.B/c/read", VAULT), "principal"),
            (request("alice", &groups[..1], "A.B/c/read", VAULT), "groups"),
            (request("alice", &joined, "A.B/c/read", VAULT), "where one group ends"),
            (request("alice", &groups, "A.B/c/write", VAULT), "action"),
            (request("alice", &groups, "A.B/c/read", "/"), "scope"),
            (CheckRequest { plane: Plane::Data, ..base }, "plane"),
        ] {
            assert!(cache.get(1, &other, at(0)).is_none(), "{what}");
        }
    }

    #[test]
    fn spellings_of_one_guid_share_an_entry() {
        let cache = DecisionCache::new(CachePolicy::CostAtLeast(0), 1 << 20);
        let dashed = request("a1b2c3d4-0000-0000-0000-00000000000f", &[], "A.B/c/read", VAULT);
        let braced = request("{A1B2C3D400000000000000000000000F}", &[], "A.B/c/read", VAULT);
        cache.insert(1, &dashed, &evaluation(None), at(0));
        assert!(cache.get(1, &braced, at(0)).is_some());
    }

    #[test]
    fn an_entry_answers_no_longer_than_its_decision_holds() {
        let cache = DecisionCache::new(CachePolicy::CostAtLeast(0), 1 << 20);
        let asked = request("alice", &[], "A.B/c/read", VAULT);
        cache.insert(1, &asked, &evaluation(Some(at(1000))), at(10));
        assert!(cache.get(1, &asked, at(999)).is_some());
        assert!(cache.get(1, &asked, at(1000)).is_none(), "the end is excluded");
        cache.insert(2, &asked, &evaluation(Some(at(10))), at(10));
        assert!(cache.get(2, &asked, at(9)).is_none(), "was over when it came");
    }

    #[test]
    fn an_overwritten_entry_has_the_new_deadline() {
        let key = KeyRef { generation: 1, request: &request("alice", &[], "A.B/c/read", VAULT) }.keep();
        let value = |lifetime| Cached { evaluation: evaluation(None), lifetime };
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(9));
        let now = Instant::now();
        assert_eq!(Lifetime.expire_after_update(&key, &value(Some(short)), now, Some(long)), Some(short));
        assert_eq!(Lifetime.expire_after_update(&key, &value(None), now, Some(long)), None);
    }

    #[test]
    fn asked_only_from_the_threshold_on() {
        let groups: Vec<String> = (0..9).map(|number| format!("g{number}")).collect();
        let asked = request("alice", &groups, "A.B/c/read", VAULT);
        assert_eq!(cost(&asked), 40, "ten principals, four levels");
        let serves = |policy| DecisionCache::new(policy, 1 << 20).serves(&asked);
        assert!(!serves(CachePolicy::Off));
        assert!(serves(CachePolicy::CostAtLeast(0)));
        assert!(serves(CachePolicy::CostAtLeast(40)));
        assert!(!serves(CachePolicy::CostAtLeast(41)));
    }

    #[test]
    fn stays_within_its_bytes() {
        let cache = DecisionCache::new(CachePolicy::CostAtLeast(0), 64 << 10);
        for number in 0..2_000 {
            let principal = format!("principal-{number}");
            cache.insert(1, &request(&principal, &[], "A.B/c/read", VAULT), &evaluation(None), at(0));
        }
        cache.settle();
        let (entries, bytes) = cache.size();
        assert!(entries > 0 && bytes <= 64 << 10, "{entries} entries, {bytes} bytes");
    }
}
