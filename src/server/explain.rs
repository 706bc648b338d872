//! Explain, ListPermissions and ListPrincipals on the wire: requests are checked, explanations and lists spelled
//! out, lists in pages. Beside `convert`, whose readers it uses, and as that without transport: the command line
//! asks a policy directory through the same functions.

use std::collections::HashMap;

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::authorizer::{Authorizer, Explained};
use crate::model::{
    Action, AssignmentInfo, AssignmentOutcome, Clause, ClauseTruth, ConditionOutcome, ConditionOwner,
    DenyEffect, DenyOutcome, ExplainedAssignment, ExplainedCondition, ExplainedDeny, ExplainedPrincipal,
    Explanation, Joined, KnownOperation, MatchedPattern, NearMiss, OperationOutcome, OwnedValue,
    PermissionDeny, PermissionGrant, PermissionPatterns, PermissionQuery, PermittedOperation,
    PermittedPrincipal, Plane, PrincipalDeny, PrincipalQuery, Reached, ReadAttribute, ReadValue, Scope,
    Subject, Through, Undecided, Window,
};
use crate::proto::v1;
use crate::snapshot::Snapshot;

use super::convert::{
    self, Asked, ERROR_DOMAIN, Prefix, Violations, read_action, read_caller, read_scope, role_activation,
    timestamp,
};

/// Operations that one request may have decided one by one: no more than a list can hold.
pub const MAX_OPERATIONS: usize = 5_000;
/// Entries of one page.
const MAX_PAGE: usize = 1_000;
/// Clients take messages of 4 MiB. An explanation has four lists, and an answer at most two explanations.
const LIST_BYTES: usize = 448 << 10;
/// Bytes of entries in one page, whatever their number; a page holds at least one.
const PAGE_BYTES: usize = 3 << 20;
/// A list is read to its end in one go; a token that is older than this begins again, so that nobody is told of the
/// past for long.
const TOKEN_SECONDS: i64 = 15 * 60;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Unanswered {
    /// Fields of the request.
    Malformed(Violations),
    /// More operations than the limit.
    TooManyOperations(usize),
    /// The policy does not suffice.
    Undecided(Undecided),
    /// The page token is of another policy, or old.
    Outdated(&'static str),
}

/// A request for permissions that is in order.
#[derive(Clone, Debug)]
pub struct PermissionsAsked<'a> {
    subject: Subject<'a>,
    /// Where.
    pub scope: Scope<'a>,
    operations: Option<Vec<KnownOperation>>,
    page: Page<'a>,
}

/// A request for principals that is in order.
#[derive(Clone, Debug)]
pub struct PrincipalsAsked<'a> {
    /// What for.
    pub action: Action<'a>,
    /// On which plane.
    pub plane: Plane,
    /// Where.
    pub scope: Scope<'a>,
    page: Page<'a>,
}

/// Which page, of which list.
#[derive(Clone, Copy, Debug)]
struct Page<'a> {
    size: usize,
    /// Of everything but the page.
    arguments: [u8; 8],
    token: Option<Token>,
    request_id: &'a str,
}

/// Where the next page begins: in the list of one policy at one time. Nothing in it is secret, and a forged one gives
/// nothing that its caller could not have asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    arguments: [u8; 8],
    policy: [u8; 8],
    /// Microseconds since 1970: all pages are of the moment of the first.
    at: i64,
    offset: u32,
}

/// Fills one page out of several lists.
struct Filling {
    skip: usize,
    size: usize,
    taken: usize,
    bytes: usize,
    /// Something is left for the next page.
    more: bool,
}

// === requests ===

/// Reads a request to explain.
///
/// # Errors
///
/// Every field at fault, below `check`.
pub fn explain_request(wire: &v1::ExplainRequest) -> Result<Asked<'_>, Violations> {
    match &wire.check {
        Some(check) => convert::check_request_at(check.into(), Prefix::Explained),
        None => {
            let mut violations = Violations::default();
            violations.push("check", "is missing");
            Err(violations)
        }
    }
}

/// Reads a request for permissions.
///
/// # Errors
///
/// Every field at fault, or more operations than [`MAX_OPERATIONS`].
pub fn permissions_request(wire: &v1::ListPermissionsRequest) -> Result<PermissionsAsked<'_>, Unanswered> {
    if wire.operations.len() > MAX_OPERATIONS {
        return Err(Unanswered::TooManyOperations(wire.operations.len()));
    }
    let mut violations = Violations::default();
    let caller = match &wire.subject {
        Some(subject) => read_caller(subject, Prefix::Whole, "subject", &mut violations),
        None => {
            violations.push("subject", "is missing");
            None
        }
    };
    let scope = read_scope(&wire.scope, || "scope".to_owned(), &mut violations);
    let mut operations = Vec::with_capacity(wire.operations.len());
    for (index, operation) in wire.operations.iter().enumerate() {
        match Action::parse(&operation.name) {
            Ok(action) => operations.push(KnownOperation {
                name: action.as_str().to_owned(),
                plane: Plane::from_data_action(operation.data_action),
            }),
            Err(error) => violations.push(format!("operations[{index}].name"), error.to_string()),
        }
    }
    let arguments = |hash: &mut Sha256| {
        let (subject, mut bare) = (wire.subject.as_ref(), v1::ListPermissionsRequest::default());
        // Attributes are not read, and a map has no order of its own.
        bare.subject = subject.map(|subject| v1::Subject {
            principal_id: subject.principal_id.clone(),
            group_ids: subject.group_ids.clone(),
            ..v1::Subject::default()
        });
        bare.scope.clone_from(&wire.scope);
        bare.operations.clone_from(&wire.operations);
        hash.update(b"ListPermissions");
        hash.update(bare.encode_to_vec());
    };
    let asked = (wire.page_size, wire.page_token.as_str(), wire.request_id.as_str());
    let page = read_page(asked, arguments, &mut violations);
    match (caller, scope) {
        (Some(caller), Some(scope)) if violations.is_empty() => Ok(PermissionsAsked {
            subject: caller.subject,
            scope,
            operations: Some(operations).filter(|operations| !operations.is_empty()),
            page,
        }),
        _ => Err(Unanswered::Malformed(violations)),
    }
}

/// Reads a request for principals.
///
/// # Errors
///
/// Every field at fault.
pub fn principals_request(wire: &v1::ListPrincipalsRequest) -> Result<PrincipalsAsked<'_>, Unanswered> {
    let mut violations = Violations::default();
    let operation = read_action(wire.action.as_ref().map(Into::into), Prefix::Whole, &mut violations);
    let scope = read_scope(&wire.scope, || "scope".to_owned(), &mut violations);
    let arguments = |hash: &mut Sha256| {
        let bare = v1::ListPrincipalsRequest {
            action: wire.action.clone(),
            scope: wire.scope.clone(),
            ..v1::ListPrincipalsRequest::default()
        };
        hash.update(b"ListPrincipals");
        hash.update(bare.encode_to_vec());
    };
    let asked = (wire.page_size, wire.page_token.as_str(), wire.request_id.as_str());
    let page = read_page(asked, arguments, &mut violations);
    match (operation, scope) {
        (Some(operation), Some(scope)) if violations.is_empty() => {
            Ok(PrincipalsAsked { action: operation.action, plane: operation.plane, scope, page })
        }
        _ => Err(Unanswered::Malformed(violations)),
    }
}

fn read_page<'a>(
    (size, token, request_id): (i32, &str, &'a str),
    arguments: impl FnOnce(&mut Sha256),
    violations: &mut Violations,
) -> Page<'a> {
    let wanted = usize::try_from(size).unwrap_or_else(|_| {
        violations.push("page_size", format!("is {size}; wanted 0 or more"));
        0
    });
    let mut hash = Sha256::new();
    arguments(&mut hash);
    let arguments = short(hash);
    let token = (!token.is_empty()).then(|| Token::read(token));
    match &token {
        Some(None) => violations.push("page_token", "is none that a page ended with"),
        Some(Some(token)) if token.arguments != arguments => {
            violations.push("page_token", "is of a request with other fields");
        }
        Some(Some(_)) | None => {}
    }
    convert::request_id(request_id, Prefix::Whole, violations);
    let size = if wanted == 0 { MAX_PAGE } else { wanted.min(MAX_PAGE) };
    Page { size, arguments, token: token.flatten(), request_id }
}

// === answers ===

/// Spells out an explanation. `request_id` is that of the request.
pub fn explained(
    authorizer: &Authorizer,
    snapshot: &Snapshot,
    asked: &Asked<'_>,
    explained: &Explained,
    request_id: &str,
) -> v1::ExplainResponse {
    v1::ExplainResponse {
        result: Some(convert::result(snapshot, asked, &explained.answer)),
        policy: Some(convert::identity(authorizer, snapshot)),
        request_id: request_id.to_owned(),
        explanation: Some(explanation(&explained.subject)),
        on_behalf_of_explanation: explained.on_behalf_of.as_ref().map(explanation),
    }
}

/// One page of what a subject may do.
///
/// # Errors
///
/// [`Unanswered::Undecided`], or [`Unanswered::Outdated`] for a page token that this policy cannot go on from.
pub fn permissions(
    authorizer: &Authorizer,
    snapshot: &Snapshot,
    asked: &PermissionsAsked<'_>,
) -> Result<v1::ListPermissionsResponse, Unanswered> {
    let PermissionsAsked { subject, scope, operations, page } = asked;
    let token = page.begin(authorizer, snapshot)?;
    let query = PermissionQuery { subject: *subject, scope: *scope, operations: operations.as_deref() };
    let list = authorizer.list_permissions(snapshot, &query, token.time()?).map_err(Unanswered::Undecided)?;
    let mut filling = Filling::new(&token, page.size);
    Ok(v1::ListPermissionsResponse {
        grants: filling.take(&list.grants, permission_grant),
        denies: filling.take(&list.denies, permission_deny),
        eligible: filling.take(&list.eligible, role_activation),
        operations: filling.take(&list.operations, permitted_operation),
        next_page_token: filling.next(token),
        policy: Some(convert::identity(authorizer, snapshot)),
        request_id: page.request_id.to_owned(),
        truncated: list.truncated,
    })
}

/// One page of who may do an action.
///
/// # Errors
///
/// As [`permissions`].
pub fn principals(
    authorizer: &Authorizer,
    snapshot: &Snapshot,
    asked: &PrincipalsAsked<'_>,
) -> Result<v1::ListPrincipalsResponse, Unanswered> {
    let PrincipalsAsked { action, plane, scope, page } = asked;
    let token = page.begin(authorizer, snapshot)?;
    let query = PrincipalQuery { action: *action, plane: *plane, scope: *scope };
    let list = authorizer.list_principals(snapshot, &query, token.time()?).map_err(Unanswered::Undecided)?;
    let mut filling = Filling::new(&token, page.size);
    Ok(v1::ListPrincipalsResponse {
        denies: filling.take(&list.denies, principal_deny),
        principals: filling.take(&list.principals, permitted_principal),
        denied: filling.take(&list.denied, |denied| v1::DeniedPrincipal {
            id: denied.id.clone(),
            group: denied.is_group,
            through: Some(granting(&denied.through)),
            deny_assignment_id: denied.deny_assignment_id.clone(),
        }),
        eligible: filling.take(&list.eligible, |eligible| v1::EligiblePrincipal {
            id: eligible.id.clone(),
            group: eligible.is_group,
            activation: Some(role_activation(&eligible.activation)),
        }),
        next_page_token: filling.next(token),
        policy: Some(convert::identity(authorizer, snapshot)),
        request_id: page.request_id.to_owned(),
        truncated: list.truncated,
    })
}

impl Unanswered {
    /// The whole status.
    pub fn into_status(self) -> Status {
        match self {
            Self::Malformed(violations) => violations.into_status(),
            Self::TooManyOperations(count) => {
                let description =
                    format!("holds {count} operations; this sidecar takes at most {MAX_OPERATIONS}");
                let metadata = [
                    ("limit".to_owned(), MAX_OPERATIONS.to_string()),
                    ("operations".to_owned(), count.to_string()),
                ];
                let mut details = ErrorDetails::with_bad_request_violation("operations", description.clone());
                details.set_error_info("TOO_MANY_OPERATIONS", ERROR_DOMAIN, metadata);
                let message = format!("`operations` {description}");
                Status::with_error_details(Code::InvalidArgument, message, details)
            }
            Self::Undecided(undecided) => convert::undecided_status(&undecided),
            Self::Outdated(why) => {
                let details =
                    ErrorDetails::with_error_info("PAGE_TOKEN_OUTDATED", ERROR_DOMAIN, HashMap::new());
                let message = format!("`page_token` {why}; begin again without one");
                Status::with_error_details(Code::Aborted, message, details)
            }
        }
    }
}

// === pages ===

impl Page<'_> {
    /// Where this page begins, if the list that it goes on from is still the same.
    fn begin(&self, authorizer: &Authorizer, snapshot: &Snapshot) -> Result<Token, Unanswered> {
        let now = authorizer.now().as_microsecond();
        let mut hash = Sha256::new();
        hash.update(snapshot.policy.digest());
        let policy = short(hash);
        let Some(token) = self.token else {
            return Ok(Token { arguments: self.arguments, policy, at: now, offset: 0 });
        };
        if token.policy != policy {
            return Err(Unanswered::Outdated("is of another policy than the active one"));
        }
        let oldest = now.saturating_sub(TOKEN_SECONDS.saturating_mul(1_000_000));
        if !(oldest..=now).contains(&token.at) {
            return Err(Unanswered::Outdated("is too old"));
        }
        Ok(token)
    }
}

impl Token {
    const BYTES: usize = 28;

    fn read(text: &str) -> Option<Self> {
        let mut bytes = [0_u8; Self::BYTES];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        let (arguments, rest) = bytes.split_first_chunk()?;
        let (policy, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let offset = u32::from_be_bytes(rest.try_into().ok()?);
        Some(Self { arguments: *arguments, policy: *policy, at: i64::from_be_bytes(*at), offset })
    }

    fn text(&self) -> String {
        let parts: [&[u8]; 4] =
            [&self.arguments, &self.policy, &self.at.to_be_bytes(), &self.offset.to_be_bytes()];
        hex::encode(parts.concat())
    }

    fn time(&self) -> Result<jiff::Timestamp, Unanswered> {
        jiff::Timestamp::from_microsecond(self.at)
            .map_err(|_| Unanswered::Outdated("is of no time that there is"))
    }
}

impl Filling {
    fn new(token: &Token, size: usize) -> Self {
        let skip = usize::try_from(token.offset).unwrap_or(usize::MAX);
        Self { skip, size, taken: 0, bytes: 0, more: false }
    }

    /// What of one list stands on this page.
    fn take<T, W: Message>(&mut self, list: &[T], wire: impl Fn(&T) -> W) -> Vec<W> {
        let mut page = Vec::new();
        for item in list {
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            if self.more || self.taken == self.size {
                self.more = true;
                break;
            }
            let item = wire(item);
            let bytes = self.bytes.saturating_add(item.encoded_len());
            if self.taken > 0 && bytes > PAGE_BYTES {
                self.more = true;
                break;
            }
            self.bytes = bytes;
            self.taken += 1;
            page.push(item);
        }
        page
    }

    fn next(&self, token: Token) -> String {
        if !self.more {
            return String::new();
        }
        let offset = token.offset.saturating_add(number(self.taken));
        Token { offset, ..token }.text()
    }
}

fn short(hash: Sha256) -> [u8; 8] {
    let digest: [u8; 32] = hash.finalize().into();
    let mut short = [0; 8];
    for (to, from) in short.iter_mut().zip(digest) {
        *to = from;
    }
    short
}

// === explanations ===

fn explanation(model: &Explanation) -> v1::Explanation {
    let (principals, omitted_principals) = listed(&model.principals, explained_principal);
    let (denies, omitted_denies) = listed(&model.denies, explained_deny);
    let (assignments, omitted_assignments) = listed(&model.assignments, explained_assignment);
    let (near_misses, omitted_near_misses) = listed(&model.near_misses, near_miss);
    let omitted = v1::OmittedEntries {
        principals: omitted_principals,
        denies: omitted_denies,
        assignments: omitted_assignments,
        near_misses: omitted_near_misses,
    };
    let omits = omitted != v1::OmittedEntries::default();
    let decision = match model.decision {
        crate::model::Decision::Allowed(_) => v1::Decision::Allowed,
        crate::model::Decision::NotAllowed(_) => v1::Decision::NotAllowed,
        crate::model::Decision::Denied(_) => v1::Decision::Denied,
    };
    v1::Explanation {
        principals,
        denies,
        assignments,
        near_misses,
        decision: decision as i32,
        reason: model.reason.clone(),
        omitted: omits.then_some(omitted),
        truncated: model.truncated || omits,
    }
}

/// As many entries as fit, and how many do not.
fn listed<T, W: Message>(list: &[T], wire: impl Fn(&T) -> W) -> (Vec<W>, u32) {
    let (mut bytes, mut fitting) = (0_usize, Vec::with_capacity(list.len()));
    for item in list {
        let item = wire(item);
        bytes = bytes.saturating_add(item.encoded_len());
        if bytes > LIST_BYTES {
            break;
        }
        fitting.push(item);
    }
    let omitted = list.len().saturating_sub(fitting.len());
    (fitting, number(omitted))
}

fn explained_principal(model: &ExplainedPrincipal) -> v1::ExplainedPrincipal {
    let (origin, member) = match &model.reached {
        Reached::Subject => (v1::PrincipalOrigin::Subject, ""),
        Reached::Asserted => (v1::PrincipalOrigin::Asserted, ""),
        Reached::Contains { member } => (v1::PrincipalOrigin::Contains, member.as_str()),
    };
    v1::ExplainedPrincipal {
        id: model.id.clone(),
        origin: origin as i32,
        member_id: member.to_owned(),
        known: model.known,
    }
}

fn explained_deny(model: &ExplainedDeny) -> v1::ExplainedDeny {
    use v1::DenyOutcome as Wire;

    let (outcome, matched, exclusion, principal) = match &model.outcome {
        DenyOutcome::Hit { pattern, principal } => (Wire::Hit, Some(pattern), None, principal.as_deref()),
        DenyOutcome::NotToChildScopes => (Wire::NotToChildScopes, None, None, None),
        DenyOutcome::NotForSubject => (Wire::NotForSubject, None, None, None),
        DenyOutcome::ExcludedPrincipal { principal } => {
            (Wire::ExcludedPrincipal, None, None, Some(principal.as_str()))
        }
        DenyOutcome::NotCovered => (Wire::NotCovered, None, None, None),
        DenyOutcome::WrongPlane { pattern } => (Wire::WrongPlane, Some(pattern), None, None),
        DenyOutcome::ExcludedBy { pattern, exclusion } => {
            (Wire::ExcludedByPattern, Some(pattern), Some(exclusion), None)
        }
        DenyOutcome::ConditionFalse => (Wire::ConditionFalse, None, None, None),
        DenyOutcome::ConditionTooCostly => (Wire::ConditionTooCostly, None, None, None),
    };
    v1::ExplainedDeny {
        id: model.id.clone(),
        name: model.name.clone().unwrap_or_default(),
        scope: model.scope.clone(),
        audit: is_audit(model.effect),
        outcome: outcome as i32,
        pattern: matched.map(matched_pattern),
        exclusion: exclusion.map(matched_pattern),
        principal_id: principal.unwrap_or_default().to_owned(),
        conditions: model.conditions.iter().map(condition).collect(),
    }
}

fn explained_assignment(model: &ExplainedAssignment) -> v1::ExplainedAssignment {
    use v1::AssignmentOutcome as Wire;

    let (outcome, matched, exclusion, whose) = match &model.outcome {
        AssignmentOutcome::Granted { pattern } => (Wire::Granted, Some(pattern), None, None),
        AssignmentOutcome::ConditionNotTrue { pattern, whose, truth: _ } => {
            (Wire::ConditionNotTrue, Some(pattern), None, Some(whose))
        }
        AssignmentOutcome::ConditionUnusable { pattern, whose } => {
            (Wire::ConditionUnusable, Some(pattern), None, Some(whose))
        }
        AssignmentOutcome::ConditionTooCostly { pattern, whose } => {
            (Wire::ConditionTooCostly, Some(pattern), None, Some(whose))
        }
        AssignmentOutcome::OutsideWindow { pattern } => (Wire::OutsideWindow, Some(pattern), None, None),
        AssignmentOutcome::ExcludedBy { pattern, exclusion } => {
            (Wire::ExcludedByPattern, Some(pattern), Some(exclusion), None)
        }
        AssignmentOutcome::WrongPlane { pattern } => (Wire::WrongPlane, Some(pattern), None, None),
        AssignmentOutcome::NotCovered => (Wire::NotCovered, None, None, None),
    };
    let at_fault =
        whose.and_then(|whose| model.conditions.iter().position(|condition| condition.whose == *whose));
    v1::ExplainedAssignment {
        assignment: Some(assignment_info(&model.assignment)),
        outcome: outcome as i32,
        pattern: matched.map(matched_pattern),
        exclusion: exclusion.map(matched_pattern),
        conditions: model.conditions.iter().map(condition).collect(),
        condition_at_fault: at_fault.map(number),
    }
}

fn assignment_info(model: &AssignmentInfo) -> v1::AssignmentInfo {
    let Window { start, end } = model.window.unwrap_or_default();
    v1::AssignmentInfo {
        id: model.id.clone(),
        role_definition_id: model.role_definition_id.clone(),
        role_name: model.role_name.clone(),
        scope: model.scope.clone(),
        principal_id: model.principal_id.clone(),
        start: start.map(timestamp),
        end: end.map(timestamp),
        eligibility_id: model.eligibility_id.clone().unwrap_or_default(),
    }
}

fn matched_pattern(model: &MatchedPattern) -> v1::MatchedPattern {
    v1::MatchedPattern { block: model.block, list: model.list.to_owned(), pattern: model.pattern.clone() }
}

fn condition(model: &ExplainedCondition) -> v1::ExplainedCondition {
    use v1::explained_condition::Outcome;

    let (owner, block, eligibility) = match &model.whose {
        ConditionOwner::Assignment => (v1::ConditionOwner::Assignment, 0, ""),
        ConditionOwner::Block { index } => (v1::ConditionOwner::Block, *index, ""),
        ConditionOwner::Eligibility { id } => (v1::ConditionOwner::Eligibility, 0, id.as_str()),
    };
    let outcome = match &model.outcome {
        ConditionOutcome::Evaluated(whole) => Outcome::Evaluated(v1::EvaluatedCondition {
            truth: truth(whole.truth) as i32,
            clauses: clauses(whole),
        }),
        ConditionOutcome::Unusable { why } => Outcome::Unusable(why.clone()),
        ConditionOutcome::TooCostly => Outcome::TooCostly(v1::ConditionTooCostly {}),
    };
    v1::ExplainedCondition {
        owner: owner as i32,
        block,
        eligibility_id: eligibility.to_owned(),
        text: model.text.clone(),
        outcome: Some(outcome),
    }
}

/// In preorder, without recursion.
fn clauses(whole: &Clause) -> Vec<v1::Clause> {
    let (mut flat, mut open) = (Vec::new(), vec![(0_u32, whole)]);
    while let Some((depth, clause)) = open.pop() {
        let kind = match clause.joined {
            Joined::And => v1::ClauseKind::And,
            Joined::Or => v1::ClauseKind::Or,
            Joined::Not => v1::ClauseKind::Not,
            Joined::Test => v1::ClauseKind::Test,
        };
        flat.push(v1::Clause {
            depth,
            truth: truth(clause.truth) as i32,
            kind: kind as i32,
            start: number(clause.span.start),
            end: number(clause.span.end),
            text: clause.text.clone(),
            values: clause.values.iter().map(read_attribute).collect(),
        });
        open.extend(clause.parts.iter().rev().map(|part| (depth.saturating_add(1), part)));
    }
    flat
}

const fn truth(truth: ClauseTruth) -> v1::Truth {
    match truth {
        ClauseTruth::False => v1::Truth::False,
        ClauseTruth::Undefined => v1::Truth::Undefined,
        ClauseTruth::True => v1::Truth::True,
    }
}

fn read_attribute(model: &ReadAttribute) -> v1::ReadAttribute {
    let (value, ambiguous, unusable) = match &model.value {
        ReadValue::Missing => (None, false, false),
        ReadValue::Ambiguous => (None, true, false),
        ReadValue::Present(OwnedValue::Other) => (None, false, true),
        ReadValue::Present(value) => (Some(attribute_value(value)), false, false),
    };
    v1::ReadAttribute {
        attribute: model.attribute.clone(),
        start: number(model.span.start),
        end: number(model.span.end),
        value,
        ambiguous,
        unusable,
    }
}

/// Values nest once on the wire, and nothing deeper was read.
fn attribute_value(value: &OwnedValue) -> v1::AttributeValue {
    use v1::attribute_value::Value;

    let value = match value {
        OwnedValue::Missing | OwnedValue::Other => None,
        OwnedValue::Text(text) => Some(Value::Text(text.clone())),
        OwnedValue::Number(number) => Some(Value::Number(*number)),
        OwnedValue::Boolean(boolean) => Some(Value::Boolean(*boolean)),
        OwnedValue::List(values) => {
            Some(Value::List(v1::AttributeList { values: values.iter().map(attribute_value).collect() }))
        }
        OwnedValue::Dictionary(members) => Some(Value::Dictionary(v1::AttributeDictionary {
            entries: members.iter().map(|(key, value)| (key.to_owned(), attribute_value(value))).collect(),
        })),
    };
    v1::AttributeValue { value }
}

fn near_miss(model: &NearMiss) -> v1::NearMiss {
    use v1::near_miss::Kind;

    let nearly = |assignment, pattern| v1::AssignedNearMiss {
        assignment: Some(assignment_info(assignment)),
        pattern: Some(matched_pattern(pattern)),
    };
    let kind = match model {
        NearMiss::Eligible(activation) => Kind::Eligible(role_activation(activation)),
        // The plane is said by the list of the pattern.
        NearMiss::WrongPlane { assignment, pattern, plane: _ } => {
            Kind::WrongPlane(nearly(assignment, pattern))
        }
        NearMiss::ScopeTooLow { assignment, pattern } => Kind::ScopeTooLow(nearly(assignment, pattern)),
    };
    v1::NearMiss { kind: Some(kind) }
}

fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn is_audit(effect: DenyEffect) -> bool {
    matches!(effect, DenyEffect::Audit)
}

// === lists ===

fn permission_grant(model: &PermissionGrant) -> v1::PermissionGrant {
    v1::PermissionGrant {
        assignment: Some(assignment_info(&model.assignment)),
        blocks: model.blocks.iter().map(permission_patterns).collect(),
        conditions: model.conditions.clone(),
        unusable: model.unusable,
    }
}

fn permission_deny(model: &PermissionDeny) -> v1::PermissionDeny {
    v1::PermissionDeny {
        id: model.id.clone(),
        name: model.name.clone().unwrap_or_default(),
        scope: model.scope.clone(),
        audit: is_audit(model.effect),
        blocks: model.blocks.iter().map(permission_patterns).collect(),
        condition: model.condition.clone().unwrap_or_default(),
    }
}

fn permission_patterns(model: &PermissionPatterns) -> v1::PermissionPatterns {
    v1::PermissionPatterns {
        actions: model.actions.clone(),
        not_actions: model.not_actions.clone(),
        data_actions: model.data_actions.clone(),
        not_data_actions: model.not_data_actions.clone(),
        condition: model.condition.clone().unwrap_or_default(),
        unusable: model.unusable,
    }
}

fn permitted_operation(model: &PermittedOperation) -> v1::PermittedOperation {
    let outcome = match model.outcome {
        OperationOutcome::Allowed => v1::OperationOutcome::Allowed,
        OperationOutcome::Conditional => v1::OperationOutcome::Conditional,
        OperationOutcome::Denied => v1::OperationOutcome::Denied,
    };
    v1::PermittedOperation {
        name: model.operation.name.clone(),
        data_action: model.operation.plane == Plane::Data,
        outcome: outcome as i32,
        role_assignment_id: model.role_assignment_id.clone(),
        deny_assignment_id: model.deny_assignment_id.clone().unwrap_or_default(),
    }
}

fn principal_deny(model: &PrincipalDeny) -> v1::PrincipalDeny {
    v1::PrincipalDeny {
        id: model.id.clone(),
        name: model.name.clone().unwrap_or_default(),
        scope: model.scope.clone(),
        all_principals: model.all_principals,
        principal_ids: model.principals.clone(),
        excluded_principal_ids: model.exclude_principals.clone(),
        condition: model.condition.clone().unwrap_or_default(),
    }
}

fn permitted_principal(model: &PermittedPrincipal) -> v1::PermittedPrincipal {
    v1::PermittedPrincipal {
        id: model.id.clone(),
        group: model.is_group,
        through: model.through.iter().map(granting).collect(),
        conditional: model.conditional,
    }
}

fn granting(model: &Through) -> v1::GrantingAssignment {
    v1::GrantingAssignment {
        assignment: Some(assignment_info(&model.assignment)),
        conditional: model.conditional,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_wire_and_nothing_else_is_one() {
        let token = Token { arguments: [1; 8], policy: [2; 8], at: -3, offset: 4 };
        let text = token.text();
        assert_eq!(Token::read(&text), Some(token));
        for wrong in ["x", "", "00", &text.replace('0', "g"), &format!("{text}00")] {
            assert_eq!(Token::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_field_at_fault_is_named() {
        let fields = |unanswered| match unanswered {
            Unanswered::Malformed(violations) => {
                violations.iter().map(|(field, _)| field.to_owned()).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        let wire = v1::ListPermissionsRequest {
            scope: "nowhere".into(),
            operations: vec![
                v1::Action { name: "a/b".into(), ..Default::default() },
                v1::Action { name: "a/*".into(), ..Default::default() },
            ],
            page_size: -1,
            page_token: "x".into(),
            request_id: "r".repeat(129),
            ..Default::default()
        };
        assert_eq!(
            fields(permissions_request(&wire).unwrap_err()),
            ["subject", "scope", "operations[1].name", "page_size", "page_token", "request_id"]
        );
        assert_eq!(
            fields(principals_request(&v1::ListPrincipalsRequest::default()).unwrap_err()),
            ["action", "scope"]
        );
        let wire = v1::ExplainRequest { check: Some(v1::CheckRequest::default()) };
        let violations = explain_request(&wire).unwrap_err();
        let named: Vec<_> = violations.iter().map(|(field, _)| field).collect();
        assert_eq!(named, ["check.subject", "check.action", "check.resource"]);
        assert!(explain_request(&v1::ExplainRequest::default()).is_err());
    }

    #[test]
    fn pages_end_by_number_and_by_size() {
        let begin = Token { arguments: [0; 8], policy: [0; 8], at: 0, offset: 0 };
        let wire = |bytes: &usize| v1::CheckError { message: "x".repeat(*bytes), ..Default::default() };
        let (first, second) = ([1, 1, 1], [1, PAGE_BYTES, 1]);
        let (mut token, mut sizes) = (begin, Vec::new());
        loop {
            let mut filling = Filling::new(&token, 2);
            let taken = filling.take(&first, wire).len() + filling.take(&second, wire).len();
            sizes.push(taken);
            let Some(next) = Token::read(&filling.next(token)) else { break };
            token = next;
        }
        assert_eq!(sizes, [2, 2, 1, 1]);
        let mut filling = Filling::new(&begin, 3);
        assert_eq!((filling.take(&first, wire).len(), filling.next(begin).as_str()), (3, ""));
    }

    #[test]
    fn deep_conditions_are_flat() {
        let test = |depth: usize| Clause {
            truth: ClauseTruth::True,
            joined: Joined::Test,
            span: depth..depth,
            text: depth.to_string(),
            values: Vec::new(),
            parts: Vec::new(),
        };
        let mut whole = test(0);
        for depth in 1..4 {
            whole = Clause { joined: Joined::And, parts: vec![whole, test(depth)], ..test(9) };
        }
        let flat: Vec<_> = clauses(&whole).iter().map(|clause| (clause.depth, clause.start)).collect();
        assert_eq!(flat, [(0, 9), (1, 9), (2, 9), (3, 0), (3, 1), (2, 2), (1, 3)]);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let (fitting, omitted) = listed(&[1, LIST_BYTES, 1], |bytes: &usize| v1::CheckError {
            message: "x".repeat(*bytes),
            ..Default::default()
        });
        assert_eq!((fitting.len(), omitted), (1, 2));
    }
}
