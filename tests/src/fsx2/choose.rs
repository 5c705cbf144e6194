//! What to do next: at random, but so that borders are hit and both mounts have their turns.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::{FileModel, Obstacle, SLOTS, check};
use super::step::{Access, Op, Source, Span, Step};

/// Block, smallest chunk, largest piece of the kernel's default read-ahead, largest request.
const BORDERS: [u64; 4] = [4 << 10, 64 << 10, 128 << 10, 1 << 20];

/// What a mount may still show is looked up at each read, and kept.
const HISTORY_BYTES_MAX: usize = 32 << 20;

/// What bounds a run.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub files: usize,
    pub file_bytes_max: u64,
    pub op_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            files: 2,
            file_bytes_max: 3 << 20,
            op_bytes_max: 300_000,
        }
    }
}

#[derive(Debug)]
pub(super) struct Chooser {
    rng: StdRng,
    limits: Limits,
    mounts: usize,
    chosen: u64,
    /// Where the last read or write through each slot of the file in question has ended.
    ends: Vec<[u64; SLOTS]>,
}

impl Chooser {
    pub(super) fn new(seed: u64, limits: Limits, mounts: usize) -> Chooser {
        Chooser {
            rng: StdRng::seed_from_u64(seed),
            limits,
            mounts,
            chosen: 0,
            ends: vec![[0; SLOTS]; limits.files],
        }
    }

    /// A step that may be done.
    pub(super) fn choose(&mut self, models: &[FileModel]) -> Step {
        self.chosen += 1;
        let number = self.chosen;
        let file = self.rng.random_range(0..models.len());
        let op = self.go_on(file).filter(|op| models[file].check(op).is_ok());
        let op = op.or_else(|| self.copy(models, file));
        let op = op.unwrap_or_else(|| self.choose_op(&models[file]));
        if let Op::Read { slot, span } | Op::Write { slot, span } = op {
            self.ends[file][slot] = span.end();
        }
        Step { number, file, op }
    }

    /// Now and then a read that begins where the last one ended.
    fn go_on(&mut self, file: usize) -> Option<Op> {
        let slot = self.rng.random_range(0..SLOTS);
        let span = Span {
            at: self.ends[file][slot],
            len: self.len(),
        };
        let is_read = self.rng.random_bool(0.15);
        is_read.then_some(Op::Read { slot, span })
    }

    /// Now and then a copy from any file to this one.
    fn copy(&mut self, models: &[FileModel], file: usize) -> Option<Op> {
        if !self.rng.random_bool(0.03) {
            return None;
        }
        let slot = self.rng.random_range(0..SLOTS);
        let target = models[file].slot(slot)?;
        let source_file = self.rng.random_range(0..models.len());
        let source_slot = self.rng.random_range(0..SLOTS);
        let source = models[source_file].slot(source_slot)?;
        let span = self.span_within(models[source_file].object(source.object).size());
        let size = models[file].object(target.object).size();
        let at = self.place(size).min(self.limits.file_bytes_max - span.len);
        let source = Source {
            file: source_file,
            slot: source_slot,
            span,
        };
        let op = Op::Copy { slot, at, source };
        check(models, file, &op).is_ok().then_some(op)
    }

    fn choose_op(&mut self, model: &FileModel) -> Op {
        if model.history_bytes() > HISTORY_BYTES_MAX {
            return self.settle(model);
        }
        loop {
            let op = self.any_op(model);
            match model.check(&op) {
                Ok(()) => return op,
                // Most often what is in the way is removed, so that mounts follow each other closely.
                Err(Obstacle::Pending(mount)) if self.rng.random_bool(0.7) => {
                    return self.get_out(model, mount);
                }
                Err(Obstacle::Hidden(mount)) if model.named().is_some() => {
                    return Op::Check { mount };
                }
                Err(_) => {}
            }
        }
    }

    fn get_out(&mut self, model: &FileModel, mount: usize) -> Op {
        let slot = model.syncing_slot(mount);
        let slot = slot.expect("what is pending was written through an open handle");
        match self.rng.random_bool(0.5) {
            true => Op::Sync {
                slot,
                data_only: self.rng.random_bool(0.5),
            },
            false => Op::Close { slot },
        }
    }

    /// Makes what is remembered shorter.
    fn settle(&mut self, model: &FileModel) -> Op {
        let slot = model.slots().next().map(|(at, _)| at);
        match slot {
            Some(slot) => Op::Close { slot },
            None => Op::Check {
                mount: self.rng.random_range(0..self.mounts),
            },
        }
    }

    fn any_op(&mut self, model: &FileModel) -> Op {
        let slot = self.rng.random_range(0..SLOTS);
        let mount = self.rng.random_range(0..self.mounts);
        let size = match model.slot(slot) {
            Some(taken) => model.object(taken.object).size(),
            None => model.named().map_or(0, |object| object.size()),
        };
        match self.rng.random_range(0..1000) {
            0..330 => Op::Read {
                slot,
                span: self.span(size),
            },
            330..600 => Op::Write {
                slot,
                span: self.span_to_write(size),
            },
            600..660 => Op::MapRead {
                slot,
                span: self.span_within(size),
                shared: self.rng.random_bool(0.5),
            },
            660..720 => Op::MapWrite {
                slot,
                span: self.span_within(size),
                sync: self.mounts > 1 || self.rng.random_bool(0.5),
            },
            720..760 => Op::Resize {
                slot,
                size: self.place(size),
            },
            760..768 => Op::Allocate {
                slot,
                span: self.span_to_write(size),
                keep_size: self.rng.random_bool(0.3),
            },
            768..778 => Op::Punch {
                slot,
                span: self.span(size),
            },
            778..784 => Op::Zero {
                slot,
                span: self.span_to_write(size),
                keep_size: self.rng.random_bool(0.3),
            },
            784..790 => Op::SeekAll { slot },
            790..805 => Op::Sync {
                slot,
                data_only: self.rng.random_bool(0.5),
            },
            805..812 => Op::Forget { slot },
            812..850 => Op::StatOpen { slot },
            850..900 => Op::Close { slot },
            _ => self.any_op_on_name(slot, mount, size),
        }
    }

    fn any_op_on_name(&mut self, slot: usize, mount: usize, size: u64) -> Op {
        match self.rng.random_range(0..100) {
            0..58 => {
                let access = Access::ALL[self.rng.random_range(0..Access::ALL.len())];
                Op::Open {
                    slot,
                    mount,
                    access,
                    truncate: access.writes() && self.rng.random_bool(0.08),
                }
            }
            58..68 => Op::ResizeByName {
                mount,
                size: self.place(size),
            },
            68..83 => Op::Stat { mount },
            83..94 => Op::Check { mount },
            94..97 => Op::Unlink { mount },
            _ => Op::Replace {
                mount,
                len: self.len(),
            },
        }
    }

    /// A range that a read may ask for; it may reach behind the end.
    fn span(&mut self, size: u64) -> Span {
        Span {
            at: self.place(size),
            len: self.len(),
        }
    }

    fn span_to_write(&mut self, size: u64) -> Span {
        let Span { at, len } = self.span(size);
        let at = at.min(self.limits.file_bytes_max - 1);
        let room = self.limits.file_bytes_max - at.max(size.min(self.limits.file_bytes_max - 1));
        Span {
            at,
            len: len.min(room),
        }
    }

    /// A range of the file; of an empty one, a range that it does not have.
    fn span_within(&mut self, size: u64) -> Span {
        let at = self.place(size).min(size.saturating_sub(1));
        let len = self.len().min(size - at.min(size)).max(1);
        Span { at, len }
    }

    /// An offset: within the file, at its end, around a border, or far behind the end.
    fn place(&mut self, size: u64) -> u64 {
        let max = self.limits.file_bytes_max;
        match self.rng.random_range(0..10) {
            0..4 => self.rng.random_range(0..=size),
            4..8 => {
                let border = BORDERS[self.rng.random_range(0..BORDERS.len())];
                let count = self.rng.random_range(0..=max / border);
                let around = self.rng.random_range(0..=8u64);
                (border * count + around).saturating_sub(4).min(max)
            }
            8 => size,
            _ => self.rng.random_range(0..=max),
        }
    }

    /// A length, of every magnitude.
    fn len(&mut self) -> u64 {
        let max = self.limits.op_bytes_max;
        match self.rng.random_range(0..10) {
            0..2 => self.rng.random_range(1..=16),
            2..5 => self.rng.random_range(1..=4096),
            5..8 => self.rng.random_range(1..=(64 << 10).min(max)),
            8 => BORDERS[self.rng.random_range(0..BORDERS.len())].min(max),
            _ => self.rng.random_range(1..=max),
        }
    }
}
