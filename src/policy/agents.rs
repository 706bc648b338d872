//! The agents of a policy (semantics, section 6.2): which principal is one, and who holds a role where.

use std::ops::ControlFlow;

use jiff::Timestamp;

use super::describe::{role_of, text};
use super::evaluate::{self, Held, Moment};
use super::layout::{self, Damaged, EXTRA, NONE, View};
use super::{Policy, describe};
use crate::agent::{Agent, AgentOptions, Answerer, Level, Mode};
use crate::model::{CheckRequest, PrincipalId, Undecided};

/// An agent as the policy describes it.
#[derive(Clone, Debug)]
pub struct DescribedAgent {
    /// Identity, level, mode, boundary and who answers its prompts.
    pub agent: Agent,
    /// What counts as reading.
    pub options: AgentOptions,
    /// The resource id of the agent, where the document gives one.
    pub resource: Option<String>,
    /// Display name.
    pub name: Option<String>,
}

impl Policy {
    /// The agent that a principal is the identity of.
    ///
    /// # Errors
    ///
    /// [`Undecided::DamagedPolicy`].
    #[inline]
    pub fn agent(&self, principal: PrincipalId<'_>) -> Result<Option<DescribedAgent>, Undecided> {
        let view = self.view();
        if view.agents.is_empty() {
            return Ok(None);
        }
        Ok(find(view, principal)?)
    }

    /// Whether a subject holds a role at a scope or above it, now and without a condition; and the nearest moment at
    /// which that may change.
    ///
    /// # Errors
    ///
    /// [`Undecided`] as for a check.
    pub fn holds_role(
        &self,
        request: &CheckRequest<'_>,
        role: &str,
        now: Timestamp,
    ) -> Result<(bool, Option<Timestamp>), Undecided> {
        let view = self.view();
        let place = evaluate::locate(view, request.scope)?;
        Ok(holds(view, request, place, role, now)?)
    }
}

fn find(view: &View<'_>, principal: PrincipalId<'_>) -> Result<Option<DescribedAgent>, Damaged> {
    // Those without a GUID lie behind the others, under the greatest number.
    let key = match principal {
        PrincipalId::Guid(guid) => guid.as_u128(),
        PrincipalId::Text(_) => u128::MAX,
    };
    let first = view.agents.partition_point(|agent| agent.guid.get() < key);
    for agent in view.agents.iter().skip(first).take_while(|agent| agent.guid.get() == key) {
        if PrincipalId::new(text(agent.principal.bytes(view.text_bytes)?)?) == principal {
            return described(view, agent).map(Some);
        }
    }
    Ok(None)
}

pub(super) fn described(view: &View<'_>, agent: &layout::Agent) -> Result<DescribedAgent, Damaged> {
    let optional = |place: layout::Text| -> Result<Option<String>, Damaged> {
        let text = text(place.bytes(view.text_bytes)?)?;
        Ok((!text.is_empty()).then(|| text.to_owned()))
    };
    let list = |list: layout::List| -> Result<Vec<String>, Damaged> {
        list.texts(view)?.map(|text| text.map(str::to_owned)).collect()
    };
    let has = |flag| agent.flags.get() & flag != 0;
    let mut options = AgentOptions::default();
    if has(layout::AGENT_QUERIES) {
        options.query_actions = list(agent.query_actions)?;
    }
    Ok(DescribedAgent {
        agent: Agent {
            principal: text(agent.principal.bytes(view.text_bytes)?)?.to_owned(),
            level: if has(layout::AGENT_PRIVILEGED) { Level::Privileged } else { Level::Reader },
            mode: if has(layout::AGENT_AUTO) { Mode::Auto } else { Mode::Review },
            managed_resource_groups: list(agent.managed)?,
            answerer: match optional(agent.approver_role)? {
                Some(role) => Answerer::RoleHolder(role),
                None => Answerer::AskingUser,
            },
        },
        options,
        resource: optional(agent.resource)?,
        name: optional(agent.name)?,
    })
}

fn holds(
    view: &View<'_>,
    request: &CheckRequest<'_>,
    place: evaluate::Place,
    role: &str,
    now: Timestamp,
) -> Result<(bool, Option<Timestamp>), Damaged> {
    let role = PrincipalId::new(role);
    let mut wanted = None;
    for (number, record) in (0_u32..).zip(view.roles) {
        let mut id = String::new();
        describe::write_name(view, record.id.get(), &mut id)?;
        if PrincipalId::new(&id) == role {
            wanted = Some(number);
        }
    }
    let Some(wanted) = wanted else { return Ok((false, None)) };
    let mut moment = Moment::new(view, request, now);
    let mut principals = evaluate::Principals::new();
    evaluate::find_principals(view, &request.subject, &mut principals)?;
    let mut found = false;
    for index in principals {
        let principal = layout::at(view.principals, index)?;
        let entries = layout::slice(view.entries, principal.first_entry, principal.entries)?;
        let Some(held) = Held::new(principal.first_entry.get(), entries) else { continue };
        held.visit(place, |entry, _| {
            if role_of(view, entry)? != wanted {
                return Ok(ControlFlow::Continue(()));
            }
            found |= if entry.role.get() & EXTRA == 0 {
                true
            } else {
                let extra = evaluate::extra_of(view, entry)?;
                moment.is_open(extra) && extra.condition.get() == NONE && extra.inherited.get() == NONE
            };
            Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    Ok((found, moment.horizon()))
}
