//! The compiled policy: documents in, flat arrays out, and the evaluation over them.
//!
//! ```text
//! Documents ── compile ──▶ buffer (layout) ── evaluate(request) ──▶ Evaluation
//!                             ├─ actions: which roles speak of an action, found once and kept
//!                             └─ explain, permissions, principals: the same questions answered at length
//! ```
//!
//! Imports `model`, `condition` (conditions are programs in the buffer) and `agent` (what the levels of agents bring),
//! so it can be embedded, benchmarked and fuzzed by itself.

mod actions;
mod agents;
mod compile;
mod conditions;
mod contents;
mod describe;
mod evaluate;
mod explain;
mod hash;
mod holdings;
mod judge;
mod layout;
mod permissions;
mod principals;
mod prospects;
mod standing;
#[cfg(test)]
mod tests;

use std::fmt;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use self::actions::ActionMemo;
pub use self::agents::DescribedAgent;
pub use self::contents::{AssignmentContents, DenyContents, RoleContents};
use self::layout::View;
pub use self::layout::{Damaged, FORMAT};
use crate::condition::Uses;
use crate::model::{
    CheckRequest, Decision, DenyHit, Documents, Problem, Problems, Subject, Undecided, Wildcards,
};

/// How documents are compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileOptions {
    /// How `/*/` is read in every pattern.
    pub wildcards: Wildcards,
    /// Whether conditions may use operators that are in no document of Azure (semantics, section 3.4); without it
    /// such a condition does not parse. The setting `condition_extensions`.
    pub condition_extensions: bool,
}

/// A compiled policy. Decides, and names what decided; holds no clock and does no I/O.
pub struct Policy {
    opened: Opened,
    digest: String,
    actions: ActionMemo,
}

self_cell::self_cell! {
    /// The buffer and its sections, typed once: nothing that is decided asks the owner for its bytes again.
    struct Opened {
        owner: Owner,
        #[covariant]
        dependent: View,
    }
}

/// Whoever holds the bytes: this process, or a mapped file.
type Owner = Box<dyn AsRef<[u8]> + Send + Sync>;

/// How many of each a policy holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Role definitions.
    pub role_definitions: usize,
    /// Role assignments, schedules that grant included.
    pub role_assignments: usize,
    /// Schedules that may be activated.
    pub eligibilities: usize,
    /// Conditions, each text once.
    pub conditions: usize,
    /// Agents.
    pub agents: usize,
    /// Deny assignments.
    pub deny_assignments: usize,
    /// Principals that something is assigned to, and members of groups that something is assigned to.
    pub principals: usize,
    /// Scopes that something stands at or the hierarchy names.
    pub scopes: usize,
    /// Bytes of the compiled form.
    pub bytes: usize,
}

/// A decision and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// The answer.
    pub decision: Decision,
    /// Deny assignments with effect audit that would have hit, the most specific scope first.
    pub audited: SmallVec<[DenyHit; 2]>,
    /// Until when the decision holds under this policy; `None`: until the policy changes.
    pub valid_until: Option<Timestamp>,
}

/// Who a subject is to a policy: what of its evaluation is the same for every question of that subject.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Of the policy, whose numbers these are.
    digest: String,
    principals: Box<[u32]>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("digest", &self.digest).field("counts", &self.counts()).finish()
    }
}

impl Policy {
    /// Compiles documents that have been found consistent.
    ///
    /// # Errors
    ///
    /// What cannot be compiled (an unknown role, a scope that is none, a circle of management groups, more than
    /// 32 bits can count), all at once.
    pub fn compile(documents: &Documents, options: CompileOptions) -> Result<Self, Problems> {
        let buffer = compile::compile(documents, options)?;
        Self::open(buffer, None).map_err(|Damaged| {
            let mut problems = Problems::new();
            problems.push(Problem::error("DamagedPolicy", "the compiled policy contradicts itself"));
            problems
        })
    }

    /// Opens a compiled policy where it lies: its header and where its sections are, whatever is in them. An index
    /// in a record is checked whenever it is followed.
    ///
    /// With a `digest` the bytes are not read: it is that of [`Policy::digest`], from somebody who knows it. The bytes
    /// must stay as they are for as long as there is the policy.
    ///
    /// # Errors
    ///
    /// [`Damaged`]: the bytes are no compiled policy of this [`FORMAT`].
    pub fn open(
        buffer: impl AsRef<[u8]> + Send + Sync + 'static,
        digest: Option<String>,
    ) -> Result<Self, Damaged> {
        let owner: Owner = Box::new(buffer);
        let opened = Opened::try_new(owner, |owner| View::open((**owner).as_ref()))?;
        let digest = digest.unwrap_or_else(|| digest_of((**opened.borrow_owner()).as_ref()));
        let actions = ActionMemo::new(opened.borrow_dependent().units);
        Ok(Self { opened, digest, actions })
    }

    /// `sha256:` and 64 hexadecimal digits over the compiled form: equal for equal documents, in whatever order and
    /// files they were written.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How many of each it holds.
    pub fn counts(&self) -> Counts {
        let view = self.view();
        Counts {
            role_definitions: view.roles.len(),
            role_assignments: view.entries.len(),
            eligibilities: view.eligibles.len(),
            conditions: view.conditions.len(),
            agents: view.agents.len(),
            deny_assignments: view.denies.len(),
            principals: view.principals.len(),
            scopes: view.scopes.len(),
            bytes: self.bytes().len(),
        }
    }

    /// The compiled form: what [`Policy::open`] takes.
    pub fn bytes(&self) -> &[u8] {
        (**self.opened.borrow_owner()).as_ref()
    }

    /// How it was compiled.
    pub fn options(&self) -> CompileOptions {
        let view = self.view();
        CompileOptions {
            wildcards: actions::wildcards(view),
            condition_extensions: view.flags & layout::CONDITION_EXTENSIONS != 0,
        }
    }

    /// Decides (semantics, section 2.5): one `now` for schedules and conditions alike.
    ///
    /// # Errors
    ///
    /// [`Undecided`] when the policy does not suffice to decide. It is never a decision.
    pub fn evaluate(&self, request: &CheckRequest<'_>, now: Timestamp) -> Result<Evaluation, Undecided> {
        let view = self.view();
        let place = evaluate::locate(view, request.scope)?;
        self.actions.with(view, request.action, request.plane, |actions| {
            evaluate::evaluate(view, request, place, actions, now)
        })
    }

    /// Finds out who a subject is, for [`Policy::evaluate_prepared`]. It pays for one that asks often.
    ///
    /// # Errors
    ///
    /// [`Undecided`] when the policy is damaged.
    pub fn prepare(&self, subject: &Subject<'_>) -> Result<Prepared, Undecided> {
        let mut principals = evaluate::Principals::new();
        evaluate::find_principals(self.view(), subject, &mut principals)?;
        Ok(Prepared { digest: self.digest.clone(), principals: principals.as_slice().into() })
    }

    /// As [`Policy::evaluate`], of a request whose subject was prepared. What another policy has prepared says nothing
    /// here and is passed over.
    ///
    /// # Errors
    ///
    /// As [`Policy::evaluate`].
    pub fn evaluate_prepared(
        &self,
        request: &CheckRequest<'_>,
        subject: &Prepared,
        now: Timestamp,
    ) -> Result<Evaluation, Undecided> {
        if !subject.is_of(self) {
            return self.evaluate(request, now);
        }
        let view = self.view();
        let place = evaluate::locate(view, request.scope)?;
        self.actions.with(view, request.action, request.plane, |actions| {
            evaluate::evaluate_as(view, request, place, &subject.principals, actions, now)
        })
    }

    /// What the conditions of this policy read, all together: what a decision may depend on beside subject, action and
    /// scope.
    pub fn uses(&self) -> Uses {
        #[expect(clippy::cast_possible_truncation, reason = "was 16 bits wide when it was written")]
        Uses::from_bits(self.view().uses as u16)
    }

    /// Whether anything in this policy begins or ends, or a condition reads the time.
    pub fn depends_on_time(&self) -> bool {
        self.view().flags & layout::DEPENDS_ON_TIME != 0
    }

    #[inline]
    fn view(&self) -> &View<'_> {
        self.opened.borrow_dependent()
    }
}

impl Prepared {
    /// Whether this policy prepared it, or one of the same bytes.
    pub fn is_of(&self, policy: &Policy) -> bool {
        self.digest == policy.digest
    }
}

/// The digest of a compiled form.
fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
