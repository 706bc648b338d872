//! An object of an example, field by field: what is not taken by the end is a mistake of the example or of the test.

use serde_json::Value;

pub(crate) struct Fields<'a>(&'a str, Vec<(&'a str, &'a Value)>);

impl<'a> Fields<'a> {
    /// `place` is told when something is not as it should be.
    pub(crate) fn new(place: &'a str, value: &'a Value) -> Self {
        let object = value.as_object().unwrap_or_else(|| panic!("{place}: no object: {value}"));
        Self(place, object.iter().map(|(name, value)| (name.as_str(), value)).collect())
    }

    /// `null` is as good as nothing.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a Value> {
        let at = self.1.iter().position(|(found, _)| *found == name)?;
        Some(self.1.remove(at).1).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<&'a str> {
        self.take(name).map(|value| value.as_str().expect(name))
    }

    pub(crate) fn must(&mut self, name: &str) -> &'a str {
        self.text(name).unwrap_or_else(|| panic!("{}: no `{name}`", self.0))
    }

    pub(crate) fn flag(&mut self, name: &str) -> bool {
        self.take(name).expect(name).as_bool().expect(name)
    }

    pub(crate) fn list(&mut self, name: &str) -> &'a [Value] {
        self.take(name).map_or(&[], |value| value.as_array().expect(name))
    }

    pub(crate) fn texts(&mut self, name: &str) -> Vec<&'a str> {
        self.list(name).iter().map(|value| value.as_str().expect(name)).collect()
    }

    pub(crate) fn end(self) {
        assert!(self.1.is_empty(), "{}: unknown fields {:?}", self.0, self.1);
    }
}
