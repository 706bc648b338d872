//! What a publication that is no longer fresh may still decide.

use jiff::Timestamp;

use crate::model::{CheckRequest, Freshness, Plane, Undecided};
use crate::snapshot::Snapshot;

/// What is answered by a policy of some age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenOld {
    /// Everything.
    #[default]
    Serve,
    /// Only actions that read: those that end in `/read`. There is no answer to the others.
    ReadOnly,
    /// Nothing: there is no answer, and whoever enforces refuses.
    Deny,
}

/// What is answered by a policy of some age, for each plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByPlane {
    /// Actions of the control plane.
    pub control: WhenOld,
    /// Actions of the data plane.
    pub data: WhenOld,
}

/// What is answered when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreshnessRules {
    /// When no source has confirmed the policy for longer than the setting `max-age`.
    pub stale: ByPlane,
    /// When its signatures have expired.
    pub expired: ByPlane,
}

impl ByPlane {
    /// One rule for both planes.
    pub const fn both(rule: WhenOld) -> Self {
        Self { control: rule, data: rule }
    }

    fn answers(self, request: &CheckRequest<'_>) -> bool {
        let rule = match request.plane {
            Plane::Control => self.control,
            Plane::Data => self.data,
        };
        match rule {
            WhenOld::Serve => true,
            WhenOld::ReadOnly => reads(request.action.as_str()),
            WhenOld::Deny => false,
        }
    }
}

impl FreshnessRules {
    /// Lets pass what the policy may decide at its age.
    #[inline]
    pub(super) fn admit(
        &self,
        snapshot: &Snapshot,
        request: &CheckRequest<'_>,
        now: Timestamp,
    ) -> Result<(), Undecided> {
        let freshness = snapshot.freshness(now);
        let answers = match freshness {
            Freshness::Fresh => return Ok(()),
            Freshness::Stale => self.stale.answers(request),
            Freshness::Expired => self.expired.answers(request),
        };
        if answers { Ok(()) } else { Err(Undecided::PolicyOutdated(freshness)) }
    }

    /// The end of what a caller may keep: an answer that would no longer be given must not live on in its cache.
    #[inline]
    pub(super) fn end(&self, snapshot: &Snapshot, request: &CheckRequest<'_>) -> Option<Timestamp> {
        let lease = snapshot.lease()?;
        (!self.expired.answers(request)).then(|| lease.expires())
    }
}

fn reads(action: &str) -> bool {
    action.rsplit_once('/').is_some_and(|(_, verb)| verb.eq_ignore_ascii_case("read"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::SignedDuration;

    use super::*;
    use crate::authorizer::{Authorizer, CacheSettings};
    use crate::cache::CachePolicy;
    use crate::clock::Clock;
    use crate::model::{Action, Documents, Groups, PrincipalId, Scope, Subject};
    use crate::policy::{CompileOptions, Policy};
    use crate::snapshot::{Lease, Publication, cell};

    fn published(lease: Lease) -> Arc<Publication> {
        Arc::new(Publication {
            serial: 7,
            source: String::new(),
            policy_name: String::new(),
            published_at: None,
            published_by: String::new(),
            message: String::new(),
            lease,
        })
    }

    #[test]
    fn what_is_answered_at_each_age() {
        let start = Timestamp::UNIX_EPOCH;
        let after = |seconds| start + SignedDuration::from_secs(seconds);
        let rules = FreshnessRules {
            stale: ByPlane { control: WhenOld::Serve, data: WhenOld::ReadOnly },
            expired: ByPlane { control: WhenOld::ReadOnly, data: WhenOld::Deny },
        };
        let clock = Clock::manual(start);
        let (mut writer, reader) = cell();
        let cache = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: 1 << 20 };
        let authorizer = Authorizer::new(reader, cache, clock.clone()).with_freshness(rules);
        let policy = Policy::compile(&Documents::default(), CompileOptions::default()).unwrap();
        let publication = published(Lease::new(start, after(100), Duration::from_secs(10)));
        let (snapshot, _) = writer.activate_published(policy, Arc::clone(&publication), start);
        assert_eq!(snapshot.serial, 7);

        let ask = |action: &str, plane| {
            let request = CheckRequest::new(
                Subject { principal: PrincipalId::new("alice"), groups: Groups::NONE },
                Action::parse(action).unwrap(),
                plane,
                Scope::parse("/").unwrap(),
            );
            authorizer.check(&snapshot, &request, None).map(|answer| answer.evaluation.valid_until)
        };
        let all = || {
            [
                ("A.B/c/READ", Plane::Control),
                ("A.B/c/write", Plane::Control),
                ("A.B/c/read", Plane::Data),
                ("A.B/c/read/action", Plane::Data),
            ]
            .map(|(action, plane)| ask(action, plane))
        };
        let stale = Err(Undecided::PolicyOutdated(Freshness::Stale));
        let expired = Err(Undecided::PolicyOutdated(Freshness::Expired));
        let until = Ok(Some(after(100)));
        // What expiry would end does not live on in the cache of a caller; what it would not, may.
        let fresh = [Ok(None), until.clone(), until.clone(), until.clone()];
        assert_eq!(all(), fresh);
        clock.set(after(10));
        assert_eq!(all(), fresh, "not confirmed for just as long as it may");
        clock.set(after(11));
        assert_eq!(all(), [Ok(None), until.clone(), until.clone(), stale.clone()]);
        publication.lease.renew(after(11), after(200));
        let later = Ok(Some(after(200)));
        assert_eq!(all(), [Ok(None), later.clone(), later.clone(), later]);
        clock.set(after(200));
        assert_eq!(all(), [Ok(None), expired.clone(), expired.clone(), expired.clone()]);
        // A clock that was set back does not make it older.
        clock.set(after(5));
        assert_eq!(snapshot.freshness(clock.now()), Freshness::Fresh);
        // Set back further than it may go unconfirmed, it says nothing about its age any more.
        clock.set(after(-11));
        assert_eq!(snapshot.freshness(clock.now()), Freshness::Stale);
    }
}
