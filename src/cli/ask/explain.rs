//! `postern explain`: the question of `postern check`, and everything that was looked at.

use anstyle::{AnsiColor, Style};
use clap::ArgMatches;
use serde_json::{Value, json};

use crate::proto::v1;
use crate::proto::v1::authorization_service_client::AuthorizationServiceClient;
use crate::proto::v1::explained_condition::Outcome;
use crate::proto::v1::near_miss::Kind;
use crate::server::{convert, explain};

use super::activation::{Activation, takes};
use super::check::{Answered, CheckArgs, identity, line, rest, tell_unknown, verdict};
use super::question;
use super::spell::{
    activation_line, assignment_json, assignment_line, attribute_json, named, object, objects, word,
};
use super::tree::{Tree, plain};
use super::{Directory, MOST_BYTES, NoAnswer, Whom, tell_failure, tell_usage};
use crate::cli::{Exit, print, print_error, print_json};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  postern explain --policy examples/contoso --principal 00000000-0000-4000-a002-000000000006 \\
      --action Microsoft.KeyVault/vaults/delete \\
      --scope /subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod
  postern explain --connect http://127.0.0.1:4770 --principal … --action … --scope … --json
  postern explain --policy DIR --principal AGENT --action … --scope … --on-behalf-of USER

Exit codes: 0 allowed, 3 not allowed or denied, 1 could not decide, 2 wrong usage.";

/// An answer and why, for programs.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained<'a> {
    #[serde(flatten)]
    answered: Answered<'a>,
    explanation: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_behalf_of_explanation: Option<Value>,
}

pub(in crate::cli) fn run(arguments: &CheckArgs, matches: &ArgMatches) -> Exit {
    let json = arguments.ask.json;
    let whom = match arguments.ask.whom(matches) {
        Ok(whom) => whom,
        Err(message) => return tell_usage(&[message.to_owned()]),
    };
    let request = match arguments.question.question() {
        Ok(question) => v1::ExplainRequest { check: Some(question) },
        Err(mistakes) => return tell_usage(&mistakes),
    };
    let answer = match whom {
        Whom::Policy(directory) => here(directory, &request),
        Whom::Sidecar(sidecar) => sidecar.call(async |channel| {
            let client = AuthorizationServiceClient::new(channel);
            client.max_decoding_message_size(MOST_BYTES).explain(request).await
        }),
    };
    let told = match &answer {
        Ok(answer) => tell(answer, json),
        Err(no_answer) => Ok(tell_failure(no_answer, json, flag_of)),
    };
    told.unwrap_or_else(|error| {
        print_error(&error);
        Exit::Failed
    })
}

fn flag_of(field: &str) -> String {
    question::flag_of(field.strip_prefix("check.").unwrap_or(field))
}

/// Answers in this process, on the road that a call takes.
fn here(directory: Directory<'_>, request: &v1::ExplainRequest) -> Result<v1::ExplainResponse, NoAnswer> {
    let asked =
        explain::explain_request(request).map_err(|violations| NoAnswer::Status(violations.into_status()))?;
    let here = directory.open()?;
    let explained = here
        .authorizer
        .explain(&here.snapshot, &asked.request, asked.agent.as_ref())
        .map_err(|undecided| NoAnswer::Status(convert::undecided_status(&undecided)))?;
    Ok(explain::explained(&here.authorizer, &here.snapshot, &asked, &explained, ""))
}

fn tell(answer: &v1::ExplainResponse, json: bool) -> std::io::Result<Exit> {
    let result = answer.result.clone().unwrap_or_default();
    let policy = answer.policy.clone().unwrap_or_default();
    let explanation = answer.explanation.clone().unwrap_or_default();
    let Some((decision, exit, style)) = verdict(result.decision()) else { return Ok(tell_unknown()) };
    if json {
        print_json(&Explained {
            answered: Answered::new(decision, &result, &policy),
            explanation: explanation_json(&explanation),
            on_behalf_of_explanation: answer.on_behalf_of_explanation.as_ref().map(explanation_json),
        })?;
        return Ok(exit);
    }
    let mut text = String::new();
    match &answer.on_behalf_of_explanation {
        None => text.push_str(&tree(&explanation).render()),
        Some(user) => {
            for (whose, explanation) in [("The agent", &explanation), ("The user who asks", user)] {
                text.push_str(&format!("{HEAD}{whose}{HEAD:#}\n{}", tree(explanation).render()));
                text.push_str(&format!("{}\n\n", sentence(explanation)));
            }
        }
    }
    // For an agent the sentence of the flow is another than that of its rights.
    if answer.on_behalf_of_explanation.is_none() && explanation.reason != result.reason {
        text.push_str(&format!("By its rights alone: {}\n", sentence(&explanation)));
    }
    text.push('\n');
    text.push_str(&rest(&result));
    text.push_str(&line("policy", &identity(&policy)));
    text.push_str(&format!("{style}{decision}{style:#}: {}\n", plain(&result.reason)));
    print(&text);
    Ok(exit)
}

// === for people ===

const HEAD: Style = Style::new().bold();
const YES: Style = AnsiColor::Green.on_default();
const NO: Style = AnsiColor::Red.on_default();
const FAINT: Style = Style::new().dimmed();

fn sentence(explanation: &v1::Explanation) -> String {
    let (decision, style) = match verdict(explanation.decision()) {
        Some((decision, _, style)) => (decision, style),
        None => ("Unknown", FAINT),
    };
    format!("{style}{decision}{style:#}: {}", plain(&explanation.reason))
}

fn tree(explanation: &v1::Explanation) -> Tree {
    let omitted = explanation.omitted.unwrap_or_default();
    let mut tree = Tree::default();
    let mut list = |heading: &str, omitted: u32, is_empty: bool, each: &dyn Fn(&mut Tree)| {
        tree.push(0, format!("{HEAD}{heading}{HEAD:#}"));
        each(&mut tree);
        if omitted > 0 {
            tree.push(1, format!("{omitted} more"));
        } else if is_empty {
            tree.push(1, "none");
        }
    };
    list("Principals", omitted.principals, explanation.principals.is_empty(), &|tree| {
        explanation.principals.iter().for_each(|principal| tell_principal(tree, principal));
    });
    list("Deny assignments", omitted.denies, explanation.denies.is_empty(), &|tree| {
        explanation.denies.iter().for_each(|deny| tell_deny(tree, deny));
    });
    list("Role assignments", omitted.assignments, explanation.assignments.is_empty(), &|tree| {
        explanation.assignments.iter().for_each(|assignment| tell_assignment(tree, assignment));
    });
    if !explanation.near_misses.is_empty() || omitted.near_misses > 0 {
        list("Near misses", omitted.near_misses, false, &|tree| {
            explanation.near_misses.iter().for_each(|miss| tell_near_miss(tree, miss));
        });
    }
    if explanation.truncated {
        tree.push(0, format!("{FAINT}not everything is shown, because there is too much{FAINT:#}"));
    }
    tree
}

fn tell_principal(tree: &mut Tree, principal: &v1::ExplainedPrincipal) {
    let how = match principal.origin() {
        v1::PrincipalOrigin::Subject => "the subject".to_owned(),
        v1::PrincipalOrigin::Asserted => "a group that the caller vouches for".to_owned(),
        v1::PrincipalOrigin::Contains => format!("a group that holds {}", plain(&principal.member_id)),
        v1::PrincipalOrigin::Unspecified => "unknown".to_owned(),
    };
    let known = if principal.known { "" } else { ", not known to the policy" };
    tree.push(1, format!("{} ({how}{known})", plain(&principal.id)));
}

fn tell_deny(tree: &mut Tree, deny: &v1::ExplainedDeny) {
    use v1::DenyOutcome as O;

    let principal = plain(&deny.principal_id);
    let (style, did) = match (deny.outcome(), deny.audit) {
        (O::Hit, false) => (NO, "denies".to_owned()),
        (O::Hit, true) => (YES, "is reported, does not deny".to_owned()),
        (O::NotToChildScopes, _) => (FAINT, "is not for scopes below its own".to_owned()),
        (O::NotForSubject, _) => (FAINT, "is not for the subject".to_owned()),
        (O::ExcludedPrincipal, _) => (FAINT, format!("exempts {principal}")),
        (O::NotCovered, _) => (FAINT, "does not cover the action".to_owned()),
        (O::WrongPlane, _) => (FAINT, "covers the action on the other plane only".to_owned()),
        (O::ExcludedByPattern, _) => (FAINT, "covers the action and exempts it".to_owned()),
        (O::ConditionFalse, _) => (FAINT, "does not apply: a condition is false".to_owned()),
        (O::ConditionTooCostly, _) => (NO, "cannot be decided: a condition takes too many steps".to_owned()),
        (O::Unspecified, _) => (FAINT, "did what this version does not know".to_owned()),
    };
    let name = named(&deny.name, &deny.id);
    tree.push(1, format!("{style}{did}{style:#}: {name} at {}", plain(&deny.scope)));
    tree.push(2, format!("id {}", plain(&deny.id)));
    if deny.outcome() == O::Hit {
        let whom = if principal.is_empty() { "all principals" } else { &principal };
        tree.push(2, format!("for {whom}"));
    }
    tell_pattern(tree, "covers", deny.pattern.as_ref());
    tell_pattern(tree, "exempts", deny.exclusion.as_ref());
    deny.conditions.iter().for_each(|condition| tell_condition(tree, condition, false));
}

fn tell_assignment(tree: &mut Tree, told: &v1::ExplainedAssignment) {
    use v1::AssignmentOutcome as O;

    let (style, did) = match told.outcome() {
        O::Granted => (YES, "grants"),
        O::ConditionNotTrue => (NO, "does not grant: a condition is not true"),
        O::ConditionUnusable => (NO, "does not grant: a condition cannot be used"),
        O::ConditionTooCostly => (NO, "does not grant: a condition takes too many steps"),
        O::OutsideWindow => (NO, "does not grant: it has not begun or is over"),
        O::ExcludedByPattern => (NO, "does not grant: its role excludes the action"),
        O::WrongPlane => (NO, "does not grant: its role covers the action on the other plane only"),
        O::NotCovered => (FAINT, "does not cover the action"),
        O::Unspecified => (FAINT, "did what this version does not know"),
    };
    let assignment = told.assignment.clone().unwrap_or_default();
    tree.push(1, format!("{style}{did}{style:#}: {}", assignment_line(&assignment)));
    tree.push(2, format!("id {}", plain(&assignment.id)));
    tell_pattern(tree, "covers", told.pattern.as_ref());
    tell_pattern(tree, "excludes", told.exclusion.as_ref());
    for (position, condition) in (0_u32..).zip(&told.conditions) {
        tell_condition(tree, condition, told.condition_at_fault == Some(position));
    }
}

fn tell_pattern(tree: &mut Tree, does: &str, pattern: Option<&v1::MatchedPattern>) {
    if let Some(v1::MatchedPattern { block, list, pattern }) = pattern {
        tree.push(2, format!("{does} it by {} ({list} of block {block})", plain(pattern)));
    }
}

fn tell_condition(tree: &mut Tree, condition: &v1::ExplainedCondition, at_fault: bool) {
    let whose = match condition.owner() {
        v1::ConditionOwner::Assignment => "condition".to_owned(),
        v1::ConditionOwner::Block => format!("condition of block {}", condition.block),
        v1::ConditionOwner::Eligibility => {
            format!("condition of the eligibility {}", plain(&condition.eligibility_id))
        }
        v1::ConditionOwner::Unspecified => "condition of what this version does not know".to_owned(),
    };
    let fault = if at_fault { ", which decides" } else { "" };
    match &condition.outcome {
        Some(Outcome::Evaluated(evaluated)) => {
            tree.push(2, format!("{whose} is {}{fault}", truth(evaluated.truth())));
            for clause in &evaluated.clauses {
                tell_clause(tree, clause);
            }
        }
        Some(Outcome::Unusable(why)) => {
            tree.push(2, format!("{whose} cannot be used{fault}: {}", plain(why)));
            tree.push(3, plain(&condition.text));
        }
        Some(Outcome::TooCostly(_)) => {
            tree.push(2, format!("{whose} takes more steps than allowed on these attributes{fault}"));
            tree.push(3, plain(&condition.text));
        }
        None => tree.push(2, format!("{whose} has a value that this version does not know")),
    }
}

fn tell_clause(tree: &mut Tree, clause: &v1::Clause) {
    let depth = usize::try_from(clause.depth).unwrap_or(0).saturating_add(3);
    let what = match clause.kind() {
        v1::ClauseKind::And => "all of".into(),
        v1::ClauseKind::Or => "any of".into(),
        v1::ClauseKind::Not => "not".into(),
        v1::ClauseKind::Test | v1::ClauseKind::Unspecified => plain(&clause.text),
    };
    tree.push(depth, format!("{}: {what}", truth(clause.truth())));
    for read in &clause.values {
        let value = match &read.value {
            _ if read.ambiguous => "is several that differ in letter case only".to_owned(),
            _ if read.unusable => "is of no kind that a condition can use".to_owned(),
            None => "is missing".to_owned(),
            Some(value) => format!("is {}", plain(&attribute_json(value).to_string())),
        };
        tree.push(depth.saturating_add(1), format!("{} {value}", plain(&read.attribute)));
    }
}

fn truth(truth: v1::Truth) -> String {
    let (style, word) = match truth {
        v1::Truth::True => (YES, "true"),
        v1::Truth::False => (NO, "false"),
        v1::Truth::Undefined => (NO, "undefined"),
        v1::Truth::Unspecified => (FAINT, "unknown"),
    };
    format!("{style}{word}{style:#}")
}

fn tell_near_miss(tree: &mut Tree, miss: &v1::NearMiss) {
    let (what, nearly) = match &miss.kind {
        Some(Kind::Eligible(activation)) => {
            tree.push(1, format!("could be activated: {}", activation_line(activation)));
            tree.push(2, format!("eligibility {}", plain(&activation.eligibility_id)));
            tree.push(2, format!("takes {}", plain(&takes(activation))));
            return;
        }
        Some(Kind::WrongPlane(nearly)) => ("grants on the other plane", nearly),
        Some(Kind::ScopeTooLow(nearly)) => ("is assigned further down", nearly),
        None => {
            tree.push(1, "of a kind that this version does not know");
            return;
        }
    };
    let assignment = nearly.assignment.clone().unwrap_or_default();
    tree.push(1, format!("{what}: {}", assignment_line(&assignment)));
    tree.push(2, format!("id {}", plain(&assignment.id)));
    tell_pattern(tree, "covers", nearly.pattern.as_ref());
}

// === for programs ===

fn explanation_json(explanation: &v1::Explanation) -> Value {
    let decision = verdict(explanation.decision()).map_or("Unknown", |(decision, _, _)| decision);
    let omitted = explanation.omitted.map(|omitted| {
        json!({
            "principals": omitted.principals,
            "denies": omitted.denies,
            "assignments": omitted.assignments,
            "nearMisses": omitted.near_misses,
        })
    });
    object(json!({
        "principals": objects(&explanation.principals, |principal| object(json!({
            "id": principal.id,
            "origin": word(principal.origin().as_str_name(), "PRINCIPAL_ORIGIN_"),
            "memberId": principal.member_id,
            "known": principal.known,
        }))),
        "denies": objects(&explanation.denies, deny_json),
        "assignments": objects(&explanation.assignments, |told| object(json!({
            "assignment": assignment_json(told.assignment.as_ref()),
            "outcome": word(told.outcome().as_str_name(), "ASSIGNMENT_OUTCOME_"),
            "pattern": pattern_json(told.pattern.as_ref()),
            "exclusion": pattern_json(told.exclusion.as_ref()),
            "conditions": objects(&told.conditions, condition_json),
            "conditionAtFault": told.condition_at_fault,
        }))),
        "nearMisses": objects(&explanation.near_misses, near_miss_json),
        "decision": decision,
        "reason": explanation.reason,
        "truncated": explanation.truncated,
        "omitted": omitted,
    }))
}

fn deny_json(deny: &v1::ExplainedDeny) -> Value {
    object(json!({
        "id": deny.id,
        "name": deny.name,
        "scope": deny.scope,
        "audit": deny.audit,
        "outcome": word(deny.outcome().as_str_name(), "DENY_OUTCOME_"),
        "pattern": pattern_json(deny.pattern.as_ref()),
        "exclusion": pattern_json(deny.exclusion.as_ref()),
        "principalId": deny.principal_id,
        "conditions": objects(&deny.conditions, condition_json),
    }))
}

fn pattern_json(pattern: Option<&v1::MatchedPattern>) -> Value {
    pattern.map_or(
        Value::Null,
        |matched| json!({"block": matched.block, "list": matched.list, "pattern": matched.pattern}),
    )
}

fn condition_json(condition: &v1::ExplainedCondition) -> Value {
    let owner = condition.owner();
    let (outcome, truth, clauses, why) = match &condition.outcome {
        Some(Outcome::Evaluated(evaluated)) => (
            "EVALUATED",
            Some(word(evaluated.truth().as_str_name(), "TRUTH_")),
            Some(objects(&evaluated.clauses, clause_json)),
            None,
        ),
        Some(Outcome::Unusable(why)) => ("UNUSABLE", None, None, Some(why)),
        Some(Outcome::TooCostly(_)) => ("TOO_COSTLY", None, None, None),
        None => ("UNKNOWN", None, None, None),
    };
    object(json!({
        "owner": word(owner.as_str_name(), "CONDITION_OWNER_"),
        "block": (owner == v1::ConditionOwner::Block).then_some(condition.block),
        "eligibilityId": condition.eligibility_id,
        "text": condition.text,
        "outcome": outcome,
        "truth": truth,
        "clauses": clauses,
        "unusable": why,
    }))
}

fn clause_json(clause: &v1::Clause) -> Value {
    object(json!({
        "depth": clause.depth,
        "truth": word(clause.truth().as_str_name(), "TRUTH_"),
        "kind": word(clause.kind().as_str_name(), "CLAUSE_KIND_"),
        "start": clause.start,
        "end": clause.end,
        "text": clause.text,
        "values": objects(&clause.values, |read| json!({
            "attribute": read.attribute,
            "start": read.start,
            "end": read.end,
            // `null` is a missing attribute; an empty text is one that is there.
            "value": read.value.as_ref().map(attribute_json),
            "ambiguous": read.ambiguous,
            "unusable": read.unusable,
        })),
    }))
}

fn near_miss_json(miss: &v1::NearMiss) -> Value {
    let nearly = |kind: &str, nearly: &v1::AssignedNearMiss| {
        object(json!({
            "kind": kind,
            "assignment": assignment_json(nearly.assignment.as_ref()),
            "pattern": pattern_json(nearly.pattern.as_ref()),
        }))
    };
    match &miss.kind {
        Some(Kind::Eligible(activation)) => {
            json!({"kind": "ELIGIBLE", "activation": Activation::from(activation)})
        }
        Some(Kind::WrongPlane(wire)) => nearly("WRONG_PLANE", wire),
        Some(Kind::ScopeTooLow(wire)) => nearly("SCOPE_TOO_LOW", wire),
        None => json!({"kind": "UNKNOWN"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluated() -> v1::ExplainedCondition {
        let clause = |depth, truth: v1::Truth, kind: v1::ClauseKind, text: &str, values| v1::Clause {
            depth,
            truth: truth as i32,
            kind: kind as i32,
            text: text.into(),
            values,
            ..Default::default()
        };
        let read = |attribute: &str, value: Option<&str>| {
            let text = value.map(|value| v1::attribute_value::Value::Text(value.into()));
            let value = text.map(|text| v1::AttributeValue { value: Some(text) });
            vec![v1::ReadAttribute { attribute: attribute.into(), value, ..Default::default() }]
        };
        let (yes, unknown, test) = (v1::Truth::True, v1::Truth::Undefined, v1::ClauseKind::Test);
        v1::ExplainedCondition {
            owner: v1::ConditionOwner::Assignment as i32,
            text: "a AND b".into(),
            outcome: Some(Outcome::Evaluated(v1::EvaluatedCondition {
                truth: unknown as i32,
                clauses: vec![
                    clause(0, unknown, v1::ClauseKind::And, "", Vec::new()),
                    clause(1, yes, test, "@Resource[a] StringEquals ''", read("@Resource[a]", Some(""))),
                    clause(1, unknown, test, "@Request[b]\nNumericLessThan 5", read("@Request[b]", None)),
                ],
            })),
            ..Default::default()
        }
    }

    #[test]
    fn conditions_for_people() {
        let told = v1::ExplainedAssignment {
            assignment: Some(v1::AssignmentInfo { id: "i".into(), ..Default::default() }),
            outcome: v1::AssignmentOutcome::ConditionNotTrue as i32,
            conditions: vec![evaluated()],
            condition_at_fault: Some(0),
            ..Default::default()
        };
        let explanation = v1::Explanation { assignments: vec![told], ..Default::default() };
        let text = anstream::adapter::strip_str(&tree(&explanation).render()).to_string();
        let expected = "\
Role assignments
└─ does not grant: a condition is not true: \"\" at , assigned to 
   ├─ id i
   └─ condition is undefined, which decides
      └─ undefined: all of
         ├─ true: @Resource[a] StringEquals ''
         │  └─ @Resource[a] is \"\"
         └─ undefined: @Request[b] NumericLessThan 5
            └─ @Request[b] is missing
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn conditions_for_programs() {
        let condition = condition_json(&evaluated());
        assert_eq!((&condition["outcome"], &condition["truth"]), (&"EVALUATED".into(), &"UNDEFINED".into()));
        assert_eq!(condition["clauses"][1]["values"][0]["value"], "", "an empty text is a value");
        assert_eq!(condition["clauses"][2]["values"][0]["value"], Value::Null);
        assert!(condition.get("block").is_none(), "{condition}");
    }
}
