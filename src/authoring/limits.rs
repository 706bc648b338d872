//! The limits of section 1.7. That of conditions is their parser's.

/// How much of each there may be. [`Limits::AZURE`] is the service's own; other clouds and tests override.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Role assignments in a subscription: at itself, its resource groups and its resources together.
    pub assignments_per_subscription: usize,
    /// Role assignments at a management group, counted apart from its subscriptions.
    pub assignments_per_management_group: usize,
    /// Custom roles in the tenant.
    pub custom_roles: usize,
    /// Characters of a role's display name.
    pub role_name_characters: usize,
    /// Characters of a role's description.
    pub role_description_characters: usize,
    /// Assignable scopes of a custom role.
    pub assignable_scopes: usize,
    /// Bytes of a role assignment's description.
    pub assignment_description_bytes: usize,
}

impl Limits {
    /// The public cloud.
    pub const AZURE: Self = Self {
        assignments_per_subscription: 4_000,
        assignments_per_management_group: 500,
        custom_roles: 5_000,
        role_name_characters: 512,
        role_description_characters: 2_048,
        assignable_scopes: 2_000,
        assignment_description_bytes: 2 * 1_024,
    };

    /// Azure operated by 21Vianet.
    pub const CHINA: Self = Self { custom_roles: 2_000, ..Self::AZURE };
}

impl Default for Limits {
    fn default() -> Self {
        Self::AZURE
    }
}
