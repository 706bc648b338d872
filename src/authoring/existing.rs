//! What is there already, looked up by what must be unique.

use std::collections::HashMap;

use crate::model::{
    DenyAssignment, Documents, Guid, PrincipalId, RoleAssignment, RoleDefinition, Scope, ScopeKind,
};

/// The data of a tenant. Nothing in it is judged again.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// What lies in which management group.
    pub hierarchy: Hierarchy,
    assignments: HashMap<String, RoleAssignment>,
    /// Names of the assignments by principal, role and scope.
    triples: HashMap<Triple, String>,
    counts: HashMap<Holder, usize>,
    roles: HashMap<String, RoleDefinition>,
    /// Ids of roles by folded display name.
    role_names: HashMap<String, String>,
    custom_roles: usize,
    /// Names of deny assignments by scope and folded display name.
    deny_names: HashMap<(String, String), String>,
    deny_scopes: HashMap<String, String>,
}

/// Which management group holds which subscription and management group.
#[derive(Clone, Debug, Default)]
pub struct Hierarchy {
    subscriptions: HashMap<String, String>,
    /// `None` for one that hangs in no other.
    management_groups: HashMap<String, Option<String>>,
}

/// Whether one scope lies below another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Yes,
    No,
    /// The hierarchy does not say where the lower one hangs.
    Unknown,
}

/// Principal, role, scope, each folded.
pub(super) type Triple = (String, String, String);

/// Whose limit an assignment counts against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    Subscription(String),
    ManagementGroup(String),
}

impl Existing {
    /// Nothing there yet.
    pub fn new(hierarchy: Hierarchy) -> Self {
        Self { hierarchy, ..Self::default() }
    }

    /// One more role assignment, or another in the place of one with its name.
    pub fn insert_role_assignment(&mut self, body: RoleAssignment) {
        self.remove_role_assignment(&body.name.value);
        let name = folded_id(&body.name.value);
        self.triples.insert(triple(&body), name.clone());
        if let Some(holder) = Holder::of(&body.scope.value) {
            *self.counts.entry(holder).or_default() += 1;
        }
        self.assignments.insert(name, body);
    }

    /// One role assignment less.
    pub fn remove_role_assignment(&mut self, name: &str) {
        let Some(body) = self.assignments.remove(&folded_id(name)) else { return };
        let triple = triple(&body);
        if self.triples.get(&triple) == Some(&folded_id(name)) {
            self.triples.remove(&triple);
        }
        if let Some(count) = Holder::of(&body.scope.value).and_then(|holder| self.counts.get_mut(&holder)) {
            *count = count.saturating_sub(1);
        }
    }

    /// One more role definition, or another in the place of one with its id.
    pub fn insert_role_definition(&mut self, body: RoleDefinition) {
        self.remove_role_definition(&body.id.value);
        let id = folded_id(&body.id.value);
        self.role_names.entry(folded_text(&body.role_name.value)).or_insert_with(|| id.clone());
        self.custom_roles = self.custom_roles.saturating_add(usize::from(!body.is_built_in()));
        self.roles.insert(id, body);
    }

    /// One role definition less.
    pub fn remove_role_definition(&mut self, id: &str) {
        let id = folded_id(id);
        let Some(body) = self.roles.remove(&id) else { return };
        let name = folded_text(&body.role_name.value);
        if self.role_names.get(&name) == Some(&id) {
            self.role_names.remove(&name);
        }
        self.custom_roles = self.custom_roles.saturating_sub(usize::from(!body.is_built_in()));
    }

    /// One more deny assignment, or another in the place of one with its name.
    pub fn insert_deny_assignment(&mut self, body: &DenyAssignment) {
        let scope = folded_scope(&body.scope.value);
        let name = folded_id(&body.name.value);
        if let Some(display) = &body.deny_assignment_name {
            self.deny_names
                .entry((scope.clone(), folded_text(&display.value)))
                .or_insert_with(|| name.clone());
        }
        if !name.is_empty() {
            self.deny_scopes.insert(name, scope);
        }
    }

    /// So many role assignments that are there and not listed, at a subscription or management group.
    pub fn count_more_assignments(&mut self, scope: &str, more: usize) {
        if let Some(holder) = Holder::of(scope) {
            let count = self.counts.entry(holder).or_default();
            *count = count.saturating_add(more);
        }
    }

    /// So many custom roles that are there and not listed.
    pub const fn count_more_custom_roles(&mut self, more: usize) {
        self.custom_roles = self.custom_roles.saturating_add(more);
    }

    // --- look-ups ---

    pub(super) fn assignment(&self, name: &str) -> Option<&RoleAssignment> {
        self.assignments.get(&folded_id(name))
    }

    pub(super) fn assignments(&self) -> impl Iterator<Item = &RoleAssignment> {
        self.assignments.values()
    }

    /// The name of the assignment with this principal, role and scope.
    pub(super) fn assigned(&self, triple: &Triple) -> Option<&str> {
        self.triples.get(triple).map(String::as_str)
    }

    pub(super) fn count(&self, holder: &Holder) -> usize {
        self.counts.get(holder).copied().unwrap_or_default()
    }

    pub(super) fn role(&self, id: &str) -> Option<&RoleDefinition> {
        self.roles.get(&folded_id(id))
    }

    /// The id of the role with this display name.
    pub(super) fn role_named(&self, name: &str) -> Option<&str> {
        self.role_names.get(&folded_text(name)).map(String::as_str)
    }

    pub(super) const fn custom_roles(&self) -> usize {
        self.custom_roles
    }

    /// The name of the deny assignment with this display name at this scope.
    pub(super) fn deny_named(&self, scope: &str, display: &str) -> Option<&str> {
        self.deny_names.get(&(folded_scope(scope), folded_text(display))).map(String::as_str)
    }

    /// The folded scope of the deny assignment with this name.
    pub(super) fn deny_scope(&self, name: &str) -> Option<&str> {
        self.deny_scopes.get(&folded_id(name)).map(String::as_str)
    }
}

impl Hierarchy {
    /// What the documents say.
    pub fn of(documents: &Documents) -> Self {
        let mut hierarchy = Self::default();
        for group in &documents.management_groups {
            let parent = group.parent.as_ref().map(|parent| parent.value.to_ascii_lowercase());
            hierarchy.management_groups.insert(group.name.value.to_ascii_lowercase(), parent);
        }
        for subscription in &documents.subscriptions {
            hierarchy.put_subscription(&subscription.id.value, &subscription.parent.value);
        }
        hierarchy
    }

    /// A management group hangs in another.
    pub fn put_management_group(&mut self, name: &str, parent: &str) {
        self.management_groups.insert(name.to_ascii_lowercase(), Some(parent.to_ascii_lowercase()));
    }

    /// A subscription hangs in a management group.
    pub fn put_subscription(&mut self, id: &str, parent: &str) {
        self.subscriptions.insert(id.to_ascii_lowercase(), parent.to_ascii_lowercase());
    }

    /// The applies-to rule of section 1.6, all four parts. A missing link is no link.
    pub fn applies(&self, above: Scope<'_>, below: Scope<'_>) -> bool {
        self.reach(above, below) == Reach::Yes
    }

    pub(super) fn reach(&self, above: Scope<'_>, below: Scope<'_>) -> Reach {
        if above.contains(&below) {
            return Reach::Yes;
        }
        let (ScopeKind::ManagementGroup, Some(above)) = (above.kind(), above.management_group()) else {
            return Reach::No;
        };
        let above = above.to_ascii_lowercase();
        let mut next = match (below.subscription(), below.management_group()) {
            (Some(id), _) => match self.subscriptions.get(&id.to_ascii_lowercase()) {
                Some(group) => group.clone(),
                None => return Reach::Unknown,
            },
            (None, Some(group)) => group.to_ascii_lowercase(),
            (None, None) => return Reach::No,
        };
        // Each step takes another link; a circle runs out of them.
        for _ in 0..=self.management_groups.len() {
            if next == above {
                return Reach::Yes;
            }
            next = match self.management_groups.get(&next) {
                Some(Some(group)) => group.clone(),
                Some(None) => return Reach::No,
                None => return Reach::Unknown,
            };
        }
        Reach::Unknown
    }
}

impl Holder {
    /// `None` where no limit is known: the root, a provider.
    pub(super) fn of(scope: &str) -> Option<Self> {
        let scope = Scope::parse(scope).ok()?;
        let subscription = scope.subscription().map(|id| Self::Subscription(id.to_ascii_lowercase()));
        subscription
            .or_else(|| scope.management_group().map(|name| Self::ManagementGroup(name.to_ascii_lowercase())))
    }
}

pub(super) fn triple(body: &RoleAssignment) -> Triple {
    (
        PrincipalId::new(&body.principal_id.value).to_string(),
        folded_id(&body.role_definition_id.value),
        folded_scope(&body.scope.value),
    )
}

/// A GUID, bare or at the end of a full id, in its canonical form; any other text in lower case.
pub(super) fn folded_id(id: &str) -> String {
    let last = id.rsplit('/').next().unwrap_or(id);
    Guid::parse(last).map_or_else(|| id.to_ascii_lowercase(), |guid| guid.to_string())
}

pub(super) fn folded_scope(scope: &str) -> String {
    Scope::parse(scope)
        .map_or_else(|_| scope.to_ascii_lowercase(), |scope| scope.as_str().to_ascii_lowercase())
}

fn folded_text(text: &str) -> String {
    text.to_lowercase()
}
