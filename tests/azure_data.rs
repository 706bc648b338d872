//! Data that others made: all built-in roles, and role assignments in every shape met in the wild. The data lies
//! beside the repository, not in it; without it these tests say so and pass.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};

use postern::documents::{Lenience, load, load_texts};
use postern::model::{Documents, Problem, Problems, RoleDefinition, Severity};

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

/// What is told, but for the catalogue of roles that samples are loaded with.
fn codes(problems: &Problems, severity: Severity) -> Vec<&'static str> {
    let of_roles =
        |problem: &&Problem| problem.location.as_ref().is_some_and(|location| location.file == "roles.json");
    let mut codes: Vec<_> = problems
        .iter()
        .filter(|problem| problem.severity == severity && !of_roles(problem))
        .map(|problem| problem.code)
        .collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// All built-in roles, as they are written in the catalogue.
fn catalogue(data: &Path) -> Vec<u8> {
    std::fs::read(data.join("builtin-roles.json")).unwrap()
}

#[test]
fn every_built_in_role() {
    let Some(data) = data() else { return };
    let (documents, problems) = load(&data.join("builtin-roles.json"), Lenience::Strict);

    assert_eq!(codes(&problems, Severity::Error), [""; 0]);
    let warnings: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let expected = "builtin-roles.json:13233:25: permissions[0].conditionVersion: this entry of the role grants \
                    nothing: unsupported condition version `1.0` [unsupported_condition_version]; the only version \
                    is `2.0`";
    assert_eq!(warnings, [expected]);
    assert_eq!(documents.role_definitions.len(), 928);
    assert!(documents.role_definitions.iter().all(|role| !role.custom && !role.role_name.value.is_empty()));
    let conditions =
        |role: &RoleDefinition| role.permissions.iter().filter(|block| block.condition.is_some()).count();
    assert_eq!(documents.role_definitions.iter().map(conditions).sum::<usize>(), 31);
    assert_eq!(documents.role_definitions.iter().filter(|role| conditions(role) > 0).count(), 29);
}

#[test]
fn the_roles_hold_what_the_catalogue_says() {
    let Some(data) = data() else { return };
    let text = catalogue(&data);
    let expected: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    let (documents, _) = load_texts(vec![("roles.json".into(), text)], Lenience::Strict);
    assert_eq!((documents.role_definitions.len(), expected.len()), (928, 928));
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
            let condition = block.condition.as_ref();
            let text = condition.map(|condition| condition.text.value.as_str());
            assert_eq!(text, expected["condition"].as_str(), "{}", role.id.value);
            let version = condition.and_then(|condition| condition.version.as_ref());
            let version = version.map(|version| version.value.as_str());
            assert_eq!(version, text.and(expected["conditionVersion"].as_str()), "{}", role.id.value);
        }
        let scopes: Vec<_> = role.assignable_scopes.iter().map(|scope| scope.value.clone()).collect();
        assert_eq!(scopes, texts(&expected["assignableScopes"]));
    }
    assert_eq!(blocks, 946);
}

/// Whether a sample is read, and with what.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// So many assignments load without a word.
    Loads(usize),
    /// So many schedules load without a word.
    Schedules(usize),
    /// So many load, with warnings of these codes.
    Warned(usize, &'static [&'static str]),
    /// So many load, and the others are left out with a warning of this code.
    LoadsSome(usize, &'static str),
    /// Errors of these codes and no others, under any leniency.
    Refused(&'static [&'static str]),
    /// No policy file by its extension.
    NotRead,
}

use Outcome::{Loads, LoadsSome, NotRead, Refused, Schedules, Warned};

const UNRESOLVED: Outcome = LoadsSome(0, "UnresolvedTemplateExpression");
const MASKED: Outcome = LoadsSome(0, "InvalidScope");

/// Under [`Lenience::Lenient`], with all built-in roles.
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
    (
        "arm-template/13-brm-scope-abac-delegated-descr.json",
        Warned(0, &["InvalidScope", "RoleDefinitionDoesNotExist", "syntax", "unsupported_condition_version"]),
    ),
    ("az-cli/01-docs-flat-candelegate-null.json", Loads(1)),
    ("az-cli/02-docs-create-with-condition.json", MASKED),
    ("az-cli/03-docs-update-input-with-condition.json", MASKED),
    ("az-cli/04-list-2025.json", MASKED),
    ("az-cli/05-create-2026-resource-scope.json", Loads(1)),
    ("az-cli/06-create-2018-nested-properties.json", MASKED),
    ("az-cli/07-docs-list-query-projection.json", Refused(&["UnrecognizedDocument"])),
    ("pim/01-assignment-list-2.json", Schedules(2)),
    ("pim/02-assignment-condition.json", Schedules(1)),
    ("pim/03-assignment-custom-role-resource.json", LoadsSome(0, "RoleDefinitionDoesNotExist")),
    ("pim/04-eligibility-group.json", Schedules(1)),
    ("pim/05-eligibility-no-end-uppercase.json", Schedules(2)),
    ("pim/06-eligibility-condition-preview.json", Schedules(1)),
    ("pim/07-spec-assignment-activated.json", Warned(1, &["unsupported_condition_version"])),
    ("pim/08-spec-eligibility.json", Warned(1, &["unsupported_condition_version"])),
    ("powershell/01-docs-convertto-json.json", Loads(1)),
    ("powershell/02-docs-set-azroleassignment-input.json", MASKED),
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
    ("rest-list/05-live-put-with-condition.json", Loads(1)),
    ("rest-list/06-live-atscope-inherited-from-root.json", Loads(4)),
];

fn load_shape(path: &Path, roles: &[u8], lenience: Lenience) -> (Documents, Problems) {
    let text = std::fs::read(path).unwrap();
    load_texts(vec![("roles.json".into(), roles.to_vec()), ("sample.json".into(), text)], lenience)
}

#[test]
fn every_shape_of_role_assignments() {
    let Some(data) = data() else { return };
    let roles = catalogue(&data);
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
            Schedules(count) => {
                errors.is_empty() && warnings.is_empty() && documents.schedules.len() == count
            }
            Warned(count, codes) => {
                errors.is_empty() && warnings == codes && loaded + documents.schedules.len() == count
            }
            Loads(count) => errors.is_empty() && warnings.is_empty() && loaded == count,
            LoadsSome(count, code) => errors.is_empty() && warnings == [code] && loaded == count,
            Refused(codes) => errors == codes,
            NotRead => false,
        };
        if !fits {
            wrong.push(format!(
                "{name}: wanted {outcome:?}, got {loaded} assignments, {} schedules, {:?}",
                documents.schedules.len(),
                problems.iter().map(ToString::to_string).collect::<Vec<_>>()
            ));
        }
        // What a lenient reader tells, a strict one refuses; what loads without a word loads either way.
        let strict = load_shape(&path, &roles, Lenience::Strict).1;
        // What is told of conditions and of eligibilities that are not there is a warning to both.
        let left_out = |code: &&&str| {
            ["UnresolvedTemplateExpression", "InvalidScope", "RoleDefinitionDoesNotExist"].contains(*code)
        };
        let expected: Vec<_> = errors.iter().chain(warnings.iter().filter(left_out)).copied().collect();
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
