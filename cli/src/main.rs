//! The `headgate` binary: reads the command line and calls one subcommand, each in a file of its own. Turns what a
//! subcommand returns into an exit code ([`exit::Code`]) and an error chain on stderr. Holds no logic of the gateway.

mod api_server;
mod crds;
mod echo;
mod exit;
mod limits;
mod log;
mod memory;
mod run;
mod stop;
mod translate;
mod version;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// jemalloc: the allocator of the thread-per-core data plane (arenas per thread, memory given back after a peak), and
/// the reason that a static binary with musl-like allocators isn't an option.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A Kubernetes ingress controller and gateway operator: Gateway API resources in, routed requests out.
#[derive(Parser)]
#[command(name = "headgate", version = version::VERSION, propagate_version = true, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve: watch Gateway API resources (a cluster's, or files') and route traffic by them.
    Run(Box<run::Args>),
    /// Print the routing model and statuses that files lead to. Binds nothing, asks no cluster.
    Translate(translate::Args),
    /// Print the definitions of Headgate's own resources, as YAML for `kubectl apply -f -`.
    Crds,
    /// Serve a small echo backend for demos and tests: answers with JSON of what it received.
    Echo(echo::Args),
    /// Print the version of this binary and of the Gateway API it implements.
    Version,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(*args),
        Command::Translate(args) => translate::run(&args),
        Command::Crds => crds::run(),
        Command::Echo(args) => echo::run(args),
        Command::Version => version::run(),
    };
    match done {
        Ok(()) => exit::Code::Done.into(),
        Err(error) => {
            eprintln!("headgate: {error:#}");
            exit::Code::of(&error).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every flag has its variable, so that a Deployment can be configured either way.
    #[test]
    fn every_flag_has_a_variable() {
        for command in Cli::command().get_subcommands() {
            for flag in command.get_arguments().filter(|flag| flag.get_long().is_some()) {
                let long = flag.get_long().expect("filtered on it");
                if matches!(long, "help" | "version") {
                    continue;
                }
                let variable = format!("HEADGATE_{}", long.to_uppercase().replace('-', "_"));
                let found = flag.get_env().and_then(|name| name.to_str());
                assert_eq!(found, Some(variable.as_str()), "--{long} of {}", command.get_name());
            }
        }
    }
}
