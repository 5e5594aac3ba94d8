//! Programs that end with us, whatever ends us, and what `/proc` says of them.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long an orderly end may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines of its log that an error shows.
const LINES: usize = 12;

/// A running program. Ends when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Resident memory.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Memory {
    /// All of it, in MB of 1,000,000 bytes.
    pub rss_mb: f64,
    /// The same, what other processes have as well divided by those who have it.
    pub pss_mb: f64,
    /// What isn't the binary: heap and stacks.
    pub anonymous_mb: f64,
}

impl Process {
    /// Starts a program with nothing of our environment but what is given; its log goes to a file in `folder`.
    ///
    /// By way of `setpriv`, so that the kernel kills it when this process is gone: a signal that nobody can catch leaves
    /// nothing behind either.
    pub fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(&str, &Path)],
        folder: &Path,
    ) -> Result<Self> {
        let name = program.file_name().context("a program without a name")?.to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context("open a log")?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name} (by setpriv, Debian package util-linux)"))?;
        Ok(Self { name, child, log })
    }

    /// Its id: `setpriv` becomes the program.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log, once it has ended.
    pub fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{} ended ({ended:?}):\n{}", self.name, self.last_lines());
        Ok(())
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
    }

    /// Polls until something is true, and fails when it isn't in time, or when the program has ended.
    pub fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        pause: Duration,
        mut found: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = found() {
                return Ok(found);
            }
            self.check()?;
            ensure!(Instant::now() < end, "{what} takes more than {limit:?}:\n{}", self.last_lines());
            std::thread::sleep(pause);
        }
    }

    /// Ends it without a goodbye.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// CPU time that it has used so far, all threads that are alive.
    pub fn cpu(&self) -> Result<Duration> {
        let folder = format!("/proc/{}/task", self.id());
        let mut total = Duration::ZERO;
        for thread in fs::read_dir(&folder).context(folder)?.flatten() {
            total += used(&thread.path()).unwrap_or_default();
        }
        Ok(total)
    }

    /// CPU time of its first thread.
    pub fn first_thread_cpu(&self) -> Result<Duration> {
        used(Path::new(&format!("/proc/{0}/task/{0}", self.id())))
    }

    /// Its memory.
    pub fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/smaps_rollup", self.id());
        let text = fs::read_to_string(&path).context(path)?;
        let mb = |field: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(field)).context("smaps_rollup")?;
            let kib: f64 = line.split_whitespace().next().context("smaps_rollup")?.parse()?;
            Ok(kib * 1024.0 / 1e6)
        };
        Ok(Memory { rss_mb: mb("Rss:")?, pss_mb: mb("Pss:")?, anonymous_mb: mb("Anonymous:")? })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // It may have ended by itself meanwhile.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn used(thread: &Path) -> Result<Duration> {
    let text = fs::read_to_string(thread.join("schedstat")).context("schedstat")?;
    Ok(Duration::from_nanos(text.split_whitespace().next().context("no CPU time")?.parse()?))
}
