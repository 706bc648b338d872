//! The conditions of a policy on their way into the buffer: each text parsed and compiled once, however often it is
//! written, and numbered by its text, so that equal documents give equal bytes.
//!
//! A condition that cannot be used is kept too: what it stands on grants nothing, or denies whatever it says
//! (semantics, section 2.5 and section 9, row 39), and an explanation shows it.

use std::collections::{BTreeMap, HashMap};

use super::CompileOptions;
use super::layout::{self, NONE, Text, UNUSABLE_GUID_ON_STORAGE, UNUSABLE_TEXT};
use crate::condition::{self, Extensions, Mode, Program, Uses};
use crate::model::{ConditionText, RoleDefinition};

/// What a condition comes to: the same text can be unusable on one role only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    text: &'a str,
    unusable: u32,
}

/// All conditions of a policy.
pub(super) struct Conditions<'a> {
    programs: HashMap<&'a str, Option<Program>>,
    numbers: BTreeMap<Key<'a>, u32>,
    options: CompileOptions,
}

impl<'a> Conditions<'a> {
    pub(super) fn new(options: CompileOptions) -> Self {
        Self { programs: HashMap::new(), numbers: BTreeMap::new(), options }
    }

    /// Takes a condition in. `on_storage` says that it is about a role with data actions of Storage.
    pub(super) fn add(&mut self, condition: Option<&'a ConditionText>, on_storage: bool) {
        let Some(condition) = condition else { return };
        let text = condition.text.value.as_str();
        let options = self.options;
        self.programs.entry(text).or_insert_with(|| {
            let extensions = Extensions { enabled: options.condition_extensions };
            let parsed = condition::parse(text, Mode::Load, extensions).condition;
            parsed.map(|parsed| condition::compile(&parsed, options.wildcards))
        });
        self.numbers.insert(self.key(condition, on_storage), 0);
    }

    /// Numbers what has been taken in.
    pub(super) fn number(&mut self) {
        for (number, at) in (0..).zip(self.numbers.values_mut()) {
            *at = number;
        }
    }

    /// The number of a condition that was taken in, or [`NONE`] where there is none.
    pub(super) fn get(&self, condition: Option<&'a ConditionText>, on_storage: bool) -> Option<u32> {
        match condition {
            None => Some(NONE),
            Some(condition) => self.numbers.get(&self.key(condition, on_storage)).copied(),
        }
    }

    fn key(&self, condition: &'a ConditionText, on_storage: bool) -> Key<'a> {
        let text = condition.text.value.as_str();
        let version = condition.version.as_ref().map(|version| version.value.as_str());
        let program = self.programs.get(text).and_then(Option::as_ref);
        let unusable = match program {
            _ if condition::check_version(version).is_err() => UNUSABLE_TEXT,
            None => UNUSABLE_TEXT,
            Some(program) if on_storage && program.has_guid_operators() => UNUSABLE_GUID_ON_STORAGE,
            Some(_) => 0,
        };
        Key { text, unusable }
    }

    /// What all usable conditions read together.
    pub(super) fn uses(&self) -> Uses {
        let used = self.numbers.keys().filter(|key| key.unusable == 0);
        let programs = used.filter_map(|key| self.programs.get(key.text)?.as_ref());
        programs.fold(Uses::NOTHING, |all, program| all.with(program.uses()))
    }

    /// The records and the bytes of the programs; `place` keeps a text.
    pub(super) fn records(
        &self,
        mut place: impl FnMut(&str) -> Option<Text>,
    ) -> Option<(Vec<layout::Condition>, Vec<u8>)> {
        let (mut records, mut bytes) = (Vec::with_capacity(self.numbers.len()), Vec::new());
        let mut placed: HashMap<&str, Text> = HashMap::new();
        for key in self.numbers.keys() {
            let program = match self.programs.get(key.text)?.as_ref() {
                Some(program) if key.unusable == 0 => match placed.get(key.text) {
                    Some(program) => *program,
                    None => {
                        let start = u32::try_from(bytes.len()).ok()?;
                        bytes.extend_from_slice(program.as_bytes());
                        let length = u32::try_from(program.as_bytes().len()).ok()?;
                        let program = Text { start: start.into(), length: length.into() };
                        placed.insert(key.text, program);
                        program
                    }
                },
                _ => Text { start: 0.into(), length: 0.into() },
            };
            let source = place(key.text)?;
            records.push(layout::Condition { program, source, unusable: key.unusable.into() });
        }
        Some((records, bytes))
    }
}

/// Whether a role has data actions of Storage, on which GUID operators are not supported (semantics, section 10, row
/// 7).
pub(super) fn on_storage(role: &RoleDefinition) -> bool {
    const STORAGE: &str = "Microsoft.Storage/";
    role.permissions.iter().flat_map(|block| &block.data_actions).any(|pattern| {
        pattern.value.get(..STORAGE.len()).is_some_and(|start| start.eq_ignore_ascii_case(STORAGE))
    })
}
