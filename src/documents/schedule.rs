//! PIM schedules and their instances, active and eligible: the shapes of REST and PowerShell, and our own (semantics,
//! sections 5.2, 5.5 and 5.6). An eligibility that is taken for an active schedule would grant, so a document whose
//! kind cannot be told, or is told in two ways, is refused.

use ahash::{AHashMap, AHashSet};
use jiff::Timestamp;

use super::check::{self, Known, Name};
use super::document::{Context, Document, wrong_type};
use super::recognize::{self, Is};
use super::tree::{Entry, Kind, Value};
use super::{Lenience, condition, ids, near};
use crate::model::{PrincipalId, Problem, Schedule, ScheduleKind, ScheduleShape, Spanned};
use crate::pim::{IsoDuration, Status};

const DECIDING: [&str; 12] = [
    "principalId",
    "scope",
    "roleDefinitionId",
    "status",
    "startDateTime",
    "endDateTime",
    "scheduleInfo",
    "linkedRoleEligibilityScheduleId",
    "linkedRoleEligibilityScheduleInstanceId",
    "originRoleAssignmentId",
    "assignmentState",
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
const TELLING: [(&str, ScheduleKind, Option<ScheduleShape>); 10] = [
    ("targetRoleAssignmentScheduleId", ScheduleKind::Active, None),
    ("targetRoleEligibilityScheduleId", ScheduleKind::Eligible, None),
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
    match word.trim().to_ascii_lowercase().as_str() {
        "assignment" | "active" => Some(ScheduleKind::Active),
        "eligibility" | "eligible" => Some(ScheduleKind::Eligible),
        _ => None,
    }
}

// === reading ===

/// Reads one and keeps it, unless something of it was reported. `section` is what the section it stands in says.
pub(super) fn read(document: &Document<'_>, section: Option<Told>, context: &mut Context) {
    context.report.document(document.top);
    let told = tell(document, section, context);
    if let Some(schedule) = parse(document, told, context) {
        context.documents.schedules.push(schedule);
    } else if let Some(told) = told {
        leave_out(document, told, context);
    }
}

/// What a lenient reader leaves out grants nothing, but what hangs on it must not stand alone: its name and the role
/// assignment that it governs are kept.
fn leave_out(document: &Document<'_>, told: Told, context: &mut Context) {
    if context.lenience == Lenience::Strict {
        return;
    }
    // What is wrong with these was reported.
    let last = |names: &[&str]| {
        names.iter().find_map(|name| {
            let entry = document.entries().find(|entry| {
                entry.name.eq_ignore_ascii_case(name) && !document.is_expression(entry.value)
            })?;
            let text = entry.value.as_str().filter(|text| !text.is_empty())?;
            Some(Spanned::new(ids::last_segment(text).to_owned(), entry.value.at()))
        })
    };
    context.left_out.push(Schedule {
        at: document.top.at(),
        kind: told.kind,
        shape: told.shape,
        name: last(&["name", "id"]).unwrap_or_default(),
        schedule: match told.kind {
            ScheduleKind::Active => last(&["roleAssignmentScheduleId"]),
            ScheduleKind::Eligible => last(&["roleEligibilityScheduleId"]),
        },
        status: Some(Spanned::new(Status::Failed.to_string(), document.top.at())),
        origin_role_assignment: last(&["originRoleAssignmentId"]),
        ..Schedule::default()
    });
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

fn parse(document: &Document<'_>, told: Option<Told>, context: &mut Context) -> Option<Schedule> {
    document.refuse_near_misses(&DECIDING, context);
    refuse_unread(document, context);
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
        let Some(id) = document.optional_text(names, context)? else { return Ok(None) };
        check::trimmed(&id, context).ok_or(())?;
        Ok(Some(Spanned::new(ids::last_segment(&id.value).to_owned(), id.at)))
    };
    let schedule = match told.map(|told| told.kind) {
        Some(ScheduleKind::Eligible) => name_of(&["roleEligibilityScheduleId"]),
        _ => name_of(&["roleAssignmentScheduleId"]),
    };
    let linked = name_of(&["linkedRoleEligibilityScheduleId"]);
    let linked_instance = name_of(&["linkedRoleEligibilityScheduleInstanceId"]);
    let origin = name_of(&["originRoleAssignmentId"]);
    let (told, place, (start, end)) = (told?, place?, window.ok()?);
    check::trimmed(&place.name, context)?;
    let (linked, linked_instance) = (linked.ok()?, linked_instance.ok()?);
    let (schedule, origin, condition, status) = (schedule.ok()?, origin.ok()?, condition.ok()?, status.ok()?);
    let (role, principal) = (role?, principal?);
    if let (Some(_), Some(instance)) = (&linked, &linked_instance) {
        context.instance_links.push((context.documents.schedules.len(), instance.clone()));
    }
    Some(Schedule {
        at: document.top.at(),
        kind: told.kind,
        shape: told.shape,
        name: place.name,
        schedule,
        scope: place.scope,
        role_definition_id: role,
        principal_id: principal,
        principal_type,
        status,
        start,
        end,
        linked_eligibility: linked.or(linked_instance),
        origin_role_assignment: origin,
        condition,
    })
}

/// Kind and shape, by everything that says something of them.
fn tell(document: &Document<'_>, section: Option<Told>, context: &mut Context) -> Option<Told> {
    let mut evidence: Vec<(String, ScheduleKind, Option<ScheduleShape>)> = Vec::new();
    let text = |name: &str| document.top.get(name).and_then(|value| value.as_str());
    let by_type = text("type").and_then(|name| Told::by_name(ids::last_segment(name)));
    let by_id = text("id").and_then(ids::kind_of).and_then(Told::by_name);
    let mut unknown = by_type.is_none() && refuse_other_type(document, context);
    unknown |= by_id.is_none() && refuse_other_id(document, context);
    if unknown {
        return None;
    }
    for (name, told) in [("the section", section), ("`type`", by_type), ("`id`", by_id)] {
        evidence.extend(told.map(|told| (name.to_owned(), told.kind, Some(told.shape))));
    }
    for name in ["kind", "assignmentState"] {
        let Some(value) = document.find(&[name], context) else { continue };
        let word = document.text_of(value, context)?;
        match kind_by_word(&word.value) {
            Some(kind) => evidence.push((format!("`{name}`"), kind, None)),
            // A document of Azure may have a kind of its own.
            None if name == "kind" && !evidence.is_empty() && !speaks_of_eligibility(&word.value) => {}
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

/// Start and end, written flat or in `scheduleInfo`, in the words of REST or of PowerShell. Where several say
/// something, the narrowest window holds.
fn window(document: &Document<'_>, context: &mut Context) -> Result<Window, ()> {
    let mut starts = Vec::new();
    let Ok(start) = time(document, "startDateTime", context) else {
        // All problems at once.
        return time(document, "endDateTime", context).and(Err(()));
    };
    starts.extend(start);
    starts.extend(time(document, "scheduleInfoStartDateTime", context)?);
    let mut levels = vec![(*document, ["", "endDateTime", "duration"])];
    levels.push((*document, ["expirationType", "expirationEndDateTime", "expirationDuration"]));
    let flat = ["type", "endDateTime", "duration"];
    let mut holders = vec![*document];
    if let Some(info) = document.find(&["scheduleInfo"], context) {
        let info = Document::part(info, document.origin, context).ok_or(())?;
        refuse_others(&info, &["startDateTime", "expiration", "type", "endDateTime", "duration"], context)?;
        starts.extend(time(&info, "startDateTime", context)?);
        levels.push((info, flat));
        holders.push(info);
    }
    for holder in holders {
        if let Some(expiration) = holder.find(&["expiration"], context) {
            let expiration = Document::part(expiration, document.origin, context).ok_or(())?;
            refuse_others(&expiration, &flat, context)?;
            levels.push((expiration, flat));
        }
    }
    let first = starts.iter().map(|start| start.value).min();
    let mut ends = Vec::new();
    for (level, names) in &levels {
        ends.extend(expires(level, names, first, context)?);
    }
    let start = starts.into_iter().max_by_key(|start| start.value);
    Ok((start, ends.into_iter().min_by_key(|end| end.value)))
}

/// Every end that one expiration gives (semantics, section 5.4), by the names of its type, end and duration. What the
/// type asks for must be there; what else is there narrows it.
fn expires(
    expiration: &Document<'_>,
    [type_name, end_name, duration_name]: &[&str; 3],
    start: Option<Timestamp>,
    context: &mut Context,
) -> Result<Vec<Spanned<Timestamp>>, ()> {
    let end = time(expiration, end_name, context)?;
    let duration = expiration.optional_text(&[*duration_name], context)?;
    if let Some(value) = expiration.find(&[*type_name], context) {
        let word = expiration.text_of(value, context).ok_or(())?;
        let is = |known: &str| word.value.eq_ignore_ascii_case(known);
        let missing = match () {
            () if is("AfterDateTime") => end.is_none().then_some(*end_name),
            () if is("AfterDuration") => duration.is_none().then_some(*duration_name),
            () if is("NoExpiration") => None,
            () => {
                context.report.value(
                    value,
                    Problem::error("InvalidSchedule", format!("`{}` is no type of expiration", word.value))
                        .help("wanted `AfterDuration`, `AfterDateTime` or `NoExpiration`"),
                );
                return Err(());
            }
        };
        if let Some(missing) = missing {
            expiration.missing(&[missing], context);
            return Err(());
        }
    }
    let mut ends = Vec::from_iter(end);
    let Some(duration) = duration else { return Ok(ends) };
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
    ends.extend(length.after(start).map(|end| Spanned::new(end, duration.at)));
    Ok(ends)
}

/// What a window is written in, at the top of a schedule.
const OF_A_WINDOW: [&str; 9] = [
    "startDateTime",
    "endDateTime",
    "scheduleInfo",
    "scheduleInfoStartDateTime",
    "expiration",
    "duration",
    "expirationType",
    "expirationEndDateTime",
    "expirationDuration",
];

/// A start, an end or a link that is not understood would be lost, and the schedule would grant for longer.
fn refuse_unread(document: &Document<'_>, context: &mut Context) {
    let known = ["linkedRoleEligibilityScheduleId", "linkedRoleEligibilityScheduleInstanceId"];
    for entry in document.entries() {
        let is = |names: &[&str]| names.iter().any(|name| entry.name.eq_ignore_ascii_case(name));
        let told = DECIDING.iter().any(|name| near::is_near(entry.name, name));
        if entry.value.is_null() || told || near::is_known(entry.name) || is(&OF_A_WINDOW) || is(&known) {
            continue;
        }
        let name = folded(entry.name);
        let contains = ["end", "expir", "duration", "until", "validto"];
        let begins = ["start", "scheduleinfo", "linked"];
        if contains.iter().any(|word| name.contains(word)) || begins.iter().any(|word| name.starts_with(word))
        {
            unread(
                entry,
                "a schedule has its window in `startDateTime` and `endDateTime` or in `scheduleInfo`, and \
                 the link of an activation in `linkedRoleEligibilityScheduleId`",
                context,
            );
        }
    }
}

/// Only these may stand here, and what is null says nothing.
fn refuse_others(part: &Document<'_>, known: &[&str], context: &mut Context) -> Result<(), ()> {
    let mut result = Ok(());
    for entry in part.entries() {
        let is = |name: &&str| entry.name.eq_ignore_ascii_case(name);
        if entry.value.is_null() || known.iter().any(is) || is(&"@odata.type") {
            continue;
        }
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        unread(entry, &format!("wanted {}", known.join(", ")), context);
        result = Err(());
    }
    result
}

fn unread(entry: Entry<'_>, help: &str, context: &mut Context) {
    context.report.at(
        entry.key.at(),
        Problem::error("UnknownProperty", format!("`{}` is no property", entry.name))
            .value(entry.name)
            .help(help),
    );
}

/// Without what sets words apart in other spellings.
pub(super) fn folded(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// A word that speaks of eligibilities.
pub(super) fn speaks_of_eligibility(text: &str) -> bool {
    text.to_ascii_lowercase().contains("eligib")
}

/// A `type` that is not one of a schedule. That of role assignments is: PIM's own tools write it.
fn refuse_other_type(document: &Document<'_>, context: &mut Context) -> bool {
    let Some(value) = document.top.get("type").filter(|value| !value.is_null()) else { return false };
    let Some(text) = value.as_str() else {
        wrong_type(value, "a string", context);
        return true;
    };
    if text.is_empty() || recognize::by_type(text) == Some(Is::RoleAssignment) {
        return false;
    }
    context.report.value(
        value,
        Problem::error("ContradictoryKind", format!("`{text}` is no type of schedule")).help(
            "wanted `Microsoft.Authorization/roleAssignmentSchedules`, `…/roleEligibilitySchedules` or an instance \
             of one",
        ),
    );
    true
}

/// An `id` of something that is no schedule.
fn refuse_other_id(document: &Document<'_>, context: &mut Context) -> bool {
    let Some(value) = document.top.get("id") else { return false };
    let Some(text) = value.as_str() else { return false };
    let other = ids::kind_of(text).filter(|kind| !kind.eq_ignore_ascii_case("roleAssignments"));
    let Some(other) = other.or_else(|| ids::pim_segment(text)) else { return false };
    context.report.value(
        value,
        Problem::error(
            "ContradictoryKind",
            format!("the id is of `{other}`, and that is no kind of schedule"),
        )
        .help("wanted `roleAssignmentSchedules`, `roleEligibilitySchedules` or an instance of one"),
    );
    true
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
    instance_links(context);
    let Context { lenience, report, documents, refused_roles, left_out, .. } = context;
    let known = Known::new(&documents.role_definitions, refused_roles, *lenience);
    let all = &documents.schedules;
    // Those that are there twice, and those that cannot grant.
    let mut twice = vec![false; all.len()];
    let mut failed = vec![false; all.len()];
    let mut by_name: AHashMap<(ScheduleKind, ScheduleShape, Name<'_>), &Schedule> =
        AHashMap::with_capacity(all.len());
    for ((schedule, twice), failed) in all.iter().zip(&mut twice).zip(&mut failed) {
        let key = (schedule.kind, schedule.shape, Name(&schedule.name.value));
        if let Some(first) = by_name.get(&key) {
            *twice = true;
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
        *failed |= !known.scope(&schedule.scope, report);
        *failed |=
            !known.role(&schedule.role_definition_id, "without it the schedule grants nothing", report);
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
    left_out.retain(|schedule| {
        !schedule.name.value.is_empty()
            && !by_name.contains_key(&(schedule.kind, schedule.shape, Name(&schedule.name.value)))
            || schedule.origin_role_assignment.is_some()
    });
    let eligible = eligible(all.iter().chain(left_out.iter()));
    for (schedule, _) in all.iter().zip(&failed).filter(|(_, failed)| !**failed) {
        if let Some(linked) = &schedule.linked_eligibility
            && schedule.kind == ScheduleKind::Active
            && schedule.is_provisioned()
            && !eligible.contains(&key(&linked.value))
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
    // One that grants nothing still ends what hangs on it: the activations of an eligibility, and the role assignment
    // that an active schedule governs.
    for (schedule, _) in documents.schedules.iter_mut().zip(&failed).filter(|(_, failed)| **failed) {
        schedule.status = Some(Spanned::new(Status::Failed.to_string(), schedule.at));
    }
    check::take_out(&mut documents.schedules, &twice);
    documents.schedules.append(left_out);
}

/// An activation may name the schedule and the instance of its eligibility: the one that is in the documents counts.
fn instance_links(context: &mut Context) {
    let Context { documents, instance_links, left_out, .. } = context;
    let eligible = eligible(documents.schedules.iter().chain(left_out.iter()));
    for (index, instance) in instance_links.drain(..) {
        if let Some(schedule) = documents.schedules.get_mut(index)
            && let Some(linked) = &mut schedule.linked_eligibility
            && !eligible.contains(&key(&linked.value))
            && eligible.contains(&key(&instance.value))
        {
            *linked = instance;
        }
    }
}

/// What links to eligibilities may say.
fn eligible<'a>(schedules: impl Iterator<Item = &'a Schedule>) -> AHashSet<String> {
    let eligible = schedules.filter(|schedule| schedule.kind == ScheduleKind::Eligible);
    let names = eligible.flat_map(|schedule| std::iter::once(&schedule.name).chain(&schedule.schedule));
    names.map(|name| key(&name.value)).collect()
}

/// Names refer to each other in any letter case and any spelling of a GUID.
fn key(name: &str) -> String {
    PrincipalId::new(name).to_string().to_ascii_lowercase()
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
