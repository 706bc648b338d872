//! Names that are almost another: misspelt properties.

/// Names that real exports carry beside those that the readers ask for, and that must not be taken for
/// misspellings: some are close (`roleDefinition`, `memberOf`, `copy`, PIM's `scopeId`), the others are here for speed.
pub(super) fn is_known(name: &str) -> bool {
    const KNOWN: [&str; 39] = [
        "id",
        "name",
        "type",
        "properties",
        "apiVersion",
        "copy",
        "code",
        "dependsOn",
        "memberOf",
        "principal",
        "principalName",
        "principalType",
        "roleDefinition",
        "roleDefinitionName",
        "roleName",
        "roleType",
        "resourceGroup",
        "conditionVersion",
        "description",
        "displayName",
        "signInName",
        "objectId",
        "objectType",
        "canDelegate",
        "createdBy",
        "createdOn",
        "updatedBy",
        "updatedOn",
        "delegatedManagedIdentityResourceId",
        "additionalProperties",
        "isCustom",
        "isSystemProtected",
        "denyAssignmentName",
        "roleAssignmentId",
        "roleAssignmentName",
        "location",
        "scopeId",
        "model",
        "label",
    ];
    KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether two edits (letters put in, left out, changed, or two neighbours swapped) at most lie between two
/// names, letter case ignored.
pub(super) fn is_near(one: &str, other: &str) -> bool {
    const LONGEST: usize = 48;
    if one.len().abs_diff(other.len()) > 2 || one.len() >= LONGEST || other.len() >= LONGEST {
        return false;
    }
    // Rows of the table of distances: of the prefix two letters shorter, one shorter, and this one.
    let (mut before, mut last) = ([0_usize; LONGEST], [0_usize; LONGEST]);
    for (index, cell) in last.iter_mut().enumerate() {
        *cell = index;
    }
    let mut previous_letter = 0;
    for (row, letter) in one.bytes().map(|letter| letter.to_ascii_lowercase()).enumerate() {
        let mut current = [0_usize; LONGEST];
        let mut left = row.saturating_add(1);
        if let Some(first) = current.first_mut() {
            *first = left;
        }
        let mut previous_against = 0;
        for (column, against) in other.bytes().map(|letter| letter.to_ascii_lowercase()).enumerate() {
            let get = |row: &[usize; LONGEST], at: usize| row.get(at).copied().unwrap_or(LONGEST);
            let here = column.saturating_add(1);
            let change = get(&last, column).saturating_add(usize::from(letter != against));
            let mut best = change.min(left.saturating_add(1)).min(get(&last, here).saturating_add(1));
            if row > 0 && column > 0 && letter == previous_against && against == previous_letter {
                best = best.min(get(&before, column.saturating_sub(1)).saturating_add(1));
            }
            if let Some(cell) = current.get_mut(here) {
                *cell = best;
            }
            left = best;
            previous_against = against;
        }
        previous_letter = letter;
        before = last;
        last = current;
    }
    last.get(other.len()).is_some_and(|distance| *distance <= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_edits_and_no_more() {
        for (one, other, near) in [
            ("notActoins", "notActions", true),
            ("NOTACTION", "notActions", true),
            ("dataAction", "dataActions", true),
            ("princpalId", "principalId", true),
            ("scpoe", "scope", true),
            ("condtion", "condition", true),
            ("conditions", "condition", true),
            ("actions", "notActions", false),
            ("principalName", "principalId", false),
            ("principalType", "principalId", false),
            ("notActions", "notDataActions", false),
            ("conditionVersion", "condition", false),
            ("", "ab", true),
            ("", "abc", false),
            ("ab", "ba", true),
            ("abcd", "badc", true),
        ] {
            assert_eq!(is_near(one, other), near, "{one} {other}");
            assert_eq!(is_near(other, one), near, "{other} {one}");
        }
    }
}
