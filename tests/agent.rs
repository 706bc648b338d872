//! The rules of agents: the examples of the reference with the compiled policy doing the checks, and tables for
//! what they leave out.
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

use jiff::Timestamp;
use std::convert::Infallible;

use postern::agent::{
    Access, Actor, Agent, AgentOptions, Answerer, Ask, Checks, Flow, GroupError, Kind, Level, LevelRole,
    Mode, Outcome, Reason, Responses, Step, UserContext, Waiting, may_create, may_use, steps,
};
use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::model::{
    Action, AgentContext, AgentDocument, ApprovalAnswer, ApprovalVerdict, At, CheckRequest, ConsentAnswer,
    ConsentVerdict, Documents, ExecutedAs, Groups, NoAttributes, PermissionBlock, Plane, PrincipalId,
    RoleAssignment, RoleDefinition, Scope, Spanned, StepState, Subject, Undecided,
};
use postern::policy::{CompileOptions, Policy};
use postern::snapshot::{self, Snapshot};
use serde_json::Value;

use fields::Fields;

fn text(value: &str) -> Spanned<String> {
    Spanned::new(value.to_owned(), At::default())
}

// === the examples ===

fn documents(id: &str, given: &mut Fields<'_>) -> Documents {
    let spanned = |texts: Vec<&str>| texts.into_iter().map(text).collect::<Vec<_>>();
    let mut documents = Documents::default();
    for value in given.list("role_definitions") {
        let mut fields = Fields::new(id, value);
        let mut role = RoleDefinition {
            id: text(fields.must("id")),
            role_name: text(fields.must("roleName")),
            assignable_scopes: spanned(fields.texts("assignableScopes")),
            ..RoleDefinition::default()
        };
        assert_eq!(fields.must("roleType"), "BuiltInRole", "{id}");
        for entry in fields.list("permissions") {
            let mut fields = Fields::new(id, entry);
            role.permissions.push(PermissionBlock {
                actions: spanned(fields.texts("actions")),
                not_actions: spanned(fields.texts("notActions")),
                data_actions: spanned(fields.texts("dataActions")),
                not_data_actions: spanned(fields.texts("notDataActions")),
                ..PermissionBlock::default()
            });
            fields.end();
        }
        fields.end();
        documents.role_definitions.push(role);
    }
    for value in given.list("role_assignments") {
        let mut fields = Fields::new(id, value);
        documents.role_assignments.push(RoleAssignment {
            name: text(fields.must("name")),
            scope: text(fields.must("scope")),
            role_definition_id: text(fields.must("roleDefinitionId")),
            principal_id: text(fields.must("principalId")),
            principal_type: fields.text("principalType").map(text),
            ..RoleAssignment::default()
        });
        fields.end();
    }
    documents
}

fn agent(id: &str, value: &Value) -> Agent {
    let mut fields = Fields::new(id, value);
    let agent = Agent {
        principal: fields.must("principal").to_owned(),
        level: Level::parse(fields.must("permission_level")).unwrap(),
        mode: Mode::parse(fields.must("mode")).unwrap(),
        managed_resource_groups: fields
            .texts("managed_resource_groups")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        answerer: Answerer::AskingUser,
    };
    fields.end();
    agent
}

fn check(policy: &Policy, principal: &str, action: &str, scope: Scope<'_>) -> Result<Access, Undecided> {
    let request = CheckRequest::new(
        Subject { principal: PrincipalId::new(principal), groups: Groups::NONE },
        Action::parse(action).unwrap(),
        Plane::Control,
        scope,
    );
    policy.evaluate(&request, Timestamp::UNIX_EPOCH).map(|evaluation| Access::from(&evaluation.decision))
}

/// Checks by the compiled policy.
struct ByPolicy<'a> {
    policy: &'a Policy,
    agent: &'a str,
    user: &'a str,
    action: &'a str,
    target: Scope<'a>,
}

impl Checks for ByPolicy<'_> {
    type Error = Undecided;

    fn agent(&mut self) -> Result<Access, Undecided> {
        check(self.policy, self.agent, self.action, self.target)
    }

    fn user(&mut self) -> Result<Access, Undecided> {
        check(self.policy, self.user, self.action, self.target)
    }

    fn holds_role(&mut self, _: PrincipalId<'_>, _: &str) -> Result<bool, Undecided> {
        panic!("the asking user answers")
    }
}

fn compile(documents: &Documents) -> Policy {
    Policy::compile(documents, CompileOptions::default()).unwrap()
}

fn table_example(mut given: Fields<'_>, mut request: Fields<'_>, mut expect: Fields<'_>) {
    let kind = match request.must("kind") {
        "read" => Kind::Read,
        "write" => Kind::Write,
        other => panic!("{other}"),
    };
    assert!(given.flag("in_scope"));
    let cell = steps(kind, given.flag("agent_has_permission"), Mode::parse(given.must("mode")).unwrap());
    let names: Vec<_> = cell.iter().map(|step| step.name()).collect();
    assert_eq!(names, expect.texts("steps"));
    given.end();
    request.end();
    expect.end();
}

fn flow_example(id: &str, mut given: Fields<'_>, mut request: Fields<'_>, mut expect: Fields<'_>) {
    let agent = agent(id, given.take("agent").unwrap());
    let mut documents = documents(id, &mut given);
    let policy = compile(&documents);
    given.end();
    let (user, action) = (request.must("user"), request.must("action"));
    let target = Scope::parse(request.must("resource")).unwrap();
    let mut answered = Fields::new(id, request.take("responses").unwrap());
    request.end();
    let by = PrincipalId::new(user);
    let subject = |id| Subject { principal: PrincipalId::new(id), groups: Groups::NONE };
    let responses = Responses {
        approval: answered.text("approval").map(|verdict| ApprovalAnswer {
            by: subject(user),
            verdict: match verdict {
                "approve" => ApprovalVerdict::Approve,
                "deny" => ApprovalVerdict::Deny,
                other => panic!("{id}: {other}"),
            },
        }),
        consent: answered.text("obo").map(|verdict| ConsentAnswer {
            by,
            verdict: match verdict {
                "grant" => ConsentVerdict::Grant,
                "decline" => ConsentVerdict::Decline,
                other => panic!("{id}: {other}"),
            },
        }),
    };
    answered.end();
    let ask = Ask { user: by, action: Action::parse(action).unwrap(), target, responses };
    let mut checks = ByPolicy { policy: &policy, agent: &agent.principal, user, action, target };
    let flow = agent.decide(&ask, &AgentOptions::default(), &mut checks).unwrap();

    let names: Vec<_> = flow.steps.iter().map(|step| step.name()).collect();
    assert_eq!(names, expect.texts("steps"), "{id}");
    assert_eq!(flow.outcome.name(), expect.must("outcome"), "{id}");
    assert_eq!(flow.outcome.reason(), expect.text("reason"), "{id}");
    let executed_as = match flow.outcome {
        Outcome::Executed(Actor::Agent) => Some(agent.principal.as_str()),
        Outcome::Executed(Actor::User) => Some(user),
        _ => None,
    };
    assert_eq!(executed_as, expect.text("executed_as"), "{id}");
    expect.end();

    // The same through the decision point, with the agent as a document and the answers in the request.
    documents.agents.push(described(&agent));
    let (point, snapshot) = decision_point(&documents);
    let context = AgentContext {
        mode: None,
        on_behalf_of: Some(subject(user)),
        user_attributes: &NoAttributes,
        approval: responses.approval,
        consent: responses.consent,
    };
    let asked = CheckRequest::new(subject(&agent.principal), ask.action, Plane::Control, target);
    let answer = point.check(&snapshot, &asked, Some(&context)).unwrap();
    let taken: Vec<_> = answer
        .steps
        .iter()
        .filter(|step| step.state != StepState::Later)
        .map(|step| step.kind.name())
        .collect();
    assert_eq!(taken, names, "{id}");
    let decided = match flow.outcome {
        Outcome::Executed(_) => "ROLE_ASSIGNMENT",
        Outcome::Waiting(Waiting::Approval) => "AGENT_APPROVAL_REQUIRED",
        Outcome::Waiting(Waiting::OboConsent) => "AGENT_ON_BEHALF_OF_REQUIRED",
        Outcome::Refused(Reason::ApprovalDenied) => "AGENT_APPROVAL_DENIED",
        Outcome::Refused(Reason::OboDeclined) => "AGENT_ON_BEHALF_OF_DECLINED",
        Outcome::Refused(Reason::UserNotAuthorized) => "AGENT_USER_NOT_AUTHORIZED",
        Outcome::Refused(Reason::OutOfScope) => "AGENT_OUT_OF_SCOPE",
        Outcome::Refused(Reason::NoManagedResourceGroups) => "AGENT_NO_MANAGED_RESOURCE_GROUPS",
        Outcome::Refused(Reason::DenyAssignment) => "DENY_ASSIGNMENT",
    };
    assert_eq!(answer.evaluation.decision.reason_code().name(), decided, "{id}");
    let whose = answer.executed_as.map(|whose| match whose {
        ExecutedAs::Agent => agent.principal.as_str(),
        ExecutedAs::User => user,
    });
    assert_eq!(whose, executed_as, "{id}");
}

fn described(agent: &Agent) -> AgentDocument {
    AgentDocument {
        principal_id: text(&agent.principal),
        level: agent.level,
        mode: agent.mode,
        managed_resource_groups: agent.managed_resource_groups.iter().map(|group| text(group)).collect(),
        ..AgentDocument::default()
    }
}

fn decision_point(documents: &Documents) -> (Authorizer, std::sync::Arc<Snapshot>) {
    let (mut writer, reader) = snapshot::cell();
    let (snapshot, _) = writer.activate(compile(documents), 0, Timestamp::UNIX_EPOCH);
    let cache = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: 1 << 20 };
    (Authorizer::new(reader, cache, Clock::system()), snapshot)
}

fn scope_change_example(id: &str, mut given: Fields<'_>, mut request: Fields<'_>, mut expect: Fields<'_>) {
    let agent = agent(id, given.take("agent").unwrap());
    let mut documents = documents(id, &mut given);
    given.end();
    let group = request.must("resource_group");
    let target = Scope::parse(group).unwrap();
    let read = "Microsoft.Compute/virtualMachines/read";
    let after = match request.must("op") {
        "removeResourceGroup" => {
            let removed = agent.remove_resource_group(group, &documents.role_assignments).unwrap();
            let names: Vec<_> =
                removed.role_assignments.iter().map(|assignment| assignment.name.value.clone()).collect();
            assert_eq!(names, expect.texts("removed_assignments"), "{id}");
            let after = removed.agent;
            documents.role_assignments.retain(|assignment| !names.contains(&assignment.name.value));
            let access = check(&compile(&documents), &agent.principal, read, target).unwrap();
            assert_eq!(access, Access::NotAllowed, "{id}: ends entirely");
            after
        }
        "addResourceGroup" => {
            let added = agent.add_resource_group(group, &AgentOptions::default()).unwrap();
            let role_name = |assignment: &RoleAssignment| {
                let is_role = |role: &&RoleDefinition| role.id.value == assignment.role_definition_id.value;
                documents.role_definitions.iter().find(is_role).unwrap().role_name.value.clone()
            };
            let names: Vec<_> = added.role_assignments.iter().map(role_name).collect();
            assert_eq!(names, expect.texts("added_roles"), "{id}");
            documents.role_assignments.extend(added.role_assignments);
            let access = check(&compile(&documents), &agent.principal, read, target).unwrap();
            assert_eq!(access, Access::Allowed, "{id}");
            added.agent
        }
        other => panic!("{id}: {other}"),
    };
    assert_eq!(after.managed_resource_groups, expect.texts("managed_resource_groups"), "{id}");
    request.end();
    expect.end();
}

fn user_context_example(id: &str, mut given: Fields<'_>, mut request: Fields<'_>, mut expect: Fields<'_>) {
    let policy = compile(&documents(id, &mut given));
    given.end();
    let user = request.must("user");
    let ask = |action: &str, scope: Scope<'_>| check(&policy, user, action, scope);
    let context = match request.must("op") {
        "useAgent" => may_use(Scope::parse(request.must("agent_resource")).unwrap(), ask),
        "createAgent" => may_create(
            Scope::parse(request.must("scope")).unwrap(),
            request.text("region"),
            &AgentOptions::default(),
            ask,
        ),
        other => panic!("{id}: {other}"),
    };
    let context = context.unwrap();
    assert_eq!(context == UserContext::Allowed, expect.flag("allowed"), "{id}");
    match &context {
        UserContext::Missing(action) => {
            // `useAgent` examples say only that it is not allowed.
            if let Some(missing) = expect.text("missing") {
                assert_eq!(action, missing, "{id}");
            }
        }
        UserContext::RegionNotAllowed => assert_eq!(expect.must("reason"), "region_not_allowed", "{id}"),
        UserContext::Allowed => {}
    }
    request.end();
    expect.end();
}

#[test]
pub(crate) fn examples_of_the_reference() {
    let cases = include_str!("cases/sre-agent.jsonl");
    let mut count = 0;
    let mut forms = std::collections::BTreeMap::<String, usize>::new();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        let mut fields = Fields::new(id, &case);
        assert_eq!(fields.must("area"), "sre-agent");
        let _told = (fields.take("id"), fields.take("source"), fields.take("basis"), fields.take("note"));
        let mut given = Fields::new(id, fields.take("given").unwrap());
        let request = Fields::new(id, fields.take("request").unwrap());
        let expect = Fields::new(id, fields.take("expect").unwrap());
        fields.end();
        let form = given.must("form");
        match form {
            "table" => table_example(given, request, expect),
            "flow" => flow_example(id, given, request, expect),
            "scope-change" => scope_change_example(id, given, request, expect),
            "user-context" => user_context_example(id, given, request, expect),
            other => panic!("{id}: {other}"),
        }
        *forms.entry(form.to_owned()).or_default() += 1;
        count += 1;
    }
    println!("sre-agent: {count} examples {forms:?}");
    assert_eq!(count, 33);
}

// === tables of our own ===

const OPS: &str = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/ops";
const USER: PrincipalId<'static> = PrincipalId::Text("alice");
const OTHER: PrincipalId<'static> = PrincipalId::Text("bob");
const READ: &str = "A.B/c/read";
const WRITE: &str = "A.B/c/write";

fn ops_agent(mode: Mode) -> Agent {
    Agent {
        principal: "000000b2-0000-4000-8000-0000000000b2".into(),
        level: Level::Reader,
        mode,
        managed_resource_groups: vec![OPS.into()],
        answerer: Answerer::AskingUser,
    }
}

/// Checks that are told their answers, and count how often they are asked.
struct Told {
    agent: Access,
    user: Access,
    holders: Vec<PrincipalId<'static>>,
    asked: Vec<&'static str>,
}

impl Told {
    fn new(agent: Access, user: Access) -> Self {
        Self { agent, user, holders: Vec::new(), asked: Vec::new() }
    }
}

impl Checks for Told {
    type Error = Infallible;

    fn agent(&mut self) -> Result<Access, Infallible> {
        self.asked.push("agent");
        Ok(self.agent)
    }

    fn user(&mut self) -> Result<Access, Infallible> {
        self.asked.push("user");
        Ok(self.user)
    }

    fn holds_role(&mut self, principal: PrincipalId<'_>, role: &str) -> Result<bool, Infallible> {
        assert_eq!(role, "SRE Agent Administrator");
        Ok(self.holders.contains(&principal))
    }
}

fn approval(principal: PrincipalId<'static>, verdict: ApprovalVerdict) -> Option<ApprovalAnswer<'static>> {
    Some(ApprovalAnswer { by: Subject { principal, groups: Groups::NONE }, verdict })
}

fn consent(by: PrincipalId<'static>, verdict: ConsentVerdict) -> Option<ConsentAnswer<'static>> {
    Some(ConsentAnswer { by, verdict })
}

fn ask(action: &'static str, responses: Responses<'static>) -> Ask<'static> {
    Ask { user: USER, action: Action::parse(action).unwrap(), target: Scope::parse(OPS).unwrap(), responses }
}

fn decide(agent: &Agent, action: &'static str, responses: Responses<'static>, checks: &mut Told) -> Flow {
    let Ok(flow) = agent.decide(&ask(action, responses), &AgentOptions::default(), checks);
    flow
}

#[test]
fn every_cell_with_every_answer() {
    let yes = Responses {
        approval: approval(USER, ApprovalVerdict::Approve),
        consent: consent(USER, ConsentVerdict::Grant),
    };
    for action in [READ, WRITE] {
        for has in [Access::Allowed, Access::NotAllowed] {
            for mode in [Mode::Review, Mode::Auto] {
                let kind = if action == READ { Kind::Read } else { Kind::Write };
                let cell = steps(kind, has == Access::Allowed, mode);
                let agent = ops_agent(mode);
                // All answers yes: the whole cell, whoever executes.
                let flow = decide(&agent, action, yes, &mut Told::new(has, Access::Allowed));
                assert_eq!(flow.steps, cell);
                let actor = if has == Access::Allowed { Actor::Agent } else { Actor::User };
                assert_eq!((flow.kind, flow.outcome), (Some(kind), Outcome::Executed(actor)));
                // No answers: up to the first prompt.
                let none = Responses::default();
                let flow = decide(&agent, action, none, &mut Told::new(has, Access::Allowed));
                match cell[0] {
                    Step::ApprovalPrompt => assert_eq!(flow.outcome, Outcome::Waiting(Waiting::Approval)),
                    Step::OboPrompt => assert_eq!(flow.outcome, Outcome::Waiting(Waiting::OboConsent)),
                    _ => assert_eq!(flow.outcome, Outcome::Executed(Actor::Agent)),
                }
                assert_eq!(flow.steps, cell[..1]);
                // Each prompt answered with no, those before it with yes.
                for (position, step) in cell.iter().enumerate() {
                    let (no, reason) = match step {
                        Step::ApprovalPrompt => (
                            Responses { approval: approval(USER, ApprovalVerdict::Deny), ..yes },
                            Reason::ApprovalDenied,
                        ),
                        Step::OboPrompt => (
                            Responses { consent: consent(USER, ConsentVerdict::Decline), ..yes },
                            Reason::OboDeclined,
                        ),
                        _ => continue,
                    };
                    let flow = decide(&agent, action, no, &mut Told::new(has, Access::Allowed));
                    assert_eq!(flow.steps, cell[..=position]);
                    assert_eq!(flow.outcome, Outcome::Refused(reason));
                }
            }
        }
    }
}

#[test]
fn nothing_is_offered_that_cannot_lead_to_the_action() {
    let approve = approval(USER, ApprovalVerdict::Approve);
    let grant = consent(USER, ConsentVerdict::Grant);
    for user in [Access::NotAllowed, Access::Denied] {
        for (action, mode, responses, taken) in [
            (READ, Mode::Review, Responses::default(), vec![]),
            (READ, Mode::Auto, Responses { approval: None, consent: grant }, vec![Step::OboPrompt]),
            (WRITE, Mode::Auto, Responses::default(), vec![]),
            (WRITE, Mode::Review, Responses::default(), vec![]),
            (WRITE, Mode::Review, Responses { approval: approve, consent: None }, vec![Step::ApprovalPrompt]),
            (
                WRITE,
                Mode::Review,
                Responses { approval: approve, consent: grant },
                vec![Step::ApprovalPrompt, Step::OboPrompt],
            ),
        ] {
            let flow = decide(&ops_agent(mode), action, responses, &mut Told::new(Access::NotAllowed, user));
            assert_eq!(flow.outcome, Outcome::Refused(Reason::UserNotAuthorized), "{action} {mode:?}");
            assert_eq!(flow.steps, taken, "{action} {mode:?}");
        }
        // The agent's own right is enough.
        let flow = decide(
            &ops_agent(Mode::Review),
            WRITE,
            Responses::default(),
            &mut Told::new(Access::Allowed, user),
        );
        assert_eq!(flow.outcome, Outcome::Waiting(Waiting::Approval));
    }
}

#[test]
fn a_deny_assignment_on_the_agent_ends_it() {
    let yes = Responses {
        approval: approval(USER, ApprovalVerdict::Approve),
        consent: consent(USER, ConsentVerdict::Grant),
    };
    for mode in [Mode::Review, Mode::Auto] {
        for action in [READ, WRITE] {
            let mut checks = Told::new(Access::Denied, Access::Allowed);
            let flow = decide(&ops_agent(mode), action, yes, &mut checks);
            assert_eq!(flow.outcome, Outcome::Refused(Reason::DenyAssignment));
            assert!(flow.steps.is_empty());
            assert_eq!(checks.asked, ["agent"]);
        }
    }
}

#[test]
fn the_boundary_comes_before_any_check() {
    let far = ["/", "/subscriptions/11111111-1111-1111-1111-111111111111"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("{OPS}2"), format!("{OPS}2/providers/A.B/c/d")]);
    for target in far {
        let mut checks = Told::new(Access::Allowed, Access::Allowed);
        let ask = Ask { target: Scope::parse(&target).unwrap(), ..ask(READ, Responses::default()) };
        let Ok(flow) = ops_agent(Mode::Auto).decide(&ask, &AgentOptions::default(), &mut checks);
        assert_eq!(flow.outcome, Outcome::Refused(Reason::OutOfScope), "{target}");
        assert!(checks.asked.is_empty());
    }
    for (groups, reason) in [
        (vec![], Reason::NoManagedResourceGroups),
        (vec!["nonsense"], Reason::OutOfScope),
        (vec!["/subscriptions/11111111-1111-1111-1111-111111111111"], Reason::OutOfScope),
        (vec!["/"], Reason::OutOfScope),
    ] {
        let managed_resource_groups = groups.into_iter().map(str::to_owned).collect();
        let agent = Agent { managed_resource_groups, ..ops_agent(Mode::Auto) };
        let mut checks = Told::new(Access::Allowed, Access::Allowed);
        let flow = decide(&agent, READ, Responses::default(), &mut checks);
        assert_eq!(flow.outcome, Outcome::Refused(reason));
    }
    let agent = ops_agent(Mode::Auto);
    for inside in [OPS.to_uppercase(), format!("{OPS}/"), format!("{OPS}/providers/A.B/c/d")] {
        assert!(agent.manages(Scope::parse(&inside).unwrap()), "{inside}");
    }
}

#[test]
fn who_answers() {
    let agent = ops_agent(Mode::Review);
    let by_others = Responses {
        approval: approval(OTHER, ApprovalVerdict::Approve),
        consent: consent(OTHER, ConsentVerdict::Grant),
    };
    // Answers of others do not count, neither yes nor no.
    let flow = decide(&agent, WRITE, by_others, &mut Told::new(Access::Allowed, Access::Allowed));
    assert_eq!(flow.outcome, Outcome::Waiting(Waiting::Approval));
    let flow = decide(&agent, READ, by_others, &mut Told::new(Access::NotAllowed, Access::Allowed));
    assert_eq!(flow.outcome, Outcome::Waiting(Waiting::OboConsent));
    let no = Responses { approval: approval(OTHER, ApprovalVerdict::Deny), consent: None };
    let flow = decide(&agent, WRITE, no, &mut Told::new(Access::Allowed, Access::Allowed));
    assert_eq!(flow.outcome, Outcome::Waiting(Waiting::Approval));

    // With a role required, its holders answer, and only who holds it lends.
    let agent = Agent { answerer: Answerer::RoleHolder("SRE Agent Administrator".into()), ..agent };
    let told = |holders: &[PrincipalId<'static>], has| Told {
        holders: holders.to_vec(),
        ..Told::new(has, Access::Allowed)
    };
    let by_user = Responses {
        approval: approval(USER, ApprovalVerdict::Approve),
        consent: consent(USER, ConsentVerdict::Grant),
    };
    let mixed = Responses {
        approval: approval(OTHER, ApprovalVerdict::Approve),
        consent: consent(USER, ConsentVerdict::Grant),
    };
    let (has, lacks) = (Access::Allowed, Access::NotAllowed);
    for (holders, access, responses, expected) in [
        (vec![], has, by_user, Outcome::Waiting(Waiting::Approval)),
        (vec![USER], has, by_user, Outcome::Executed(Actor::Agent)),
        (vec![OTHER], has, by_others, Outcome::Executed(Actor::Agent)),
        (vec![OTHER], lacks, mixed, Outcome::Refused(Reason::UserNotAuthorized)),
        (vec![OTHER, USER], lacks, mixed, Outcome::Executed(Actor::User)),
        (vec![OTHER], lacks, Responses::default(), Outcome::Refused(Reason::UserNotAuthorized)),
    ] {
        let flow = decide(&agent, WRITE, responses, &mut told(&holders, access));
        assert_eq!(flow.outcome, expected, "{holders:?} {access:?}");
    }
}

#[test]
fn the_user_is_checked_once_and_only_where_it_counts() {
    let yes = Responses {
        approval: approval(USER, ApprovalVerdict::Approve),
        consent: consent(USER, ConsentVerdict::Grant),
    };
    for (has, responses, asked) in [
        (Access::Allowed, yes, vec!["agent"]),
        (Access::Allowed, Responses::default(), vec!["agent"]),
        (Access::NotAllowed, yes, vec!["agent", "user"]),
        (Access::NotAllowed, Responses::default(), vec!["agent", "user"]),
    ] {
        let mut checks = Told::new(has, Access::Allowed);
        decide(&ops_agent(Mode::Review), WRITE, responses, &mut checks);
        assert_eq!(checks.asked, asked);
    }
}

#[test]
fn reading_and_writing() {
    let options = AgentOptions::default();
    for (action, kind) in [
        ("A.B/c/read", Kind::Read),
        ("A.B/c/READ", Kind::Read),
        ("a.b/listread", Kind::Write),
        ("A.B/c/read/action", Kind::Write),
        ("read", Kind::Write),
        ("A.B/c/write", Kind::Write),
        ("A.B/c/delete", Kind::Write),
        ("microsoft.operationalinsights/workspaces/SEARCH/action", Kind::Read),
        ("Microsoft.OperationalInsights/workspaces/analytics/query/action", Kind::Read),
        ("Microsoft.OperationalInsights/workspaces/purge/action", Kind::Write),
    ] {
        assert_eq!(Kind::of(Action::parse(action).unwrap(), &options), kind, "{action}");
    }
    let options = AgentOptions { query_actions: vec!["A.B/c/list/action".into()], ..options };
    assert_eq!(Kind::of(Action::parse("A.B/c/LIST/action").unwrap(), &options), Kind::Read);
    let search = Action::parse("Microsoft.OperationalInsights/workspaces/search/action").unwrap();
    assert_eq!(Kind::of(search, &options), Kind::Write);
}

#[test]
fn names_of_modes_and_levels() {
    for (name, mode) in [
        ("review", Some(Mode::Review)),
        ("Review", Some(Mode::Review)),
        ("auto", Some(Mode::Auto)),
        ("Autonomous", Some(Mode::Auto)),
        ("Automatic", Some(Mode::Auto)),
        ("readonly", None),
        ("", None),
    ] {
        assert_eq!(Mode::parse(name), mode, "{name}");
    }
    assert_eq!(Level::parse("privileged"), Some(Level::Privileged));
    assert_eq!(Level::parse("Reader"), Some(Level::Reader));
    assert_eq!(Level::parse("Owner"), None);
}

#[test]
fn what_a_level_brings() {
    let options = AgentOptions::default();
    let agent = Agent {
        level: Level::Privileged,
        managed_resource_groups: vec![OPS.into(), format!("{OPS}2")],
        ..ops_agent(Mode::Auto)
    };
    let at = At { file: 1, start: 2, end: 3 };
    let assignments = agent.role_assignments(&options, at);
    let roles: Vec<_> = Level::Privileged.roles(&options).into_iter().map(|role| role.name).collect();
    assert_eq!(roles, ["Log Analytics Reader", "Reader", "Monitoring Reader", "Contributor"]);
    assert_eq!(assignments.len(), 8);
    assert!(assignments.iter().all(|assignment| assignment.at == at && assignment.scope.at == at));
    assert!(assignments.iter().all(|assignment| assignment.principal_id.value == agent.principal));
    let mut names: Vec<_> = assignments.iter().map(|assignment| assignment.name.value.clone()).collect();
    assert!(names.iter().all(|name| postern::model::Guid::parse(name).is_some()));
    // The same again, however the ids are spelled, and no two alike.
    let respelled = Agent {
        principal: agent.principal.to_uppercase(),
        managed_resource_groups: agent
            .managed_resource_groups
            .iter()
            .map(|group| format!("{group}/"))
            .collect(),
        ..agent.clone()
    };
    let again: Vec<_> = respelled
        .role_assignments(&options, at)
        .into_iter()
        .map(|assignment| assignment.name.value)
        .collect();
    assert_eq!(names, again);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 8);
    let options = AgentOptions { privileged_roles: vec![LevelRole::new("x", "X")], ..options };
    assert_eq!(Level::Privileged.roles(&options)[3].name, "X");
    assert_eq!(Level::Reader.roles(&options).len(), 3);
}

#[test]
fn groups_that_come_and_go() {
    let options = AgentOptions::default();
    let agent = ops_agent(Mode::Review);
    let error = |group: &str| agent.add_resource_group(group, &options).unwrap_err();
    let respelled = OPS.replace("resourceGroups/ops", "RESOURCEGROUPS/Ops/");
    assert_eq!(error(&respelled), GroupError::AlreadyManaged(respelled.clone()));
    let subscription = "/subscriptions/11111111-1111-1111-1111-111111111111";
    assert_eq!(error(subscription), GroupError::NotAResourceGroup(subscription.into()));
    let error = |group: &str| agent.remove_resource_group(group, &[]).unwrap_err();
    assert_eq!(error(&format!("{OPS}2")), GroupError::NotManaged(format!("{OPS}2")));
    assert_eq!(error("/"), GroupError::NotAResourceGroup("/".into()));

    // Everything of the agent at or below the group goes, and nothing else.
    let assignment = |name: &str, principal: &str, scope: &str| RoleAssignment {
        name: text(name),
        principal_id: text(principal),
        scope: text(scope),
        ..RoleAssignment::default()
    };
    let me = agent.principal.to_uppercase();
    let assignments = [
        assignment("here", &me, &OPS.to_lowercase()),
        assignment("below", &me, &format!("{OPS}/providers/A.B/c/d")),
        assignment("beside", &me, &format!("{OPS}2")),
        assignment("above", &me, subscription),
        assignment("another's", "alice", OPS),
    ];
    let removed = agent.remove_resource_group(&format!("{OPS}/"), &assignments).unwrap();
    let names: Vec<_> =
        removed.role_assignments.iter().map(|assignment| assignment.name.value.as_str()).collect();
    assert_eq!(names, ["here", "below"]);
    assert!(removed.agent.managed_resource_groups.is_empty());
}

#[test]
fn what_users_need() {
    let subscription = "/subscriptions/11111111-1111-1111-1111-111111111111";
    let mut asked = Vec::new();
    let mut allow_all = |action: &str, scope: Scope<'_>| {
        asked.push((action.to_owned(), scope.to_string()));
        Ok::<_, Infallible>(Access::Allowed)
    };
    let older = format!("{OPS}/providers/microsoft.sreagent/agents/a");
    assert_eq!(may_use(Scope::parse(&older).unwrap(), &mut allow_all), Ok(UserContext::Allowed));
    let options = AgentOptions::default();
    let ops = Scope::parse(OPS).unwrap();
    for (region, expected) in [
        (None, UserContext::Allowed),
        (Some("Sweden Central"), UserContext::Allowed),
        (Some("SwedenCentral"), UserContext::Allowed),
        (Some("westeurope"), UserContext::RegionNotAllowed),
        (Some(""), UserContext::RegionNotAllowed),
    ] {
        assert_eq!(may_create(ops, region, &options, &mut allow_all), Ok(expected), "{region:?}");
    }
    let anywhere = AgentOptions { regions: Vec::new(), ..options.clone() };
    assert_eq!(may_create(ops, Some("x"), &anywhere, &mut allow_all), Ok(UserContext::Allowed));
    assert_eq!(asked[0], ("Microsoft.SREAgent/agents/write".to_owned(), older));
    assert_eq!(
        asked[1],
        ("Microsoft.Authorization/roleAssignments/write".to_owned(), subscription.to_owned())
    );
    assert_eq!(asked[2], ("Microsoft.App/agents/write".to_owned(), subscription.to_owned()));
    // Each of the two is needed, and a deny is no right.
    for missing in ["Microsoft.Authorization/roleAssignments/write", "Microsoft.App/agents/write"] {
        for access in [Access::NotAllowed, Access::Denied] {
            let check = |action: &str, _: Scope<'_>| {
                Ok::<_, Infallible>(if action == missing { access } else { Access::Allowed })
            };
            let context = may_create(ops, Some("westeurope"), &options, check);
            assert_eq!(context, Ok(UserContext::Missing(missing.to_owned())));
        }
    }
    assert_eq!(asked.len(), 13);
}

#[test]
fn a_check_without_decision_is_no_outcome() {
    struct NoPolicy;
    impl Checks for NoPolicy {
        type Error = Undecided;
        fn agent(&mut self) -> Result<Access, Undecided> {
            Err(Undecided::NoPolicy)
        }
        fn user(&mut self) -> Result<Access, Undecided> {
            Err(Undecided::NoPolicy)
        }
        fn holds_role(&mut self, _: PrincipalId<'_>, _: &str) -> Result<bool, Undecided> {
            Err(Undecided::NoPolicy)
        }
    }
    let ask = ask(READ, Responses::default());
    let decided = ops_agent(Mode::Auto).decide(&ask, &AgentOptions::default(), &mut NoPolicy);
    assert_eq!(decided, Err(Undecided::NoPolicy));
}
