//! Data that others made: all built-in roles, and role assignments in every shape met in the wild. The data lies
//! beside the repository, not in it; without it these tests say so and pass.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};

use postern::documents::{Lenience, load, load_texts};
use postern::model::{Documents, Problems, Severity};

/// Where the data is, or `None` and a line that says so.
fn data() -> Option<PathBuf> {
    let path = std::env::var_os("POSTERN_AZURE_DATA").map_or_else(
        || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/azure")).to_path_buf(),
        PathBuf::from,
    );
    if path.join("builtin-roles.json").is_file() {
        return Some(path);
    }
    println!("skipped: no Azure data at {} (set POSTERN_AZURE_DATA)", path.display());
    None
}

fn codes(problems: &Problems, severity: Severity) -> Vec<&'static str> {
    let mut codes: Vec<_> =
        problems.iter().filter(|problem| problem.severity == severity).map(|problem| problem.code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// Those built-in roles that this version takes, as they are written in the catalogue.
fn roles_without_conditions(data: &Path) -> Vec<u8> {
    let text = std::fs::read(data.join("builtin-roles.json")).unwrap();
    let mut roles: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    roles.retain(|role| {
        role["permissions"].as_array().unwrap().iter().all(|block| block["condition"].is_null())
    });
    serde_json::to_vec(&roles).unwrap()
}

#[test]
fn every_built_in_role() {
    let Some(data) = data() else { return };
    let (documents, problems) = load(&data.join("builtin-roles.json"), Lenience::Strict);

    // The conditions of 29 roles are on 31 of their blocks, and nothing else is wrong.
    assert_eq!(codes(&problems, Severity::Error), ["ConditionsNotSupported"]);
    assert_eq!(codes(&problems, Severity::Warning), [""; 0]);
    assert_eq!(problems.count(Severity::Error), 31);
    for problem in &problems {
        assert!(problem.field.starts_with("permissions["), "{problem}");
        assert!(problem.field.ends_with("].condition"), "{problem}");
        assert!(problem.location.as_ref().unwrap().line_text.contains("\"condition\": \""), "{problem}");
    }
    assert_eq!(documents.role_definitions.len(), 928 - 29);
    assert!(documents.role_definitions.iter().all(|role| !role.custom && !role.role_name.value.is_empty()));
}

#[test]
fn the_roles_without_conditions_hold_what_the_catalogue_says() {
    let Some(data) = data() else { return };
    let text = roles_without_conditions(&data);
    let expected: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    let (documents, problems) = load_texts(vec![("roles.json".into(), text)], Lenience::Strict);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!((documents.role_definitions.len(), expected.len()), (899, 899));
    let mut blocks = 0;
    for (role, expected) in documents.role_definitions.iter().zip(&expected) {
        assert_eq!(role.id.value, expected["name"]);
        assert_eq!(role.role_name.value, expected["roleName"]);
        let texts = |value: &serde_json::Value| -> Vec<String> {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        for (block, expected) in role.permissions.iter().zip(expected["permissions"].as_array().unwrap()) {
            blocks += 1;
            for (name, list) in block.lists() {
                let list: Vec<_> = list.iter().map(|action| action.value.clone()).collect();
                assert_eq!(list, texts(&expected[name]), "{} {name}", role.id.value);
            }
        }
        let scopes: Vec<_> = role.assignable_scopes.iter().map(|scope| scope.value.clone()).collect();
        assert_eq!(scopes, texts(&expected["assignableScopes"]));
    }
    assert!(blocks >= 899, "{blocks}");
}

/// Whether a sample is read, and with what.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// So many assignments load without a word.
    Loads(usize),
    /// So many load, and the others are left out with a warning of this code.
    LoadsSome(usize, &'static str),
    /// Errors of these codes and no others, under any leniency.
    Refused(&'static [&'static str]),
    /// No policy file by its extension.
    NotRead,
}

use Outcome::{Loads, LoadsSome, NotRead, Refused};

const UNRESOLVED: Outcome = LoadsSome(0, "UnresolvedTemplateExpression");
const MASKED: Outcome = LoadsSome(0, "InvalidScope");
const CONDITION: Outcome = Refused(&["ConditionsNotSupported"]);
const SCHEDULE: Outcome = Refused(&["SchedulesNotSupported"]);

/// Under [`Lenience::Lenient`], with the built-in roles that have no conditions.
const SHAPES: [(&str, Outcome); 42] = [
    ("arm-template/01-docs-whole-template.json", UNRESOLVED),
    ("arm-template/02-docs-old-nested-type.json", UNRESOLVED),
    ("arm-template/03-docs-scope-in-properties.json", UNRESOLVED),
    ("arm-template/04-brm-copy-scope-abac-delegated-descr.json", UNRESOLVED),
    ("arm-template/05-brm-scope.json", UNRESOLVED),
    ("arm-template/06-brm-scope-if.json", UNRESOLVED),
    ("arm-template/07-brm-plain.json", UNRESOLVED),
    ("arm-template/08-brm-scope-if.json", UNRESOLVED),
    ("arm-template/09-brm-if.json", UNRESOLVED),
    ("arm-template/10-brm-scope.json", UNRESOLVED),
    ("arm-template/11-brm-copy-scope-if.json", UNRESOLVED),
    ("arm-template/12-brm-if-descr.json", UNRESOLVED),
    // Its values are escaped (`[[`), so they are texts, and the condition is one.
    ("arm-template/13-brm-scope-abac-delegated-descr.json", CONDITION),
    ("az-cli/01-docs-flat-candelegate-null.json", Loads(1)),
    ("az-cli/02-docs-create-with-condition.json", CONDITION),
    ("az-cli/03-docs-update-input-with-condition.json", CONDITION),
    ("az-cli/04-list-2025.json", MASKED),
    ("az-cli/05-create-2026-resource-scope.json", Loads(1)),
    ("az-cli/06-create-2018-nested-properties.json", MASKED),
    ("az-cli/07-docs-list-query-projection.json", Refused(&["UnrecognizedDocument"])),
    ("pim/01-assignment-list-2.json", SCHEDULE),
    ("pim/02-assignment-condition.json", SCHEDULE),
    ("pim/03-assignment-custom-role-resource.json", SCHEDULE),
    ("pim/04-eligibility-group.json", SCHEDULE),
    ("pim/05-eligibility-no-end-uppercase.json", SCHEDULE),
    ("pim/06-eligibility-condition-preview.json", SCHEDULE),
    ("pim/07-spec-assignment-activated.json", SCHEDULE),
    ("pim/08-spec-eligibility.json", SCHEDULE),
    ("powershell/01-docs-convertto-json.json", Loads(1)),
    ("powershell/02-docs-set-azroleassignment-input.json", CONDITION),
    ("powershell/03-derived-audit-convertto-json.json", Refused(&["UnrecognizedDocument"])),
    // Format-List text is for people: it wraps values in mid-word and cannot be read back.
    ("powershell/04-format-list-two-items.txt", NotRead),
    ("powershell/05-format-list-condition.txt", NotRead),
    ("powershell/06-format-list-wrapped.txt", NotRead),
    ("powershell/07-format-list-management-group.txt", NotRead),
    ("powershell/08-format-list-resource.txt", NotRead),
    ("rest-list/01-subscription-20-items.json", Loads(20)),
    ("rest-list/02-docs-nulls-placeholders.json", MASKED),
    ("rest-list/03-spec-list-for-scope.json", LoadsSome(0, "RoleDefinitionDoesNotExist")),
    ("rest-list/04-spec-single-resource-scope.json", LoadsSome(0, "RoleDefinitionDoesNotExist")),
    ("rest-list/05-live-put-with-condition.json", CONDITION),
    ("rest-list/06-live-atscope-inherited-from-root.json", Loads(4)),
];

fn load_shape(path: &Path, roles: &[u8], lenience: Lenience) -> (Documents, Problems) {
    let text = std::fs::read(path).unwrap();
    load_texts(vec![("roles.json".into(), roles.to_vec()), ("sample.json".into(), text)], lenience)
}

#[test]
fn every_shape_of_role_assignments() {
    let Some(data) = data() else { return };
    let roles = roles_without_conditions(&data);
    let shapes = data.join("role-assignment-shapes");
    let mut wrong = Vec::new();
    for (name, outcome) in SHAPES {
        let path = shapes.join(name);
        if matches!(outcome, NotRead) {
            let (documents, problems) = load(&path, Lenience::Lenient);
            assert_eq!(codes(&problems, Severity::Error), ["UnsupportedFile"], "{name}");
            assert!(documents.role_assignments.is_empty());
            continue;
        }
        let (documents, problems) = load_shape(&path, &roles, Lenience::Lenient);
        let (errors, warnings) = (codes(&problems, Severity::Error), codes(&problems, Severity::Warning));
        let loaded = documents.role_assignments.len();
        let fits = match outcome {
            Loads(count) => errors.is_empty() && warnings.is_empty() && loaded == count,
            LoadsSome(count, code) => errors.is_empty() && warnings == [code] && loaded == count,
            Refused(codes) => errors == codes,
            NotRead => false,
        };
        if !fits {
            wrong.push(format!("{name}: wanted {outcome:?}, got {loaded} assignments, {problems:#?}"));
        }
        // What a lenient reader tells, a strict one refuses; what loads without a word loads either way.
        let strict = load_shape(&path, &roles, Lenience::Strict).1;
        let expected = if warnings.is_empty() { errors } else { warnings };
        assert_eq!(codes(&strict, Severity::Error), expected, "{name} strictly");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_names_every_file() {
    let Some(data) = data() else { return };
    let mut found = Vec::new();
    for folder in std::fs::read_dir(data.join("role-assignment-shapes")).unwrap() {
        let folder = folder.unwrap();
        if folder.file_type().unwrap().is_dir() {
            for file in std::fs::read_dir(folder.path()).unwrap() {
                let (folder, file) = (folder.file_name(), file.unwrap().file_name());
                found.push(format!("{}/{}", folder.to_string_lossy(), file.to_string_lossy()));
            }
        }
    }
    found.sort();
    assert_eq!(found, SHAPES.map(|(name, _)| name.to_owned()));
}
