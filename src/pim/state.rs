//! The state machine of a schedule request (semantics, section 5.5).

use std::fmt;

use jiff::{SignedDuration, Timestamp};

/// How long a request waits for its approval; fixed by the service (semantics, section 5.4).
pub const APPROVAL_LAPSES_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// Where a request stands, with what decides how it goes on.
///
/// Time is an event too: [`State::at`] says what it has become by now, and [`State::apply`] asks that first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for an approver.
    PendingApproval {
        /// When it was submitted; it lapses a day later.
        since: Timestamp,
    },
    /// An extension or renewal that waits for an administrator.
    PendingAdminDecision,
    /// Approved, about to be written.
    PendingProvisioning,
    /// An extension or renewal that was approved, about to be written.
    AdminApproved,
    /// Written, begins later.
    ScheduleCreated {
        /// When it begins.
        start: Timestamp,
    },
    /// In force: the only state that counts for access.
    Provisioned,
    /// Refused by its checks.
    Failed,
    /// Withdrawn by who asked.
    Canceled,
    /// Refused by an approver.
    Denied,
    /// Nobody decided within a day.
    TimedOut,
    /// Refused by an administrator.
    AdminDenied,
    /// Removed or deactivated.
    Revoked,
}

/// What happens to a request that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An approver says yes.
    Approve,
    /// An approver says no.
    Deny,
    /// Who asked withdraws.
    Cancel,
    /// An administrator says yes to an extension or renewal.
    AdminApprove,
    /// An administrator says no to an extension or renewal.
    AdminDeny,
    /// The schedule is written, to begin at `start`.
    Provision {
        /// When it begins.
        start: Timestamp,
    },
    /// The schedule is removed or deactivated.
    Revoke,
}

/// The machine has no such transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request in status {status} takes no event {event:?}")]
pub struct Refusal {
    /// Where the request stands now.
    pub status: Status,
    /// What was tried.
    pub event: Event,
}

/// Status names of the API (semantics, section 5.5), those of the machine and those that only turn up in
/// data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// In flight.
    Accepted,
    /// An administrator approved.
    AdminApproved,
    /// An administrator refused.
    AdminDenied,
    /// Withdrawn.
    Canceled,
    /// Refused.
    Denied,
    /// Refused by its checks.
    Failed,
    /// A failure.
    FailedAsResourceIsLocked,
    /// In flight.
    Granted,
    /// A failure.
    Invalid,
    /// Waits for an administrator.
    PendingAdminDecision,
    /// Waits for an approver.
    PendingApproval,
    /// In flight.
    PendingApprovalProvisioning,
    /// In flight.
    PendingEvaluation,
    /// In flight.
    PendingExternalProvisioning,
    /// In flight.
    PendingProvisioning,
    /// In flight.
    PendingRevocation,
    /// In flight.
    PendingScheduleCreation,
    /// In force.
    Provisioned,
    /// In flight.
    ProvisioningStarted,
    /// Removed.
    Revoked,
    /// Written, begins later.
    ScheduleCreated,
    /// Lapsed.
    TimedOut,
}

// === impls ===

impl State {
    /// An activation that needs an approval, at submission.
    pub const fn waiting_for_approval(now: Timestamp) -> Self {
        Self::PendingApproval { since: now }
    }

    /// A schedule that was just written.
    pub fn written(start: Timestamp, now: Timestamp) -> Self {
        if start > now { Self::ScheduleCreated { start } } else { Self::Provisioned }
    }

    /// What time alone has made of it: the lapse of an approval at 24 hours, the start of a schedule.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        match self {
            Self::PendingApproval { since }
                if since.checked_add(APPROVAL_LAPSES_AFTER).is_ok_and(|lapse| lapse <= now) =>
            {
                Self::TimedOut
            }
            Self::ScheduleCreated { start } if start <= now => Self::Provisioned,
            other => other,
        }
    }

    /// What an event makes of it.
    ///
    /// # Errors
    ///
    /// A transition that the machine does not have; the state stays what [`State::at`] says.
    pub fn apply(self, event: Event, now: Timestamp) -> Result<Self, Refusal> {
        let here = self.at(now);
        match (here, event) {
            (Self::PendingApproval { .. }, Event::Approve) => Ok(Self::PendingProvisioning),
            (Self::PendingApproval { .. }, Event::Deny) => Ok(Self::Denied),
            (Self::PendingApproval { .. }, Event::Cancel) => Ok(Self::Canceled),
            (Self::PendingAdminDecision, Event::AdminApprove) => Ok(Self::AdminApproved),
            (Self::PendingAdminDecision, Event::AdminDeny) => Ok(Self::AdminDenied),
            (Self::PendingProvisioning | Self::AdminApproved, Event::Provision { start }) => {
                Ok(Self::written(start, now))
            }
            (Self::Provisioned | Self::ScheduleCreated { .. }, Event::Revoke) => Ok(Self::Revoked),
            _ => Err(Refusal { status: here.status(), event }),
        }
    }

    /// Its name on the API.
    pub const fn status(&self) -> Status {
        match self {
            Self::PendingApproval { .. } => Status::PendingApproval,
            Self::PendingAdminDecision => Status::PendingAdminDecision,
            Self::PendingProvisioning => Status::PendingProvisioning,
            Self::AdminApproved => Status::AdminApproved,
            Self::ScheduleCreated { .. } => Status::ScheduleCreated,
            Self::Provisioned => Status::Provisioned,
            Self::Failed => Status::Failed,
            Self::Canceled => Status::Canceled,
            Self::Denied => Status::Denied,
            Self::TimedOut => Status::TimedOut,
            Self::AdminDenied => Status::AdminDenied,
            Self::Revoked => Status::Revoked,
        }
    }

    /// Whether it still stands in the way of a second request for the same: submitted, and neither in force
    /// nor over.
    pub const fn is_pending(&self) -> bool {
        matches!(
            self,
            Self::PendingApproval { .. }
                | Self::PendingAdminDecision
                | Self::PendingProvisioning
                | Self::AdminApproved
                | Self::ScheduleCreated { .. }
        )
    }
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Accepted,
        Self::AdminApproved,
        Self::AdminDenied,
        Self::Canceled,
        Self::Denied,
        Self::Failed,
        Self::FailedAsResourceIsLocked,
        Self::Granted,
        Self::Invalid,
        Self::PendingAdminDecision,
        Self::PendingApproval,
        Self::PendingApprovalProvisioning,
        Self::PendingEvaluation,
        Self::PendingExternalProvisioning,
        Self::PendingProvisioning,
        Self::PendingRevocation,
        Self::PendingScheduleCreation,
        Self::Provisioned,
        Self::ProvisioningStarted,
        Self::Revoked,
        Self::ScheduleCreated,
        Self::TimedOut,
    ];

    /// Reads a name of the API, in any letter case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name().eq_ignore_ascii_case(name))
    }

    /// The name of the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::AdminApproved => "AdminApproved",
            Self::AdminDenied => "AdminDenied",
            Self::Canceled => "Canceled",
            Self::Denied => "Denied",
            Self::Failed => "Failed",
            Self::FailedAsResourceIsLocked => "FailedAsResourceIsLocked",
            Self::Granted => "Granted",
            Self::Invalid => "Invalid",
            Self::PendingAdminDecision => "PendingAdminDecision",
            Self::PendingApproval => "PendingApproval",
            Self::PendingApprovalProvisioning => "PendingApprovalProvisioning",
            Self::PendingEvaluation => "PendingEvaluation",
            Self::PendingExternalProvisioning => "PendingExternalProvisioning",
            Self::PendingProvisioning => "PendingProvisioning",
            Self::PendingRevocation => "PendingRevocation",
            Self::PendingScheduleCreation => "PendingScheduleCreation",
            Self::Provisioned => "Provisioned",
            Self::ProvisioningStarted => "ProvisioningStarted",
            Self::Revoked => "Revoked",
            Self::ScheduleCreated => "ScheduleCreated",
            Self::TimedOut => "TimedOut",
        }
    }

    /// Whether a schedule with it counts for access: `Provisioned` alone.
    pub const fn counts(self) -> bool {
        matches!(self, Self::Provisioned)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
