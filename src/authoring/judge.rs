//! The rules themselves.

use std::fmt;
use std::ops::Range;

use super::existing::{Holder, Reach, folded_id, folded_scope, triple};
use super::{Existing, Limits};
use crate::condition::ast::{Expression, ExpressionKind};
use crate::condition::{self, CONDITION_VERSION, Diagnostic, Extensions, Family, Mode};
use crate::model::{
    ALL_PRINCIPALS, At, ConditionText, DenyAssignment, Guid, Location, Locator, PermissionBlock, PrincipalId,
    Problem, RoleAssignment, RoleDefinition, Schedule, ScheduleKind, Scope, ScopeKind, Severity, Spanned,
};

/// Owner and User Access Administrator: of these, a subscription keeps one (section 1.8).
const RBAC_ADMINS: [&str; 2] =
    ["8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"];

/// How writes are judged.
#[derive(Clone, Copy)]
pub struct Judge<'a> {
    /// How much of each there may be.
    pub limits: Limits,
    /// Which operators conditions may have.
    pub extensions: Extensions,
    /// Whether the directory knows a principal. Asked only where the writer does not say what it is.
    pub principal_exists: &'a dyn Fn(PrincipalId<'_>) -> bool,
    /// Whether the author may do an action at a scope: a custom role is written at each of its assignable
    /// scopes.
    pub author_may: &'a dyn Fn(&str, Scope<'_>) -> bool,
    /// Whether [`Existing`] holds every role there is, so that one it lacks does not exist. Exports usually
    /// leave the built-in ones out.
    pub roles_complete: bool,
    /// Whether the hierarchy of [`Existing`] says where everything hangs, so that a link it lacks is none. Where
    /// it may be missing, a role that would need the link is told of and let pass.
    pub hierarchy_complete: bool,
}

/// Who makes a deny assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// Somebody: the narrow rules of the preview API hold.
    User(DenyRequest<'a>),
    /// Azure, for deployment stacks, managed applications and blueprints.
    Azure,
}

/// What the request for a deny assignment says and its document does not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DenyRequest<'a> {
    /// `isSystemProtected`.
    pub is_system_protected: bool,
    /// `type` of the first of `principals`.
    pub principal_type: Option<&'a str>,
    /// Whether `excludePrincipals` is given and empty, which is not the same as left out.
    pub excludes_nobody: bool,
}

/// A write that is accepted.
#[derive(Clone, Debug)]
pub struct Written<T> {
    /// What it does.
    pub effect: Effect,
    /// What is to be stored: ids and scopes in normal form, the condition's version filled in.
    pub stored: T,
    /// Problems of severity warning: accepted, and of no use.
    pub warnings: Findings,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// There was none of this name.
    Create,
    /// There was one.
    Update,
}

/// A deletion that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is to go.
    Existing,
    /// There is none, which is as good.
    Nothing,
}

/// Everything that is wrong with a write; the first error is what the service would say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

/// One thing that is wrong with a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub problem: Problem,
    /// The value at fault, or the whole document.
    pub at: At,
    /// The part of the value, where it is long.
    pub part: Option<Part>,
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The whole value.
    pub text: String,
    /// The part of it, in bytes.
    pub range: Range<usize>,
}

// === impls ===

impl fmt::Debug for Judge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge")
            .field("limits", &self.limits)
            .field("extensions", &self.extensions)
            .field("roles_complete", &self.roles_complete)
            .field("hierarchy_complete", &self.hierarchy_complete)
            .finish_non_exhaustive()
    }
}

impl Default for Judge<'_> {
    /// With Azure's limits and operators, a directory and an author about whom nothing is known, and roles that
    /// may be missing.
    fn default() -> Self {
        Self {
            limits: Limits::AZURE,
            extensions: Extensions::default(),
            principal_exists: &|_| true,
            author_may: &|_, _| true,
            roles_complete: false,
            hierarchy_complete: true,
        }
    }
}

impl Judge<'_> {
    // --- role assignments ---

    /// `PUT` of a role assignment (sections 1.2, 1.7 and 1.8).
    ///
    /// # Errors
    ///
    /// All that is wrong.
    pub fn put_role_assignment(
        &self,
        existing: &Existing,
        body: &RoleAssignment,
    ) -> Result<Written<RoleAssignment>, Findings> {
        let mut findings = Findings::default();
        if Guid::parse(&body.name.value).is_none() {
            findings.add(&body.name, "name", "InvalidRoleAssignmentName", "the name is no GUID");
        }
        let scope = findings.scope(&body.scope);
        let role = existing.role(&body.role_definition_id.value);
        if role.is_none() && self.roles_complete {
            let message = format!("no role definition has the id `{}`", body.role_definition_id.value);
            findings.add(&body.role_definition_id, "roleDefinitionId", "RoleDefinitionDoesNotExist", message);
        }
        if let (Some(role), Some(scope)) = (role, scope) {
            self.may_stand_at(existing, role, scope, &body.scope, &mut findings);
        }
        let principal = &body.principal_id;
        if principal.value.is_empty()
            || (body.principal_type.is_none() && !(self.principal_exists)(PrincipalId::new(&principal.value)))
        {
            let message = format!("the directory has no principal `{}`", principal.value);
            let problem = Problem::error("PrincipalNotFound", message)
                .help("give `principalType` for one that was made just now");
            findings.put(principal.at, problem.field("principalId").value(&principal.value));
        }
        if let Some(description) = &body.description
            && description.value.len() > self.limits.assignment_description_bytes
        {
            let message = format!(
                "the description has {} bytes; {} are allowed",
                description.value.len(),
                self.limits.assignment_description_bytes
            );
            findings.add_long(description, "description", "InvalidRoleAssignment", message);
        }
        let condition = self.condition(body.condition.as_ref(), "condition", &mut findings);
        grants_nothing(condition.as_ref(), role, &mut findings);

        let before = existing.assignment(&body.name.value);
        let triple = triple(body);
        let same = before.is_some_and(|before| super::existing::triple(before) == triple);
        if before.is_some() && !same {
            let message =
                "another role assignment has this name; principal, role and scope cannot be changed";
            let problem = Problem::error("RoleAssignmentUpdateNotPermitted", message)
                .help("names are unique in the tenant: take a new GUID");
            findings.put(body.name.at, problem.field("name").value(&body.name.value));
        }
        if !same {
            if let Some(name) = existing.assigned(&triple) {
                let message = format!(
                    "role assignment `{name}` gives the same role to the same principal at the same scope"
                );
                findings.put(body.name.at, Problem::error("RoleAssignmentExists", message));
            } else if before.is_none() {
                self.assignments_left(existing, &body.scope, &mut findings);
            }
        }
        let warnings = findings.warnings()?;
        let stored = RoleAssignment {
            name: respell(&body.name, folded_id(&body.name.value)),
            scope: respell(&body.scope, scope.map_or_else(String::new, |scope| scope.as_str().to_owned())),
            role_definition_id: respell(&body.role_definition_id, folded_id(&body.role_definition_id.value)),
            condition: condition.map(|condition| condition.stored),
            ..body.clone()
        };
        Ok(Written { effect: if same { Effect::Update } else { Effect::Create }, stored, warnings })
    }

    /// Whether the role may be assigned there (sections 1.4 and 1.8).
    fn may_stand_at(
        &self,
        existing: &Existing,
        role: &RoleDefinition,
        scope: Scope<'_>,
        place: &Spanned<String>,
        findings: &mut Findings,
    ) {
        let code = "RoleAssignmentScopeNotAssignableToRoleDefinition";
        let name = &role.role_name.value;
        let reaches: Vec<Reach> = role
            .assignable_scopes
            .iter()
            .filter_map(|above| Scope::parse(&above.value).ok())
            .map(|above| existing.hierarchy.reach(above, scope))
            .collect();
        if reaches.contains(&Reach::Yes) {
            // It may.
        } else if !self.hierarchy_complete && reaches.contains(&Reach::Unknown) {
            let message = format!(
                "whether role `{name}` can be assigned at `{scope}` cannot be told: nothing says where that hangs"
            );
            let help = "add the management groups and subscriptions to the documents";
            let problem = Problem::warning(code, message).help(help);
            findings.put(place.at, problem.field("scope").value(&place.value));
        } else {
            let message = format!("role `{name}` cannot be assigned at `{scope}`");
            let problem = Problem::error(code, message).help(format!(
                "its assignable scopes are {}",
                listed(role.assignable_scopes.iter().map(|scope| scope.value.as_str()))
            ));
            findings.put(place.at, problem.field("scope").value(&place.value));
        }
        let has_data_actions = role.permissions.iter().any(|entry| !entry.data_actions.is_empty());
        if !role.is_built_in() && has_data_actions && scope.kind() == ScopeKind::ManagementGroup {
            let message =
                format!("custom role `{name}` has data actions and cannot be assigned at a management group");
            let problem = Problem::error("DataActionsNotAllowedAtManagementGroup", message)
                .help("assign it at the subscriptions below");
            findings.put(place.at, problem.field("scope").value(&place.value));
        }
    }

    fn assignments_left(&self, existing: &Existing, scope: &Spanned<String>, findings: &mut Findings) {
        let Some(holder) = Holder::of(&scope.value) else { return };
        let (limit, holder_name) = match &holder {
            Holder::Subscription(id) => {
                (self.limits.assignments_per_subscription, format!("subscription `{id}`"))
            }
            Holder::ManagementGroup(name) => {
                (self.limits.assignments_per_management_group, format!("management group `{name}`"))
            }
        };
        if existing.count(&holder) >= limit {
            let message = format!("{holder_name} has {limit} role assignments, which is the limit");
            findings.add(scope, "scope", "RoleAssignmentLimitExceeded", message);
        }
    }

    /// `DELETE` of a role assignment (section 1.8).
    ///
    /// # Errors
    ///
    /// It is the last Owner or User Access Administrator of a subscription, and who deletes is neither Global
    /// Administrator nor classic administrator.
    pub fn delete_role_assignment(
        &self,
        existing: &Existing,
        name: &Spanned<String>,
        scope: &Spanned<String>,
        by_global_administrator: bool,
    ) -> Result<Deleted, Findings> {
        let mut findings = Findings::default();
        let Some(here) = findings.scope(scope) else { return Err(findings) };
        let found = existing
            .assignment(&name.value)
            .filter(|found| folded_scope(&found.scope.value) == folded_scope(here.as_str()));
        let Some(found) = found else { return Ok(Deleted::Nothing) };
        let is_admin = |body: &RoleAssignment| {
            RBAC_ADMINS.contains(&folded_id(&body.role_definition_id.value).as_str())
                && folded_scope(&body.scope.value) == folded_scope(&found.scope.value)
        };
        if here.kind() == ScopeKind::Subscription
            && !by_global_administrator
            && is_admin(found)
            && existing.assignments().filter(|body| is_admin(body)).count() <= 1
        {
            findings.add(
                name,
                "name",
                "CannotDeleteLastRbacAdmin",
                "cannot delete the last RBAC admin assignment",
            );
        }
        findings.warnings().map(|_| Deleted::Existing)
    }

    // --- role definitions ---

    /// `PUT` of a custom role (sections 1.4 and 1.7).
    ///
    /// # Errors
    ///
    /// All that is wrong.
    pub fn put_role_definition(
        &self,
        existing: &Existing,
        body: &RoleDefinition,
    ) -> Result<Written<RoleDefinition>, Findings> {
        let mut findings = Findings::default();
        let invalid = "InvalidRoleDefinition";
        let id = folded_id(&body.id.value);
        if Guid::parse(&id).is_none() {
            findings.add(&body.id, "id", invalid, "the id does not end in a GUID");
        }
        let before = existing.role(&body.id.value);
        if before.is_some_and(RoleDefinition::is_built_in) {
            findings.add(&body.id, "id", invalid, "a built-in role cannot be written");
        }
        let name = &body.role_name;
        let characters = name.value.chars().count();
        if name.value.trim().is_empty() {
            findings.add(name, "roleName", invalid, "the display name is empty");
        } else if characters > self.limits.role_name_characters {
            let limit = self.limits.role_name_characters;
            let message = format!("the display name has {characters} characters; {limit} are allowed");
            findings.add_long(name, "roleName", invalid, message);
        } else if let Some(other) = existing.role_named(&name.value)
            && other != id
        {
            let message = format!("role `{other}` has the same display name");
            findings.add(name, "roleName", "RoleDefinitionWithSameNameExists", message);
        }
        if let Some(description) = &body.description {
            let characters = description.value.chars().count();
            if characters > self.limits.role_description_characters {
                let limit = self.limits.role_description_characters;
                let message = format!("the description has {characters} characters; {limit} are allowed");
                findings.add_long(description, "description", invalid, message);
            }
        }
        self.permissions(body, &mut findings);
        self.assignable_scopes(body, &mut findings);
        if before.is_none() && existing.custom_roles() >= self.limits.custom_roles {
            let message =
                format!("the tenant has {} custom roles, which is the limit", self.limits.custom_roles);
            findings.put(body.at, Problem::error("RoleDefinitionLimitExceeded", message));
        }
        let warnings = findings.warnings()?;

        let normal = |scope: &Spanned<String>| {
            let text = Scope::parse(&scope.value).map(|scope| scope.as_str().to_owned());
            respell(scope, text.unwrap_or_default())
        };
        let stored = RoleDefinition {
            id: respell(&body.id, id),
            assignable_scopes: body.assignable_scopes.iter().map(normal).collect(),
            ..body.clone()
        };
        let effect = if before.is_some() { Effect::Update } else { Effect::Create };
        Ok(Written { effect, stored, warnings })
    }

    fn permissions(&self, body: &RoleDefinition, findings: &mut Findings) {
        for (index, entry) in body.permissions.iter().enumerate() {
            for (list, patterns) in entry.lists() {
                for (position, pattern) in patterns.iter().enumerate() {
                    if let Some(message) = wrong_pattern(&pattern.value) {
                        let field = format!("permissions[{index}].{list}[{position}]");
                        findings.add(pattern, field, "InvalidActionOrNotAction", message);
                    }
                }
            }
            if let Some(condition) = present(entry.condition.as_ref()) {
                let field = format!("permissions[{index}].condition");
                let message = "only built-in roles have conditions in their permissions";
                let problem = Problem::error("InvalidCondition", message).field(field);
                findings.put(condition.text.at, problem.help("put the condition on the role assignment"));
            }
        }
        let grants = |entry: &PermissionBlock| !entry.actions.is_empty() || !entry.data_actions.is_empty();
        if !body.permissions.iter().any(grants) {
            let message = "the role has neither actions nor data actions";
            findings.put(body.at, Problem::error("InvalidRoleDefinition", message).field("permissions"));
        }
    }

    fn assignable_scopes(&self, body: &RoleDefinition, findings: &mut Findings) {
        let code = "InvalidAssignableScope";
        let scopes = &body.assignable_scopes;
        if scopes.is_empty() {
            let message = "a custom role needs at least one assignable scope";
            findings.put(body.at, Problem::error(code, message).field("assignableScopes"));
        }
        if scopes.len() > self.limits.assignable_scopes {
            let limit = self.limits.assignable_scopes;
            let message = format!("the role has {} assignable scopes; {limit} are allowed", scopes.len());
            findings.put(body.at, Problem::error(code, message).field("assignableScopes"));
        }
        let mut management_group: Option<Scope<'_>> = None;
        for (index, text) in scopes.iter().enumerate() {
            let field = format!("assignableScopes[{index}]");
            if text.value.contains('*') {
                findings.add(text, field, code, format!("`{}` has a wildcard", text.value));
                continue;
            }
            let scope = match Scope::parse(&text.value) {
                Ok(scope) => scope,
                Err(error) => {
                    findings.add(text, field, code, format!("`{}` {error}", text.value));
                    continue;
                }
            };
            match scope.kind() {
                ScopeKind::Root => {
                    findings.add(text, field, code, "`/` is only for built-in roles");
                    continue;
                }
                ScopeKind::Provider => {
                    findings.add(text, field, code, format!("`{scope}` is only for built-in roles"));
                    continue;
                }
                ScopeKind::ManagementGroup => match management_group {
                    Some(first) if first != scope => {
                        let message =
                            format!("a custom role has at most one management group, and `{first}` is one");
                        findings.add(text, field, code, message);
                        continue;
                    }
                    _ => management_group = Some(scope),
                },
                ScopeKind::Subscription | ScopeKind::ResourceGroup | ScopeKind::Resource => {}
            }
            let write = "Microsoft.Authorization/roleDefinitions/write";
            if !(self.author_may)(write, scope) {
                let message = format!("the author may not do `{write}` at `{scope}`");
                findings.add(text, field, "LinkedAuthorizationFailed", message);
            }
        }
    }

    /// `DELETE` of a custom role (section 1.4).
    ///
    /// # Errors
    ///
    /// It is built in, or still assigned.
    pub fn delete_role_definition(
        &self,
        existing: &Existing,
        id: &Spanned<String>,
    ) -> Result<Deleted, Findings> {
        let mut findings = Findings::default();
        if existing.role(&id.value).is_some_and(RoleDefinition::is_built_in) {
            findings.add(id, "id", "InvalidRoleDefinition", "a built-in role cannot be deleted");
        }
        let folded = folded_id(&id.value);
        let uses = existing
            .assignments()
            .filter(|assignment| folded_id(&assignment.role_definition_id.value) == folded)
            .count();
        if uses > 0 {
            let assignments = if uses == 1 { "role assignment uses" } else { "role assignments use" };
            findings.add(id, "id", "RoleDefinitionHasAssignments", format!("{uses} {assignments} the role"));
        }
        findings.warnings()?;
        Ok(if existing.role(&id.value).is_some() { Deleted::Existing } else { Deleted::Nothing })
    }

    // --- deny assignments ---

    /// `PUT` of a deny assignment (section 1.3).
    ///
    /// # Errors
    ///
    /// All that is wrong.
    pub fn put_deny_assignment(
        &self,
        existing: &Existing,
        body: &DenyAssignment,
        by: Origin<'_>,
    ) -> Result<Written<DenyAssignment>, Findings> {
        let mut findings = Findings::default();
        let code = "InvalidDenyAssignment";
        // The service makes a name where there is none.
        let name = Some(&body.name).filter(|name| !name.value.is_empty());
        if let Some(given) = name
            && Guid::parse(&given.value).is_none()
        {
            findings.add(given, "name", code, "the name is no GUID");
        }
        let scope = findings.scope(&body.scope);
        let before = name.and_then(|name| existing.deny_scope(&name.value));
        if let (Some(given), Some(before)) = (name, before)
            && before != folded_scope(&body.scope.value)
        {
            let message = format!("a deny assignment at `{before}` has this name");
            findings.add(given, "name", "DuplicateDenyAssignment", message);
        }
        if let Some(display) = &body.deny_assignment_name
            && let Some(other) = existing.deny_named(&body.scope.value, &display.value)
            && name.map(|name| folded_id(&name.value)).as_deref() != Some(other)
        {
            let message = "another deny assignment at this scope has the same display name";
            findings.add(display, "denyAssignmentName", code, message);
        }
        self.deny_principals(body, &mut findings);
        if body.permissions.iter().all(|entry| entry.actions.is_empty() && entry.data_actions.is_empty()) {
            let message = "the deny assignment has neither actions nor data actions";
            findings.put(body.at, Problem::error(code, message).field("permissions"));
        }
        if let Origin::User(request) = by {
            deny_by_user(body, request, &mut findings);
        }
        let condition = self.condition(body.condition.as_ref(), "condition", &mut findings);
        for (index, entry) in body.permissions.iter().enumerate() {
            let field = format!("permissions[{index}].condition");
            self.condition(entry.condition.as_ref(), &field, &mut findings);
        }
        let warnings = findings.warnings()?;
        let stored = DenyAssignment {
            name: respell(&body.name, folded_id(&body.name.value)),
            scope: respell(&body.scope, scope.map_or_else(String::new, |scope| scope.as_str().to_owned())),
            condition: condition.map(|condition| condition.stored),
            ..body.clone()
        };
        let effect = if before.is_some() { Effect::Update } else { Effect::Create };
        Ok(Written { effect, stored, warnings })
    }

    fn deny_principals(&self, body: &DenyAssignment, findings: &mut Findings) {
        let code = "InvalidDenyAssignment";
        if body.principals.is_empty() {
            let message = "the deny assignment names no principal";
            findings.put(body.at, Problem::error(code, message).field("principals"));
        }
        for (index, excluded) in body.exclude_principals.iter().enumerate() {
            if is_everyone(excluded) {
                let field = format!("excludePrincipals[{index}]");
                findings.add(excluded, field, code, "All Principals cannot be excluded");
            }
        }
    }

    // --- schedules ---

    /// A schedule of PIM, active or eligible: who may be made eligible and where (section 5.2), and what holds
    /// for every assignment of a role.
    ///
    /// # Errors
    ///
    /// All that is wrong.
    pub fn put_schedule(&self, existing: &Existing, body: &Schedule) -> Result<Findings, Findings> {
        let mut findings = Findings::default();
        let scope = findings.scope(&body.scope);
        let role = existing.role(&body.role_definition_id.value);
        if let (Some(role), Some(scope)) = (role, scope) {
            self.may_stand_at(existing, role, scope, &body.scope, &mut findings);
        }
        if body.kind == ScheduleKind::Eligible {
            if let Some(kind) = &body.principal_type
                && !["User", "Group", "Unknown"].iter().any(|may| kind.value.eq_ignore_ascii_case(may))
            {
                let message = format!("a `{}` cannot be eligible", kind.value);
                let problem = Problem::error("EligiblePrincipalTypeNotAllowed", message)
                    .help("only users and groups can; assign the role instead");
                findings.put(kind.at, problem.field("principalType").value(&kind.value));
            }
            let wrong = match scope.map(|scope| scope.kind()) {
                Some(ScopeKind::Resource) => Some("a single resource"),
                Some(ScopeKind::Root) => Some("the tenant root"),
                Some(ScopeKind::Provider) => Some("a resource provider"),
                Some(ScopeKind::ManagementGroup | ScopeKind::Subscription | ScopeKind::ResourceGroup)
                | None => None,
            };
            if let Some(wrong) = wrong {
                let message = format!("nobody can be eligible at {wrong}");
                let problem = Problem::error("EligibleScopeNotAllowed", message)
                    .help("wanted a management group, a subscription or a resource group");
                findings.put(body.scope.at, problem.field("scope").value(&body.scope.value));
            }
        }
        let condition = self.condition(body.condition.as_ref(), "condition", &mut findings);
        grants_nothing(condition.as_ref(), role, &mut findings);
        findings.warnings()
    }

    // --- conditions ---

    /// The condition to be stored (section 3.7); a version without condition is none, nor is white space.
    fn condition<'b>(
        &self,
        condition: Option<&'b ConditionText>,
        field: &str,
        findings: &mut Findings,
    ) -> Option<Condition<'b>> {
        let given = present(condition)?;
        let version = given.version.as_ref();
        if let Some(version) = version
            && let Err(diagnostic) = condition::check_version(Some(&version.value))
        {
            // The one category of the language that has a code of its own (section 1.4).
            let problem = Problem { code: "InvalidCondition", ..problem(diagnostic) };
            findings.put(version.at, problem.field(format!("{field}Version")).value(&version.value));
        }
        let parsed = condition::parse(&given.text.value, Mode::Author, self.extensions);
        for diagnostic in parsed.diagnostics {
            let range = diagnostic.span.clone();
            findings.put_part(&given.text, range, problem(diagnostic).field(field));
        }
        let mut guid_operator = None;
        find_guid_operator(&parsed.condition?.root, &mut guid_operator);
        let stored = ConditionText {
            text: given.text.clone(),
            version: Some(Spanned::new(
                CONDITION_VERSION.to_owned(),
                version.map_or(given.text.at, |version| version.at),
            )),
        };
        Some(Condition { text: &given.text, guid_operator, stored })
    }
}

/// A condition that may be written.
struct Condition<'b> {
    text: &'b Spanned<String>,
    /// Where its first operator of the GUID family stands.
    guid_operator: Option<Range<usize>>,
    stored: ConditionText,
}

impl Finding {
    /// Where it stands.
    pub fn place(&self, locator: &Locator<'_>) -> At {
        match &self.part {
            Some(part) => locator.within(self.at, &part.text, &part.range).unwrap_or(self.at),
            None => self.at,
        }
    }

    /// Where it stands, for people.
    pub fn location(&self, locator: &Locator<'_>) -> Option<Location> {
        locator.locate(self.place(locator))
    }
}

impl Findings {
    /// None at all.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first error: the one the service would give. Where there is none, the first warning.
    pub fn first(&self) -> Option<&Problem> {
        let error = self.0.iter().find(|finding| finding.problem.severity == Severity::Error);
        error.or_else(|| self.0.first()).map(|finding| &finding.problem)
    }

    /// One by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.0.iter()
    }

    /// One more, at the value that is wrong.
    fn add(
        &mut self,
        value: &Spanned<String>,
        field: impl Into<String>,
        code: &'static str,
        message: impl Into<String>,
    ) {
        self.put(value.at, Problem::error(code, message).field(field).value(&value.value));
    }

    /// One more, at a value too long to be shown.
    fn add_long(
        &mut self,
        value: &Spanned<String>,
        field: &str,
        code: &'static str,
        message: impl Into<String>,
    ) {
        self.put(value.at, Problem::error(code, message).field(field));
    }

    fn put(&mut self, at: At, problem: Problem) {
        self.0.push(Finding { problem, at, part: None });
    }

    fn put_part(&mut self, value: &Spanned<String>, range: Range<usize>, problem: Problem) {
        let part = Some(Part { text: value.value.clone(), range });
        self.0.push(Finding { problem, at: value.at, part });
    }

    fn scope<'s>(&mut self, text: &'s Spanned<String>) -> Option<Scope<'s>> {
        match Scope::parse(&text.value) {
            Ok(scope) => Some(scope),
            Err(error) => {
                self.add(text, "scope", "InvalidScope", format!("`{}` {error}", text.value));
                None
            }
        }
    }

    /// Goes on when nothing is refused.
    fn warnings(self) -> Result<Self, Self> {
        let refused = self.0.iter().any(|finding| finding.problem.severity == Severity::Error);
        if refused { Err(self) } else { Ok(self) }
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Findings {
    type Item = &'a Finding;
    type IntoIter = std::slice::Iter<'a, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

// === helpers ===

/// What only deny assignments that users make must keep (section 1.3, the preview API).
fn deny_by_user(body: &DenyAssignment, request: DenyRequest<'_>, findings: &mut Findings) {
    let code = "InvalidDenyAssignment";
    if request.is_system_protected {
        let message = "only Azure makes system-protected deny assignments";
        findings.put(body.at, Problem::error(code, message).field("isSystemProtected"));
    }
    if body.do_not_apply_to_child_scopes {
        let message = "`doNotApplyToChildScopes` is not supported";
        findings.put(body.at, Problem::error(code, message).field("doNotApplyToChildScopes"));
    }
    if request.excludes_nobody {
        let message = "the list of excluded principals is empty";
        let problem = Problem::error(code, message).field("excludePrincipals");
        findings.put(body.at, problem.help("leave it out or name somebody"));
    }
    match body.principals.as_slice() {
        // Told already.
        [] => {}
        [everyone] if is_everyone(everyone) => {
            if body.exclude_principals.is_empty() && !request.excludes_nobody {
                let message = "a deny assignment for All Principals must exclude somebody";
                findings.put(body.at, Problem::error(code, message).field("excludePrincipals"));
            }
        }
        [one] => {
            if request.principal_type.is_some_and(|kind| {
                !kind.eq_ignore_ascii_case("User") && !kind.eq_ignore_ascii_case("ServicePrincipal")
            }) {
                let message = "a deny assignment is for All Principals, one user or one service principal";
                findings.add(one, "principals[0]", code, message);
            }
        }
        [_, second, ..] => {
            let message = "a deny assignment is for All Principals or exactly one principal";
            findings.add(second, "principals[1]", code, message);
        }
    }
    for (index, entry) in body.permissions.iter().enumerate() {
        for (list, patterns) in entry.lists() {
            for (position, pattern) in patterns.iter().enumerate() {
                let message = match list {
                    "dataActions" | "notDataActions" => "data actions cannot be denied",
                    "actions" if denies_reading(&pattern.value, &entry.not_actions) => {
                        "only write, delete and action operations can be denied"
                    }
                    _ => continue,
                };
                let field = format!("permissions[{index}].{list}[{position}]");
                findings.add(pattern, field, code, message);
            }
        }
    }
}

/// Whether a pattern can match an operation that ends in `/read` and nothing exempts reading.
fn denies_reading(pattern: &str, exempt: &[Spanned<String>]) -> bool {
    let read = "/read";
    let folded = pattern.to_ascii_lowercase();
    let reads = match folded.rsplit_once('*') {
        Some((_, tail)) => tail.ends_with(read) || read.ends_with(tail),
        None => folded.ends_with(read),
    };
    reads
        && !exempt.iter().any(|pattern| matches!(pattern.value.to_ascii_lowercase().as_str(), "*/read" | "*"))
}

fn is_everyone(principal: &Spanned<String>) -> bool {
    PrincipalId::new(&principal.value) == PrincipalId::Guid(ALL_PRINCIPALS)
}

/// What keeps a text from being an action of a new custom role (section 1.4). The matcher takes more.
fn wrong_pattern(pattern: &str) -> Option<String> {
    if pattern.is_empty() {
        Some("the action is empty".to_owned())
    } else if pattern.matches('*').count() > 1 {
        Some(format!("`{pattern}` has multiple wildcards; one is allowed"))
    } else if pattern.chars().any(|character| character.is_control() || character.is_whitespace()) {
        Some(format!("`{}` holds white space or a control character", pattern.escape_debug()))
    } else {
        None
    }
}

/// "A role with Storage data actions" (section 10, row 7).
fn has_storage_data_actions(role: &RoleDefinition) -> bool {
    let prefix = "Microsoft.Storage/";
    let is_storage = |pattern: &Spanned<String>| {
        pattern.value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    role.permissions.iter().flat_map(|entry| &entry.data_actions).any(is_storage)
}

/// A condition with operators for GUIDs, on a role with Storage data actions: the service takes it, and grants
/// nothing (section 3.7).
fn grants_nothing(condition: Option<&Condition<'_>>, role: Option<&RoleDefinition>, findings: &mut Findings) {
    if let Some(Condition { text, guid_operator: Some(operator), .. }) = condition
        && role.is_some_and(has_storage_data_actions)
    {
        let message = "GUID operators are not supported in conditions on a role with `Microsoft.Storage` data \
                       actions: the assignment grants nothing";
        let problem = Problem::warning("guid_operator_on_storage_role", message)
            .field("condition")
            .help("compare the ids as text, with `StringEqualsIgnoreCase`");
        findings.put_part(text, operator.clone(), problem);
    }
}

fn find_guid_operator(expression: &Expression, found: &mut Option<Range<usize>>) {
    if let ExpressionKind::Comparison(comparison) = &expression.kind
        && comparison.operator.family() == Family::Guid
        && found.is_none()
    {
        *found = Some(comparison.operator_span.clone());
    }
    // The parser bounds the nesting.
    for part in expression.children() {
        find_guid_operator(part, found);
    }
}

fn problem(diagnostic: Diagnostic) -> Problem {
    let Diagnostic { severity, code, message, help, .. } = diagnostic;
    Problem { severity, help, ..Problem::error(code, message) }
}

fn present(condition: Option<&ConditionText>) -> Option<&ConditionText> {
    condition.filter(|condition| !condition.text.value.trim().is_empty())
}

fn respell(given: &Spanned<String>, value: String) -> Spanned<String> {
    Spanned::new(value, given.at)
}

/// The first few of a list that may be long.
fn listed<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let mut told: Vec<String> = texts.map(|text| format!("`{text}`")).collect();
    let more = told.len().saturating_sub(3);
    told.truncate(3);
    let shown = told.join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
