//! `trireme-year [seed]`: a year in the simulator, told day by day. Ends with 1 when anything did not hold.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to people on their terminal")]

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let seed = match std::env::args().nth(1).map(|text| text.parse()) {
        None => 1,
        Some(Ok(seed)) => seed,
        Some(Err(_)) => {
            eprintln!("usage: trireme-year [seed], a whole number");
            return ExitCode::FAILURE;
        }
    };
    let began = Instant::now();
    let summary = trireme_sim::year::run(seed, &mut |line| println!("{line}"));
    println!("\n{summary}, in {:.1} s", began.elapsed().as_secs_f32());
    if std::env::var_os("SIM_TRACE").is_some() {
        summary.trace.iter().for_each(|line| println!("{line}"));
        summary.renewed.iter().for_each(|(who, at, until)| {
            println!("renewed: {who} on day {}, until {until}", at / 86_400_000 + 1);
        });
        summary.faults.iter().for_each(|line| println!("fault: {line}"));
    }
    if summary.good() {
        return ExitCode::SUCCESS;
    }
    for why in &summary.broken {
        eprintln!("error: {why}");
    }
    ExitCode::FAILURE
}
