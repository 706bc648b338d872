//! SPIFFE ids, and which of them may ask.
//!
//! | rule | whom it lets in |
//! | --- | --- |
//! | `spiffe://example.org/ns/payments/sa/api` | this workload |
//! | `spiffe://example.org/ns/payments/*` | every workload below this path, at a border of its segments |
//! | `spiffe://example.org/*` | every workload of the trust domain |
//!
//! Nothing is folded or decoded: an id is lower case where the standard wants it, or it is no id.

use std::fmt;
use std::str::FromStr;

const SCHEME: &str = "spiffe://";
/// What the standard allows.
const MOST_BYTES: usize = 2048;
const MOST_DOMAIN_BYTES: usize = 255;

/// Whom a rule lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeRule {
    /// Without the scheme: the trust domain and the path.
    id: String,
    below: bool,
}

/// What is wrong with a rule or an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Something else altogether.
    #[error("it does not begin with `spiffe://`")]
    Scheme,
    /// The part before the first `/`.
    #[error("its trust domain has to be 1 to 255 of `a-z`, `0-9`, `.`, `-` and `_`")]
    TrustDomain,
    /// No workload.
    #[error(
        "it has no path, so it is the id of no workload; a whole trust domain is `spiffe://example.org/*`"
    )]
    NoPath,
    /// The part after it.
    #[error(
        "its path has a segment that is empty, `.`, `..`, or not of `A-Z`, `a-z`, `0-9`, `.`, `-` and `_`"
    )]
    Path,
    /// More than the standard allows.
    #[error("it has more than 2048 bytes")]
    Length,
}

// === impls ===

impl SpiffeRule {
    /// Whether the rule lets this id in. What is no id of a workload is let in by none.
    pub fn allows(&self, id: &str) -> bool {
        let Ok(id) = workload(id) else {
            return false;
        };
        match id.strip_prefix(self.id.as_str()) {
            Some("") => !self.below,
            Some(rest) => self.below && rest.starts_with('/'),
            None => false,
        }
    }
}

/// The id of a workload without its scheme.
fn workload(id: &str) -> Result<&str, SpiffeError> {
    let rest = id.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
    if id.len() > MOST_BYTES {
        return Err(SpiffeError::Length);
    }
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
    trust_domain(domain)?;
    for segment in path.ok_or(SpiffeError::NoPath)?.split('/') {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if segment.is_empty() || segment == "." || segment == ".." || !segment.bytes().all(plain) {
            return Err(SpiffeError::Path);
        }
    }
    Ok(rest)
}

fn trust_domain(domain: &str) -> Result<(), SpiffeError> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    if (1..=MOST_DOMAIN_BYTES).contains(&domain.len()) && domain.bytes().all(plain) {
        Ok(())
    } else {
        Err(SpiffeError::TrustDomain)
    }
}

impl FromStr for SpiffeRule {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let Some(id) = rest.strip_suffix("/*") else {
            return workload(text).map(|id| Self { id: id.to_owned(), below: false });
        };
        if id.contains('/') {
            workload(text.strip_suffix("/*").unwrap_or(text))?;
        } else {
            trust_domain(id)?;
        }
        Ok(Self { id: id.to_owned(), below: true })
    }
}

impl fmt::Display for SpiffeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.id, if self.below { "/*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> SpiffeRule {
        let rule: SpiffeRule = text.parse().unwrap();
        assert_eq!(rule.to_string(), text);
        rule
    }

    #[test]
    fn one_workload() {
        let rule = rule("spiffe://example.org/ns/payments/sa/api");
        assert!(rule.allows("spiffe://example.org/ns/payments/sa/api"));
        for other in [
            "spiffe://example.org/ns/payments/sa/api2",
            "spiffe://example.org/ns/payments/sa/api/x",
            "spiffe://example.org/ns/payments/sa",
            "spiffe://example.org/ns/payments/sa/API",
            "spiffe://example.org/ns/payments/sa/api/",
            "spiffe://EXAMPLE.org/ns/payments/sa/api",
            "spiffe://example.org.evil/ns/payments/sa/api",
            "https://example.org/ns/payments/sa/api",
            "example.org/ns/payments/sa/api",
        ] {
            assert!(!rule.allows(other), "{other}");
        }
    }

    #[test]
    fn whatever_is_below() {
        let path = rule("spiffe://example.org/ns/payments/*");
        assert!(path.allows("spiffe://example.org/ns/payments/sa/api"));
        for other in [
            "spiffe://example.org/ns/payments",
            "spiffe://example.org/ns/payments2/sa/api",
            "spiffe://example.org/ns/payments/../admin",
            "spiffe://example.org/ns/payments//x",
            "spiffe://example.org/ns/payments/%2e%2e",
            "spiffe://other.org/ns/payments/sa/api",
        ] {
            assert!(!path.allows(other), "{other}");
        }
        let domain = rule("spiffe://example.org/*");
        assert!(domain.allows("spiffe://example.org/x") && domain.allows("spiffe://example.org/x/y"));
        for other in ["spiffe://example.org", "spiffe://example.org/", "spiffe://example.org.evil/x"] {
            assert!(!domain.allows(other), "{other}");
        }
    }

    #[test]
    fn what_is_no_rule() {
        for (text, wrong) in [
            ("", SpiffeError::Scheme),
            ("*", SpiffeError::Scheme),
            ("https://example.org/x", SpiffeError::Scheme),
            ("SPIFFE://example.org/x", SpiffeError::Scheme),
            ("spiffe:///x", SpiffeError::TrustDomain),
            ("spiffe://*", SpiffeError::TrustDomain),
            ("spiffe:///*", SpiffeError::TrustDomain),
            ("spiffe://*/x", SpiffeError::TrustDomain),
            ("spiffe://Example.org/x", SpiffeError::TrustDomain),
            ("spiffe://example.org:8080/x", SpiffeError::TrustDomain),
            ("spiffe://user@example.org/x", SpiffeError::TrustDomain),
            ("spiffe://example.org", SpiffeError::NoPath),
            ("spiffe://example.org/", SpiffeError::Path),
            ("spiffe://example.org/*/x", SpiffeError::Path),
            ("spiffe://example.org/ns/*/sa/*", SpiffeError::Path),
            ("spiffe://example.org/x*", SpiffeError::Path),
            ("spiffe://example.org//*", SpiffeError::Path),
            ("spiffe://example.org/x?y", SpiffeError::Path),
            ("spiffe://example.org/x#y", SpiffeError::Path),
        ] {
            assert_eq!(text.parse::<SpiffeRule>(), Err(wrong), "{text}");
        }
        let long = format!("spiffe://example.org/{}", "x".repeat(MOST_BYTES));
        assert_eq!(long.parse::<SpiffeRule>(), Err(SpiffeError::Length));
    }
}
