//! Who holds which role where, and who may activate one: role assignments, the roles that the levels of agents bring,
//! and the schedules of PIM, resolved to one form (semantics, sections 2.5, 5.5, 5.6 and 6.2).

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::layout::{self, FROM_INSTANCE, FROM_SCHEDULE, NONE};
use crate::agent::{Agent, AgentOptions, Answerer, LevelRole};
use crate::model::{
    AgentDocument, ConditionText, Documents, PrincipalId, RoleAssignment, Schedule, ScheduleKind,
    ScheduleShape, Spanned,
};

/// What somebody holds, as the documents say it.
#[derive(Clone, Copy)]
pub(super) struct Holding<'a> {
    pub(super) principal: &'a str,
    pub(super) scope: &'a Spanned<String>,
    pub(super) role: &'a Spanned<String>,
    pub(super) name: &'a str,
    pub(super) condition: Option<&'a ConditionText>,
    /// The condition of the eligibility that was activated.
    pub(super) inherited: Option<&'a ConditionText>,
    /// The name of that eligibility.
    pub(super) eligibility: Option<&'a str>,
    pub(super) window: Window,
    /// Where it comes from: 0, [`FROM_SCHEDULE`] or [`FROM_INSTANCE`].
    pub(super) origin: u32,
}

/// From the start, included, to the end, excluded, in nanoseconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Window {
    pub(super) start: i128,
    pub(super) end: i128,
}

/// The form of a holding in the order that entries lie in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Resolved {
    pub(super) principal: u32,
    pub(super) scope: u32,
    /// Walking from the end upwards meets the smaller name first.
    pub(super) name: Reverse<u32>,
    pub(super) role: u32,
    pub(super) condition: u32,
    pub(super) inherited: u32,
    pub(super) eligibility: u32,
    pub(super) window: Window,
    pub(super) origin: u32,
}

impl Window {
    pub(super) const ALWAYS: Self = Self { start: i128::MIN, end: i128::MAX };

    fn of(schedule: &Schedule) -> Self {
        let nanoseconds = |at: &Option<Spanned<Timestamp>>| at.as_ref().map(|at| at.value.as_nanosecond());
        Self {
            start: nanoseconds(&schedule.start).unwrap_or(i128::MIN),
            end: nanoseconds(&schedule.end).unwrap_or(i128::MAX),
        }
    }

    fn and(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }
}

impl Resolved {
    /// What does not fit into an entry.
    pub(super) fn extra(&self) -> Option<layout::Extra> {
        let plain = self.condition == NONE
            && self.inherited == NONE
            && self.window == Window::ALWAYS
            && self.origin == 0;
        (!plain).then(|| layout::Extra {
            role: self.role.into(),
            condition: self.condition.into(),
            inherited: self.inherited.into(),
            eligibility: self.eligibility.into(),
            flags: self.origin.into(),
            start: self.window.start.into(),
            end: self.window.end.into(),
        })
    }
}

/// What is held; eligibilities are not.
pub(super) fn active<'a>(documents: &'a Documents, brought: &'a [RoleAssignment]) -> Vec<Holding<'a>> {
    // Azure lists an active schedule's role assignment without its end. It holds as long as the schedule does.
    let governed: HashSet<String> = documents
        .schedules
        .iter()
        .filter(|schedule| schedule.kind == ScheduleKind::Active)
        .filter_map(|schedule| schedule.origin_role_assignment.as_ref())
        .map(|origin| folded(&origin.value))
        .collect();
    let assigned = documents.role_assignments.iter().chain(brought);
    let mut holdings: Vec<Holding<'a>> = assigned
        .filter(|assignment| governed.is_empty() || !governed.contains(&folded(&assignment.name.value)))
        .map(|assignment| Holding {
            principal: &assignment.principal_id.value,
            scope: &assignment.scope,
            role: &assignment.role_definition_id,
            name: &assignment.name.value,
            condition: assignment.condition.as_ref(),
            inherited: None,
            eligibility: None,
            window: Window::ALWAYS,
            origin: 0,
        })
        .collect();
    // A link leads to an eligibility by its own name; only if none has it, to the instances of a schedule of that name:
    // where both are in the data, the schedule knows better whether it was ended.
    let (mut by_name, mut by_schedule) = (Linked::new(), Linked::new());
    for schedule in documents.schedules.iter().filter(|schedule| schedule.kind == ScheduleKind::Eligible) {
        by_name.entry(folded(&schedule.name.value)).or_default().push(schedule);
        if let Some(behind) = &schedule.schedule {
            by_schedule.entry(folded(&behind.value)).or_default().push(schedule);
        }
    }
    for schedule in counting(documents, ScheduleKind::Active) {
        let own = of(schedule);
        let Some(link) = &schedule.linked_eligibility else {
            holdings.push(own);
            continue;
        };
        let link = folded(&link.value);
        let linked = by_name.get(&link).or_else(|| by_schedule.get(&link)).map_or(&[][..], Vec::as_slice);
        if linked.is_empty() {
            // Not in the data: it stands on its own window (semantics, section 10, row 5).
            holdings.push(own);
        }
        // Ended with its eligibility, and cut at its end (semantics, section 5.5).
        for eligibility in linked.iter().filter(|eligibility| eligibility.is_provisioned()) {
            holdings.push(Holding {
                window: own.window.and(Window::of(eligibility)),
                inherited: eligibility.condition.as_ref(),
                eligibility: Some(&eligibility.name.value),
                ..own
            });
        }
    }
    holdings
}

/// What may be activated.
pub(super) fn eligible(documents: &Documents) -> Vec<Holding<'_>> {
    counting(documents, ScheduleKind::Eligible).map(of).collect()
}

/// The role assignments that the levels of agents bring at the groups they manage, as far as the roles are there.
pub(super) fn brought(documents: &Documents) -> Vec<RoleAssignment> {
    let roles: HashSet<&str> = documents.role_definitions.iter().map(|role| role.id.value.as_str()).collect();
    let all = documents.agents.iter().flat_map(|document| {
        let (agent, options) = described(document);
        agent.role_assignments(&options, document.at)
    });
    all.filter(|assignment| roles.contains(assignment.role_definition_id.value.as_str())).collect()
}

/// An agent of the documents as the module of agents takes it.
fn described(document: &AgentDocument) -> (Agent, AgentOptions) {
    let values = |all: &[Spanned<String>]| all.iter().map(|text| text.value.clone()).collect::<Vec<_>>();
    let mut options = AgentOptions::default();
    if let Some(roles) = &document.privileged_roles {
        options.privileged_roles =
            values(roles).into_iter().map(|id| LevelRole::new(id, String::new())).collect();
    }
    let agent = Agent {
        principal: document.principal_id.value.clone(),
        level: document.level,
        mode: document.mode,
        managed_resource_groups: values(&document.managed_resource_groups),
        answerer: Answerer::AskingUser,
    };
    (agent, options)
}

fn counting(documents: &Documents, kind: ScheduleKind) -> impl Iterator<Item = &Schedule> {
    documents.schedules.iter().filter(move |schedule| schedule.kind == kind && schedule.is_provisioned())
}

fn of(schedule: &Schedule) -> Holding<'_> {
    // An active instance that stands for a role assignment goes by its name.
    let named = schedule.origin_role_assignment.as_ref().filter(|_| schedule.kind == ScheduleKind::Active);
    Holding {
        principal: &schedule.principal_id.value,
        scope: &schedule.scope,
        role: &schedule.role_definition_id,
        name: named.map_or(&schedule.name.value, |origin| &origin.value),
        condition: schedule.condition.as_ref(),
        inherited: None,
        eligibility: None,
        window: Window::of(schedule),
        origin: match schedule.shape {
            _ if named.is_some() => 0,
            ScheduleShape::Schedule => FROM_SCHEDULE,
            ScheduleShape::Instance => FROM_INSTANCE,
        },
    }
}

/// Eligibilities by what links may call them.
type Linked<'a> = HashMap<String, Vec<&'a Schedule>>;

/// Names that refer to each other do so in any spelling of a GUID and in any letter case: a reference that was missed
/// would let an activation outlast its eligibility.
fn folded(name: &str) -> String {
    PrincipalId::new(name).to_string().to_ascii_lowercase()
}
