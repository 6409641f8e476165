//! The broker in several shards: each has the links of its own gateways, agrees keys with them and delivers to them;
//! the main one has, besides, the manufacturers' links and all that is kept. What follows is all that they tell each
//! other. A broker in one piece is its own main shard, and tells itself the same things within one handler.
//!
//! What the main shard keeps counts; the others hold copies: the releases, and of each gateway that is connected what
//! it answered. A shard that starts anew says so and is told all releases again.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use minicbor::{Decode, Encode};
use trireme_core::message::{Held, LARGEST_MESSAGE};
use trireme_core::release::Channel;
use trireme_core::role::{LARGEST_CALL, Shard, code};
use trireme_core::{Digest, Fault, Host, LinkId, NodeId, Stamp, cbor};

use crate::Broker;
use crate::store::{Standing, Stored};

/// The most channels that one message names.
pub(crate) const MOST_CHANNELS: usize = 128;

/// A delivery, or a link that waits for its place: the shard, and its number for the link.
pub(crate) type Seat = (u32, LinkId);

/// What a shard tells the main one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Say {
    /// It has started, and knows nothing.
    #[n(0)]
    Hello,
    /// Somebody claims to be this gateway. Answered by [`Word::Known`] where a gateway of this name has subscriptions.
    #[n(1)]
    Claims {
        #[n(0)]
        link: LinkId,
        #[n(1)]
        gateway: NodeId,
    },
    /// A gateway that has proven who it is subscribes. Answered by [`Word::Standings`] for these channels.
    #[n(2)]
    Subscribes {
        #[n(0)]
        link: LinkId,
        #[n(1)]
        gateway: NodeId,
        #[n(2)]
        channels: Vec<Channel>,
    },
    /// `M4` has proven a gateway, and this is what it holds. Answered by [`Word::Standings`] for all its channels.
    #[n(3)]
    Proven {
        #[n(0)]
        link: LinkId,
        #[n(1)]
        gateway: NodeId,
        #[n(2)]
        channels: Vec<Channel>,
        #[n(3)]
        held: Vec<Held>,
    },
    /// A gateway unsubscribes.
    #[n(4)]
    Unsubscribes {
        #[n(0)]
        gateway: NodeId,
        #[n(1)]
        channels: Vec<Channel>,
    },
    /// A delivery is due. Answered by [`Word::Go`] when it is its turn, or by [`Word::Nothing`].
    #[n(5)]
    Wants {
        #[n(0)]
        link: LinkId,
        #[n(1)]
        channel: Channel,
    },
    /// A gateway has answered for a release, and its delivery ends.
    #[n(6)]
    Answered {
        #[n(0)]
        link: LinkId,
        #[n(1)]
        gateway: NodeId,
        #[n(2)]
        channel: Channel,
        #[n(3)]
        standing: Standing,
    },
    /// A delivery, or the wish for one, has ended otherwise.
    #[n(7)]
    Ended {
        #[n(0)]
        link: LinkId,
    },
    /// The link of a gateway is gone.
    #[n(8)]
    Left {
        #[n(0)]
        link: LinkId,
    },
    /// An image is of no use.
    #[n(9)]
    Lost {
        #[n(0)]
        image: Digest,
        #[n(1)]
        why: String,
    },
    /// Receipts whose signature was verified. Answered by [`Word::Kept`] once they are durable; not at all where there
    /// is no room for them.
    #[n(10)]
    Receipts {
        #[n(0)]
        link: LinkId,
        #[n(1)]
        gateway: NodeId,
        #[n(2)]
        manufacturer: NodeId,
        #[n(3)]
        sequence: u64,
        #[n(4)]
        digest: Digest,
        #[cbor(n(5), with = "minicbor::bytes")]
        signed: Vec<u8>,
    },
    /// What is trusted changed.
    #[n(11)]
    Trust,
    /// Its links, for the administrator: JSON, and how many are not in it.
    #[n(12)]
    Links {
        #[n(0)]
        ask: u64,
        #[n(1)]
        links: String,
        #[n(2)]
        left_out: u64,
    },
}

/// What the main shard tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Word {
    /// A release is as it is here from now on.
    #[n(0)]
    Release {
        #[n(0)]
        channel: Channel,
        #[n(1)]
        stored: Box<Stored>,
        #[n(2)]
        why: Why,
    },
    /// A gateway of the name that was claimed has subscriptions.
    #[n(1)]
    Known {
        #[n(0)]
        link: LinkId,
    },
    /// What a gateway answered last on these channels of its own: on all that it has, or on those that were asked for.
    #[n(2)]
    Standings {
        #[n(0)]
        link: LinkId,
        #[n(1)]
        channels: Vec<Subscription>,
        #[n(2)]
        all: bool,
        #[n(3)]
        last: bool,
    },
    /// It is its turn: the release of this channel may be delivered.
    #[n(3)]
    Go {
        #[n(0)]
        link: LinkId,
        #[n(1)]
        channel: Channel,
        /// Deliveries under way.
        #[n(2)]
        active: u32,
        /// Gateways that do not hold the image yet.
        #[n(3)]
        pending: u32,
        /// Gateways that do.
        #[n(4)]
        holding: u32,
        /// Deliveries that began in the last hour.
        #[n(5)]
        hour: u32,
    },
    /// There is nothing to deliver on that channel any more.
    #[n(4)]
    Nothing {
        #[n(0)]
        link: LinkId,
    },
    /// A batch of receipts is durable.
    #[n(5)]
    Kept {
        #[n(0)]
        link: LinkId,
        #[n(1)]
        sequence: u64,
    },
    /// What is trusted changed.
    #[n(6)]
    Trust,
    /// The administrator asks for the links, at most so many bytes of JSON.
    #[n(7)]
    Links {
        #[n(0)]
        ask: u64,
        #[n(1)]
        bytes: u32,
    },
}

/// Why a shard is told of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(crate) enum Why {
    /// It has come, or its manifest is another.
    #[n(0)]
    Kept,
    /// It was withdrawn.
    #[n(1)]
    Withdrawn,
    /// Its certificate was revoked.
    #[n(2)]
    Revoked,
    /// Its image is lost.
    #[n(3)]
    Lost,
    /// The shard has just started.
    #[n(4)]
    Known,
}

/// A durable subscription of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Subscription {
    #[n(0)]
    pub(crate) channel: Channel,
    /// Whether it was not there before.
    #[n(1)]
    pub(crate) new: bool,
    /// What the gateway answered last.
    #[n(2)]
    pub(crate) standing: Option<Standing>,
}

/// What a broker tells itself.
#[derive(Debug)]
pub(crate) enum Note {
    Say(Say),
    Word(Word),
    /// A release changed; its record is here already.
    Changed(Channel, Why),
}

impl Broker {
    /// Tells the main shard something.
    pub(crate) fn say(&mut self, host: &mut dyn Host, say: Say) {
        if self.shard.is_main() {
            self.notes.push_back(Note::Say(say));
        } else {
            host.tell(Shard::MAIN, cbor::encode(&say));
        }
    }

    /// The main shard tells one something.
    pub(crate) fn word(&mut self, host: &mut dyn Host, to: u32, word: Word) {
        if to == self.shard.number {
            self.notes.push_back(Note::Word(word));
        } else {
            host.tell(to, cbor::encode(&word));
        }
    }

    /// The main shard tells all others something.
    pub(crate) fn word_to_others(&mut self, host: &mut dyn Host, word: &Word) {
        for shard in 1..self.shard.count {
            host.tell(shard, cbor::encode(word));
        }
    }

    /// All shards hear how a release is now.
    pub(crate) fn announce(&mut self, host: &mut dyn Host, channel: &Channel, why: Why) {
        if self.shard.count > 1
            && let Some(stored) = self.store.releases.get(channel).cloned()
        {
            let stored = Box::new(stored);
            self.word_to_others(host, &Word::Release { channel: channel.clone(), stored, why });
        }
        self.notes.push_back(Note::Changed(channel.clone(), why));
    }

    /// Another shard tells something.
    pub(crate) fn told(
        &mut self,
        host: &mut dyn Host,
        now: Stamp,
        from: u32,
        payload: &[u8],
    ) -> Result<(), Fault> {
        if self.shard.is_main() {
            let say = cbor::decode(payload, LARGEST_CALL)?;
            self.heard(host, now, from, say);
        } else if from == Shard::MAIN {
            let word = cbor::decode(payload, LARGEST_CALL)?;
            self.obey(host, now, word);
        } else {
            return Err(Fault::new(code::UNEXPECTED, "only the main shard tells a shard anything"));
        }
        Ok(())
    }

    /// What the handler in hand told this very shard.
    pub(crate) fn read_notes(&mut self, host: &mut dyn Host, now: Stamp) {
        while let Some(note) = self.notes.pop_front() {
            match note {
                Note::Say(say) => self.heard(host, now, Shard::MAIN, say),
                Note::Word(word) => self.obey(host, now, word),
                Note::Changed(channel, why) => self.changed(host, now, &channel, why),
            }
        }
    }

    /// A shard does what the main one says.
    fn obey(&mut self, host: &mut dyn Host, now: Stamp, word: Word) {
        match word {
            Word::Release { channel, stored, why } => {
                self.store.releases.insert(channel.clone(), *stored);
                self.changed(host, now, &channel, why);
            }
            Word::Known { link } => self.advance(host, now, link),
            Word::Standings { link, channels, all, last } => {
                self.standings(link, channels, all);
                if last {
                    self.answered_for(host, now, link);
                }
            }
            Word::Go { link, channel, active, pending, holding, hour } => {
                self.go(host, now, link, channel, [active, pending, holding, hour]);
            }
            Word::Nothing { link } => {
                self.wanted_in_vain(now, link);
                self.advance(host, now, link);
            }
            Word::Kept { link, sequence } => {
                if let Err(fault) = self.say_kept(host, link, sequence) {
                    self.drop_link(host, now, link, &fault.to_string());
                }
            }
            // The host has seen it before this message: what follows is an event of its own.
            Word::Trust => {}
            Word::Links { ask, bytes } => {
                let (links, left_out) = self.links_status(bytes as usize);
                let links = serde_json::Value::from(links);
                let say = Say::Links { ask, links: alloc::format!("{links}"), left_out: left_out as u64 };
                self.say(host, say);
            }
        }
    }

    /// A release is another now.
    fn changed(&mut self, host: &mut dyn Host, now: Stamp, channel: &Channel, why: Why) {
        match why {
            Why::Kept => self.distribute(host, now, channel, self.config.spread_ms),
            Why::Known => self.distribute(host, now, channel, 0),
            Why::Withdrawn => {
                self.end_deliveries(host, now, channel, "the release in delivery was withdrawn");
                self.distribute(host, now, channel, 0);
            }
            Why::Revoked => {
                self.end_deliveries(host, now, channel, "the release in delivery was revoked");
            }
            Why::Lost => {}
        }
    }
}

/// Channels in messages of a bounded size; one at least.
pub(crate) fn parts(mut channels: Vec<Channel>) -> Vec<Vec<Channel>> {
    let mut parts = Vec::new();
    while channels.len() > MOST_CHANNELS {
        let rest = channels.split_off(MOST_CHANNELS);
        parts.push(core::mem::replace(&mut channels, rest));
    }
    parts.push(channels);
    parts
}

// A release with its manifest is one message of a manufacturer's, and fits one between shards.
const _: () = assert!(LARGEST_MESSAGE <= LARGEST_CALL);
