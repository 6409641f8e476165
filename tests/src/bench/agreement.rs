//! How many key agreements of tier 2 a broker does on one core, beside what OpenSSL allows for the same operations.
//!
//! # The broker's side of one exchange (5.6.4.1)
//!
//! | step | on the curve | besides |
//! |---|---|---|
//! | PUSH | key generation (`Q_BK`), one signature (`M3`) | CBOR, a hash |
//! | RESPONSE | one verification (`M4`), one ECDH (`Q_GW`) | the certificate from memory (a hash), `TH`, HKDF, `C` |
//! | what is said of trust, both ways | – | two MACs |
//! | the subscription becomes durable, the first time | – | a share of a commit |
//!
//! `openssl speed` counts an ECDH as the derivation alone. It has no figure for making a key, which is one more
//! multiplication of the base point and so counted as a signature, whose time that multiplication is.
//!
//! The two ways to link the role take turns, a few gateways each: what a component costs more is the median of what it
//! costs more in each of these pairs.
//!
//! Gateways are computed between the measured stretches, in a thread of their own, and not counted. What is counted: the actor with the role,
//! native or as a component, and its store, which commits once for each batch of events as a node does.

mod broker;
mod cpu;
mod idle;
mod openssl;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use trireme_core::Digest;
use trireme_crypto::hash;
use trireme_crypto::key::KeyError;
use trireme_crypto::provider::{AwsLc, Portable, Provider, Scalar};

use super::measure::Sample;
use crate::lab::Lab;

pub use broker::{Linked, Occasion};
pub use idle::{Idle, idle};
pub use openssl::OpenSsl;

use broker::{Bench, Stretch};

/// How long each operation of a provider is repeated, each time.
const LONG_ENOUGH: Duration = Duration::from_millis(300);

/// How often gateways come once more, each time.
const AGAIN: usize = 3;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Where the brokers' stores are made: on the disk that is meant.
    pub folder: &'a Path,
    /// How many gateways there are.
    pub gateways: usize,
    /// How often each figure is taken.
    pub repeats: usize,
}

/// Operations per second on one core.
#[derive(Debug, Clone, Serialize)]
pub struct Primitives {
    /// Whose.
    pub provider: &'static str,
    /// Signatures.
    pub sign: Sample,
    /// Verifications.
    pub verify: Sample,
    /// A new key, and an ECDH with it.
    pub agree: Sample,
    /// Exchanges, if there were nothing else to do: the broker's side.
    pub allows: f64,
}

/// Exchanges per second of a broker.
#[derive(Debug, Clone, Serialize)]
pub struct Exchanges {
    /// How the role is linked.
    pub linked: Linked,
    /// Whether the gateways come for the first time.
    pub occasion: Occasion,
    /// Exchanges per second of time, waiting for the disk included.
    pub wall: Sample,
    /// Exchanges per second of CPU time of all threads, where the system tells it.
    pub cpu: Option<Sample>,
    /// Commits per thousand exchanges.
    pub commits: f64,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Each provider.
    pub providers: Vec<Primitives>,
    /// OpenSSL, or why there is no such figure.
    pub openssl: Result<OpenSsl, String>,
    /// Each way to link the role, on each occasion.
    pub exchanges: Vec<Exchanges>,
    /// How many times longer an exchange takes with the role as a component, of all pairs of stretches in which gateways
    /// came once more.
    pub component: Option<Sample>,
    /// Why a way to link the role is missing.
    pub missing: Vec<String>,
}

impl Figures {
    /// The measured rate as a part of what OpenSSL allows, both for a second of CPU time: OpenSSL counts no other.
    #[must_use]
    pub fn share(&self, linked: Linked, occasion: Occasion) -> Option<f64> {
        let found = self.of(linked, occasion)?;
        Some(found.cpu.as_ref().unwrap_or(&found.wall).median / self.openssl.as_ref().ok()?.allows)
    }

    /// The same by the clock, waiting for the disk included. On a machine that does other things too, this says more
    /// about them.
    #[must_use]
    pub fn share_by_the_clock(&self, linked: Linked, occasion: Occasion) -> Option<f64> {
        Some(self.of(linked, occasion)?.wall.median / self.openssl.as_ref().ok()?.allows)
    }

    fn of(&self, linked: Linked, occasion: Occasion) -> Option<&Exchanges> {
        self.exchanges.iter().find(|found| (found.linked, found.occasion) == (linked, occasion))
    }
}

/// Measures everything, the yardstick side by side with it.
///
/// # Panics
/// When there is no key, no store or no broker to measure.
#[must_use]
pub fn measure(order: Order<'_>) -> Figures {
    let lab = Lab::with_intermediate();
    let bench = Bench::new(&lab, order.folder, order.gateways);
    let (mut openssl, mut failed) = (Vec::new(), None);
    let (mut portable, mut aws_lc) = (Vec::new(), Vec::new());
    let mut stretches: Vec<(Linked, Occasion, Stretch)> = Vec::new();
    let mut ratios = Vec::new();
    let mut missing = Vec::new();
    for _ in 0..order.repeats.max(1) {
        match OpenSsl::measure() {
            Ok(figures) => openssl.push(figures),
            Err(why) => failed = Some(why),
        }
        portable.push(rates::<Portable>().unwrap());
        aws_lc.push(rates::<AwsLc>().unwrap());
        match bench.in_turns(AGAIN) {
            Ok(pairs) => {
                for occasion in [Occasion::First, Occasion::Again] {
                    let of = || pairs.iter().filter(|(when, _)| *when == occasion).map(|(_, pair)| pair);
                    for (which, linked) in [Linked::Native, Linked::Component].into_iter().enumerate() {
                        let all = of().fold(Stretch::zero(), |sum, pair| sum.and(&pair[which]));
                        stretches.push((linked, occasion, all));
                    }
                    if occasion == Occasion::Again {
                        ratios.extend(of().map(|[native, component]| component.each() / native.each()));
                    }
                }
            }
            Err(why) if !missing.contains(&why) => missing.push(why),
            Err(_) => {}
        }
    }
    let mut exchanges = Vec::new();
    for linked in [Linked::Native, Linked::Component] {
        for occasion in [Occasion::First, Occasion::Again] {
            let of = stretches.iter().filter(|(way, when, _)| (*way, *when) == (linked, occasion));
            let of: Vec<&Stretch> = of.map(|(_, _, stretch)| stretch).collect();
            if let Some(found) = Exchanges::of(linked, occasion, &of) {
                exchanges.push(found);
            }
        }
    }
    Figures {
        providers: vec![Primitives::of(Portable::NAME, &portable), Primitives::of(AwsLc::NAME, &aws_lc)],
        openssl: match failed {
            None => Ok(OpenSsl::median(&openssl)),
            Some(why) => Err(why),
        },
        exchanges,
        component: (!ratios.is_empty()).then(|| Sample::middle(ratios)),
        missing,
    }
}

/// A broker and its gateways over and over, for a profiler: the gateways work in a thread of that name.
///
/// # Errors
/// Why there is no such broker, or what failed.
pub fn turns(order: Order<'_>, linked: Linked) -> Result<(), String> {
    let lab = Lab::with_intermediate();
    let mut bench = Bench::new(&lab, order.folder, order.gateways);
    (0..order.repeats).try_for_each(|_| bench.run(linked).map(drop))
}

impl Exchanges {
    fn of(linked: Linked, occasion: Occasion, stretches: &[&Stretch]) -> Option<Self> {
        let last = stretches.last()?;
        let per_second = |time: Duration, stretch: &Stretch| stretch.exchanges as f64 / time.as_secs_f64();
        let wall = stretches.iter().map(|stretch| per_second(stretch.wall, stretch)).collect();
        let cpu: Option<Vec<f64>> =
            stretches.iter().map(|stretch| Some(per_second(stretch.cpu?, stretch))).collect();
        let commits = last.commits as f64 * 1000.0 / last.exchanges as f64;
        Some(Self { linked, occasion, wall: Sample::of(wall), cpu: cpu.map(Sample::of), commits })
    }
}

impl Primitives {
    fn of(provider: &'static str, rates: &[[f64; 3]]) -> Self {
        let [sign, verify, agree] =
            [0, 1, 2].map(|at| Sample::of(rates.iter().map(|rate| rate[at]).collect()));
        let seconds = 1.0 / sign.median + 1.0 / verify.median + 1.0 / agree.median;
        Self { provider, sign, verify, agree, allows: 1.0 / seconds }
    }
}

/// Signatures, verifications, and key generations with an ECDH, per second.
fn rates<P: Provider>() -> Result<[f64; 3], KeyError> {
    let scalar = Scalar::random()?;
    let (key, public) = (P::signing_key(&scalar)?, scalar.public());
    let digests: Vec<Digest> = (0..16_u8).map(|number| hash::of_bytes(&[number])).collect();
    let signatures = digests.iter().map(|digest| P::sign(&key, digest)).collect::<Result<Vec<_>, _>>()?;
    let sign = rate(|turn| P::sign(&key, &digests[turn % 16]).is_ok());
    let verify = rate(|turn| P::verifies(&public, &digests[turn % 16], &signatures[turn % 16]));
    let agree = rate(|_| P::ephemeral().and_then(|(own, _)| P::agree(&own, &public)).is_ok());
    Ok([sign, verify, agree])
}

/// How often this can be done in a second of CPU time, which is what `openssl speed` counts too; by the clock, where the
/// system does not tell it.
fn rate(mut operation: impl FnMut(usize) -> bool) -> f64 {
    let (before, begun, mut turns) = (cpu::thread(), Instant::now(), 0);
    while begun.elapsed() < LONG_ENOUGH {
        for _ in 0..64 {
            assert!(operation(turns), "an operation that is measured failed");
            turns += 1;
        }
    }
    let elapsed = begun.elapsed();
    let spent = cpu::thread().zip(before).map(|(after, before)| after.saturating_sub(before));
    turns as f64 / spent.filter(|spent| !spent.is_zero()).unwrap_or(elapsed).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gateway_of_a_small_bench_is_agreed_with_twice() {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::with_intermediate();
        let found = Bench::new(&lab, folder.path(), 300).run(Linked::Native).unwrap();
        let counts =
            found.iter().map(|(occasion, stretch)| (*occasion, stretch.exchanges)).collect::<Vec<_>>();
        assert_eq!(counts, [(Occasion::First, 300), (Occasion::Again, 300)]);
        assert!(found[0].1.commits >= 2, "the subscriptions of two batches are durable");
        assert_eq!(found[1].1.commits, 0, "nothing is new the second time");
    }
}
