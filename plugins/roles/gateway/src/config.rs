//! The gateway's table of the configuration.

use alloc::string::String;

use serde::Deserialize;
use trireme_core::labels::{LabelRules, Labels};
use trireme_core::message::LARGEST_IMAGE;

/// What an administrator of a gateway can set. All times are in milliseconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `https://host:port` of the authority, for the time; none where the time comes from elsewhere.
    pub authority: Option<String>,
    /// `https://host:port` of the directory. Needed.
    pub directory: String,
    /// How often the directory is asked again when nothing changes. Default one hour.
    pub directory_ms: u64,
    /// `T_R`: from a disconnect to the next reconnect. Default one minute.
    pub reconnect_ms: u64,
    /// `T_I`: idle time after which the gateway disconnects by itself. Default one minute.
    pub idle_ms: u64,
    /// Never disconnects by itself. Default false.
    pub stay_connected: bool,
    /// The largest image taken, in bytes. Default, and most: 255 MiB.
    pub largest_image: u64,
    /// The most transfers on the LAN at a time. Default 8.
    pub transfers: u32,
    /// The most sensors known. Default 4096.
    pub sensors: u32,
    /// A sensor that was not seen for so long is forgotten. Default 30 days.
    pub forget_sensor_ms: u64,
    /// How often a model is announced while sensors of it are behind. Default 30000.
    pub announce_ms: u64,
    /// How long a sensor may think about an offer. Default 30000.
    pub offer_ms: u64,
    /// How long a sensor may take to install and report. Default ten minutes.
    pub install_ms: u64,
    /// When a release that a sensor gave up or refused is offered to it again. Default one hour.
    pub retry_reverted_ms: u64,
    /// How often one that it gave up is offered again. Default 3.
    pub retry_reverted_times: u32,
    /// When a sensor that a policy denied is asked about again. Default ten minutes.
    pub denied_ms: u64,
    /// Starts installs although the time is not proven; each release for which it does is audited. Default false.
    pub install_without_time: bool,
    /// The most receipts kept until a broker takes them. Default 10000.
    pub receipts: u32,
    /// Labels of this gateway; all of its sensors have them too.
    pub labels: Labels,
    /// Labels of its sensors, by name: `"sn-1"`, or `"sn-*"` for all that begin so. They count before those that a
    /// sensor says itself.
    pub sensor_labels: LabelRules,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            authority: None,
            directory: String::new(),
            directory_ms: 3_600_000,
            reconnect_ms: 60_000,
            idle_ms: 60_000,
            stay_connected: false,
            largest_image: LARGEST_IMAGE,
            transfers: 8,
            sensors: 4096,
            forget_sensor_ms: 30 * 24 * 3_600_000,
            announce_ms: 30_000,
            offer_ms: 30_000,
            install_ms: 600_000,
            retry_reverted_ms: 3_600_000,
            retry_reverted_times: 3,
            denied_ms: 600_000,
            install_without_time: false,
            receipts: 10_000,
            labels: Labels::default(),
            sensor_labels: LabelRules::default(),
        }
    }
}
