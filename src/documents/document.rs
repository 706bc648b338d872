//! One document as its reader sees it: properties by name in any letter case, whether they stand at the top or
//! below `properties`, with every mismatch reported once.

use super::Lenience;
use super::activation::Joins;
use super::near;
use super::report::Report;
use super::tree::{Entry, Kind, Value};
use crate::condition::Extensions;
use crate::model::{Documents, Problem, Schedule, Severity, Spanned};

/// What readers write to.
#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) lenience: Lenience,
    pub(super) extensions: Extensions,
    pub(super) report: Report,
    pub(super) documents: Documents,
    /// Ids of role definitions that were refused: told once, not again for every assignment to them.
    pub(super) refused_roles: Vec<String>,
    /// Policies of PIM that are still to be put together.
    pub(super) joins: Joins,
    /// Schedules that a lenient reader leaves out, as far as others hang on them.
    pub(super) left_out: Vec<Schedule>,
    /// Of activations that name the schedule and the instance of their eligibility: the latter, and which schedule of
    /// the documents it is of.
    pub(super) instance_links: Vec<(usize, Spanned<String>)>,
}

/// Where a document comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// What a tool printed, or a person wrote in the same form: values are values.
    Data,
    /// A resource of an ARM template: `[…]` is an expression.
    Template,
}

/// A document that is an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'t> {
    /// The whole.
    pub(super) top: Value<'t>,
    /// Its `properties`, where it has some.
    pub(super) inner: Option<Value<'t>>,
    pub(super) origin: Origin,
    /// `condition` at the top is about the deployment of a template's resource, and was dealt with.
    deployment_condition: bool,
}

impl<'t> Document<'t> {
    /// Looks at an object; names that differ in letter case only are reported.
    pub(super) fn open(top: Value<'t>, origin: Origin, context: &mut Context) -> Self {
        let inner = top.get("properties").filter(|value| value.kind() == Kind::Object);
        refuse_case_twins(top, context);
        if let Some(inner) = inner {
            refuse_case_twins(inner, context);
        }
        Self { top, inner, origin, deployment_condition: false }
    }

    /// A part of a document that is an object of its own.
    pub(super) fn part(value: Value<'t>, origin: Origin, context: &mut Context) -> Option<Self> {
        if value.kind() == Kind::Object {
            refuse_case_twins(value, context);
            return Some(Self { top: value, inner: None, origin, deployment_condition: false });
        }
        wrong_type(value, "an object", context);
        None
    }

    /// The document without its `condition` beside `properties`.
    pub(super) const fn without_deployment_condition(self) -> Self {
        Self { deployment_condition: true, ..self }
    }

    /// Where a missing property would stand.
    pub(super) fn body(&self) -> Value<'t> {
        self.inner.unwrap_or(self.top)
    }

    /// Every property, of both levels.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'t>> + use<'t> {
        self.top.entries().chain(self.inner.into_iter().flat_map(|inner| inner.entries()))
    }

    /// The value of a property that may go by several names; null is as good as missing. Two values that differ
    /// are reported, because either could be the one that was meant.
    pub(super) fn find(&self, names: &[&str], context: &mut Context) -> Option<Value<'t>> {
        let mut first: Option<Entry<'t>> = None;
        let top = self
            .top
            .entries()
            .filter(|entry| !(self.deployment_condition && entry.name.eq_ignore_ascii_case("condition")));
        for entry in self.inner.into_iter().flat_map(|inner| inner.entries()).chain(top) {
            let named = names.iter().any(|name| entry.name.eq_ignore_ascii_case(name));
            if !named || entry.value.is_null() {
                continue;
            }
            let Some(first) = first else {
                first = Some(entry);
                continue;
            };
            let same = match (first.value.shown(), entry.value.shown()) {
                (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
                _ => false,
            };
            // Twins on one level are told when the object is opened.
            let twins = first.name.eq_ignore_ascii_case(entry.name) && self.inner.is_none();
            if !same && !twins {
                context.report.value(
                    entry.value,
                    Problem::error(
                        "DuplicateProperty",
                        format!("`{}` and `{}` of one document differ", first.name, entry.name),
                    )
                    .help("keep one of them"),
                );
            }
        }
        first.map(|entry| entry.value)
    }

    /// A text that must be there; the first name is the one that is asked for.
    pub(super) fn need_text(&self, names: &[&str], context: &mut Context) -> Option<Spanned<String>> {
        match self.find(names, context) {
            Some(value) => self.text_of(value, context),
            None => {
                self.missing(names, context);
                None
            }
        }
    }

    /// A text for people: an expression of a template is left out, it decides nothing.
    pub(super) fn label(&self, names: &[&str], context: &mut Context) -> Option<Spanned<String>> {
        let value = self.find(names, context)?;
        if self.origin == Origin::Template && value.as_str().is_some_and(is_expression) {
            return None;
        }
        self.text_of(value, context)
    }

    /// Whether a property is there, not null and no empty text. Says nothing of twins.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries().any(|entry| {
            entry.name.eq_ignore_ascii_case(name)
                && !entry.value.is_null()
                && entry.value.as_str() != Some("")
        })
    }

    /// A text that may be missing or empty.
    pub(super) fn optional_text(
        &self,
        names: &[&str],
        context: &mut Context,
    ) -> Result<Option<Spanned<String>>, ()> {
        let Some(value) = self.find(names, context) else { return Ok(None) };
        let text = self.text_of(value, context).ok_or(())?;
        Ok(Some(text).filter(|text| !text.value.is_empty()))
    }

    /// Says that a property is not there.
    pub(super) fn missing(&self, names: &[&str], context: &mut Context) {
        let name = self.spelled(names);
        context.report.at(
            self.body().at(),
            Problem::error("MissingProperty", format!("`{name}` is missing")).field(name),
        );
    }

    /// The name that fits the style of the document: PowerShell writes capitals.
    fn spelled(&self, names: &[&str]) -> String {
        let pascal = self
            .body()
            .entries()
            .next()
            .is_some_and(|entry| entry.name.starts_with(|first: char| first.is_ascii_uppercase()));
        let name = if pascal { names.last() } else { names.first() };
        let name = name.copied().unwrap_or_default();
        let mut characters = name.chars();
        match characters.next() {
            Some(first) if pascal => first.to_ascii_uppercase().to_string() + characters.as_str(),
            _ => name.to_owned(),
        }
    }

    /// A value as a text. In a template an escaped `[[` is `[`, and an expression is a problem.
    pub(super) fn text_of(&self, value: Value<'t>, context: &mut Context) -> Option<Spanned<String>> {
        let Some(text) = value.as_str() else {
            wrong_type(value, "a string", context);
            return None;
        };
        if self.origin == Origin::Template {
            if is_expression(text) {
                unresolved(value, context);
                return None;
            }
            if let Some(rest) = text.strip_prefix('[').filter(|rest| rest.starts_with('[')) {
                return Some(Spanned::new(rest.to_owned(), value.at()));
            }
        }
        Some(Spanned::new(text.to_owned(), value.at()))
    }

    /// An id of a user, group or service principal.
    pub(super) fn principal_of(&self, value: Value<'t>, context: &mut Context) -> Option<Spanned<String>> {
        let id = self.text_of(value, context)?;
        let wrong = if id.value.trim().is_empty() {
            "is empty"
        } else if id.value.chars().any(char::is_control) {
            "holds a control character"
        } else if id.value.trim().len() != id.value.len() {
            // It would be the id of nobody.
            "has white space around it"
        } else {
            return Some(id);
        };
        context.report.value(
            value,
            Problem::error("InvalidPrincipalId", format!("the principal id {wrong}"))
                .help("wanted the object id of a user, group or service principal"),
        );
        None
    }

    /// A truth value; missing is false.
    pub(super) fn flag(&self, names: &[&str], context: &mut Context) -> Option<bool> {
        let Some(value) = self.find(names, context) else { return Some(false) };
        match value.kind() {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ if self.is_expression(value) => {
                unresolved(value, context);
                None
            }
            _ => {
                wrong_type(value, "`true` or `false`", context);
                None
            }
        }
    }

    /// The values of a list; missing is empty. `None` when it is no list.
    pub(super) fn list(&self, names: &[&str], context: &mut Context) -> Option<Vec<Value<'t>>> {
        let Some(value) = self.find(names, context) else { return Some(Vec::new()) };
        self.list_of(value, context)
    }

    /// The values of a list.
    pub(super) fn list_of(&self, value: Value<'t>, context: &mut Context) -> Option<Vec<Value<'t>>> {
        if value.kind() == Kind::Array {
            return Some(value.elements().collect());
        }
        if self.is_expression(value) {
            unresolved(value, context);
        } else {
            wrong_type(value, "a list", context);
        }
        None
    }

    /// A list of texts; missing is empty.
    pub(super) fn texts(&self, names: &[&str], context: &mut Context) -> Option<Vec<Spanned<String>>> {
        let values = self.list(names, context)?;
        let wanted = values.len();
        let texts: Vec<_> = values.into_iter().filter_map(|value| self.text_of(value, context)).collect();
        (texts.len() == wanted).then_some(texts)
    }

    pub(super) fn is_expression(&self, value: Value<'_>) -> bool {
        self.origin == Origin::Template && value.as_str().is_some_and(is_expression)
    }

    /// A misspelt property that decides would be ignored, and with it what it says: names that are almost one of
    /// those are refused.
    pub(super) fn refuse_near_misses(&self, deciding: &[&str], context: &mut Context) {
        for entry in self.entries() {
            if near::is_known(entry.name) || deciding.iter().any(|name| entry.name.eq_ignore_ascii_case(name))
            {
                continue;
            }
            if let Some(meant) = deciding.iter().find(|name| near::is_near(entry.name, name)) {
                context.report.at(
                    entry.key.at(),
                    Problem::error("UnknownProperty", format!("`{}` is no property", entry.name))
                        .value(entry.name)
                        .help(format!("was `{meant}` meant?")),
                );
            }
        }
    }
}

/// Whether a text of a template is an expression: `[…]`, but not `[[…`, which is a text that begins with `[`.
pub(super) fn is_expression(text: &str) -> bool {
    text.starts_with('[') && text.ends_with(']') && !text.starts_with("[[")
}

/// Reports that a value of a template is known only when it is deployed.
pub(super) fn unresolved(value: Value<'_>, context: &mut Context) {
    let problem = unresolved_problem("the value is a template expression", context);
    context.report.value(value, problem);
}

/// Whatever hangs on it is left out, which a lenient reader only tells.
pub(super) fn unresolved_problem(message: impl Into<String>, context: &Context) -> Problem {
    let severity = match context.lenience {
        Lenience::Strict => Severity::Error,
        Lenience::Lenient => Severity::Warning,
    };
    let problem = Problem::error("UnresolvedTemplateExpression", message);
    Problem { severity, ..problem }.help(
        "export what is deployed with `az role assignment list --all` (or `az role definition list`), or write \
         the value itself",
    )
}

/// The same for what would be lost with a deny assignment in it: a grant that is left out grants nothing, but a deny
/// that is left out would grant, so leniency does not reach it.
pub(super) fn unresolved_deny(message: impl Into<String>) -> Problem {
    Problem::error("UnresolvedTemplateExpression", message).help(
        "export the deny assignments that are deployed (REST: `GET {scope}/providers/Microsoft.Authorization/\
         denyAssignments`) and take this out, or write the value itself",
    )
}

/// Reports a value of the wrong type.
pub(super) fn wrong_type(value: Value<'_>, wanted: &str, context: &mut Context) {
    let kind = value.kind();
    let mut problem = Problem::error("InvalidType", format!("wanted {wanted}, but this is {}", kind.name()));
    if wanted == "a string" && matches!(kind, Kind::Number | Kind::True | Kind::False) {
        problem = problem.help("put it in quotes");
    }
    context.report.value(value, problem);
}

/// Names that differ in letter case only are one name, and it would be left to chance which value counts.
pub(super) fn refuse_case_twins(object: Value<'_>, context: &mut Context) {
    const FEW: usize = 32;
    let mut seen = smallvec::SmallVec::<[&str; FEW]>::new();
    let mut many = ahash::AHashMap::new();
    for entry in object.entries() {
        // Beyond a few, comparing each with each takes too long.
        let twin = if seen.len() < FEW {
            seen.iter().copied().find(|name| name.eq_ignore_ascii_case(entry.name))
        } else {
            if many.is_empty() {
                many.extend(seen.iter().map(|name| (name.to_ascii_lowercase(), *name)));
            }
            many.insert(entry.name.to_ascii_lowercase(), entry.name)
        };
        if let Some(twin) = twin {
            context.report.at(
                entry.key.at(),
                Problem::error("DuplicateProperty", format!("`{}` is `{twin}` once more", entry.name))
                    .value(entry.name)
                    .help("letter case does not matter in property names: keep one of them"),
            );
        }
        seen.push(entry.name);
    }
}
