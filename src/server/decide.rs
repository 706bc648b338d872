//! Decides one request: by the ordinary check or, where it is an agent's, by the agent's flow. The same for a call
//! over gRPC and for the command line.

use smallvec::SmallVec;

use crate::authorizer::{Answer, Authorizer};
use crate::model::{AgentProgress, AgentStop, Decision, Undecided, Why};
use crate::policy::Evaluation;
use crate::snapshot::Snapshot;

use super::convert::Asked;

/// Decides one request under one snapshot.
///
/// # Errors
///
/// [`Undecided`] when the policy does not suffice to decide.
pub fn decide(
    authorizer: &Authorizer,
    snapshot: &Snapshot,
    asked: &Asked<'_>,
) -> Result<(Answer, AgentProgress), Undecided> {
    if asked.agent.is_none() {
        return Ok((authorizer.check(snapshot, &asked.request)?, AgentProgress::default()));
    }
    // No policy directory describes agents, so none manages anything (semantics, section 6.2). An ordinary check in
    // its place would spare an agent its prompts.
    let evaluation = Evaluation {
        decision: Decision::NotAllowed(Why::Agent(AgentStop::NoManagedResourceGroups)),
        audited: SmallVec::new(),
        valid_until: None,
    };
    Ok((Answer { evaluation, cached: false }, AgentProgress::default()))
}
