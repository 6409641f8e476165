//! What the gateway tells its administrator.

use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};

use crate::Gateway;

impl Gateway {
    /// Sensors with how far they are, releases, brokers and alarms, as JSON.
    pub(crate) fn status(&self) -> Vec<u8> {
        let sensors: Vec<Value> = self
            .sensors
            .all()
            .map(|(id, sensor)| {
                json!({
                    "id": id,
                    "manufacturer": sensor.known.manufacturer,
                    "model": sensor.known.model,
                    "running": sensor.known.running,
                    "generation": sensor.known.generation,
                    "connected": sensor.link.is_some(),
                    "stage": sensor.stage.name(),
                    "pending": self.pending(id).map(|release| release.mark.version),
                    "refused": sensor.known.refused.as_ref().map(|mark| mark.version),
                    "reverts": sensor.known.reverts,
                })
            })
            .collect();
        let releases: Vec<Value> = self
            .releases
            .all()
            .map(|release| {
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
                    "withdrawn": release.withdrawn,
                    "floor": self.releases.floor(&release.channel.model).map(|floor| floor.version),
                })
            })
            .collect();
        let brokers: Vec<Value> = self
            .brokers
            .iter()
            .map(|(id, broker)| {
                json!({
                    "id": id,
                    "urls": broker.urls,
                    "connected": broker.binding.is_some(),
                    "agreed": broker.session.is_some(),
                    "subscribed": broker.subscribed.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "failures": broker.failures,
                    "detail": broker.detail,
                })
            })
            .collect();
        let status = json!({
            "sensors": sensors,
            "releases": releases,
            "brokers": brokers,
            "alarms": self.alarms,
            "directory": self.discovery.detail,
            "receipts_waiting": self.receipts.total(),
        });
        status.to_string().into_bytes()
    }
}
