//! What the core calls what the model numbers: each name of the one stands for one of the other,
//! for ever. An inode, data id or session that is given out twice is found here.

use std::collections::BTreeMap;
use std::fmt::Debug;

use vdfs_proto::meta::{
    Answer, AppendToken, Commit, Committed, Created, Extend, Mutated, Mutation, Opened, Query,
    Truncated,
};
use vdfs_proto::{Attr, DataId, Ino, Layout, Status};

use super::model::Expected;

/// Names of the core's, none of which was ever given out.
const NO_INO: Ino = Ino(1 << 39);
const NO_DATA: DataId = DataId(1 << 60);

#[derive(Debug)]
pub(super) struct Ids {
    inos: Pairs<Ino>,
    data: Pairs<DataId>,
    /// Where the bytes of a data id lie does not change.
    places: BTreeMap<DataId, (u16, u32)>,
    /// How many copies of its files each of the core's groups is for.
    groups: BTreeMap<u16, u16>,
}

#[derive(Debug)]
struct Pairs<T> {
    to_core: BTreeMap<T, T>,
    to_model: BTreeMap<T, T>,
}

impl<T: Ord + Copy + Debug> Pairs<T> {
    fn new() -> Self {
        Pairs {
            to_core: BTreeMap::new(),
            to_model: BTreeMap::new(),
        }
    }

    fn learn(&mut self, model: T, core: T) {
        let before = (
            self.to_core.insert(model, core),
            self.to_model.insert(core, model),
        );
        assert!(
            matches!(before, (None, None)) || before == (Some(core), Some(model)),
            "{core:?} is given out twice, or {model:?} is two: {before:?}"
        );
    }
}

impl Ids {
    pub(super) fn new() -> Self {
        let mut inos = Pairs::new();
        inos.learn(Ino::ROOT, Ino::ROOT);
        Ids {
            inos,
            data: Pairs::new(),
            places: BTreeMap::new(),
            groups: BTreeMap::from([(0, 0)]),
        }
    }

    /// The others are lost, and may be made anew for another number.
    pub(super) fn keep_groups(&mut self, count: usize) {
        self.groups.retain(|group, _| usize::from(*group) < count);
    }

    pub(super) fn core_ino(&self, model: Ino) -> Ino {
        let known = self.inos.to_core.get(&model).copied();
        known.unwrap_or(Ino(NO_INO.0 + model.0))
    }

    pub(super) fn model_ino(&self, core: Ino) -> Ino {
        self.inos.to_model.get(&core).copied().unwrap_or(core)
    }

    fn core_commit(&self, commit: &Commit) -> Commit {
        let data = self.data.to_core.get(&commit.data).copied();
        Commit {
            ino: self.core_ino(commit.ino),
            data: data.unwrap_or(NO_DATA),
            ..commit.clone()
        }
    }

    /// The same request in the core's names.
    pub(super) fn core_mutation(&self, mutation: &Mutation) -> Mutation {
        let mut mutation = mutation.clone();
        let to_core = |ino: &mut Ino| *ino = self.core_ino(*ino);
        match &mut mutation {
            Mutation::Create(create) => to_core(&mut create.parent),
            Mutation::Link(link) => {
                to_core(&mut link.ino);
                to_core(&mut link.parent);
            }
            Mutation::Unlink(unlink) => to_core(&mut unlink.parent),
            Mutation::Rmdir(rmdir) => {
                to_core(&mut rmdir.parent);
                rmdir.found.iter_mut().for_each(to_core);
            }
            Mutation::Rename(rename) => {
                to_core(&mut rename.parent);
                to_core(&mut rename.new_parent);
                rename.found.iter_mut().for_each(to_core);
            }
            Mutation::SetAttr(set) => to_core(&mut set.ino),
            Mutation::Truncate(truncate) => to_core(&mut truncate.ino),
            Mutation::Commit(commit) => *commit = self.core_commit(commit),
            Mutation::Extend(Extend { commit }) => *commit = self.core_commit(commit),
            Mutation::SetXattr(set) => to_core(&mut set.ino),
            Mutation::SetAcl(set) => to_core(&mut set.ino),
            Mutation::TakeOver(take) => {
                to_core(&mut take.ino);
                to_core(&mut take.from);
            }
            Mutation::RemoveXattr(remove) => to_core(&mut remove.ino),
            Mutation::Lock(lock) => to_core(&mut lock.ino),
            Mutation::Unlock(unlock) => to_core(&mut unlock.ino),
        }
        mutation
    }

    pub(super) fn core_query(&self, query: &Query) -> Query {
        let mut query = query.clone();
        let to_core = |ino: &mut Ino| *ino = self.core_ino(*ino);
        match &mut query {
            Query::Lookup(lookup) => to_core(&mut lookup.parent),
            Query::GetAttr(get) => to_core(&mut get.ino),
            Query::ReadLink(read) => to_core(&mut read.ino),
            Query::GetXattr(get) => to_core(&mut get.ino),
            Query::ListXattr(list) => to_core(&mut list.ino),
            Query::Open(open) => to_core(&mut open.ino),
            Query::GetLayout(get) => to_core(&mut get.ino),
            Query::AcquireAppend(get) => to_core(&mut get.ino),
            Query::ReturnAppend(give) => to_core(&mut give.ino),
            Query::Release(_) => {}
            other => unreachable!("{other:?} is not asked"),
        }
        query
    }

    pub(super) fn model_attr(&self, attr: Attr) -> Attr {
        let ino = self.model_ino(attr.ino);
        Attr { ino, ..attr }
    }

    /// A data id that is not known yet is the one that is expected.
    pub(super) fn model_layout(&mut self, layout: Layout, expected: Option<Layout>) -> Layout {
        let known = self.data.to_model.get(&layout.data).copied();
        let data = match (known, expected) {
            (Some(known), _) => known,
            (None, Some(expected)) => {
                self.data.learn(expected.data, layout.data);
                expected.data
            }
            (None, None) => layout.data,
        };
        let place = (layout.group, layout.seed);
        let before = *self.places.entry(data).or_insert(place);
        assert_eq!(before, place, "the bytes of {data} have moved");
        let copies = expected.map_or(0, |expected| expected.group);
        Layout {
            data,
            group: *self.groups.entry(layout.group).or_insert(copies),
            seed: 0,
            ..layout
        }
    }

    /// The answer in the model's names. What is new is what is expected.
    pub(super) fn model_mutated(&mut self, mutated: Mutated, expected: &Expected) -> Mutated {
        let expected = match expected {
            Expected::Mutated(Ok(expected)) => Some(expected),
            _ => None,
        };
        match mutated {
            Mutated::Create(created) => Mutated::Create(self.model_created(created, expected)),
            Mutated::Link(attr) => Mutated::Link(self.model_attr(attr)),
            Mutated::SetAttr(attr) => Mutated::SetAttr(self.model_attr(attr)),
            Mutated::SetAcl(attr) => Mutated::SetAcl(self.model_attr(attr)),
            Mutated::Lock(attr) => Mutated::Lock(self.model_attr(attr)),
            Mutated::Truncate(truncated) => {
                let layout = match expected {
                    Some(Mutated::Truncate(expected)) => Some(expected.layout),
                    _ => None,
                };
                Mutated::Truncate(Truncated {
                    attr: self.model_attr(truncated.attr),
                    layout: self.model_layout(truncated.layout, layout),
                })
            }
            Mutated::Commit(committed) => Mutated::Commit(self.model_committed(committed)),
            Mutated::Extend(committed) => Mutated::Extend(self.model_committed(committed)),
            Mutated::Unlink(())
            | Mutated::Rmdir(())
            | Mutated::Rename(())
            | Mutated::SetXattr(())
            | Mutated::RemoveXattr(())
            | Mutated::Unlock(())
            | Mutated::TakeOver(()) => mutated,
        }
    }

    fn model_committed(&self, committed: Committed) -> Committed {
        Committed {
            attr: self.model_attr(committed.attr),
            ..committed
        }
    }

    fn model_created(&mut self, created: Created, expected: Option<&Mutated>) -> Created {
        let expected = match expected {
            Some(Mutated::Create(expected)) => Some(expected),
            _ => None,
        };
        if let Some(expected) = expected.filter(|expected| expected.is_new && created.is_new) {
            self.inos.learn(expected.attr.ino, created.attr.ino);
        }
        let expected = expected.and_then(|expected| expected.layout);
        let layout = created.layout;
        Created {
            attr: self.model_attr(created.attr),
            layout: layout.map(|layout| self.model_layout(layout, expected)),
            // Whose page cache is good is not the model's matter.
            is_shared: false,
            ..created
        }
    }

    pub(super) fn model_answer(
        &mut self,
        answer: Result<Answer, Status>,
        expected: &Expected,
    ) -> Result<Answer, Status> {
        let expected = match expected {
            Expected::Answer(Ok(Answer::Open(opened))) => Some(opened.layout),
            Expected::Answer(Ok(Answer::GetLayout(layout))) => Some(*layout),
            Expected::Answer(Ok(Answer::AcquireAppend(token))) => Some(token.layout),
            _ => None,
        };
        Ok(match answer? {
            Answer::Lookup(attr) => Answer::Lookup(self.model_attr(attr)),
            Answer::GetAttr(attr) => Answer::GetAttr(self.model_attr(attr)),
            Answer::Open(opened) => Answer::Open(Opened {
                attr: self.model_attr(opened.attr),
                layout: self.model_layout(opened.layout, expected),
                is_shared: false,
            }),
            Answer::GetLayout(layout) => Answer::GetLayout(self.model_layout(layout, expected)),
            Answer::AcquireAppend(token) => Answer::AcquireAppend(AppendToken {
                layout: self.model_layout(token.layout, expected),
            }),
            other => other,
        })
    }
}
