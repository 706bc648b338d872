//! ARM templates. A template says what will be deployed, and most of its values are known only then; a resource
//! whose values are written out is read, one that hangs on expressions is reported.

use super::document::{Context, Document, Origin, is_expression, unresolved, unresolved_problem, wrong_type};
use super::recognize::{self, Is};
use super::schedule;
use super::tree::{Kind, Value};

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

fn read_template(template: Value<'_>, above: Above, context: &mut Context) {
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
        _ if resources.as_str().is_some_and(is_expression) => unresolved(resources, context),
        _ => wrong_type(resources, "a list of resources", context),
    }
}

fn read_one(value: Value<'_>, above: Above, context: &mut Context) {
    let type_name = value.get("type").and_then(|name| name.as_str());
    let is = type_name.and_then(recognize::by_type).or_else(|| {
        // Within another resource, types are relative to it.
        type_name.and_then(|name| recognize::by_type(&format!("x/{name}")))
    });
    // A reference to what is there already deploys nothing.
    if value.get("existing").is_some_and(|existing| existing.kind() == Kind::True) {
        return;
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
            let Some(below) = deployed(value, above) else { return };
            if type_name.is_some_and(|name| name.eq_ignore_ascii_case("Microsoft.Resources/deployments"))
                && let Some(properties) = value.get("properties")
            {
                nested(properties, below, context);
            }
            if let Some(resources) = value.get("resources") {
                read_resources(resources, below, context);
            }
        }
    }
}

/// A template within a template.
fn nested(properties: Value<'_>, above: Above, context: &mut Context) {
    if let Some(template) = properties.get("template") {
        if template.kind() == Kind::Object {
            read_template(template, above, context);
        } else {
            unresolved(template, context);
        }
    }
    if let Some(link) = properties.get("templateLink") {
        let problem = unresolved_problem("a linked template is not read", context);
        context.report.at(link.at(), problem);
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

fn resource(is: Is, value: Value<'_>, above: Above, context: &mut Context) {
    if is == Is::ScheduleRequest {
        return schedule::request(value, context);
    }
    let mut document = Document::open(value, Origin::Template, context);
    if document.inner.is_some() {
        let Some(below) = deployed(value, above) else { return };
        if !below.certain {
            context.report.document(value);
            // The condition or loop where the resource has one, else the resource below such a one.
            let place = value
                .get("condition")
                .filter(|_| deployed(value, Above { certain: true }).is_some_and(|at| !at.certain));
            let place = value.get("copy").or(place).unwrap_or(value);
            let problem = unresolved_problem(
                "whether, or how often, this resource is deployed hangs on a template expression",
                context,
            );
            context.report.value(place, problem);
            return;
        }
        document = document.without_deployment_condition();
    }
    let anywhere = matches!(is, Is::RoleDefinition | Is::ManagementPolicy | Is::Agent);
    if !anywhere && document.find(&["scope", "id"], context).is_none() {
        context.report.document(value);
        let problem =
            unresolved_problem("the scope of this resource is wherever its template is deployed", context);
        context.report.at(value.at(), problem.field("scope"));
        return;
    }
    if let Some(scope) = document.find(&["scope"], context)
        && let Some(text) = scope.as_str()
        && !text.starts_with(['/', '['])
    {
        context.report.document(value);
        let problem =
            unresolved_problem("the scope is relative to wherever the template is deployed", context);
        context.report.value(scope, problem);
        return;
    }
    recognize::read_document(is, &document, context);
}
