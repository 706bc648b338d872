//! ARM templates. A template says what will be deployed, and most of its values are known only then; a resource
//! whose values are written out is read, one that hangs on expressions is reported.

use super::document::{
    Context, Document, Origin, refuse_case_twins, unresolved_deny, unresolved_problem, wrong_type,
};
use super::ids::last_segment;
use super::recognize::{self, Is};
use super::tree::{Kind, Value};
use super::{near, schedule};
use crate::model::Problem;

/// What stands above a resource and decides whether it is deployed at all, and how often.
#[derive(Clone, Copy, Debug)]
struct Above {
    certain: bool,
}

pub(super) fn read(value: Value<'_>, context: &mut Context) {
    context.report.document(value);
    read_template(value, Above { certain: true }, context);
}

/// A lone resource, as it is cut out of a template.
pub(super) fn read_resource(is: Is, value: Value<'_>, context: &mut Context) {
    resource(is, value, Above { certain: true }, context);
}

/// What a template may hold.
const PARTS: [&str; 13] = [
    "$schema",
    "contentVersion",
    "apiProfile",
    "languageVersion",
    "definitions",
    "metadata",
    "parameters",
    "variables",
    "functions",
    "resources",
    "outputs",
    "extensions",
    "imports",
];

fn read_template(template: Value<'_>, above: Above, context: &mut Context) {
    refuse_case_twins(template, context);
    for entry in template.entries() {
        // A section of a policy, or `resources` misspelt, would be lost.
        let known = PARTS.iter().any(|part| entry.name.eq_ignore_ascii_case(part));
        if !known && !entry.name.starts_with(['$', '_', '@']) {
            context.report.at(
                entry.key.at(),
                Problem::error("UnknownProperty", format!("`{}` is no part of a template", entry.name))
                    .value(entry.name)
                    .help("put sections of a policy into a document of their own"),
            );
        }
    }
    if let Some(resources) = template.get("resources") {
        read_resources(resources, above, context);
    }
}

/// A list, or a map of symbolic names in language version 2.0.
fn read_resources(resources: Value<'_>, above: Above, context: &mut Context) {
    let each = |value: Value<'_>, context: &mut Context| {
        if value.kind() == Kind::Object {
            read_one(value, above, context);
        } else {
            wrong_type(value, "an object", context);
        }
    };
    match resources.kind() {
        Kind::Array => resources.elements().for_each(|value| each(value, context)),
        Kind::Object => resources.entries().for_each(|entry| each(entry.value, context)),
        // Nobody can tell whether there is a deny assignment among them.
        Kind::String => {
            let problem = unresolved_deny("which resources there are is known only when this is deployed");
            context.report.value(resources, problem);
        }
        _ => wrong_type(resources, "a list of resources", context),
    }
}

fn read_one(value: Value<'_>, above: Above, context: &mut Context) {
    let Some(name) = type_name(value, context) else { return };
    let is = recognize::by_type(name).or_else(|| {
        // Within another resource, types are relative to it.
        recognize::by_type(&format!("x/{name}"))
    });
    // A reference to what is there already deploys nothing, but what stands below it may.
    if value.get("existing").is_some_and(|existing| existing.kind() == Kind::True) {
        return children(value, above, context);
    }
    match is {
        Some(
            is @ (Is::RoleDefinition
            | Is::RoleAssignment
            | Is::DenyAssignment
            | Is::Schedule(_)
            | Is::ScheduleRequest
            | Is::PolicyAssignment
            | Is::ManagementPolicy
            | Is::Agent),
        ) => resource(is, value, above, context),
        _ => {
            refuse_case_twins(value, context);
            refuse_near_types(name, value, context);
            let plain = plain(name);
            let stack = plain.eq_ignore_ascii_case("Microsoft.Resources/deploymentStacks");
            if (stack || plain.eq_ignore_ascii_case("Microsoft.Resources/deployments"))
                && let Some(below) = deployed(value, above)
            {
                nested(value, below, context);
                if stack {
                    refuse_deny_settings(value, context);
                }
            }
            children(value, above, context);
        }
    }
}

/// The type of a resource. Without one it could be anything.
fn type_name<'t>(value: Value<'t>, context: &mut Context) -> Option<&'t str> {
    let Some(name) = value.get("type") else {
        context
            .report
            .at(value.at(), Problem::error("MissingProperty", "a resource without a `type`").field("type"));
        return None;
    };
    match name.as_str() {
        Some(text) if text.trim_start().starts_with('[') => {
            let problem = unresolved_deny("of what type the resource is, is known only when it is deployed");
            context.report.value(name, problem);
            None
        }
        Some(text) => Some(text),
        None => {
            wrong_type(name, "a string", context);
            None
        }
    }
}

/// A type without the version that Bicep writes behind it.
fn plain(name: &str) -> &str {
    name.split_once('@').map_or(name, |(name, _)| name).trim().trim_matches('/')
}

/// A type that is almost one of those that are read: ignored like the types of others, it would be lost.
fn refuse_near_types(name: &str, value: Value<'_>, context: &mut Context) {
    const KINDS: [&str; 11] = [
        "denyAssignments",
        "roleDefinitions",
        "roleAssignments",
        "roleAssignmentSchedules",
        "roleAssignmentScheduleInstances",
        "roleAssignmentScheduleRequests",
        "roleEligibilitySchedules",
        "roleEligibilityScheduleInstances",
        "roleEligibilityScheduleRequests",
        "roleManagementPolicies",
        "roleManagementPolicyAssignments",
    ];
    let plain = plain(name);
    let last = last_segment(plain);
    let holder = plain.split_once('/').map_or("", |(holder, _)| holder).trim();
    let ours = near::is_near(holder, "Microsoft.Authorization")
        || plain.to_ascii_lowercase().contains("/providers/");
    let denies = last.to_ascii_lowercase().contains("denyassign") || near::is_near(last, "denyAssignments");
    let meant = if denies {
        Some("denyAssignments")
    } else {
        KINDS.into_iter().find(|kind| ours && near::is_near(last, kind))
    };
    if let (Some(meant), Some(at)) = (meant, value.get("type")) {
        context.report.value(
            at,
            Problem::error("UnknownResourceType", format!("`{name}` is no resource type that is known"))
                .help(format!("was `Microsoft.Authorization/{meant}` meant?")),
        );
    }
}

/// The resources below a resource. Whether it is deployed itself decides nothing for them (Azure does not hand a
/// condition down), but how often they are is open.
fn children(value: Value<'_>, above: Above, context: &mut Context) {
    if let Some(resources) = value.get("resources") {
        let below = deployed(value, above).unwrap_or(Above { certain: false });
        read_resources(resources, below, context);
    }
}

/// A template within a template. Where it cannot be read, nobody can tell whether it holds a deny assignment.
fn nested(deployment: Value<'_>, above: Above, context: &mut Context) {
    let Some(properties) = deployment.get("properties").filter(|value| value.kind() == Kind::Object) else {
        let problem = unresolved_deny("a deployment whose template cannot be read");
        context.report.at(deployment.at(), problem.field("properties"));
        return;
    };
    refuse_case_twins(properties, context);
    let (template, link) = (properties.get("template"), properties.get("templateLink"));
    match template {
        Some(template) if template.kind() == Kind::Object => read_template(template, above, context),
        Some(template) => {
            let problem = unresolved_deny("what the template holds is known only when it is deployed");
            context.report.value(template, problem);
        }
        None if link.is_none() => {
            let problem = unresolved_deny("a deployment without a template");
            context.report.at(properties.at(), problem.field("template"));
        }
        None => {}
    }
    if let Some(link) = link {
        context.report.at(link.at(), unresolved_deny("a linked template is not read"));
    }
}

/// A stack denies what its settings say, with deny assignments that stand in no template.
fn refuse_deny_settings(stack: Value<'_>, context: &mut Context) {
    let settings = stack.get("properties").and_then(|properties| properties.get("denySettings"));
    let Some(settings) = settings else { return };
    let mode = settings.get("mode").and_then(|mode| mode.as_str());
    if !mode.is_some_and(|mode| mode.eq_ignore_ascii_case("none")) {
        let message = "the stack makes deny assignments of its own, which its template does not hold";
        context.report.at(settings.at(), unresolved_deny(message));
    }
}

/// Whether a resource is deployed: `None` is no, and an expression or loop leaves it open. `condition` beside
/// `properties` means that, and is no condition of an assignment.
fn deployed(value: Value<'_>, above: Above) -> Option<Above> {
    let condition = match value.get("condition") {
        None => true,
        Some(condition) => match (condition.kind(), condition.as_str().map(str::to_ascii_lowercase)) {
            (Kind::False, _) => return None,
            (Kind::True, _) => true,
            (_, Some(text)) if text == "false" || text == "[false()]" => return None,
            (_, Some(text)) => text == "true" || text == "[true()]",
            _ => false,
        },
    };
    Some(Above { certain: above.certain && condition && value.get("copy").is_none() })
}

/// A problem with where or whether something is deployed: leniency leaves a grant out, but no deny.
fn open_question(is: Is, message: &str, context: &Context) -> Problem {
    match is {
        Is::DenyAssignment => unresolved_deny(message),
        // What hangs on a schedule (an activation, the assignment that it governs) would stand alone without it.
        Is::Schedule(_) => Problem::error("UnresolvedTemplateExpression", message)
            .help("export the schedules that are deployed and take this out, or write the value itself"),
        _ => unresolved_problem(message, context),
    }
}

fn resource(is: Is, value: Value<'_>, above: Above, context: &mut Context) {
    read_deployed(is, value, above, context);
    children(value, above, context);
}

fn read_deployed(is: Is, value: Value<'_>, above: Above, context: &mut Context) {
    if is == Is::ScheduleRequest {
        return schedule::request(value, context);
    }
    let mut document = Document::open(value, Origin::Template, context);
    // Without `properties`, a condition may be that of an assignment.
    let below = if document.inner.is_some() {
        let Some(below) = deployed(value, above) else { return };
        document = document.without_deployment_condition();
        below
    } else {
        Above { certain: above.certain && value.get("copy").is_none() }
    };
    // A loop over a property makes lists that are not written out.
    let loops = document.inner.and_then(|inner| inner.get("copy")).filter(|_| is == Is::DenyAssignment);
    if !below.certain || loops.is_some() {
        context.report.document(value);
        // The condition or loop where the resource has one, else the resource below such a one.
        let place = value
            .get("condition")
            .filter(|_| document.inner.is_some())
            .filter(|_| deployed(value, Above { certain: true }).is_some_and(|at| !at.certain));
        let place = value.get("copy").or(place).or(loops).unwrap_or(value);
        let message = "whether, or how often, this resource is deployed hangs on a template expression";
        let problem = open_question(is, message, context);
        context.report.value(place, problem);
        return;
    }
    let anywhere = matches!(is, Is::RoleDefinition | Is::ManagementPolicy | Is::Agent);
    if !anywhere && document.find(&["scope", "id"], context).is_none() {
        context.report.document(value);
        let message = "the scope of this resource is wherever its template is deployed";
        let problem = open_question(is, message, context);
        context.report.at(value.at(), problem.field("scope"));
        return;
    }
    if let Some(scope) = document.find(&["scope"], context)
        && let Some(text) = scope.as_str()
        && !text.starts_with(['/', '['])
    {
        context.report.document(value);
        let message = "the scope is relative to wherever the template is deployed";
        let problem = open_question(is, message, context);
        context.report.value(scope, problem);
        return;
    }
    recognize::read_document(is, &document, context);
}
