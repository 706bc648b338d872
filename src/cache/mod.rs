//! The decision cache: for requests that are dear to evaluate, and for no others.
//!
//! A hit costs a microsecond or two, most of it memory; a common request is evaluated in less. So the cache is
//! asked only from a cost that is known before evaluating (see [`cost`]), found by `benches/check.rs`.
//!
//! INVARIANT (cache key): the key holds the generation of the snapshot and every input that evaluation reads, as it
//! came, never a mere hash of it; of attributes and suboperation what the conditions of the policy read. An entry can therefore answer the one question it was made for, under the one
//! policy it was made with, and nothing has to be invalidated: entries of older generations are never asked for and
//! age out. Imports `model`,
//! `condition` (for what is read) and `policy`.

mod attributes;

use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use ahash::RandomState;
use jiff::Timestamp;
use moka::sync::Cache;
use moka::{Equivalent, Expiry};

use crate::condition::Uses;
use crate::model::{
    AttributeBag, Attributes, CheckRequest, NoAttributes, Plane, PrincipalId, RequestAttributes,
};
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
    entries: Cache<Key, Cached, RandomState>,
    policy: CachePolicy,
    /// Callers choose the attributes, so their hash is seeded.
    seed: RandomState,
}

/// What evaluation reads, as the caller gave it.
#[derive(Clone, Copy)]
struct KeyRef<'a> {
    generation: u64,
    request: &'a CheckRequest<'a>,
    /// What the policy's conditions read: the rest of the attributes cannot matter.
    uses: Uses,
    /// Over the attributes that are read, in no order; `None` without any.
    attributes: Option<u64>,
}

/// The same, kept. Principal and scope are in normal form, the rest as it came.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    generation: u64,
    principal: Principal,
    groups: Box<[Box<str>]>,
    action: Box<str>,
    plane: Plane,
    scope: Box<str>,
    sub_operation: Option<Box<str>>,
    attributes_hash: Option<u64>,
    /// Of those that are read, by source; `None` without any.
    attributes: Option<Box<[Attributes; 4]>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Principal {
    Guid(u128),
    Text(Box<str>),
}

#[derive(Clone, Debug)]
struct Cached {
    evaluation: Evaluation,
    /// When it was made: a clock that is set back asks anew, for what holds now need not have held before.
    since: Timestamp,
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
            .build_with_hasher(RandomState::new());
        Self { entries, policy, seed: RandomState::new() }
    }

    /// Whether this request is worth asking for.
    pub fn serves(&self, request: &CheckRequest<'_>) -> bool {
        match self.policy {
            CachePolicy::Off => false,
            CachePolicy::CostAtLeast(0) => true,
            CachePolicy::CostAtLeast(least) => cost(request) >= least,
        }
    }

    /// The decision that was made for this request under this generation and still holds at `now`. `uses` is what the
    /// policy of the generation reads.
    pub fn get(
        &self,
        generation: u64,
        uses: Uses,
        request: &CheckRequest<'_>,
        now: Timestamp,
    ) -> Option<Evaluation> {
        let cached = self.entries.get(&self.key(generation, uses, request))?;
        // The cache's own clock removes entries; the decision's clock says whether one still holds.
        let holds = cached.since <= now && cached.evaluation.valid_until.is_none_or(|end| now < end);
        holds.then_some(cached.evaluation)
    }

    /// Keeps a decision. The caller keeps "undecided" out: it is no [`Evaluation`].
    pub fn insert(
        &self,
        generation: u64,
        uses: Uses,
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
        let cached = Cached { evaluation: evaluation.clone(), since: now, lifetime };
        self.entries.insert(self.key(generation, uses, request).keep(), cached);
    }

    fn key<'a>(&self, generation: u64, uses: Uses, request: &'a CheckRequest<'a>) -> KeyRef<'a> {
        let attributes = if uses.any_attribute() {
            let hashes = used(request, uses).map(|bag| attributes::hash(&self.seed, bag));
            // Sources count apart: the same attribute under another one is another attribute.
            hashes.iter().any(Option::is_some).then(|| self.seed.hash_one(hashes))
        } else {
            None
        };
        KeyRef { generation, request, uses, attributes }
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

/// The attributes by source, those that are not read left out.
fn used<'a>(request: &CheckRequest<'a>, uses: Uses) -> [&'a dyn AttributeBag; 4] {
    let RequestAttributes { request, resource, principal, environment } = request.attributes;
    [
        (request, Uses::REQUEST),
        (resource, Uses::RESOURCE),
        (principal, Uses::PRINCIPAL),
        (environment, Uses::ENVIRONMENT),
    ]
    .map(|(bag, source)| if uses.contains(source) { bag } else { &NoAttributes })
}

impl KeyRef<'_> {
    fn sub_operation(&self) -> Option<&str> {
        self.request.sub_operation.filter(|name| !name.is_empty() && self.uses.contains(Uses::SUB_OPERATION))
    }

    fn keep(&self) -> Key {
        let request = self.request;
        Key {
            generation: self.generation,
            principal: match request.subject.principal {
                PrincipalId::Guid(guid) => Principal::Guid(guid.as_u128()),
                PrincipalId::Text(text) => Principal::Text(text.into()),
            },
            groups: request.subject.groups.iter().map(Box::from).collect(),
            action: request.action.as_str().into(),
            plane: request.plane,
            scope: request.scope.as_str().into(),
            sub_operation: self.sub_operation().map(Box::from),
            attributes_hash: self.attributes,
            attributes: self.attributes.map(|_| Box::new(used(request, self.uses).map(Attributes::from_bag))),
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
        self.sub_operation().hash(state);
        self.attributes.hash(state);
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
        state.write_usize(self.groups.len());
        self.groups.iter().for_each(|id| id.hash(state));
        self.action.hash(state);
        self.plane.hash(state);
        self.scope.hash(state);
        self.sub_operation.as_deref().hash(state);
        self.attributes_hash.hash(state);
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        // Taken apart so that a new field of either cannot be forgotten here.
        let Key {
            generation,
            principal,
            groups,
            action,
            plane,
            scope,
            sub_operation,
            attributes_hash,
            attributes,
        } = key;
        // Suboperation and attributes as far as they are read.
        let CheckRequest {
            subject,
            action: asked_action,
            plane: asked_plane,
            scope: asked_scope,
            sub_operation: _,
            attributes: _,
        } = self.request;
        let same_attributes = || match attributes {
            None => true,
            Some(kept) => used(self.request, self.uses)
                .into_iter()
                .zip(kept.iter())
                .all(|(bag, kept)| attributes::same(bag, kept)),
        };
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
            && subject.groups.len() == groups.len()
            && subject.groups.iter().zip(groups).all(|(asked, kept)| *asked == **kept)
            && self.sub_operation() == sub_operation.as_deref()
            && self.attributes == *attributes_hash
            && same_attributes()
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
            self.groups.iter().map(|group| group.len().saturating_add(size_of::<Box<str>>())).sum();
        let attributes = self.attributes.iter().flat_map(|sources| sources.iter());
        let attributes: usize = attributes.map(attributes::weight).sum();
        let bytes = [size_of::<Self>(), principal, groups, self.action.len(), self.scope.len(), attributes];
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
    use serde_json::json;
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
            Subject { principal: PrincipalId::new(principal), groups: groups.into() },
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
        cache.insert(1, Uses::NOTHING, &base, &evaluation(None), at(0));
        assert_eq!(cache.get(1, Uses::NOTHING, &base, at(0)), Some(evaluation(None)));

        assert!(cache.get(2, Uses::NOTHING, &base, at(0)).is_none(), "generation");
        let joined = ["g1g2".to_owned()];
        for (other, what) in [
            (request("bob", &groups, "A.B/c/read", VAULT), "principal"),
            (request("alice", &groups[..1], "A.B/c/read", VAULT), "groups"),
            (request("alice", &joined, "A.B/c/read", VAULT), "where one group ends"),
            (request("alice", &groups, "A.B/c/write", VAULT), "action"),
            (request("alice", &groups, "A.B/c/read", "/"), "scope"),
            (CheckRequest { plane: Plane::Data, ..base }, "plane"),
        ] {
            assert!(cache.get(1, Uses::NOTHING, &other, at(0)).is_none(), "{what}");
        }
    }

    #[test]
    fn what_conditions_read_is_part_of_the_key_and_nothing_else() {
        let cache = DecisionCache::new(CachePolicy::CostAtLeast(0), 1 << 20);
        let tags =
            Attributes::from_json(&json!({"a:tags": {"Project": "Cascade", "Owner": "ada"}, "a:n": [1, 2]}));
        let other =
            Attributes::from_json(&json!({"a:tags": {"Project": "Baker", "Owner": "ada"}, "a:n": [1, 2]}));
        let copy = tags.clone();
        let with = |resource, request: &'static str| {
            let mut asked = self::request("alice", &[], "A.B/c/read", VAULT);
            asked.attributes.resource = resource;
            asked.sub_operation = Some(request);
            asked
        };
        let uses = Uses::RESOURCE.with(Uses::SUB_OPERATION);
        cache.insert(1, uses, &with(&tags, "Blob.List"), &evaluation(None), at(0));
        let hit = |uses, asked: CheckRequest<'_>| cache.get(1, uses, &asked, at(0)).is_some();
        assert!(hit(uses, with(&copy, "Blob.List")));
        assert!(!hit(uses, with(&other, "Blob.List")), "another tag");
        assert!(!hit(uses, with(&NoAttributes, "Blob.List")), "no attributes");
        assert!(!hit(uses, with(&tags, "Blob.Read")), "another suboperation");
        let elsewhere = CheckRequest {
            attributes: RequestAttributes { request: &tags, ..RequestAttributes::NONE },
            ..with(&NoAttributes, "Blob.List")
        };
        assert!(!hit(Uses::REQUEST.with(uses), elsewhere), "the same under another source");

        cache.insert(2, Uses::REQUEST, &with(&tags, "Blob.List"), &evaluation(None), at(0));
        let unread = cache.get(2, Uses::REQUEST, &with(&other, ""), at(0));
        assert!(unread.is_some(), "what no condition reads does not matter");
    }

    #[test]
    fn spellings_of_one_guid_share_an_entry() {
        let cache = DecisionCache::new(CachePolicy::CostAtLeast(0), 1 << 20);
        let dashed = request("a1b2c3d4-0000-0000-0000-00000000000f", &[], "A.B/c/read", VAULT);
        let braced = request("{A1B2C3D400000000000000000000000F}", &[], "A.B/c/read", VAULT);
        cache.insert(1, Uses::NOTHING, &dashed, &evaluation(None), at(0));
        assert!(cache.get(1, Uses::NOTHING, &braced, at(0)).is_some());
    }

    #[test]
    fn an_entry_answers_no_longer_than_its_decision_holds() {
        let cache = DecisionCache::new(CachePolicy::CostAtLeast(0), 1 << 20);
        let asked = request("alice", &[], "A.B/c/read", VAULT);
        cache.insert(1, Uses::NOTHING, &asked, &evaluation(Some(at(1000))), at(10));
        assert!(cache.get(1, Uses::NOTHING, &asked, at(999)).is_some());
        assert!(cache.get(1, Uses::NOTHING, &asked, at(9)).is_none(), "the clock was set back");
        assert!(cache.get(1, Uses::NOTHING, &asked, at(1000)).is_none(), "the end is excluded");
        cache.insert(2, Uses::NOTHING, &asked, &evaluation(Some(at(10))), at(10));
        assert!(cache.get(2, Uses::NOTHING, &asked, at(9)).is_none(), "was over when it came");
    }

    #[test]
    fn an_overwritten_entry_has_the_new_deadline() {
        let asked = request("alice", &[], "A.B/c/read", VAULT);
        let cache = DecisionCache::new(CachePolicy::CostAtLeast(0), 1 << 20);
        let key = cache.key(1, Uses::NOTHING, &asked).keep();
        let value = |lifetime| Cached { evaluation: evaluation(None), since: at(0), lifetime };
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
            cache.insert(
                1,
                Uses::NOTHING,
                &request(&principal, &[], "A.B/c/read", VAULT),
                &evaluation(None),
                at(0),
            );
        }
        cache.settle();
        let (entries, bytes) = cache.size();
        assert!(entries > 0 && bytes <= 64 << 10, "{entries} entries, {bytes} bytes");
    }
}
