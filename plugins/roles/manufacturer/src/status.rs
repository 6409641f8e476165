//! What a manufacturer tells its administrator: its releases, where they are, and what sensors reported.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Deserialize;

use trireme_core::api::{BrokerStatus, ReleaseStatus, Releases, SensorStatus};
use trireme_core::role::{LARGEST_CALL, Origin, Request, code};
use trireme_core::{Fault, Host, ModelName, SensorId, json};

use crate::Manufacturer;
use crate::collect::{known_sensors, reach};
use crate::record::{KEPT_RECORDS, Release, Seen, SensorRecord, key, load, models, releases};

/// What of the status is wanted; all of it, where nothing is said. A fleet that does not fit one answer is read
/// model by model, and within a model by `sensors_after`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Question {
    model: Option<ModelName>,
    sensors_after: Option<SensorId>,
}

/// What an answer may have, less what surrounds its parts.
const ROOM: usize = LARGEST_CALL - 1024;

impl Manufacturer {
    /// The releases, newest first within a model. What does not fit an answer is left out, sensors of older
    /// releases first.
    pub(crate) fn status(&self, host: &dyn Host, request: &Request) -> Result<Vec<u8>, Fault> {
        if request.origin != Origin::Admin {
            return Err(Fault::new(code::FORBIDDEN, "a manufacturer's status is for its administrator"));
        }
        let question: Question = json::read(&request.body, "the question for the status")?;
        // Models that the certificate lists no more among them: their releases are still out there.
        let models = models(host);
        let wanted =
            models.iter().filter(|model| question.model.as_ref().is_none_or(|wanted| wanted == *model));
        let mut answer = Releases::default();
        let mut room = ROOM;
        for model in wanted {
            for release in releases(host, model).into_iter().rev().take(KEPT_RECORDS) {
                let mut status = self.release_status(host, &release);
                let Some(left) = room.checked_sub(json::write(&status).len() + 1) else { break };
                room = left;
                for sensor in sensors(host, &release, question.sensors_after.as_ref()) {
                    let Some(left) = room.checked_sub(json::write(&sensor).len() + 1) else { break };
                    room = left;
                    status.sensors.push(sensor);
                }
                answer.releases.push(status);
            }
        }
        Ok(json::write(&answer))
    }

    fn release_status(&self, host: &dyn Host, release: &Release) -> ReleaseStatus {
        let Release { model, version, suite, size, digest, .. } = release.clone();
        let manifest = release.opened_manifest().ok().flatten().map(|(manifest, _)| manifest);
        let tokens = manifest.iter().flat_map(|manifest| &manifest.tokens);
        let generations = tokens.map(|token| token.generation).collect();
        let brokers = self
            .brokers_of(host, release)
            .into_iter()
            .map(|progress| {
                let reach = reach(host, &progress.broker, release);
                let (pending, holding) =
                    reach.map(|reach| (reach.pending, reach.holding)).unwrap_or_default();
                BrokerStatus {
                    id: progress.broker,
                    stage: progress.stage,
                    detail: progress.detail,
                    pending,
                    holding,
                }
            })
            .collect();
        ReleaseStatus {
            model,
            version,
            suite,
            size,
            digest,
            sequence: release.manifest_sequence(),
            expires_ms: manifest.as_ref().map_or(0, |manifest| manifest.expires_ms),
            withdrawn: manifest.as_ref().is_some_and(|manifest| manifest.withdrawn),
            rollout: self.rollout_in_short(host, release),
            through: release.through_now().iter().map(|through| through.version).collect(),
            generations,
            brokers,
            sensors: Vec::new(),
        }
    }
}

/// Each known sensor of the release's model; one without a receipt for this release is `unknown`.
fn sensors(host: &dyn Host, release: &Release, after: Option<&SensorId>) -> Vec<SensorStatus> {
    let Release { model, version, .. } = release;
    let one = |name: String| {
        let id = SensorId::new(name.clone()).ok()?;
        let record: Option<SensorRecord> = load(host, &format!("{}/{name}", key("sensor", model, *version)));
        if let Some(SensorRecord { outcome, counter, gateway, authenticated }) = record {
            return Some(SensorStatus { id, gateway, outcome, authenticated, counter });
        }
        let proven: Option<Seen> = load(host, &format!("seen/{model}/{name}"));
        let seen = proven.or_else(|| load(host, &format!("guest/{model}/{name}")))?;
        Some(SensorStatus {
            id,
            gateway: seen.gateway,
            outcome: "unknown".to_string(),
            authenticated: false,
            counter: 0,
        })
    };
    known_sensors(host, model, after.map(SensorId::as_str)).into_iter().filter_map(one).collect()
}
