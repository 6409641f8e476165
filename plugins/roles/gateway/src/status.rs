//! What the gateway tells its administrator.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::json;
use trireme_core::json::fit;
use trireme_core::{Host, Stamp};

use crate::Gateway;
use crate::trust::stale;

/// Bytes of the answer for sensors.
const SENSORS: usize = 32 * 1024;
/// Bytes of the answer for releases.
const RELEASES: usize = 12 * 1024;
/// Bytes of the answer for brokers.
const BROKERS: usize = 8 * 1024;
/// The most channels that are named for a broker.
const MOST_CHANNELS: usize = 16;

impl Gateway {
    /// Sensors with how far they are, releases, brokers and alarms, as JSON; what does not fit an answer is counted.
    pub(crate) fn status(&self, host: &mut dyn Host, now: Stamp) -> Vec<u8> {
        let sensors = self.sensors.all().map(|(id, sensor)| {
            json!({
                "id": id,
                "manufacturer": sensor.known.manufacturer,
                "model": sensor.known.model,
                "running": sensor.known.running,
                "generation": sensor.known.generation,
                "connected": sensor.link.is_some(),
                "stage": sensor.stage.name(),
                "pending": self.pending(id).map(|pending| pending.mark().version),
                "leads_to": self.pending(id).and_then(|pending| pending.leads_to()),
                "refused": sensor.known.refused.as_ref().map(|mark| mark.version),
                "reverts": sensor.known.reverts,
                "labels": sensor.labels,
                "needs": self.missing_token(id),
            })
        });
        // What was dropped is shown until something takes its place.
        let kept = self.releases.all().map(|release| (release, false));
        let releases = kept.chain(self.revoked.values().map(|release| (release, true)));
        let releases = releases.map(|(release, revoked)| {
            json!({
                "topic": release.channel.topic,
                "model": release.channel.model,
                "version": release.mark.version,
                "suite": release.suite,
                "size": release.mark.size,
                "digest": release.mark.digest,
                "sequence": release.mark.sequence,
                "manufacturer": release.manufacturer,
                "expires_ms": release.expires_ms,
                "stale": now.unix_ms.is_some_and(|unix_ms| stale(release, unix_ms).is_some()),
                "withdrawn": release.withdrawn,
                "order": release.order.as_ref().map(|order| json!({
                    "wave": order.wave,
                    "of": order.of,
                    "halted": order.halted,
                })),
                "through": release.through.iter().map(|through| json!({
                    "version": through.image.version,
                    "digest": through.image.digest,
                    "here": through.here,
                })).collect::<Vec<_>>(),
                "revoked": revoked,
                "lost": !release.image && !release.withdrawn && !revoked,
                "floor": self.releases.floor(&release.channel.model).map(|floor| floor.version),
            })
        });
        let brokers = self
            .brokers
            .iter()
            .map(|(id, broker)| {
                json!({
                    "id": id,
                    "urls": broker.urls,
                    "connected": broker.binding.is_some(),
                    "agreed": broker.session.is_some(),
                    "subscribed": broker.subscribed.iter().take(MOST_CHANNELS).map(ToString::to_string).collect::<Vec<_>>(),
                    "failures": broker.failures,
                    "detail": broker.detail,
                })
            });
        let (sensors, sensors_left_out) = fit(sensors, SENSORS);
        let (releases, releases_left_out) = fit(releases, RELEASES);
        let (brokers, brokers_left_out) = fit(brokers, BROKERS);
        let status = json!({
            "sensors": sensors,
            "sensors_left_out": sensors_left_out,
            "releases": releases,
            "releases_left_out": releases_left_out,
            "brokers": brokers,
            "brokers_left_out": brokers_left_out,
            "alarms": self.alarms,
            "directory": self.discovery.detail,
            "receipts_waiting": self.receipts.total(),
            "trust_items": host.trust_items().len(),
        });
        status.to_string().into_bytes()
    }
}
