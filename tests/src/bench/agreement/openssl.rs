//! The yardstick.

use std::process::Command;

use serde::Serialize;

/// What `openssl speed` says of P-256 on one core, per second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpenSsl {
    /// Its version.
    pub version: String,
    /// ECDSA signatures.
    pub sign: f64,
    /// ECDSA verifications.
    pub verify: f64,
    /// ECDH derivations, without the making of a key.
    pub derive: f64,
    /// Exchanges, the broker's side: two signatures (one of them for the making of a key), a verification, a derivation.
    pub allows: f64,
}

impl OpenSsl {
    /// Runs `openssl speed` for three seconds.
    ///
    /// # Errors
    /// Why there is no figure: OpenSSL is not installed, or says something else than expected.
    pub fn measure() -> Result<Self, String> {
        let run = Command::new("openssl").args(["speed", "-seconds", "1", "ecdsap256", "ecdhp256"]).output();
        let run = run.map_err(|error| format!("openssl cannot be run (is it installed?): {error}"))?;
        let said = String::from_utf8_lossy(&run.stdout);
        Self::read(&said)
            .ok_or_else(|| format!("openssl speed says nothing of ecdsap256 and ecdhp256: {said}"))
    }

    /// The median of each figure, of at least one measurement.
    pub(super) fn median(all: &[Self]) -> Self {
        let median = |of: fn(&Self) -> f64| super::Sample::of(all.iter().map(of).collect()).median;
        let version = all[0].version.clone();
        Self::of(version, median(|one| one.sign), median(|one| one.verify), median(|one| one.derive))
    }

    fn read(said: &str) -> Option<Self> {
        let numbers = |name: &str| {
            let line = said.lines().find(|line| line.contains(name))?;
            let (_, after) = line.split_once(')')?;
            // Seconds for one end with `s`; what is left is per second.
            Some(after.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).collect::<Vec<_>>())
        };
        let version = said.lines().find_map(|line| line.strip_prefix("version: ")).unwrap_or("unknown");
        let [sign, verify] = numbers("ecdsa (nistp256)")?.try_into().ok()?;
        let [derive] = numbers("ecdh (nistp256)")?.try_into().ok()?;
        Some(Self::of(version.to_owned(), sign, verify, derive))
    }

    fn of(version: String, sign: f64, verify: f64, derive: f64) -> Self {
        let allows = 1.0 / (2.0 / sign + 1.0 / verify + 1.0 / derive);
        Self { version, sign, verify, derive, allows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_table_is_read() {
        let said = "version: 3.0.19\n                              sign    verify    sign/s verify/s\n \
                    256 bits ecdsa (nistp256)   0.0000s   0.0001s  40000.0  10000.0\n                              op      op/s\n \
                    256 bits ecdh (nistp256)   0.0000s  20000.0\n";
        let read = OpenSsl::read(said).unwrap();
        assert_eq!((read.version.as_str(), read.sign, read.verify), ("3.0.19", 40_000.0, 10_000.0));
        assert_eq!((read.derive, read.allows.round()), (20_000.0, 5_000.0));
        assert_eq!(OpenSsl::read("speed: Unknown algorithm ecdsap256"), None);
    }
}
