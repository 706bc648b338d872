//! The baseline for scale: what one would write first, nested hash maps and a loop.
//!
//! It does the same work as the engine from the same strings (groups, hierarchy, denies, both planes, NotActions,
//! a memo of which roles speak of an action), without reporting the most specific assignment: the first grant wins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use postern::model::{Documents, PermissionBlock, Wildcards, pattern_matches};

use super::tenant::Question;

type Roles = Vec<usize>;

/// Which units (roles, then denies) speak of an action.
type Spoken = Arc<[bool]>;

struct Deny {
    unit: usize,
    everyone: bool,
    principals: Vec<String>,
    excluded: Vec<String>,
}

/// Principal to scope to roles.
pub(crate) struct Nested {
    grants: HashMap<String, HashMap<String, Roles>>,
    denies: HashMap<String, Vec<Deny>>,
    parents: HashMap<String, String>,
    member_of: HashMap<String, Vec<String>>,
    units: Vec<Vec<PermissionBlock>>,
    memo: Mutex<HashMap<(String, bool), Spoken>>,
}

impl Nested {
    pub(crate) fn new(documents: &Documents) -> Self {
        let mut units: Vec<_> =
            documents.role_definitions.iter().map(|role| role.permissions.clone()).collect();
        let numbers: HashMap<&str, usize> = documents
            .role_definitions
            .iter()
            .zip(0..)
            .map(|(role, number)| (role.id.value.as_str(), number))
            .collect();
        let mut grants: HashMap<String, HashMap<String, Roles>> = HashMap::new();
        for assignment in &documents.role_assignments {
            grants
                .entry(assignment.principal_id.value.clone())
                .or_default()
                .entry(assignment.scope.value.to_ascii_lowercase())
                .or_default()
                .push(numbers[assignment.role_definition_id.value.as_str()]);
        }
        let mut denies: HashMap<String, Vec<Deny>> = HashMap::new();
        for deny in &documents.deny_assignments {
            let ids = |list: &[postern::model::Spanned<String>]| -> Vec<String> {
                list.iter().map(|id| id.value.clone()).collect()
            };
            let principals = ids(&deny.principals);
            denies.entry(deny.scope.value.to_ascii_lowercase()).or_default().push(Deny {
                unit: units.len(),
                everyone: principals.iter().any(|id| id == "00000000-0000-0000-0000-000000000000"),
                principals,
                excluded: ids(&deny.exclude_principals),
            });
            units.push(deny.permissions.clone());
        }
        let group = |name: &str| {
            format!("/providers/microsoft.management/managementgroups/{}", name.to_ascii_lowercase())
        };
        let mut parents = HashMap::new();
        for entry in &documents.management_groups {
            if let Some(parent) = &entry.parent {
                parents.insert(group(&entry.name.value), group(&parent.value));
            }
        }
        for entry in &documents.subscriptions {
            parents.insert(
                format!("/subscriptions/{}", entry.id.value.to_ascii_lowercase()),
                group(&entry.parent.value),
            );
        }
        let mut member_of: HashMap<String, Vec<String>> = HashMap::new();
        for entry in &documents.groups {
            for member in &entry.members {
                member_of.entry(member.value.clone()).or_default().push(entry.id.value.clone());
            }
        }
        Self { grants, denies, parents, member_of, units, memo: Mutex::default() }
    }

    /// Whether the question is allowed.
    pub(crate) fn check(&self, question: &Question) -> bool {
        let mut ids = vec![question.principal.as_str()];
        ids.extend(question.groups.iter().map(String::as_str));
        let mut at = 0;
        while let Some(&id) = ids.get(at) {
            for group in self.member_of.get(id).into_iter().flatten() {
                if !ids.contains(&group.as_str()) {
                    ids.push(group);
                }
            }
            at += 1;
        }
        // The target and everything above it.
        let target = question.scope.to_ascii_lowercase();
        let mut scopes = vec![target.as_str()];
        let mut scope = target.as_str();
        while let Some((above, _)) = scope.rsplit_once('/') {
            if above.is_empty() {
                break;
            }
            scopes.push(above);
            scope = above;
        }
        let mut above = scopes.iter().find_map(|scope| self.parents.get(*scope));
        while let Some(group) = above {
            scopes.push(group);
            above = self.parents.get(group);
        }
        scopes.push("/");

        let spoken = self.spoken(&question.action, question.data_action);
        for scope in &scopes {
            for deny in self.denies.get(*scope).into_iter().flatten() {
                let lists = |list: &[String]| list.iter().any(|id| ids.contains(&id.as_str()));
                if spoken[deny.unit] && (deny.everyone || lists(&deny.principals)) && !lists(&deny.excluded) {
                    return false;
                }
            }
        }
        ids.iter().filter_map(|id| self.grants.get(*id)).any(|grants| {
            scopes.iter().filter_map(|scope| grants.get(*scope)).flatten().any(|&role| spoken[role])
        })
    }

    fn spoken(&self, action: &str, data_action: bool) -> Spoken {
        let mut memo = self.memo.lock().expect("no panic inside");
        let key = (action.to_ascii_lowercase(), data_action);
        if let Some(spoken) = memo.get(&key) {
            return Arc::clone(spoken);
        }
        let speaks = |block: &PermissionBlock| {
            let (include, exclude) = if data_action {
                (&block.data_actions, &block.not_data_actions)
            } else {
                (&block.actions, &block.not_actions)
            };
            let any = |list: &[postern::model::Spanned<String>]| {
                list.iter().any(|pattern| pattern_matches(&pattern.value, action, Wildcards::Collapse))
            };
            any(include) && !any(exclude)
        };
        let spoken: Spoken = self.units.iter().map(|blocks| blocks.iter().any(speaks)).collect();
        memo.insert(key, Arc::clone(&spoken));
        spoken
    }
}
