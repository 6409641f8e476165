//! Who is served when: deliveries under way, and links that wait for a place, each manufacturer's in the order they came
//! and the manufacturers in turn. So nobody's release to thousands holds up another's.
//!
//! A delivery has its place for a while. One that takes longer goes on without: gateways on slow lines, or such as
//! stall, hold up nobody.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use trireme_core::{LinkId, NodeId};

/// How many deliveries there may be at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    /// Of all manufacturers.
    pub(crate) in_all: usize,
    /// Of one.
    pub(crate) of_one: usize,
    /// Those that have lost their place, in all.
    pub(crate) slow: usize,
    /// Milliseconds for which a delivery has its place.
    pub(crate) for_ms: u64,
}

/// Deliveries, and who waits for one.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    running: BTreeMap<LinkId, Running>,
    lines: BTreeMap<NodeId, VecDeque<LinkId>>,
    /// Who waits in which line; a link that is in a line and not here has left.
    waiting: BTreeMap<LinkId, NodeId>,
    /// Deliveries with a place, of each manufacturer.
    placed: BTreeMap<NodeId, usize>,
    slow: usize,
    /// Whose turn it was last.
    turn: Option<NodeId>,
}

#[derive(Debug)]
struct Running {
    manufacturer: NodeId,
    since_ms: u64,
    slow: bool,
}

impl Queue {
    /// Deliveries that have a place, of all manufacturers.
    pub(crate) fn active(&self) -> usize {
        self.running.len() - self.slow
    }

    /// Deliveries that have lost their place and go on.
    pub(crate) fn slow(&self) -> usize {
        self.slow
    }

    /// Links that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Links with a delivery.
    pub(crate) fn running(&self) -> impl Iterator<Item = LinkId> {
        self.running.keys().copied()
    }

    /// Whether a delivery of this manufacturer's may begin.
    pub(crate) fn has_place(&self, manufacturer: &NodeId, places: &Places) -> bool {
        self.active() < places.in_all && self.has_share(manufacturer, places)
    }

    fn has_share(&self, manufacturer: &NodeId, places: &Places) -> bool {
        self.placed.get(manufacturer).is_none_or(|count| *count < places.of_one)
    }

    /// A delivery begins.
    pub(crate) fn begin(&mut self, link: LinkId, manufacturer: &NodeId, now_ms: u64) {
        self.leave(link);
        self.end(link);
        *self.placed.entry(manufacturer.clone()).or_default() += 1;
        let running = Running { manufacturer: manufacturer.clone(), since_ms: now_ms, slow: false };
        self.running.insert(link, running);
    }

    /// It has ended.
    pub(crate) fn end(&mut self, link: LinkId) {
        match self.running.remove(&link) {
            Some(Running { slow: true, .. }) => self.slow -= 1,
            Some(running) => self.give_back(&running.manufacturer),
            None => {}
        }
    }

    /// The link waits for a place for a release of this manufacturer.
    pub(crate) fn wait(&mut self, link: LinkId, manufacturer: &NodeId) {
        if self.waiting.get(&link) != Some(manufacturer) {
            self.waiting.insert(link, manufacturer.clone());
            self.lines.entry(manufacturer.clone()).or_default().push_back(link);
        }
    }

    /// The link waits no longer.
    pub(crate) fn leave(&mut self, link: LinkId) {
        self.waiting.remove(&link);
    }

    /// Takes out who is next, if there is a place for it.
    pub(crate) fn next(&mut self, places: &Places) -> Option<LinkId> {
        if self.active() >= places.in_all {
            return None;
        }
        let after = self.turn.clone();
        let later = self.lines.keys().filter(|line| after.as_ref().is_none_or(|after| *line > after));
        let earlier = self.lines.keys().filter(|line| after.as_ref().is_some_and(|after| *line <= after));
        let turns: Vec<NodeId> =
            later.chain(earlier).filter(|line| self.has_share(line, places)).cloned().collect();
        for manufacturer in turns {
            if let Some(link) = self.first_of(&manufacturer) {
                self.turn = Some(manufacturer);
                return Some(link);
            }
        }
        None
    }

    /// Deliveries that had their place for long enough go on without one. Whether there is a place now.
    pub(crate) fn slow_down(&mut self, now_ms: u64, places: &Places) -> bool {
        let mut room = places.slow.saturating_sub(self.slow);
        let mut freed = Vec::new();
        for running in self.running.values_mut().filter(|running| !running.slow) {
            if room > 0 && now_ms.saturating_sub(running.since_ms) >= places.for_ms {
                running.slow = true;
                room -= 1;
                freed.push(running.manufacturer.clone());
            }
        }
        self.slow += freed.len();
        freed.iter().for_each(|manufacturer| self.give_back(manufacturer));
        !freed.is_empty()
    }

    fn first_of(&mut self, manufacturer: &NodeId) -> Option<LinkId> {
        let line = self.lines.get_mut(manufacturer)?;
        while let Some(link) = line.pop_front() {
            if self.waiting.get(&link) == Some(manufacturer) {
                self.waiting.remove(&link);
                return Some(link);
            }
        }
        self.lines.remove(manufacturer);
        None
    }

    fn give_back(&mut self, manufacturer: &NodeId) {
        if let Some(count) = self.placed.get_mut(manufacturer) {
            *count -= 1;
            if *count == 0 {
                self.placed.remove(manufacturer);
            }
        }
    }
}

/// Links that are to be taken a step further, in the order in which that was found, each once.
#[derive(Debug, Default)]
pub(crate) struct Soon {
    order: VecDeque<LinkId>,
    known: BTreeSet<LinkId>,
}

impl Soon {
    /// One more, unless it is there already.
    pub(crate) fn push(&mut self, link: LinkId) {
        if self.known.insert(link) {
            self.order.push_back(link);
        }
    }

    /// Takes the first one out.
    pub(crate) fn next(&mut self) -> Option<LinkId> {
        let link = self.order.pop_front()?;
        self.known.remove(&link);
        Some(link)
    }

    /// Whether nobody is to be taken further.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: Places = Places { in_all: 3, of_one: 2, slow: 2, for_ms: 1000 };

    fn maker(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    #[test]
    fn manufacturers_take_turns_and_each_keeps_its_order() {
        let (mut queue, places) = (Queue::default(), Places { of_one: 9, in_all: 9, ..PLACES });
        (1..=3).for_each(|link| queue.wait(link, &maker("acme")));
        queue.wait(11, &maker("bolt"));
        queue.wait(1, &maker("acme"));
        let order: Vec<LinkId> = core::iter::from_fn(|| queue.next(&places)).collect();
        assert_eq!(order, [1, 11, 2, 3]);
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn one_manufacturer_never_has_all_places() {
        let mut queue = Queue::default();
        for link in 1..=2 {
            assert!(queue.has_place(&maker("acme"), &PLACES));
            queue.begin(link, &maker("acme"), 0);
        }
        assert!(!queue.has_place(&maker("acme"), &PLACES) && queue.has_place(&maker("bolt"), &PLACES));
        queue.wait(3, &maker("acme"));
        assert_eq!(queue.next(&PLACES), None);
        queue.wait(4, &maker("bolt"));
        assert_eq!(queue.next(&PLACES), Some(4));
        queue.end(1);
        assert_eq!(queue.next(&PLACES), Some(3));
    }

    #[test]
    fn a_link_is_called_once_however_often_it_is_named() {
        let mut soon = Soon::default();
        for link in [1, 2, 1] {
            soon.push(link);
        }
        assert_eq!((soon.next(), soon.next(), soon.next()), (Some(1), Some(2), None));
        soon.push(1);
        assert!(!soon.is_empty());
    }

    #[test]
    fn who_has_left_is_passed_over() {
        let mut queue = Queue::default();
        queue.wait(1, &maker("acme"));
        queue.wait(2, &maker("acme"));
        queue.leave(1);
        assert_eq!(queue.next(&PLACES), Some(2));
        assert_eq!(queue.next(&PLACES), None);
    }

    #[test]
    fn a_slow_delivery_goes_on_without_a_place_and_there_are_only_so_many_of_those() {
        let mut queue = Queue::default();
        queue.begin(1, &maker("acme"), 0);
        queue.begin(2, &maker("acme"), 0);
        queue.begin(3, &maker("bolt"), 0);
        assert!(!queue.has_place(&maker("cog"), &PLACES) && !queue.slow_down(999, &PLACES));
        assert!(queue.slow_down(1000, &PLACES));
        assert_eq!((queue.active(), queue.slow()), (1, 2));
        assert!(queue.has_place(&maker("acme"), &PLACES) && !queue.slow_down(2000, &PLACES));
        queue.end(1);
        queue.end(2);
        queue.end(3);
        assert_eq!((queue.active(), queue.slow(), queue.running().count()), (0, 0, 0));
        assert!(queue.placed.is_empty());
    }
}
