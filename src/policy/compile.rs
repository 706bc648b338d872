//! Documents to buffer. Everything that evaluation would otherwise have to find out is found out here, once:
//! closures of groups, the tree of scopes, what encloses what, which lists hold a pattern.
//!
//! Everything is sorted by what it is, so that equal documents give equal bytes in whatever order and files they
//! were written.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use zerocopy::little_endian::{U32, U64, U128};

use super::CompileOptions;
use super::conditions::{Conditions, on_storage};
use super::evaluate::Path;
use super::hash;
use super::holdings::{self, Holding, Resolved, Window};
use super::layout::{self, EXTRA, List, MAX_LEVELS, NONE, Section, Slot, Text, Writer};
use crate::condition::Uses;
use crate::model::{
    ALL_PRINCIPALS, ActivationRequirements, AgentDocument, AgentLevel, AgentMode, At, DenyAssignment,
    DenyEffect, Documents, Guid, MANAGEMENT_GROUP_PREFIX, PermissionBlock, PrincipalId, Problem, Problems,
    RoleAssignment, RoleDefinition, Scope, ScopeKind, Spanned, Wildcards,
};

/// Compiles, or says what is wrong.
pub(super) fn compile(documents: &Documents, options: CompileOptions) -> Result<Vec<u8>, Problems> {
    let brought = holdings::brought(documents);
    let mut compiler =
        Compiler { documents, brought: &brought, problems: Problems::new(), texts: Texts::default() };
    let buffer = compiler.run(options);
    match buffer {
        Some(buffer) if compiler.problems.is_empty() => Ok(buffer),
        _ => {
            compiler.problems.sort();
            Err(compiler.problems)
        }
    }
}

struct Compiler<'a> {
    documents: &'a Documents,
    /// Role assignments that the levels of agents bring.
    brought: &'a [RoleAssignment],
    problems: Problems,
    texts: Texts,
}

/// The last section: every text once.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    places: HashMap<String, Text>,
    lists: Vec<Text>,
}

/// A scope on its way into the tree.
struct Node<'a> {
    text: &'a str,
    parent: usize,
    path_parent: Option<usize>,
    known: bool,
}

/// Scopes by folded text, numbered in preorder.
struct Scopes {
    by_text: HashMap<String, u32>,
    records: Vec<layout::Scope>,
}

/// A permission block and the unit (role or deny assignment) it belongs to.
struct Block<'a> {
    unit: u32,
    /// Whether the role has data actions of Storage.
    on_storage: bool,
    permissions: &'a PermissionBlock,
}

type Id<'a> = PrincipalId<'a>;

/// Roles by id.
type Roles<'a> = BTreeMap<&'a str, &'a RoleDefinition>;

/// Entries on their way into the buffer.
struct Entries {
    entries: Vec<layout::Entry>,
    names: Vec<U32>,
    /// For each principal the first of its entries, if it has some, and how many.
    ranges: Vec<(Option<u32>, u32)>,
}

/// What gives the parts of a holding their numbers.
struct Numbering<'n, 'a> {
    principals: &'n Principals<'a>,
    names: &'n Names<'a>,
    roles: &'n HashMap<&'a str, u32>,
    conditions: &'n Conditions<'a>,
}

impl<'a> Numbering<'_, 'a> {
    /// In the order that entries lie in.
    fn number(&self, holdings: &[(Holding<'a>, &'a RoleDefinition, u32)]) -> Option<Vec<Resolved>> {
        let mut numbered = Vec::with_capacity(holdings.len());
        for (holding, role, scope) in holdings {
            let conditioned = holding.condition.is_some() || holding.inherited.is_some();
            let on_storage = conditioned && on_storage(role);
            numbered.push(Resolved {
                principal: self.principals.get(holding.principal)?,
                scope: *scope,
                name: std::cmp::Reverse(self.names.get(holding.name)?),
                role: self.roles.get(role.id.value.as_str()).copied()?,
                condition: self.conditions.get(holding.condition, on_storage)?,
                inherited: self.conditions.get(holding.inherited, on_storage)?,
                eligibility: match holding.eligibility {
                    Some(name) => self.names.get(name)?,
                    None => NONE,
                },
                window: holding.window,
                origin: holding.origin,
            });
        }
        numbered.sort_unstable();
        // The same assignment exported twice is one.
        numbered.dedup();
        Some(numbered)
    }
}

impl Entries {
    /// Where each principal's begin, and at the end where the last ends; nothing without any.
    fn firsts(&self) -> Vec<U32> {
        if self.entries.is_empty() {
            return Vec::new();
        }
        let mut begin = 0_u32;
        let mut firsts = Vec::with_capacity(self.ranges.len().saturating_add(1));
        for (first, count) in &self.ranges {
            begin = first.unwrap_or(begin);
            firsts.push(begin.into());
            begin = begin.saturating_add(*count);
        }
        firsts.push(begin.into());
        firsts
    }
}

impl<'a> Compiler<'a> {
    fn run(&mut self, options: CompileOptions) -> Option<Vec<u8>> {
        let documents = self.documents;
        let scopes = self.scopes();
        let roles = self.roles();
        // What can be resolved; the rest has become problems.
        let active = self.resolve(&roles, &scopes, holdings::active(documents, self.brought));
        let eligible = self.resolve(&roles, &scopes, holdings::eligible(documents));
        let mut denies = Vec::new();
        for deny in &documents.deny_assignments {
            if let Some(scope) = self.scope(&scopes, &deny.scope) {
                denies.push((deny, scope));
            }
        }
        let mut policies = Vec::new();
        for policy in &documents.activation_policies {
            let role = self.role(&roles, &policy.role_definition_id);
            let scope = self.scope(&scopes, &policy.scope);
            if let (Some(role), Some(scope)) = (role, scope) {
                policies.push((role, scope, &policy.requirements));
            }
        }
        if !self.problems.is_empty() {
            return None;
        }

        let conditions = Self::conditions(options, &roles, &active, &eligible, &denies);
        let held = active.iter().chain(&eligible);
        let names = Names::new(
            roles
                .keys()
                .copied()
                .map(PrincipalId::new)
                .chain(
                    held.flat_map(|(held, ..)| std::iter::once(held.name).chain(held.eligibility))
                        .map(PrincipalId::new),
                )
                .chain(denies.iter().map(|(deny, _)| PrincipalId::new(&deny.name.value))),
        );
        denies.sort_by_key(|(deny, scope)| (*scope, names.get(&deny.name.value)));
        let principals =
            Principals::new(documents, active.iter().chain(&eligible).map(|(held, ..)| held.principal));

        let mut writer = Writer::new();
        let mut flags = if options.wildcards == Wildcards::Strict { layout::STRICT_WILDCARDS } else { 0 };
        if options.condition_extensions {
            flags |= layout::CONDITION_EXTENSIONS;
        }
        if denies.iter().any(|(deny, _)| reaches_below_a_management_group(deny)) {
            flags |= layout::DENY_AT_MANAGEMENT_GROUP;
        }

        // Units and their blocks: roles in the order of their ids, then deny assignments in theirs.
        let mut blocks = Vec::new();
        for (unit, role) in roles.values().enumerate() {
            let (unit, on_storage) = (self.number(unit)?, on_storage(role));
            blocks.extend(role.permissions.iter().map(|permissions| Block { unit, on_storage, permissions }));
        }
        for (position, (deny, _)) in denies.iter().enumerate() {
            let unit = self.number(roles.len().checked_add(position)?)?;
            blocks.extend(deny.permissions.iter().map(|permissions| Block {
                unit,
                on_storage: false,
                permissions,
            }));
        }
        self.put_patterns(&mut writer, &blocks)?;
        let block_units: Vec<U32> = blocks.iter().map(|block| block.unit.into()).collect();
        writer.put(Section::Blocks, &block_units);
        let mut block_conditions: Vec<U32> = Vec::with_capacity(blocks.len());
        for block in &blocks {
            block_conditions
                .push(conditions.get(block.permissions.condition.as_ref(), block.on_storage)?.into());
        }
        writer.put(Section::BlockConditions, &block_conditions);

        let role_numbers: HashMap<&str, u32> = roles.keys().copied().zip(0..).collect();
        let context = Numbering {
            principals: &principals,
            names: &names,
            roles: &role_numbers,
            conditions: &conditions,
        };
        let (active, eligible) = (context.number(&active)?, context.number(&eligible)?);
        if active.iter().chain(&eligible).any(|held| held.window != Window::ALWAYS)
            || conditions.uses().contains(Uses::UTC_NOW)
        {
            flags |= layout::DEPENDS_ON_TIME;
        }
        let mut extras = Vec::new();
        let active = self.entries(&principals, &scopes, &active, &mut extras)?;
        let eligible = self.entries(&principals, &scopes, &eligible, &mut extras)?;
        writer.put(Section::Entries, &active.entries);
        writer.put(Section::EntryNames, &active.names);
        writer.put(Section::Extras, &extras);
        writer.put(Section::Eligibles, &eligible.entries);
        writer.put(Section::EligibleNames, &eligible.names);
        writer.put(Section::EligibleFirst, &eligible.firsts());
        self.put_principals(&mut writer, &principals, &active.ranges)?;
        self.put_activation_policies(&mut writer, &role_numbers, policies)?;
        self.put_agents(&mut writer)?;
        let (records, programs) = conditions.records(|text| self.text(text))?;
        writer.put(Section::Conditions, &records);
        writer.put(Section::Programs, &programs);
        self.put_scopes(&mut writer, scopes, denies.iter().map(|(_, scope)| *scope))?;

        let mut role_records = Vec::with_capacity(roles.len());
        for (id, role) in &roles {
            let name = self.text(&role.role_name.value)?;
            role_records.push(layout::Role { id: names.get(id)?.into(), name });
        }
        writer.put(Section::Roles, &role_records);
        self.put_denies(&mut writer, &denies, &principals, &names, &conditions, roles.len())?;
        self.put_names(&mut writer, &names)?;

        let units = self.number(roles.len().checked_add(denies.len())?)?;
        let guid_principals = self.number(principals.guids)?;
        let texts = std::mem::take(&mut self.texts);
        writer.put(Section::TextLists, &texts.lists);
        writer.put(Section::TextBytes, &texts.bytes);
        Some(writer.finish(flags, units, guid_principals, conditions.uses().bits().into()))
    }

    /// Role and scope of what is held; what cannot be resolved becomes a problem.
    fn resolve(
        &mut self,
        roles: &Roles<'a>,
        scopes: &Scopes,
        holdings: Vec<Holding<'a>>,
    ) -> Vec<(Holding<'a>, &'a RoleDefinition, u32)> {
        let mut resolved = Vec::with_capacity(holdings.len());
        for holding in holdings {
            let role = self.role(roles, holding.role);
            let scope = self.scope(scopes, holding.scope);
            if let (Some(role), Some(scope)) = (role.and_then(|id| roles.get(id)), scope) {
                resolved.push((holding, *role, scope));
            }
        }
        resolved
    }

    fn conditions(
        options: CompileOptions,
        roles: &Roles<'a>,
        active: &[(Holding<'a>, &'a RoleDefinition, u32)],
        eligible: &[(Holding<'a>, &'a RoleDefinition, u32)],
        denies: &[(&'a DenyAssignment, u32)],
    ) -> Conditions<'a> {
        let mut conditions = Conditions::new(options);
        for role in roles.values() {
            let on_storage = on_storage(role);
            for block in &role.permissions {
                conditions.add(block.condition.as_ref(), on_storage);
            }
        }
        for (holding, role, _) in active.iter().chain(eligible) {
            if holding.condition.is_some() || holding.inherited.is_some() {
                let on_storage = on_storage(role);
                conditions.add(holding.condition, on_storage);
                conditions.add(holding.inherited, on_storage);
            }
        }
        for (deny, _) in denies {
            conditions.add(deny.condition.as_ref(), false);
            for block in &deny.permissions {
                conditions.add(block.condition.as_ref(), false);
            }
        }
        conditions.number();
        conditions
    }

    // --- scopes ---

    /// The tree of all scopes that something stands at or the hierarchy names.
    fn scopes(&mut self) -> Scopes {
        let documents = self.documents;
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        let mut add = |text: &str| {
            if let Ok(scope) = Scope::parse(text) {
                texts.entry(scope.as_str().to_ascii_lowercase()).or_insert_with(|| scope.as_str().to_owned());
            }
        };
        add("/");
        for assignment in documents.role_assignments.iter().chain(self.brought) {
            add(&assignment.scope.value);
        }
        for schedule in &documents.schedules {
            add(&schedule.scope.value);
        }
        for policy in &documents.activation_policies {
            add(&policy.scope.value);
        }
        for deny in &documents.deny_assignments {
            add(&deny.scope.value);
        }
        let management_group = |name: &str| format!("{MANAGEMENT_GROUP_PREFIX}{name}");
        let subscription = |id: &str| format!("/subscriptions/{id}");
        let mut invalid = Vec::new();
        for name in documents
            .management_groups
            .iter()
            .flat_map(|group| [Some(&group.name), group.parent.as_ref()])
            .flatten()
            .chain(documents.subscriptions.iter().map(|link| &link.parent))
        {
            let text = management_group(&name.value);
            if !Scope::parse(&text).is_ok_and(|scope| scope.kind() == ScopeKind::ManagementGroup) {
                let message = format!("`{}` is no name of a management group", name.value);
                let problem = Problem::error("InvalidManagementGroup", message).value(&name.value);
                invalid.push((problem, name.at));
            }
        }
        for link in &documents.subscriptions {
            let text = subscription(&link.id.value);
            if !Scope::parse(&text).is_ok_and(|scope| scope.kind() == ScopeKind::Subscription) {
                let message = format!("`{}` is no subscription id", link.id.value);
                invalid
                    .push((Problem::error("InvalidSubscription", message).value(&link.id.value), link.id.at));
            }
        }
        // Which scope hangs under which, by folded text.
        let mut hierarchy: HashMap<String, Option<String>> = HashMap::new();
        let mut documented: HashSet<String> = HashSet::new();
        for group in &documents.management_groups {
            let scope = management_group(&group.name.value);
            add(&scope);
            documented.insert(scope.to_ascii_lowercase());
            let parent = group.parent.as_ref().map(|parent| management_group(&parent.value));
            if let Some(parent) = &parent {
                add(parent);
                hierarchy.entry(parent.to_ascii_lowercase()).or_insert(None);
            }
            let known = hierarchy.entry(scope.to_ascii_lowercase()).or_insert(None);
            if let Some(parent) = parent {
                *known = Some(parent.to_ascii_lowercase());
            }
        }
        for link in &documents.subscriptions {
            let (scope, parent) = (subscription(&link.id.value), management_group(&link.parent.value));
            add(&scope);
            add(&parent);
            hierarchy.entry(parent.to_ascii_lowercase()).or_insert(None);
            hierarchy.insert(scope.to_ascii_lowercase(), Some(parent.to_ascii_lowercase()));
        }

        for (problem, at) in invalid {
            self.problem(problem, at);
        }
        let position: HashMap<&str, usize> = texts.keys().map(String::as_str).zip(0..).collect();
        let root = position.get("/").copied().unwrap_or_default();
        // A group that is only mentioned as somebody's parent may hang anywhere.
        let known_to_the_top = |folded: &String| {
            let mut next = hierarchy.get(folded);
            let mut group = documented.contains(folded).then_some(folded);
            // As many steps as there are links: a circle ends too, and is refused elsewhere.
            for _ in 0..=hierarchy.len() {
                match next {
                    Some(Some(parent)) => (group, next) = (documented.get(parent), hierarchy.get(parent)),
                    Some(None) => return group.is_some(),
                    None => return false,
                }
            }
            false
        };
        let mut nodes: Vec<Node<'_>> = Vec::with_capacity(texts.len());
        for (folded, text) in &texts {
            let mut prefix = folded.as_str();
            let mut path_parent = None;
            while let Some((shorter, _)) = prefix.rsplit_once('/') {
                if let Some(&found) = position.get(shorter) {
                    path_parent = Some(found);
                    break;
                }
                prefix = shorter;
            }
            let parent = hierarchy
                .get(folded)
                .and_then(Option::as_ref)
                .and_then(|parent| position.get(parent.as_str()).copied())
                .or(path_parent)
                .unwrap_or(root);
            nodes.push(Node { text, parent, path_parent, known: known_to_the_top(folded) });
        }
        self.number_tree(&nodes, root, texts.keys())
    }

    /// Numbers the tree in preorder. A cycle in the hierarchy leaves scopes that no walk from the root reaches.
    fn number_tree<'t>(
        &mut self,
        nodes: &[Node<'_>],
        root: usize,
        folded: impl Iterator<Item = &'t String> + Clone,
    ) -> Scopes {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        for (index, node) in nodes.iter().enumerate().rev() {
            if index != root
                && let Some(list) = children.get_mut(node.parent)
            {
                list.push(index);
            }
        }
        let mut numbers = vec![NONE; nodes.len()];
        let mut order = Vec::with_capacity(nodes.len());
        let mut pending = vec![root];
        while let Some(index) = pending.pop() {
            if let (Some(number), Ok(next)) = (numbers.get_mut(index), u32::try_from(order.len())) {
                *number = next;
            }
            order.push(index);
            pending.extend(children.get(index).into_iter().flatten());
        }
        if order.len() < nodes.len() {
            self.problems.push(
                Problem::error("HierarchyCycle", "the management groups contain each other in a circle")
                    .field("managementGroups"),
            );
        }
        let number_of = |index: usize| numbers.get(index).copied().unwrap_or(NONE);
        let mut records = Vec::with_capacity(order.len());
        for &index in &order {
            let Some(node) = nodes.get(index) else { continue };
            let prefix =
                node.path_parent.and_then(|parent| nodes.get(parent)).map_or(0, |parent| parent.text.len());
            let suffix = node.text.get(prefix..).unwrap_or_default();
            if Scope::parse(node.text).is_ok_and(|scope| !Path::new(scope).whole) {
                self.problems.push(
                    Problem::error(
                        "InvalidScope",
                        format!("scope `{}` has more than {MAX_LEVELS} levels", node.text),
                    )
                    .value(node.text),
                );
            }
            records.push(layout::Scope {
                path_parent: node.path_parent.map_or(NONE, number_of).into(),
                parent: if index == root { NONE } else { number_of(node.parent) }.into(),
                last: U32::ZERO,
                nearest_deny: NONE.into(),
                flags: if node.known { layout::HIERARCHY_KNOWN } else { 0 }.into(),
                suffix: self.text(suffix).unwrap_or(Text { start: U32::ZERO, length: U32::ZERO }),
            });
        }
        // Children come behind their parents, so going backwards each parent sees the ends of all its children.
        let mut lasts: Vec<u32> = (0..).take(records.len()).collect();
        for (number, record) in records.iter().enumerate().rev() {
            let (own, parent) = (lasts.get(number).copied().unwrap_or_default(), record.parent.get());
            if let Some(last) = lasts.get_mut(parent as usize) {
                *last = (*last).max(own);
            }
        }
        for (record, last) in records.iter_mut().zip(lasts) {
            record.last = last.into();
        }
        Scopes { by_text: folded.cloned().zip(numbers).collect(), records }
    }

    fn scope(&mut self, scopes: &Scopes, text: &Spanned<String>) -> Option<u32> {
        match Scope::parse(&text.value) {
            // By text it would contain every management group without being part of their hierarchy.
            Ok(scope) if scope.as_str().eq_ignore_ascii_case("/providers/Microsoft.Management") => {
                let problem =
                    Problem::error("InvalidScope", format!("`{scope}` lies beside the management groups"))
                        .field("scope")
                        .value(&text.value)
                        .help("use a management group, or `/`");
                self.problem(problem, text.at);
                None
            }
            Ok(scope) => scopes.by_text.get(&scope.as_str().to_ascii_lowercase()).copied(),
            Err(error) => {
                let problem = Problem::error("InvalidScope", format!("`{}` {error}", text.value));
                self.problem(problem.field("scope").value(&text.value), text.at);
                None
            }
        }
    }

    fn put_scopes(
        &mut self,
        writer: &mut Writer,
        mut scopes: Scopes,
        denied: impl Iterator<Item = u32>,
    ) -> Option<()> {
        let denied: BTreeSet<u32> = denied.collect();
        for number in 0..scopes.records.len() {
            let record = scopes.records.get(number)?;
            let above = scopes.records.get(record.parent.get() as usize).map(|parent| parent.nearest_deny);
            let here = self.number(number)?;
            let nearest = if denied.contains(&here) { here.into() } else { above.unwrap_or(NONE.into()) };
            scopes.records.get_mut(number)?.nearest_deny = nearest;
        }
        let hashes = scopes.by_text.iter().filter_map(|(text, &number)| {
            Scope::parse(text).ok().and_then(|scope| Path::new(scope).hash()).map(|hash| (hash, number))
        });
        let (buckets, slots) = self.slots(hashes.collect())?;
        writer.put(Section::ScopeBuckets, &buckets);
        writer.put(Section::ScopeSlots, &slots);
        writer.put(Section::Scopes, &scopes.records);
        Some(())
    }

    // --- roles and patterns ---

    /// Roles by id. `documents::check` has refused two that differ under one id.
    fn roles(&mut self) -> Roles<'a> {
        let mut roles = BTreeMap::new();
        for role in &self.documents.role_definitions {
            roles.entry(role.id.value.as_str()).or_insert(role);
        }
        roles
    }

    fn role(&mut self, roles: &Roles<'a>, id: &Spanned<String>) -> Option<&'a str> {
        let found = roles.get_key_value(id.value.as_str()).map(|(id, _)| *id);
        if found.is_none() {
            let problem = Problem::error(
                "RoleDefinitionDoesNotExist",
                format!("no role definition has the id `{}`", id.value),
            );
            self.problem(problem.field("roleDefinitionId").value(&id.value), id.at);
        }
        found
    }

    fn put_patterns(&mut self, writer: &mut Writer, blocks: &[Block<'_>]) -> Option<()> {
        // Folded text to the text as written, of several spellings the first, and the lists that hold it.
        let mut patterns: BTreeMap<String, (&str, BTreeSet<u32>)> = BTreeMap::new();
        for (number, block) in blocks.iter().enumerate() {
            for (list, (_, texts)) in block.permissions.lists().into_iter().enumerate() {
                let posting = self.number(number.checked_mul(4)?.checked_add(list)?)?;
                for text in texts {
                    let text = text.value.as_str();
                    let (spelling, lists) =
                        patterns.entry(text.to_ascii_lowercase()).or_insert((text, BTreeSet::new()));
                    *spelling = text.min(spelling);
                    lists.insert(posting);
                }
            }
        }
        // The group of patterns with a wildcard in the first segment stands first, under no hash.
        let mut groups: BTreeMap<Option<u64>, Vec<(&str, BTreeSet<u32>)>> =
            BTreeMap::from([(None, Vec::new())]);
        for (text, lists) in patterns.into_values() {
            let first = text.split('/').next().unwrap_or_default();
            let group = (!first.contains('*')).then(|| hash::path(hash::EMPTY_PATH, first.as_bytes()));
            groups.entry(group).or_default().push((text, lists));
        }
        let (mut group_records, mut pattern_records, mut postings) = (Vec::new(), Vec::new(), Vec::new());
        for (group, patterns) in groups {
            group_records.push(layout::PatternGroup {
                hash: U64::new(group.unwrap_or_default()),
                first: self.number(pattern_records.len())?.into(),
                count: self.number(patterns.len())?.into(),
            });
            for (text, lists) in patterns {
                pattern_records.push(layout::Pattern {
                    text: self.text(text)?,
                    first_posting: self.number(postings.len())?.into(),
                    postings: self.number(lists.len())?.into(),
                });
                postings.extend(lists.into_iter().map(U32::new));
            }
        }
        writer.put(Section::PatternGroups, &group_records);
        writer.put(Section::Patterns, &pattern_records);
        writer.put(Section::Postings, &postings);
        Some(())
    }

    // --- principals and assignments ---

    fn entries(
        &mut self,
        principals: &Principals<'_>,
        scopes: &Scopes,
        sorted: &[Resolved],
        extras: &mut Vec<layout::Extra>,
    ) -> Option<Entries> {
        let mut entries = Vec::with_capacity(sorted.len());
        let mut entry_names: Vec<U32> = Vec::with_capacity(sorted.len());
        let mut ranges: Vec<(Option<u32>, u32)> = vec![(None, 0); principals.ids.len()];
        // Positions (within the principal) of the entries that enclose the one at hand, innermost last.
        let mut open: Vec<(u32, u32)> = Vec::new();
        let mut previous = None;
        for (number, held) in sorted.iter().enumerate() {
            let number = self.number(number)?;
            let Resolved { principal, scope, name, .. } = *held;
            let role = match held.extra() {
                None => held.role,
                Some(extra) => {
                    let index = self.number(extras.len())?;
                    extras.push(extra);
                    index | EXTRA
                }
            };
            let last = scopes.records.get(scope as usize)?.last.get();
            if previous != Some(principal) {
                (previous, *ranges.get_mut(principal as usize)?) = (Some(principal), (Some(number), 0));
                open.clear();
            }
            let range = ranges.get_mut(principal as usize)?;
            let position = range.1;
            range.1 = range.1.checked_add(1)?;
            while open.last().is_some_and(|&(_, open_last)| open_last < scope) {
                open.pop();
            }
            entries.push(layout::Entry {
                scope: scope.into(),
                last: last.into(),
                role: role.into(),
                enclosing: open.last().map_or(NONE, |&(position, _)| position).into(),
            });
            entry_names.push(name.0.into());
            open.push((position, last));
        }
        Some(Entries { entries, names: entry_names, ranges })
    }

    fn put_principals(
        &mut self,
        writer: &mut Writer,
        principals: &Principals<'_>,
        ranges: &[(Option<u32>, u32)],
    ) -> Option<()> {
        let (mut records, mut member_of) = (Vec::with_capacity(principals.ids.len()), Vec::new());
        let (mut guid_hashes, mut text_hashes) = (Vec::new(), Vec::new());
        // Those without assignments begin where the next ones do, so that who an entry belongs to can be searched.
        let mut begin = 0;
        for (number, (id, &(first_entry, count))) in principals.ids.iter().zip(ranges).enumerate() {
            let first_entry = first_entry.unwrap_or(begin);
            begin = first_entry.checked_add(count)?;
            let groups = principals.member_of.get(number)?;
            let here = self.number(number)?;
            let packed = match id {
                PrincipalId::Guid(guid) => {
                    guid_hashes.push(hash::guid(guid.as_u128()));
                    guid.as_u128()
                }
                PrincipalId::Text(text) => {
                    text_hashes.push((hash::text(text.as_bytes()), here));
                    let place = self.text(text)?;
                    u128::from(place.start.get()) | u128::from(place.length.get()) << 32
                }
            };
            records.push(layout::Principal {
                id: U128::new(packed),
                first_entry: first_entry.into(),
                entries: count.into(),
                first_group: self.number(member_of.len())?.into(),
                groups: self.number(groups.len())?.into(),
            });
            member_of.extend(groups.iter().map(|&group| U32::new(group)));
        }
        writer.put(Section::Principals, &records);
        writer.put(Section::MemberOf, &member_of);
        writer.put(Section::GuidBuckets, &self.buckets(&guid_hashes)?);
        let (buckets, slots) = self.slots(text_hashes)?;
        writer.put(Section::TextBuckets, &buckets);
        writer.put(Section::TextSlots, &slots);
        Some(())
    }

    fn put_denies(
        &mut self,
        writer: &mut Writer,
        denies: &[(&'a DenyAssignment, u32)],
        principals: &Principals<'_>,
        names: &Names<'_>,
        conditions: &Conditions<'a>,
        roles: usize,
    ) -> Option<()> {
        let (mut records, mut listed) = (Vec::with_capacity(denies.len()), Vec::<U32>::new());
        for (position, (deny, scope)) in denies.iter().enumerate() {
            let mut flags = 0;
            if deny.effect == DenyEffect::Audit {
                flags |= layout::DENY_AUDIT;
            }
            if deny.do_not_apply_to_child_scopes {
                flags |= layout::DENY_NOT_TO_CHILDREN;
            }
            if reaches_below_a_management_group(deny) {
                flags |= layout::DENY_TO_MANAGEMENT_GROUP;
            }
            if deny
                .principals
                .iter()
                .any(|id| PrincipalId::new(&id.value) == PrincipalId::Guid(ALL_PRINCIPALS))
            {
                flags |= layout::DENY_ALL_PRINCIPALS;
            }
            let mut list = |ids: &[Spanned<String>]| -> Option<(U32, U32)> {
                let numbers: BTreeSet<u32> = ids.iter().filter_map(|id| principals.get(&id.value)).collect();
                let first = u32::try_from(listed.len()).ok()?;
                listed.extend(numbers.iter().map(|&number| U32::new(number)));
                Some((first.into(), u32::try_from(numbers.len()).ok()?.into()))
            };
            let (first_principal, included) = list(&deny.principals)?;
            let (first_excluded, excluded) = list(&deny.exclude_principals)?;
            records.push(layout::Deny {
                scope: (*scope).into(),
                unit: self.number(roles.checked_add(position)?)?.into(),
                flags: flags.into(),
                name: names.get(&deny.name.value)?.into(),
                first_principal,
                principals: included,
                first_excluded,
                excluded,
                condition: conditions.get(deny.condition.as_ref(), false)?.into(),
                display_name: self
                    .text(deny.deny_assignment_name.as_ref().map_or("", |name| name.value.as_str()))?,
            });
        }
        writer.put(Section::Denies, &records);
        writer.put(Section::DenyPrincipals, &listed);
        Some(())
    }

    fn put_activation_policies(
        &mut self,
        writer: &mut Writer,
        roles: &HashMap<&str, u32>,
        policies: Vec<(&str, u32, &ActivationRequirements)>,
    ) -> Option<()> {
        let mut sorted = BTreeMap::new();
        for (role, scope, requirements) in policies {
            sorted.entry((roles.get(role).copied()?, scope)).or_insert(requirements);
        }
        let mut records = Vec::with_capacity(sorted.len());
        for ((role, scope), requirements) in sorted {
            let ActivationRequirements { mfa, justification, ticket, approval, .. } = *requirements;
            let flags = [
                (mfa, layout::ACTIVATION_MFA),
                (justification, layout::ACTIVATION_JUSTIFICATION),
                (ticket, layout::ACTIVATION_TICKET),
                (approval, layout::ACTIVATION_APPROVAL),
            ];
            let flags = flags.into_iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag);
            records.push(layout::ActivationPolicy {
                role: role.into(),
                scope: scope.into(),
                flags: flags.into(),
                maximum_duration: self.text(requirements.maximum_duration.as_deref().unwrap_or_default())?,
                authentication_context: self
                    .text(requirements.authentication_context.as_deref().unwrap_or_default())?,
                approvers: self.list(requirements.approvers.iter().map(String::as_str))?,
            });
        }
        writer.put(Section::ActivationPolicies, &records);
        Some(())
    }

    fn put_agents(&mut self, writer: &mut Writer) -> Option<()> {
        // `documents` has refused two agents of one identity.
        let sorted: BTreeMap<Id<'a>, &AgentDocument> = self
            .documents
            .agents
            .iter()
            .map(|agent| (PrincipalId::new(agent.principal_id.value.as_str()), agent))
            .collect();
        let mut records = Vec::with_capacity(sorted.len());
        for (principal, agent) in sorted {
            let flags = [
                (agent.level == AgentLevel::Privileged, layout::AGENT_PRIVILEGED),
                (agent.mode == AgentMode::Auto, layout::AGENT_AUTO),
                (agent.query_actions.is_some(), layout::AGENT_QUERIES),
            ];
            let flags = flags.into_iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag);
            let text = |text: &Option<Spanned<String>>| {
                text.as_ref().map(|text| text.value.clone()).unwrap_or_default()
            };
            let mut managed: Vec<&str> =
                agent.managed_resource_groups.iter().map(|group| group.value.as_str()).collect();
            managed.sort_unstable();
            let queries = agent.query_actions.as_deref().unwrap_or_default();
            let mut queries: Vec<&str> = queries.iter().map(|action| action.value.as_str()).collect();
            queries.sort_unstable();
            records.push(layout::Agent {
                guid: match principal {
                    PrincipalId::Guid(guid) => guid.as_u128(),
                    PrincipalId::Text(_) => u128::MAX,
                }
                .into(),
                principal: self.text(&principal.to_string())?,
                resource: self.text(&text(&agent.id))?,
                name: self.text(&text(&agent.name))?,
                approver_role: self.text(&text(&agent.approver_role))?,
                flags: flags.into(),
                managed: self.list(managed.into_iter())?,
                query_actions: self.list(queries.into_iter())?,
            });
        }
        writer.put(Section::Agents, &records);
        Some(())
    }

    fn put_names(&mut self, writer: &mut Writer, names: &Names<'_>) -> Option<()> {
        let guids: Vec<U128> = names.guids.iter().map(|guid| U128::new(guid.as_u128())).collect();
        let mut texts = Vec::with_capacity(names.texts.len());
        for text in &names.texts {
            texts.push(self.text(text)?);
        }
        writer.put(Section::NameGuids, &guids);
        writer.put(Section::NameTexts, &texts);
        Some(())
    }

    // --- tables ---

    /// Sorted by hash, equal ones by index, so that equal contents give equal bytes; and their buckets.
    fn slots(&mut self, mut hashes: Vec<(u64, u32)>) -> Option<(Vec<U32>, Vec<Slot>)> {
        hashes.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the bucket takes the high bits, the tag the low ones"
        )]
        let slot = |&(hash, index): &(u64, u32)| Slot { tag: U32::new(hash as u32), index: index.into() };
        let slots = hashes.iter().map(slot).collect();
        let hashes: Vec<u64> = hashes.into_iter().map(|(hash, _)| hash).collect();
        Some((self.buckets(&hashes)?, slots))
    }

    /// Of sorted hashes, about one to a bucket.
    fn buckets(&mut self, hashes: &[u64]) -> Option<Vec<U32>> {
        let count = hashes.len().max(1);
        let mut buckets = Vec::with_capacity(count.saturating_add(1));
        for (position, hash) in hashes.iter().enumerate() {
            let position = self.number(position)?;
            while buckets.len() <= layout::bucket_of(count, *hash) {
                buckets.push(U32::new(position));
            }
        }
        let end = self.number(hashes.len())?;
        buckets.resize(count.saturating_add(1), end.into());
        Some(buckets)
    }

    // --- small things ---

    /// Indices and lengths are 32 bits wide.
    fn number(&mut self, value: usize) -> Option<u32> {
        let number = u32::try_from(value).ok().filter(|&number| number != NONE);
        if number.is_none() {
            self.problems
                .push(Problem::error("PolicyTooLarge", "the policy has more parts than 32 bits can count"));
        }
        number
    }

    fn text(&mut self, text: &str) -> Option<Text> {
        if let Some(&place) = self.texts.places.get(text) {
            return Some(place);
        }
        let (start, length) = (self.number(self.texts.bytes.len())?, self.number(text.len())?);
        let place = Text { start: start.into(), length: length.into() };
        self.texts.bytes.extend_from_slice(text.as_bytes());
        self.texts.places.insert(text.to_owned(), place);
        Some(place)
    }

    fn list<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> Option<List> {
        let first = self.number(self.texts.lists.len())?;
        for text in texts {
            let text = self.text(text)?;
            self.texts.lists.push(text);
        }
        let count = self.number(self.texts.lists.len())?.saturating_sub(first);
        Some(List { first: first.into(), count: count.into() })
    }

    fn problem(&mut self, problem: Problem, at: At) {
        self.problems.push(problem.at(self.documents.locator().locate(at)));
    }
}

/// Whether a deny assignment blocks what lies below a management group, so that the hierarchy must be known.
fn reaches_below_a_management_group(deny: &DenyAssignment) -> bool {
    deny.effect == DenyEffect::Enforced
        && !deny.do_not_apply_to_child_scopes
        && Scope::parse(&deny.scope.value).is_ok_and(|scope| scope.kind() == ScopeKind::ManagementGroup)
}

/// Names of role definitions, role assignments and deny assignments: GUIDs first, each kind in order, so that the
/// smaller number is the smaller name.
struct Names<'a> {
    guids: Vec<Guid>,
    texts: Vec<&'a str>,
    numbers: HashMap<Id<'a>, u32>,
}

impl<'a> Names<'a> {
    fn new(names: impl Iterator<Item = Id<'a>>) -> Self {
        let (mut guids, mut texts) = (BTreeSet::new(), BTreeSet::new());
        for name in names {
            match name {
                PrincipalId::Guid(guid) => guids.insert(guid),
                PrincipalId::Text(text) => texts.insert(text),
            };
        }
        let all = guids.iter().copied().map(Id::Guid).chain(texts.iter().copied().map(Id::Text));
        let numbers = all.zip(0..).collect();
        Self { guids: guids.into_iter().collect(), texts: texts.into_iter().collect(), numbers }
    }

    fn get(&self, name: &str) -> Option<u32> {
        self.numbers.get(&PrincipalId::new(name)).copied()
    }
}

/// Everybody who something can depend on: GUIDs first, by their hash.
struct Principals<'a> {
    ids: Vec<Id<'a>>,
    guids: usize,
    numbers: HashMap<Id<'a>, u32>,
    /// For each the groups that contain it and matter, sorted.
    member_of: Vec<Vec<u32>>,
}

impl<'a> Principals<'a> {
    fn new(documents: &'a Documents, holders: impl Iterator<Item = &'a str>) -> Self {
        // Those that something is said about.
        let mut named: BTreeSet<Id<'a>> = holders.map(PrincipalId::new).collect();
        for deny in &documents.deny_assignments {
            let listed = deny.principals.iter().chain(&deny.exclude_principals);
            named.extend(listed.map(|id| PrincipalId::new(&id.value)));
        }
        // Direct memberships, upwards.
        let mut groups_of: HashMap<Id<'a>, BTreeSet<Id<'a>>> = HashMap::new();
        for group in &documents.groups {
            let id = PrincipalId::new(&group.id.value);
            for member in &group.members {
                groups_of.entry(PrincipalId::new(&member.value)).or_default().insert(id);
            }
        }
        // INVARIANT (group closure): `member_of` holds every named group that contains a principal, through any
        // number of groups. Evaluation takes it as complete and walks no further.
        let mut closures: BTreeMap<Id<'a>, BTreeSet<Id<'a>>> = BTreeMap::new();
        for &start in groups_of.keys() {
            let (mut seen, mut pending) = (BTreeSet::new(), vec![start]);
            while let Some(id) = pending.pop() {
                for &group in groups_of.get(&id).into_iter().flatten() {
                    if seen.insert(group) {
                        pending.push(group);
                    }
                }
            }
            seen.retain(|group| *group != start && named.contains(group));
            if !seen.is_empty() {
                closures.insert(start, seen);
            }
        }
        named.extend(closures.keys().copied());

        let mut ids: Vec<Id<'a>> = named.into_iter().collect();
        // Texts stay in order behind them.
        ids.sort_by_cached_key(|id| match id {
            PrincipalId::Guid(guid) => (false, hash::guid(guid.as_u128()), guid.as_u128()),
            PrincipalId::Text(_) => (true, 0, 0),
        });
        let numbers: HashMap<Id<'a>, u32> = ids.iter().copied().zip(0..).collect();
        let member_of = ids
            .iter()
            .map(|id| {
                closures
                    .get(id)
                    .into_iter()
                    .flatten()
                    .filter_map(|group| numbers.get(group).copied())
                    .collect()
            })
            .collect();
        let guids = ids.iter().take_while(|id| matches!(id, PrincipalId::Guid(_))).count();
        Self { ids, guids, numbers, member_of }
    }

    fn get(&self, id: &str) -> Option<u32> {
        self.numbers.get(&PrincipalId::new(id)).copied()
    }
}
