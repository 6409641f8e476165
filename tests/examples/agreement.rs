//! Prints what `trireme_tests::bench::agreement` measures.
//!
//! `cargo run --release --package trireme-tests --example agreement [-- <gateways> <repeats>]`, and
//! `-- idle <native|component> <links>` for the memory of links that wait, or `-- turns <native|component> <gateways>
//! <repeats>` for a profiler.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "it is run by hand")]

use std::path::Path;

use trireme_tests::bench::agreement::{Linked, Order, idle, measure, turns};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, usual| arguments.get(at).map_or(usual, |text: &String| text.parse().unwrap());
    let folder = Path::new("target");
    let component = arguments.get(1).is_some_and(|word| word == "component");
    let linked = if component { Linked::Component } else { Linked::Native };
    match arguments.first().map(String::as_str) {
        Some("idle") => return println!("{:#?}", idle(folder, linked, number(2, 10_000))),
        Some("turns") => {
            let order = Order { folder, gateways: number(2, 1024), repeats: number(3, 10) };
            return turns(order, linked).unwrap();
        }
        _ => {}
    }
    let figures = measure(Order { folder, gateways: number(0, 1024), repeats: number(1, 3) });
    println!("{}", serde_json::to_string_pretty(&figures).unwrap());
}
