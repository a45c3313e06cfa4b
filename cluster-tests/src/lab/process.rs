//! One real process: started, listened to, asked to stop, killed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::until::{SOON, until, until_some};

/// A running process whose output is kept. It dies with this value, and also with the
/// thread that started it, so that nothing outlives a test however that ends. When the
/// test has failed, the end of its output is printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Output>,
    ended: Option<ExitStatus>,
}

/// What a process has said so far.
#[derive(Debug, Default)]
struct Output {
    stdout: Mutex<String>,
    stderr: Mutex<String>,
}

/// What became of a process that ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: String,
    /// Everything it wrote to standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Process {
    /// Starts a command; `name` is what failures call it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn spawn(name: &str, command: &Command) -> Self {
        Self::spawn_with(name, command, Stdio::null())
    }

    /// As [`Self::spawn`], and [`Self::say`] types into it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn converse(name: &str, command: &Command) -> Self {
        Self::spawn_with(name, command, Stdio::piped())
    }

    #[track_caller]
    fn spawn_with(name: &str, command: &Command, input: Stdio) -> Self {
        let mut child = die_with_this_thread(command)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        let output = Arc::new(Output::default());
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let kept = Arc::clone(&output);
        std::thread::spawn(move || keep(stdout, &kept.stdout));
        let kept = Arc::clone(&output);
        std::thread::spawn(move || keep(stderr, &kept.stderr));
        Self {
            name: name.to_owned(),
            input: child.stdin.take(),
            child,
            output,
            ended: None,
        }
    }

    /// Types a line into it. What it does not read any more is lost.
    pub fn say(&mut self, line: &str) {
        if let Some(input) = &mut self.input {
            let _not_heard = writeln!(input, "{line}");
        }
    }

    /// Has nothing more to say to it: its standard input ends.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// Starts the `selvage` command.
    ///
    /// # Panics
    /// When it cannot be built or started.
    #[track_caller]
    pub fn selvage<S: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = S>) -> Self {
        Self::spawn(name, selvage().args(args))
    }

    /// Where the process says that a node of it listens: the line
    /// `listening node=edge-0 what=rtmp addr=127.0.0.1:1935` on its standard output.
    ///
    /// # Panics
    /// When it ends or says nothing of the kind in time.
    #[track_caller]
    pub fn listening(&mut self, node: &str, what: &str) -> SocketAddr {
        let wanted = format!("{} says where {what} of {node} listens", self.name);
        until_some(&wanted, SOON, || {
            let found = find_listener(&self.stdout(), node, what);
            if found.is_none()
                && let Some(status) = self.ended()
            {
                panic!(
                    "{} ended ({status}) before it listened:\n{}",
                    self.name,
                    self.tail()
                );
            }
            found
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.output
            .stdout
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.output
            .stderr
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Sends a signal; one that comes too late is no error.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Ok(id) = i32::try_from(self.child.id())
            && let Some(pid) = Pid::from_raw(id)
        {
            // A child that has not been waited for keeps its id, so this reaches no other.
            let _too_late = kill_process(pid, signal);
        }
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let name = self.name.clone();
        until(&format!("{name} is gone"), SOON, || self.ended().is_some());
    }

    /// SIGTERM: asks it to leave.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: it keeps its connections and does nothing.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it is still there after `patience`.
    #[track_caller]
    pub fn wait(mut self, patience: Duration) -> Finished {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            if started.elapsed() > patience {
                panic!(
                    "{} still runs after {patience:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // The readers let go of the output at its end.
        until(
            &format!("the output of {} has been read", self.name),
            SOON,
            || Arc::strong_count(&self.output) == 1,
        );
        Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
            took: started.elapsed(),
        }
    }

    /// Resident memory in bytes, from the kernel.
    ///
    /// # Panics
    /// When the process has ended.
    #[track_caller]
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kilobytes.expect("the process lives and has memory") * 1024
    }

    /// The last lines of what it said, for a failure's text.
    pub fn tail(&self) -> String {
        let mut text = String::new();
        for (what, said) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            let lines: Vec<&str> = said.lines().collect();
            let from = lines.len().saturating_sub(60);
            if !lines.is_empty() {
                text.push_str(&format!("--- {what} of {} ---\n", self.name));
                text.push_str(&lines[from..].join("\n"));
                text.push('\n');
            }
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _already_gone = self.child.kill();
            self.ended = self.child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("{} ({:?})\n{}", self.name, self.ended, self.tail());
        }
    }
}

impl Finished {
    /// Passes the result on if the process ended with 0.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn well(self, name: &str) -> Self {
        assert!(
            self.status.success(),
            "{name} ended with {}\n--- stdout ---\n{}\n--- stderr ---\n{}",
            self.status,
            last_lines(&self.stdout),
            last_lines(&self.stderr)
        );
        self
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// The `selvage` command of this build, with no configuration from outside.
///
/// # Panics
/// When it cannot be built.
pub fn selvage() -> Command {
    let mut command = Command::new(selvage_path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SELVAGE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Where cargo puts what it builds, found from where this test lies
/// (`target/debug/deps/lab_peers-0123`).
///
/// # Panics
/// When the test lies elsewhere.
pub fn target_dir() -> PathBuf {
    profile_dir()
        .parent()
        .expect("a profile's folder lies in the target folder")
        .to_owned()
}

fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its path");
    let deps = test.parent().expect("a test lies in a folder");
    let profile = if deps.ends_with("deps") {
        deps.parent()
    } else {
        Some(deps)
    };
    profile
        .expect("tests lie in target/<profile>/deps")
        .to_owned()
}

/// The `selvage` binary that belongs to the sources, brought up to date by cargo once
/// per test program. `SELVAGE_BIN` names another one.
fn selvage_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(given) = std::env::var_os("SELVAGE_BIN") {
            return given.into();
        }
        let profile = profile_dir();
        let mut cargo = Command::new(env!("CARGO"));
        // The same selection as the test command's, so that nothing is built twice.
        cargo.args(["build", "--quiet", "--workspace", "--bins"]);
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        // What cargo tells this test about its own package makes some build scripts run
        // again, and everything above them with it.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_CRATE_",
                "CARGO_PRIMARY_",
            ]
            .iter()
            .any(|prefix| text.starts_with(prefix))
            {
                cargo.env_remove(&name);
            }
        }
        cargo.arg("--target-dir").arg(target_dir());
        match profile.file_name().and_then(OsStr::to_str) {
            Some("debug") | None => {}
            Some(name) => {
                cargo.args(["--profile", name]);
            }
        }
        let built = cargo.stdin(Stdio::null()).output().expect("cargo starts");
        assert!(
            built.status.success(),
            "the selvage command does not build:\n{}",
            String::from_utf8_lossy(&built.stderr)
        );
        let path = profile.join("selvage");
        assert!(path.is_file(), "cargo built no {}", path.display());
        path
    })
}

/// The same command, killed by the kernel when the thread that started it ends.
fn die_with_this_thread(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL", "--"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// Keeps what a pipe brings, line by line; bytes that are no text are shown as such.
fn keep(pipe: impl Read, kept: &Mutex<String>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(1..) = pipe.read_until(b'\n', &mut line) {
        kept.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

/// Only whole lines count: the end of the last one may be still under way.
fn find_listener(stdout: &str, node: &str, what: &str) -> Option<SocketAddr> {
    let whole = &stdout[..=stdout.rfind('\n')?];
    whole.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let field = |key: &str| {
            fields
                .iter()
                .find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
        };
        let matches = fields.contains(&"listening")
            && field("node") == Some(node)
            && field("what") == Some(what);
        matches.then(|| field("addr")?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_node_and_kind_and_only_on_a_whole_line() {
        let said = "hello\nlistening node=edge-0 what=rtmp addr=127.0.0.1:40001\n\
                    listening node=edge-0 what=http addr=127.0.0.1:40002\n\
                    listening node=edge-1 what=rtmp addr=127.0.0.1:4";
        assert_eq!(
            find_listener(said, "edge-0", "http"),
            Some(([127, 0, 0, 1], 40002).into())
        );
        assert_eq!(find_listener(said, "edge-1", "rtmp"), None);
    }

    #[test]
    fn a_process_tells_its_output_and_how_it_ended() {
        let finished =
            Process::spawn("sh", Command::new("sh").args(["-c", "echo out; exit 3"])).wait(SOON);
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.stdout, "out\n");
    }

    #[test]
    fn a_killed_process_is_gone() {
        let mut process = Process::spawn("sleep", Command::new("sleep").arg("1000"));
        assert!(process.resident() > 0);
        process.kill();
        assert!(process.ended().is_some_and(|status| !status.success()));
    }
}
