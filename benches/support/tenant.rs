//! A made-up large tenant of any size, always the same for the same size, and questions about it.
//!
//! The splits are the "large" column of a sizing study of public sources; most of its numbers are assumptions, and
//! so are these:
//!
//! * about 60,000 assignments to 500 subscriptions and 200 management groups, five deep below the tenant root
//!   group; 60 resource groups to a subscription (here scaled with the number of assignments);
//! * by scope: 3 % management groups, 22 % subscriptions, 50 % resource groups, 25 % resources;
//! * by subscription: four fifths spread evenly, one fifth on two subscriptions of a hundred (median about 90,
//!   p99 about 1,300 at 60,000; the study assumes 75 and 1,500);
//! * by principal: 15 % users, 25 % groups, 60 % service principals, a third as many principals as assignments;
//! * 120 roles, 60 of them custom, 7 patterns in the median; a few roles hold most of the assignments;
//! * callers come with asserted groups that have assignments (10, or 200 for the heavy case); one group in ten
//!   holds another one. The policy itself lists no users as members;
//! * one deny assignment to 2,000 assignments (at least four), as managed applications make them: at a resource
//!   group, for everyone but one, everything but reading. The study says nothing about them;
//! * no conditions and no schedules.

use std::collections::HashSet;

use postern::model::{
    Action, CheckRequest, DenyAssignment, Documents, Group, ManagementGroup, PermissionBlock, Plane,
    PrincipalId, RoleAssignment, RoleDefinition, Scope, Spanned, Subject, Subscription,
};
use serde_json::{Map, Value, json};

/// SplitMix64: small, fast, good enough, always the same.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or_default()
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn guid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 48 & 0x3fff | 0x8000,
            b & 0xffff_ffff_ffff
        )
    }
}

/// One question, as strings.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) principal: String,
    pub(crate) groups: Vec<String>,
    pub(crate) action: String,
    pub(crate) data_action: bool,
    pub(crate) scope: String,
}

impl Question {
    /// From the strings to the request.
    pub(crate) fn parse(&self) -> CheckRequest<'_> {
        CheckRequest::new(
            Subject { principal: PrincipalId::new(&self.principal), groups: (&self.groups).into() },
            Action::parse(&self.action).expect("an action"),
            Plane::from_data_action(self.data_action),
            Scope::parse(&self.scope).expect("a scope"),
        )
    }
}

/// A tenant and what is needed to ask about it.
pub(crate) struct Tenant {
    pub(crate) documents: Documents,
    users: Vec<String>,
    groups: Vec<String>,
    service_principals: Vec<String>,
    subscriptions: Vec<String>,
    /// Subscriptions at the deepest management groups.
    deep: Vec<usize>,
    size: usize,
}

const RESOURCE_GROUPS: usize = 60;
const RESOURCES: usize = 20;
/// How many questions a pool holds.
pub(crate) const POOL: usize = 4096;

/// Provider, type and a child type.
const TYPES: [(&str, &str, &str); 24] = [
    ("Microsoft.Compute", "virtualMachines", "extensions"),
    ("Microsoft.Compute", "disks", "snapshots"),
    ("Microsoft.Compute", "virtualMachineScaleSets", "virtualMachines"),
    ("Microsoft.Storage", "storageAccounts", "blobServices"),
    ("Microsoft.Network", "virtualNetworks", "subnets"),
    ("Microsoft.Network", "networkInterfaces", "ipConfigurations"),
    ("Microsoft.Network", "loadBalancers", "backendAddressPools"),
    ("Microsoft.Network", "privateDnsZones", "A"),
    ("Microsoft.KeyVault", "vaults", "secrets"),
    ("Microsoft.Sql", "servers", "databases"),
    ("Microsoft.Web", "sites", "slots"),
    ("Microsoft.Web", "serverfarms", "usages"),
    ("Microsoft.ContainerService", "managedClusters", "agentPools"),
    ("Microsoft.ContainerRegistry", "registries", "webhooks"),
    ("Microsoft.EventHub", "namespaces", "eventhubs"),
    ("Microsoft.ServiceBus", "namespaces", "queues"),
    ("Microsoft.DocumentDB", "databaseAccounts", "sqlDatabases"),
    ("Microsoft.Automation", "automationAccounts", "runbooks"),
    ("Microsoft.Insights", "components", "analyticsItems"),
    ("Microsoft.OperationalInsights", "workspaces", "tables"),
    ("Microsoft.CognitiveServices", "accounts", "deployments"),
    ("Microsoft.MachineLearningServices", "workspaces", "computes"),
    ("Microsoft.DataFactory", "factories", "pipelines"),
    ("Microsoft.Logic", "workflows", "runs"),
];
const VERBS: [&str; 5] = ["read", "write", "delete", "start/action", "listKeys/action"];

fn spanned(value: impl Into<String>) -> Spanned<String> {
    Spanned { value: value.into(), ..Spanned::default() }
}

fn all_spanned(values: &[&str]) -> Vec<Spanned<String>> {
    values.iter().copied().map(spanned).collect()
}

impl Tenant {
    /// A tenant with so many role assignments.
    pub(crate) fn new(size: usize) -> Self {
        let mut rng = Rng::new(0x0070_6F73_7465_726E ^ size as u64);
        let mut documents = Documents::default();

        let group_count = (size / 300).max(12);
        let mut depths: Vec<Vec<usize>> = vec![vec![0]];
        documents.management_groups.push(ManagementGroup { name: spanned("tenant-root"), parent: None });
        for number in 1..group_count {
            let depth = 1 + (number - 1) % 5;
            // The first round through the depths puts one group into each.
            let above = &depths[depth - 1];
            let parent = above[rng.below(above.len())];
            let parent = documents.management_groups[parent].name.clone();
            if depths.len() <= depth {
                depths.push(Vec::new());
            }
            depths[depth].push(number);
            let name = spanned(format!("mg-{number:05}"));
            documents.management_groups.push(ManagementGroup { name, parent: Some(parent) });
        }

        let subscription_count = (size / 120).max(8);
        let subscriptions: Vec<String> = (0..subscription_count).map(|_| rng.guid()).collect();
        let mut deep = Vec::new();
        for (number, id) in subscriptions.iter().enumerate() {
            let depth = 2 + number % 4;
            if depth == 5 {
                deep.push(number);
            }
            let holders = &depths[depth];
            let holder = holders[rng.below(holders.len())];
            documents.subscriptions.push(Subscription {
                id: spanned(id.clone()),
                parent: documents.management_groups[holder].name.clone(),
            });
        }

        let population = (size / 3).max(40);
        let mut ids =
            |percent: usize| -> Vec<String> { (0..population * percent / 100).map(|_| rng.guid()).collect() };
        let (users, groups, service_principals) = (ids(15), ids(25), ids(60));
        for number in (0..groups.len()).step_by(10) {
            let member = groups[rng.below(groups.len())].clone();
            documents.groups.push(Group {
                id: spanned(groups[number].clone()),
                display_name: Some(spanned(format!("group-{number}"))),
                members: vec![spanned(member)],
                ..Group::default()
            });
        }

        documents.role_definitions = roles(&mut rng);
        let mut tenant = Self { documents, users, groups, service_principals, subscriptions, deep, size };
        // Azure refuses a second assignment of the same role to the same principal at the same scope.
        let mut seen = HashSet::with_capacity(size);
        while seen.len() < size {
            let assignment = tenant.assignment(&mut rng);
            let (scope, role) = (&assignment.scope.value, &assignment.role_definition_id.value);
            if seen.insert((assignment.principal_id.value.clone(), role.clone(), scope.clone())) {
                tenant.documents.role_assignments.push(assignment);
            }
        }
        for number in 0..(size / 2000).max(4) {
            let deny = tenant.deny(number, &mut rng);
            tenant.documents.deny_assignments.push(deny);
        }
        tenant
    }

    fn assignment(&self, rng: &mut Rng) -> RoleAssignment {
        let (principals, kind) = match rng.below(100) {
            0..15 => (&self.users, "User"),
            15..40 => (&self.groups, "Group"),
            _ => (&self.service_principals, "ServicePrincipal"),
        };
        let scope = match rng.below(100) {
            0..3 => self.management_group(rng),
            3..25 => self.subscription(rng),
            25..75 => self.resource_group(rng),
            _ => self.resource(rng),
        };
        // Reader, Contributor and Owner hold half, the rest falls off.
        let roles = self.documents.role_definitions.len();
        let role = if rng.percent(50) { rng.below(3) } else { rng.below(roles).min(rng.below(roles)) };
        RoleAssignment {
            name: spanned(rng.guid()),
            scope: spanned(scope),
            role_definition_id: self.documents.role_definitions[role].id.clone(),
            principal_id: spanned(principals[rng.below(principals.len())].clone()),
            principal_type: Some(spanned(kind)),
            ..RoleAssignment::default()
        }
    }

    fn deny(&self, number: usize, rng: &mut Rng) -> DenyAssignment {
        let exempt = &self.service_principals[rng.below(self.service_principals.len())];
        DenyAssignment {
            name: spanned(rng.guid()),
            deny_assignment_name: Some(spanned(format!("managed application {number}"))),
            permissions: vec![PermissionBlock {
                actions: all_spanned(&["*"]),
                not_actions: all_spanned(&["*/read"]),
                ..PermissionBlock::default()
            }],
            scope: spanned(self.resource_group(rng)),
            principals: all_spanned(&["00000000-0000-0000-0000-000000000000"]),
            exclude_principals: vec![spanned(exempt.clone())],
            ..DenyAssignment::default()
        }
    }

    fn management_group(&self, rng: &mut Rng) -> String {
        let all = &self.documents.management_groups;
        format!("/providers/Microsoft.Management/managementGroups/{}", all[rng.below(all.len())].name.value)
    }

    fn subscription(&self, rng: &mut Rng) -> String {
        let count = self.subscriptions.len();
        let number = if rng.percent(20) { rng.below(count.div_ceil(50)) } else { rng.below(count) };
        format!("/subscriptions/{}", self.subscriptions[number])
    }

    fn resource_group(&self, rng: &mut Rng) -> String {
        format!("{}/resourceGroups/rg-workload-{:02}", self.subscription(rng), rng.below(RESOURCE_GROUPS))
    }

    fn resource(&self, rng: &mut Rng) -> String {
        let group = self.resource_group(rng);
        below_group(&group, rng.below(RESOURCES))
    }

    /// So many groups that have assignments.
    fn asserted(&self, count: usize, rng: &mut Rng) -> Vec<String> {
        (0..count).map(|_| self.groups[rng.below(self.groups.len())].clone()).collect()
    }

    /// Questions of callers with so many asserted groups. Half are made to fit an assignment, so about half are
    /// allowed; one in 64 points into a resource group with a deny assignment.
    pub(crate) fn questions(&self, groups: usize) -> Vec<Question> {
        let mut rng = Rng::new(0x0071_7565_7374_696F ^ self.size as u64 ^ groups as u64);
        (0..POOL).map(|number| self.question(number, groups, &mut rng)).collect()
    }

    /// The heavy case: eleven levels from the tenant root to a child of a resource, and 200 groups.
    pub(crate) fn heavy_questions(&self) -> Vec<Question> {
        let mut rng = Rng::new(0x0068_6561_7679 ^ self.size as u64);
        let mut questions: Vec<Question> =
            (0..POOL).map(|number| self.question(number, 200, &mut rng)).collect();
        for question in &mut questions {
            // /, the tenant root group, five groups, subscription, resource group, resource, child.
            let subscription = &self.subscriptions[self.deep[rng.below(self.deep.len())]];
            let group = format!(
                "/subscriptions/{subscription}/resourceGroups/rg-workload-{:02}",
                rng.below(RESOURCE_GROUPS)
            );
            let number = rng.below(RESOURCES);
            let (_, _, child) = TYPES[number % TYPES.len()];
            question.scope = format!("{}/{child}/part-{}", below_group(&group, number), rng.below(5));
        }
        questions
    }

    fn question(&self, number: usize, groups: usize, rng: &mut Rng) -> Question {
        let callers = if rng.percent(40) { &self.users } else { &self.service_principals };
        let mut question = Question {
            principal: callers[rng.below(callers.len())].clone(),
            groups: self.asserted(groups, rng),
            action: action(rng),
            data_action: rng.percent(20),
            scope: self.resource(rng),
        };
        if number % 64 == 63 {
            let denies = &self.documents.deny_assignments;
            question.scope = below_group(&denies[rng.below(denies.len())].scope.value, rng.below(RESOURCES));
            question.action = "Microsoft.Compute/virtualMachines/write".to_owned();
            question.data_action = false;
            return question;
        }
        if number.is_multiple_of(2) {
            let all = &self.documents.role_assignments;
            let assignment = &all[rng.below(all.len())];
            let principal = assignment.principal_id.value.clone();
            if assignment.principal_type.as_ref().is_some_and(|kind| kind.value == "Group") {
                if let Some(first) = question.groups.first_mut() {
                    *first = principal;
                }
            } else {
                question.principal = principal;
            }
            question.scope = self.at_or_below(&assignment.scope.value, rng);
            if let Some((action, data)) = self.granted(&assignment.role_definition_id.value, rng) {
                (question.action, question.data_action) = (action, data);
            }
        }
        // Clients spell scopes as they like.
        if rng.percent(10) {
            question.scope = question.scope.to_ascii_lowercase();
        }
        question
    }

    fn at_or_below(&self, scope: &str, rng: &mut Rng) -> String {
        let mut scope = scope.to_owned();
        if scope.starts_with("/providers/") {
            // Any subscription hangs there for all we know; a group asks about itself.
            return scope;
        }
        if !scope.contains("/resourceGroups/") && rng.percent(90) {
            scope = format!("{scope}/resourceGroups/rg-workload-{:02}", rng.below(RESOURCE_GROUPS));
        }
        if !scope.contains("/providers/") && scope.contains("/resourceGroups/") && rng.percent(80) {
            scope = below_group(&scope, rng.below(RESOURCES));
        }
        if scope.contains("/providers/") && rng.percent(30) {
            scope.push_str("/parts/one");
        }
        scope
    }

    /// An action that a role grants.
    fn granted(&self, role: &str, rng: &mut Rng) -> Option<(String, bool)> {
        let role = self.documents.role_definitions.iter().find(|known| known.id.value == role)?;
        let block = role.permissions.first()?;
        let (list, data) =
            if block.actions.is_empty() { (&block.data_actions, true) } else { (&block.actions, false) };
        let pattern = &list.get(rng.below(list.len().max(1)))?.value;
        let made = match pattern.as_str() {
            "*" => action(rng),
            "*/read" => {
                let (provider, kind, _) = TYPES[rng.below(TYPES.len())];
                format!("{provider}/{kind}/read")
            }
            other => other.replace("/*/", "/things/").replace('*', "things/read"),
        };
        Some((made, data))
    }

    /// The documents as the Azure CLI writes them: pairs of file name and text.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let texts = |list: &[Spanned<String>]| -> Vec<String> {
            list.iter().map(|text| text.value.clone()).collect()
        };
        let blocks = |blocks: &[PermissionBlock]| -> Vec<Value> {
            let block = |block: &PermissionBlock| {
                json!({
                    "actions": texts(&block.actions), "notActions": texts(&block.not_actions),
                    "dataActions": texts(&block.data_actions), "notDataActions": texts(&block.not_data_actions),
                })
            };
            blocks.iter().map(block).collect()
        };
        let roles = self.documents.role_definitions.iter().map(|role| {
            json!({
                "assignableScopes": texts(&role.assignable_scopes), "createdBy": null,
                "description": "", "id": format!("/providers/Microsoft.Authorization/roleDefinitions/{}", role.id.value),
                "name": role.id.value, "permissions": blocks(&role.permissions),
                "roleName": role.role_name.value,
                "roleType": if role.custom { "CustomRole" } else { "BuiltInRole" },
                "type": "Microsoft.Authorization/roleDefinitions",
            })
        });
        let assignments = self.documents.role_assignments.iter().map(|assignment| {
            let (name, scope) = (&assignment.name.value, &assignment.scope.value);
            let role = &assignment.role_definition_id.value;
            json!({
                "condition": null, "conditionVersion": null, "createdBy": null,
                "createdOn": "2026-01-01T00:00:00.000000+00:00", "delegatedManagedIdentityResourceId": null,
                "description": null,
                "id": format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"),
                "name": name, "principalId": assignment.principal_id.value,
                "principalType": assignment.principal_type.as_ref().map(|kind| &kind.value),
                "roleDefinitionId": format!("/providers/Microsoft.Authorization/roleDefinitions/{role}"),
                "scope": scope, "type": "Microsoft.Authorization/roleAssignments",
                "updatedBy": null, "updatedOn": "2026-01-01T00:00:00.000000+00:00",
            })
        });
        let denies = self.documents.deny_assignments.iter().map(|deny| {
            let (name, scope) = (&deny.name.value, &deny.scope.value);
            let principals = |list: &[Spanned<String>], kind: &str| -> Vec<Value> {
                list.iter().map(|id| json!({ "id": id.value, "type": kind })).collect()
            };
            json!({
                "denyAssignmentName": deny.deny_assignment_name.as_ref().map(|name| &name.value),
                "doNotApplyToChildScopes": deny.do_not_apply_to_child_scopes,
                "excludePrincipals": principals(&deny.exclude_principals, "ServicePrincipal"),
                "id": format!("{scope}/providers/Microsoft.Authorization/denyAssignments/{name}"),
                "isSystemProtected": true, "name": name, "permissions": blocks(&deny.permissions),
                "principals": principals(&deny.principals, "SystemDefined"), "scope": scope,
                "type": "Microsoft.Authorization/denyAssignments",
            })
        });
        let map = |pairs: &mut dyn Iterator<Item = (String, Value)>| pairs.collect::<Map<String, Value>>();
        let tenant = json!({
            "groups": map(&mut self.documents.groups.iter().map(|group| {
                (group.id.value.clone(), json!(texts(&group.members)))
            })),
            "managementGroups": map(&mut self.documents.management_groups.iter().map(|group| {
                (group.name.value.clone(), json!(group.parent.as_ref().map(|parent| &parent.value)))
            })),
            "subscriptions": map(&mut self.documents.subscriptions.iter().map(|subscription| {
                (subscription.id.value.clone(), json!(subscription.parent.value))
            })),
        });
        [
            ("role-definitions.json", Value::Array(roles.collect())),
            ("role-assignments.json", Value::Array(assignments.collect())),
            ("deny-assignments.json", Value::Array(denies.collect())),
            ("tenant.json", tenant),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), serde_json::to_vec_pretty(&value).expect("JSON")))
        .collect()
    }
}

fn below_group(group: &str, number: usize) -> String {
    let (provider, kind, _) = TYPES[number % TYPES.len()];
    format!("{group}/providers/{provider}/{kind}/res-{number:03}")
}

/// One of some two hundred operations.
fn action(rng: &mut Rng) -> String {
    let (provider, kind, child) = TYPES[rng.below(TYPES.len())];
    let verb = VERBS[rng.below(VERBS.len())];
    if rng.percent(40) {
        format!("{provider}/{kind}/{child}/{verb}")
    } else {
        format!("{provider}/{kind}/{verb}")
    }
}

/// 60 built-in and 60 custom roles with lists like real ones.
fn roles(rng: &mut Rng) -> Vec<RoleDefinition> {
    let mut roles = Vec::new();
    let mut add = |rng: &mut Rng, name: String, custom: bool, permissions: PermissionBlock| {
        roles.push(RoleDefinition {
            id: spanned(rng.guid()),
            role_name: spanned(name),
            custom,
            permissions: vec![permissions],
            assignable_scopes: all_spanned(if custom {
                &["/providers/Microsoft.Management/managementGroups/tenant-root"]
            } else {
                &["/"]
            }),
            ..RoleDefinition::default()
        });
    };
    let block = |actions: &[&str], not_actions: &[&str]| PermissionBlock {
        actions: all_spanned(actions),
        not_actions: all_spanned(not_actions),
        ..PermissionBlock::default()
    };
    add(rng, "Reader".to_owned(), false, block(&["*/read"], &[]));
    let contributor = [
        "Microsoft.Authorization/*/Delete",
        "Microsoft.Authorization/*/Write",
        "Microsoft.Authorization/elevateAccess/Action",
        "Microsoft.Blueprint/blueprintAssignments/write",
        "Microsoft.Blueprint/blueprintAssignments/delete",
        "Microsoft.Compute/galleries/share/action",
    ];
    add(rng, "Contributor".to_owned(), false, block(&["*"], &contributor));
    add(rng, "Owner".to_owned(), false, block(&["*"], &[]));
    let access = ["*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"];
    add(rng, "User Access Administrator".to_owned(), false, block(&access, &[]));
    for number in 4..120 {
        let (provider, kind, child) = TYPES[number % TYPES.len()];
        let own = |tail: &str| spanned(format!("{provider}/{kind}/{tail}"));
        let mut permissions = PermissionBlock::default();
        match number % 4 {
            // A contributor of one type.
            0 => {
                permissions.actions.extend([own("*"), spanned(format!("{provider}/locations/*/read"))]);
                permissions.not_actions.push(own("listKeys/action"));
            }
            // A reader that also sees what lies below.
            1 => permissions.actions.extend([own("read"), own("*/read"), own(&format!("{child}/read"))]),
            // An operator: literals only.
            2 => permissions.actions.extend([
                own("read"),
                own("start/action"),
                own("restart/action"),
                own(&format!("{child}/read")),
                own(&format!("{child}/write")),
            ]),
            // A data role.
            _ => {
                permissions.data_actions.extend([own(&format!("{child}/*")), own("*/read")]);
                permissions.not_data_actions.push(own("*/purge/action"));
            }
        }
        if number % 4 != 3 {
            // The block that nearly every built-in role repeats.
            permissions.actions.extend(all_spanned(&[
                "Microsoft.Authorization/*/read",
                "Microsoft.Insights/alertRules/*",
                "Microsoft.ResourceHealth/availabilityStatuses/read",
                "Microsoft.Resources/deployments/*",
                "Microsoft.Resources/subscriptions/resourceGroups/read",
                "Microsoft.Support/*",
            ]));
        }
        // A long tail of literals, as in the roles of solutions.
        let more = if number % 10 == 0 { 40 } else { rng.below(4) };
        let list = if number % 4 == 3 { &mut permissions.data_actions } else { &mut permissions.actions };
        for _ in 0..more {
            list.push(spanned(action(rng)));
        }
        add(rng, format!("{provider} {kind} role {number}"), number >= 60, permissions);
    }
    roles
}
