//! What this is measured on.

use std::process::Command;

/// Processor, cores, memory, kernel.
pub(crate) fn name() -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or("unknown").trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory: u64 = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores, {} GiB, Linux {}",
        field("/proc/cpuinfo", "model name"),
        memory.div_ceil(1 << 20),
        kernel.trim()
    )
}

/// Of Trireme and of what it is measured against.
pub(crate) fn versions() -> Vec<String> {
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        let text =
            String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout })
                .into_owned();
        Some(text.lines().next()?.trim().to_owned())
    };
    let mosquitto = first_line("mosquitto", "-h").or_else(|| first_line("/usr/sbin/mosquitto", "-h"));
    let build = if cfg!(debug_assertions) { "development build" } else { "release build" };
    [
        Some(format!("trireme {} ({build})", env!("CARGO_PKG_VERSION"))),
        mosquitto,
        first_line("openssl", "version"),
    ]
    .into_iter()
    .flatten()
    .collect()
}
