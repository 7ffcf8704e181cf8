//! Finds the events that a component cannot process, one call after the other.
//!
//! A batch that fails is halved until what fails is one event. What comes before it is processed and committed on the way, so
//! nothing is given twice that succeeded once. Behind the event that was found, calls begin with one event and double: where every
//! event fails, each costs one call, and where only one did, the way back to whole batches is short. With one poison event among
//! `n`, that is at most `log2 n` calls that fail, and about twice as many that do not.

/// What to do about a call that failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Give it fewer events.
    Smaller,
    /// It was given one: this is it.
    Found,
}

/// How far the search has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Search {
    /// All is well.
    #[default]
    Off,
    /// The next so many rows failed together.
    Halving { rows: usize },
    /// Something was found before, and calls grow again.
    Growing { rows: usize },
}

impl Search {
    /// Rows of the next call, at most.
    pub(crate) fn rows_max(self) -> usize {
        match self {
            Search::Off => usize::MAX,
            Search::Halving { rows } => (rows / 2).max(1),
            Search::Growing { rows } => rows,
        }
    }

    /// How often a call of so many rows is tried, each time on a fresh instance, before it has failed for good. While something is
    /// looked for, once is enough to go on looking; that one event is the cause is worth a second look.
    pub(crate) fn tries(self, rows: usize) -> u32 {
        if self == Search::Off || rows == 1 { 2 } else { 1 }
    }

    /// A call of so many rows did what it should.
    pub(crate) fn succeeded(&mut self, rows: usize, rows_usual: usize) {
        *self = match *self {
            Search::Off => Search::Off,
            // All of them succeed after all, when they are not together.
            Search::Halving { rows: all } if rows >= all => Search::Growing { rows: 1 },
            Search::Halving { rows: all } => Search::Halving { rows: all - rows },
            Search::Growing { rows: limit } if limit >= rows_usual => Search::Off,
            Search::Growing { rows: limit } if rows >= limit => Search::Growing { rows: limit * 2 },
            // There were no more.
            Search::Growing { rows } => Search::Growing { rows },
        };
    }

    /// A call of so many rows failed for good.
    pub(crate) fn failed(&mut self, rows: usize) -> Verdict {
        if rows > 1 {
            *self = Search::Halving { rows };
            return Verdict::Smaller;
        }
        *self = Search::Growing { rows: 1 };
        Verdict::Found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Plays a search over rows of which some are poison: what was processed, what was found, and how many calls failed.
    fn play(poison: &[bool], usual: usize) -> (Vec<usize>, Vec<usize>, u32) {
        let (mut processed, mut found, mut failures) = (Vec::new(), Vec::new(), 0);
        let mut search = Search::default();
        let mut at = 0;
        while at < poison.len() {
            let rows = (poison.len() - at).min(usual).min(search.rows_max());
            if !poison[at..at + rows].contains(&true) {
                processed.extend(at..at + rows);
                at += rows;
                search.succeeded(rows, usual);
                continue;
            }
            failures += search.tries(rows);
            if search.failed(rows) == Verdict::Found {
                found.push(at);
                at += 1;
            }
        }
        (processed, found, failures)
    }

    proptest! {
        #[test]
        fn exactly_the_poison_is_found_and_all_else_is_processed_once_in_order(
            poison in prop::collection::vec(prop::bool::weighted(0.2), 0..300),
            usual in 1usize..200,
        ) {
            let (processed, found, _) = play(&poison, usual);
            let (bad, good): (Vec<usize>, Vec<usize>) = (0..poison.len()).partition(|at| poison[*at]);
            prop_assert_eq!((processed, found), (good, bad));
        }
    }

    #[test]
    fn one_among_a_thousand_costs_few_calls_and_all_cost_two_each() {
        for at in [0, 1, 499, 500, 999] {
            let mut poison = vec![false; 1000];
            poison[at] = true;
            let (_, found, failures) = play(&poison, 1000);
            assert_eq!(found, [at]);
            assert!(failures <= 13, "{failures} calls failed");
        }
        let (_, found, failures) = play(&[true; 100], 1000);
        assert_eq!(found.len(), 100);
        assert!(failures <= 2 * 100 + 8, "{failures} calls failed");
    }
}
