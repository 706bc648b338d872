//! PIM schedules and their instances, active and eligible: the shapes of REST and PowerShell, and our own (semantics,
//! sections 5.2, 5.5 and 5.6). An eligibility that is taken for an active schedule would grant, so a document whose
//! kind cannot be told, or is told in two ways, is refused.

use ahash::AHashMap;
use jiff::Timestamp;

use super::check::{self, Known, Name};
use super::document::{Context, Document, wrong_type};
use super::tree::{Kind, Value};
use super::{condition, ids};
use crate::model::{Problem, Schedule, ScheduleKind, ScheduleShape, Spanned};
use crate::pim::{IsoDuration, Status};

const DECIDING: [&str; 10] = [
    "principalId",
    "scope",
    "roleDefinitionId",
    "status",
    "startDateTime",
    "endDateTime",
    "scheduleInfo",
    "linkedRoleEligibilityScheduleId",
    "originRoleAssignmentId",
    "condition",
];

/// What a resource type, or the name of a section, says of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: ScheduleKind,
    pub(super) shape: ScheduleShape,
}

const TYPES: [(&str, Told); 4] = [
    ("roleAssignmentSchedules", Told { kind: ScheduleKind::Active, shape: ScheduleShape::Schedule }),
    ("roleAssignmentScheduleInstances", Told { kind: ScheduleKind::Active, shape: ScheduleShape::Instance }),
    ("roleEligibilitySchedules", Told { kind: ScheduleKind::Eligible, shape: ScheduleShape::Schedule }),
    (
        "roleEligibilityScheduleInstances",
        Told { kind: ScheduleKind::Eligible, shape: ScheduleShape::Instance },
    ),
];

/// Properties that only one kind of schedule has, and the shape that has them where it is one only.
const TELLING: [(&str, ScheduleKind, Option<ScheduleShape>); 8] = [
    ("roleAssignmentScheduleId", ScheduleKind::Active, Some(ScheduleShape::Instance)),
    ("originRoleAssignmentId", ScheduleKind::Active, Some(ScheduleShape::Instance)),
    ("linkedRoleEligibilityScheduleInstanceId", ScheduleKind::Active, Some(ScheduleShape::Instance)),
    ("linkedRoleEligibilityScheduleId", ScheduleKind::Active, None),
    ("assignmentType", ScheduleKind::Active, None),
    ("roleAssignmentScheduleRequestId", ScheduleKind::Active, Some(ScheduleShape::Schedule)),
    ("roleEligibilityScheduleId", ScheduleKind::Eligible, Some(ScheduleShape::Instance)),
    ("roleEligibilityScheduleRequestId", ScheduleKind::Eligible, Some(ScheduleShape::Schedule)),
];

impl Told {
    /// By the last part of a resource type, in any letter case.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, told)| *told)
    }

    fn name(self) -> &'static str {
        TYPES.iter().find(|(_, told)| *told == self).map_or("", |(name, _)| name)
    }
}

/// The word of our own form.
pub(super) fn kind_by_word(word: &str) -> Option<ScheduleKind> {
    match word.to_ascii_lowercase().as_str() {
        "assignment" | "active" => Some(ScheduleKind::Active),
        "eligibility" | "eligible" => Some(ScheduleKind::Eligible),
        _ => None,
    }
}

// === reading ===

/// Reads one and keeps it, unless something of it was reported. `section` is what the section it stands in says.
pub(super) fn read(document: &Document<'_>, section: Option<Told>, context: &mut Context) {
    context.report.document(document.top);
    if let Some(schedule) = parse(document, section, context) {
        context.documents.schedules.push(schedule);
    }
}

/// A request is history: what came of it is in the schedules.
pub(super) fn request(value: Value<'_>, context: &mut Context) {
    context.report.document(value);
    context.report.at(
        value.at(),
        Problem::warning("ScheduleRequestSkipped", "a request grants nothing by itself, so it is left out")
            .help("export the schedules or instances: `roleAssignmentSchedules`, `roleAssignmentScheduleInstances`"),
    );
}

fn parse(document: &Document<'_>, section: Option<Told>, context: &mut Context) -> Option<Schedule> {
    document.refuse_near_misses(&DECIDING, context);
    let told = tell(document, section, context);
    let type_name = told.map_or("roleAssignmentSchedules", Told::name);
    let place = ids::place(document, type_name, &["id"], &["name"], context);
    let role = check::role_of(document, context);
    let principal = match document.find(&["principalId"], context) {
        Some(value) => document.principal_of(value, context),
        None => {
            document.missing(&["principalId"], context);
            None
        }
    };
    let principal_type = document.label(&["principalType"], context);
    let status = status(document, context);
    let window = window(document, context);
    let condition = condition::read(document, context);
    let mut name_of = |names: &[&str]| -> Result<Option<Spanned<String>>, ()> {
        let id = document.optional_text(names, context)?;
        Ok(id.map(|id| Spanned::new(ids::last_segment(&id.value).to_owned(), id.at)))
    };
    let schedule = match told.map(|told| told.kind) {
        Some(ScheduleKind::Eligible) => name_of(&["roleEligibilityScheduleId"]),
        _ => name_of(&["roleAssignmentScheduleId"]),
    };
    let linked = name_of(&["linkedRoleEligibilityScheduleId"]);
    let linked_instance = name_of(&["linkedRoleEligibilityScheduleInstanceId"]);
    let origin = name_of(&["originRoleAssignmentId"]);
    let (told, place, (start, end)) = (told?, place?, window.ok()?);
    Some(Schedule {
        at: document.top.at(),
        kind: told.kind,
        shape: told.shape,
        name: place.name,
        schedule: schedule.ok()?,
        scope: place.scope,
        role_definition_id: role?,
        principal_id: principal?,
        principal_type,
        status: status.ok()?,
        start,
        end,
        linked_eligibility: linked.ok()?.or(linked_instance.ok()?),
        origin_role_assignment: origin.ok()?,
        condition: condition.ok()?,
    })
}

/// Kind and shape, by everything that says something of them.
fn tell(document: &Document<'_>, section: Option<Told>, context: &mut Context) -> Option<Told> {
    let mut evidence: Vec<(String, ScheduleKind, Option<ScheduleShape>)> = Vec::new();
    let text = |name: &str| document.top.get(name).and_then(|value| value.as_str());
    let by_type = text("type").and_then(|name| Told::by_name(ids::last_segment(name)));
    let by_id = text("id").and_then(ids::kind_of).and_then(Told::by_name);
    for (name, told) in [("the section", section), ("`type`", by_type), ("`id`", by_id)] {
        evidence.extend(told.map(|told| (name.to_owned(), told.kind, Some(told.shape))));
    }
    if let Some(value) = document.find(&["kind"], context) {
        let word = document.text_of(value, context)?;
        match kind_by_word(&word.value) {
            Some(kind) => evidence.push(("`kind`".to_owned(), kind, None)),
            // A document of Azure may have a kind of its own.
            None if !evidence.is_empty() => {}
            None => {
                context.report.value(
                    value,
                    Problem::error("InvalidSchedule", format!("`{}` is no kind of schedule", word.value))
                        .help("wanted `active` or `eligible` (or `assignment`, `eligibility`)"),
                );
                return None;
            }
        }
    }
    let telling = TELLING.iter().filter(|(name, ..)| document.has(name));
    let stated = evidence.iter().any(|(_, _, shape)| shape.is_some());
    // The shape is stated, or else concluded from the properties.
    evidence
        .extend(telling.map(|(name, kind, shape)| (format!("`{name}`"), *kind, shape.filter(|_| !stated))));

    let Some((first, kind, _)) = evidence.first() else {
        context.report.at(
            document.body().at(),
            Problem::error(
                "MissingProperty",
                "`kind` is missing: nothing says whether the schedule is active or eligible",
            )
            .field("kind")
            .help(
                "wanted `kind` (`active` or `eligible`), or the `type` or `id` of a `roleAssignmentSchedules`, \
                 `roleEligibilitySchedules` or an instance of one",
            ),
        );
        return None;
    };
    let shapes = || evidence.iter().filter_map(|(name, _, shape)| Some((name, (*shape)?)));
    let shape = shapes().next();
    let other_shape = shape.filter(|_| stated).and_then(|(first, shape)| {
        shapes().find(|(_, other)| *other != shape).map(|(other, _)| (first, other))
    });
    let other = evidence.iter().find(|(_, other, _)| other != kind).map(|(other, ..)| (first, other));
    if let Some((one, other)) = other.or(other_shape) {
        context.report.at(
            document.body().at(),
            Problem::error(
                "ContradictoryKind",
                format!("{one} and {other} are of two kinds of schedule"),
            )
            .help(
                "a document is an active or an eligible schedule, or an instance of one: correct one of them",
            ),
        );
        return None;
    }
    Some(Told { kind: *kind, shape: shape.map_or(ScheduleShape::Schedule, |(_, shape)| shape) })
}

/// One of the API's words; only `Provisioned` counts.
fn status(document: &Document<'_>, context: &mut Context) -> Result<Option<Spanned<String>>, ()> {
    let Some(value) = document.find(&["status"], context) else { return Ok(None) };
    let word = document.text_of(value, context).ok_or(())?;
    if Status::parse(&word.value).is_some() {
        return Ok(Some(word));
    }
    let known: Vec<_> = Status::ALL.iter().map(|status| format!("`{status}`")).collect();
    context.report.value(
        value,
        Problem::error("InvalidSchedule", format!("`{}` is no status of a schedule", word.value))
            .help(format!("wanted one of {}", known.join(", "))),
    );
    Err(())
}

type Window = (Option<Spanned<Timestamp>>, Option<Spanned<Timestamp>>);

/// Start and end, written flat or in `scheduleInfo`. Where both say something, the narrower window holds.
fn window(document: &Document<'_>, context: &mut Context) -> Result<Window, ()> {
    let start = time(document, "startDateTime", context);
    let end = time(document, "endDateTime", context);
    let Some(info) = document.find(&["scheduleInfo"], context) else { return Ok((start?, end?)) };
    let info = Document::part(info, document.origin, context).ok_or(())?;
    info.refuse_near_misses(&["startDateTime", "expiration"], context);
    let info_start = time(&info, "startDateTime", context);
    let start = start?.into_iter().chain(info_start?).max_by_key(|start| start.value);
    let Some(expiration) = info.find(&["expiration"], context) else { return Ok((start, end?)) };
    let expiration = Document::part(expiration, document.origin, context).ok_or(())?;
    expiration.refuse_near_misses(&["duration", "endDateTime"], context);
    let expires = expires(&expiration, start.as_ref().map(|start| start.value), context)?;
    Ok((start, end?.into_iter().chain(expires).min_by_key(|end| end.value)))
}

/// `scheduleInfo.expiration` (semantics, section 5.4).
fn expires(
    expiration: &Document<'_>,
    start: Option<Timestamp>,
    context: &mut Context,
) -> Result<Option<Spanned<Timestamp>>, ()> {
    let end = time(expiration, "endDateTime", context)?;
    let duration = expiration.optional_text(&["duration"], context)?;
    let kind = match expiration.find(&["type"], context) {
        Some(value) => Some((value, expiration.text_of(value, context).ok_or(())?)),
        None => None,
    };
    let (by_end, by_duration) = match &kind {
        None => (end.is_some(), end.is_none() && duration.is_some()),
        Some((_, word)) if word.value.eq_ignore_ascii_case("AfterDateTime") => (true, false),
        Some((_, word)) if word.value.eq_ignore_ascii_case("AfterDuration") => (false, true),
        Some((_, word)) if word.value.eq_ignore_ascii_case("NoExpiration") => (false, false),
        Some((value, word)) => {
            context.report.value(
                *value,
                Problem::error("InvalidSchedule", format!("`{}` is no type of expiration", word.value))
                    .help("wanted `AfterDuration`, `AfterDateTime` or `NoExpiration`"),
            );
            return Err(());
        }
    };
    if by_end {
        if end.is_none() {
            expiration.missing(&["endDateTime"], context);
        }
        return end.map(Some).ok_or(());
    }
    if !by_duration {
        return Ok(None);
    }
    let Some(duration) = duration else {
        expiration.missing(&["duration"], context);
        return Err(());
    };
    let problem = |message: String| Problem::error("InvalidSchedule", message).value(duration.value.clone());
    let length = match IsoDuration::parse(&duration.value) {
        Ok(length) => length,
        Err(error) => {
            context.report.at(duration.at, problem(error.to_string()));
            return Err(());
        }
    };
    let Some(start) = start else {
        let message = "the duration has nothing to count from: `startDateTime` is missing".to_owned();
        context.report.at(duration.at, problem(message));
        return Err(());
    };
    // Beyond what can be represented is as good as never.
    Ok(length.after(start).map(|end| Spanned::new(end, duration.at)))
}

fn time(
    document: &Document<'_>,
    name: &str,
    context: &mut Context,
) -> Result<Option<Spanned<Timestamp>>, ()> {
    let Some(value) = document.find(&[name], context) else { return Ok(None) };
    if value.kind() != Kind::String {
        wrong_type(value, "a string", context);
        return Err(());
    }
    let text = document.text_of(value, context).ok_or(())?;
    match instant(&text.value) {
        Some(time) => Ok(Some(Spanned::new(time, text.at))),
        None => {
            context.report.value(
                value,
                Problem::error("InvalidDateTime", format!("`{}` is no date and time", text.value))
                    .help("wanted RFC 3339 with an offset, such as `2025-01-31T08:00:00Z`"),
            );
            Err(())
        }
    }
}

/// RFC 3339, without the names of time zones that the library would take.
fn instant(text: &str) -> Option<Timestamp> {
    if text.contains(['[', ' ', '_']) || !text.contains(['T', 't']) {
        return None;
    }
    text.parse().ok().or_else(|| {
        // The last day that others know is one that the library does not: nothing ends after it.
        let rest = text.strip_prefix("9999-12-3")?;
        format!("9998-12-3{rest}").parse::<Timestamp>().ok().map(|_| Timestamp::MAX)
    })
}

// === all documents together ===

/// Names, roles, scopes, windows, and the eligibilities that activations were made from.
pub(super) fn check(context: &mut Context) {
    let Context { lenience, report, documents, refused_roles, .. } = context;
    let known = Known::new(&documents.role_definitions, refused_roles, *lenience);
    let all = &documents.schedules;
    let mut out = vec![false; all.len()];
    let mut by_name: AHashMap<(ScheduleKind, ScheduleShape, Name<'_>), &Schedule> =
        AHashMap::with_capacity(all.len());
    for (schedule, out) in all.iter().zip(&mut out) {
        let key = (schedule.kind, schedule.shape, Name(&schedule.name.value));
        if let Some(first) = by_name.get(&key) {
            *out = true;
            if !same(first, schedule) {
                report.against(
                    schedule.name.at,
                    first.name.at,
                    Problem::error(
                        "DuplicateSchedule",
                        format!("two schedules are called `{}`, and they differ", schedule.name.value),
                    )
                    .value(schedule.name.value.clone())
                    .help("keep one"),
                );
            }
            continue;
        }
        by_name.insert(key, schedule);
        *out |= !known.scope(&schedule.scope, report);
        *out |= !known.role(&schedule.role_definition_id, "without it the schedule grants nothing", report);
        if let (Some(start), Some(end)) = (&schedule.start, &schedule.end)
            && end.value <= start.value
        {
            report.at(
                end.at,
                Problem::warning(
                    "ScheduleNeverActive",
                    "the schedule ends before it begins, so it is never active",
                )
                .value(end.value.to_string())
                .help(format!("it begins at {}", start.value)),
            );
        }
    }
    let mut eligible: ahash::AHashSet<Name<'_>> = ahash::AHashSet::new();
    for (schedule, _) in all.iter().zip(&out).filter(|(_, out)| !**out) {
        if schedule.kind == ScheduleKind::Eligible {
            eligible.insert(Name(&schedule.name.value));
            eligible.extend(schedule.schedule.as_ref().map(|name| Name(&name.value)));
        }
    }
    for (schedule, _) in all.iter().zip(&out).filter(|(_, out)| !**out) {
        if let Some(linked) = &schedule.linked_eligibility
            && schedule.kind == ScheduleKind::Active
            && schedule.is_provisioned()
            && !eligible.contains(&Name(&linked.value))
        {
            report.at(
                linked.at,
                Problem::warning(
                    "EligibilityDoesNotExist",
                    format!("no document holds the eligibility `{}` of this activation", linked.value),
                )
                .value(linked.value.clone())
                .help(
                    "the activation holds for its own time; export the eligibilities too, so that it ends with \
                     its eligibility",
                ),
            );
        }
    }
    check::take_out(&mut documents.schedules, &out);
}

fn same(one: &Schedule, other: &Schedule) -> bool {
    let time = |time: &Option<Spanned<Timestamp>>| time.as_ref().map(|time| time.value);
    let names = |one: &Option<Spanned<String>>, other: &Option<Spanned<String>>| match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.value.eq_ignore_ascii_case(&other.value),
        _ => false,
    };
    check::same_place(
        (&one.principal_id, &one.role_definition_id, &one.scope),
        (&other.principal_id, &other.role_definition_id, &other.scope),
    ) && (one.is_provisioned(), time(&one.start), time(&one.end))
        == (other.is_provisioned(), time(&other.start), time(&other.end))
        && names(&one.linked_eligibility, &other.linked_eligibility)
        && names(&one.origin_role_assignment, &other.origin_role_assignment)
        && names(&one.schedule, &other.schedule)
        && condition::same(one.condition.as_ref(), other.condition.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants() {
        for (text, expected) in [
            ("2021-09-14T23:16:37.2Z", Some("2021-09-14T23:16:37.2Z")),
            ("2021-09-14T23:16:37.1234567Z", Some("2021-09-14T23:16:37.1234567Z")),
            ("2021-09-14T23:16:37.123456+02:00", Some("2021-09-14T21:16:37.123456Z")),
            ("9999-12-31T23:59:59.9999999Z", Some("9999-12-30T22:00:00.999999999Z")),
            ("9999-12-31T23:59:59", None),
            ("2021-09-14T23:16:37", None),
            ("2021-09-14", None),
            ("2021-09-14 23:16:37Z", None),
            ("2021-09-14T23:16:37+00:00[UTC]", None),
            ("2021-02-30T00:00:00Z", None),
            ("", None),
        ] {
            let read = instant(text).map(|time| time.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
