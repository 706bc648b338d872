//! What a policy holds, item by item: for whoever compares two policies or counts what is in one.
//!
//! Spelled out of the same records that decide, so it is what the policy does and not what some document said.

use std::collections::HashSet;

use super::describe::{self, DescribedEntry, text};
use super::layout::{self, DENY_ALL_PRINCIPALS, DENY_NOT_TO_CHILDREN, Damaged, NONE, View};
use super::standing::{self, Patterns};
use super::{DescribedAgent, Policy, agents};
use crate::model::{
    ALL_PRINCIPALS, ActivationRequirements, DenyEffect, PermissionPatterns, PrincipalId, Scope, Window,
};

/// A role assignment, an active schedule or an eligibility.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentContents {
    /// Full id.
    pub id: String,
    /// Whose it is.
    pub principal_id: String,
    /// Full id of the role definition.
    pub role_definition_id: String,
    /// Display name of the role.
    pub role_name: String,
    /// Where it stands.
    pub scope: String,
    /// When it holds; `None`: always.
    pub window: Option<Window>,
    /// Its condition as it is written.
    pub condition: Option<String>,
    /// The condition of the eligibility that it was activated from.
    pub inherited_condition: Option<String>,
    /// The name of that eligibility.
    pub eligibility: Option<String>,
    /// What activating it takes, of an eligibility that the documents say it of.
    pub requirements: Option<ActivationRequirements>,
}

/// A role definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleContents {
    /// Full id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// What it gives.
    pub blocks: Vec<PermissionPatterns>,
}

/// A deny assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyContents {
    /// Full id.
    pub id: String,
    /// Display name, where the document gives one.
    pub name: Option<String>,
    /// Where it stands.
    pub scope: String,
    /// Whether a hit blocks.
    pub effect: DenyEffect,
    /// Whether it applies at its own scope only.
    pub not_to_child_scopes: bool,
    /// Whether it is for everybody.
    pub all_principals: bool,
    /// Whom it is for, by id.
    pub principals: Vec<String>,
    /// Whom it is not for, by id.
    pub exclude_principals: Vec<String>,
    /// What it takes away.
    pub blocks: Vec<PermissionPatterns>,
    /// Its condition as it is written.
    pub condition: Option<String>,
}

impl Policy {
    /// Everything that somebody holds: role assignments and schedules that grant, by principal.
    pub fn assignments(&self) -> impl Iterator<Item = Result<AssignmentContents, Damaged>> {
        let view = self.view();
        (0_u32..).zip(view.entries).map(|(number, _)| held(view, number))
    }

    /// Everything that somebody may activate, by principal.
    pub fn eligibilities(&self) -> impl Iterator<Item = Result<AssignmentContents, Damaged>> {
        let view = self.view();
        (0_u32..).zip(view.eligibles).map(|(number, _)| eligible(view, number))
    }

    /// Every role definition, by id.
    ///
    /// # Errors
    ///
    /// [`Damaged`].
    pub fn role_definitions(&self) -> Result<Vec<RoleContents>, Damaged> {
        let view = self.view();
        let patterns = Patterns::read(view)?;
        let all = (0_u32..).zip(view.roles).map(|(number, role)| {
            Ok(RoleContents {
                id: describe::written(|out| describe::write_role_definition_id(view, number, out))?,
                name: text(role.name.bytes(view.text_bytes)?)?.to_owned(),
                blocks: patterns.of_unit(view, number)?.0,
            })
        });
        all.collect()
    }

    /// Every deny assignment, by scope.
    ///
    /// # Errors
    ///
    /// [`Damaged`].
    pub fn deny_assignments(&self) -> Result<Vec<DenyContents>, Damaged> {
        let view = self.view();
        let patterns = Patterns::read(view)?;
        view.denies.iter().map(|deny| denied(view, &patterns, deny)).collect()
    }

    /// Every principal that the policy knows, with the groups that contain it directly or through others; and which of
    /// them are groups.
    ///
    /// # Errors
    ///
    /// [`Damaged`].
    pub fn memberships(&self) -> Result<Vec<(String, Vec<String>)>, Damaged> {
        let view = self.view();
        let mut links = 0_usize;
        let mut all = Vec::with_capacity(view.principals.len());
        for (number, _) in (0_u32..).zip(view.principals) {
            let groups = standing::groups_of(view, number)?;
            // Each link belongs to one principal.
            links = links.saturating_add(groups.len());
            if links > view.member_of.len() {
                return Err(Damaged);
            }
            let groups = groups.iter().map(|group| id(view, group.get()));
            all.push((id(view, number)?, groups.collect::<Result<_, _>>()?));
        }
        Ok(all)
    }

    /// Every agent, by identity.
    ///
    /// # Errors
    ///
    /// [`Damaged`].
    pub fn agents(&self) -> Result<Vec<DescribedAgent>, Damaged> {
        let view = self.view();
        view.agents.iter().map(|agent| agents::described(view, agent)).collect()
    }

    /// Every subscription and management group that the hierarchy places, with the scope above it.
    ///
    /// # Errors
    ///
    /// [`Damaged`].
    pub fn hierarchy(&self) -> Result<Vec<(String, String)>, Damaged> {
        let view = self.view();
        let written = |index| describe::written(|out| describe::write_scope(view, index, out));
        let mut all = Vec::new();
        for (number, scope) in (0_u32..).zip(view.scopes) {
            let parent = scope.parent.get();
            // What lies within a subscription hangs where its text says.
            if parent == NONE {
                continue;
            }
            let path = written(number)?;
            let parsed = Scope::parse(&path).map_err(|_| Damaged)?;
            if parsed.level_ends().count() == 1 {
                all.push((path, written(parent)?));
            }
        }
        Ok(all)
    }
}

fn id(view: &View<'_>, principal: u32) -> Result<String, Damaged> {
    Ok(describe::principal(view, principal)?.to_string())
}

fn held(view: &View<'_>, number: u32) -> Result<AssignmentContents, Damaged> {
    let entry = layout::at(view.entries, number)?;
    let DescribedEntry { role, window, condition, inherited, eligibility } = describe::entry(view, entry)?;
    Ok(AssignmentContents {
        id: describe::written(|out| describe::write_assignment_id(view, number, out))?,
        principal_id: describe::holder(view, number)?.to_string(),
        role_definition_id: describe::written(|out| describe::write_role_definition_id(view, role, out))?,
        role_name: describe::written(|out| describe::write_role_name(view, entry, out))?,
        scope: describe::written(|out| describe::write_scope(view, entry.scope.get(), out))?,
        window,
        condition: describe::condition_text(view, condition)?.map(str::to_owned),
        inherited_condition: describe::condition_text(view, inherited)?.map(str::to_owned),
        eligibility: match eligibility {
            NONE => None,
            name => Some(describe::written(|out| describe::write_name(view, name, out))?),
        },
        requirements: None,
    })
}

fn eligible(view: &View<'_>, number: u32) -> Result<AssignmentContents, Damaged> {
    let entry = layout::at(view.eligibles, number)?;
    let window = describe::entry(view, entry)?.window;
    let activation = describe::activation(view, number)?;
    Ok(AssignmentContents {
        id: activation.eligibility_id,
        principal_id: activation.principal_id,
        role_definition_id: activation.role_definition_id,
        role_name: activation.role_name,
        scope: activation.scope,
        window,
        condition: activation.condition,
        inherited_condition: None,
        eligibility: None,
        requirements: activation.requirements,
    })
}

fn denied(view: &View<'_>, patterns: &Patterns<'_>, deny: &layout::Deny) -> Result<DenyContents, Damaged> {
    let flags = deny.flags.get();
    let ids = |first, count| -> Result<Vec<String>, Damaged> {
        let mut seen = HashSet::new();
        let mut ids = Vec::new();
        for index in layout::slice(view.deny_principals, first, count)? {
            let id = describe::principal(view, index.get())?;
            if id != PrincipalId::Guid(ALL_PRINCIPALS) && seen.insert(index.get()) {
                ids.push(id.to_string());
            }
        }
        Ok(ids)
    };
    Ok(DenyContents {
        id: describe::deny_id(view, deny)?,
        name: describe::deny_name(view, deny)?,
        scope: describe::written(|out| describe::write_scope(view, deny.scope.get(), out))?,
        effect: standing::effect(deny),
        not_to_child_scopes: flags & DENY_NOT_TO_CHILDREN != 0,
        all_principals: flags & DENY_ALL_PRINCIPALS != 0,
        principals: ids(deny.first_principal, deny.principals)?,
        exclude_principals: ids(deny.first_excluded, deny.excluded)?,
        blocks: patterns.of_unit(view, deny.unit.get())?.0,
        condition: describe::condition_text(view, deny.condition.get())?.map(str::to_owned),
    })
}
