//! The network of a simulation: messages are late, lost, and come twice or in another order; links
//! are cut, one way or both.

use std::collections::BTreeMap;

use crate::message::Place;
use crate::rng::Rng;

#[derive(Debug)]
pub(crate) struct Network {
    /// In a thousand.
    lost: u64,
    twice: u64,
    delay_us: u64,
    /// Until when nothing passes from one to the other.
    cuts: BTreeMap<(Place, Place), u64>,
}

#[derive(Debug)]
pub(crate) enum Transit {
    Arrives(u64),
    Twice(u64, u64),
    Lost,
}

impl Network {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        Network {
            lost: *rng.pick(&[0, 5, 20, 60]),
            twice: *rng.pick(&[0, 10, 50]),
            delay_us: *rng.pick(&[500, 3_000, 30_000]),
            cuts: BTreeMap::new(),
        }
    }

    pub(crate) fn cut(&mut self, from: Place, to: Place, until_us: u64) {
        let end = self.cuts.entry((from, to)).or_default();
        *end = until_us.max(*end);
    }

    pub(crate) fn is_cut(&self, from: Place, to: Place, now_us: u64) -> bool {
        self.cuts
            .get(&(from, to))
            .is_some_and(|until| *until > now_us)
    }

    pub(crate) fn heal(&mut self) {
        self.lost = 0;
        self.cuts.clear();
    }

    pub(crate) fn transit(
        &mut self,
        rng: &mut Rng,
        now_us: u64,
        from: Place,
        to: Place,
    ) -> Transit {
        if self.is_cut(from, to, now_us) || rng.permille(self.lost) {
            return Transit::Lost;
        }
        let first = self.delay(rng);
        match rng.permille(self.twice) {
            true => Transit::Twice(first, self.delay(rng) + straggling(rng)),
            false => Transit::Arrives(first),
        }
    }

    /// Mostly short; now and then so long that a retry overtakes the message.
    fn delay(&self, rng: &mut Rng) -> u64 {
        let usual = 50 + rng.below(self.delay_us);
        match rng.below(100) {
            0 => usual + rng.below(3_000_000),
            1..=4 => usual + rng.below(100_000),
            _ => usual,
        }
    }
}

/// A second copy may come when everybody has forgotten the first.
fn straggling(rng: &mut Rng) -> u64 {
    match rng.below(3) {
        0 => rng.below(4_000_000),
        _ => 0,
    }
}
