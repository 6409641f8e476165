//! The network: links that keep the order of what they carry, lose themselves, and take their time; requests that
//! are lost, repeated, or answered late.

use std::collections::BTreeMap;

use trireme_core::LinkId;
use trireme_core::role::LinkInfo;

/// How bad it is. Probabilities in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The shortest way from one end to the other, in milliseconds.
    pub fastest_ms: u64,
    /// The longest.
    pub slowest_ms: u64,
    /// A frame breaks its link instead of arriving.
    pub resets: u32,
    /// A call finds nobody.
    pub refusals: u32,
    /// A message on the LAN arrives twice, or after the next one.
    pub disorder: u32,
    /// A request is lost on its way.
    pub lost_requests: u32,
    /// A request arrives twice.
    pub repeated_requests: u32,
    /// A party crashes at a commit.
    pub crashes: u32,
}

impl Network {
    /// Nothing goes wrong.
    pub const GOOD: Self = Self {
        fastest_ms: 1,
        slowest_ms: 5,
        resets: 0,
        refusals: 0,
        disorder: 0,
        lost_requests: 0,
        repeated_requests: 0,
        crashes: 0,
    };

    /// Everything goes wrong now and then.
    pub const BAD: Self = Self {
        fastest_ms: 1,
        slowest_ms: 400,
        resets: 15_000,
        refusals: 80_000,
        disorder: 30_000,
        lost_requests: 80_000,
        repeated_requests: 50_000,
        crashes: 8_000,
    };

    /// The same latency, and nothing goes wrong any more: so that a run can end.
    #[must_use]
    pub fn calmed(self) -> Self {
        Self { fastest_ms: self.fastest_ms, slowest_ms: self.slowest_ms, ..Self::GOOD }
    }
}

/// A party's index.
pub type Place = usize;

/// What a link carries.
#[derive(Debug, Clone)]
pub enum Frame {
    /// The other end's link is open.
    Opened(LinkInfo),
    /// A message of a kind.
    Message(String, Vec<u8>),
    /// A header, and the bytes that follow it: image and trailer.
    Body(Vec<u8>, Vec<u8>),
    /// MQTT SUBSCRIBE.
    Subscribe(String),
    /// MQTT UNSUBSCRIBE.
    Unsubscribe(String),
    /// The end.
    Closed(String),
}

/// One end of a link: whose, and under which number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The party.
    pub place: Place,
    /// The party's number of the link.
    pub link: LinkId,
}

/// A link.
#[derive(Debug, Clone)]
pub struct Pipe {
    /// `mqtt` or `lan`.
    pub kind: &'static str,
    /// Who called, and who was called.
    pub ends: [End; 2],
    /// When the last frame towards each end arrives: later ones arrive after it.
    pub busy_until: [u64; 2],
}

/// All open links.
#[derive(Debug, Default)]
pub struct Pipes {
    pipes: BTreeMap<u64, Pipe>,
    by_end: BTreeMap<(Place, LinkId), u64>,
    next: u64,
}

impl Pipes {
    /// Joins two ends.
    pub fn open(&mut self, kind: &'static str, ends: [End; 2]) -> u64 {
        self.next += 1;
        for end in ends {
            self.by_end.insert((end.place, end.link), self.next);
        }
        self.pipes.insert(self.next, Pipe { kind, ends, busy_until: [0; 2] });
        self.next
    }

    /// The link that a party knows by this number, and on which side it is.
    #[must_use]
    pub fn find(&self, place: Place, link: LinkId) -> Option<(u64, usize)> {
        let number = *self.by_end.get(&(place, link))?;
        let side =
            self.pipes.get(&number)?.ends.iter().position(|end| end.place == place && end.link == link)?;
        Some((number, side))
    }

    /// A link by its number.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Pipe> {
        self.pipes.get_mut(&number)
    }

    /// A link by its number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Pipe> {
        self.pipes.get(&number)
    }

    /// One end is gone; the link itself when both are. Gives the link and the other end, if that is still there.
    pub fn leave(&mut self, place: Place, link: LinkId) -> Option<(u64, Option<usize>)> {
        let (number, side) = self.find(place, link)?;
        self.by_end.remove(&(place, link));
        let other = 1 - side;
        let end = self.pipes.get(&number).and_then(|pipe| pipe.ends.get(other).copied());
        let there = end.is_some_and(|end| self.by_end.get(&(end.place, end.link)) == Some(&number));
        if !there {
            self.pipes.remove(&number);
        }
        Some((number, there.then_some(other)))
    }

    /// The links of a party, by its own numbers.
    #[must_use]
    pub fn of(&self, place: Place) -> Vec<LinkId> {
        let from = (place, LinkId::MIN);
        let to = (place, LinkId::MAX);
        self.by_end.range(from..=to).map(|((_, link), _)| *link).collect()
    }
}
