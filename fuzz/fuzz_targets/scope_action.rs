//! Any texts as scope, action and pattern. Two lines: the first a scope or pattern, the second a scope or action.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern::model::{Action, Guid, PrincipalId, Scope, ScopeKind, Wildcards, pattern_matches};

/// The matcher as section 2.1 says it, by trying everything.
fn slow(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| slow(rest, &text[skip..])),
        Some((first, rest)) => {
            text.split_first().is_some_and(|(byte, text)| byte.eq_ignore_ascii_case(first) && slow(rest, text))
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (one, other) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(scope) = Scope::parse(one) {
        assert!(scope.contains(&scope));
        assert_eq!(Scope::parse(scope.as_str()), Ok(scope), "normal form is stable");
        let ends: Vec<usize> = scope.level_ends().collect();
        assert!(ends.is_sorted());
        assert_eq!(ends.last().copied().unwrap_or_default() == scope.as_str().len(), scope.kind() != ScopeKind::Root);
        if let Ok(below) = Scope::parse(other) {
            let both = scope.contains(&below) && below.contains(&scope);
            assert_eq!(both, scope == below);
        }
    }
    if let Some(guid) = Guid::parse(one) {
        assert_eq!(Guid::parse(&guid.to_string()), Some(guid));
        assert_eq!(PrincipalId::new(one), PrincipalId::Guid(guid));
    }
    if let Ok(action) = Action::parse(other)
        && one.len() <= 40
        && other.len() <= 60
        && one.bytes().filter(|&byte| byte == b'*').count() <= 4
    {
        let strict = pattern_matches(one, action.as_str(), Wildcards::Strict);
        assert_eq!(strict, slow(one.as_bytes(), other.as_bytes()), "{one:?} {other:?}");
        if strict {
            assert!(pattern_matches(one, action.as_str(), Wildcards::Collapse), "{one:?} {other:?}");
        }
    }
});
