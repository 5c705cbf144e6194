//! Numbered messages for a peer that fetches them: what it has not acknowledged stays, so a lost
//! reply loses nothing.

use std::collections::VecDeque;

use vdfs_proto::limits::{EVENTS_PARK_MS, EVENTS_PER_REPLY_MAX, OUTBOX_EVENTS_MAX};

use super::Ticket;

#[derive(Debug)]
pub(crate) struct Outbox<T> {
    next: u64,
    queue: VecDeque<(u64, T)>,
    parked: Option<Poll>,
}

#[derive(Clone, Copy, Debug)]
struct Poll {
    ticket: Ticket,
    until_ms: u64,
}

/// What a parked poll is answered.
pub(crate) type Batch<T> = (Ticket, Vec<(u64, T)>);

impl<T: Clone> Outbox<T> {
    /// Numbers begin behind those of every earlier term, so that what a peer has seen of an earlier
    /// life of the master acknowledges nothing of this one.
    pub(crate) fn new(term: u64) -> Self {
        Outbox {
            next: (term << 32) + 1,
            queue: VecDeque::new(),
            parked: None,
        }
    }

    /// Gives the number of the message; `None` if the peer has not fetched for too long.
    pub(crate) fn push(&mut self, message: T) -> Option<u64> {
        if self.queue.len() == OUTBOX_EVENTS_MAX {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.queue.push_back((number, message));
        Some(number)
    }

    /// Takes messages back that are overtaken by what follows.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.queue.retain(|(_, message)| keep(message));
    }

    /// The peer has taken everything up to `seen` and waits for more. Gives the poll that was
    /// parked before: it is answered with nothing.
    pub(crate) fn poll(&mut self, seen: u64, ticket: Ticket, now_ms: u64) -> Option<Ticket> {
        while self
            .queue
            .front()
            .is_some_and(|(number, _)| *number <= seen)
        {
            self.queue.pop_front();
        }
        let poll = Poll {
            ticket,
            until_ms: now_ms + EVENTS_PARK_MS,
        };
        self.parked.replace(poll).map(|poll| poll.ticket)
    }

    /// The answer to the parked poll, if there is something to say or its time is over.
    pub(crate) fn take_answer(&mut self, now_ms: u64) -> Option<Batch<T>> {
        let poll = self.parked?;
        if self.queue.is_empty() && now_ms < poll.until_ms {
            return None;
        }
        self.parked = None;
        let batch = self.queue.iter().take(EVENTS_PER_REPLY_MAX).cloned();
        Some((poll.ticket, batch.collect()))
    }

    pub(crate) fn take_parked(&mut self) -> Option<Ticket> {
        self.parked.take().map(|poll| poll.ticket)
    }

    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        if self.parked.is_some_and(|poll| poll.ticket == ticket) {
            self.parked = None;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outbox_repeats_what_is_not_acknowledged() {
        let mut outbox = Outbox::new(1);
        let first = outbox.push('a').expect("has room");
        outbox.poll(0, Ticket(1), 0);
        assert_eq!(outbox.take_answer(0), Some((Ticket(1), vec![(first, 'a')])));
        outbox.poll(0, Ticket(2), 10);
        assert_eq!(
            outbox.take_answer(10),
            Some((Ticket(2), vec![(first, 'a')]))
        );
        outbox.poll(first, Ticket(3), 20);
        assert_eq!(outbox.take_answer(20), None);
        assert_eq!(
            outbox.take_answer(20 + EVENTS_PARK_MS),
            Some((Ticket(3), vec![]))
        );
    }

    #[test]
    fn outbox_of_a_later_term_numbers_above_all_earlier_ones() {
        let mut early = Outbox::new(1);
        let mut late = Outbox::new(2);
        assert!(early.push(()) < late.push(()));
    }

    #[test]
    fn outbox_is_bounded() {
        let mut outbox = Outbox::new(1);
        assert!((0..OUTBOX_EVENTS_MAX).all(|_| outbox.push(()).is_some()));
        assert_eq!(outbox.push(()), None);
    }
}
