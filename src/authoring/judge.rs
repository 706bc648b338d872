//! The rules themselves.

use std::fmt;

use super::existing::{Holder, folded_id, folded_scope, triple};
use super::{
    DenyAssignmentBody, Existing, Limits, PermissionBody, PrincipalBody, RoleAssignmentBody,
    RoleDefinitionBody,
};
use crate::model::{ALL_PRINCIPALS, At, Guid, PrincipalId, Problem, Scope, ScopeKind, Spanned};

/// Owner and User Access Administrator: of these, a subscription keeps one (section 1.8).
const RBAC_ADMINS: [&str; 2] =
    ["8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"];

/// The only version (section 3.7).
const CONDITION_VERSION: &str = "2.0";

/// How writes are judged.
#[derive(Clone, Copy)]
pub struct Judge<'a> {
    /// How much of each there may be.
    pub limits: Limits,
    /// Reads a condition as an author writes it; the error says what is wrong with it.
    pub condition: &'a dyn Fn(&str) -> Result<ConditionFacts, String>,
    /// Whether the directory knows a principal. Asked only where the writer does not say what it is.
    pub principal_exists: &'a dyn Fn(PrincipalId<'_>) -> bool,
    /// Whether the author may do an action at a scope: a custom role is written at each of its assignable
    /// scopes.
    pub author_may: &'a dyn Fn(&str, Scope<'_>) -> bool,
    /// Whether [`Existing`] holds every role there is, so that one it lacks does not exist. Exports usually
    /// leave the built-in ones out.
    pub roles_complete: bool,
    /// Whose deny assignments are judged.
    pub deny_origin: Origin,
}

/// What a condition says about itself, as far as a write must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConditionFacts {
    /// Whether it has an operator of the GUID family.
    pub guid_operators: bool,
}

/// Who makes a deny assignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Somebody: the narrow rules of the preview API hold.
    #[default]
    User,
    /// Azure, for deployment stacks, managed applications and blueprints.
    Azure,
}

/// A write that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Everything that is wrong with a write, each with its place; the first is what the service would say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<(At, Problem)>);

// === impls ===

impl fmt::Debug for Judge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge")
            .field("limits", &self.limits)
            .field("roles_complete", &self.roles_complete)
            .field("deny_origin", &self.deny_origin)
            .finish_non_exhaustive()
    }
}

impl<'a> Judge<'a> {
    /// With Azure's limits, a directory and an author about whom nothing is known, and roles that may be
    /// missing.
    pub fn new(condition: &'a dyn Fn(&str) -> Result<ConditionFacts, String>) -> Self {
        Self {
            limits: Limits::AZURE,
            condition,
            principal_exists: &|_| true,
            author_may: &|_, _| true,
            roles_complete: false,
            deny_origin: Origin::User,
        }
    }

    // --- role assignments ---

    /// `PUT` of a role assignment (sections 1.2, 1.7 and 1.8).
    ///
    /// # Errors
    ///
    /// All that is wrong.
    pub fn put_role_assignment(
        &self,
        existing: &Existing,
        body: &RoleAssignmentBody,
    ) -> Result<Written<RoleAssignmentBody>, Findings> {
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
            self.may_stand_at(existing, role, scope, body, &mut findings);
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
        let condition =
            self.condition(body.condition.as_ref(), body.condition_version.as_ref(), &mut findings);

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
                findings.put(body.at, Problem::error("RoleAssignmentExists", message));
            } else if before.is_none() {
                self.assignments_left(existing, &body.scope, &mut findings);
            }
        }
        findings.none()?;

        let mut warnings = Findings::default();
        if let (Some((_, facts)), Some(role)) = (&condition, role)
            && facts.guid_operators
            && has_storage_data_actions(role)
        {
            let message = "a condition with GUID operators on a role with `Microsoft.Storage` data actions is not \
                           supported: the role assignment grants nothing";
            warnings.put(body.at, Problem::warning("InvalidCondition", message).field("condition"));
        }
        let stored = RoleAssignmentBody {
            name: respell(&body.name, folded_id(&body.name.value)),
            scope: respell(&body.scope, scope.map_or_else(String::new, |scope| scope.as_str().to_owned())),
            role_definition_id: respell(&body.role_definition_id, folded_id(&body.role_definition_id.value)),
            condition: condition.as_ref().map(|(text, _)| (*text).clone()),
            condition_version: condition
                .as_ref()
                .map(|(text, _)| version(text, body.condition_version.as_ref())),
            ..body.clone()
        };
        Ok(Written { effect: if same { Effect::Update } else { Effect::Create }, stored, warnings })
    }

    /// Whether the role may be assigned there (sections 1.4 and 1.8).
    fn may_stand_at(
        &self,
        existing: &Existing,
        role: &RoleDefinitionBody,
        scope: Scope<'_>,
        body: &RoleAssignmentBody,
        findings: &mut Findings,
    ) {
        let assignable = role.assignable_scopes.iter().filter_map(|above| Scope::parse(&above.value).ok());
        if !assignable.into_iter().any(|above| existing.hierarchy.applies(above, scope)) {
            let message = format!("role `{}` cannot be assigned at `{scope}`", role.role_name.value);
            let problem =
                Problem::error("RoleAssignmentScopeNotAssignableToRoleDefinition", message).help(format!(
                    "its assignable scopes are {}",
                    listed(role.assignable_scopes.iter().map(|scope| scope.value.as_str()))
                ));
            findings.put(body.scope.at, problem.field("scope").value(&body.scope.value));
        }
        let has_data_actions = role.permissions.iter().any(|entry| !entry.data_actions.is_empty());
        if !role.built_in && has_data_actions && scope.kind() == ScopeKind::ManagementGroup {
            let message = format!(
                "custom role `{}` has data actions and cannot be assigned at a management group",
                role.role_name.value
            );
            let problem = Problem::error("DataActionsNotAllowedAtManagementGroup", message)
                .help("assign it at the subscriptions below");
            findings.put(body.scope.at, problem.field("scope").value(&body.scope.value));
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
        let here = findings.scope(scope);
        findings.none()?;
        let found = existing.assignment(&name.value).filter(|found| {
            here.is_some_and(|here| folded_scope(&found.scope.value) == folded_scope(here.as_str()))
        });
        let Some(found) = found else { return Ok(Deleted::Nothing) };
        let is_admin = |body: &RoleAssignmentBody| {
            RBAC_ADMINS.contains(&folded_id(&body.role_definition_id.value).as_str())
                && folded_scope(&body.scope.value) == folded_scope(&found.scope.value)
        };
        if here.is_some_and(|here| here.kind() == ScopeKind::Subscription)
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
        findings.none().map(|()| Deleted::Existing)
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
        body: &RoleDefinitionBody,
    ) -> Result<Written<RoleDefinitionBody>, Findings> {
        let mut findings = Findings::default();
        let invalid = "InvalidRoleDefinition";
        let id = folded_id(&body.id.value);
        if Guid::parse(&id).is_none() {
            findings.add(&body.id, "id", invalid, "the id does not end in a GUID");
        }
        let before = existing.role(&body.id.value);
        if body.built_in || before.is_some_and(|before| before.built_in) {
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
        findings.none()?;

        let normal = |scope: &Spanned<String>| {
            let text = Scope::parse(&scope.value).map(|scope| scope.as_str().to_owned());
            respell(scope, text.unwrap_or_default())
        };
        let stored = RoleDefinitionBody {
            id: respell(&body.id, id),
            assignable_scopes: body.assignable_scopes.iter().map(normal).collect(),
            ..body.clone()
        };
        let effect = if before.is_some() { Effect::Update } else { Effect::Create };
        Ok(Written { effect, stored, warnings: Findings::default() })
    }

    fn permissions(&self, body: &RoleDefinitionBody, findings: &mut Findings) {
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
                findings.put(condition.at, problem.help("put the condition on the role assignment"));
            }
        }
        let grants = |entry: &PermissionBody| !entry.actions.is_empty() || !entry.data_actions.is_empty();
        if !body.permissions.iter().any(grants) {
            let message = "the role has neither actions nor data actions";
            findings.put(body.at, Problem::error("InvalidRoleDefinition", message).field("permissions"));
        }
    }

    fn assignable_scopes(&self, body: &RoleDefinitionBody, findings: &mut Findings) {
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
        if existing.role(&id.value).is_some_and(|role| role.built_in) {
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
        findings.none()?;
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
        body: &DenyAssignmentBody,
    ) -> Result<Written<DenyAssignmentBody>, Findings> {
        let mut findings = Findings::default();
        let code = "InvalidDenyAssignment";
        let name = body.name.as_ref().map(|name| folded_id(&name.value));
        if let Some(given) = &body.name
            && Guid::parse(&given.value).is_none()
        {
            findings.add(given, "name", code, "the name is no GUID");
        }
        let scope = findings.scope(&body.scope);
        let before = body.name.as_ref().and_then(|name| existing.deny_scope(&name.value));
        if let (Some(given), Some(before)) = (&body.name, before)
            && before != folded_scope(&body.scope.value)
        {
            findings.add(given, "name", code, format!("a deny assignment at `{before}` has this name"));
        }
        if let Some(display) = &body.deny_assignment_name
            && let Some(other) = existing.deny_named(&body.scope.value, &display.value)
            && name.as_deref() != Some(other)
        {
            let message = "another deny assignment at this scope has the same display name";
            findings.add(display, "denyAssignmentName", code, message);
        }
        self.deny_principals(body, &mut findings);
        if body.permissions.iter().all(|entry| entry.actions.is_empty() && entry.data_actions.is_empty()) {
            let message = "the deny assignment has neither actions nor data actions";
            findings.put(body.at, Problem::error(code, message).field("permissions"));
        }
        if self.deny_origin == Origin::User {
            deny_by_user(body, &mut findings);
        }
        let condition =
            self.condition(body.condition.as_ref(), body.condition_version.as_ref(), &mut findings);
        findings.none()?;
        let stored = DenyAssignmentBody {
            name: body.name.as_ref().map(|given| respell(given, folded_id(&given.value))),
            scope: respell(&body.scope, scope.map_or_else(String::new, |scope| scope.as_str().to_owned())),
            condition: condition.as_ref().map(|(text, _)| (*text).clone()),
            condition_version: condition
                .as_ref()
                .map(|(text, _)| version(text, body.condition_version.as_ref())),
            ..body.clone()
        };
        let effect = if before.is_some() { Effect::Update } else { Effect::Create };
        Ok(Written { effect, stored, warnings: Findings::default() })
    }

    fn deny_principals(&self, body: &DenyAssignmentBody, findings: &mut Findings) {
        let code = "InvalidDenyAssignment";
        if body.principals.is_empty() {
            let message = "the deny assignment names no principal";
            findings.put(body.at, Problem::error(code, message).field("principals"));
        }
        for (index, excluded) in body.exclude_principals.iter().flatten().enumerate() {
            if is_everyone(excluded) {
                let field = format!("excludePrincipals[{index}]");
                findings.add(&excluded.id, field, code, "All Principals cannot be excluded");
            }
        }
    }

    // --- conditions ---

    /// The condition to be stored (section 3.7); a version without condition is none, nor is white space.
    fn condition<'b>(
        &self,
        text: Option<&'b Spanned<String>>,
        version: Option<&Spanned<String>>,
        findings: &mut Findings,
    ) -> Option<(&'b Spanned<String>, ConditionFacts)> {
        let code = "InvalidCondition";
        let text = present(text)?;
        if let Some(version) = present(version)
            && version.value != CONDITION_VERSION
        {
            let message = format!("`{}` is no condition version; 2.0 is the only one", version.value);
            findings.add(version, "conditionVersion", code, message);
        }
        if text.value.len() > self.limits.condition_bytes {
            let limit = self.limits.condition_bytes;
            let message = format!("the condition has {} bytes; {limit} are allowed", text.value.len());
            findings.add_long(text, "condition", code, message);
            return None;
        }
        match (self.condition)(&text.value) {
            Ok(facts) => Some((text, facts)),
            Err(wrong) => {
                findings.add_long(text, "condition", code, wrong);
                None
            }
        }
    }
}

impl Findings {
    /// None at all.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first: the one the service would give.
    pub fn first(&self) -> Option<&Problem> {
        self.0.first().map(|(_, problem)| problem)
    }

    /// Each with its place.
    pub fn iter(&self) -> impl Iterator<Item = (At, &Problem)> {
        self.0.iter().map(|(at, problem)| (*at, problem))
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
        self.0.push((at, problem));
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

    /// Goes on when there is nothing to tell.
    fn none(&mut self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(std::mem::take(self)) }
    }
}

impl IntoIterator for Findings {
    type Item = (At, Problem);
    type IntoIter = std::vec::IntoIter<(At, Problem)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

// === helpers ===

/// What only deny assignments that users make must keep (section 1.3, the preview API).
fn deny_by_user(body: &DenyAssignmentBody, findings: &mut Findings) {
    let code = "InvalidDenyAssignment";
    if body.is_system_protected {
        let message = "only Azure makes system-protected deny assignments";
        findings.put(body.at, Problem::error(code, message).field("isSystemProtected"));
    }
    if body.do_not_apply_to_child_scopes {
        let message = "`doNotApplyToChildScopes` is not supported";
        findings.put(body.at, Problem::error(code, message).field("doNotApplyToChildScopes"));
    }
    let excluded = body.exclude_principals.as_deref();
    if excluded.is_some_and(<[_]>::is_empty) {
        let message = "the list of excluded principals is empty";
        let problem = Problem::error(code, message).field("excludePrincipals");
        findings.put(body.at, problem.help("leave it out or name somebody"));
    }
    match body.principals.as_slice() {
        // Told already.
        [] => {}
        [everyone] if is_everyone(everyone) => {
            if excluded.is_none() {
                let message = "a deny assignment for All Principals must exclude somebody";
                findings.put(body.at, Problem::error(code, message).field("excludePrincipals"));
            }
        }
        [one] => {
            let kind = one.principal_type.as_ref().map(|kind| kind.value.as_str());
            if kind.is_some_and(|kind| {
                !kind.eq_ignore_ascii_case("User") && !kind.eq_ignore_ascii_case("ServicePrincipal")
            }) {
                let message = "a deny assignment is for All Principals, one user or one service principal";
                findings.add(&one.id, "principals[0]", code, message);
            }
        }
        [_, second, ..] => {
            let message = "a deny assignment is for All Principals or exactly one principal";
            findings.add(&second.id, "principals[1]", code, message);
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

fn is_everyone(principal: &PrincipalBody) -> bool {
    PrincipalId::new(&principal.id.value) == PrincipalId::Guid(ALL_PRINCIPALS)
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
fn has_storage_data_actions(role: &RoleDefinitionBody) -> bool {
    let prefix = "Microsoft.Storage/";
    let is_storage = |pattern: &Spanned<String>| {
        pattern.value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    role.permissions.iter().flat_map(|entry| &entry.data_actions).any(is_storage)
}

fn present(text: Option<&Spanned<String>>) -> Option<&Spanned<String>> {
    text.filter(|text| !text.value.trim().is_empty())
}

fn version(condition: &Spanned<String>, given: Option<&Spanned<String>>) -> Spanned<String> {
    Spanned::new(CONDITION_VERSION.to_owned(), given.map_or(condition.at, |given| given.at))
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
