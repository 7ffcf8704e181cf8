//! Keys of state tables that mean nothing any more, wherever an older layer still has them.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Ranges of keys: from one on to before another, or to the end. Ranges that touch are one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Forgotten {
    pub(crate) fn insert(&mut self, mut from: Vec<u8>, mut to: Option<Vec<u8>>) {
        if to.as_ref().is_some_and(|to| *to <= from) {
            return;
        }
        loop {
            let last = to.as_ref().map_or(Bound::Unbounded, Bound::Included);
            let before = self.0.range::<Vec<u8>, _>((Bound::Unbounded, last)).next_back();
            let Some((first, behind)) = before.filter(|(_, behind)| reaches(behind, &from)) else { break };
            let (first, behind) = (first.clone(), behind.clone());
            self.0.remove(&first);
            from = from.min(first);
            to = to.zip(behind).map(|(to, behind)| to.max(behind));
        }
        self.0.insert(from, to);
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let before = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(_, behind)| behind.as_ref().is_none_or(|behind| behind.as_slice() > key))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn extend(&mut self, other: Self) {
        other.0.into_iter().for_each(|(from, to)| self.insert(from, to));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(from, to)| (from.as_slice(), to.as_deref()))
    }
}

/// Whether a range that ends there touches one that begins here.
fn reaches(behind: &Option<Vec<u8>>, from: &[u8]) -> bool {
    behind.as_ref().is_none_or(|behind| behind.as_slice() >= from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_holds_what_any_of_the_ranges_holds(
            ranges in prop::collection::vec((0u8..40, prop::option::weighted(0.9, 0u8..40)), 0..12),
        ) {
            let mut forgotten = Forgotten::default();
            for (from, to) in &ranges {
                forgotten.insert(vec![*from], to.map(|to| vec![to]));
            }
            for key in 0..45u8 {
                let expected = ranges.iter().any(|(from, to)| *from <= key && to.is_none_or(|to| key < to));
                prop_assert_eq!(forgotten.contains(&[key]), expected, "{}", key);
            }
            let all: Vec<_> = forgotten.iter().collect();
            prop_assert!(all.windows(2).all(|pair| pair[0].1.is_some_and(|behind| behind < pair[1].0)), "{:?}", all);
        }
    }
}
