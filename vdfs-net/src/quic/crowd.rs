//! How many peers there are at once, by who they are.
//!
//! A peer is *half open* from its first datagram until its hello is accepted: anybody can make those.
//! Beyond a few of them, who comes must first show that it receives what is sent to its address; one
//! address has at most a part of them. Then it is one of those of its certificate, which has a bound too.
//!
//! Invariant: whoever is counted holds a [`Counted`], which ends with it.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use vdfs_proto::handshake::Role;

use crate::limits::{
    CONNECTIONS_PER_CERTIFICATE_MAX, HALF_OPEN_MAX, HALF_OPEN_PER_ADDRESS_MAX,
    HALF_OPEN_UNPROVEN_MAX,
};

/// What may become of a peer that knocks.
#[derive(Debug)]
pub(super) enum Knock {
    Enter(Counted<IpAddr>),
    /// It is to prove its address and come again.
    Prove,
    Full,
}

/// A count for each key, as far as it is not 0.
#[derive(Debug)]
struct Counts<K>(Mutex<HashMap<K, usize>>);

/// One of those that are counted under a key.
#[derive(Debug)]
pub(super) struct Counted<K: Eq + Hash> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Counts<K> {
    fn new() -> Arc<Counts<K>> {
        Arc::new(Counts(Mutex::default()))
    }

    fn total(&self) -> usize {
        self.0.lock().values().sum()
    }

    /// `None` if there are `max` already.
    fn count(self: &Arc<Self>, key: K, max: usize) -> Option<Counted<K>> {
        let mut counts = self.0.lock();
        let count = counts.entry(key.clone()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Counted {
            counts: self.clone(),
            key,
        })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock();
        let count = counts.get_mut(&self.key).expect("counted");
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.key);
        }
    }
}

/// Those of one endpoint.
#[derive(Debug)]
pub(super) struct Crowd {
    half_open: Arc<Counts<IpAddr>>,
    by_certificate: Arc<Counts<(Role, String)>>,
}

impl Crowd {
    pub(super) fn new() -> Crowd {
        Crowd {
            half_open: Counts::new(),
            by_certificate: Counts::new(),
        }
    }

    /// `has_proven`: it has answered from that address.
    pub(super) fn knock(&self, addr: IpAddr, has_proven: bool) -> Knock {
        let half_open = self.half_open.total();
        if !has_proven && half_open >= HALF_OPEN_UNPROVEN_MAX {
            return Knock::Prove;
        }
        if half_open >= HALF_OPEN_MAX {
            return Knock::Full;
        }
        let counted = self.half_open.count(addr, HALF_OPEN_PER_ADDRESS_MAX);
        counted.map_or(Knock::Full, Knock::Enter)
    }

    /// `None` if the certificate has too many connections already.
    pub(super) fn seat(&self, role: Role, node: &str) -> Option<Counted<(Role, String)>> {
        let holder = (role, node.to_owned());
        self.by_certificate
            .count(holder, CONNECTIONS_PER_CERTIFICATE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: usize) -> IpAddr {
        let [.., a, b] = number.to_be_bytes();
        [10, 0, a, b].into()
    }

    fn enter(crowd: &Crowd, addr: IpAddr, has_proven: bool) -> Counted<IpAddr> {
        match crowd.knock(addr, has_proven) {
            Knock::Enter(counted) => counted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn knock_beyond_a_few_half_open_asks_for_proof_and_beyond_all_is_refused() {
        let crowd = Crowd::new();
        let mut inside: Vec<_> = (0..HALF_OPEN_UNPROVEN_MAX)
            .map(|number| enter(&crowd, addr(number), false))
            .collect();
        assert!(matches!(crowd.knock(addr(9), false), Knock::Prove));
        let more = HALF_OPEN_UNPROVEN_MAX..HALF_OPEN_MAX;
        inside.extend(more.map(|number| enter(&crowd, addr(number), true)));
        assert!(matches!(crowd.knock(addr(9), true), Knock::Full));
        inside.clear();
        enter(&crowd, addr(9), false);
        assert_eq!(crowd.half_open.0.lock().len(), 0, "nobody is remembered");
    }

    #[test]
    fn knock_of_one_address_leaves_room_for_others() {
        let crowd = Crowd::new();
        let _inside: Vec<_> = (0..HALF_OPEN_PER_ADDRESS_MAX)
            .map(|_| enter(&crowd, addr(1), true))
            .collect();
        assert!(matches!(crowd.knock(addr(1), true), Knock::Full));
        enter(&crowd, addr(2), true);
    }

    #[test]
    fn seats_of_one_certificate_are_bounded_and_given_back() {
        let crowd = Crowd::new();
        let seats: Vec<_> = (0..CONNECTIONS_PER_CERTIFICATE_MAX)
            .map(|_| crowd.seat(Role::Client, "a").expect("room"))
            .collect();
        assert!(crowd.seat(Role::Client, "a").is_none());
        assert!(crowd.seat(Role::Client, "b").is_some());
        drop(seats);
        assert!(crowd.seat(Role::Client, "a").is_some());
    }
}
