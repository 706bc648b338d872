//! Agents through the decision point: level, mode, boundary, approval and lent rights as a check sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;

use jiff::Timestamp;
use postern::agent::{Level, Mode};
use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::model::{
    Action, AgentContext, AgentDocument, ApprovalAnswer, ApprovalVerdict, At, Attributes, CheckRequest,
    ConditionText, ConsentAnswer, ConsentVerdict, Decision, DenyAssignment, Documents, Groups, NoAttributes,
    PermissionBlock, Plane, PrincipalId, RoleAssignment, RoleDefinition, Schedule, Scope, Spanned, Subject,
};
use postern::policy::{CompileOptions, Policy};
use postern::snapshot::{self, Snapshot};

fn text(value: &str) -> Spanned<String> {
    Spanned::new(value.to_owned(), At::default())
}

fn decision_point(documents: &Documents) -> (Authorizer, Arc<Snapshot>) {
    let (mut writer, reader) = snapshot::cell();
    let policy = Policy::compile(documents, CompileOptions::default()).unwrap();
    let (snapshot, _) = writer.activate(policy, 0, Timestamp::UNIX_EPOCH);
    let cache = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: 1 << 20 };
    (Authorizer::new(reader, cache, Clock::system()), snapshot)
}

const SUB: &str = "/subscriptions/11111111-1111-1111-1111-111111111111";
const READER_ROLE: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
const CONTRIBUTOR: &str = "b24988ac-6180-42a0-ab88-20f7382dd24c";
const APPROVER: &str = "00000000-0000-4000-b000-000000000001";
const READ: &str = "Microsoft.Compute/virtualMachines/read";
const WRITE: &str = "Microsoft.Compute/virtualMachines/write";
const OTHER: &str = "Microsoft.Web/sites/write";

/// An agent that manages one group of a subscription: `ann` may do everything there and use the agent, `bea` may
/// use it, `cid` may approve, `dan` may do everything and not use it.
fn office() -> Documents {
    let role = |id: &str, actions: &[&str]| RoleDefinition {
        id: text(id),
        role_name: text(id),
        permissions: vec![PermissionBlock {
            actions: actions.iter().map(|action| text(action)).collect(),
            ..PermissionBlock::default()
        }],
        assignable_scopes: vec![text("/")],
        ..RoleDefinition::default()
    };
    let agent_resource = format!("{SUB}/resourceGroups/agents/providers/Microsoft.App/agents/sre");
    let assignment = |name: &str, principal: &str, role: &str, scope: &str| RoleAssignment {
        name: text(name),
        principal_id: text(principal),
        role_definition_id: text(role),
        scope: text(scope),
        ..RoleAssignment::default()
    };
    let group = format!("{SUB}/resourceGroups/app");
    Documents {
        role_definitions: vec![
            role(READER_ROLE, &["*/read"]),
            role(CONTRIBUTOR, &["Microsoft.Compute/*"]),
            role("all", &["*"]),
            role("user-of-agents", &["Microsoft.App/agents/*"]),
            role(APPROVER, &["Microsoft.App/agents/approve/action"]),
        ],
        role_assignments: vec![
            assignment("a1", "ann", "all", &group),
            assignment("a2", "ann", "user-of-agents", &agent_resource),
            assignment("a3", "bea", "user-of-agents", &agent_resource),
            assignment("a4", "cid", APPROVER, &agent_resource),
            assignment("a5", "dan", "all", &group),
            assignment("a6", "sre", "all", &format!("{SUB}/resourceGroups/left")),
        ],
        agents: vec![AgentDocument {
            id: Some(text(&agent_resource)),
            principal_id: text("sre"),
            level: Level::Privileged,
            mode: Mode::Review,
            managed_resource_groups: vec![text(&group)],
            ..AgentDocument::default()
        }],
        ..Documents::default()
    }
}

#[derive(Default, Clone, Copy)]
struct Asked<'a> {
    user: Option<&'a str>,
    approval: Option<(&'a str, ApprovalVerdict)>,
    consent: Option<(&'a str, ConsentVerdict)>,
    mode: Option<Mode>,
    bare: bool,
}

/// Reason, whose rights, and the steps with their states.
fn ask(documents: &Documents, action: &str, group: &str, asked: &Asked<'_>) -> (String, Vec<String>) {
    let (point, snapshot) = decision_point(documents);
    let subject = |id| Subject { principal: PrincipalId::new(id), groups: Groups::NONE };
    let context = AgentContext {
        mode: asked.mode,
        on_behalf_of: asked.user.map(subject),
        user_attributes: &NoAttributes,
        approval: asked.approval.map(|(by, verdict)| ApprovalAnswer { by: subject(by), verdict }),
        consent: asked.consent.map(|(by, verdict)| ConsentAnswer { by: PrincipalId::new(by), verdict }),
    };
    let target = format!("{SUB}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/vm");
    let request = CheckRequest::new(
        subject("sre"),
        Action::parse(action).unwrap(),
        Plane::Control,
        Scope::parse(&target).unwrap(),
    );
    let answer = point.check(&snapshot, &request, (!asked.bare).then_some(&context)).unwrap();
    let allowed = matches!(answer.evaluation.decision, Decision::Allowed(_));
    assert_eq!(allowed, answer.executed_as.is_some(), "who ignores the steps must not take a stop for a yes");
    let reason = match answer.executed_as {
        Some(whose) => whose.name().to_owned(),
        None => answer.evaluation.decision.reason_code().name().to_owned(),
    };
    let steps =
        answer.steps.iter().map(|step| format!("{} {}", step.kind.name(), step.state.name())).collect();
    (reason, steps)
}

#[test]
fn the_level_brings_its_roles_and_the_mode_asks() {
    let office = office();
    let nobody = Asked::default();
    assert_eq!(ask(&office, READ, "app", &nobody), ("agent".into(), vec!["execute_as_agent next".into()]));
    assert_eq!(
        ask(&office, WRITE, "app", &nobody),
        (
            "AGENT_APPROVAL_REQUIRED".into(),
            vec!["approval_prompt next".into(), "execute_as_agent later".into()]
        )
    );
    let auto = Asked { mode: Some(Mode::Auto), ..Asked::default() };
    assert_eq!(
        ask(&office, WRITE, "app", &auto).0,
        "AGENT_APPROVAL_REQUIRED",
        "nobody talks it out of review"
    );
    let mut automatic = self::office();
    automatic.agents[0].mode = Mode::Auto;
    assert_eq!(ask(&automatic, WRITE, "app", &nobody).0, "agent");
    let review = Asked { mode: Some(Mode::Review), ..Asked::default() };
    assert_eq!(ask(&automatic, WRITE, "app", &review).0, "AGENT_APPROVAL_REQUIRED", "but into it");
    let bare = Asked { bare: true, ..Asked::default() };
    assert_eq!(
        ask(&office, WRITE, "app", &bare).0,
        "AGENT_APPROVAL_REQUIRED",
        "also who says nothing of agents"
    );
    automatic.agents[0].level = Level::Reader;
    assert_eq!(ask(&automatic, WRITE, "app", &nobody).0, "AGENT_USER_NOT_AUTHORIZED");
}

#[test]
fn the_boundary_holds_whatever_is_assigned() {
    let mut office = office();
    let ann = Asked { user: Some("ann"), ..Asked::default() };
    assert_eq!(ask(&office, READ, "left", &ann), ("AGENT_OUT_OF_SCOPE".into(), vec![]));
    office.agents[0].managed_resource_groups.clear();
    assert_eq!(ask(&office, READ, "app", &ann), ("AGENT_NO_MANAGED_RESOURCE_GROUPS".into(), vec![]));
    office.agents.clear();
    assert_eq!(ask(&office, READ, "left", &ann).0, "AGENT_NO_MANAGED_RESOURCE_GROUPS", "no such agent");
}

#[test]
fn the_user_lends_what_the_user_has_and_may_use_the_agent() {
    let office = office();
    let ann = Asked { user: Some("ann"), ..Asked::default() };
    let approved = Asked { approval: Some(("ann", ApprovalVerdict::Approve)), ..ann };
    assert_eq!(
        ask(&office, OTHER, "app", &approved),
        (
            "AGENT_ON_BEHALF_OF_REQUIRED".into(),
            vec!["approval_prompt done".into(), "obo_prompt next".into(), "execute_as_user later".into()]
        )
    );
    let lent = Asked { user: Some("ann"), consent: Some(("ann", ConsentVerdict::Grant)), ..approved };
    assert_eq!(ask(&office, OTHER, "app", &lent).0, "user");
    let by_another = Asked { consent: Some(("bea", ConsentVerdict::Grant)), ..lent };
    assert_eq!(ask(&office, OTHER, "app", &by_another).0, "AGENT_ON_BEHALF_OF_REQUIRED");
    for (user, why) in [("bea", "has no right to lend"), ("dan", "may not use the agent")] {
        let asked = Asked {
            user: Some(user),
            approval: Some((user, ApprovalVerdict::Approve)),
            consent: Some((user, ConsentVerdict::Grant)),
            ..Asked::default()
        };
        assert_eq!(ask(&office, OTHER, "app", &asked).0, "AGENT_USER_NOT_AUTHORIZED", "{user} {why}");
    }
    let dan = Asked { user: Some("dan"), ..Asked::default() };
    assert_eq!(
        ask(&office, READ, "app", &dan).0,
        "AGENT_USER_NOT_AUTHORIZED",
        "not even what the agent may do"
    );
}

#[test]
fn a_role_may_be_asked_of_who_approves() {
    let mut office = office();
    office.agents[0].approver_role = Some(text(APPROVER));
    let by = |who| Asked {
        user: Some("ann"),
        approval: Some((who, ApprovalVerdict::Approve)),
        ..Asked::default()
    };
    assert_eq!(ask(&office, WRITE, "app", &by("ann")).0, "AGENT_APPROVAL_REQUIRED", "ann does not hold it");
    assert_eq!(ask(&office, WRITE, "app", &by("cid")).0, "agent");
}

#[test]
fn a_deny_assignment_ends_it() {
    let mut office = office();
    office.deny_assignments.push(DenyAssignment {
        name: text("d1"),
        scope: text(&format!("{SUB}/resourceGroups/app")),
        principals: vec![text("sre")],
        permissions: vec![PermissionBlock { actions: vec![text("*/write")], ..PermissionBlock::default() }],
        ..DenyAssignment::default()
    });
    let lent = Asked {
        user: Some("ann"),
        approval: Some(("ann", ApprovalVerdict::Approve)),
        consent: Some(("ann", ConsentVerdict::Grant)),
        ..Asked::default()
    };
    assert_eq!(ask(&office, WRITE, "app", &lent), ("DENY_ASSIGNMENT".into(), vec![]));
    assert_eq!(ask(&office, READ, "app", &lent).0, "agent");
}

#[test]
fn an_agent_lends_nothing_and_approves_nothing() {
    let mut office = office();
    let group = format!("{SUB}/resourceGroups/app");
    office.role_assignments.push(RoleAssignment {
        name: text("a9"),
        principal_id: text("other"),
        role_definition_id: text("all"),
        scope: text(&group),
        ..RoleAssignment::default()
    });
    office.agents[0].id = None;
    office.agents.push(AgentDocument { principal_id: text("other"), ..AgentDocument::default() });
    for by in ["other", "sre"] {
        let lent = Asked {
            user: Some(by),
            approval: Some((by, ApprovalVerdict::Approve)),
            consent: Some((by, ConsentVerdict::Grant)),
            ..Asked::default()
        };
        assert_eq!(ask(&office, OTHER, "app", &lent).0, "AGENT_USER_NOT_AUTHORIZED", "{by}");
        assert_eq!(ask(&office, WRITE, "app", &lent).0, "AGENT_USER_NOT_AUTHORIZED", "{by}");
    }
}

#[test]
fn every_identity_of_an_agent_is_found() {
    let mut office = office();
    let greatest = "ffffffff-ffff-ffff-ffff-ffffffffffff";
    office.agents.push(AgentDocument { principal_id: text(greatest), ..AgentDocument::default() });
    office.agents.push(AgentDocument { principal_id: text("aaa"), ..AgentDocument::default() });
    let policy = Policy::compile(&office, CompileOptions::default()).unwrap();
    for (id, agent) in [(greatest, true), ("aaa", true), ("sre", true), ("ann", false)] {
        assert_eq!(policy.agent(PrincipalId::new(id)).unwrap().is_some(), agent, "{id}");
    }
}

#[test]
fn what_an_agent_may_ends_with_who_may_use_and_approve_it() {
    let mut office = office();
    let until = |second: i64| Timestamp::from_second(second).unwrap();
    let resource = office.agents[0].id.clone().unwrap().value;
    office.role_assignments.retain(|assignment| !["a2", "a4"].contains(&assignment.name.value.as_str()));
    for (name, who, role, end) in [("s1", "ann", "user-of-agents", 2_000), ("s2", "cid", APPROVER, 1_000)] {
        office.schedules.push(Schedule {
            name: text(name),
            principal_id: text(who),
            role_definition_id: text(role),
            scope: text(&resource),
            end: Some(Spanned::new(until(end), At::default())),
            ..Schedule::default()
        });
    }
    let valid_until = |office: &Documents, action: &str, approved_by: Option<&str>| {
        let (mut writer, reader) = snapshot::cell();
        let policy = Policy::compile(office, CompileOptions::default()).unwrap();
        let (snapshot, _) = writer.activate(policy, 0, Timestamp::UNIX_EPOCH);
        let cache = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: 1 << 20 };
        let point = Authorizer::new(reader, cache, Clock::manual(Timestamp::UNIX_EPOCH));
        let subject = |id| Subject { principal: PrincipalId::new(id), groups: Groups::NONE };
        let context = AgentContext {
            mode: None,
            on_behalf_of: Some(subject("ann")),
            user_attributes: &NoAttributes,
            approval: approved_by
                .map(|by| ApprovalAnswer { by: subject(by), verdict: ApprovalVerdict::Approve }),
            consent: None,
        };
        let target = format!("{SUB}/resourceGroups/app");
        let (action, scope) = (Action::parse(action).unwrap(), Scope::parse(&target).unwrap());
        let request = CheckRequest::new(subject("sre"), action, Plane::Control, scope);
        let answer = point.check(&snapshot, &request, Some(&context)).unwrap();
        assert!(matches!(answer.evaluation.decision, Decision::Allowed(_)), "{answer:?}");
        answer.evaluation.valid_until
    };
    assert_eq!(valid_until(&office, READ, None), Some(until(2_000)));
    office.agents[0].approver_role = Some(text(APPROVER));
    assert_eq!(valid_until(&office, WRITE, Some("cid")), Some(until(1_000)));
}

#[test]
fn circumstances_count_where_it_is_asked_who_may_use_the_agent() {
    let mut office = office();
    office.role_assignments[1].condition =
        Some(ConditionText { text: text("@Environment[isPrivateLink] BoolEquals true"), version: None });
    let (point, snapshot) = decision_point(&office);
    let inside = Attributes::from_json(&serde_json::json!({"isPrivateLink": true}));
    let subject = |id| Subject { principal: PrincipalId::new(id), groups: Groups::NONE };
    let context = AgentContext {
        mode: None,
        on_behalf_of: Some(subject("ann")),
        user_attributes: &NoAttributes,
        approval: None,
        consent: None,
    };
    let target = format!("{SUB}/resourceGroups/app");
    let (action, scope) = (Action::parse(READ).unwrap(), Scope::parse(&target).unwrap());
    let mut request = CheckRequest::new(subject("sre"), action, Plane::Control, scope);
    let decided = |request: &CheckRequest<'_>| {
        point.check(&snapshot, request, Some(&context)).unwrap().evaluation.decision.name()
    };
    assert_eq!(decided(&request), "NotAllowed");
    request.attributes.environment = &inside;
    assert_eq!(decided(&request), "Allowed");
}
