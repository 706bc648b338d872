//! Who may do an action at a scope (semantics, sections 1.5 and 2.3 to 2.5): every principal that the policy knows,
//! with the groups that the policy knows it to be in.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use zerocopy::little_endian::U32;

use super::actions::ActionSet;
use super::evaluate::{self, Place};
use super::layout::{self, DENY_ALL_PRINCIPALS, DENY_NOT_TO_CHILDREN, Damaged, Deny, View};
use super::permissions::{blocking, named_order};
use super::prospects::{Prospect, Prospects};
use super::standing::{self, MAX_ITEMS, Standing, cut};
use super::{Policy, describe};
use crate::model::{
    ALL_PRINCIPALS, DeniedPrincipal, DenyEffect, EligiblePrincipal, PermittedPrincipal, PrincipalDeny,
    PrincipalId, PrincipalList, PrincipalQuery, Through, Undecided,
};

/// Of what grants to one principal no more is told.
const MAX_THROUGH: usize = 16;

impl Policy {
    /// Lists who may do an action at a scope. Attributes are not known, so what depends on them is told as that.
    ///
    /// # Errors
    ///
    /// [`Undecided`] as for a check at the scope.
    pub fn list_principals(
        &self,
        query: &PrincipalQuery<'_>,
        now: Timestamp,
    ) -> Result<PrincipalList, Undecided> {
        let view = self.view();
        let place = evaluate::locate(view, query.scope)?;
        Ok(list(view, query, place, now)?)
    }
}

/// What grants to a principal of itself, not through its groups.
type Own = HashMap<u32, Vec<(Standing, Prospect)>>;

fn list(
    view: &View<'_>,
    query: &PrincipalQuery<'_>,
    place: Place,
    now: Timestamp,
) -> Result<PrincipalList, Damaged> {
    let actions = ActionSet::find(view, query.action.as_str(), query.plane)?;
    let mut prospects = Prospects::new(view, now);
    prospects.look_at(query.action.as_str());
    let all = 0..u32::try_from(view.principals.len()).map_err(|_| Damaged)?;
    let (mut own, mut own_eligible) = (Own::new(), Own::new());
    each_holds_its_own(view)?;
    for principal in all.clone() {
        let held = standing::assignments(view, place, principal, now)?;
        let eligible = standing::eligibilities(view, place, principal, now)?;
        for (list, standings) in [(&mut own, held), (&mut own_eligible, eligible)] {
            for standing in standings.into_iter().filter(|standing| standing.holds) {
                let prospect = prospects.grant(&actions, &standing)?;
                if prospect.may_grant() {
                    list.entry(principal).or_default().push((standing, prospect));
                }
            }
        }
    }
    let (mut list, denies) = (PrincipalList::default(), speaking(view, place, &actions, &mut prospects)?);
    let groups: HashSet<u32> = view.member_of.iter().map(|group| group.get()).collect();
    for principal in all {
        let mut principals = vec![principal];
        principals.extend(standing::groups_of(view, principal)?.iter().map(|group| group.get()));
        let mut through = of_all(&own, &principals);
        let eligible = of_all(&own_eligible, &principals);
        if through.is_empty() && eligible.is_empty() {
            continue;
        }
        let id = describe::principal(view, principal)?.to_string();
        let is_group = groups.contains(&principal);
        let mut eligible: Vec<EligiblePrincipal> = eligible
            .into_iter()
            .map(|(standing, _)| {
                let activation = describe::activation(view, standing.number)?;
                Ok(EligiblePrincipal { id: id.clone(), is_group, activation })
            })
            .collect::<Result<_, Damaged>>()?;
        eligible.sort_by(|one, other| one.activation.eligibility_id.cmp(&other.activation.eligibility_id));
        if list.eligible.len() <= MAX_ITEMS {
            list.eligible.extend(eligible);
        }

        through.sort_by_key(|(standing, _)| standing.order());
        let named = through.iter().min_by_key(|(held, prospect)| named_order(&actions, held, *prospect));
        let Some(named) = named.copied() else { continue };
        let mut applying = Vec::new();
        for deny in &denies {
            if evaluate::applies(view, deny, place, &principals)? {
                applying.push(*deny);
            }
        }
        let blocking = blocking(&mut prospects, &actions, &applying)?;
        if let Some((deny, prospect)) = blocking
            && prospect.always_denies()
        {
            if list.denied.len() <= MAX_ITEMS {
                let (through, deny_assignment_id) = (shown(view, named)?, describe::deny_id(view, deny)?);
                list.denied.push(DeniedPrincipal { id, is_group, through, deny_assignment_id });
            }
        } else if list.principals.len() <= MAX_ITEMS {
            let others = through.into_iter().filter(|(other, _)| other.number != named.0.number);
            let through = std::iter::once(named).chain(others).take(MAX_THROUGH);
            let through = through.map(|one| shown(view, one)).collect::<Result<_, Damaged>>()?;
            let conditional = blocking.is_some() || !named.1.always_grants();
            list.principals.push(PermittedPrincipal { id, is_group, through, conditional });
        }
    }
    for deny in denies {
        list.denies.push(shown_deny(view, deny, &mut list.truncated)?);
    }
    list.truncated |= cut(&mut list.principals, MAX_ITEMS)
        | cut(&mut list.denied, MAX_ITEMS)
        | cut(&mut list.eligible, MAX_ITEMS)
        | cut(&mut list.denies, MAX_ITEMS);
    Ok(list)
}

/// Assignments, eligibilities and memberships belong to one principal each, so that walking those of all principals
/// takes as long as there are many: also in a policy that says otherwise.
fn each_holds_its_own(view: &View<'_>) -> Result<(), Damaged> {
    let sum = |of: fn(&layout::Principal) -> U32| -> u64 {
        view.principals.iter().map(|principal| u64::from(of(principal).get())).sum()
    };
    let rising = view.eligible_first.is_sorted_by_key(|first| first.get());
    if sum(|principal| principal.entries) > view.entries.len() as u64
        || sum(|principal| principal.groups) > view.member_of.len() as u64
        || !rising
    {
        return Err(Damaged);
    }
    Ok(())
}

fn of_all(own: &Own, principals: &[u32]) -> Vec<(Standing, Prospect)> {
    principals.iter().filter_map(|principal| own.get(principal)).flatten().copied().collect()
}

fn shown(view: &View<'_>, (standing, prospect): (Standing, Prospect)) -> Result<Through, Damaged> {
    let assignment = describe::assignment(view, standing.number)?;
    Ok(Through { assignment, conditional: !prospect.always_grants() })
}

/// The enforced deny assignments that reach the place and may block the action for somebody.
fn speaking<'v>(
    view: &View<'v>,
    place: Place,
    actions: &ActionSet,
    prospects: &mut Prospects<'_>,
) -> Result<Vec<&'v Deny>, Damaged> {
    let mut speaking = Vec::new();
    for (_, deny) in standing::denies(view, place)? {
        let own_scope_only = deny.flags.get() & DENY_NOT_TO_CHILDREN != 0;
        let reaches = !own_scope_only || place.exact && place.scope == deny.scope.get();
        if standing::effect(deny) == DenyEffect::Enforced
            && reaches
            && prospects.deny(actions, deny)?.may_deny()
        {
            speaking.push(deny);
        }
    }
    Ok(speaking)
}

fn shown_deny(view: &View<'_>, deny: &Deny, truncated: &mut bool) -> Result<PrincipalDeny, Damaged> {
    let mut ids = |first: U32, count: U32| -> Result<Vec<String>, Damaged> {
        let listed = layout::slice(view.deny_principals, first, count)?;
        *truncated |= listed.len() > MAX_ITEMS;
        let mut ids = Vec::new();
        for index in listed.iter().take(MAX_ITEMS) {
            let id = describe::principal(view, index.get())?;
            if id != PrincipalId::Guid(ALL_PRINCIPALS) {
                ids.push(id.to_string());
            }
        }
        Ok(ids)
    };
    Ok(PrincipalDeny {
        id: describe::deny_id(view, deny)?,
        name: describe::deny_name(view, deny)?,
        scope: describe::written(|out| describe::write_scope(view, deny.scope.get(), out))?,
        all_principals: deny.flags.get() & DENY_ALL_PRINCIPALS != 0,
        principals: ids(deny.first_principal, deny.principals)?,
        exclude_principals: ids(deny.first_excluded, deny.excluded)?,
        condition: describe::condition_text(view, deny.condition.get())?.map(str::to_owned),
    })
}
