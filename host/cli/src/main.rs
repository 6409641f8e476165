//! The `trireme` binary.

fn main() -> std::process::ExitCode {
    trireme::commands::main()
}
