//! An agent as it is described, and the resource groups it manages.

use sha2::{Digest, Sha256};

use super::{Level, Mode};
use crate::model::{At, Guid, PrincipalId, RoleAssignment, Scope, ScopeKind, Spanned};

/// An agent (semantics, section 6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Object id of its managed identity.
    pub principal: String,
    /// What it is given at the groups it manages.
    pub level: Level,
    /// Whether it asks before it writes.
    pub mode: Mode,
    /// Its boundary; without any it does nothing.
    pub managed_resource_groups: Vec<String>,
    /// Who approves, and who lends rights.
    pub answerer: Answerer,
}

/// Who answers prompts (section 6.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answerer {
    /// The user in the conversation.
    #[default]
    AskingUser,
    /// Whoever holds this role at the agent resource. Who lends rights must hold it as well.
    RoleHolder(String),
}

/// What the documents leave to configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    /// Actions that count as reading though they do not end in `/read`.
    pub query_actions: Vec<String>,
    /// What level Privileged adds to level Reader.
    pub privileged_roles: Vec<LevelRole>,
    /// Regions where agents may be created; none is anywhere.
    pub regions: Vec<String>,
}

/// A role that a level brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelRole {
    /// GUID.
    pub id: String,
    /// Display name.
    pub name: String,
}

/// What adding a group changes.
#[derive(Clone, Debug)]
pub struct GroupAdded {
    /// The agent with it.
    pub agent: Agent,
    /// Role assignments to write.
    pub role_assignments: Vec<RoleAssignment>,
}

/// What removing a group changes.
#[derive(Clone, Debug)]
pub struct GroupRemoved<'a> {
    /// The agent without it.
    pub agent: Agent,
    /// Role assignments to delete, as given.
    pub role_assignments: Vec<&'a RoleAssignment>,
}

/// Why a group cannot be added or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// An agent manages resource groups only.
    #[error("`{0}` is no resource group")]
    NotAResourceGroup(String),
    /// It is there already.
    #[error("the agent manages `{0}` already")]
    AlreadyManaged(String),
    /// It is not there.
    #[error("the agent does not manage `{0}`")]
    NotManaged(String),
}

/// What every level brings.
const READING_ROLES: [(&str, &str); 3] = [
    ("73c42c96-874c-492b-b04d-ab87d138a893", "Log Analytics Reader"),
    ("acdd72a7-3385-48ef-bd42-f606fba81ae7", "Reader"),
    ("43d0d8ad-25c7-4714-9337-8ba259a9fe05", "Monitoring Reader"),
];

// === impls ===

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            query_actions: vec![
                "Microsoft.OperationalInsights/workspaces/search/action".to_owned(),
                "Microsoft.OperationalInsights/workspaces/analytics/query/action".to_owned(),
            ],
            privileged_roles: vec![LevelRole::new("b24988ac-6180-42a0-ab88-20f7382dd24c", "Contributor")],
            regions: vec!["swedencentral".to_owned()],
        }
    }
}

impl LevelRole {
    /// A role by its GUID and display name.
    pub fn new(id: impl Into<String>, name: impl Into<String>) -> Self {
        Self { id: id.into(), name: name.into() }
    }
}

impl Level {
    /// The roles a level brings at each managed group, in the order they are assigned.
    pub fn roles(self, options: &AgentOptions) -> Vec<LevelRole> {
        let mut roles: Vec<_> = READING_ROLES.iter().map(|(id, name)| LevelRole::new(*id, *name)).collect();
        if self == Self::Privileged {
            roles.extend(options.privileged_roles.iter().cloned());
        }
        roles
    }
}

impl Agent {
    /// Whether a target lies in one of the managed groups (section 6.5).
    pub fn manages(&self, target: Scope<'_>) -> bool {
        self.groups().any(|group| group.contains(&target))
    }

    /// The role assignments that the level brings at every managed group.
    pub fn role_assignments(&self, options: &AgentOptions, at: At) -> Vec<RoleAssignment> {
        self.groups().flat_map(|group| self.role_assignments_at(group, options, at)).collect()
    }

    /// Adds a resource group.
    ///
    /// # Errors
    ///
    /// It is none, or there already.
    pub fn add_resource_group(&self, group: &str, options: &AgentOptions) -> Result<GroupAdded, GroupError> {
        let scope = resource_group(group)?;
        if self.groups().any(|managed| managed == scope) {
            return Err(GroupError::AlreadyManaged(group.to_owned()));
        }
        let mut agent = self.clone();
        agent.managed_resource_groups.push(scope.as_str().to_owned());
        let role_assignments = agent.role_assignments_at(scope, options, At::default());
        Ok(GroupAdded { agent, role_assignments })
    }

    /// Removes a resource group, and with it every role assignment of the agent at or below it, whoever made
    /// it: access there ends at once and entirely.
    ///
    /// # Errors
    ///
    /// The agent does not manage it.
    pub fn remove_resource_group<'a>(
        &self,
        group: &str,
        assignments: &'a [RoleAssignment],
    ) -> Result<GroupRemoved<'a>, GroupError> {
        let scope = resource_group(group)?;
        let stays = |managed: &String| resource_group(managed) != Ok(scope);
        let mut agent = self.clone();
        agent.managed_resource_groups.retain(stays);
        if agent.managed_resource_groups.len() == self.managed_resource_groups.len() {
            return Err(GroupError::NotManaged(group.to_owned()));
        }
        let principal = PrincipalId::new(&self.principal);
        let goes = |assignment: &&RoleAssignment| {
            PrincipalId::new(&assignment.principal_id.value) == principal
                && Scope::parse(&assignment.scope.value).is_ok_and(|below| scope.contains(&below))
        };
        Ok(GroupRemoved { agent, role_assignments: assignments.iter().filter(goes).collect() })
    }

    fn groups(&self) -> impl Iterator<Item = Scope<'_>> {
        // What is no resource group bounds nothing, so it opens nothing.
        self.managed_resource_groups.iter().filter_map(|group| resource_group(group).ok())
    }

    fn role_assignments_at(&self, group: Scope<'_>, options: &AgentOptions, at: At) -> Vec<RoleAssignment> {
        let text = |value: String| Spanned::new(value, at);
        let assignment = |role: LevelRole| RoleAssignment {
            at,
            name: text(assignment_name(&self.principal, &role.id, group)),
            scope: text(group.as_str().to_owned()),
            role_definition_id: text(role.id),
            principal_id: text(self.principal.clone()),
            principal_type: Some(text("ServicePrincipal".to_owned())),
            ..RoleAssignment::default()
        };
        self.level.roles(options).into_iter().map(assignment).collect()
    }
}

// === helpers ===

fn resource_group(text: &str) -> Result<Scope<'_>, GroupError> {
    Scope::parse(text)
        .ok()
        .filter(|scope| scope.kind() == ScopeKind::ResourceGroup)
        .ok_or_else(|| GroupError::NotAResourceGroup(text.to_owned()))
}

/// A GUID that the same agent, role and group always give, so that a policy is the same policy when it is
/// read again.
fn assignment_name(principal: &str, role: &str, group: Scope<'_>) -> String {
    let key = format!(
        "{}\n{}\n{}",
        PrincipalId::new(principal),
        role.to_ascii_lowercase(),
        group.as_str().to_ascii_lowercase()
    );
    let mut bytes = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(Sha256::digest(key.as_bytes())) {
        *byte = hashed;
    }
    let custom = uuid::Builder::from_custom_bytes(bytes).into_uuid();
    Guid::from_u128(custom.as_u128()).to_string()
}
