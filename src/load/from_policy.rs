//! Questions made from a policy: its principals, its roles' actions made concrete, its scopes and places below them; and
//! some of each that it has never heard of. What each is answered is judged by the policy itself.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use fastrand::Rng;
use jiff::Timestamp;

use crate::model::PermissionPatterns;
use crate::policy::{Damaged, Policy};
use crate::proto::v1;
use crate::record::{Candidate, Outcome};

use super::questions::{Question, Questions, judged};

/// How many to make, and of which kind.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// At most so many different ones.
    pub distinct: usize,
    /// The share of calls whose answer is Allowed, from 0 to 1.
    pub allowed: f64,
    /// What chance begins with.
    pub seed: u64,
}

/// Candidates in a row that bring nothing new, after which there is nothing new to be found.
const BARREN: usize = 2048;
/// Members of a group that are asked for.
const MEMBERS: usize = 16;

/// What a policy speaks of.
struct Material {
    held: Vec<Held>,
    denied: Vec<Blocked>,
    members: HashMap<String, Vec<String>>,
    /// Concrete operations, with whether they are of the data plane.
    actions: Vec<(String, bool)>,
    scopes: Vec<String>,
    principals: Vec<String>,
}

/// One role assignment.
struct Held {
    principal: String,
    /// Those of its role, which others share.
    actions: Rc<[(String, bool)]>,
    scope: String,
}

/// One deny assignment.
struct Blocked {
    principals: Vec<String>,
    actions: Vec<(String, bool)>,
    scope: String,
}

/// Makes questions from a policy, with the answers that are expected.
///
/// # Errors
///
/// What cannot be made: a policy that is damaged, or in which nothing that is wanted was found.
pub fn from_policy(candidate: &Candidate, shares: Shares) -> Result<Questions, String> {
    let mut rng = Rng::with_seed(shares.seed);
    let policy = &candidate.snapshot.policy;
    let material = Material::of(policy, shares.distinct, &mut rng)
        .map_err(|Damaged| "the policy contradicts itself".to_owned())?;
    let mut makers = Makers { candidate, now: Timestamp::now(), seen: HashSet::new() };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a count of questions"
    )]
    let wanted = ((shares.distinct as f64 * shares.allowed).round() as usize).min(shares.distinct);
    let wanted_not = shares.distinct.saturating_sub(wanted);
    let allowed = makers.make(
        if shares.allowed > 0.0 { wanted.max(1) } else { 0 },
        |outcome| outcome == Outcome::Allowed,
        |_| material.granted(&mut rng),
    );
    let refused = makers.make(
        if shares.allowed < 1.0 { wanted_not.max(1) } else { 0 },
        |outcome| matches!(outcome, Outcome::NotAllowed | Outcome::Denied),
        |number| material.stray(number, &mut rng),
    );
    if shares.allowed > 0.0 && allowed.is_empty() {
        return Err("found nothing that the policy allows; `--allowed 0` asks for the rest".to_owned());
    }
    if shares.allowed < 1.0 && refused.is_empty() {
        return Err(
            "found nothing that the policy does not allow; `--allowed 1` asks for the rest".to_owned()
        );
    }
    let first = Some((allowed.len(), shares.allowed));
    let mut all = allowed;
    all.extend(refused);
    Ok(Questions { all, first, skipped: Vec::new() })
}

/// Keeps what is new and is answered as wanted.
struct Makers<'c> {
    candidate: &'c Candidate,
    now: Timestamp,
    seen: HashSet<Vec<u8>>,
}

impl Makers<'_> {
    fn make(
        &mut self,
        wanted: usize,
        is_wanted: impl Fn(Outcome) -> bool,
        mut candidate: impl FnMut(usize) -> Option<v1::CheckRequest>,
    ) -> Vec<Question> {
        let mut made = Vec::new();
        let mut barren = 0;
        for number in 0_usize.. {
            if made.len() >= wanted || barren > BARREN {
                break;
            }
            barren += 1;
            let Some(message) = candidate(number) else { break };
            let Some(expected) = judged(self.candidate, &message, self.now) else { continue };
            if is_wanted(expected.outcome) && self.seen.insert(prost::Message::encode_to_vec(&message)) {
                made.push(Question { message, expected: Some(expected) });
                barren = 0;
            }
        }
        made
    }
}

impl Material {
    fn of(policy: &Policy, distinct: usize, rng: &mut Rng) -> Result<Self, Damaged> {
        let roles: HashMap<String, Rc<[(String, bool)]>> = policy
            .role_definitions()?
            .into_iter()
            .map(|role| (role.id.to_ascii_lowercase(), concrete(&role.blocks).into()))
            .collect();
        let mut groups: HashMap<String, Vec<String>> = HashMap::new();
        let mut principals = Vec::new();
        for (principal, of) in policy.memberships()? {
            for group in of {
                let members = groups.entry(group).or_default();
                if members.len() < MEMBERS {
                    members.push(principal.clone());
                }
            }
            principals.push(principal);
        }
        principals.retain(|principal| !groups.contains_key(principal));
        // Every assignment has the same chance, however many there are.
        let most = distinct.max(1);
        let mut held: Vec<Held> = Vec::new();
        for (number, assignment) in policy.assignments().enumerate() {
            let place = if held.len() < most { held.len() } else { rng.usize(..=number) };
            if place >= most {
                continue;
            }
            let assignment = assignment?;
            let actions = roles.get(&assignment.role_definition_id.to_ascii_lowercase());
            let assignment = Held {
                principal: assignment.principal_id,
                actions: actions.map_or_else(|| Rc::from([]), Rc::clone),
                scope: assignment.scope,
            };
            match held.get_mut(place) {
                Some(other) => *other = assignment,
                None => held.push(assignment),
            }
        }
        let denied = policy.deny_assignments()?.into_iter().map(|deny| Blocked {
            principals: deny.principals,
            actions: concrete(&deny.blocks),
            scope: deny.scope,
        });
        let actions: HashSet<&(String, bool)> = roles.values().flat_map(|actions| actions.iter()).collect();
        let mut actions: Vec<_> = actions.into_iter().cloned().collect();
        actions.sort_unstable();
        let scopes: HashSet<&str> = held.iter().map(|held| held.scope.as_str()).collect();
        let mut scopes: Vec<String> = scopes.into_iter().map(str::to_owned).collect();
        scopes.sort_unstable();
        Ok(Self { denied: denied.collect(), held, members: groups, actions, scopes, principals })
    }

    /// What a role assignment speaks of, asked at its scope or below.
    fn granted(&self, rng: &mut Rng) -> Option<v1::CheckRequest> {
        let held = pick(&self.held, rng)?;
        // Now and then what another role names: a wildcard may match it.
        let own = if rng.u8(..4) > 0 { pick(&held.actions, rng) } else { None };
        let action = own.or_else(|| pick(&self.actions, rng))?;
        let (who, groups) = self.subject(&held.principal, rng);
        let scope = if rng.u8(..3) == 0 { held.scope.clone() } else { below(&held.scope, &action.0, rng) };
        Some(question(&who, groups, action, scope))
    }

    /// Pieces that do not belong together, what a deny assignment blocks, and what no document names.
    fn stray(&self, number: usize, rng: &mut Rng) -> Option<v1::CheckRequest> {
        let unknown_action = ("Microsoft.Nowhere/things/read".to_owned(), false);
        let somebody = |rng: &mut Rng| match pick(&self.principals, rng) {
            Some(principal) => (principal.clone(), Vec::new()),
            None => match pick(&self.held, rng) {
                Some(held) => self.subject(&held.principal, rng),
                None => (stranger(rng), Vec::new()),
            },
        };
        let action = pick(&self.actions, rng).unwrap_or(&unknown_action);
        let scope = pick(&self.scopes, rng).map_or_else(|| subscription(rng), String::clone);
        let place = below(&scope, &action.0, rng);
        let (who, groups) = somebody(rng);
        Some(match number % 6 {
            // Known, each by itself.
            0 | 1 => question(&who, groups, action, place),
            // Blocked.
            2 => match pick(&self.denied, rng) {
                Some(deny) => {
                    let blocked = pick(&deny.actions, rng).unwrap_or(action);
                    let (who, groups) = match pick(&deny.principals, rng) {
                        Some(principal) => self.subject(principal, rng),
                        None => (who, groups),
                    };
                    question(&who, groups, blocked, below(&deny.scope, &blocked.0, rng))
                }
                None => question(&who, groups, action, place),
            },
            // Nobody knows who asks, what is asked for, or where.
            3 => question(&stranger(rng), Vec::new(), action, place),
            4 => question(&who, groups, &unknown_action, place),
            _ => question(&who, groups, action, below(&subscription(rng), &action.0, rng)),
        })
    }

    /// Who asks for what a principal holds: itself, or for a group a member or somebody whose token names it.
    fn subject(&self, principal: &str, rng: &mut Rng) -> (String, Vec<String>) {
        match self.members.get(principal) {
            Some(members) => match pick(members, rng).filter(|_| rng.bool()) {
                Some(member) => (member.clone(), Vec::new()),
                None => (stranger(rng), vec![principal.to_owned()]),
            },
            None => (principal.to_owned(), Vec::new()),
        }
    }
}

fn pick<'t, T>(from: &'t [T], rng: &mut Rng) -> Option<&'t T> {
    if from.is_empty() { None } else { from.get(rng.usize(..from.len())) }
}

/// The operations of a role, its wildcards made into something that they match.
fn concrete(blocks: &[PermissionPatterns]) -> Vec<(String, bool)> {
    let mut actions = Vec::new();
    for block in blocks {
        let planes = [(&block.actions, false), (&block.data_actions, true)];
        for (pattern, data) in
            planes.into_iter().flat_map(|(patterns, data)| patterns.iter().map(move |p| (p, data)))
        {
            let pattern: &str = pattern.as_ref();
            let concrete = match pattern {
                "*" => "Microsoft.Storage/storageAccounts/read".to_owned(),
                _ => match pattern.strip_prefix("*/") {
                    Some(rest) => format!("Microsoft.Storage/storageAccounts/{}", rest.replace('*', "read")),
                    None => match pattern.strip_suffix("/*") {
                        Some(rest) if !rest.contains('/') => format!("{rest}/things/read"),
                        Some(rest) => format!("{}/read", rest.replace('*', "things")),
                        None => pattern.replace('*', "things"),
                    },
                },
            };
            actions.push((concrete, data));
        }
    }
    actions
}

/// A resource of the kind that an operation is for, below a scope; the scope itself where there is no place below it.
fn below(scope: &str, action: &str, rng: &mut Rng) -> String {
    let mut segments = action.split('/');
    let (Some(provider), Some(kind)) = (segments.next(), segments.next()) else { return scope.to_owned() };
    let depth = scope.trim_matches('/').split('/').count();
    let is_resource = scope.to_ascii_lowercase().contains("/providers/");
    let scope = scope.trim_end_matches('/');
    let name = rng.u16(..200);
    let in_subscription = scope.to_ascii_lowercase().starts_with("/subscriptions/");
    match (is_resource, in_subscription, depth) {
        (false, true, 2) => {
            format!("{scope}/resourceGroups/rg-load-{}/providers/{provider}/{kind}/load-{name}", rng.u8(..20))
        }
        (false, true, 4) => format!("{scope}/providers/{provider}/{kind}/load-{name}"),
        _ if scope.is_empty() => "/".to_owned(),
        _ => scope.to_owned(),
    }
}

fn question(
    who: &str,
    groups: Vec<String>,
    (action, data_action): &(String, bool),
    scope: String,
) -> v1::CheckRequest {
    v1::CheckRequest {
        subject: Some(v1::Subject {
            principal_id: who.to_owned(),
            group_ids: groups,
            ..v1::Subject::default()
        }),
        action: Some(v1::Action { name: action.clone(), data_action: *data_action, ..v1::Action::default() }),
        resource: Some(v1::Resource { scope, ..v1::Resource::default() }),
        ..v1::CheckRequest::default()
    }
}

fn stranger(rng: &mut Rng) -> String {
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid().to_string()
}

fn subscription(rng: &mut Rng) -> String {
    format!("/subscriptions/{}", stranger(rng))
}
