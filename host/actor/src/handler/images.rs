//! Values over images: which key a role may use for which, and whether they are there at once or are work.

use trireme_core::role::{Answer, Job, JobKey, Reception, code};
use trireme_core::{Fault, ModelName};
use trireme_crypto::image::{Computation, ImageKey};

use super::{Handler, internal};
use crate::intake::{Intake, Prepared, Work};

impl Handler<'_> {
    /// A key for a value over an image: to make it, or to check one.
    pub(super) fn image_key(&self, key: &JobKey, label: &str, to_check: bool) -> Result<ImageKey, Fault> {
        match key {
            JobKey::Hash => Ok(ImageKey::Hash),
            JobKey::Session(link) => {
                // To check what a peer said needs no grant, as in `Host::check`.
                if !to_check {
                    self.context.grants.label(label)?;
                }
                Ok(ImageKey::Session(self.context.links.handle(*link, label, to_check)?))
            }
            JobKey::Token { model, generation } => {
                self.context.grants.label(label)?;
                let missing = || no_secrets(model);
                let secrets = self.context.keys.models.one(model, *generation).ok_or_else(missing)?;
                Ok(ImageKey::Token(secrets.clone()))
            }
            JobKey::CheckToken => {
                self.context.grants.element()?;
                let sensor = self.context.keys.sensor.as_ref().ok_or_else(no_element)?;
                Ok(ImageKey::CheckToken(sensor.secrets.clone()))
            }
        }
    }

    pub(super) fn begin_intake(&self, reception: Reception<'_>) -> Result<Intake, Fault> {
        let Reception { size, digest, trailer, checks } = reception;
        let prepare = |check: trireme_core::role::Check<'_>| {
            let label = check.formula.label.to_string();
            let key = self.image_key(&check.key, &label, true)?;
            let computation = computation(key, check.formula)?;
            Ok(Prepared { label, computation, expected: check.expected })
        };
        let checks = checks.into_iter().map(prepare).collect::<Result<Vec<_>, Fault>>()?;
        Intake::begin(size, digest, trailer, checks)
    }

    /// Where `D` is size and digest the value is there at once; otherwise it is work for the driver.
    pub(super) fn begin_work(&self, job: Job<'_>) -> Result<Result<Answer, Work>, Fault> {
        let size = self.must_have(&job.image)?;
        let key = self.image_key(&job.key, &job.formula.label, false)?;
        let computation = computation(key, job.formula)?;
        if computation.whole() {
            return Work::new(job.image, size, computation).map(Err);
        }
        let value = computation.with_digest(size, &job.image).map_err(|error| internal(&error))?;
        Ok(Ok(Answer { blob: Some((job.image, size)), values: value.into_bytes().into_iter().collect() }))
    }
}

fn computation(key: ImageKey, formula: trireme_core::ImageFormula<'_>) -> Result<Computation, Fault> {
    Computation::new(key, formula.into_owned()).map_err(|error| internal(&error))
}

pub(super) fn no_secrets(model: &ModelName) -> Fault {
    Fault::new(
        code::UNKNOWN,
        format!("there are no secrets for model {model} here; `trireme model add` makes them"),
    )
}

pub(super) fn no_element() -> Fault {
    Fault::new(code::NOT_GRANTED, "this role is no sensor: it has no secure element")
}
