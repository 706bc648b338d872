//! Permission blocks: the quadruple of lists that roles and deny assignments share.

use super::condition;
use super::document::{Context, Document};
use super::near;
use super::tree::Value;
use crate::model::{PermissionBlock, Problem, Severity, Spanned};

/// The properties of a block that decide.
pub(super) const LISTS: [&str; 4] = ["actions", "notActions", "dataActions", "notDataActions"];

/// Those beside them that a block may carry.
const OTHERS: [&str; 6] =
    ["condition", "conditionVersion", "description", "comment", "_comment", "additionalProperties"];

/// All blocks of a document: those of `permissions`, or the one that PowerShell writes flat.
pub(super) fn read(document: &Document<'_>, context: &mut Context) -> Option<Vec<PermissionBlock>> {
    let flat = LISTS.iter().find_map(|name| document.find(&[name], context));
    match (document.find(&["permissions"], context), flat) {
        (Some(_), Some(flat)) => {
            context.report.value(
                flat,
                Problem::error(
                    "DuplicateProperty",
                    "lists of actions stand both in `permissions` and beside it",
                )
                .help("keep one of the two forms"),
            );
            None
        }
        (Some(permissions), None) => {
            let blocks = document.list_of(permissions, context)?;
            let wanted = blocks.len();
            let blocks: Vec<_> =
                blocks.into_iter().filter_map(|value| block(document, value, context)).collect();
            (blocks.len() == wanted).then_some(blocks)
        }
        (None, Some(_)) => lists(document, document.body(), context).map(|block| vec![block]),
        (None, None) => {
            // PowerShell writes null for lists that are empty, and the CLI for `permissions`.
            let said = document.entries().any(|entry| {
                entry.name.eq_ignore_ascii_case("permissions")
                    || LISTS.iter().any(|name| entry.name.eq_ignore_ascii_case(name))
            });
            if !said {
                document.missing(&["permissions"], context);
                return None;
            }
            Some(Vec::new())
        }
    }
}

/// Tells of actions with white space around them, which match only what has it too. `true` without one.
pub(super) fn refuse_spaces(blocks: &[PermissionBlock], severity: Severity, context: &mut Context) -> bool {
    let mut fine = true;
    for action in blocks.iter().flat_map(PermissionBlock::lists).flat_map(|(_, list)| list) {
        if action.value.trim().len() == action.value.len() {
            continue;
        }
        fine = false;
        let problem = Problem::error(
            "InvalidActionOrNotAction",
            "the action has white space around it, and matches only literally, with it",
        );
        context.report.at(
            action.at,
            Problem { severity, ..problem }.value(action.value.clone()).help("take the white space out"),
        );
    }
    fine
}

fn block(document: &Document<'_>, value: Value<'_>, context: &mut Context) -> Option<PermissionBlock> {
    let part = Document::part(value, document.origin, context)?;
    let mut known = true;
    for entry in value.entries() {
        let fits = LISTS.iter().chain(&OTHERS).any(|name| entry.name.eq_ignore_ascii_case(name));
        if fits || entry.name.starts_with(['$', '@']) {
            continue;
        }
        known = false;
        let mut problem = Problem::error(
            "UnknownProperty",
            format!("`{}` is no property of a permission block", entry.name),
        )
        .value(entry.name);
        problem = match LISTS.iter().chain(&OTHERS).find(|name| near::is_near(entry.name, name)) {
            Some(meant) => problem.help(format!("was `{meant}` meant?")),
            None => problem.help("wanted `actions`, `notActions`, `dataActions`, `notDataActions`"),
        };
        context.report.at(entry.key.at(), problem);
    }
    let condition = condition::read(&part, context);
    let lists = lists(&part, value, context)?;
    let block = PermissionBlock { condition: condition.ok()?, ..lists };
    known.then_some(block)
}

fn lists(document: &Document<'_>, value: Value<'_>, context: &mut Context) -> Option<PermissionBlock> {
    let mut read = |name: &str| -> Option<Vec<Spanned<String>>> {
        let actions = document.texts(&[name], context)?;
        let mut fine = true;
        for action in &actions {
            let wrong = if action.value.is_empty() {
                "is empty"
            } else if action.value.chars().any(char::is_control) {
                "holds a control character"
            } else {
                continue;
            };
            fine = false;
            context.report.at(
                action.at,
                Problem::error("InvalidActionOrNotAction", format!("the action {wrong}"))
                    .value(action.value.clone())
                    .help("wanted an operation or a pattern such as `Microsoft.Storage/*/read`"),
            );
        }
        fine.then_some(actions)
    };
    let [actions, not_actions, data_actions, not_data_actions] = LISTS.map(&mut read);
    Some(PermissionBlock {
        at: value.at(),
        actions: actions?,
        not_actions: not_actions?,
        data_actions: data_actions?,
        not_data_actions: not_data_actions?,
        condition: None,
    })
}
