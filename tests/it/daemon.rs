//! Runs of the shipped binary: started with a test's settings, watched through its log and its endpoints, ended.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::eventually::{PATIENCE, eventually};
use crate::stack::{free_port, path_text};

/// The path of the binary under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_alluvium");

/// A run of the program, to be started.
pub struct Daemon {
    name: String,
    log: PathBuf,
    admin: SocketAddr,
    command: Command,
}

impl Daemon {
    /// `alluvium COMMAND --config SETTINGS`, with its output in `log` and endpoints on a free port.
    pub fn new(name: &str, command: &str, settings: &Path, log: PathBuf) -> Self {
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        // Writing a file beyond a limit gives an error instead of a signal, as on a full disk; the limit is set by
        // the tests that want it. The log goes through a pipe, which has no such limit.
        let mut shell = Command::new("bash");
        shell
            .args(["-c", "trap '' XFSZ; exec \"$@\"", "alluvium", PROGRAM, command, "--config"])
            .arg(settings)
            .env("ALLUVIUM__ADMIN__LISTEN", admin.to_string())
            .env("RUST_BACKTRACE", "1");
        Self { name: name.to_owned(), log, admin, command: shell }
    }

    /// Adds an argument.
    pub fn argument(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    /// Sets an environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end, with standard output and standard error apart.
    pub fn output(mut self) -> Output {
        let output =
            self.command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{PROGRAM}: {error}"));
        Output {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let log = File::create(&self.log).unwrap();
        let child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{PROGRAM}: {error}"));
        Running::new(self.name, self.log, &log, self.admin, child)
    }
}

/// What a command printed.
#[derive(Debug)]
pub struct Output {
    /// Exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as JSON, of a command that has to succeed.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:#?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A run of the program. Killed when dropped; its log is shown when the test is failing.
pub struct Running {
    name: String,
    log: PathBuf,
    admin: SocketAddr,
    child: Child,
    client: reqwest::Client,
}

impl Running {
    fn new(name: String, log: PathBuf, file: &File, admin: SocketAddr, mut child: Child) -> Self {
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for mut stream in streams.into_iter().flatten() {
            let mut file = file.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut stream, &mut file));
        }
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        Self { name, log, admin, child, client }
    }

    /// Everything that it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its endpoints are.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        // It may have ended by itself; its exit code tells.
        let _ = kill_process(pid, signal);
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// SIGTERM, and the exit code 0 that has to follow within the shutdown deadline of 8 s.
    pub async fn stop(&mut self) {
        self.terminate();
        self.exits_with(0, Duration::from_secs(20)).await;
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Panics where it has ended: then nothing that a test waits for will come.
    pub fn assert_runs(&self) {
        // Without `wait`, which would need the process for itself: one that has ended is a zombie until then.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        assert!(state.is_some_and(|state| state != 'Z'), "{}: alluvium ended by itself", self.name);
    }

    /// Waits for its end.
    pub async fn ends(&mut self, deadline: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if start.elapsed() > deadline {
                let status = self.get("status").await.map_or_else(|error| error, |(_, text)| text);
                panic!("{}: alluvium still runs after {} s\n{status}", self.name, deadline.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for its end and checks the exit code.
    pub async fn exits_with(&mut self, code: i32, deadline: Duration) {
        let status = self.ends(deadline).await;
        assert_eq!(status.code(), Some(code), "{}: alluvium ended with {status}", self.name);
    }

    /// Asks an endpoint: HTTP status and body.
    pub async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let answer = self.client.get(format!("http://{}/{path}", self.admin)).send().await;
        let answer = answer.map_err(|error| format!("/{path}: {error}"))?;
        let code = answer.status().as_u16();
        answer.text().await.map(|text| (code, text)).map_err(|error| error.to_string())
    }

    /// The body of `/status`.
    pub async fn status(&self) -> Result<Value, String> {
        let (_, text) = self.get("status").await?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// Waits until `/status` says what `condition` looks for.
    pub async fn reports<T>(&self, what: &str, condition: impl Fn(&Value) -> Option<T>) -> T {
        eventually(&format!("/status of {} says: {what}", self.name), PATIENCE, || async {
            self.assert_runs();
            let status = self.status().await?;
            condition(&status).ok_or_else(|| serde_json::to_string_pretty(&status).unwrap_or_default())
        })
        .await
    }

    /// Waits until `/readyz` says that every lane has its partitions and its sink.
    pub async fn ready(&self) {
        eventually(&format!("{} is ready", self.name), PATIENCE, || async {
            self.assert_runs();
            match self.get("readyz").await? {
                (200, _) => Ok(()),
                (code, text) => Err(format!("{code}: {text}")),
            }
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let start = log.char_indices().rev().nth(20_000).map_or(0, |(index, _)| index);
            eprintln!("--- log of {} ({})\n{}", self.name, path_text(&self.log), &log[start..]);
        }
    }
}

/// The lane of that name in the body of `/status`.
pub fn lane<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["lanes"].as_array()?.iter().find(|lane| lane["lane"] == name)
}
