//! What is wrong with a condition and where; what is in a program; the extension; explanations.
#![allow(clippy::string_slice, reason = "a span that splits a character must fail the test")]

use serde_json::json;

use super::*;
use crate::model::{Attributes, NoAttributes, OwnedValue, Severity, Wildcards};

const OFF: Extensions = Extensions { enabled: false };
const ON: Extensions = Extensions { enabled: true };

/// Each diagnostic as `code: text under the caret`.
fn mistakes(text: &str) -> Vec<String> {
    let parsed = parse(text, Mode::Author, OFF);
    assert_eq!(parsed.condition.is_none(), !parsed.diagnostics.is_empty(), "{text}");
    let show = |d: Diagnostic| {
        assert!(!d.message.ends_with('.') && d.message.starts_with(|c: char| !c.is_uppercase()), "{d:?}");
        format!("{}: {}", d.code, &text[d.span])
    };
    parsed.diagnostics.into_iter().map(show).collect()
}

fn only(text: &str) -> Diagnostic {
    let mut diagnostics = parse(text, Mode::Author, OFF).diagnostics;
    assert_eq!(diagnostics.len(), 1, "{text}: {diagnostics:#?}");
    diagnostics.remove(0)
}

fn condition(text: &str) -> ast::Condition {
    let parsed = parse(text, Mode::Load, ON);
    parsed.condition.unwrap_or_else(|| panic!("{text}: {:#?}", parsed.diagnostics))
}

fn program(text: &str) -> Program {
    compile(&condition(text), Wildcards::Collapse)
}

/// The value with these resource attributes at noon of 2026-01-01.
fn value(text: &str, resource: &serde_json::Value) -> Truth {
    verdict(text, resource).truth
}

fn verdict(text: &str, resource: &serde_json::Value) -> Verdict {
    let resource = Attributes::from_json(resource);
    evaluate_until(program(text).as_bytes(), &context(&resource), &mut Budget::default()).unwrap()
}

fn context(resource: &Attributes) -> Context<'_> {
    Context {
        action: "A.B/c/read",
        sub_operation: Some("Blob.List"),
        now: "2026-01-01T12:00:00.00000005Z".parse().unwrap(),
        request: &NoAttributes,
        resource,
        principal: &NoAttributes,
        environment: &NoAttributes,
    }
}

// === diagnostics ===

#[test]
fn mistakes_are_told_at_their_place() {
    for (text, expected) in [
        ("", &["syntax: "][..]),
        (" \n", &["syntax: "]),
        ("@Resource[a] StringEquals", &["syntax: s"]),
        ("@Resource[a] StringEquals 'x' AND", &["syntax: D"]),
        ("OR @Resource[a] StringEquals 'x'", &["syntax: OR"]),
        ("@Resource[a]", &["syntax: ]"]),
        ("StringEquals 'x'", &["syntax: StringEquals"]),
        ("@Resource[a] == 'x'", &["unknown_operator: =="]),
        ("@Resource[a] != 'x'", &["unknown_operator: !="]),
        ("@Resource[a] StringEquals \"x\"", &["syntax: \""]),
        ("@Resource[a] StringEquals 'x' & @Resource[b] StringEquals 'y'", &["syntax: &"]),
        ("@Resource[a] StringEquals 'x' @Resource[b] StringEquals 'y'", &["syntax: @Resource[b]"]),
        ("()", &["syntax: )"]),
        ("@Resource[a] StringEquals 'x')", &["unbalanced_parentheses: )"]),
        ("((@Resource[a] StringEquals 'x')", &["unbalanced_parentheses: ("]),
        ("@ [a] StringEquals 'x'", &["unknown_attribute_source: @"]),
        ("@Context[a] StringEquals 'x'", &["unknown_attribute_source: @Context"]),
        ("@Resource [a] StringEquals 'x'", &["syntax: @Resource"]),
        ("@Resource[] StringEquals 'x'", &["invalid_attribute: []"]),
        ("@Resource[:a] StringEquals 'x'", &["invalid_attribute: :a"]),
        (
            "@Resource[a/tags<$key_case_sensitive$>] StringEquals 'x'",
            &["invalid_attribute: a/tags<$key_case_sensitive$>"],
        ),
        ("@Resource[a/tags&$&] StringEquals 'x'", &["invalid_attribute: a/tags&$&"]),
        ("@Resource[a StringEquals 'x' AND @Request[b] StringEquals 'y'", &["syntax: @Resource["]),
        ("@Resource[a StringEquals 'x'", &["syntax: @Resource["]),
        ("Resource[a] StringEquals 'x'", &["syntax: Resource"]),
        ("(@Resource[a] StringEquals 'x)", &["syntax: 'x)"]),
        ("@Resource[a] StringEquals 'x\ty'", &["syntax: \t"]),
        ("@Resource[a] StringEquals\u{A0}'x'", &["syntax: \u{A0}"]),
        ("@Resource[a\u{200B}] StringEquals 'x'", &["syntax: \u{200B}"]),
        ("Exists 'x'", &["exists_needs_attribute: 'x'"]),
        ("ActionMatches('x')", &["syntax: ("]),
        ("ActionMatches{}", &["expected_single_string: }"]),
        ("ActionMatches{'a', 'b'}", &["expected_single_string: ,"]),
        ("ActoinMatches{'a'}", &["unknown_operator: ActoinMatches"]),
        ("ToLower(@Resource[a]) StringEquals 'x'", &["unknown_operator: ToLower"]),
        ("@Resource[a] StringMatches 'x.*'", &["unknown_operator: StringMatches"]),
        ("@Resource[a] ForAnyOfAnyValues {'x'}", &["syntax: ForAnyOfAnyValues"]),
        ("@Resource[a] ForAnyOfAnyValues: {'x'}", &["syntax: {"]),
        ("@Resource[a] StringEquals {'x', @Resource[b]}", &["syntax: @Resource[b]"]),
        ("@Resource[a] StringEquals {'x' 'y'}", &["syntax: 'y'"]),
        ("@Resource[a] StringEquals {}", &["empty_list: {}"]),
        ("@Resource[a] StringEquals 5", &["string_must_be_quoted: 5"]),
        ("@Resource[a] NumericEquals '5'", &["number_literal_required: '5'"]),
        ("@Resource[a] NumericEquals five", &["number_literal_required: five"]),
        ("@Resource[a] NumericEquals 5.0", &["integers_only: 5.0"]),
        ("@Resource[a] NumericEquals 5e3", &["integers_only: 5e3"]),
        ("@Resource[a] NumericEquals 9223372036854775808", &["invalid_attribute_value: 9223372036854775808"]),
        ("@Resource[a] BoolEquals 'true'", &["invalid_attribute_value: 'true'"]),
        (
            "@Resource[a] GuidEquals '{08d4c71a-cc63-4ce4-a9c8-5dd251b4d619}'",
            &["invalid_attribute_value: '{08d4c71a-cc63-4ce4-a9c8-5dd251b4d619}'"],
        ),
        ("@Resource[a] DateTimeEquals '2024-01-01'", &["invalid_attribute_value: '2024-01-01'"]),
        (
            "@Resource[a] ForAnyOfAnyValues:NumericEquals {1, 'b', 2.5}",
            &["number_literal_required: 'b'", "integers_only: 2.5"],
        ),
        ("@Resource[a] StringEquals 'a' ; DROP", &["syntax: ;"]),
    ] {
        assert_eq!(mistakes(text), expected, "{text}");
    }
}

#[test]
fn several_mistakes_in_one_pass() {
    let text = "(@Resource[a] StringEqual 'x' AND @Subject[b] StringEquals 'y') OR \
                (NOT @Resource[c] NumericEquals '5' AND (ActionMatches{'a', 'b'} || !Exists 5)) AND true";
    assert_eq!(
        mistakes(text),
        [
            "unknown_operator: StringEqual",
            "unknown_attribute_source: @Subject",
            "number_literal_required: '5'",
            "expected_single_string: ,",
            "exists_needs_attribute: 5",
            "ambiguous_precedence: AND",
            "syntax: e",
        ]
    );
}

#[test]
fn help_says_what_is_meant() {
    for (text, expected) in [
        ("@Resource[a] StringEqual 'x'", "`StringEquals` may be meant"),
        ("@Resource[a] ForAnyofAnyValue:StringEquals {'x'}", "`ForAnyOfAnyValues` may be meant"),
        ("@Resourse[a] StringEquals 'x'", "`@Resource` may be meant"),
        ("@Resource[a] StringContains 'x'", "the setting `condition_extensions` turns it on"),
        ("NotExists @Resource[a]", "write `NOT Exists`"),
        ("@Resource[a] StringEquals x", "write `'x'`"),
        ("@Resource[a] NumericEquals '5'", "write `5` without quotes"),
        ("@Resource[a] StringEquals {'x', 'y'}", "write `ForAnyOfAnyValues:StringEquals` for \"one of\""),
        ("SubOperationMatch{'x'}", "`SubOperationMatches` may be meant"),
        ("Resource[a] StringEquals 'x'", "an attribute begins with `@`: `@Resource[…]`"),
    ] {
        assert_eq!(only(text).help.as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn author_and_load() {
    let mix = "Exists @Resource[a] AND Exists @Resource[b] OR Exists @Resource[c]";
    assert_eq!(only(mix).severity, Severity::Error);
    let loaded = parse(mix, Mode::Load, OFF);
    assert_eq!(loaded.diagnostics.len(), 1);
    assert_eq!(loaded.diagnostics[0].severity, Severity::Warning);
    assert_eq!(
        loaded.condition.unwrap().to_string(),
        "(Exists @Resource[a] AND Exists @Resource[b]) OR Exists @Resource[c]"
    );
    let inner = "Exists @Resource[a] || (Exists @Resource[b] && Exists @Resource[c])";
    assert_eq!(mistakes(inner), [""; 0]);
    for text in ["", " \t\r\n"] {
        assert_eq!(parse(text, Mode::Load, OFF), Parsed { condition: None, diagnostics: Vec::new() });
        assert_eq!(only(text).code, "syntax");
    }
    assert!(parse("\u{A0}", Mode::Load, OFF).condition.is_none());
    assert!(!parse("\u{A0}", Mode::Load, OFF).diagnostics.is_empty(), "no white space of the language");
}

#[test]
fn limits() {
    let clause = "Exists @Resource[a]";
    let deep = |count: usize| format!("{}{clause}{}", "(".repeat(count), ")".repeat(count));
    assert!(parse(&deep(256), Mode::Author, OFF).condition.is_some());
    assert_eq!(only(&deep(257)).code, "nesting_too_deep");
    let nots = |count: usize| format!("{}{clause}", "!".repeat(count));
    assert!(parse(&nots(256), Mode::Author, OFF).condition.is_some());
    assert_eq!(only(&nots(257)).code, "nesting_too_deep");
    // Depth, not number, counts.
    let many = vec![format!("!({clause})"); 300].join(" OR ");
    assert!(parse(&many, Mode::Author, OFF).condition.is_some());
    assert_eq!(only(&"(".repeat(8_000)).code, "nesting_too_deep");

    let long = |length: usize| format!("@Resource[a] StringEquals '{}'", "é".repeat((length - 28) / 2));
    assert_eq!(long(8_192).len(), 8_192);
    assert!(parse(&long(8_192), Mode::Author, OFF).condition.is_some());
    assert_eq!(only(&long(8_194)).code, "condition_too_long");

    for version in [None, Some(""), Some("2.0")] {
        assert_eq!(check_version(version), Ok(()));
    }
    for version in ["1.0", "2", "2.0 ", "3.0"] {
        assert_eq!(check_version(Some(version)).unwrap_err().code, "unsupported_condition_version");
    }
}

/// As deep as a text can nest, groups and negations in turn, on a stack far smaller than any thread's.
#[test]
fn the_deepest_text_needs_little_stack() {
    let mut text = String::from("Exists@Request[a]");
    for depth in 0..128 {
        let join = if depth % 2 == 0 { "AND" } else { "OR" };
        text = format!("Exists@Request[b] {join} !({text})");
    }
    let run = move || {
        let condition = condition(&text);
        let program = compile(&condition, Wildcards::Collapse);
        let attributes = Attributes::new();
        let context = context(&attributes);
        let truth = evaluate(program.as_bytes(), &context, &mut Budget::default()).unwrap();
        let explained = explain(&condition, Wildcards::Collapse, &context, &mut Budget::default()).unwrap();
        assert_eq!(truth, explained.truth);
        assert_eq!(parse(&condition.to_string(), Mode::Author, OFF).diagnostics, []);
    };
    std::thread::Builder::new().stack_size(512 * 1024).spawn(run).unwrap().join().unwrap();
}

#[test]
fn spans_of_the_tree() {
    let text = " NOT ( Exists @Resource[a]  AND  @Request[ b ] NumericLessThan{ -3 } ) ";
    let condition = parse(text, Mode::Author, OFF).condition.unwrap();
    let not = &condition.root;
    assert_eq!(&text[not.span.clone()], text.trim());
    let and = &not.children()[0];
    assert_eq!(&text[and.span.clone()], "( Exists @Resource[a]  AND  @Request[ b ] NumericLessThan{ -3 } )");
    assert_eq!(&text[and.children()[0].span.clone()], "Exists @Resource[a]");
    let ast::ExpressionKind::Comparison(comparison) = &and.children()[1].kind else {
        panic!();
    };
    assert_eq!(&text[comparison.operator_span.clone()], "NumericLessThan");
    assert_eq!(&text[comparison.right.span.clone()], "{ -3 }");
    assert_eq!(condition.to_string(), "NOT (Exists @Resource[a] AND @Request[b] NumericLessThan {-3})");
}

#[test]
fn tolerated_spellings() {
    for text in [
        "@resource[a]stringequals'x'",
        "@RESOURCE[ a/tags:K y:z<$KEY_CASE_SENSITIVE$> ]\r\n\tForAnyOfAnyValues \n:\t StringEquals{'x'}",
        "not not exists @principal[a]",
        "!!(!(EXISTS @Environment[a]))",
        "'it''s' StringEquals @Request[a/tags&$KEYS$&]",
        "@Resource[a] StringEquals 'no-break\u{A0}space, “quotes”'",
        "@Resource[a] ForAnyOfAnyValues:GuidEquals {08d4c71acc634ce4a9c85dd251b4d619, '08d4c71a-cc63-4ce4-a9c8-5dd251b4d619', 00000000000000000000000000000000}",
        "@Resource[a] BoolEquals FALSE and @Resource[b] NumericEquals -0",
    ] {
        assert_eq!(mistakes(text), [""; 0], "{text}");
    }
}

// === programs ===

#[test]
fn constants_are_folded() {
    let folded = [
        ("'a' StringEquals 'A'", Truth::False),
        ("'é' StringEqualsIgnoreCase 'É' AND NOT 5 NumericLessThan 3", Truth::True),
        ("{'red','blue'} ForAllOfAnyValues:StringEquals {'orange','red','blue'}", Truth::True),
        ("'2024-01-01T00:00:00Z' DateTimeEquals '2024-01-01T01:00:00+01:00'", Truth::True),
        ("Exists @Resource[a] AND 1 NumericEquals 2", Truth::False),
        ("Exists @Resource[a] OR (1 NumericEquals 1)", Truth::True),
    ];
    for (text, expected) in folded {
        let program = program(text);
        assert_eq!(program.uses(), Uses::NOTHING, "{text}");
        assert_eq!(
            program.as_bytes().len(),
            program::Program::build(Uses::NOTHING, false, &[0; 4], &[]).unwrap().0.len()
        );
        assert_eq!(value(text, &json!({})), expected, "{text}");
    }
    assert_eq!(program("Exists @Resource[a] AND 1 NumericEquals 1"), program("Exists @Resource[A]"));
}

#[test]
fn equal_meaning_gives_equal_bytes() {
    for (one, other) in [
        ("NOT (Exists @Resource[a] AND Exists @Request[b])", "!Exists @Resource[a] || !Exists @Request[B]"),
        ("@Resource[a] StringNotEquals 'x'", "NOT @Resource[a] StringEquals 'x'"),
        ("@Resource[a] StringLike 'x'", "@Resource[a] StringEquals 'x'"),
        ("@Resource[a] StringLikeIgnoreCase 'x*'", "@Resource[a] StringStartsWithIgnoreCase 'X'"),
        (
            "@Resource[a] ForAnyOfAnyValues:GuidEquals {08d4c71acc634ce4a9c85dd251b4d619, 00000000000000000000000000000001}",
            "{'00000000-0000-0000-0000-000000000001', 08D4C71A-cc63-4ce4-a9c8-5dd251b4d619, 00000000000000000000000000000001} ForAnyOfAnyValues:GuidEquals @Resource[a]",
        ),
        (
            "@Resource[a] ForAnyOfAnyValues:StringNotEquals {'x', 'y'}",
            "NOT @Resource[a] ForAllOfAllValues:StringEquals {'y', 'x'}",
        ),
    ] {
        assert_eq!(program(one), program(other), "{one}");
    }
}

#[test]
fn uses() {
    let uses = |text| program(text).uses();
    assert_eq!(
        uses("Exists @Resource[a] AND NOT Exists @Principal[a]"),
        Uses::RESOURCE.with(Uses::PRINCIPAL)
    );
    assert_eq!(uses("@Environment[utcnow] DateTimeLessThan @Request[a]"), Uses::UTC_NOW.with(Uses::REQUEST));
    assert_eq!(uses("@Environment[isPrivateLink] BoolEquals true"), Uses::ENVIRONMENT);
    assert_eq!(
        uses("ActionMatches{'a'} OR @Request[SUBOPERATION] StringEquals 'b'"),
        Uses::ACTION.with(Uses::SUB_OPERATION)
    );
    assert!(!uses("ActionMatches{'a'}").any_attribute());
    assert_eq!(format!("{:?}", uses("ActionMatches{'a'}")), "{\"action\"}");
    assert!(program("@Resource[a] GuidEquals @Resource[b]").has_guid_operators());
    assert!(!program("@Resource[a] StringEquals @Resource[b]").has_guid_operators());
    let folded = program("1 NumericEquals 1 OR @Resource[a] GuidEquals @Resource[b]");
    assert!(folded.has_guid_operators(), "written, though it decides nothing");
    assert_eq!(folded.uses(), Uses::NOTHING);
}

#[test]
fn wildcards_are_read_as_asked() {
    let condition = condition("ActionMatches{'A.B/*/c/read'}");
    for (wildcards, expected) in [(Wildcards::Collapse, Truth::True), (Wildcards::Strict, Truth::False)] {
        let program = compile(&condition, wildcards);
        let truth = evaluate(program.as_bytes(), &context(&Attributes::new()), &mut Budget::default());
        assert_eq!(truth, Ok(expected));
    }
}

#[test]
fn trees_that_no_text_gives_are_undefined() {
    use ast::{Comparison, Condition, Expression, ExpressionKind, Literal, Operand, OperandKind};
    let literal = |literal| Operand { kind: OperandKind::Literal(literal), span: 0..0 };
    let comparison = Comparison {
        left: literal(Literal::Integer(5)),
        quantifier: None,
        operator: Operator::from_name("StringEquals").unwrap(),
        operator_span: 0..0,
        right: literal(Literal::Boolean(true)),
    };
    let root = Expression { kind: ExpressionKind::Comparison(comparison), span: 0..0 };
    let program = compile(&Condition { root }, Wildcards::Collapse);
    let truth = evaluate(program.as_bytes(), &context(&Attributes::new()), &mut Budget::default());
    assert_eq!(truth, Ok(Truth::Undefined));
}

// === values ===

#[test]
fn lookup() {
    let tags =
        json!({"A/Tags": {"Project": "x", "a:b": "y", "K": "1", "k": "2", "gone": null}, "a/tags:K": "3"});
    for (text, expected) in [
        ("@Resource[a/tags:project] StringEquals 'x'", Truth::True),
        ("@Resource[a/tags:project<$key_case_sensitive$>] StringEquals 'x'", Truth::Undefined),
        ("@Resource[a/tags:Project<$key_case_sensitive$>] StringEquals 'x'", Truth::True),
        ("@Resource[a/tags:a:b<$key_case_sensitive$>] StringEquals 'y'", Truth::True),
        // The whole name comes before the dictionary's keys.
        ("@Resource[a/tags:k] StringEquals '3'", Truth::True),
        ("@Resource[a/tags:k<$key_case_sensitive$>] StringEquals '2'", Truth::True),
        ("@Resource[a/tags:K<$key_case_sensitive$>] StringEquals '3'", Truth::True),
        ("Exists @Resource[a/tags:gone]", Truth::False),
        ("@Resource[a/tags&$keys$&] ForAnyOfAnyValues:StringEquals {'gone'}", Truth::False),
        ("@Resource[a/tags] StringEquals 'x'", Truth::Undefined),
        ("Exists @Resource[a/tags]", Truth::True),
        ("Exists @Request[a/tags]", Truth::False),
    ] {
        assert_eq!(value(text, &tags), expected, "{text}");
    }
    let ambiguous = json!({"a/tags": {"K": "1", "k": "1"}});
    assert_eq!(value("@Resource[a/tags:K] StringEquals '1'", &ambiguous), Truth::Undefined);
    assert_eq!(value("Exists @Resource[a/tags:K]", &ambiguous), Truth::True);
    let twice = json!({"a:b": "1", "A:B": "1", "c": {}, "d": {"e": null}, "f": [null], "g": ""});
    assert_eq!(value("@Resource[a:b] StringEquals '1'", &twice), Truth::Undefined);
    for (name, expected) in
        [("c", Truth::False), ("d", Truth::False), ("f", Truth::False), ("g", Truth::True)]
    {
        assert_eq!(value(&format!("Exists @Resource[{name}]"), &twice), expected, "{name}");
    }
}

#[test]
fn the_time_is_the_checks_own() {
    let resource = Attributes::new();
    let lies = Attributes::from_json(&json!({"UtcNow": "1999-01-01T00:00:00Z", "subOperation": "lies"}));
    let lying = Context { environment: &lies, request: &lies, ..context(&resource) };
    let run = |text: &str| evaluate(program(text).as_bytes(), &lying, &mut Budget::default()).unwrap();
    assert_eq!(run("@Environment[UtcNow] DateTimeEquals '2026-01-01T12:00:00Z'"), Truth::True);
    assert_eq!(run("@Environment[UtcNow] StringLike '*'"), Truth::Undefined);
    assert_eq!(run("Exists @Environment[UtcNow]"), Truth::True);
    assert_eq!(run("@Request[subOperation] StringEquals 'Blob.List'"), Truth::True);
    let none = Context { sub_operation: Some(""), ..lying };
    let run = |text: &str| evaluate(program(text).as_bytes(), &none, &mut Budget::default()).unwrap();
    assert_eq!(run("Exists @Request[subOperation]"), Truth::False);
    assert_eq!(run("SubOperationMatches{''}"), Truth::False);
}

#[test]
fn values_hold_until_the_time_matters() {
    let until = |text: &str| {
        let verdict = verdict(text, &json!({"end": "2026-01-01T12:00:01Z"}));
        verdict.holds_until.map(|until| until.to_string())
    };
    assert_eq!(until("Exists @Resource[a]"), None);
    // Behind it already.
    assert_eq!(until("@Environment[UtcNow] DateTimeGreaterThan '2025-01-01T00:00:00Z'"), None);
    assert_eq!(
        until("@Environment[UtcNow] DateTimeLessThan '2027-01-01T00:00:00Z'").as_deref(),
        Some("2027-01-01T00:00:00Z")
    );
    // At this very tick: it changes with the next.
    assert_eq!(
        until("@Environment[UtcNow] DateTimeEquals '2026-01-01T12:00:00Z'").as_deref(),
        Some("2026-01-01T12:00:00.0000001Z")
    );
    assert_eq!(
        until("@Environment[UtcNow] DateTimeLessThan @Resource[end]").as_deref(),
        Some("2026-01-01T12:00:01Z")
    );
    // What was decided without the time holds whatever the time is.
    assert_eq!(
        until("ActionMatches{'*'} OR @Environment[UtcNow] DateTimeLessThan '2027-01-01T00:00:00Z'"),
        None
    );
    assert_eq!(
        until("@Environment[UtcNow] TimeOfDayInRange {'08:00', '17:00'}").as_deref(),
        Some("2026-01-01T17:00:00Z")
    );
    assert_eq!(
        until("@Environment[UtcNow] TimeOfDayLessThan '08:00'").as_deref(),
        Some("2026-01-02T00:00:00Z")
    );
}

#[test]
fn budget() {
    let resource = json!({"a": (0..1000).map(|i| format!("v{i}")).collect::<Vec<_>>()});
    let attributes = Attributes::from_json(&resource);
    let program = program("@Resource[a] ForAllOfAllValues:StringNotLike {'x*y', 'y*z'}");
    let mut steps = Budget::new(100);
    assert_eq!(
        evaluate(program.as_bytes(), &context(&attributes), &mut steps),
        Err(EvalError::BudgetExceeded)
    );
    let mut steps = Budget::default();
    assert_eq!(evaluate(program.as_bytes(), &context(&attributes), &mut steps), Ok(Truth::True));
    assert!(steps.steps() < 65_536 - 3_000);
}

// === the extension ===

#[test]
fn extension_operators() {
    let resource = json!({
        "text": "HelloWorld", "list": ["a", "b"], "numbers": [1, 2], "n": 10, "time": "12:30:15", "ip": "10.0.0.8",
        "mapped": "::ffff:10.0.0.8", "v6": "2001:db8::1", "block": "10.0.0.0/24", "pair": ["10.0.0.1", "10.0.0.9"],
    });
    for (text, expected) in [
        ("@Resource[text] StringContains 'loWo'", Truth::True),
        ("@Resource[text] StringContains 'lowo'", Truth::False),
        ("@Resource[text] StringNotContains 'xyz'", Truth::True),
        ("@Resource[gone] StringNotContains 'xyz'", Truth::Undefined),
        ("@Resource[text] StringEndsWith 'World'", Truth::True),
        ("@Resource[text] StringNotEndsWith 'World'", Truth::False),
        ("@Resource[list] ListContains 'a'", Truth::True),
        ("@Resource[list] ListNotContains 'a'", Truth::False),
        ("@Resource[list] ListContains 'c'", Truth::False),
        ("@Resource[numbers] ListContains 2", Truth::True),
        ("@Resource[numbers] ListContains '2'", Truth::Undefined),
        ("@Resource[list] ListContains @Resource[list]", Truth::Undefined),
        ("{'a', 'b'} ListContains 'b'", Truth::True),
        ("@Resource[gone] ListNotContains 'a'", Truth::Undefined),
        ("@Resource[n] NumericInRange {5, 10}", Truth::True),
        ("@Resource[n] NumericInRange {11, 12}", Truth::False),
        ("@Resource[n] NumericInRange @Resource[numbers]", Truth::False),
        ("@Resource[n] NumericInRange @Resource[n]", Truth::Undefined),
        ("@Resource[time] TimeOfDayEquals '12:30:15'", Truth::True),
        ("@Resource[time] TimeOfDayGreaterThan '12:30'", Truth::True),
        ("@Resource[time] TimeOfDayLessThanEquals '12:30:15'", Truth::True),
        ("@Resource[time] TimeOfDayInRange {'12:00', '12:30'}", Truth::False),
        ("@Environment[UtcNow] TimeOfDayEquals '12:00'", Truth::True),
        ("@Resource[ip] IpMatch '10.0.0.8'", Truth::True),
        ("@Resource[ip] IpMatch '10.0.0.0/24'", Truth::True),
        ("@Resource[mapped] IpMatch '10.0.0.0/24'", Truth::True),
        ("@Resource[ip] IpNotMatch '192.168.0.0/16'", Truth::True),
        ("@Resource[text] IpNotMatch '192.168.0.0/16'", Truth::Undefined),
        ("@Resource[v6] IpMatch '2001:db8::/32'", Truth::True),
        ("@Resource[ip] IpMatch '::/0'", Truth::False),
        ("@Resource[ip] IpMatch @Resource[block]", Truth::True),
        ("@Resource[ip] IpInRange {'10.0.0.8', '10.0.0.10'}", Truth::True),
        ("@Resource[ip] IpInRange {'10.0.0.9', '10.0.0.10'}", Truth::False),
        ("@Resource[ip] IpInRange '10.0.0.0/24'", Truth::True),
        ("@Resource[ip] IpInRange {'10.0.0.0/24'}", Truth::True),
        ("@Resource[ip] IpInRange @Resource[pair]", Truth::True),
        ("@Resource[ip] IpInRange @Resource[block]", Truth::True),
        ("@Resource[ip] IpInRange @Resource[list]", Truth::Undefined),
        ("NotExists @Resource[gone]", Truth::True),
        ("NOT NotExists @Resource[gone]", Truth::False),
    ] {
        assert_eq!(value(text, &resource), expected, "{text}");
        assert_eq!(mistakes(text).len(), 1, "off by default: {text}");
        assert!(mistakes(text)[0].starts_with("unknown_operator"), "{text}");
    }
    for text in [
        "@Resource[n] NumericInRange 5",
        "@Resource[n] NumericInRange {5}",
        "@Resource[ip] IpInRange '10.0.0.1'",
        "@Resource[ip] IpInRange {'10.0.0.1', '::1'}",
        "@Resource[ip] IpMatch '10.0.0.0/33'",
        "'10.0.0.0/8' IpMatch '10.0.0.0/8'",
        "@Resource[time] TimeOfDayEquals '25:00'",
        "@Resource[a] ForAnyOfAnyValues:StringContains {'a'}",
        "@Resource[a] StringMatches 'a'",
        "Trim(@Resource[a]) StringEquals 'a'",
    ] {
        assert_eq!(parse(text, Mode::Load, ON).diagnostics.len(), 1, "{text}");
    }
}

// === explanations ===

#[test]
fn explanations_show_every_clause() {
    let text = "NOT ActionMatches{'A.B/c/read'} OR (@Resource[a/tags:P<$key_case_sensitive$>] StringEquals 'x' AND \
                @Environment[UtcNow] DateTimeLessThan '2020-01-01T00:00:00Z' AND Exists @Resource[a/tags&$keys$&])";
    let resource = Attributes::from_json(&json!({"a/tags": {"p": "x"}}));
    let explained =
        explain(&condition(text), Wildcards::Collapse, &context(&resource), &mut Budget::default()).unwrap();
    assert_eq!((explained.truth, explained.joined), (Truth::False, Joined::Or));
    let [not, and] = explained.parts.as_slice() else {
        panic!();
    };
    assert_eq!((not.truth, not.joined, not.parts[0].truth), (Truth::False, Joined::Not, Truth::True));
    assert_eq!(not.parts[0].text, "ActionMatches{'A.B/c/read'}");
    let [tag, time, keys] = and.parts.as_slice() else {
        panic!();
    };
    assert_eq!(tag.truth, Truth::Undefined);
    assert_eq!(tag.read[0].value, ReadValue::Missing);
    assert_eq!(tag.read[0].attribute, "@Resource[a/tags:P<$key_case_sensitive$>]");
    assert_eq!(&text[tag.read[0].span.clone()], tag.read[0].attribute);
    assert_eq!(&text[tag.span.clone()], tag.text);
    assert_eq!(time.truth, Truth::False);
    let ReadValue::Value(now) = &time.read[0].value else {
        panic!();
    };
    assert_eq!(now.to_string(), "\"2026-01-01T12:00:00.00000005Z\"");
    assert_eq!(keys.truth, Truth::True);
    assert_eq!(
        keys.read[0].value,
        ReadValue::Value(OwnedValue::List(vec![OwnedValue::Text("p".to_owned())]))
    );
}
