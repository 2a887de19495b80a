//! Processes that the bench starts, each ended by its own pid; what they use; the machine.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The core of the measured server, and that of everything else.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const LOAD_CORE: usize = 1;

/// A process that this one started. It ends with it.
pub(crate) struct Started {
    name: String,
    child: Child,
    _stdin: Option<ChildStdin>,
}

impl Started {
    /// Starts a program on that core. What it says goes to the log file.
    pub(crate) fn new(program: &str, args: &[String], core: usize, log: &std::path::Path) -> Result<Self, String> {
        let out = std::fs::File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        let err = out.try_clone().map_err(|e| e.to_string())?;
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]);
        // If the bench itself is killed, its servers are told to end.
        command.args(["setpriv", "--pdeathsig", "TERM", "--", program]).args(args);
        command.stdin(Stdio::piped()).stdout(out).stderr(err);
        let mut child = command.spawn().map_err(|e| format!("cannot start {program}: {e}"))?;
        let name = program.rsplit('/').next().unwrap_or(program).to_owned();
        Ok(Self { name, _stdin: child.stdin.take(), child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the address accepts connections.
    pub(crate) fn wait_listening(&mut self, addr: SocketAddr) -> Result<(), String> {
        self.wait_until("does not listen", || TcpStream::connect(addr).is_ok())
    }

    /// Waits until it is `done`, but not for ever.
    pub(crate) fn wait_until(&mut self, what: &str, mut done: impl FnMut() -> bool) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended: {status}", self.name));
            }
            if done() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("{} {what}", self.name));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Of the process and its children.
    pub(crate) fn usage(&self) -> Usage {
        let mut all = Usage::default();
        for pid in std::iter::once(self.pid()).chain(children(self.pid())) {
            let one = Usage::of(pid);
            all.cpu_micros += one.cpu_micros;
            all.resident_kib += one.resident_kib;
        }
        all
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        crate::server::end(&mut self.child, Duration::from_secs(8));
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|p| p.parse().ok()).collect()
}

/// What a process has used so far.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_micros: u64,
    pub(crate) resident_kib: u64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        // /proc/PID/stat counts in ticks of 10 ms; schedstat of each thread in nanoseconds, system time included.
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let cpu: u64 = tasks.filter_map(|task| schedstat(&task.path().join("schedstat"))).sum();
        let memory = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let resident = memory.lines().find_map(|l| l.strip_prefix("Rss:")?.split_whitespace().next()?.parse().ok());
        Self { cpu_micros: cpu, resident_kib: resident.unwrap_or(0) }
    }
}

fn schedstat(path: &std::path::Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.split_whitespace().next()?.parse::<u64>().ok()? / 1_000)
}

/// CPU of the calling thread so far.
pub(crate) fn thread_cpu_micros() -> u64 {
    schedstat("/proc/thread-self/schedstat".as_ref()).unwrap_or(0)
}

/// Held while this bench measures: two at once would measure each other. Waits a while for another one to end.
pub(crate) fn alone() -> Result<UnixListener, String> {
    let name = std::os::unix::net::SocketAddr::from_abstract_name("ticker-bench-compare").map_err(|e| e.to_string())?;
    let until = Instant::now() + Duration::from_secs(900);
    loop {
        match UnixListener::bind_addr(&name) {
            Ok(held) => return Ok(held),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < until => {
                say("another comparison runs: waiting for its end");
                std::thread::sleep(Duration::from_secs(5));
            }
            Err(e) => return Err(format!("another comparison runs: {e}")),
        }
    }
}

/// Puts this process, which must still have one thread, on the core of the load.
pub(crate) fn pin_self() -> Result<(), String> {
    let pid = std::process::id().to_string();
    run("taskset", &["-pc", &LOAD_CORE.to_string(), &pid]).map(drop)
}

/// Where the kernel keeps the weight of a whole session: with it on, priorities count only within one.
const AUTOGROUP: &str = "/proc/self/autogroup";

/// What else runs on the machine comes second, where that is allowed, until this is dropped.
pub(crate) struct Priority;

impl Priority {
    pub(crate) fn raise() -> Self {
        let _ = rustix::process::setpriority_process(None, -10);
        let _ = std::fs::write(AUTOGROUP, "-10");
        Self
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        let _ = std::fs::write(AUTOGROUP, "0");
    }
}

/// Runs a program to its end, and gives what it said.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("cannot run {program}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        // nginx -v speaks on standard error.
        Ok(text(&output.stdout) + &text(&output.stderr))
    } else {
        Err(format!("{program} failed: {}", text(&output.stderr).lines().last().unwrap_or_default()))
    }
}

pub(crate) fn free_port() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    listener.local_addr().map_err(|e| e.to_string())
}

/// Cores, model and kernel: nothing that names the machine.
pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown", |m| m.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count().max(cores);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    let kernel = run("uname", &["-r"]).unwrap_or_default();
    // Only the version: what follows it may name a build host.
    let kernel = kernel.trim().split('-').next().unwrap_or_default().to_owned();
    format!("{cores} cores of {model}, {} GiB, Linux {kernel}", kib.unwrap_or(0) / 1_048_576)
}

/// CPU that the whole machine has used, in microseconds.
pub(crate) fn machine_cpu_micros() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|i| fields.get(*i)).sum::<u64>();
    busy * 10_000
}

/// CPU of this process so far.
pub(crate) fn own_cpu_micros() -> u64 {
    Usage::of(std::process::id()).cpu_micros
}

/// The last lines of a log, for an error.
pub(crate) fn tail(path: &std::path::Path) -> String {
    let Ok(file) = std::fs::File::open(path) else { return String::new() };
    let lines: Vec<String> = BufReader::new(file).lines().map_while(Result::ok).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

/// Says how it goes.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
