//! Exit codes: the one table of them, and how an error comes to have one. An error is [`Code::Failed`] unless it
//! carries [`BadInput`] somewhere in its chain. Usage errors never get here: clap ends the process with 2.

use std::process::ExitCode;

/// The table as `--help` prints it; docs/cli.md has the same.
pub const HELP: &str = "\
Exit codes:
  0  done; for `run` and `echo`: stopped by a signal after draining
  1  failed while running (a port in use, the API server unreachable at start, …)
  2  the command line is wrong
  3  an input file can't be read, parsed or validated";

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// All done.
    Done,
    /// Failed while running.
    Failed,
    /// The user's files are at fault.
    BadInput,
}

impl Code {
    /// The code for an error that ended a subcommand.
    pub fn of(error: &anyhow::Error) -> Self {
        if error.is::<BadInput>() { Self::BadInput } else { Self::Failed }
    }

    fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::BadInput => 3,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

/// Input files that can't be used, all their errors together, one a line.
#[derive(Debug)]
pub struct BadInput(pub Vec<String>);

impl std::fmt::Display for BadInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let errors = if self.0.len() == 1 { "error" } else { "errors" };
        write!(f, "{} {errors} in the input files", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for BadInput {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn files_at_fault_are_told_apart() {
        let bad: Result<(), _> = Err(BadInput(vec!["routes.yaml:3: unknown kind".into()]));
        let error = bad.context("translate").expect_err("it is one");
        assert_eq!(Code::of(&error), Code::BadInput);
        assert_eq!(Code::of(&anyhow::anyhow!("port in use")), Code::Failed);
    }

    #[test]
    fn help_lists_every_code() {
        for code in [Code::Done, Code::Failed, Code::BadInput] {
            assert!(HELP.contains(&format!("\n  {}  ", code.number())), "{code:?}");
        }
    }
}
