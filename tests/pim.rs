//! The rules of PIM requests: the examples of the reference, and tables for what they leave out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

#[allow(dead_code, reason = "others use the rest")]
#[path = "common/fields.rs"]
mod fields;

use jiff::{SignedDuration, Timestamp};
use postern::model::{PrincipalId, Scope};
use postern::pim::{
    Accepted, ActivationRules, AdminRules, Answer, Approval, AssignmentType, Claims, ErrorCode, Event,
    Expiration, IsoDuration, Options, PendingRequest, PolicyRules, PrincipalType, Refused, Request,
    RequestType, Rule, Schedule, Situation, State, Status, Target, Ticket, Verdict, Window,
};
use serde_json::Value;

use fields::Fields;

// === the examples ===

fn duration(text: &str) -> IsoDuration {
    IsoDuration::parse(text).unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn require(fields: &mut Fields<'_>) -> [bool; 3] {
    let mut enabled = [false; 3];
    for name in fields.list("require") {
        let at =
            ["MultiFactorAuthentication", "Justification", "Ticketing"].iter().position(|rule| name == rule);
        enabled[at.unwrap()] = true;
    }
    enabled
}

fn admin_rules(id: &str, value: Option<&Value>) -> AdminRules {
    let mut fields = Fields::new(id, value.unwrap());
    let [mfa, justification, ticketing] = require(&mut fields);
    let rules = AdminRules {
        expiration_required: fields.take("isExpirationRequired").unwrap().as_bool().unwrap(),
        max_duration: fields.text("maximumDuration").map(duration),
        mfa,
        justification,
        ticketing,
    };
    fields.end();
    rules
}

fn policy_rules(id: &str, value: &Value) -> PolicyRules {
    let mut fields = Fields::new(id, value);
    let mut activation = Fields::new(id, fields.take("activation").unwrap());
    let [mfa, justification, ticketing] = require(&mut activation);
    let rules = PolicyRules {
        activation: ActivationRules {
            max_duration: activation.text("maximumDuration").map(duration),
            mfa,
            justification,
            ticketing,
            authentication_context: activation.text("authenticationContext").map(str::to_owned),
            approval: activation.take("approval").map(|value| {
                let mut approval = Fields::new(id, value);
                let approvers = approval.list("approvers").iter().map(|id| id.as_str().unwrap().to_owned());
                let approvers = approvers.collect();
                approval.end();
                Approval { approvers }
            }),
        },
        eligible: admin_rules(id, fields.take("adminEligible")),
        active: admin_rules(id, fields.take("adminActive")),
        ignored: Vec::new(),
    };
    activation.end();
    fields.end();
    rules
}

fn schedule<'a>(id: &'a str, value: &'a Value) -> Schedule<'a> {
    let mut fields = Fields::new(id, value);
    let schedule = Schedule {
        name: fields.text("name").unwrap_or_default(),
        principal_id: PrincipalId::new(fields.must("principalId")),
        role_definition_id: fields.must("roleDefinitionId"),
        scope: Scope::parse(fields.must("scope")).unwrap(),
        start: fields.text("startDateTime").map(time),
        end: fields.text("endDateTime").map(time),
        condition: fields.text("condition"),
        assignment_type: match fields.text("assignmentType") {
            None | Some("Assigned") => AssignmentType::Assigned,
            Some("Activated") => AssignmentType::Activated,
            other => panic!("{id}: {other:?}"),
        },
        linked_eligibility: fields.text("linkedRoleEligibilityScheduleId"),
    };
    // Labels: who has it is `principalId`, and through what is told by the groups.
    assert!(matches!(fields.text("principalType"), None | Some("User")), "{id}");
    assert!(matches!(fields.text("memberType"), None | Some("Direct")), "{id}");
    fields.end();
    schedule
}

fn expiration(id: &str, value: Option<&Value>) -> Expiration {
    let Some(value) = value else { return Expiration::NoExpiration };
    let mut fields = Fields::new(id, value);
    let expiration = match fields.must("type") {
        "AfterDuration" => Expiration::AfterDuration(duration(fields.must("duration"))),
        "AfterDateTime" => Expiration::AfterDateTime(fields.text("endDateTime").map(time).unwrap()),
        "NoExpiration" => Expiration::NoExpiration,
        other => panic!("{id}: {other}"),
    };
    fields.end();
    expiration
}

fn pending<'a>(id: &'a str, value: &'a Value, now: Timestamp) -> PendingRequest<'a> {
    let mut fields = Fields::new(id, value);
    let principal_id = PrincipalId::new(fields.must("principalId"));
    let asked = PendingRequest {
        request_id: fields.text("requestId").unwrap_or_default(),
        request_type: RequestType::SelfActivate,
        target: Target::Assignment,
        requestor: principal_id,
        principal_id,
        groups: &[],
        role_definition_id: fields.must("roleDefinitionId"),
        scope: Scope::parse(fields.must("scope")).unwrap(),
        state: State::waiting_for_approval(fields.text("createdOn").map(time).unwrap_or(now)),
        start: None,
        expiration: expiration(id, fields.take("expiration")),
        linked_eligibility: None,
    };
    assert_eq!(fields.must("status"), "PendingApproval", "{id}");
    fields.end();
    asked
}

fn judge_example<'a>(
    id: &'a str,
    situation: &Situation<'a>,
    mut fields: Fields<'a>,
    now: Timestamp,
) -> Result<Accepted<'a>, Refused> {
    let requestor = PrincipalId::new(fields.must("requestor"));
    let kind = fields.must("requestType");
    if kind == "ApprovalDecision" {
        let answer = Answer {
            request_id: fields.must("requestId"),
            requestor,
            requestor_type: None,
            verdict: match fields.must("decision") {
                "Approve" => Verdict::Approve,
                "Deny" => Verdict::Deny,
                other => panic!("{id}: {other}"),
            },
        };
        fields.must("justification"); // of the approver: recorded, no check of section 5.4 asks for it
        fields.end();
        return situation.answer(&answer, now);
    }
    let mut claims = Claims::default();
    if let Some(value) = fields.take("claims") {
        let mut given = Fields::new(id, value);
        claims.mfa = given.take("mfa").is_some_and(|flag| flag.as_bool().unwrap());
        claims.acrs = given.list("acrs").iter().map(|value| value.as_str().unwrap()).collect();
        given.end();
    }
    let request = Request {
        request_type: RequestType::parse(kind).unwrap(),
        target: match fields.text("kind") {
            None | Some("assignment") => Target::Assignment,
            Some("eligibility") => Target::Eligibility,
            other => panic!("{id}: {other:?}"),
        },
        requestor,
        requestor_type: None,
        principal_id: PrincipalId::new(fields.must("principalId")),
        principal_type: fields.text("principalType").map(|name| PrincipalType::parse(name).unwrap()),
        role_definition_id: fields.must("roleDefinitionId"),
        scope: Scope::parse(fields.must("scope")).unwrap(),
        justification: fields.text("justification"),
        ticket: fields.take("ticketInfo").map(|value| {
            let mut ticket = Fields::new(id, value);
            let read = Ticket { number: ticket.must("ticketNumber"), system: ticket.must("ticketSystem") };
            ticket.end();
            read
        }),
        start: fields.text("startDateTime").map(time),
        expiration: expiration(id, fields.take("expiration")),
        claims,
        linked_eligibility: None,
    };
    fields.end();
    situation.judge(&request, now)
}

#[test]
pub(crate) fn examples_of_the_reference() {
    let cases = include_str!("cases/pim-request.jsonl");
    let mut count = 0;
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        let mut fields = Fields::new(id, &case);
        assert_eq!(fields.must("area"), "pim-request");
        let _told = (fields.take("id"), fields.take("source"), fields.take("basis"), fields.take("note"));
        let mut given = Fields::new(id, fields.take("given").unwrap());
        let request = Fields::new(id, fields.take("request").unwrap());
        let mut expect = Fields::new(id, fields.take("expect").unwrap());
        fields.end();

        let mut request = request;
        let now = request.text("now").map(time).unwrap();
        let rules = policy_rules(id, given.take("policy").unwrap());
        let eligibilities: Vec<_> = given.list("eligibilities").iter().map(|e| schedule(id, e)).collect();
        let assignments: Vec<_> = given.list("assignments").iter().map(|a| schedule(id, a)).collect();
        let asked: Vec<_> = given.list("pending").iter().map(|p| pending(id, p, now)).collect();
        given.end();
        let situation = Situation {
            rules: &rules,
            options: Options::default(),
            eligibilities: &eligibilities,
            assignments: &assignments,
            pending: &asked,
            groups: &[],
            covers: &|above, below| above.contains(&below),
        };
        let judged = judge_example(id, &situation, request, now);

        assert_eq!(judged.is_ok(), expect.take("accepted").unwrap().as_bool().unwrap(), "{id}: {judged:?}");
        let status = match &judged {
            Ok(accepted) => Some(accepted.status()),
            Err(refused) => refused.status,
        };
        assert_eq!(status.map(Status::name), expect.text("status"), "{id}");
        if let Some(active) = expect.take("active") {
            let window = judged.as_ref().unwrap().window.unwrap();
            let printed = [Some(window.start), window.end].map(|at| at.unwrap().to_string());
            assert_eq!(serde_json::json!(printed), *active, "{id}");
        }
        if let Err(refused) = &judged {
            let rules: Vec<_> = refused.rules.iter().map(|rule| rule.name()).collect();
            let expected: Vec<_> = expect.list("rules").iter().map(|rule| rule.as_str().unwrap()).collect();
            assert_eq!(rules, expected, "{id}");
            match expect.text("error") {
                Some(error) => assert_eq!(refused.error.name(), error, "{id}"),
                None => assert_eq!(refused.error, ErrorCode::RoleAssignmentRequestNotPending, "{id}"),
            }
        }
        expect.end();
        count += 1;
    }
    println!("pim-request: {count} examples");
    assert_eq!(count, 32);
}

// === tables of our own ===

const SUB: &str = "/subscriptions/11111111-1111-1111-1111-111111111111";
const GROUP: &str = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/app";
const VAULT: &str = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/app/providers/Microsoft.KeyVault/vaults/v";
const ROLE: &str = "b24988ac-6180-42a0-ab88-20f7382dd24c";
const NOW: &str = "2025-03-01T10:00:00Z";

const ALICE: PrincipalId<'static> = PrincipalId::Text("alice");
const BOB: PrincipalId<'static> = PrincipalId::Text("bob");
const TEAM: PrincipalId<'static> = PrincipalId::Text("team");
const ADMIN: PrincipalId<'static> = PrincipalId::Text("admin");

fn scope(text: &str) -> Scope<'_> {
    Scope::parse(text).unwrap()
}

fn eligible(principal: PrincipalId<'static>, start: Option<&str>, end: Option<&str>) -> Schedule<'static> {
    Schedule {
        name: "e1",
        principal_id: principal,
        role_definition_id: ROLE,
        scope: scope(SUB),
        start: start.map(time),
        end: end.map(time),
        condition: None,
        assignment_type: AssignmentType::Assigned,
        linked_eligibility: None,
    }
}

fn activated(start: &str, end: &str) -> Schedule<'static> {
    Schedule {
        name: "a1",
        assignment_type: AssignmentType::Activated,
        linked_eligibility: Some("e1"),
        ..eligible(ALICE, Some(start), Some(end))
    }
}

fn ask(request_type: RequestType, target: Target) -> Request<'static> {
    let by_self = request_type.name().starts_with("Self");
    Request {
        request_type,
        target,
        requestor: if by_self { ALICE } else { ADMIN },
        requestor_type: None,
        principal_id: ALICE,
        principal_type: Some(PrincipalType::User),
        role_definition_id: ROLE,
        scope: scope(SUB),
        justification: Some("because"),
        ticket: None,
        start: None,
        expiration: Expiration::AfterDuration(duration("PT4H")),
        claims: Claims::default(),
        linked_eligibility: None,
    }
}

fn activate() -> Request<'static> {
    ask(RequestType::SelfActivate, Target::Assignment)
}

fn rules() -> PolicyRules {
    PolicyRules {
        activation: ActivationRules {
            max_duration: Some(duration("PT8H")),
            justification: true,
            ..ActivationRules::default()
        },
        eligible: AdminRules {
            expiration_required: true,
            max_duration: Some(duration("P365D")),
            ..AdminRules::default()
        },
        active: AdminRules {
            expiration_required: true,
            max_duration: Some(duration("P180D")),
            justification: true,
            ..AdminRules::default()
        },
        ignored: Vec::new(),
    }
}

/// A situation whose parts a test changes.
struct Given {
    rules: PolicyRules,
    options: Options,
    eligibilities: Vec<Schedule<'static>>,
    assignments: Vec<Schedule<'static>>,
    pending: Vec<PendingRequest<'static>>,
    groups: Vec<PrincipalId<'static>>,
}

impl Given {
    fn new() -> Self {
        Self {
            rules: rules(),
            options: Options::default(),
            eligibilities: vec![eligible(ALICE, None, None)],
            assignments: Vec::new(),
            pending: Vec::new(),
            groups: Vec::new(),
        }
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            rules: &self.rules,
            options: self.options,
            eligibilities: &self.eligibilities,
            assignments: &self.assignments,
            pending: &self.pending,
            groups: &self.groups,
            covers: &|above, below| above.contains(&below),
        }
    }

    /// Status and window, or code, rules and status.
    fn judge(&self, request: &Request<'static>, now: &str) -> Result<(Status, Option<Window>), Refused> {
        let judged = self.situation().judge(request, time(now));
        judged.map(|accepted| (accepted.status(), accepted.window))
    }

    fn answer(
        &self,
        requestor: PrincipalId<'static>,
        verdict: Verdict,
        now: &str,
    ) -> Result<(Status, Option<Window>), Refused> {
        let answer = Answer { request_id: "q1", requestor, requestor_type: None, verdict };
        let answered = self.situation().answer(&answer, time(now));
        answered.map(|accepted| (accepted.status(), accepted.window))
    }
}

fn window(start: &str, end: &str) -> Option<Window> {
    Some(Window { start: time(start), end: Some(time(end)) })
}

fn error(judged: Result<(Status, Option<Window>), Refused>) -> ErrorCode {
    judged.unwrap_err().error
}

#[test]
fn an_eligibility_counts_from_its_start_to_before_its_end() {
    let mut given = Given::new();
    for (start, end, ok) in [
        (Some(NOW), None, true),
        (Some("2025-03-01T10:00:01Z"), None, false),
        (None, Some("2025-03-01T10:00:01Z"), true),
        (None, Some(NOW), false),
    ] {
        given.eligibilities = vec![eligible(ALICE, start, end)];
        let judged = given.judge(&activate(), NOW);
        assert_eq!(judged.is_ok(), ok, "{start:?} {end:?}: {judged:?}");
        if let Err(refused) = judged {
            assert_eq!(refused.rules, [Rule::EligibilityRule]);
        }
    }
}

#[test]
fn who_may_activate() {
    let mut given = Given::new();
    given.eligibilities = vec![eligible(TEAM, None, None)];
    assert_eq!(given.judge(&activate(), NOW).unwrap_err().rules, [Rule::EligibilityRule]);
    given.groups = vec![TEAM];
    assert_eq!(
        given.judge(&activate(), NOW).unwrap().0,
        Status::Provisioned,
        "a member, for the own object id"
    );
    let for_another = Request { principal_id: BOB, ..activate() };
    assert_eq!(error(given.judge(&for_another, NOW)), ErrorCode::AuthorizationFailed);
    let workload = Request { requestor_type: Some(PrincipalType::ServicePrincipal), ..activate() };
    assert_eq!(given.judge(&workload, NOW).unwrap_err().rules, [Rule::EligibilityRule]);
    let full_id = format!("{SUB}/providers/Microsoft.Authorization/roleDefinitions/{}", ROLE.to_uppercase());
    let by_full_id = Request { role_definition_id: Box::leak(full_id.into_boxed_str()), ..activate() };
    assert_eq!(given.judge(&by_full_id, NOW).unwrap().0, Status::Provisioned);
    let another_role = Request { role_definition_id: "acdd72a7-3385-48ef-bd42-f606fba81ae7", ..activate() };
    assert!(given.judge(&another_role, NOW).is_err());
    let named = Request { linked_eligibility: Some("/x/roleEligibilitySchedules/E1"), ..activate() };
    assert!(given.judge(&named, NOW).is_ok());
    let named = Request { linked_eligibility: Some("e2"), ..activate() };
    assert_eq!(given.judge(&named, NOW).unwrap_err().rules, [Rule::EligibilityRule]);
}

#[test]
fn management_groups_cover_by_the_hierarchy() {
    let mut given = Given::new();
    given.eligibilities[0].scope = scope("/providers/Microsoft.Management/managementGroups/corp");
    assert!(given.judge(&activate(), NOW).is_err(), "by text a management group holds no subscription");
    let covers = |above: Scope<'_>, below: Scope<'_>| {
        above.management_group() == Some("corp") && below.subscription().is_some()
    };
    let situation = Situation { covers: &covers, ..given.situation() };
    let judged = situation.judge(&activate(), time(NOW)).map(|accepted| accepted.status());
    assert_eq!(judged, Ok(Status::Provisioned));
}

#[test]
fn the_longest_eligibility_is_activated_from_and_cuts() {
    let mut given = Given::new();
    let ends = |name, end| Schedule { name, condition: Some(name), ..eligible(ALICE, None, end) };
    given.eligibilities =
        vec![ends("short", Some("2025-03-01T11:00:00Z")), ends("long", Some("2025-03-01T12:30:00Z"))];
    let accepted = given.situation().judge(&activate(), time(NOW)).unwrap();
    assert_eq!(accepted.window, window(NOW, "2025-03-01T12:30:00Z"));
    assert_eq!((accepted.linked_eligibility, accepted.condition), (Some("long"), Some("long")));
    given.eligibilities.push(ends("permanent", None));
    let accepted = given.situation().judge(&activate(), time(NOW)).unwrap();
    assert_eq!(accepted.window, window(NOW, "2025-03-01T14:00:00Z"));
    assert_eq!(accepted.linked_eligibility, Some("permanent"));
    // A start behind the eligibility's end leaves nothing.
    given.eligibilities.truncate(1);
    let late = Request { start: Some(time("2025-03-01T11:00:00Z")), ..activate() };
    assert_eq!(error(given.judge(&late, NOW)), ErrorCode::InvalidRoleAssignmentRequestSchedule);
    // What is left may be shorter than what could be asked for.
    assert_eq!(
        given.judge(&activate(), "2025-03-01T10:58:00Z").unwrap().1,
        window("2025-03-01T10:58:00Z", "2025-03-01T11:00:00Z")
    );
}

#[test]
fn periods_of_five_minutes_and_of_the_maximum() {
    let given = Given::new();
    let wrapped = ErrorCode::RoleAssignmentRequestPolicyValidationFailed;
    let schedule = ErrorCode::InvalidRoleAssignmentRequestSchedule;
    let after = |text| Expiration::AfterDuration(duration(text));
    let until = |text| Expiration::AfterDateTime(time(text));
    for (expiration, expected) in [
        (after("PT5M"), Ok(())),
        (after("PT4M59S"), Err(schedule)),
        (after("PT0S"), Err(schedule)),
        (until("2025-03-01T10:05:00Z"), Ok(())),
        (until("2025-03-01T10:04:59Z"), Err(schedule)),
        (until("2025-03-01T09:00:00Z"), Err(schedule)),
        (until("2025-03-01T18:00:00Z"), Ok(())),
        (until("2025-03-01T18:00:01Z"), Err(wrapped)),
        (after("PT8H"), Ok(())),
        (after("PT480M"), Ok(())),
        (after("PT8H1S"), Err(wrapped)),
        (after("P1D"), Err(wrapped)),
        (after("P9000Y"), Err(schedule)),
        (Expiration::NoExpiration, Err(wrapped)),
    ] {
        let judged = given.judge(&Request { expiration, ..activate() }, NOW);
        assert_eq!(judged.map(|_| ()).map_err(|refused| refused.error), expected, "{expiration:?}");
    }
    // A month counts in the calendar: from 1 February it is shorter than 30 days.
    let mut given = Given::new();
    given.rules.eligible.max_duration = Some(duration("P30D"));
    let month = Request { expiration: after("P1M"), ..ask(RequestType::AdminAssign, Target::Eligibility) };
    given.eligibilities.clear();
    assert!(given.judge(&month, "2025-02-01T00:00:00Z").is_ok());
    assert_eq!(given.judge(&month, "2025-03-01T00:00:00Z").unwrap_err().rules, [Rule::ExpirationRule]);
}

#[test]
fn starts_that_are_past_present_and_future() {
    let given = Given::new();
    for (start, expected) in [
        ("2025-03-01T09:00:00Z", (Status::Provisioned, window(NOW, "2025-03-01T14:00:00Z"))),
        (NOW, (Status::Provisioned, window(NOW, "2025-03-01T14:00:00Z"))),
        (
            "2025-03-01T10:00:01Z",
            (Status::ScheduleCreated, window("2025-03-01T10:00:01Z", "2025-03-01T14:00:01Z")),
        ),
    ] {
        let judged = given.judge(&Request { start: Some(time(start)), ..activate() }, NOW);
        assert_eq!(judged, Ok(expected), "{start}");
    }
}

#[test]
fn failing_rules_are_told_together_in_their_order() {
    let mut given = Given::new();
    given.rules.activation.mfa = true;
    given.rules.activation.ticketing = true;
    given.rules.activation.authentication_context = Some("c1".into());
    let bare = Request {
        justification: Some(" \t"),
        ticket: Some(Ticket { number: " ", system: "x" }),
        expiration: Expiration::AfterDuration(duration("PT9H")),
        ..activate()
    };
    let refused = given.judge(&bare, NOW).unwrap_err();
    assert_eq!(
        refused.rules,
        [Rule::MfaRule, Rule::JustificationRule, Rule::TicketingRule, Rule::ExpirationRule]
    );
    assert_eq!(
        refused.to_string(),
        "the policy of the role does not allow the request: MfaRule, JustificationRule, TicketingRule, ExpirationRule"
    );
    // One by one they go; the authentication context comes last and by itself.
    let claims = Claims { mfa: true, acrs: vec!["c2"] };
    let good =
        Request { ticket: Some(Ticket { number: "1", system: "" }), claims: claims.clone(), ..activate() };
    assert_eq!(error(given.judge(&good, NOW)), ErrorCode::RoleAssignmentRequestAcrsValidationFailed);
    let no_ticket = Request { ticket: None, claims, ..activate() };
    assert_eq!(given.judge(&no_ticket, NOW).unwrap_err().rules, [Rule::TicketingRule]);
    // Approval changes nothing about what must be there at submission.
    given.rules.activation.approval = Some(Approval { approvers: vec!["bob".into()] });
    assert_eq!(given.judge(&bare, NOW).unwrap_err().rules.len(), 4);
}

#[test]
fn groups_of_checks_come_in_their_order() {
    let mut given = Given::new();
    given.rules.activation.mfa = true;
    given.rules.activation.authentication_context = Some("c1".into());
    // Everything is wrong; one after the other is put right.
    let mut request = Request { expiration: Expiration::AfterDuration(duration("PT1M")), ..activate() };
    given.eligibilities.clear();
    given.assignments = vec![activated("2025-03-01T09:00:00Z", "2025-03-01T12:00:00Z")];
    given.pending = vec![asked(RequestType::SelfActivate, Target::Assignment)];
    assert_eq!(given.judge(&request, NOW).unwrap_err().rules, [Rule::EligibilityRule]);
    given.eligibilities = vec![eligible(ALICE, None, None)];
    assert_eq!(error(given.judge(&request, NOW)), ErrorCode::RoleAssignmentExists);
    given.assignments = vec![activated("2025-03-01T09:00:00Z", NOW)];
    assert_eq!(error(given.judge(&request, NOW)), ErrorCode::PendingRoleAssignmentRequest);
    given.pending.clear();
    assert_eq!(error(given.judge(&request, NOW)), ErrorCode::InvalidRoleAssignmentRequestSchedule);
    request.expiration = Expiration::AfterDuration(duration("PT1H"));
    assert_eq!(given.judge(&request, NOW).unwrap_err().rules, [Rule::MfaRule]);
    request.claims.mfa = true;
    assert_eq!(error(given.judge(&request, NOW)), ErrorCode::RoleAssignmentRequestAcrsValidationFailed);
    request.claims.acrs = vec!["c1"];
    assert_eq!(given.judge(&request, NOW).unwrap().0, Status::Provisioned);
}

#[test]
fn what_stands_in_the_way_is_the_same_triple() {
    let mut given = Given::new();
    let running = activated("2025-03-01T09:00:00Z", "2025-03-01T12:00:00Z");
    for (name, other, blocks) in [
        ("same", running, true),
        ("assigned", Schedule { assignment_type: AssignmentType::Assigned, ..running }, true),
        ("later", activated("2025-03-01T11:00:00Z", "2025-03-01T12:00:00Z"), true),
        ("ended", activated("2025-03-01T09:00:00Z", NOW), false),
        ("another scope", Schedule { scope: scope(GROUP), ..running }, false),
        ("another principal", Schedule { principal_id: BOB, ..running }, false),
        (
            "another role",
            Schedule { role_definition_id: "acdd72a7-3385-48ef-bd42-f606fba81ae7", ..running },
            false,
        ),
    ] {
        given.assignments = vec![other];
        assert_eq!(given.judge(&activate(), NOW).is_err(), blocks, "{name}");
    }
    given.assignments.clear();
    for (state, blocks) in [
        (State::PendingApproval { since: time("2025-02-28T10:00:01Z") }, true),
        (State::PendingApproval { since: time("2025-02-28T10:00:00Z") }, false),
        (State::ScheduleCreated { start: time("2025-03-02T10:00:00Z") }, true),
        (State::PendingProvisioning, true),
        (State::Denied, false),
        (State::Canceled, false),
        (State::TimedOut, false),
        (State::Revoked, false),
    ] {
        given.pending =
            vec![PendingRequest { state, ..asked(RequestType::SelfActivate, Target::Assignment) }];
        assert_eq!(given.judge(&activate(), NOW).is_err(), blocks, "{state:?}");
    }
    given.pending = vec![asked(RequestType::SelfExtend, Target::Eligibility)];
    assert!(given.judge(&activate(), NOW).is_ok(), "about the eligibility, not the assignment");
}

#[test]
fn deactivation_after_five_minutes() {
    let mut given = Given::new();
    let request = ask(RequestType::SelfDeactivate, Target::Assignment);
    for (start, expected) in [
        ("2025-03-01T09:55:00Z", Ok(())),
        ("2025-03-01T09:55:01Z", Err(ErrorCode::ActiveDurationTooShort)),
        (NOW, Err(ErrorCode::ActiveDurationTooShort)),
        ("2025-03-01T10:00:01Z", Err(ErrorCode::RoleAssignmentDoesNotExist)),
    ] {
        given.assignments = vec![activated(start, "2025-03-01T14:00:00Z")];
        let judged = given.judge(&request, NOW).map(|_| ()).map_err(|refused| refused.error);
        assert_eq!(judged, expected, "{start}");
    }
    given.assignments = vec![Schedule {
        assignment_type: AssignmentType::Assigned,
        ..activated("2025-03-01T09:00:00Z", "2025-03-01T14:00:00Z")
    }];
    assert_eq!(
        error(given.judge(&request, NOW)),
        ErrorCode::RoleAssignmentDoesNotExist,
        "was never activated"
    );
}

#[test]
fn what_may_be_created() {
    let mut given = Given::new();
    given.eligibilities.clear();
    let types = [
        (Some(PrincipalType::User), true),
        (Some(PrincipalType::Group), true),
        (None, true),
        (Some(PrincipalType::ServicePrincipal), false),
        (Some(PrincipalType::ForeignGroup), false),
        (Some(PrincipalType::Device), false),
    ];
    for (principal_type, eligible) in types {
        let request = Request { principal_type, ..ask(RequestType::AdminAssign, Target::Eligibility) };
        let judged = given.judge(&request, NOW).map(|_| ()).map_err(|refused| refused.error);
        let expected = if eligible { Ok(()) } else { Err(ErrorCode::EligiblePrincipalTypeNotAllowed) };
        assert_eq!(judged, expected, "{principal_type:?}");
        let active = Request { principal_type, ..ask(RequestType::AdminAssign, Target::Assignment) };
        assert!(given.judge(&active, NOW).is_ok(), "{principal_type:?}");
    }
    let scopes = [
        ("/providers/Microsoft.Management/managementGroups/corp", true, true),
        (SUB, true, true),
        (GROUP, true, true),
        (VAULT, false, true),
        ("/", false, false),
        ("/providers/Microsoft.Capacity", false, false),
    ];
    for (at, by_default, with_switch) in scopes {
        for (eligible_at_resource, expected) in [(false, by_default), (true, with_switch)] {
            given.options = Options { eligible_at_resource };
            let request = Request { scope: scope(at), ..ask(RequestType::AdminAssign, Target::Eligibility) };
            let judged = given.judge(&request, NOW).map(|_| ()).map_err(|refused| refused.error);
            let expected = if expected { Ok(()) } else { Err(ErrorCode::EligibleScopeNotAllowed) };
            assert_eq!(judged, expected, "{at}");
        }
        let active = Request { scope: scope(at), ..ask(RequestType::AdminAssign, Target::Assignment) };
        assert!(given.judge(&active, NOW).is_ok(), "{at}");
    }
}

#[test]
fn what_may_not_be_created_is_not_prolonged_either() {
    let mut given = Given::new();
    for request_type in
        [RequestType::AdminUpdate, RequestType::AdminExtend, RequestType::AdminRenew, RequestType::SelfRenew]
    {
        given.eligibilities = vec![Schedule { scope: scope(VAULT), ..eligible(ALICE, None, Some(NOW)) }];
        let request = Request { scope: scope(VAULT), ..ask(request_type, Target::Eligibility) };
        assert_eq!(error(given.judge(&request, NOW)), ErrorCode::EligibleScopeNotAllowed);
        let removal = Request { request_type: RequestType::AdminRemove, ..request };
        assert!(given.judge(&removal, "2025-03-01T09:00:00Z").is_ok(), "but removed");
    }
}

#[test]
fn administrators_follow_their_own_rules() {
    let mut given = Given::new();
    given.eligibilities.clear();
    given.rules.active.mfa = true;
    given.rules.active.ticketing = true;
    let bare = Request {
        justification: None,
        expiration: Expiration::NoExpiration,
        ..ask(RequestType::AdminAssign, Target::Assignment)
    };
    assert_eq!(
        given.judge(&bare, NOW).unwrap_err().rules,
        [Rule::MfaRule, Rule::JustificationRule, Rule::TicketingRule, Rule::ExpirationRule]
    );
    for (expiration_required, text, ok) in
        [(true, "P180D", true), (true, "P180DT1S", false), (false, "P180DT1S", true)]
    {
        given.rules.active = AdminRules { expiration_required, ..rules().active };
        let expiration = Expiration::AfterDuration(duration(text));
        let request = Request { expiration, ..ask(RequestType::AdminAssign, Target::Assignment) };
        assert_eq!(given.judge(&request, NOW).is_ok(), ok, "{expiration_required} {text}");
    }
    let permanent =
        Request { expiration: Expiration::NoExpiration, ..ask(RequestType::AdminAssign, Target::Assignment) };
    assert_eq!(
        given.judge(&permanent, NOW),
        Ok((Status::Provisioned, Some(Window { start: time(NOW), end: None })))
    );
    // Update wants something there, assign wants nothing there.
    let update = ask(RequestType::AdminUpdate, Target::Assignment);
    let assign = ask(RequestType::AdminAssign, Target::Assignment);
    assert_eq!(error(given.judge(&update, NOW)), ErrorCode::RoleAssignmentDoesNotExist);
    given.assignments = vec![activated("2025-03-01T09:00:00Z", "2025-03-01T12:00:00Z")];
    assert_eq!(given.judge(&update, NOW).unwrap().0, Status::Provisioned);
    assert_eq!(error(given.judge(&assign, NOW)), ErrorCode::RoleAssignmentExists);
    let assign = ask(RequestType::AdminAssign, Target::Eligibility);
    assert!(given.judge(&assign, NOW).is_ok(), "active is not eligible");
}

#[test]
fn removing_an_eligibility_ends_its_activations() {
    let mut given = Given::new();
    given.assignments = vec![
        activated("2025-03-01T09:00:00Z", "2025-03-01T12:00:00Z"),
        Schedule { name: "over", ..activated("2025-03-01T08:00:00Z", "2025-03-01T09:00:00Z") },
        Schedule {
            name: "other",
            linked_eligibility: Some("e2"),
            ..activated("2025-03-01T09:00:00Z", "2025-03-01T12:00:00Z")
        },
    ];
    let remove = ask(RequestType::AdminRemove, Target::Eligibility);
    let accepted = given.situation().judge(&remove, time(NOW)).unwrap();
    assert_eq!((accepted.status(), accepted.ends), (Status::Revoked, vec!["e1", "a1"]));
    given.eligibilities.clear();
    assert_eq!(error(given.judge(&remove, NOW)), ErrorCode::RoleAssignmentDoesNotExist);
}

fn asked(request_type: RequestType, target: Target) -> PendingRequest<'static> {
    PendingRequest {
        request_id: "q1",
        request_type,
        target,
        requestor: ALICE,
        principal_id: ALICE,
        groups: &[],
        role_definition_id: ROLE,
        scope: scope(SUB),
        state: match request_type {
            RequestType::SelfActivate => State::waiting_for_approval(time("2025-03-01T09:00:00Z")),
            _ => State::PendingAdminDecision,
        },
        start: None,
        expiration: Expiration::AfterDuration(duration("PT4H")),
        linked_eligibility: None,
    }
}

fn waiting() -> Given {
    let mut given = Given::new();
    given.rules.activation.approval =
        Some(Approval { approvers: vec!["bob".into(), "team".into(), "alice".into()] });
    given.pending = vec![asked(RequestType::SelfActivate, Target::Assignment)];
    given
}

#[test]
fn who_may_answer() {
    let mut given = waiting();
    for (requestor, verdict, groups, expected) in [
        (BOB, Verdict::Approve, vec![], Ok(Status::Provisioned)),
        (BOB, Verdict::Deny, vec![], Ok(Status::Denied)),
        (BOB, Verdict::Cancel, vec![], Err(ErrorCode::AuthorizationFailed)),
        (ADMIN, Verdict::Approve, vec![], Err(ErrorCode::AuthorizationFailed)),
        (ADMIN, Verdict::Approve, vec![TEAM], Ok(Status::Provisioned)),
        (ALICE, Verdict::Approve, vec![TEAM], Err(ErrorCode::AuthorizationFailed)),
        (ALICE, Verdict::Deny, vec![], Err(ErrorCode::AuthorizationFailed)),
        (ALICE, Verdict::Cancel, vec![], Ok(Status::Canceled)),
    ] {
        given.groups = groups;
        let answered = given.answer(requestor, verdict, NOW);
        let answered = answered.map(|(status, _)| status).map_err(|refused| refused.error);
        assert_eq!(answered, expected, "{requestor} {verdict:?}");
    }
    let answer = |requestor_type, request_id| Answer {
        request_id,
        requestor: BOB,
        requestor_type: Some(requestor_type),
        verdict: Verdict::Approve,
    };
    let workload = answer(PrincipalType::ServicePrincipal, "q1");
    let refused = given.situation().answer(&workload, time(NOW)).unwrap_err();
    assert_eq!(refused.error, ErrorCode::AuthorizationFailed);
    let unknown = answer(PrincipalType::User, "q2");
    let refused = given.situation().answer(&unknown, time(NOW)).unwrap_err();
    assert_eq!(refused.error, ErrorCode::RoleAssignmentRequestDoesNotExist);
    // No approver named, nobody approves.
    given.rules.activation.approval = None;
    assert_eq!(error(given.answer(BOB, Verdict::Approve, NOW)), ErrorCode::AuthorizationFailed);
}

#[test]
fn the_first_answer_counts_and_a_day_is_the_limit() {
    let mut given = waiting();
    for (state, now, expected) in [
        (State::PendingApproval { since: time("2025-02-28T10:00:01Z") }, NOW, Ok(Status::Provisioned)),
        (State::PendingApproval { since: time("2025-02-28T10:00:00Z") }, NOW, Err(Status::TimedOut)),
        (State::Denied, NOW, Err(Status::Denied)),
        (State::Provisioned, NOW, Err(Status::Provisioned)),
        (State::Canceled, NOW, Err(Status::Canceled)),
        (State::PendingProvisioning, NOW, Err(Status::PendingProvisioning)),
    ] {
        given.pending[0].state = state;
        let answered = given.answer(BOB, Verdict::Approve, now);
        let answered = answered.map(|(status, _)| status).map_err(|refused| {
            assert_eq!(refused.error, ErrorCode::RoleAssignmentRequestNotPending);
            refused.status.unwrap()
        });
        assert_eq!(answered, expected, "{state:?}");
    }
}

#[test]
fn an_approved_period_starts_with_the_approval() {
    let mut given = waiting();
    given.eligibilities = vec![eligible(ALICE, None, Some("2025-03-01T16:00:00Z"))];
    let approve = |given: &Given, now: &str| given.answer(BOB, Verdict::Approve, now);
    assert_eq!(approve(&given, NOW).unwrap(), (Status::Provisioned, window(NOW, "2025-03-01T14:00:00Z")));
    assert_eq!(
        approve(&given, "2025-03-01T13:00:00Z").unwrap().1,
        window("2025-03-01T13:00:00Z", "2025-03-01T16:00:00Z"),
        "cut at the end of the eligibility"
    );
    assert_eq!(approve(&given, "2025-03-01T16:00:00Z").unwrap_err().rules, [Rule::EligibilityRule]);
    given.pending[0].start = Some(time("2025-03-01T09:30:00Z"));
    assert_eq!(approve(&given, NOW).unwrap().1, window(NOW, "2025-03-01T14:00:00Z"), "at its full length");
    given.pending[0].start = Some(time("2025-03-01T11:00:00Z"));
    assert_eq!(
        approve(&given, NOW).unwrap(),
        (Status::ScheduleCreated, window("2025-03-01T11:00:00Z", "2025-03-01T15:00:00Z"))
    );
    given.pending[0].expiration = Expiration::AfterDateTime(time("2025-03-01T11:30:00Z"));
    assert_eq!(
        error(approve(&given, "2025-03-01T11:26:00Z")),
        ErrorCode::InvalidRoleAssignmentRequestSchedule,
        "hardly anything of the period is left"
    );
    // Through a group of who asked, not of who approves.
    given.pending[0] = asked(RequestType::SelfActivate, Target::Assignment);
    given.eligibilities = vec![eligible(TEAM, None, None)];
    given.groups = vec![TEAM];
    assert!(approve(&given, NOW).is_err());
    given.pending[0].groups = &[TEAM];
    assert_eq!(approve(&given, NOW).unwrap().0, Status::Provisioned);
}

#[test]
fn when_to_extend_and_renew() {
    let mut given = Given::new();
    let invalid = ErrorCode::InvalidRoleAssignmentRequestSchedule;
    let (pending, done) = (Status::PendingAdminDecision, Status::Provisioned);
    let days = |text| Expiration::AfterDuration(duration(text));
    use RequestType::{AdminExtend, AdminRenew, SelfExtend, SelfRenew};
    for (request_type, end, expiration, expected) in [
        (SelfExtend, Some("2025-03-15T10:00:00Z"), days("P90D"), Ok(pending)),
        (SelfExtend, Some("2025-03-15T10:00:01Z"), days("P90D"), Err(invalid)),
        (SelfExtend, Some("2025-03-01T10:00:01Z"), days("P90D"), Ok(pending)),
        (SelfExtend, Some(NOW), days("P90D"), Err(invalid)),
        (SelfExtend, None, days("P90D"), Err(invalid)),
        (SelfExtend, Some("2025-03-15T10:00:00Z"), days("P14D"), Err(invalid)),
        (SelfRenew, Some(NOW), days("P90D"), Ok(pending)),
        (SelfRenew, Some("2025-03-01T10:00:01Z"), days("P90D"), Err(invalid)),
        (SelfRenew, Some("2025-01-30T10:00:00Z"), days("P90D"), Ok(pending)),
        (SelfRenew, Some("2025-01-30T09:59:59Z"), days("P90D"), Err(invalid)),
        (SelfRenew, None, days("P90D"), Err(invalid)),
        (AdminExtend, Some("2025-12-31T00:00:00Z"), days("P365D"), Ok(done)),
        (AdminExtend, Some(NOW), days("P365D"), Err(invalid)),
        (AdminRenew, Some("2024-01-01T00:00:00Z"), days("P365D"), Ok(done)),
        (AdminRenew, Some("2025-03-01T10:00:01Z"), days("P365D"), Err(invalid)),
    ] {
        given.eligibilities = vec![eligible(ALICE, None, end)];
        let request = Request { expiration, ..ask(request_type, Target::Eligibility) };
        let judged = given.judge(&request, NOW).map(|(status, _)| status).map_err(|refused| refused.error);
        assert_eq!(judged, expected, "{request_type:?} {end:?} {expiration:?}");
    }
    for request_type in [SelfRenew, AdminRenew] {
        given.eligibilities = vec![eligible(ALICE, None, Some(NOW))];
        for expiration in [days("P366D"), Expiration::NoExpiration] {
            let request = Request { expiration, ..ask(request_type, Target::Eligibility) };
            assert_eq!(given.judge(&request, NOW).unwrap_err().rules, [Rule::ExpirationRule]);
        }
    }
}

#[test]
fn members_do_not_extend_for_their_group() {
    let mut given = Given::new();
    given.eligibilities = vec![eligible(TEAM, None, Some("2025-03-10T00:00:00Z"))];
    let request = Request {
        expiration: Expiration::AfterDuration(duration("P90D")),
        ..ask(RequestType::SelfExtend, Target::Eligibility)
    };
    assert_eq!(error(given.judge(&request, NOW)), ErrorCode::RoleAssignmentDoesNotExist);
    given.groups = vec![TEAM];
    assert_eq!(error(given.judge(&request, NOW)), ErrorCode::AuthorizationFailed);
    given.eligibilities.push(eligible(ALICE, None, Some("2025-03-10T00:00:00Z")));
    assert_eq!(given.judge(&request, NOW).unwrap().0, Status::PendingAdminDecision);
    given.pending = vec![asked(RequestType::SelfExtend, Target::Eligibility)];
    assert_eq!(error(given.judge(&request, NOW)), ErrorCode::PendingRoleAssignmentRequest);
}

#[test]
fn administrators_decide_extensions_and_renewals() {
    let mut given = Given::new();
    let days = Expiration::AfterDuration(duration("P90D"));
    given.eligibilities = vec![eligible(ALICE, None, Some("2025-03-10T00:00:00Z"))];
    given.pending =
        vec![PendingRequest { expiration: days, ..asked(RequestType::SelfExtend, Target::Eligibility) }];
    assert_eq!(
        given.answer(ADMIN, Verdict::Approve, NOW),
        Ok((Status::Provisioned, window(NOW, "2025-05-30T10:00:00Z")))
    );
    assert_eq!(given.answer(ADMIN, Verdict::Deny, NOW).unwrap().0, Status::AdminDenied);
    assert_eq!(error(given.answer(ALICE, Verdict::Approve, NOW)), ErrorCode::AuthorizationFailed);
    assert_eq!(
        error(given.answer(ADMIN, Verdict::Approve, "2025-03-10T00:00:00Z")),
        ErrorCode::InvalidRoleAssignmentRequestSchedule,
        "ended meanwhile"
    );
    given.pending =
        vec![PendingRequest { expiration: days, ..asked(RequestType::SelfRenew, Target::Eligibility) }];
    assert_eq!(given.answer(ADMIN, Verdict::Approve, "2025-04-30T00:00:00Z").unwrap().0, Status::Provisioned);
    given.rules.eligible.max_duration = Some(duration("P30D"));
    let refused = given.answer(ADMIN, Verdict::Approve, "2025-04-30T00:00:00Z").unwrap_err();
    assert_eq!(refused.rules, [Rule::ExpirationRule]);
}

#[test]
fn every_transition_of_the_machine() {
    let now = time(NOW);
    let later = now + SignedDuration::from_hours(1);
    let pending = State::waiting_for_approval(now);
    let states = [
        pending,
        State::PendingAdminDecision,
        State::PendingProvisioning,
        State::AdminApproved,
        State::ScheduleCreated { start: later },
        State::Provisioned,
        State::Failed,
        State::Canceled,
        State::Denied,
        State::TimedOut,
        State::AdminDenied,
        State::Revoked,
    ];
    let events = [
        Event::Approve,
        Event::Deny,
        Event::Cancel,
        Event::AdminApprove,
        Event::AdminDeny,
        Event::Provision { start: now },
        Event::Provision { start: later },
        Event::Revoke,
    ];
    let legal = |state: State, event: Event| match (state, event) {
        (State::PendingApproval { .. }, Event::Approve) => Some(State::PendingProvisioning),
        (State::PendingApproval { .. }, Event::Deny) => Some(State::Denied),
        (State::PendingApproval { .. }, Event::Cancel) => Some(State::Canceled),
        (State::PendingAdminDecision, Event::AdminApprove) => Some(State::AdminApproved),
        (State::PendingAdminDecision, Event::AdminDeny) => Some(State::AdminDenied),
        (State::PendingProvisioning | State::AdminApproved, Event::Provision { start }) if start == now => {
            Some(State::Provisioned)
        }
        (State::PendingProvisioning | State::AdminApproved, Event::Provision { start }) => {
            Some(State::ScheduleCreated { start })
        }
        (State::ScheduleCreated { .. } | State::Provisioned, Event::Revoke) => Some(State::Revoked),
        _ => None,
    };
    let mut taken = 0;
    for state in states {
        for event in events {
            match (state.apply(event, now), legal(state, event)) {
                (Ok(next), Some(expected)) => {
                    assert_eq!(next, expected, "{state:?} {event:?}");
                    taken += 1;
                }
                (Err(refusal), None) => {
                    assert_eq!((refusal.status, refusal.event), (state.status(), event));
                }
                other => panic!("{state:?} {event:?}: {other:?}"),
            }
        }
    }
    assert_eq!(taken, 11);
    // Time.
    let day = SignedDuration::from_hours(24);
    let second = SignedDuration::from_secs(1);
    assert_eq!(pending.at(now + day - second), pending);
    assert_eq!(pending.at(now + day), State::TimedOut);
    assert_eq!(pending.apply(Event::Approve, now + day).unwrap_err().status, Status::TimedOut);
    let created = State::ScheduleCreated { start: later };
    assert_eq!(created.at(later - second), created);
    assert_eq!(created.at(later), State::Provisioned);
    for state in states {
        assert_eq!(state.status().counts(), state == State::Provisioned, "{state:?}");
    }
}

#[test]
fn names_of_statuses_and_requests() {
    for status in Status::ALL {
        assert_eq!(Status::parse(&status.name().to_lowercase()), Some(status));
        assert_eq!(status.counts(), status.name() == "Provisioned");
    }
    assert_eq!(Status::parse("provisionedX"), None);
    for kind in RequestType::ALL {
        assert_eq!(RequestType::parse(kind.name()), Some(kind));
    }
}

// === policy documents ===

const POLICY: &str = r##"{
  "id": "/subscriptions/x/providers/Microsoft.Authorization/roleManagementPolicies/p",
  "properties": {
    "displayName": "x",
    "rules": [
      { "id": "Expiration_Admin_Eligibility", "ruleType": "RoleManagementPolicyExpirationRule",
        "isExpirationRequired": false, "maximumDuration": "P365D", "target": { "caller": "Admin" } },
      { "id": "Enablement_Admin_Eligibility", "ruleType": "RoleManagementPolicyEnablementRule", "enabledRules": [] },
      { "id": "Notification_Admin_Admin_Eligibility", "ruleType": "RoleManagementPolicyNotificationRule" },
      { "id": "Expiration_Admin_Assignment", "isExpirationRequired": true, "maximumDuration": "P90D" },
      { "id": "Enablement_Admin_Assignment", "enabledRules": ["Justification", "MultiFactorAuthentication"] },
      { "id": "Expiration_EndUser_Assignment", "@odata.type": "#microsoft.graph.unifiedRoleManagementPolicyExpirationRule",
        "isExpirationRequired": true, "maximumDuration": "PT7H" },
      { "id": "Enablement_EndUser_Assignment", "enabledRules": ["Ticketing", "justification"] },
      { "id": "Approval_EndUser_Assignment", "setting": {
          "isApprovalRequired": true, "approvalMode": "SingleStage",
          "approvalStages": [ { "approvalStageTimeOutInDays": 1, "primaryApprovers": [
            { "id": "b1", "description": "B", "isBackup": false, "userType": "User" },
            { "@odata.type": "#microsoft.graph.groupMembers", "groupId": "g1" } ] } ] } },
      { "id": "AuthenticationContext_EndUser_Assignment", "isEnabled": true, "claimValue": "c1" },
      { "id": "PimOnlyMode_Admin_Assignment", "mode": "ReportOnly" }
    ]
  }
}"##;

#[test]
fn policies_as_the_service_writes_them() {
    let document: Value = serde_json::from_str(POLICY).unwrap();
    let check = |rules: PolicyRules| {
        let activation = rules.activation;
        assert_eq!(activation.max_duration.unwrap().to_string(), "PT7H");
        assert_eq!((activation.mfa, activation.justification, activation.ticketing), (false, true, true));
        assert_eq!(activation.authentication_context.as_deref(), Some("c1"));
        assert_eq!(activation.approval.unwrap().approvers, ["b1", "g1"]);
        assert!(!rules.eligible.expiration_required && rules.active.expiration_required);
        assert_eq!(rules.active.max_duration.unwrap().to_string(), "P90D");
        assert!(rules.active.mfa && rules.active.justification && !rules.active.ticketing);
        assert!(!rules.eligible.mfa);
        assert_eq!(rules.ignored, ["PimOnlyMode_Admin_Assignment"]);
    };
    check(PolicyRules::from_json(&document).unwrap());
    let list = &document["properties"]["rules"];
    check(PolicyRules::from_json(list).unwrap());
    check(PolicyRules::from_json(&serde_json::json!({ "Properties": { "EffectiveRules": list } })).unwrap());
    let off = serde_json::json!([
        { "id": "approval_enduser_assignment", "setting": { "isApprovalRequired": false } },
        { "id": "AuthenticationContext_EndUser_Assignment", "isEnabled": false, "claimValue": "" },
    ]);
    let off = PolicyRules::from_json(&off).unwrap();
    assert!(off.activation.approval.is_none() && off.activation.authentication_context.is_none());
}

#[test]
fn policies_with_errors_tell_them_all() {
    let document = serde_json::json!({ "rules": [
        { "id": "Expiration_EndUser_Assignment", "maximumDuration": "8 hours" },
        { "id": "Enablement_EndUser_Assignment", "enabledRules": ["Mfa", 3] },
        { "id": "Approval_EndUser_Assignment", "setting": { "isApprovalRequired": true, "approvalStages": [
            { "primaryApprovers": [{ "userType": "User" }] } ] } },
        { "id": "AuthenticationContext_EndUser_Assignment", "isEnabled": true },
        { "id": "Expiration_Admin_Assignment", "isExpirationRequired": "yes", "maximumDuration": 3 },
        { "id": "expiration_admin_assignment" },
        { "id": "Enablement_Admin_Assignment", "ruleType": "RoleManagementPolicyExpirationRule" },
        { "enabledRules": [] },
    ]});
    let told: Vec<String> =
        PolicyRules::from_json(&document).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "rules[0].maximumDuration: `8 hours` is no ISO 8601 duration such as `PT8H` or `P365D`",
            "rules[1].enabledRules[0]: `Mfa` is none of `MultiFactorAuthentication`, `Justification`, `Ticketing`",
            "rules[1].enabledRules[1]: `3` is none of `MultiFactorAuthentication`, `Justification`, `Ticketing`",
            "rules[2].setting.approvalStages[0].primaryApprovers[0]: wanted the object id of a user or group under `id`",
            "rules[2].setting.approvalStages: approval is required and no approver is named; Azure resources have no default approvers",
            "rules[3].claimValue: wanted the authentication context that a token must carry, such as `c1`",
            "rules[4].isExpirationRequired: `yes` is neither `true` nor `false`",
            "rules[4].maximumDuration: `3` is no text; wanted a duration such as `PT8H`",
            "rules[5].id: rule `expiration_admin_assignment` stands here twice",
            "rules[6].ruleType: `RoleManagementPolicyExpirationRule` is no type for this id; wanted `…EnablementRule`",
            "rules[7].id: wanted the id of a rule",
        ]
    );
    for nothing in ["{}", "3", r#"{"rules":{}}"#, r#"{"properties":{}}"#] {
        let document: Value = serde_json::from_str(nothing).unwrap();
        assert_eq!(PolicyRules::from_json(&document).unwrap_err().len(), 1, "{nothing}");
    }
}
