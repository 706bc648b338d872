//! Privileged Identity Management: who may be made eligible or active, what an activation needs, and what
//! becomes of a request (semantics, section 5).
//!
//! Pure: the clock, the groups, the schedules and the policy rules are handed in, nothing is stored. What is
//! accepted is for the caller to write down. Imports `model` only; whoever reads, manages or explains schedules may
//! import it, the evaluation of a check may not.

mod duration;
mod request;
mod rules;
mod state;

pub use duration::{DurationError, IsoDuration};
pub use request::{
    Accepted, Answer, AssignmentType, Claims, ErrorCode, Expiration, Options, PendingRequest, PrincipalType,
    Refused, Request, RequestType, Rule, Schedule, Situation, Target, Ticket, Verdict, Window,
};
pub use rules::{ActivationRules, AdminRules, Approval, PolicyRules, RuleError};
pub use state::{APPROVAL_LAPSES_AFTER, Event, Refusal, State, Status};
