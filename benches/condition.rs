//! What a condition costs in a decision: programs as they lie in a compiled policy, attributes as a request gives
//! them, evaluated in place.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use divan::{Bencher, black_box};
use postern::condition::{Budget, Context, Extensions, Mode, Truth, compile, evaluate, parse};
use postern::model::{Attributes, NoAttributes, Wildcards};
use serde_json::json;

const BLOB_READ: &str = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read";

/// Read blobs with a tag value, but list all (the seed's condition): guard, suboperation, one dictionary key.
const TAG: &str = "((!(ActionMatches{'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'} AND \
     NOT SubOperationMatches{'Blob.List'})) OR \
     (@Resource[Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags:Project<$key_case_sensitive$>] \
     StringEqualsIgnoreCase 'Cascade'))";

/// The same over container name, tag and path.
const TAG_NAME_AND_PATH: &str = "((!(ActionMatches{'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'} AND \
     NOT SubOperationMatches{'Blob.List'})) OR \
     (@Resource[Microsoft.Storage/storageAccounts/blobServices/containers:name] StringEquals 'contosocontainer' AND \
     @Resource[Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags:Project<$key_case_sensitive$>] \
     ForAnyOfAnyValues:StringEquals {'Baker', 'Cascade', 'Skagit'} AND \
     @Resource[Microsoft.Storage/storageAccounts/blobServices/containers/blobs:path] StringLike 'logs/*.txt'))";

/// Eight roles that may be assigned and removed (Key Vault Data Access Administrator).
const ROLES: &str = "((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR \
     (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals{\
     00482a5a-887f-4fb3-b363-3b7fe8e74483, a4417e6f-fecd-4de8-b567-7b0420556985, \
     14b46e9e-c2b7-41b4-b07b-48a6ebf60603, e147488a-f6f5-4113-8e2d-b22465e65bf6, \
     12338af0-0e69-4776-bea7-57ae8d297424, 21090545-7ca7-4776-b22c-e363652d74d2, \
     b86a8fe4-44ce-4948-aee5-eccb2c155cd7, 4633458b-17de-408a-b874-0445c86b69e6})) AND \
     (!(ActionMatches{'Microsoft.Authorization/roleAssignments/delete'}))";

fn main() {
    divan::main();
}

fn program(text: &str) -> Vec<u8> {
    let condition = parse(text, Mode::Author, Extensions::default()).condition.unwrap();
    compile(&condition, Wildcards::Collapse).into_bytes()
}

fn blob() -> Attributes {
    Attributes::from_json(&json!({
        "Microsoft.Storage/storageAccounts:name": "contosostorage",
        "Microsoft.Storage/storageAccounts:isHnsEnabled": false,
        "Microsoft.Storage/storageAccounts/blobServices/containers:name": "contosocontainer",
        "Microsoft.Storage/storageAccounts/blobServices/containers/blobs:path": "logs/2026/01/x.txt",
        "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags":
            {"Owner": "ada", "Project": "cascade", "Sensitivity": "low"},
    }))
}

fn run(bencher: Bencher<'_, '_>, text: &str, action: &str, bag: &Attributes, expected: Truth) {
    let program = program(text);
    let context = Context {
        action,
        sub_operation: None,
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
        request: bag,
        resource: bag,
        principal: &NoAttributes,
        environment: &NoAttributes,
    };
    assert_eq!(evaluate(&program, &context, &mut Budget::default()), Ok(expected));
    bencher.bench(|| evaluate(black_box(&program), black_box(&context), &mut Budget::default()));
}

/// The figure of issue 3: under 300 ns.
#[divan::bench]
fn blob_with_tag(bencher: Bencher<'_, '_>) {
    run(bencher, TAG, BLOB_READ, &blob(), Truth::True);
}

#[divan::bench]
fn blob_with_tag_name_and_path(bencher: Bencher<'_, '_>) {
    let mut bag = blob();
    let tags = postern::model::OwnedValue::from_json(&json!({"Owner": "ada", "Project": "Cascade"}));
    bag.insert("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags", tags);
    run(bencher, TAG_NAME_AND_PATH, BLOB_READ, &bag, Truth::True);
}

#[divan::bench]
fn untargeted_action(bencher: Bencher<'_, '_>) {
    run(bencher, TAG, "Microsoft.Storage/storageAccounts/read", &blob(), Truth::True);
}

#[divan::bench]
fn one_of_eight_roles(bencher: Bencher<'_, '_>) {
    let bag = Attributes::from_json(&json!({
        "Microsoft.Authorization/roleAssignments:RoleDefinitionId": "4633458b-17de-408a-b874-0445c86b69e6",
        "Microsoft.Authorization/roleAssignments:PrincipalId": "11111111-1111-1111-1111-111111111111",
        "Microsoft.Authorization/roleAssignments:PrincipalType": "User",
    }));
    run(bencher, ROLES, "Microsoft.Authorization/roleAssignments/write", &bag, Truth::True);
}

#[divan::bench(args = ["tag", "tag, name and path", "roles"])]
fn parse_and_compile(bencher: Bencher<'_, '_>, name: &str) {
    let text = match name {
        "tag" => TAG,
        "roles" => ROLES,
        _ => TAG_NAME_AND_PATH,
    };
    bencher.bench(|| program(black_box(text)));
}
