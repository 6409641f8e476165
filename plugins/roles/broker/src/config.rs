//! The broker's table of the configuration.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use trireme_core::labels::LabelRules;
use trireme_core::message::LARGEST_IMAGE;
use trireme_core::role::code;
use trireme_core::{Fault, ModelName, NodeId};

use crate::queue::Places;

/// What an operator of a broker can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `https://host:port` of the authority, for the time; none where the time comes from elsewhere.
    pub authority: Option<String>,
    /// The largest image taken, in bytes. Default, and most: 255 MiB.
    pub largest_image: u64,
    /// The most releases kept, one for each topic and model. Default 4096.
    pub releases: u32,
    /// The most deliveries at a time. Default 64.
    pub deliveries: u32,
    /// The most of them with releases of one manufacturer. Default 10000: as many as there may be.
    pub deliveries_per_manufacturer: u32,
    /// Milliseconds for which a delivery counts as one of them; one that takes longer goes on without holding up
    /// others. Default 10000.
    pub place_ms: u64,
    /// The most deliveries that go on in this way. Default 1024.
    pub slow_deliveries: u32,
    /// Milliseconds over which the deliveries of a new release begin, each gateway's at a random time. Default 0: all
    /// at once, as far as there are places.
    pub spread_ms: u64,
    /// The most durable subscriptions of one gateway. Default 1024.
    pub subscriptions_per_gateway: u32,
    /// The most batches of receipts kept for one manufacturer. Default 20000.
    pub batches_per_manufacturer: u32,
    /// Milliseconds in which a peer has to answer a PUSH: also one of thousands that come back at once. Default 30000.
    pub answer_ms: u64,
    /// Milliseconds that a whole delivery may take, its acknowledgement included. Default one hour.
    pub delivery_ms: u64,
    /// The most PUSHes that one link may send in a minute. Default 60.
    pub pushes_per_minute: u32,
    /// The most PUSHes of links that have proven nothing yet, in a minute from one address. Default 600.
    pub pushes_per_address: u32,
    /// The same from all addresses, the broker's own PUSHes to such links included: after a restart, that many gateways
    /// are back in a minute. Default 60000.
    pub pushes_in_all: u32,
    /// Milliseconds after which a gateway that a policy denied is asked about again. Default ten minutes.
    pub denied_ms: u64,
    /// Labels of gateways, for policies: by name, `"gw-1"`, or `"gw-*"` for all that begin so.
    pub gateway_labels: LabelRules,
    /// What each manufacturer may keep here.
    pub quota: Quota,
    /// What single manufacturers may keep; where one of these says nothing, [`Config::quota`] counts.
    pub quotas: Vec<QuotaOf>,
}

/// What a manufacturer may keep; what is not said is limited by the broker's own limits alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Bytes of images in all.
    pub bytes: Option<u64>,
    /// Models with a release; of each there is one, the newest.
    pub models: Option<u32>,
    /// The largest image, in bytes.
    pub largest_image: Option<u64>,
    /// Batches of receipts that wait to be collected.
    pub batches: Option<u32>,
    /// Days that a batch waits at most.
    pub receipt_days: Option<u32>,
}

/// The same for one manufacturer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaOf {
    /// Whose.
    pub manufacturer: NodeId,
    /// See [`Quota`].
    #[serde(default)]
    pub bytes: Option<u64>,
    /// See [`Quota`].
    #[serde(default)]
    pub models: Option<u32>,
    /// See [`Quota`].
    #[serde(default)]
    pub largest_image: Option<u64>,
    /// See [`Quota`].
    #[serde(default)]
    pub batches: Option<u32>,
    /// See [`Quota`].
    #[serde(default)]
    pub receipt_days: Option<u32>,
    /// Models whose images may be of another size than the manufacturer's others.
    #[serde(default)]
    pub largest: Vec<LargestOf>,
}

/// The largest image of a model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargestOf {
    /// Which model.
    pub model: ModelName,
    /// In bytes.
    pub bytes: u64,
}

impl Config {
    /// What a manufacturer may keep, all taken together.
    pub(crate) fn quota_of(&self, manufacturer: &NodeId) -> Quota {
        let own = self.quotas.iter().find(|quota| quota.manufacturer == *manufacturer);
        let most = Some(self.batches_per_manufacturer);
        let batches = own.and_then(|own| own.batches).or(self.quota.batches);
        Quota {
            bytes: own.and_then(|own| own.bytes).or(self.quota.bytes),
            models: own.and_then(|own| own.models).or(self.quota.models),
            largest_image: own.and_then(|own| own.largest_image).or(self.quota.largest_image),
            batches: batches.map(|batches| batches.min(self.batches_per_manufacturer)).or(most),
            receipt_days: own.and_then(|own| own.receipt_days).or(self.quota.receipt_days),
        }
    }

    /// The largest image of a manufacturer's model, in bytes.
    pub(crate) fn largest_of(&self, manufacturer: &NodeId, model: &ModelName) -> u64 {
        let own = self.quotas.iter().find(|quota| quota.manufacturer == *manufacturer);
        let mut models = own.into_iter().flat_map(|own| &own.largest);
        let of_model = models.find(|largest| largest.model == *model).map(|largest| largest.bytes);
        let most = of_model.or(self.quota_of(manufacturer).largest_image);
        most.map_or(self.largest_image, |most| most.min(self.largest_image))
    }

    /// One word on each manufacturer.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        for (index, quota) in self.quotas.iter().enumerate() {
            let again = self.quotas.iter().skip(index + 1);
            if again.into_iter().any(|other| other.manufacturer == quota.manufacturer) {
                let text = format!("[broker] has two quotas for {}; keep one of them", quota.manufacturer);
                return Err(Fault::new(code::CONFIGURATION, text));
            }
        }
        Ok(())
    }
}

impl Config {
    /// How many deliveries there may be.
    pub(crate) fn places(&self) -> Places {
        Places {
            in_all: self.deliveries as usize,
            of_one: self.deliveries_per_manufacturer as usize,
            slow: self.slow_deliveries as usize,
            for_ms: self.place_ms,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            authority: None,
            largest_image: LARGEST_IMAGE,
            releases: 4096,
            deliveries: 64,
            deliveries_per_manufacturer: 10_000,
            place_ms: 10_000,
            slow_deliveries: 1024,
            spread_ms: 0,
            subscriptions_per_gateway: 1024,
            batches_per_manufacturer: 20_000,
            answer_ms: 30_000,
            delivery_ms: 3_600_000,
            pushes_per_minute: 60,
            pushes_per_address: 600,
            pushes_in_all: 60_000,
            denied_ms: 600_000,
            gateway_labels: LabelRules::default(),
            quota: Quota::default(),
            quotas: Vec::new(),
        }
    }
}
