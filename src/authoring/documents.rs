//! Every document of a policy directory, judged as if it were written now, one after the other.

use std::collections::HashSet;

use super::existing::{Holder, folded_id};
use super::{Existing, Finding, Findings, Hierarchy, Judge, Origin};
use crate::model::{At, Documents, Location, Problem, Problems, RoleDefinition, Severity};

/// More than anybody reads; a bound for exports in which every document has the same fault.
const MOST: usize = 10_000;

/// What is told when the tenant as a whole has too many: once is enough.
const LIMITS: [&str; 2] = ["RoleAssignmentLimitExceeded", "RoleDefinitionLimitExceeded"];

impl Judge<'_> {
    /// Judges all documents: role definitions, then role assignments, deny assignments and schedules, each in
    /// the order it was read, each against those before it. What is refused counts as written for those behind,
    /// so that one mistake is told once.
    ///
    /// Built-in roles are taken as they are, and deny assignments as Azure's: a directory holds exports, and
    /// the engine evaluates every deny assignment it is given (section 1.3). Schedules that are over are not
    /// judged, nor instances of a schedule that is.
    ///
    /// `told` is what reading the documents told. The result holds it too, each fault once: what a reader
    /// refused is not refused again, and what it only warned of is told as the error that it is to an author.
    pub fn judge_all(&self, documents: &Documents, told: &Problems) -> Problems {
        let mut found: Vec<Finding> = Vec::new();
        let mut more = 0_usize;
        self.findings(documents, &mut |finding| {
            if found.len() < MOST {
                found.push(finding);
            } else if finding.problem.severity == Severity::Error {
                more = more.saturating_add(1);
            }
        });
        let mut problems = united(&found, documents, told);
        if more > 0 {
            let message = format!("{more} more errors are not listed");
            problems.push(Problem::error("TooManyProblems", message));
        }
        problems.sort();
        problems
    }

    fn findings(&self, documents: &Documents, tell: &mut dyn FnMut(Finding)) {
        let mut existing = Existing::new(Hierarchy::of(documents));
        let mut full: HashSet<(&'static str, Option<Holder>)> = HashSet::new();
        let mut tell = |findings: Findings, holder: Option<Holder>| {
            for finding in findings {
                let code = finding.problem.code;
                if !LIMITS.contains(&code) || full.insert((code, holder.clone())) {
                    tell(finding);
                }
            }
        };
        for role in &documents.role_definitions {
            if !RoleDefinition::is_built_in(role) {
                match self.put_role_definition(&existing, role) {
                    Ok(written) => tell(written.warnings, None),
                    Err(findings) => tell(findings, None),
                }
            }
            existing.insert_role_definition(role.clone());
        }
        for assignment in &documents.role_assignments {
            let holder = Holder::of(&assignment.scope.value);
            match self.put_role_assignment(&existing, assignment) {
                Ok(written) => tell(written.warnings, holder),
                Err(findings) => {
                    // A second one under a name would take the place of the first, and then seem to be it.
                    let taken = findings
                        .iter()
                        .any(|finding| finding.problem.code == "RoleAssignmentUpdateNotPermitted");
                    tell(findings, holder);
                    if taken {
                        continue;
                    }
                }
            }
            existing.insert_role_assignment(assignment.clone());
        }
        for deny in &documents.deny_assignments {
            match self.put_deny_assignment(&existing, deny, Origin::Azure) {
                Ok(written) => tell(written.warnings, None),
                Err(findings) => tell(findings, None),
            }
            existing.insert_deny_assignment(deny);
        }
        let schedules: HashSet<String> =
            documents.schedules.iter().map(|schedule| folded_id(&schedule.name.value)).collect();
        for schedule in &documents.schedules {
            let of_another =
                schedule.schedule.as_ref().is_some_and(|of| schedules.contains(&folded_id(&of.value)));
            if schedule.is_provisioned() && !of_another {
                match self.put_schedule(&existing, schedule) {
                    Ok(findings) | Err(findings) => tell(findings, None),
                }
            }
        }
    }
}

/// A place as people count it: file, line, column.
type Point<'a> = (&'a str, usize, usize);

fn point(location: &Location) -> Point<'_> {
    (&location.file, location.line, location.column)
}

/// What the readers told and what the judge found, each fault once.
fn united(found: &[Finding], documents: &Documents, told: &Problems) -> Problems {
    let locator = documents.locator();
    let locate =
        |place: &dyn Fn(&Finding) -> At| locator.locate_all(&found.iter().map(place).collect::<Vec<_>>());
    let places = locate(&|finding| finding.place(&locator));
    let starts = locate(&|finding| finding.at);
    let ends = locate(&|finding| At { start: finding.at.end, ..finding.at });

    // Sorted, to be searched: what the readers told, by place.
    let mut by_place: Vec<(Point<'_>, &Problem)> =
        told.iter().filter_map(|problem| Some((point(problem.location.as_ref()?), problem))).collect();
    by_place.sort_by_key(|(point, _)| *point);
    let within = |start: Point<'_>, end: Point<'_>| {
        let first = by_place.partition_point(|(point, _)| *point < start);
        let behind = by_place.partition_point(|(point, _)| *point <= end).max(first);
        by_place.get(first..behind).unwrap_or_default()
    };

    let mut problems = Problems::new();
    let mut milder: HashSet<*const Problem> = HashSet::new();
    for (((finding, place), start), end) in found.iter().zip(&places).zip(&starts).zip(&ends) {
        let Problem { code, severity, .. } = finding.problem;
        let (Some(place), Some(start), Some(end)) = (place, start, end) else {
            problems.push(finding.problem.clone());
            continue;
        };
        let inside = within(point(start), point(end));
        let is_told = inside.iter().any(|(at, problem)| {
            problem.severity == Severity::Error && (*at == point(place) || problem.code == code)
        });
        if is_told {
            continue;
        }
        // Whatever else is said of a condition is the same fault, seen from where it does no harm.
        let condition = finding.problem.field.ends_with("condition")
            || finding.problem.field.ends_with("conditionVersion");
        let warnings = inside.iter().filter(|(at, problem)| {
            problem.severity == Severity::Warning
                && (condition || *at == point(place) && problem.code == code)
        });
        if severity == Severity::Error || condition {
            milder.extend(warnings.map(|(_, problem)| std::ptr::from_ref::<Problem>(problem)));
        }
        problems.push(finding.problem.clone().at(Some(place.clone())));
    }
    for problem in told {
        if !milder.contains(&std::ptr::from_ref(problem)) {
            problems.push(problem.clone());
        }
    }
    problems
}
