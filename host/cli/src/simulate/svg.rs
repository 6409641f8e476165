//! What a simulation showed, as a picture to keep: stacked areas over time, waves marked. It stands by itself, and can be
//! read on a light and on a dark page.

use std::fmt::Write as _;

use trireme_core::rollout::Counts;

use super::engine::{Outcome, Sample, Setup};
use super::report::{span, verdict};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 48.0;
const TOP: f64 = 72.0;
const BOTTOM: f64 = 72.0;
/// Points of each area.
const POINTS: usize = 480;
/// Name and colour of each area, from the bottom up.
const AREAS: [(&str, &str); 4] =
    [("confirmed", "#2a9d5c"), ("failed", "#d1382f"), ("silent", "#8a6fc1"), ("waiting", "#d9a028")];

/// The picture.
#[must_use]
pub fn svg(setup: &Setup, outcome: &Outcome) -> String {
    let samples = thin(&outcome.samples);
    // Of a rollout that halted early there would be nothing to see, if this were all sensors.
    let (whole, all) = (outcome.admitted(), outcome.counts().sensors);
    let end = outcome.took_ms.max(1);
    let x = |ms: u64| LEFT + (WIDTH - LEFT - RIGHT) * ratio(ms, end);
    let y = |count: u64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ratio(count, whole);
    let mut text = String::new();
    let title = format!("{} {}: {}", setup.model, setup.version, verdict(outcome));
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\">\n<title>{0}</title>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#fbfaf7\"/>\n\
         <text x=\"{LEFT}\" y=\"30\" font-size=\"15\" font-weight=\"600\" fill=\"#222\">{0}</text>",
        escaped(&cut(&title))
    );
    legend(&mut text);
    for percent in [0, 25, 50, 75, 100] {
        let level = y(whole * percent / 100);
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{level:.1}\" y2=\"{level:.1}\" stroke=\"#ddd8cc\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{percent}%</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            level + 4.0
        );
    }
    areas(&mut text, &samples, x, y);
    for (number, began) in outcome.rollout.began.iter().enumerate() {
        let at = x(began.saturating_sub(setup.start_ms));
        let _ = writeln!(
            text,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\" stroke=\"#222\" stroke-dasharray=\"3 4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#222\" font-size=\"11\">{}</text>",
            HEIGHT - BOTTOM,
            at + 4.0,
            TOP + 12.0 + 13.0 * (number % 4) as f64,
            number + 1
        );
    }
    for step in 0..=6_u64 {
        let at = x(end * step / 6);
        let _ = writeln!(
            text,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            HEIGHT - BOTTOM + 20.0,
            span(end * step / 6)
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">time since the beginning; dashed: a wave begins; \
         100% is {whole} of {all} sensors</text>\n</svg>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 24.0
    );
    text
}

fn legend(text: &mut String) {
    for (position, (name, colour)) in AREAS.iter().enumerate() {
        let x = LEFT + 110.0 * position as f64;
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"44\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"55\" fill=\"#222\">{name}</text>",
            x + 18.0
        );
    }
}

/// Each as a polygon: forth along its top, back along its bottom.
fn areas(text: &mut String, samples: &[Sample], x: impl Fn(u64) -> f64, y: impl Fn(u64) -> f64) {
    let tops = |counts: &Counts| {
        let failed = counts.confirmed + counts.failed;
        let silent = failed + counts.silent;
        [0, counts.confirmed, failed, silent, counts.admitted.max(silent)]
    };
    for (position, (_, colour)) in AREAS.iter().enumerate() {
        let edge = |sample: &Sample, edge: usize| {
            let count = tops(&sample.counts).get(edge).copied().unwrap_or(0);
            format!("{:.1},{:.1}", x(sample.at_ms), y(count))
        };
        let top = samples.iter().map(|sample| edge(sample, position + 1));
        let bottom = samples.iter().rev().map(|sample| edge(sample, position));
        let points: Vec<String> = top.chain(bottom).collect();
        let _ = writeln!(text, "<polygon points=\"{}\" fill=\"{colour}\"/>", points.join(" "));
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// At most so many as a picture can show.
fn thin(samples: &[Sample]) -> Vec<Sample> {
    let step = samples.len().div_ceil(POINTS).max(1);
    let mut thinned: Vec<Sample> = samples.iter().step_by(step).copied().collect();
    thinned.extend(samples.last().copied());
    thinned
}

fn cut(text: &str) -> String {
    if text.chars().count() <= 110 { text.into() } else { text.chars().take(109).chain(['…']).collect() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
