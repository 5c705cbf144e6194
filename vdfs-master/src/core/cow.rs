//! An ordered map of small shared leaves on shared branches, so that a clone costs one pointer and a
//! change after it copies one leaf, its branch and the list of branches, never the whole.
//!
//! Invariants: no leaf and no branch is empty; nodes and entries ascend; `first` is the key of a
//! node's first entry.
//!
//! Three levels are enough: a hundred million entries have about 20,000 branches. A persistent tree
//! (`imbl`) takes 2 to 4 times the memory.
//!
//! What is copied because an image shares it is counted ([`take_copied_bytes`]): while an image
//! lives, these bytes are there twice.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use super::weight::{ARC_BYTES, heap_bytes};

/// Entries of a full leaf: copying one costs a microsecond.
const LEAF_ENTRIES_MAX: usize = 64;
/// Leaves of a full branch: copying one costs some microseconds. Tests have many branches.
const BRANCH_LEAVES_MAX: usize = if cfg!(test) { 6 } else { 128 };
/// Leaves grow by this many entries: powers of two would leave a third of the memory unused.
const LEAF_GROWTH: usize = 8;

thread_local! {
    static COPIED_BYTES: Cell<u64> = const { Cell::new(0) };
}

/// Bytes copied on this thread since the last call. A counter that every change could reach would
/// have to be handed through every call; whoever steps the core takes it when the step is done.
pub(crate) fn take_copied_bytes() -> u64 {
    COPIED_BYTES.take()
}

/// `Arc::make_mut` that counts what it copies, elements alone.
pub(crate) fn unshare<T: Clone>(shared: &mut Arc<Vec<T>>) -> &mut Vec<T> {
    if Arc::strong_count(shared) > 1 {
        let bytes = ARC_BYTES + heap_bytes(size_of_val(shared.as_slice()));
        COPIED_BYTES.set(COPIED_BYTES.get() + bytes);
    }
    Arc::make_mut(shared)
}

#[derive(Clone)]
pub(crate) struct CowMap<K, V> {
    branches: Arc<Vec<Branch<K, V>>>,
    len: usize,
    leaves: usize,
}

/// Where an entry is, as long as the map does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) branch: u32,
    /// Within the branch.
    pub(crate) leaf: u32,
    /// Within the leaf.
    pub(crate) entry: u32,
}

#[derive(Clone)]
struct Node<K, T> {
    first: K,
    items: Arc<Vec<T>>,
}

type Leaf<K, V> = Node<K, (K, V)>;
type Branch<K, V> = Node<K, Leaf<K, V>>;

/// What a node consists of.
trait Keyed<K> {
    /// The first key in it.
    fn key(&self) -> K;
}

impl<K: Copy, V> Keyed<K> for (K, V) {
    fn key(&self) -> K {
        self.0
    }
}

impl<K: Copy, T> Keyed<K> for Node<K, T> {
    fn key(&self) -> K {
        self.first
    }
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        CowMap {
            branches: Arc::default(),
            len: 0,
            leaves: 0,
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

    /// What the map takes of the heap, but for what its values point to: entries, half of a leaf's
    /// growth, and each leaf's own parts.
    pub(crate) fn bytes(&self) -> u64 {
        let entry_bytes = size_of::<(K, V)>();
        let leaf_bytes = ARC_BYTES
            + heap_bytes(0)
            + (LEAF_GROWTH / 2 * entry_bytes + 2 * size_of::<Leaf<K, V>>()) as u64;
        (self.len * entry_bytes) as u64 + self.leaves as u64 * leaf_bytes
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let branch = &self.branches[node_of(&self.branches, key)?];
        let leaf = &branch.items[node_of(&branch.items, key)?];
        let at = leaf.position(key).ok()?;
        Some(&leaf.items[at].1)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let branch = node_of(&self.branches, key)?;
        let leaf = node_of(&self.branches[branch].items, key)?;
        let at = self.branches[branch].items[leaf].position(key).ok()?;
        let branch = &mut unshare(&mut self.branches)[branch];
        let leaf = &mut unshare(&mut branch.items)[leaf];
        Some(&mut unshare(&mut leaf.items)[at].1)
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
        let branch_index = node_of(&self.branches, key)?;
        let leaf = node_of(&self.branches[branch_index].items, key)?;
        let at = self.branches[branch_index].items[leaf].position(key).ok()?;
        let branches = unshare(&mut self.branches);
        let leaves = unshare(&mut branches[branch_index].items);
        let entries = unshare(&mut leaves[leaf].items);
        let (_, value) = entries.remove(at);
        if entries.capacity() > entries.len() + 2 * LEAF_GROWTH {
            entries.shrink_to(entries.len() + LEAF_GROWTH);
        }
        self.len -= 1;
        let leaves_before = leaves.len();
        tidy(leaves, leaf, LEAF_ENTRIES_MAX);
        self.leaves -= leaves_before - leaves.len();
        tidy(branches, branch_index, BRANCH_LEAVES_MAX);
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let leaves = self.branches.iter().flat_map(|branch| branch.items.iter());
        entries_of(leaves)
    }

    /// Entries from a place on, each with its own.
    pub(crate) fn iter_at(&self, from: Place) -> impl Iterator<Item = (Place, K, &V)> {
        let branches = (0u32..).zip(self.branches.iter());
        let leaves = branches
            .skip(from.branch as usize)
            .flat_map(|(branch, Node { items, .. })| {
                (0u32..)
                    .zip(items.iter())
                    .map(move |(leaf, node)| (branch, leaf, node))
            })
            .skip(from.leaf as usize);
        let entries = leaves.flat_map(|(branch, leaf, Node { items, .. })| {
            let numbered = (0u32..).zip(items.iter());
            numbered.map(move |(entry, (key, value))| {
                let place = Place {
                    branch,
                    leaf,
                    entry,
                };
                (place, *key, value)
            })
        });
        entries.skip(from.entry as usize)
    }

    /// Entries at `key` and behind it, ascending.
    pub(crate) fn iter_from(&self, key: K) -> impl Iterator<Item = (K, &V)> {
        let branch = node_of(&self.branches, key).unwrap_or(0);
        let leaves = self
            .branches
            .get(branch)
            .map_or(&[][..], |node| &node.items);
        let leaf = node_of(leaves, key).unwrap_or(0);
        let entries = leaves.get(leaf).map_or(&[][..], |node| &node.items);
        let at = entries.partition_point(|(other, _)| *other < key);
        let later_leaves = leaves.get(leaf + 1..).unwrap_or_default();
        let later_branches = self.branches.get(branch + 1..).unwrap_or_default();
        let first = entries[at..].iter().map(|(key, value)| (*key, value));
        let rest = later_branches.iter().flat_map(|branch| branch.items.iter());
        first.chain(entries_of(later_leaves.iter().chain(rest)))
    }

    fn insert_new(&mut self, key: K, value: V) {
        let branches = unshare(&mut self.branches);
        let index = node_of(branches, key).unwrap_or(0);
        let is_last = index + 1 >= branches.len();
        let Some(branch) = branches.get_mut(index) else {
            branches.push(Node::of(Node::of((key, value))));
            self.leaves += 1;
            return;
        };
        let leaves_before = branch.items.len();
        branch.insert_entry(key, value, is_last);
        self.leaves += branch.items.len() - leaves_before;
        if branch.items.len() > BRANCH_LEAVES_MAX {
            let upper = branch.split(is_last);
            branches.insert(index + 1, upper);
        }
    }
}

fn entries_of<'a, K: Copy + 'a, V: 'a>(
    leaves: impl Iterator<Item = &'a Leaf<K, V>>,
) -> impl Iterator<Item = (K, &'a V)> {
    leaves.flat_map(|leaf| leaf.items.iter().map(|(key, value)| (*key, value)))
}

/// The node in whose range `key` falls.
fn node_of<K: Ord, T>(nodes: &[Node<K, T>], key: K) -> Option<usize> {
    nodes
        .partition_point(|node| node.first <= key)
        .checked_sub(1)
}

impl<K: Copy, T: Keyed<K> + Clone> Node<K, T> {
    fn of(item: T) -> Self {
        Node {
            first: item.key(),
            items: Arc::new(vec![item]),
        }
    }

    /// Takes the upper half out; of the last node in the map its last item alone, because where
    /// keys come in ascending order nothing is put into the lower part any more.
    fn split(&mut self, is_last: bool) -> Self {
        let items = unshare(&mut self.items);
        let kept = match is_last {
            true => items.len() - 1,
            false => items.len() / 2,
        };
        let mut upper = items.split_off(kept);
        items.shrink_to(items.len() + if is_last { 0 } else { LEAF_GROWTH });
        upper.shrink_to(upper.len() + LEAF_GROWTH);
        Node {
            first: upper[0].key(),
            items: Arc::new(upper),
        }
    }
}

impl<K: Ord + Copy, V: Clone> Branch<K, V> {
    fn insert_entry(&mut self, key: K, value: V, is_last: bool) {
        let leaves = unshare(&mut self.items);
        let index = node_of(leaves, key).unwrap_or(0);
        let is_last = is_last && index + 1 == leaves.len();
        let leaf = &mut leaves[index];
        let at = leaf.insert(key, value);
        if leaf.items.len() > LEAF_ENTRIES_MAX {
            let upper = leaf.split(is_last && at == LEAF_ENTRIES_MAX);
            leaves.insert(index + 1, upper);
        }
        self.first = leaves[0].first;
    }
}

impl<K: Ord + Copy, V: Clone> Leaf<K, V> {
    fn position(&self, key: K) -> Result<usize, usize> {
        self.items.binary_search_by(|(at, _)| at.cmp(&key))
    }

    /// Gives where it went.
    fn insert(&mut self, key: K, value: V) -> usize {
        let at = self
            .position(key)
            .expect_err("insert_new is for absent keys");
        let entries = unshare(&mut self.items);
        if entries.len() == entries.capacity() {
            entries.reserve_exact(LEAF_GROWTH);
        }
        entries.insert(at, (key, value));
        self.first = entries[0].0;
        at
    }
}

/// Restores the invariants after a removal from node `index`: drops it if it is empty, or joins it
/// with the next one if both together fill half a node.
fn tidy<K: Copy, T: Keyed<K> + Clone>(nodes: &mut Vec<Node<K, T>>, index: usize, items_max: usize) {
    let Some(first) = nodes[index].items.first().map(Keyed::key) else {
        nodes.remove(index);
        return;
    };
    nodes[index].first = first;
    let Some(next) = nodes.get(index + 1) else {
        return;
    };
    if nodes[index].items.len() + next.items.len() > items_max / 2 {
        return;
    }
    let next = nodes.remove(index + 1);
    unshare(&mut nodes[index].items).extend(next.items.iter().cloned());
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
                for (at, (place, key, _)) in map.iter_at(Place::default()).enumerate() {
                    let rest = map.iter_at(place).map(|(_, k, v)| (k, *v));
                    prop_assert!(at % 50 != 0 || rest.eq(model.range(key..).map(|(k, v)| (*k, *v))));
                }
                prop_assert!(model.iter().all(|(k, v)| map.get(*k) == Some(v)));
            }
        }
    }
}
