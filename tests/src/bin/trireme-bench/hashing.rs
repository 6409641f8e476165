//! How fast one core hashes: what verifying at both ends cannot beat.

use std::process::Command;
use std::time::Instant;

use trireme_crypto::hash::Sha256Stream;
use trireme_tests::bench::measure::Sample;
use trireme_tests::bench::report::{Goal, Row};
use trireme_tests::lab::image;

use crate::{Bench, say};

const PIECE: usize = 16 * 1024;

pub(crate) fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    say("hashing: SHA-256 on one core");
    let piece = image(PIECE, 1);
    let mut rates = Vec::new();
    for _ in 0..bench.repeat {
        let (begun, mut hash, mut bytes) = (Instant::now(), Sha256Stream::new(), 0_u64);
        while begun.elapsed().as_millis() < 500 {
            (0..64).for_each(|_| hash.update(&piece));
            bytes += 64 * PIECE as u64;
        }
        std::hint::black_box(hash.finish());
        rates.push(bytes as f64 / begun.elapsed().as_secs_f64() / 1e6);
    }
    let openssl = (0..bench.repeat).map(|_| openssl()).collect::<Result<Vec<f64>, String>>()?;
    Ok(vec![Row {
        name: "hashing/sha256".into(),
        what: "SHA-256 over pieces of 16 KiB on one core, as gateways and brokers hash images".into(),
        unit: "MB/s".into(),
        ours: Sample::of(rates),
        yardstick: Some(("openssl speed".into(), Sample::of(openssl))),
        goal: Goal::More,
    }])
}

fn openssl() -> Result<f64, String> {
    let size = PIECE.to_string();
    let arguments = ["speed", "-mr", "-seconds", "1", "-bytes", &size, "-evp", "sha256"];
    let output = Command::new("openssl").args(arguments).output();
    let output = output.map_err(|error| format!("openssl (Debian: openssl): {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("+F:"));
    let rate = line.and_then(|line| line.rsplit(':').next()?.parse::<f64>().ok());
    rate.map(|rate| rate / 1e6).ok_or_else(|| format!("openssl speed said {text:?}"))
}
