//! An ordered map of small shared leaves, so that a clone costs one pointer and a change after it
//! copies one leaf and the list of leaves, never the whole.
//!
//! Invariants: no leaf is empty; leaves and their entries ascend; `first` is the key of a leaf's
//! first entry.
//!
//! Two levels are enough: a directory of a million names has about 20,000 leaves, whose list is
//! moved once per some 32 insertions. A persistent tree (`imbl`) takes 2 to 4 times the memory.

use std::fmt;
use std::sync::Arc;

/// Entries of a full leaf: copying one costs a microsecond.
const LEAF_ENTRIES_MAX: usize = 64;
/// Leaves grow by this many entries: powers of two would leave a third of the memory unused.
const LEAF_GROWTH: usize = 8;

#[derive(Clone)]
pub(crate) struct CowMap<K, V> {
    leaves: Arc<Vec<Leaf<K, V>>>,
    len: usize,
}

/// Where an entry is, as long as the map does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) leaf: usize,
    /// Within the leaf.
    pub(crate) entry: usize,
}

#[derive(Clone)]
struct Leaf<K, V> {
    first: K,
    entries: Arc<Vec<(K, V)>>,
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        CowMap {
            leaves: Arc::default(),
            len: 0,
        }
    }
}

/// What it holds; how leaves are cut does not show.
impl<K: Ord + Copy + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for CowMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Copy, V: Clone> CowMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let leaf = &self.leaves[self.leaf_of(key)?];
        let at = leaf.position(key).ok()?;
        Some(&leaf.entries[at].1)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let index = self.leaf_of(key)?;
        let at = self.leaves[index].position(key).ok()?;
        let leaf = &mut Arc::make_mut(&mut self.leaves)[index];
        Some(&mut Arc::make_mut(&mut leaf.entries)[at].1)
    }

    /// Gives the value that was there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(present) = self.get_mut(key) {
            return Some(std::mem::replace(present, value));
        }
        self.insert_new(key, value);
        self.len += 1;
        None
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let index = self.leaf_of(key)?;
        let at = self.leaves[index].position(key).ok()?;
        let leaves = Arc::make_mut(&mut self.leaves);
        let (_, value) = Arc::make_mut(&mut leaves[index].entries).remove(at);
        self.len -= 1;
        tidy(leaves, index);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.leaves
            .iter()
            .flat_map(|leaf| leaf.entries.iter().map(|(key, value)| (*key, value)))
    }

    /// Entries from a place on, each with its own.
    pub(crate) fn iter_at(&self, from: Place) -> impl Iterator<Item = (Place, K, &V)> {
        let leaves = self.leaves.iter().enumerate().skip(from.leaf);
        let entries = leaves.flat_map(|(leaf, Leaf { entries, .. })| {
            let numbered = entries.iter().enumerate();
            numbered.map(move |(entry, (key, value))| (Place { leaf, entry }, *key, value))
        });
        entries.skip(from.entry)
    }

    /// Entries at `key` and behind it, ascending.
    pub(crate) fn iter_from(&self, key: K) -> impl Iterator<Item = (K, &V)> {
        let index = self.leaf_of(key).unwrap_or(0);
        self.leaves[index..]
            .iter()
            .flat_map(|leaf| leaf.entries.iter().map(|(key, value)| (*key, value)))
            .skip_while(move |(at, _)| *at < key)
    }

    /// The leaf in whose range `key` falls.
    fn leaf_of(&self, key: K) -> Option<usize> {
        self.leaves
            .partition_point(|leaf| leaf.first <= key)
            .checked_sub(1)
    }

    fn insert_new(&mut self, key: K, value: V) {
        let index = self.leaf_of(key).unwrap_or(0);
        let leaves = Arc::make_mut(&mut self.leaves);
        let Some(leaf) = leaves.get_mut(index) else {
            leaves.push(Leaf {
                first: key,
                entries: Arc::new(vec![(key, value)]),
            });
            return;
        };
        leaf.insert(key, value);
        if leaf.entries.len() > LEAF_ENTRIES_MAX {
            let upper = leaf.split();
            leaves.insert(index + 1, upper);
        }
    }
}

impl<K: Ord + Copy, V: Clone> Leaf<K, V> {
    fn position(&self, key: K) -> Result<usize, usize> {
        self.entries.binary_search_by(|(at, _)| at.cmp(&key))
    }

    fn insert(&mut self, key: K, value: V) {
        let at = self
            .position(key)
            .expect_err("insert_new is for absent keys");
        let entries = Arc::make_mut(&mut self.entries);
        if entries.len() == entries.capacity() {
            entries.reserve_exact(LEAF_GROWTH);
        }
        entries.insert(at, (key, value));
        self.first = entries[0].0;
    }

    /// Takes the upper half out.
    fn split(&mut self) -> Leaf<K, V> {
        let entries = Arc::make_mut(&mut self.entries);
        let mut upper = entries.split_off(entries.len() / 2);
        entries.shrink_to(entries.len() + LEAF_GROWTH);
        upper.shrink_to(upper.len() + LEAF_GROWTH);
        Leaf {
            first: upper[0].0,
            entries: Arc::new(upper),
        }
    }
}

/// Restores the invariants after a removal from leaf `index`: drops it if it is empty, or joins it
/// with the next one if both together fill half a leaf.
fn tidy<K: Ord + Copy, V: Clone>(leaves: &mut Vec<Leaf<K, V>>, index: usize) {
    let Some(&(first, _)) = leaves[index].entries.first() else {
        leaves.remove(index);
        return;
    };
    leaves[index].first = first;
    let Some(next) = leaves.get(index + 1) else {
        return;
    };
    if leaves[index].entries.len() + next.entries.len() > LEAF_ENTRIES_MAX / 2 {
        return;
    }
    let next = leaves.remove(index + 1);
    Arc::make_mut(&mut leaves[index].entries).extend(next.entries.iter().cloned());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cow_map_agrees_with_btree_map_and_clones_stay_as_they_were(
            steps in proptest::collection::vec((any::<bool>(), 0u16..600, any::<u32>()), 1..1500),
        ) {
            let mut map = CowMap::default();
            let mut model = BTreeMap::new();
            let mut kept = None;
            for (number, (remove, key, value)) in steps.into_iter().enumerate() {
                if remove {
                    prop_assert_eq!(map.remove(key), model.remove(&key));
                } else {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                }
                if number == 400 {
                    kept = Some((map.clone(), model.clone()));
                }
            }
            let (map_then, model_then) = kept.unwrap_or((map.clone(), model.clone()));
            for (map, model) in [(map, model), (map_then, model_then)] {
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.iter().eq(model.iter().map(|(k, v)| (*k, v))));
                prop_assert!(map.iter_from(300).eq(model.range(300..).map(|(k, v)| (*k, v))));
                for (at, (place, key, _)) in map.iter_at(Place { leaf: 0, entry: 0 }).enumerate() {
                    let rest = map.iter_at(place).map(|(_, k, v)| (k, *v));
                    prop_assert!(at % 50 != 0 || rest.eq(model.range(key..).map(|(k, v)| (*k, *v))));
                }
                prop_assert!(model.iter().all(|(k, v)| map.get(*k) == Some(v)));
            }
        }
    }
}
