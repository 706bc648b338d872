//! The settings of a role at a scope: what its policy asks of activations and of administrators, and the
//! reader of `roleManagementPolicies` (semantics, section 5.3).

use std::fmt;

use serde_json::Value;

use super::IsoDuration;

/// All rules of one policy. It belongs to one role at one scope and is not inherited.
#[derive(Clone, Debug, Default)]
pub struct PolicyRules {
    /// `…_EndUser_Assignment`: what an activation needs.
    pub activation: ActivationRules,
    /// `…_Admin_Eligibility`: what making somebody eligible needs.
    pub eligible: AdminRules,
    /// `…_Admin_Assignment`: what making somebody active needs.
    pub active: AdminRules,
    /// Ids of rules that were read past because no decision rests on them as far as is known. Notifications
    /// are not listed.
    pub ignored: Vec<String>,
}

/// What an activation needs. A rule that the policy does not have asks for nothing; an end is always asked
/// for.
#[derive(Clone, Debug, Default)]
pub struct ActivationRules {
    /// `Expiration_EndUser_Assignment`: the longest activation.
    pub max_duration: Option<IsoDuration>,
    /// `MultiFactorAuthentication` is enabled.
    pub mfa: bool,
    /// `Justification` is enabled.
    pub justification: bool,
    /// `Ticketing` is enabled.
    pub ticketing: bool,
    /// `AuthenticationContext_EndUser_Assignment`: the value that the token must carry under `acrs`.
    pub authentication_context: Option<String>,
    /// `Approval_EndUser_Assignment`, where approval is required.
    pub approval: Option<Approval>,
}

/// Who may approve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approval {
    /// Object ids of users and groups, never empty when read from a policy.
    pub approvers: Vec<String>,
}

/// What an assignment by an administrator needs.
#[derive(Clone, Debug, Default)]
pub struct AdminRules {
    /// Whether it must end.
    pub expiration_required: bool,
    /// The longest assignment; counts only where it must end.
    pub max_duration: Option<IsoDuration>,
    /// `MultiFactorAuthentication` is enabled.
    pub mfa: bool,
    /// `Justification` is enabled.
    pub justification: bool,
    /// `Ticketing` is enabled.
    pub ticketing: bool,
}

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Path of the field, for example `rules[2].maximumDuration`.
    pub field: String,
    /// Lower case, no full stop, input in backticks.
    pub message: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for RuleError {}

impl PolicyRules {
    /// Reads the rules of a `roleManagementPolicies` document, of a `roleManagementPolicyAssignments`
    /// document (`effectiveRules`), or a bare array of rules. Property names match in any letter case; the
    /// REST name `ruleType` and Graph's `@odata.type` are one.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once. A policy that was not read whole is never used: a rule left out
    /// would ask for less than was meant.
    pub fn from_json(document: &Value) -> Result<Self, Vec<RuleError>> {
        let mut reader = Reader { errors: Vec::new(), seen: Vec::new(), rules: Self::default() };
        let properties = get(document, "properties").unwrap_or(document);
        let (path, rules) = if properties.is_array() {
            ("rules", Some(properties))
        } else if let Some(effective) = get(properties, "effectiveRules") {
            ("effectiveRules", Some(effective))
        } else {
            ("rules", get(properties, "rules"))
        };
        match rules.and_then(Value::as_array) {
            Some(list) => {
                for (index, rule) in list.iter().enumerate() {
                    reader.rule(&format!("{path}[{index}]"), rule);
                }
            }
            None => reader.error(path, "wanted an array of rules"),
        }
        if reader.errors.is_empty() { Ok(reader.rules) } else { Err(reader.errors) }
    }
}

struct Reader {
    errors: Vec<RuleError>,
    seen: Vec<String>,
    rules: PolicyRules,
}

impl Reader {
    fn rule(&mut self, path: &str, rule: &Value) {
        let Some(id) = get(rule, "id").and_then(Value::as_str) else {
            self.error(&format!("{path}.id"), "wanted the id of a rule");
            return;
        };
        let folded = id.to_ascii_lowercase();
        if self.seen.contains(&folded) {
            self.error(&format!("{path}.id"), format!("rule `{id}` stands here twice"));
            return;
        }
        self.seen.push(folded.clone());
        match folded.as_str() {
            "expiration_enduser_assignment" if self.is_type(path, rule, "ExpirationRule") => {
                self.rules.activation.max_duration = self.duration(path, rule);
            }
            "expiration_admin_eligibility" if self.is_type(path, rule, "ExpirationRule") => {
                self.rules.eligible.expiration_required = self.flag(path, rule, "isExpirationRequired");
                self.rules.eligible.max_duration = self.duration(path, rule);
            }
            "expiration_admin_assignment" if self.is_type(path, rule, "ExpirationRule") => {
                self.rules.active.expiration_required = self.flag(path, rule, "isExpirationRequired");
                self.rules.active.max_duration = self.duration(path, rule);
            }
            "enablement_enduser_assignment" if self.is_type(path, rule, "EnablementRule") => {
                let [mfa, justification, ticketing] = self.enabled(path, rule);
                let activation = &mut self.rules.activation;
                (activation.mfa, activation.justification, activation.ticketing) =
                    (mfa, justification, ticketing);
            }
            "enablement_admin_eligibility" if self.is_type(path, rule, "EnablementRule") => {
                let [mfa, justification, ticketing] = self.enabled(path, rule);
                let eligible = &mut self.rules.eligible;
                (eligible.mfa, eligible.justification, eligible.ticketing) = (mfa, justification, ticketing);
            }
            "enablement_admin_assignment" if self.is_type(path, rule, "EnablementRule") => {
                let [mfa, justification, ticketing] = self.enabled(path, rule);
                let active = &mut self.rules.active;
                (active.mfa, active.justification, active.ticketing) = (mfa, justification, ticketing);
            }
            "authenticationcontext_enduser_assignment"
                if self.is_type(path, rule, "AuthenticationContextRule") =>
            {
                if self.flag(path, rule, "isEnabled") {
                    match get(rule, "claimValue").and_then(Value::as_str).filter(|value| !value.is_empty()) {
                        Some(value) => self.rules.activation.authentication_context = Some(value.to_owned()),
                        None => self.error(
                            &format!("{path}.claimValue"),
                            "wanted the authentication context that a token must carry, such as `c1`",
                        ),
                    }
                }
            }
            "approval_enduser_assignment" if self.is_type(path, rule, "ApprovalRule") => {
                self.rules.activation.approval = self.approval(path, rule);
            }
            "expiration_enduser_assignment"
            | "expiration_admin_eligibility"
            | "expiration_admin_assignment"
            | "enablement_enduser_assignment"
            | "enablement_admin_eligibility"
            | "enablement_admin_assignment"
            | "authenticationcontext_enduser_assignment"
            | "approval_enduser_assignment" => {}
            _ if folded.starts_with("notification_") => {}
            _ => self.rules.ignored.push(id.to_owned()),
        }
    }

    /// Whether the type, where the rule has one, is the one that its id calls for; tells when not.
    fn is_type(&mut self, path: &str, rule: &Value, wanted: &str) -> bool {
        for name in ["ruleType", "@odata.type"] {
            if let Some(found) = get(rule, name).filter(|found| !found.is_null())
                && !found.as_str().is_some_and(|found| found.ends_with(wanted))
            {
                let message = format!("`{}` is no type for this id; wanted `…{wanted}`", plain(found));
                self.error(&format!("{path}.{name}"), message);
                return false;
            }
        }
        true
    }

    fn duration(&mut self, path: &str, rule: &Value) -> Option<IsoDuration> {
        let path = format!("{path}.maximumDuration");
        match get(rule, "maximumDuration") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => match IsoDuration::parse(text) {
                Ok(duration) => Some(duration),
                Err(error) => {
                    self.error(&path, error.to_string());
                    None
                }
            },
            Some(other) => {
                self.error(&path, format!("`{}` is no text; wanted a duration such as `PT8H`", plain(other)));
                None
            }
        }
    }

    /// A missing flag is off.
    fn flag(&mut self, path: &str, rule: &Value, name: &str) -> bool {
        match get(rule, name) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                let message = format!("`{}` is neither `true` nor `false`", plain(other));
                self.error(&format!("{path}.{name}"), message);
                false
            }
        }
    }

    /// MFA, justification, ticketing.
    fn enabled(&mut self, path: &str, rule: &Value) -> [bool; 3] {
        let mut enabled = [false; 3];
        let [mfa, justification, ticketing] = &mut enabled;
        match get(rule, "enabledRules") {
            None | Some(Value::Null) => {}
            Some(Value::Array(names)) => {
                for (index, name) in names.iter().enumerate() {
                    match name.as_str().map(str::to_ascii_lowercase).as_deref() {
                        Some("multifactorauthentication") => *mfa = true,
                        Some("justification") => *justification = true,
                        Some("ticketing") => *ticketing = true,
                        _ => self.error(
                            &format!("{path}.enabledRules[{index}]"),
                            format!(
                                "`{}` is none of `MultiFactorAuthentication`, `Justification`, `Ticketing`",
                                plain(name)
                            ),
                        ),
                    }
                }
            }
            Some(_) => self.error(&format!("{path}.enabledRules"), "wanted an array of names"),
        }
        enabled
    }

    fn approval(&mut self, path: &str, rule: &Value) -> Option<Approval> {
        let path = format!("{path}.setting");
        let Some(setting) = get(rule, "setting").filter(|setting| setting.is_object()) else {
            self.error(&path, "wanted an object with `isApprovalRequired`");
            return None;
        };
        if !self.flag(&path, setting, "isApprovalRequired") {
            return None;
        }
        let mut approvers = Vec::new();
        let stages = get(setting, "approvalStages").and_then(Value::as_array);
        for (stage, document) in stages.into_iter().flatten().enumerate() {
            let named = get(document, "primaryApprovers").and_then(Value::as_array);
            for (index, approver) in named.into_iter().flatten().enumerate() {
                let id = ["id", "userId", "groupId"]
                    .iter()
                    .find_map(|name| get(approver, name)?.as_str().filter(|id| !id.is_empty()));
                match id {
                    Some(id) => approvers.push(id.to_owned()),
                    None => self.error(
                        &format!("{path}.approvalStages[{stage}].primaryApprovers[{index}]"),
                        "wanted the object id of a user or group under `id`",
                    ),
                }
            }
        }
        if approvers.is_empty() {
            self.error(
                &format!("{path}.approvalStages"),
                "approval is required and no approver is named; Azure resources have no default approvers",
            );
        }
        Some(Approval { approvers })
    }

    fn error(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(RuleError { field: field.to_owned(), message: message.into() });
    }
}

/// A property in any letter case.
fn get<'v>(document: &'v Value, name: &str) -> Option<&'v Value> {
    let object = document.as_object()?;
    object
        .get(name)
        .or_else(|| object.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

/// A value for a message: texts without their quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
