//! What is written: the documents of `model` with what only a write looks at. A value that came from no file
//! has the default place.

use crate::model::{At, DenyAssignment, PermissionBlock, RoleAssignment, RoleDefinition, Spanned};

/// A role assignment to be written (section 1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleAssignmentBody {
    /// Where the document begins.
    pub at: At,
    /// GUID, unique in the tenant.
    pub name: Spanned<String>,
    /// Where it is to stand.
    pub scope: Spanned<String>,
    /// Bare GUID or full id.
    pub role_definition_id: Spanned<String>,
    /// Who gets the role.
    pub principal_id: Spanned<String>,
    /// What the writer says it is.
    pub principal_type: Option<Spanned<String>>,
    /// Free text.
    pub description: Option<Spanned<String>>,
    /// Condition text.
    pub condition: Option<Spanned<String>>,
    /// `2.0` where a condition has none.
    pub condition_version: Option<Spanned<String>>,
}

/// A role definition to be written (section 1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleDefinitionBody {
    /// Where the document begins.
    pub at: At,
    /// GUID, bare or at the end of a full id.
    pub id: Spanned<String>,
    /// Display name, unique in the tenant.
    pub role_name: Spanned<String>,
    /// Whether it is one of Azure's own, which nobody writes.
    pub built_in: bool,
    /// Free text.
    pub description: Option<Spanned<String>>,
    /// Entries.
    pub permissions: Vec<PermissionBody>,
    /// Scopes at or below which it may be assigned.
    pub assignable_scopes: Vec<Spanned<String>>,
}

/// One entry of `permissions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionBody {
    /// Where it begins.
    pub at: At,
    /// Control-plane patterns.
    pub actions: Vec<Spanned<String>>,
    /// Control-plane exclusions.
    pub not_actions: Vec<Spanned<String>>,
    /// Data-plane patterns.
    pub data_actions: Vec<Spanned<String>>,
    /// Data-plane exclusions.
    pub not_data_actions: Vec<Spanned<String>>,
    /// Condition text.
    pub condition: Option<Spanned<String>>,
}

/// A deny assignment to be written (section 1.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenyAssignmentBody {
    /// Where the document begins.
    pub at: At,
    /// GUID; the service makes one where it is left out.
    pub name: Option<Spanned<String>>,
    /// Display name, unique within a scope.
    pub deny_assignment_name: Option<Spanned<String>>,
    /// Where it is to stand.
    pub scope: Spanned<String>,
    /// Entries.
    pub permissions: Vec<PermissionBody>,
    /// Whether it is to hold at the scope alone.
    pub do_not_apply_to_child_scopes: bool,
    /// Only Azure sets it.
    pub is_system_protected: bool,
    /// Whom it hits.
    pub principals: Vec<PrincipalBody>,
    /// Whom it spares. An empty list is not the same as none.
    pub exclude_principals: Option<Vec<PrincipalBody>>,
    /// Condition text.
    pub condition: Option<Spanned<String>>,
    /// `2.0` where a condition has none.
    pub condition_version: Option<Spanned<String>>,
}

/// One of a deny assignment's principals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrincipalBody {
    /// Object id; the nil GUID is All Principals.
    pub id: Spanned<String>,
    /// `User`, `Group`, `ServicePrincipal` or `SystemDefined`.
    pub principal_type: Option<Spanned<String>>,
}

// === impls ===

impl PermissionBody {
    /// All four lists with the property names they are written under.
    pub(super) fn lists(&self) -> [(&'static str, &[Spanned<String>]); 4] {
        [
            ("actions", &self.actions),
            ("notActions", &self.not_actions),
            ("dataActions", &self.data_actions),
            ("notDataActions", &self.not_data_actions),
        ]
    }
}

impl From<&RoleAssignment> for RoleAssignmentBody {
    fn from(document: &RoleAssignment) -> Self {
        Self {
            at: document.at,
            name: document.name.clone(),
            scope: document.scope.clone(),
            role_definition_id: document.role_definition_id.clone(),
            principal_id: document.principal_id.clone(),
            principal_type: document.principal_type.clone(),
            description: document.description.clone(),
            condition: None,
            condition_version: None,
        }
    }
}

impl From<&RoleDefinition> for RoleDefinitionBody {
    fn from(document: &RoleDefinition) -> Self {
        // Documents say of themselves whether the tenant made them; one that says nothing and may be assigned
        // everywhere can only be Azure's.
        let everywhere = document.assignable_scopes.iter().any(|scope| scope.value == "/");
        Self {
            at: document.at,
            id: document.id.clone(),
            role_name: document.role_name.clone(),
            built_in: !document.custom && everywhere,
            description: document.description.clone(),
            permissions: document.permissions.iter().map(PermissionBody::from).collect(),
            assignable_scopes: document.assignable_scopes.clone(),
        }
    }
}

impl From<&PermissionBlock> for PermissionBody {
    fn from(block: &PermissionBlock) -> Self {
        Self {
            at: block.at,
            actions: block.actions.clone(),
            not_actions: block.not_actions.clone(),
            data_actions: block.data_actions.clone(),
            not_data_actions: block.not_data_actions.clone(),
            condition: None,
        }
    }
}

impl From<&DenyAssignment> for DenyAssignmentBody {
    fn from(document: &DenyAssignment) -> Self {
        let principals = |ids: &[Spanned<String>]| {
            ids.iter().map(|id| PrincipalBody { id: id.clone(), principal_type: None }).collect::<Vec<_>>()
        };
        Self {
            at: document.at,
            name: Some(document.name.clone()),
            deny_assignment_name: document.deny_assignment_name.clone(),
            scope: document.scope.clone(),
            permissions: document.permissions.iter().map(PermissionBody::from).collect(),
            do_not_apply_to_child_scopes: document.do_not_apply_to_child_scopes,
            is_system_protected: false,
            principals: principals(&document.principals),
            // The reader gives an empty list for one that is left out, which is the usual case.
            exclude_principals: Some(principals(&document.exclude_principals))
                .filter(|list| !list.is_empty()),
            condition: None,
            condition_version: None,
        }
    }
}
