//! Key agreements: what the curve allows, and how much of it a broker reaches.

use trireme_tests::bench::agreement::{Exchanges, Linked, Occasion, Order, measure};
use trireme_tests::bench::measure::Sample;
use trireme_tests::bench::report::{Goal, Row};

use crate::{Bench, say};

pub(crate) fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    say("agreement: signatures, ECDH, whole exchanges of tier 2");
    let gateways = bench.many(1024, 64);
    let figures = measure(Order { folder: bench.folder.path(), gateways, repeats: bench.repeat });
    let openssl = figures.openssl.clone()?;
    if let Some(why) = figures.missing.first() {
        return Err(why.clone());
    }
    let one = |value: f64| Sample::of(vec![value]);
    let beside = |value: f64| Some(("openssl speed".to_owned(), one(value)));
    let mut rows = Vec::new();
    for provider in &figures.providers {
        let row = |operation: &str, ours: Sample, yardstick: f64| Row {
            name: format!("agreement/{}-{operation}", provider.provider),
            what: format!("{operation} on P-256 by {}, on one core", provider.provider),
            unit: "1/s".into(),
            ours,
            yardstick: beside(yardstick),
            goal: Goal::More,
        };
        rows.push(row("sign", provider.sign, openssl.sign));
        rows.push(row("verify", provider.verify, openssl.verify));
        // A key is made as a signature is: by one multiplication of the base point.
        rows.push(row("agree", provider.agree, 1.0 / (1.0 / openssl.sign + 1.0 / openssl.derive)));
    }
    let of = |linked| {
        let found = figures
            .exchanges
            .iter()
            .find(|found| (found.linked, found.occasion) == (linked, Occasion::Again));
        found.ok_or_else(|| format!("no exchange was measured with the role {linked:?}"))
    };
    let ratio = figures.component.as_ref().ok_or("no pair was measured")?;
    let rate = |found: &Exchanges| found.cpu.unwrap_or(found.wall);
    let (native, component) = (rate(of(Linked::Native)?), rate(of(Linked::Component)?));
    rows.push(Row {
        name: "agreement/exchange".into(),
        what: "exchanges of tier 2 in a second of processor time, the broker's side with its role as a component and its \
               store; beside it, what openssl allows for the same operations"
            .into(),
        unit: "1/s".into(),
        ours: component,
        yardstick: beside(openssl.allows),
        goal: Goal::AtLeast(0.6),
    });
    let native = 1e6 / native.median;
    rows.push(Row {
        name: "agreement/component".into(),
        what: "processor time of an exchange with the broker's role as a component; beside it, linked natively. Both take \
               turns: the ratio is the median of all pairs, and the brackets say between what half of them lie"
            .into(),
        unit: "µs".into(),
        ours: ratio.scaled(native),
        yardstick: Some(("native".into(), Sample::of(vec![native]))),
        goal: Goal::AtMost(1.05),
    });
    Ok(rows)
}
