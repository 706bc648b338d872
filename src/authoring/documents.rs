//! Every document of a policy directory, judged as if it were written now, one after the other.

use super::{
    DenyAssignmentBody, Existing, Findings, Hierarchy, Judge, Origin, RoleAssignmentBody, RoleDefinitionBody,
};
use crate::model::{Documents, Problems};

impl Judge<'_> {
    /// Judges all documents: role definitions, then role assignments, then deny assignments, each in the
    /// order it was read, each against those before it. What is refused counts as written for those behind,
    /// so that one mistake is told once.
    ///
    /// Built-in roles are taken as they are, and deny assignments as Azure's: a directory holds exports, and
    /// the engine evaluates every deny assignment it is given (section 1.3).
    pub fn judge_all(&self, documents: &Documents) -> Problems {
        let judge = Judge { deny_origin: Origin::Azure, ..*self };
        let mut existing = Existing::new(Hierarchy::of(documents));
        let mut problems = Problems::new();
        let locator = documents.locator();
        let mut tell = |findings: Findings| {
            for (at, problem) in findings {
                problems.push(problem.at(locator.locate(at)));
            }
        };
        for document in &documents.role_definitions {
            let body = RoleDefinitionBody::from(document);
            if !body.built_in
                && let Err(findings) = judge.put_role_definition(&existing, &body)
            {
                tell(findings);
            }
            existing.insert_role_definition(body);
        }
        for document in &documents.role_assignments {
            let body = RoleAssignmentBody::from(document);
            match judge.put_role_assignment(&existing, &body) {
                Ok(written) => tell(written.warnings),
                Err(findings) => {
                    // A second one under a name would take the place of the first, and then seem to be it.
                    let taken = findings
                        .iter()
                        .any(|(_, problem)| problem.code == "RoleAssignmentUpdateNotPermitted");
                    tell(findings);
                    if taken {
                        continue;
                    }
                }
            }
            existing.insert_role_assignment(body);
        }
        for document in &documents.deny_assignments {
            let body = DenyAssignmentBody::from(document);
            if let Err(findings) = judge.put_deny_assignment(&existing, &body) {
                tell(findings);
            }
            existing.insert_deny_assignment(&body);
        }
        problems.sort();
        problems
    }
}
