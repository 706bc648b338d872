//! Our own form of a whole policy in one object: a section for each kind, with lists, and with maps where those
//! read better.

use super::document::{Context, Document, Origin, wrong_type};
use super::group;
use super::hierarchy::{self, Level};
use super::recognize::{self, Is};
use super::schedule::Told;
use super::tree::{Kind, Value};
use crate::model::Problem;

/// One section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    RoleDefinitions,
    RoleAssignments,
    DenyAssignments,
    Groups,
    ManagementGroups,
    Subscriptions,
    /// With what its name says of them.
    Schedules(Option<Told>),
    ScheduleRequests,
    PolicyAssignments,
    ManagementPolicies,
    ActivationPolicies,
    Agents,
}

/// The section that a name stands for: letter case, `_` and `-` do not matter.
pub(super) fn section(name: &str) -> Option<Section> {
    Some(match folded(name).as_str() {
        "roledefinitions" => Section::RoleDefinitions,
        "roleassignments" => Section::RoleAssignments,
        "denyassignments" => Section::DenyAssignments,
        "groups" => Section::Groups,
        "managementgroups" => Section::ManagementGroups,
        "subscriptions" => Section::Subscriptions,
        "schedules" => Section::Schedules(None),
        "roleassignmentschedulerequests" | "roleeligibilityschedulerequests" => Section::ScheduleRequests,
        "rolemanagementpolicyassignments" => Section::PolicyAssignments,
        "rolemanagementpolicies" => Section::ManagementPolicies,
        "activationpolicies" => Section::ActivationPolicies,
        "agents" => Section::Agents,
        name => Section::Schedules(Some(Told::by_name(name)?)),
    })
}

/// Whether a name belongs to this form.
pub(super) fn is_section(name: &str) -> bool {
    // Every one ends so; most names do not, and this is asked of every property.
    name.ends_with(['s', 'S']) && section(name).is_some()
}

fn folded(name: &str) -> arrayvec::ArrayString<40> {
    let mut folded = arrayvec::ArrayString::new();
    for letter in name.chars().filter(|letter| !matches!(letter, '_' | '-')) {
        if folded.try_push(letter.to_ascii_lowercase()).is_err() {
            return arrayvec::ArrayString::new();
        }
    }
    folded
}

/// Names that may stand beside the sections.
const NOTES: [&str; 8] =
    ["name", "displayName", "description", "comment", "version", "tenantId", "metadata", "contentVersion"];

pub(super) fn read(value: Value<'_>, context: &mut Context) {
    context.report.document(value);
    let tenant = Document::open(value, Origin::Data, context);
    let mut seen: Vec<Section> = Vec::new();
    for entry in value.entries() {
        let Some(section) = section(entry.name) else {
            other(entry.name, entry.key, context);
            continue;
        };
        if seen.contains(&section) {
            context.report.at(
                entry.key.at(),
                Problem::error("DuplicateProperty", format!("the section `{}` stands twice", entry.name))
                    .value(entry.name)
                    .help("keep one of them"),
            );
        }
        seen.push(section);
        read_section(section, &tenant, entry.value, context);
    }
}

fn read_section(section: Section, tenant: &Document<'_>, value: Value<'_>, context: &mut Context) {
    match (value.kind(), section) {
        (Kind::Null, _) => {}
        (Kind::Array, _) => value.elements().for_each(|element| read_element(section, element, context)),
        (Kind::Object, Section::Groups) => {
            value.entries().for_each(|entry| group::read_entry(tenant, entry, context));
        }
        (Kind::Object, Section::ManagementGroups) => {
            read_parents(section, Level::ManagementGroup, tenant, value, context);
        }
        (Kind::Object, Section::Subscriptions) => {
            read_parents(section, Level::Subscription, tenant, value, context);
        }
        // The output of a REST list, put in as it is.
        (Kind::Object, _) if recognize::recognize(value) == Is::List => {
            recognize::list(value, context, |element, context| read_element(section, element, context));
        }
        (_, Section::Groups | Section::ManagementGroups | Section::Subscriptions) => {
            wrong_type(value, "a list or an object", context);
        }
        _ => wrong_type(value, "a list", context),
    }
}

/// The map forms of the hierarchy: names, and parents that may be objects.
fn read_parents(
    section: Section,
    level: Level,
    tenant: &Document<'_>,
    value: Value<'_>,
    context: &mut Context,
) {
    for entry in value.entries() {
        match recognize::definite(entry.value) {
            Some(is) if !matches!(is, Is::Hierarchy(_)) => misplaced(section, is, entry.value, context),
            _ => hierarchy::read_entry(tenant, entry, level, context),
        }
    }
}

/// Whether a document that says what it is may stand in a section. What is read as what it is, or refused by its
/// reader, may.
const fn fits(section: Section, is: Is) -> bool {
    match section {
        // Its reader refuses what is none.
        Section::DenyAssignments => true,
        Section::RoleDefinitions => {
            matches!(is, Is::RoleDefinition | Is::Schedule(_) | Is::PolicyAssignment | Is::ManagementPolicy)
        }
        Section::RoleAssignments => matches!(
            is,
            Is::RoleAssignment
                | Is::Schedule(_)
                | Is::ScheduleRequest
                | Is::PolicyAssignment
                | Is::ManagementPolicy
                | Is::Agent
        ),
        Section::Schedules(_) => {
            matches!(is, Is::Schedule(_) | Is::ScheduleRequest | Is::RoleAssignment)
        }
        Section::ScheduleRequests => matches!(is, Is::ScheduleRequest | Is::RoleAssignment),
        Section::PolicyAssignments => matches!(is, Is::PolicyAssignment),
        Section::ManagementPolicies => matches!(is, Is::ManagementPolicy),
        Section::ActivationPolicies => {
            matches!(is, Is::PolicyAssignment | Is::ManagementPolicy | Is::ActivationPolicy)
        }
        Section::Agents => matches!(is, Is::Agent),
        Section::Groups => matches!(is, Is::Group { .. }),
        Section::ManagementGroups => matches!(is, Is::Hierarchy(Level::ManagementGroup)),
        Section::Subscriptions => matches!(is, Is::Hierarchy(Level::Subscription)),
    }
}

/// What a section is of, in words.
const fn holds(section: Section) -> &'static str {
    match section {
        Section::RoleDefinitions => "role definitions",
        Section::RoleAssignments => "role assignments",
        Section::DenyAssignments => "deny assignments",
        Section::Groups => "groups",
        Section::ManagementGroups => "management groups",
        Section::Subscriptions => "subscriptions",
        Section::Schedules(_) => "PIM schedules",
        Section::ScheduleRequests => "requests for PIM schedules",
        Section::PolicyAssignments | Section::ManagementPolicies => "policies of PIM",
        Section::ActivationPolicies => "activation policies",
        Section::Agents => "agents",
    }
}

/// A deny assignment that is taken for something else, or skipped with it, would grant.
fn misplaced(section: Section, is: Is, value: Value<'_>, context: &mut Context) {
    let message = format!("{} in the section of {}", recognize::noun(is), holds(section));
    context.report.at(
        value.at(),
        Problem::error("ContradictoryKind", message).help("put it into the section of its own kind"),
    );
}

/// A document of a section is what the section says, unless it is known for one of another kind that must not be
/// taken for it: an eligibility among role assignments would grant.
fn read_element(section: Section, value: Value<'_>, context: &mut Context) {
    if let Some(is) = recognize::definite(value).filter(|is| !fits(section, *is)) {
        return misplaced(section, is, value, context);
    }
    let is = match (recognize::recognize(value), section) {
        (_, Section::DenyAssignments) => Is::DenyAssignment,
        (Is::ScheduleRequest, _) | (_, Section::ScheduleRequests) => Is::ScheduleRequest,
        (
            found @ (Is::Schedule(_) | Is::PolicyAssignment | Is::ManagementPolicy),
            Section::RoleDefinitions | Section::RoleAssignments,
        ) => found,
        (Is::Agent, Section::RoleAssignments) => Is::Agent,
        (_, Section::Schedules(told)) => Is::Schedule(told),
        (_, Section::PolicyAssignments) => Is::PolicyAssignment,
        (_, Section::ManagementPolicies) => Is::ManagementPolicy,
        (_, Section::ActivationPolicies) => Is::ActivationPolicy,
        (_, Section::Agents) => Is::Agent,
        (_, Section::RoleDefinitions) => Is::RoleDefinition,
        (_, Section::RoleAssignments) => Is::RoleAssignment,
        (group @ Is::Group { .. }, Section::Groups) => group,
        (_, Section::Groups) => Is::Group { by_type: false },
        (_, Section::ManagementGroups) => {
            return hierarchy::read_in_section(value, Level::ManagementGroup, context);
        }
        (_, Section::Subscriptions) => {
            return hierarchy::read_in_section(value, Level::Subscription, context);
        }
    };
    if value.kind() == Kind::Object {
        recognize::read_as(is, value, Origin::Data, context);
    } else {
        wrong_type(value, "an object", context);
    }
}

/// A misspelt section would be a policy without it, so names that are not known are refused.
fn other(name: &str, key: Value<'_>, context: &mut Context) {
    if name.starts_with(['$', '_', '@']) || NOTES.iter().any(|note| name.eq_ignore_ascii_case(note)) {
        return;
    }
    context.report.at(
        key.at(),
        Problem::error("UnknownProperty", format!("`{name}` is no section of a policy")).value(name).help(
            "wanted `roleDefinitions`, `roleAssignments`, `denyAssignments`, `groups`, `managementGroups`, \
             `subscriptions`, `schedules`, `activationPolicies`, `agents`, or a section named after a resource type \
             of PIM: `roleAssignmentSchedules`, `roleEligibilitySchedules` and their `…Instances`, \
             `roleManagementPolicies`, `roleManagementPolicyAssignments`",
        ),
    );
}
