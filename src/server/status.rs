//! Which policy is active: the calls that tell it, and tell when it changes.

use std::pin::Pin;

use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use tokio::sync::watch;
use tonic::Status;

use crate::authorizer::Authorizer;
use crate::drain::Drain;
use crate::proto::v1;
use crate::readiness::Readiness;
use crate::snapshot::Snapshot;

use super::convert;

/// What the updater tells, and the end of it all. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PolicyFeed {
    /// Told of every failure to update.
    pub readiness: Readiness,
    /// The generation, at each activation.
    pub activations: watch::Receiver<u64>,
    /// Streams end with it: an open one would hold a graceful shutdown for as long as its client likes.
    pub drain: Drain,
}

/// What a call that watches answers with.
pub(super) type Watched = Pin<Box<dyn Stream<Item = Result<v1::WatchPolicyResponse, Status>> + Send>>;

impl PolicyFeed {
    /// The state now.
    pub(super) fn status(&self, authorizer: &Authorizer) -> v1::PolicyStatus {
        let failure = self.readiness.report().last_reload_failure;
        let active = authorizer.snapshot();
        let snapshot = active.get();
        v1::PolicyStatus {
            policy: snapshot.map(|snapshot| convert::identity(authorizer, snapshot)),
            activated_at: snapshot.map(|snapshot| convert::timestamp(snapshot.activated_at)),
            publication: snapshot.and_then(publication),
            update_failed_at: failure.as_ref().map(|failure| convert::timestamp(failure.at)),
            update_problems: failure.map(|failure| failure.problems).unwrap_or_default(),
        }
    }

    /// The state now, and after each activation.
    pub(super) fn watch(&self, authorizer: &Authorizer) -> Watched {
        let (feed, authorizer) = (self.clone(), authorizer.clone());
        Box::pin(stream::unfold(Some((feed, authorizer, true)), async |state| {
            let (mut feed, authorizer, first) = state?;
            if !first {
                tokio::select! {
                    changed = feed.activations.changed() => changed.ok()?,
                    () = feed.drain.started() => return None,
                }
            }
            // Seen before it is read: what comes in between is sent once more, never lost.
            feed.activations.borrow_and_update();
            let status = Some(feed.status(&authorizer));
            Some((Ok(v1::WatchPolicyResponse { status }), Some((feed, authorizer, false))))
        }))
    }
}

fn publication(snapshot: &Snapshot) -> Option<v1::Publication> {
    let publication = snapshot.publication.as_ref()?;
    let at = |at: Timestamp| Some(convert::timestamp(at));
    Some(v1::Publication {
        source: publication.source.clone(),
        policy_name: publication.policy_name.clone(),
        published_at: publication.published_at.and_then(at),
        published_by: publication.published_by.clone(),
        message: publication.message.clone(),
        expires_at: at(publication.lease.expires()),
        confirmed_at: at(publication.lease.confirmed()),
    })
}
