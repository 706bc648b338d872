//! Roles that may be activated, for people and for programs.

use crate::proto::v1;

use super::timestamp;

/// As JSON.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Activation<'a> {
    role_definition_id: &'a str,
    role_name: &'a str,
    scope: &'a str,
    eligibility_id: &'a str,
    principal_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    eligible_until: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    condition: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    requirements: Option<Requirements<'a>>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Requirements<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    maximum_duration: &'a str,
    mfa: bool,
    justification: bool,
    ticket: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    authentication_context: &'a str,
    approval: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    approver_ids: &'a [String],
}

impl<'a> From<&'a v1::RoleActivation> for Activation<'a> {
    fn from(wire: &'a v1::RoleActivation) -> Self {
        Self {
            role_definition_id: &wire.role_definition_id,
            role_name: &wire.role_name,
            scope: &wire.scope,
            eligibility_id: &wire.eligibility_id,
            principal_id: &wire.principal_id,
            eligible_until: timestamp(wire.eligible_until.as_ref()),
            condition: &wire.condition,
            requirements: wire.requirements.as_ref().map(|wire| Requirements {
                maximum_duration: &wire.maximum_duration,
                mfa: wire.mfa,
                justification: wire.justification,
                ticket: wire.ticket,
                authentication_context: &wire.authentication_context,
                approval: wire.approval,
                approver_ids: &wire.approver_ids,
            }),
        }
    }
}

/// What an activation has to bring, as one line.
pub(super) fn takes(activation: &v1::RoleActivation) -> String {
    let Some(requirements) = &activation.requirements else {
        return "not known: the policy holds no settings for this role at this scope".to_owned();
    };
    let mut takes = Vec::new();
    if requirements.mfa {
        takes.push("multi-factor authentication".to_owned());
    }
    if requirements.justification {
        takes.push("a justification".to_owned());
    }
    if requirements.ticket {
        takes.push("a ticket".to_owned());
    }
    if !requirements.authentication_context.is_empty() {
        takes.push(format!("authentication context {}", requirements.authentication_context));
    }
    if requirements.approval {
        takes.push(match requirements.approver_ids.as_slice() {
            [] => "an approval".to_owned(),
            approvers => format!("an approval by one of {}", approvers.join(", ")),
        });
    }
    if takes.is_empty() {
        takes.push("nothing".to_owned());
    }
    let takes = takes.join(", ");
    match requirements.maximum_duration.as_str() {
        "" => takes,
        longest => format!("{takes}; for at most {longest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_an_activation_takes() {
        let mut activation = v1::RoleActivation::default();
        assert!(takes(&activation).starts_with("not known: "));
        activation.requirements = Some(v1::ActivationRequirements::default());
        assert_eq!(takes(&activation), "nothing");
        activation.requirements = Some(v1::ActivationRequirements {
            maximum_duration: "PT8H".into(),
            mfa: true,
            justification: true,
            ticket: true,
            authentication_context: "c1".into(),
            approval: true,
            approver_ids: vec!["a".into(), "b".into()],
        });
        assert_eq!(
            takes(&activation),
            "multi-factor authentication, a justification, a ticket, authentication context c1, an approval by one \
             of a, b; for at most PT8H"
        );
    }
}
