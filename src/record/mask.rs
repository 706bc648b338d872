//! What a record shows of a question: each field as it is, as a hash, or not at all. The rules name fields by their
//! path in `CheckRequest` of the contract; a longer path wins over a shorter one.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::model::PrincipalId;

/// What happens to a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verb {
    /// It stands in the record.
    #[default]
    Keep,
    /// Its hash does.
    Hash,
    /// It is left out.
    Drop,
}

macro_rules! fields {
    ($($name:ident $path:literal $doc:literal,)*) => {
        /// A field of a question.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field {
            $(#[doc = $doc] $name,)*
        }

        impl Field {
            /// All of them, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its path in the contract.
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$name => $path,)*
                }
            }
        }
    };
}

fields! {
    PrincipalId "subject.principal_id" "Who asks.",
    PrincipalType "subject.principal_type" "What they are.",
    GroupIds "subject.group_ids" "Groups that are vouched for.",
    PrincipalAttributes "subject.attributes" "`@Principal`.",
    Action "action.name" "What.",
    DataAction "action.data_action" "On which plane.",
    SubOperation "action.sub_operation" "The suboperation.",
    Scope "resource.scope" "Where.",
    ResourceAttributes "resource.attributes" "`@Resource`.",
    RequestAttributes "request_attributes" "`@Request`.",
    EnvironmentAttributes "environment_attributes" "`@Environment`.",
    RequestId "request_id" "The caller's id of the call.",
    AgentMode "agent.mode" "The mode of an agent.",
    UserId "agent.on_behalf_of.principal_id" "The user of an agent.",
    UserType "agent.on_behalf_of.principal_type" "What they are.",
    UserGroupIds "agent.on_behalf_of.group_ids" "Their groups.",
    UserAttributes "agent.on_behalf_of.attributes" "Their attributes.",
    ApproverId "agent.approval.by.principal_id" "Who approved.",
    ApproverType "agent.approval.by.principal_type" "What they are.",
    ApproverGroupIds "agent.approval.by.group_ids" "Their groups.",
    ApproverAttributes "agent.approval.by.attributes" "Their attributes.",
    ApprovalVerdict "agent.approval.verdict" "What they said.",
    ConsentId "agent.consent.principal_id" "Who consented.",
    ConsentVerdict "agent.consent.verdict" "What they said.",
}

/// How many fields there are.
const FIELDS: usize = Field::ALL.len();

/// The rules, resolved for every field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    fields: [Verb; FIELDS],
    /// For one attribute of a map.
    keys: BTreeMap<(usize, String), Verb>,
}

/// How values are hashed: with a key, or without.
#[derive(Clone, Default)]
pub struct Hasher(Option<aws_lc_rs::hmac::Key>);

/// Fewer bytes than this can be guessed.
pub const SHORTEST_KEY: usize = 16;

// === impls ===

impl Field {
    /// Whether it holds attributes by name.
    pub const fn is_map(self) -> bool {
        matches!(
            self,
            Self::PrincipalAttributes
                | Self::ResourceAttributes
                | Self::RequestAttributes
                | Self::EnvironmentAttributes
                | Self::UserAttributes
                | Self::ApproverAttributes
        )
    }

    const fn index(self) -> usize {
        self as usize
    }
}

impl Masks {
    /// Reads rules such as `subject.principal_id=hash,resource.attributes=drop`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut rules: Vec<(&str, Verb)> = Vec::new();
        for rule in text.split(',').map(str::trim) {
            // The names of attributes may hold a `=`.
            let Some((path, verb)) = rule.rsplit_once('=') else {
                problems.push(format!("`{rule}` is no rule; wanted PATH=hash, PATH=drop or PATH=keep"));
                continue;
            };
            let (path, verb) = (path.trim(), verb.trim());
            let verb = match verb {
                "keep" => Verb::Keep,
                "hash" => Verb::Hash,
                "drop" => Verb::Drop,
                _ => {
                    problems.push(format!("`{verb}` of `{path}`; wanted `keep`, `hash` or `drop`"));
                    continue;
                }
            };
            let path = path.strip_suffix(".*").unwrap_or(path);
            if rules.iter().any(|(known, _)| *known == path) {
                problems.push(format!("`{path}` has two rules"));
            }
            rules.push((path, verb));
        }
        rules.sort_by_key(|(path, _)| path.len());
        let mut masks = Self::default();
        for (path, verb) in rules {
            if !masks.apply(path, verb) {
                problems.push(match nearest(path) {
                    Some(near) => format!("`{path}` is no field of a question; did you mean `{near}`"),
                    None => format!(
                        "`{path}` is no field of a question; wanted a path in `CheckRequest` such as \
                         `subject.principal_id`"
                    ),
                });
            }
        }
        if problems.is_empty() { Ok(masks) } else { Err(problems) }
    }

    fn apply(&mut self, path: &str, verb: Verb) -> bool {
        let mut known = false;
        for field in Field::ALL {
            let whole = field.path();
            if whole == path || whole.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')) {
                known = true;
                if let Some(slot) = self.fields.get_mut(field.index()) {
                    *slot = verb;
                }
            } else if field.is_map()
                && let Some(key) = path.strip_prefix(whole).and_then(|rest| rest.strip_prefix('.'))
            {
                known = true;
                self.keys.insert((field.index(), key.to_owned()), verb);
            }
        }
        known
    }

    /// What happens to a field.
    pub fn field(&self, field: Field) -> Verb {
        self.fields.get(field.index()).copied().unwrap_or(Verb::Drop)
    }

    /// What happens to one attribute of a map.
    pub fn attribute(&self, field: Field, key: &str) -> Verb {
        if self.keys.is_empty() {
            return self.field(field);
        }
        let key = (field.index(), key.to_owned());
        self.keys.get(&key).copied().unwrap_or_else(|| self.field(field))
    }

    /// Whether anything is hashed.
    pub fn hashes(&self) -> bool {
        self.fields.contains(&Verb::Hash) || self.keys.values().any(|verb| *verb == Verb::Hash)
    }
}

/// The path that somebody meant: one that ends as theirs does, or differs in a letter or two.
fn nearest(path: &str) -> Option<&'static str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let distance = |field: &&Field| {
        let whole = edits(path, field.path());
        let ending = edits(&last(path), &last(field.path()));
        whole.min(ending.saturating_add(1))
    };
    let near = Field::ALL.iter().min_by_key(distance)?;
    let allowed = last(path).len() / 3;
    (distance(&near) <= allowed.max(2)).then(|| near.path())
}

/// How many letters have to be put in, left out or replaced.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in (1..).zip(one.chars()) {
        let mut next = vec![line];
        for (((left, above), diagonal), wanted) in
            (0..other.len()).zip(row.iter().skip(1)).zip(&row).zip(&other)
        {
            let left: usize = next.get(left).copied().unwrap_or(line);
            let same = diagonal.saturating_add(usize::from(letter != *wanted));
            next.push(same.min(left.saturating_add(1)).min(above.saturating_add(1)));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

impl Hasher {
    /// With a key: nobody without it can try out values.
    ///
    /// # Errors
    ///
    /// When it is shorter than [`SHORTEST_KEY`].
    pub fn keyed(key: &[u8]) -> Result<Self, String> {
        if key.len() < SHORTEST_KEY {
            return Err(format!("holds {} bytes; wanted at least {SHORTEST_KEY}", key.len()));
        }
        Ok(Self(Some(aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key))))
    }

    /// The hash of a text.
    pub fn text(&self, text: &str) -> String {
        match &self.0 {
            Some(key) => {
                format!("hmac-sha256:{}", hex::encode(aws_lc_rs::hmac::sign(key, text.as_bytes())))
            }
            None => format!("sha256:{}", hex::encode(Sha256::digest(text))),
        }
    }

    /// The hash of an object id: the same however a GUID is spelled.
    pub fn id(&self, id: &str) -> String {
        self.text(&PrincipalId::new(id).to_string())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Hasher(keyed)" } else { "Hasher(plain)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_wins() {
        let masks = Masks::parse(
            "resource.attributes.A.B/c:name=keep, subject=drop, subject.principal_id=hash, \
             resource.attributes=drop, environment_attributes.*=hash, request_attributes.a=b=drop",
        )
        .unwrap();
        assert_eq!(masks.field(Field::PrincipalId), Verb::Hash);
        assert_eq!(masks.field(Field::GroupIds), Verb::Drop);
        assert_eq!(masks.field(Field::Scope), Verb::Keep);
        assert_eq!(masks.attribute(Field::ResourceAttributes, "A.B/c:name"), Verb::Keep);
        assert_eq!(masks.attribute(Field::ResourceAttributes, "other"), Verb::Drop);
        assert_eq!(masks.attribute(Field::EnvironmentAttributes, "any"), Verb::Hash);
        assert_eq!(masks.attribute(Field::RequestAttributes, "a=b"), Verb::Drop);
        assert_eq!(masks.attribute(Field::RequestAttributes, "a"), Verb::Keep);
        assert!(masks.hashes());
        assert!(!Masks::default().hashes());
    }

    #[test]
    fn what_is_no_rule() {
        for (text, wanted) in [
            ("subject.principalid=hash", "did you mean `subject.principal_id`"),
            ("principal_id=drop", "did you mean `subject.principal_id`"),
            ("environment.*=drop", "is no field of a question"),
            ("colour=drop", "wanted a path in `CheckRequest`"),
            ("subject=hide", "wanted `keep`, `hash` or `drop`"),
            ("subject", "is no rule"),
            ("subject=drop,subject=keep", "has two rules"),
            ("action.name.x=drop", "is no field of a question"),
        ] {
            let problems = Masks::parse(text).unwrap_err();
            assert!(problems.len() == 1 && problems[0].contains(wanted), "{text}: {problems:?}");
        }
        assert_eq!(Masks::parse("a=drop,subject=x,b").unwrap_err().len(), 3);
    }

    #[test]
    fn hashes_do_not_depend_on_the_spelling_of_a_guid() {
        let plain = Hasher::default();
        let keyed = Hasher::keyed(b"0123456789abcdef").unwrap();
        let (one, other) = ("A0000000-0000-4000-8000-00000000000A", "a0000000-0000-4000-8000-00000000000a");
        for hasher in [&plain, &keyed] {
            assert_eq!(hasher.id(one), hasher.id(other));
            assert_ne!(hasher.id(one), hasher.id("x"));
        }
        assert_ne!(plain.id(one), keyed.id(one));
        assert_eq!(
            plain.text("abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Hasher::keyed(b"short").unwrap_err(), "holds 5 bytes; wanted at least 16");
    }
}
