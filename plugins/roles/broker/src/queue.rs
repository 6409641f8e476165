//! Who is served when: deliveries under way, and links that wait for a place, each manufacturer's in the order they came
//! and the manufacturers in turn. So nobody's release to thousands holds up another's.
//!
//! A delivery has its place for a while. One that takes longer goes on without: gateways on slow lines, or such as
//! stall, hold up nobody.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use trireme_core::release::Channel;
use trireme_core::{Digest, LinkId, NodeId};

use crate::shards::Seat;

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
    running: BTreeMap<Seat, Running>,
    lines: BTreeMap<NodeId, VecDeque<Seat>>,
    /// Who waits in which line, and for what; one that is in a line and not here has left.
    waiting: BTreeMap<Seat, (NodeId, Channel)>,
    /// Deliveries with a place, of each manufacturer.
    placed: BTreeMap<NodeId, usize>,
    slow: usize,
    /// Whose turn it was last.
    turn: Option<NodeId>,
}

#[derive(Debug)]
struct Running {
    manufacturer: NodeId,
    /// What it may read.
    images: Vec<Digest>,
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

    /// Whether nobody has or wants a delivery.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Whether a delivery reads this image.
    pub(crate) fn reads(&self, image: &Digest) -> bool {
        self.running.values().any(|running| running.images.contains(image))
    }

    fn has_share(&self, manufacturer: &NodeId, places: &Places) -> bool {
        self.placed.get(manufacturer).is_none_or(|count| *count < places.of_one)
    }

    /// A delivery begins.
    pub(crate) fn begin(&mut self, seat: Seat, manufacturer: &NodeId, images: Vec<Digest>, now_ms: u64) {
        self.leave(seat);
        self.end(seat);
        *self.placed.entry(manufacturer.clone()).or_default() += 1;
        let running = Running { manufacturer: manufacturer.clone(), images, since_ms: now_ms, slow: false };
        self.running.insert(seat, running);
    }

    /// It has ended; gives the images that it may have read.
    pub(crate) fn end(&mut self, seat: Seat) -> Vec<Digest> {
        let Some(running) = self.running.remove(&seat) else { return Vec::new() };
        if running.slow {
            self.slow -= 1;
        } else {
            self.give_back(&running.manufacturer);
        }
        running.images
    }

    /// Whatever a shard had or wanted has ended; gives the images that were read.
    pub(crate) fn end_all(&mut self, shard: u32) -> Vec<Digest> {
        let own = (shard, LinkId::MIN)..=(shard, LinkId::MAX);
        let waiting: Vec<Seat> = self.waiting.range(own.clone()).map(|(seat, _)| *seat).collect();
        waiting.into_iter().for_each(|seat| self.leave(seat));
        let running: Vec<Seat> = self.running.range(own).map(|(seat, _)| *seat).collect();
        running.into_iter().flat_map(|seat| self.end(seat)).collect()
    }

    /// The link waits for a place for a release of this manufacturer.
    pub(crate) fn wait(&mut self, seat: Seat, manufacturer: &NodeId, channel: Channel) {
        let before = self.waiting.insert(seat, (manufacturer.clone(), channel));
        if before.is_none_or(|(line, _)| line != *manufacturer) {
            self.lines.entry(manufacturer.clone()).or_default().push_back(seat);
        }
    }

    /// The link waits no longer.
    pub(crate) fn leave(&mut self, seat: Seat) {
        self.waiting.remove(&seat);
    }

    /// Takes out who is next, if there is a place for it.
    pub(crate) fn next(&mut self, places: &Places) -> Option<(Seat, Channel)> {
        if self.active() >= places.in_all {
            return None;
        }
        let after = self.turn.clone();
        let later = self.lines.keys().filter(|line| after.as_ref().is_none_or(|after| *line > after));
        let earlier = self.lines.keys().filter(|line| after.as_ref().is_some_and(|after| *line <= after));
        let turns: Vec<NodeId> =
            later.chain(earlier).filter(|line| self.has_share(line, places)).cloned().collect();
        for manufacturer in turns {
            if let Some(first) = self.first_of(&manufacturer) {
                self.turn = Some(manufacturer);
                return Some(first);
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

    fn first_of(&mut self, manufacturer: &NodeId) -> Option<(Seat, Channel)> {
        let line = self.lines.get_mut(manufacturer)?;
        while let Some(seat) = line.pop_front() {
            if self.waiting.get(&seat).is_some_and(|(line, _)| line == manufacturer)
                && let Some((_, channel)) = self.waiting.remove(&seat)
            {
                return Some((seat, channel));
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

    /// A link that is to be taken no further.
    pub(crate) fn forget(&mut self, link: LinkId) {
        if self.known.remove(&link) {
            self.order.retain(|other| *other != link);
        }
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

    fn channel() -> Channel {
        "trireme/fw/acme/MD-1".parse().unwrap()
    }

    /// A queue whose links are all of one shard.
    #[derive(Default)]
    struct Line(Queue);

    impl Line {
        fn wait(&mut self, link: LinkId, manufacturer: &NodeId) {
            self.0.wait((0, link), manufacturer, channel());
        }

        fn next(&mut self, places: &Places) -> Option<LinkId> {
            self.0.next(places).map(|((_, link), _)| link)
        }

        fn begin(&mut self, link: LinkId, manufacturer: &NodeId, now_ms: u64) {
            self.0.begin((0, link), manufacturer, Vec::new(), now_ms);
        }

        fn end(&mut self, link: LinkId) {
            self.0.end((0, link));
        }
    }

    #[test]
    fn manufacturers_take_turns_and_each_keeps_its_order() {
        let (mut queue, places) = (Line::default(), Places { of_one: 9, in_all: 9, ..PLACES });
        (1..=3).for_each(|link| queue.wait(link, &maker("acme")));
        queue.wait(11, &maker("bolt"));
        queue.wait(1, &maker("acme"));
        let order: Vec<LinkId> = core::iter::from_fn(|| queue.next(&places)).collect();
        assert_eq!(order, [1, 11, 2, 3]);
        assert_eq!(queue.0.waiting(), 0);
    }

    #[test]
    fn one_manufacturer_never_has_all_places() {
        let mut queue = Line::default();
        (1..=2).for_each(|link| queue.begin(link, &maker("acme"), 0));
        queue.wait(3, &maker("acme"));
        assert_eq!(queue.next(&PLACES), None);
        queue.wait(4, &maker("bolt"));
        assert_eq!(queue.next(&PLACES), Some(4));
        queue.end(1);
        assert_eq!(queue.next(&PLACES), Some(3));
    }

    #[test]
    fn what_a_shard_had_ends_with_it_and_the_others_keep_theirs() {
        let (mut queue, image) = (Queue::default(), Digest([7; 32]));
        queue.begin((1, 5), &maker("acme"), [image].into(), 0);
        queue.begin((2, 5), &maker("acme"), [image].into(), 0);
        queue.wait((1, 6), &maker("bolt"), channel());
        queue.wait((2, 6), &maker("bolt"), channel());
        assert_eq!(queue.end_all(1), [image]);
        assert!(queue.reads(&image) && queue.waiting() == 1 && queue.active() == 1);
        assert_eq!(queue.next(&PLACES), Some(((2, 6), channel())));
        assert_eq!(queue.end((2, 5)), [image]);
        assert!(!queue.reads(&image) && queue.is_empty());
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
        let mut queue = Line::default();
        queue.wait(1, &maker("acme"));
        queue.wait(2, &maker("acme"));
        queue.0.leave((0, 1));
        assert_eq!(queue.next(&PLACES), Some(2));
        assert_eq!(queue.next(&PLACES), None);
    }

    #[test]
    fn a_slow_delivery_goes_on_without_a_place_and_there_are_only_so_many_of_those() {
        let mut queue = Line::default();
        queue.begin(1, &maker("acme"), 0);
        queue.begin(2, &maker("acme"), 0);
        queue.begin(3, &maker("bolt"), 0);
        queue.wait(4, &maker("cog"));
        assert!(!queue.0.slow_down(999, &PLACES) && queue.next(&PLACES).is_none());
        assert!(queue.0.slow_down(1000, &PLACES));
        assert_eq!((queue.0.active(), queue.0.slow()), (1, 2));
        assert!(queue.next(&PLACES) == Some(4) && !queue.0.slow_down(2000, &PLACES));
        (1..=3).for_each(|link| queue.end(link));
        assert_eq!((queue.0.active(), queue.0.slow()), (0, 0));
        assert!(queue.0.is_empty() && queue.0.placed.is_empty());
    }
}
