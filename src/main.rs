use std::process::ExitCode;

fn main() -> ExitCode {
    processgit_updater::cli::main()
}
