//! Which kind of document a value is, told from its content: containers are opened, documents go to their
//! readers, and what is neither is an error that says what it looks like.

use super::document::{Context, Document, Origin, refuse_case_twins, wrong_type};
use super::hierarchy::Level;
use super::schedule::Told;
use super::tree::{Kind, Value};
use super::{activation, agent, assignment, deny, group, hierarchy, ids, role, schedule, template, tenant};
use crate::model::Problem;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    RoleDefinition,
    RoleAssignment,
    DenyAssignment,
    /// Whether something beside `members` says that it is one.
    Group {
        by_type: bool,
    },
    Hierarchy(Level),
    /// `{"value": […]}`.
    List,
    Template,
    /// One object with sections.
    Tenant,
    /// With what the section says that it stands in.
    Schedule(Option<Told>),
    /// A request for a schedule.
    ScheduleRequest,
    /// Which rules are of which role and scope.
    PolicyAssignment,
    ManagementPolicy,
    /// Both of these, in our own form.
    ActivationPolicy,
    Agent,
    Unknown,
}

/// Reads a top-level value and everything in it.
pub(super) fn read(value: Value<'_>, context: &mut Context) {
    match value.kind() {
        Kind::Array => value.elements().for_each(|element| read(element, context)),
        Kind::Object => read_object(value, context),
        _ => wrong_type(value, "a policy document or a list of them", context),
    }
}

fn read_object(value: Value<'_>, context: &mut Context) {
    let is = recognize(value);
    match is {
        Is::List => list(value, context, read),
        Is::Template => template::read(value, context),
        Is::Tenant => tenant::read(value, context),
        Is::Unknown => {
            context.report.document(value);
            let problem = unknown(value);
            context.report.at(value.at(), problem);
        }
        _ => {
            let origin = if is_resource(value) { Origin::Template } else { Origin::Data };
            read_as(is, value, origin, context);
        }
    }
}

/// Reads an object as a document of a kind; containers are not documents.
pub(super) fn read_as(is: Is, value: Value<'_>, origin: Origin, context: &mut Context) {
    if origin == Origin::Template {
        return template::read_resource(is, value, context);
    }
    refuse_lost(value, context);
    let document = Document::open(value, origin, context);
    read_document(is, &document, context);
}

pub(super) fn read_document(is: Is, document: &Document<'_>, context: &mut Context) {
    match is {
        Is::RoleDefinition => role::read(document, context),
        Is::RoleAssignment => assignment::read(document, context),
        Is::DenyAssignment => deny::read(document, context),
        Is::Group { by_type } => group::read(document, by_type, context),
        Is::Hierarchy(level) => hierarchy::read(document, level, context),
        Is::Schedule(section) => schedule::read(document, section, context),
        Is::ScheduleRequest => schedule::request(document.top, context),
        Is::PolicyAssignment => activation::read_assignment(document, context),
        Is::ManagementPolicy => activation::read_policy(document, context),
        Is::ActivationPolicy => activation::read_own(document, context),
        Is::Agent => agent::read(document, context),
        Is::List | Is::Template | Is::Tenant | Is::Unknown => {
            let problem = unknown(document.top);
            context.report.at(document.top.at(), problem);
        }
    }
}

/// Deny assignments or a template's resources inside of a document of another kind, where no reader looks for them.
fn refuse_lost(value: Value<'_>, context: &mut Context) {
    for entry in value.entries() {
        let denies = entry.name.ends_with(['s', 'S'])
            && tenant::section(entry.name) == Some(tenant::Section::DenyAssignments);
        let resources = entry.name.eq_ignore_ascii_case("resources")
            && entry.value.entries().map(|entry| entry.value).chain(entry.value.elements()).next().is_some();
        if resources || (denies && !entry.value.is_null()) {
            context.report.at(
                entry.key.at(),
                Problem::error(
                    "UnknownProperty",
                    format!("`{}` is not read inside of a document", entry.name),
                )
                .value(entry.name)
                .help("put what it holds into a document, a section or a template of its own"),
            );
        }
    }
}

/// Names that lists of REST, Graph and PowerShell carry beside `value`; those with `$` and `@` are left out here.
const BESIDE_VALUE: [&str; 6] = ["value", "nextLink", "previousLink", "count", "totalCount", "comment"];

/// A list of REST or Graph, whole; each element goes to `each`.
pub(super) fn list<'t>(
    value: Value<'t>,
    context: &mut Context,
    mut each: impl FnMut(Value<'t>, &mut Context),
) {
    refuse_case_twins(value, context);
    for name in ["nextLink", "@odata.nextLink", "@nextLink", "$skipToken"] {
        // Some APIs write an empty link on the last page.
        if let Some(link) = value.get(name).filter(|link| link.as_str() != Some("")) {
            group::cut(link, context);
        }
    }
    for entry in value.entries() {
        let noise = entry.name.starts_with(['$', '@', '_']);
        if noise || BESIDE_VALUE.iter().any(|name| entry.name.eq_ignore_ascii_case(name)) {
            continue;
        }
        context.report.at(
            entry.key.at(),
            Problem::error("UnknownProperty", format!("`{}` beside `value` is not read", entry.name))
                .value(entry.name)
                .help("a list has `value` alone: put the rest into a document of its own, or into the list"),
        );
    }
    for element in value.get("value").into_iter().flat_map(|list| list.elements()) {
        each(element, context);
    }
}

/// A resource of an ARM template that stands alone.
fn is_resource(value: Value<'_>) -> bool {
    let text = |name| value.get(name).and_then(|value| value.as_str());
    text("apiVersion").is_some_and(|version| !version.is_empty()) && text("type").is_some()
}

/// What is known of an object's properties, in one pass over their names.
#[derive(Default)]
struct Marks<'t> {
    resource_type: Option<&'t str>,
    id: Option<&'t str>,
    odata_type: Option<&'t str>,
    value_is_list: bool,
    properties: bool,
    /// Properties of role definitions.
    permissions: bool,
    flat_actions: bool,
    role_name: bool,
    assignable_scopes: bool,
    is_custom: bool,
    /// Of role assignments.
    principal_id: bool,
    object_id: bool,
    role_definition_id: bool,
    role_assignment_id: bool,
    scope: bool,
    /// Of deny assignments.
    deny_name: bool,
    principals: bool,
    deny_only: bool,
    /// Of groups.
    members: bool,
    group_type: bool,
    /// Of the hierarchy.
    children: bool,
    details: bool,
    parent: bool,
    /// Of schedules.
    schedule: bool,
    schedule_kind: bool,
    request_type: bool,
    policy_rules: bool,
    policy_id: bool,
    /// Of agents.
    managed_identity: bool,
    mode_or_level: bool,
    managed_groups: bool,
    /// Of templates.
    schema: Option<&'t str>,
    content_version: bool,
    resources: bool,
    section: bool,
}

impl<'t> Marks<'t> {
    fn of(value: Value<'t>) -> Self {
        let mut marks = Self::default();
        for entry in value.entries() {
            marks.section |= tenant::is_section(entry.name);
            if entry.name.eq_ignore_ascii_case("properties") && entry.value.kind() == Kind::Object {
                marks.properties = true;
                entry.value.entries().for_each(|entry| marks.add(entry.name, entry.value, false));
            } else {
                marks.add(entry.name, entry.value, true);
            }
        }
        marks
    }

    fn add(&mut self, name: &str, value: Value<'t>, top: bool) {
        let mut buffer = [0_u8; 48];
        let Some(name) = fold(name, &mut buffer) else { return };
        match name {
            "type" if top => self.resource_type = value.as_str(),
            "id" if top => self.id = value.as_str(),
            "@odata.type" => self.odata_type = value.as_str(),
            "value" if top => self.value_is_list = value.kind() == Kind::Array,
            "permissions" => self.permissions = true,
            "actions" | "notactions" | "dataactions" | "notdataactions" => self.flat_actions = true,
            "rolename" => self.role_name = true,
            "assignablescopes" => self.assignable_scopes = true,
            "iscustom" => self.is_custom = true,
            "principalid" => self.principal_id = true,
            "objectid" => self.object_id = true,
            "roledefinitionid" => self.role_definition_id = true,
            "roleassignmentid" | "roleassignmentname" => self.role_assignment_id = true,
            "scope" => self.scope = true,
            "denyassignmentname" | "denyassignmentid" => self.deny_name = true,
            "principals" => self.principals = true,
            "excludeprincipals" | "donotapplytochildscopes" | "denyassignmenteffect" => self.deny_only = true,
            "members" => self.members = true,
            "grouptypes" | "securityenabled" => self.group_type = true,
            "children" => self.children = true,
            "details" => self.details = true,
            "parent" => self.parent = true,
            "roleeligibilityscheduleid"
            | "roleassignmentscheduleid"
            | "linkedroleeligibilityscheduleid"
            | "linkedroleeligibilityscheduleinstanceid"
            | "targetroleeligibilityscheduleid"
            | "targetroleassignmentscheduleid"
            | "roleassignmentschedulerequestid"
            | "roleeligibilityschedulerequestid"
            | "originroleassignmentid"
            | "assignmenttype"
            | "scheduleinfo"
            | "startdatetime"
            | "enddatetime" => self.schedule |= !value.is_null(),
            "kind" => {
                self.schedule_kind |=
                    value.as_str().is_some_and(|word| schedule::kind_by_word(word).is_some());
            }
            "requesttype" => self.request_type |= !value.is_null(),
            "effectiverules" | "isorganizationdefault" => self.policy_rules = true,
            "policyid" => self.policy_id = true,
            "managedidentity" => self.managed_identity = true,
            "mode" | "level" | "permissionlevel" | "permission_level" => self.mode_or_level = true,
            "managedresourcegroups" | "managedresources" | "managed_resource_groups" => {
                self.managed_groups = true;
            }
            "$schema" if top => self.schema = value.as_str(),
            "contentversion" if top => self.content_version = true,
            "resources" if top => self.resources = true,
            _ => {}
        }
    }
}

impl Marks<'_> {
    /// Whether something is said that is said of deny assignments only.
    fn denies(&self) -> bool {
        let by_id = self.id.and_then(ids::kind_of).is_some_and(|kind| kind.eq_ignore_ascii_case(DENIES));
        let by_type = || self.resource_type.and_then(by_type) == Some(Is::DenyAssignment);
        self.deny_name || self.deny_only || self.principals || by_id || by_type()
    }
}

const DENIES: &str = "denyAssignments";

/// Lower case without an allocation; `None` for names longer than any that is looked for.
fn fold<'b>(name: &str, buffer: &'b mut [u8; 48]) -> Option<&'b str> {
    let folded = buffer.get_mut(..name.len())?;
    folded.copy_from_slice(name.as_bytes());
    folded.make_ascii_lowercase();
    std::str::from_utf8(folded).ok()
}

pub(super) fn recognize(value: Value<'_>) -> Is {
    let marks = Marks::of(value);
    let template_schema = marks.schema.is_some_and(|schema| {
        let schema = schema.to_ascii_lowercase();
        schema.contains("deploymenttemplate")
    });
    if template_schema || (marks.resources && marks.content_version) {
        return Is::Template;
    }
    if marks.value_is_list && marks.resource_type.is_none() && !marks.properties {
        return Is::List;
    }
    if marks.section && !marks.properties && marks.resource_type.is_none() {
        return Is::Tenant;
    }
    // First of the documents: whatever else it carries, a deny that is taken for something else is lost. Its reader
    // refuses what contradicts it.
    if marks.denies() {
        return Is::DenyAssignment;
    }
    let by_id = marks.id.and_then(by_id);
    // Of what has a time, a request is told from a schedule by what it asks for, unless it says what it is.
    let scheduled = if marks.request_type && !marks.schedule_kind && by_id.is_none() {
        Is::ScheduleRequest
    } else {
        by_id.unwrap_or(Is::Schedule(None))
    };
    if let Some(is) = marks.resource_type.and_then(by_type) {
        // An assignment that carries a schedule is one, whatever it calls itself.
        let carries = marks.schedule || marks.schedule_kind || by_id.is_some();
        return if is == Is::RoleAssignment && carries { scheduled } else { is };
    }
    if let Some(is) = by_id {
        return is;
    }
    if marks.odata_type.is_some_and(|kind| kind.eq_ignore_ascii_case("#microsoft.graph.group")) {
        return Is::Group { by_type: true };
    }
    let assigned = marks.principal_id || (marks.object_id && marks.scope);
    if marks.schedule || (marks.schedule_kind && assigned) || (marks.request_type && assigned) {
        return scheduled;
    }
    if (marks.policy_rules || marks.policy_id) && marks.role_definition_id && !assigned {
        return Is::PolicyAssignment;
    }
    if marks.policy_rules && marks.scope {
        return Is::ManagementPolicy;
    }
    if (marks.managed_identity && marks.mode_or_level) || marks.managed_groups {
        return Is::Agent;
    }
    if assigned || marks.role_definition_id || marks.role_assignment_id {
        return Is::RoleAssignment;
    }
    if marks.permissions
        || marks.flat_actions
        || marks.is_custom
        || (marks.role_name && marks.assignable_scopes)
    {
        return Is::RoleDefinition;
    }
    if marks.members || marks.group_type {
        return Is::Group { by_type: marks.group_type };
    }
    let level = hierarchy::level_of(marks.resource_type, marks.id);
    if let Some(level) = level
        && (marks.children || marks.details || marks.parent || marks.resource_type.is_some())
    {
        return Is::Hierarchy(level);
    }
    Is::Unknown
}

/// The kind of a value that says itself what it is, by type, by id, or as only a deny assignment does.
pub(super) fn definite(value: Value<'_>) -> Option<Is> {
    let found = recognize(value);
    if matches!(found, Is::DenyAssignment | Is::ScheduleRequest | Is::List | Is::Template | Is::Tenant) {
        return Some(found);
    }
    let text = |name| value.get(name).and_then(|value| value.as_str());
    if text("@odata.type").is_some_and(|kind| kind.eq_ignore_ascii_case("#microsoft.graph.group")) {
        return Some(Is::Group { by_type: true });
    }
    // Roles say of what type they are below `properties`, and PowerShell has no word for it.
    text("type").and_then(by_type).or_else(|| kind_by_id(text("id")?))
}

/// The kind that an id says.
pub(super) fn kind_by_id(id: &str) -> Option<Is> {
    let kind = ids::kind_of(id)?;
    by_type(&format!("Microsoft.Authorization/{kind}"))
}

/// A kind in words.
pub(super) const fn noun(is: Is) -> &'static str {
    match is {
        Is::RoleDefinition => "a role definition",
        Is::RoleAssignment => "a role assignment",
        Is::DenyAssignment => "a deny assignment",
        Is::Group { .. } => "a group",
        Is::Hierarchy(Level::ManagementGroup) => "a management group",
        Is::Hierarchy(Level::Subscription) => "a subscription",
        Is::List => "a list",
        Is::Template => "a template",
        Is::Tenant => "a policy with sections",
        Is::Schedule(_) => "a PIM schedule",
        Is::ScheduleRequest => "a request for a PIM schedule",
        Is::PolicyAssignment | Is::ManagementPolicy | Is::ActivationPolicy => "a policy of PIM",
        Is::Agent => "an agent",
        Is::Unknown => "a document of no known kind",
    }
}

/// The kind of PIM that an id stands for; the others are told by what they hold.
fn by_id(id: &str) -> Option<Is> {
    by_pim_type(ids::kind_of(id)?)
}

/// The last part of a resource type of PIM.
fn by_pim_type(name: &str) -> Option<Is> {
    const REQUESTS: [&str; 2] = ["roleAssignmentScheduleRequests", "roleEligibilityScheduleRequests"];
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    Some(match name {
        _ if REQUESTS.into_iter().any(is) => Is::ScheduleRequest,
        _ if is("roleManagementPolicyAssignments") => Is::PolicyAssignment,
        _ if is("roleManagementPolicies") => Is::ManagementPolicy,
        _ => {
            Told::by_name(name)?;
            Is::Schedule(None)
        }
    })
}

/// The kind that a resource type stands for.
pub(super) fn by_type(name: &str) -> Option<Is> {
    let name = name.trim_start_matches('/').to_ascii_lowercase();
    let name = name.strip_prefix("providers/").unwrap_or(&name);
    Some(match name {
        "microsoft.authorization/roledefinitions" => Is::RoleDefinition,
        "microsoft.authorization/roleassignments" => Is::RoleAssignment,
        "microsoft.authorization/denyassignments" => Is::DenyAssignment,
        "microsoft.app/agents" | "microsoft.sreagent/agents" => Is::Agent,
        "microsoft.management/managementgroups" => Is::Hierarchy(Level::ManagementGroup),
        "subscriptions"
        | "microsoft.management/managementgroups/subscriptions"
        | "microsoft.resources/subscriptions" => Is::Hierarchy(Level::Subscription),
        _ => {
            // The old nested form: `{type of the resource}/providers/roleAssignments`.
            let (holder, last) = name.rsplit_once('/')?;
            let authorization = holder == "microsoft.authorization"
                || holder.ends_with("/providers")
                || holder.starts_with("microsoft.authorization/");
            match last {
                "roleassignments" if holder.ends_with("/providers") => Is::RoleAssignment,
                "roledefinitions" if holder.ends_with("/providers") => Is::RoleDefinition,
                "denyassignments" if holder.ends_with("/providers") => Is::DenyAssignment,
                _ if !authorization => return None,
                _ => return by_pim_type(last),
            }
        }
    })
}

/// A kind as people know it: properties that hint at it, and those that it cannot do without (each with the other
/// names it goes by).
struct Portrait {
    name: &'static str,
    hints: &'static [&'static str],
    needs: &'static [&'static [&'static str]],
}

const PORTRAITS: [Portrait; 8] = [
    Portrait {
        name: "a role assignment",
        hints: &[
            "principalName",
            "principalType",
            "roleDefinitionName",
            "scope",
            "signInName",
            "canDelegate",
            "objectType",
            "objectId",
            "condition",
        ],
        needs: &[&["principalId", "objectId"], &["roleDefinitionId"]],
    },
    Portrait {
        name: "a role definition",
        hints: &["roleName", "roleType", "assignableScopes"],
        needs: &[&["permissions", "actions"]],
    },
    Portrait {
        name: "a deny assignment",
        hints: &["isSystemProtected", "scope"],
        needs: &[&["principals"], &["permissions", "actions"]],
    },
    Portrait {
        name: "a group",
        hints: &["displayName", "mailNickname", "mailEnabled", "groupId", "onPremisesSyncEnabled"],
        needs: &[&["members"]],
    },
    Portrait {
        name: "a management group or subscription",
        hints: &["tenantId", "displayName", "subscriptionId", "managementGroup", "state"],
        needs: &[&["type"], &["parent", "children"]],
    },
    Portrait {
        name: "a PIM schedule",
        hints: &["memberType", "status", "justification", "ticketInfo", "expandedProperties"],
        needs: &[&["principalId"], &["roleDefinitionId"], &["startDateTime"]],
    },
    Portrait {
        name: "a policy of PIM",
        hints: &["rules", "policyProperties", "isOrganizationDefault", "maximumDuration", "approvers"],
        needs: &[&["type"], &["effectiveRules", "rules"]],
    },
    Portrait {
        name: "an agent",
        hints: &[
            "mode",
            "level",
            "identity",
            "managedIdentity",
            "approverRole",
            "privilegedRoles",
            "queryActions",
        ],
        needs: &[&["managedIdentity", "principalId"], &["managedResourceGroups"]],
    },
];

fn unknown(value: Value<'_>) -> Problem {
    let inner = value.get("properties");
    let has = |name: &str| {
        value.property(name).is_some() || inner.is_some_and(|inner| inner.property(name).is_some())
    };
    let score = |portrait: &Portrait| portrait.hints.iter().filter(|name| has(name)).count();
    // The first of those with most hints.
    let nearest = PORTRAITS.iter().rev().max_by_key(|portrait| score(portrait));
    let nearest = nearest.filter(|portrait| score(portrait) > 0);
    let missing = nearest.map(|portrait| {
        let missing = portrait.needs.iter().filter(|names| !names.iter().any(|name| has(name)));
        let names = missing.filter_map(|names| names.first()).map(|name| format!("no `{name}`"));
        (portrait.name, names.collect::<Vec<_>>().join(" and "))
    });
    let message = match missing {
        Some((name, missing)) if !missing.is_empty() => format!("looks like {name}, but has {missing}"),
        _ => "this is no policy document of a known kind".to_owned(),
    };
    const SHOWN: usize = 20;
    let mut names: Vec<_> = value.entries().take(SHOWN).map(|entry| format!("`{}`", entry.name)).collect();
    if value.entries().nth(SHOWN).is_some() {
        names.push("…".to_owned());
    }
    let found = if names.is_empty() { "no properties".to_owned() } else { names.join(", ") };
    Problem::error("UnrecognizedDocument", message).help(format!(
        "found {found}; wanted the whole output of a tool (without `--query` or `Select-Object`), or one of our \
         own documents"
    ))
}
