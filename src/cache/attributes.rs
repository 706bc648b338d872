//! Attributes as part of a cache key: hashed as they come, in whatever order, and compared with the ones that were
//! kept. Imports `model`.

use std::hash::BuildHasher;
use std::ops::ControlFlow;

use crate::model::{AttributeBag, Attributes, OwnedValue, Value};

/// Over names and values, whatever their order; `None` without any.
pub(super) fn hash(seed: &impl BuildHasher, bag: &dyn AttributeBag) -> Option<u64> {
    let mut all = None;
    let _ = bag.visit(&mut |name, value| {
        let one = seed.hash_one((name, hash_value(seed, value)));
        all = Some(all.unwrap_or(0_u64).wrapping_add(one));
        ControlFlow::Continue(())
    });
    all
}

fn hash_value(seed: &impl BuildHasher, value: Value<'_>) -> u64 {
    match value {
        Value::Missing => seed.hash_one(0_u8),
        Value::Text(text) => seed.hash_one((1_u8, text)),
        Value::Number(number) => seed.hash_one((2_u8, number)),
        Value::Boolean(boolean) => seed.hash_one((3_u8, boolean)),
        Value::List(list) => (0..list.count())
            .fold(seed.hash_one(4_u8), |all, index| seed.hash_one((all, hash_value(seed, list.at(index))))),
        Value::Dictionary(bag) => seed.hash_one((5_u8, hash(seed, bag))),
        Value::Other => seed.hash_one(6_u8),
    }
}

/// Whether a bag holds just what was kept.
pub(super) fn same(bag: &dyn AttributeBag, kept: &Attributes) -> bool {
    let mut count = 0_usize;
    let flow = bag.visit(&mut |name, value| {
        count = count.saturating_add(1);
        match kept.get(name) {
            Some(kept) if same_value(value, kept) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    });
    flow.is_continue() && count == kept.len()
}

fn same_value(value: Value<'_>, kept: &OwnedValue) -> bool {
    match (value, kept) {
        (Value::Missing, OwnedValue::Missing) | (Value::Other, OwnedValue::Other) => true,
        (Value::Text(text), OwnedValue::Text(kept)) => text == kept,
        (Value::Number(number), OwnedValue::Number(kept)) => number == *kept,
        (Value::Boolean(boolean), OwnedValue::Boolean(kept)) => boolean == *kept,
        (Value::List(list), OwnedValue::List(kept)) => {
            list.count() == kept.len()
                && kept.iter().enumerate().all(|(index, kept)| same_value(list.at(index), kept))
        }
        (Value::Dictionary(bag), OwnedValue::Dictionary(kept)) => same(bag, kept),
        _ => false,
    }
}

/// Roughly the bytes that kept attributes take.
pub(super) fn weight(attributes: &Attributes) -> usize {
    attributes.iter().map(|(name, value)| name.len().saturating_add(64).saturating_add(of_value(value))).sum()
}

fn of_value(value: &OwnedValue) -> usize {
    match value {
        OwnedValue::Text(text) => text.len(),
        OwnedValue::List(values) => values.iter().map(|value| of_value(value).saturating_add(32)).sum(),
        OwnedValue::Dictionary(entries) => weight(entries),
        OwnedValue::Missing | OwnedValue::Number(_) | OwnedValue::Boolean(_) | OwnedValue::Other => 0,
    }
}
