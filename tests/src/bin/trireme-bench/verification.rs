//! What it costs a sensor to verify an image, beside hashing it: suite 2 takes one pass over the image, suite 1 three.

use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use trireme_core::formula::{self, Suite};
use trireme_core::{Digest, NodeId, Token, Version};
use trireme_crypto::element::ModelSecrets;
use trireme_crypto::hash::Sha256Stream;
use trireme_crypto::image::{Computation, ImageKey};
use trireme_tests::bench::measure::Sample;
use trireme_tests::bench::report::{Goal, Row};
use trireme_tests::lab::image;

use crate::{Bench, say};

const MIB: usize = 1 << 20;
/// How much of an image passes at a time, as in the host's jobs.
const WINDOW: usize = 64 * 1024;
/// How often each image is verified; the fastest time counts, as everything slower is somebody else's doing.
const ROUNDS: usize = 8;

pub(crate) fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    say("verification: one image, by a sensor's formulas and by SHA-256 alone");
    let image = image(bench.many(16, 1) * MIB, 1);
    let offers = [(Suite::Digest, "suite-2", 1.15), (Suite::Thesis, "suite-1", 3.3)];
    offers
        .into_iter()
        .map(|(suite, name, most)| row(bench, &Offer::new(suite, &image)?, name, most))
        .collect()
}

fn row(bench: &Bench, offer: &Offer<'_>, name: &str, most: f64) -> Result<Row, String> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeat {
        ours.push(fastest(|| offer.verify())?);
        bare.push(fastest(|| {
            std::hint::black_box(Sha256::digest(offer.image));
            Ok(())
        })?);
    }
    let mib = offer.image.len() / MIB;
    Ok(Row {
        name: format!("verification/{name}"),
        what: format!("a sensor verifies an image of {mib} MiB: F, Token and the image itself, natively"),
        unit: "ms".into(),
        ours: Sample::of(ours),
        yardstick: Some(("SHA-256 of the same bytes".into(), Sample::of(bare))),
        goal: Goal::AtMost(most),
    })
}

/// Milliseconds of the fastest of some rounds.
fn fastest(mut act: impl FnMut() -> Result<(), String>) -> Result<f64, String> {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        act()?;
        least = least.min(begun.elapsed().as_secs_f64() * 1e3);
    }
    Ok(least)
}

/// A genuine offer.
struct Offer<'a> {
    image: &'a [u8],
    suite: Suite,
    digest: Digest,
    token: Token,
    checksum: Vec<u8>,
    /// What is to be checked with the image, and what with its digest.
    checks: [(Computation, Expected); 2],
}

#[derive(Clone, Copy)]
enum Expected {
    Checksum,
    Token,
}

impl<'a> Offer<'a> {
    fn new(suite: Suite, image: &'a [u8]) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| error.to_string();
        let name = |text: &str| NodeId::new(text).map_err(|error| wrong(&error));
        let (manufacturer, gateway, version) = (name("acme")?, name("gw-1")?, Version::new([1, 2, 0, 0]));
        let model = "MD-01".parse().map_err(|error| wrong(&error))?;
        let secrets = ModelSecrets::generate(model, 1).map_err(|error| wrong(&error))?;
        let sensor = "sn-1".parse().map_err(|error| wrong(&error))?;
        let sensor = Arc::new(secrets.sensor(&sensor, &manufacturer).map_err(|error| wrong(&error))?);
        let new = |key, formula| Computation::new(key, formula).map_err(|error| wrong(&error));
        let formula = || formula::token(suite, &manufacturer, version).into_owned();
        let mut offer = Self {
            image,
            suite,
            digest: trireme_crypto::hash::of_bytes(image),
            token: Token([0; 32]),
            checksum: Vec::new(),
            checks: [
                (new(ImageKey::CheckToken(sensor), formula())?, Expected::Token),
                (new(ImageKey::Token(Arc::new(secrets)), formula())?, Expected::Token),
            ],
        };
        let token = offer.values()?.1.and_then(|bytes| bytes.try_into().ok()).ok_or("no Token")?;
        offer.token = Token(token);
        let checksum = formula::f(suite, &gateway, &offer.token, version).into_owned();
        offer.checks[1] = (new(ImageKey::Hash, checksum)?, Expected::Checksum);
        offer.checksum = offer.values()?.1.ok_or("no checksum")?;
        offer.verify()?;
        Ok(offer)
    }

    fn verify(&self) -> Result<(), String> {
        if self.values()?.0 { Ok(()) } else { Err("a genuine image was refused".into()) }
    }

    /// Whether all is as it should be, and the value of the second check.
    fn values(&self) -> Result<(bool, Option<Vec<u8>>), String> {
        let wrong = |error: trireme_crypto::image::ImageError| error.to_string();
        let size = self.image.len() as u64;
        let (mut hash, mut streams) = (Sha256Stream::new(), Vec::new());
        if self.suite.whole() {
            for (computation, _) in &self.checks {
                streams.push(computation.clone().start(size).map_err(wrong)?);
            }
        }
        for window in self.image.chunks(WINDOW) {
            hash.update(window);
            streams.iter_mut().try_for_each(|stream| stream.update(window)).map_err(wrong)?;
        }
        let digest = hash.finish();
        let mut streams = streams.into_iter();
        let (mut same, mut last) = (digest == self.digest, None);
        for (computation, expected) in &self.checks {
            let value = match streams.next() {
                Some(stream) => stream.finish(),
                None => computation.with_digest(size, &digest),
            };
            let value = value.map_err(wrong)?;
            same &= match expected {
                Expected::Checksum => value.matches(&self.checksum),
                Expected::Token => value.matches(&self.token.0),
            };
            last = value.into_bytes();
        }
        Ok((same, last))
    }
}
