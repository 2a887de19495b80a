//! The server under load: started here and ended by its own handle, or someone else's, known by its pid.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ticks a second of the times in /proc: USER_HZ, 100 on Linux whatever the kernel's own rate.
const TICK_MICROS: u64 = 10_000;

/// A server that this process started. It ends with it.
pub(crate) struct Started {
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
}

impl Started {
    /// Starts `ticker up` with a synthetic market on free ports.
    pub(crate) fn up(binary: &str, synthetic: &str) -> Result<Self, String> {
        let (http, grpc, admin) = (free_port()?, free_port()?, free_port()?);
        let mut command = Command::new(binary);
        command.args(["up", "--synthetic", synthetic, "--listen", &http.to_string()]);
        command.args(["--grpc", &grpc.to_string(), "--admin", &admin.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().map_err(|e| format!("cannot start {binary}: {e}"))?;
        let mut started = Self { child, http, grpc };
        let until = Instant::now() + PATIENCE;
        while get(http, "/v1/instruments").is_err() {
            if let Ok(Some(status)) = started.child.try_wait() {
                return Err(format!("{binary} ended: {status}"));
            }
            if Instant::now() > until {
                return Err(format!("{binary} does not answer on {http}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(started)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        end(&mut self.child, PATIENCE);
    }
}

/// Asks a process of ours to end, and ends it if it has not within `patience`.
pub(crate) fn end(child: &mut Child, patience: Duration) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let asked = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
    let until = Instant::now() + patience;
    while asked == Some(Ok(())) && Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn free_port() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    listener.local_addr().map_err(|e| e.to_string())
}

/// The body of a GET, if its status is 200.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Result<String, String> {
    let text = |e: std::io::Error| format!("{addr}: {e}");
    let mut socket = TcpStream::connect_timeout(&addr, Duration::from_secs(2)).map_err(text)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    // HTTP/1.0 has no chunks: the body is what comes until the end.
    write!(socket, "GET {path} HTTP/1.0\r\nhost: {addr}\r\nconnection: close\r\n\r\n").map_err(text)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map_err(text)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => Err(format!("{addr}{path}: {}", answer.lines().next().unwrap_or("no answer"))),
    }
}

/// The topics of those channels, of every instrument that the server knows.
pub(crate) fn topics(addr: SocketAddr, channels: &[String]) -> Result<Vec<String>, String> {
    let body = get(addr, "/v1/instruments")?;
    let value: serde_json::Value = serde_json::from_str(&body).map_err(|e| format!("/v1/instruments: {e}"))?;
    let instruments = value["instruments"].as_array().ok_or("/v1/instruments has no list of instruments")?;
    let name = |i: &serde_json::Value, key: &str| i[key].as_str().map(str::to_owned);
    let of = |i| Some(format!("{}/{}", name(i, "venue")?, name(i, "symbol")?));
    let mut topics = Vec::new();
    for instrument in instruments.iter().filter_map(of) {
        topics.extend(channels.iter().map(|channel| format!("{channel}/{instrument}")));
    }
    Ok(topics)
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_micros: u64,
    pub(crate) resident_kib: u64,
}

impl Usage {
    /// Of that process; `self` for this one.
    pub(crate) fn of(pid: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name, in brackets, and may hold spaces: count from behind it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        let resident_kib = resident.split_whitespace().next()?.parse().ok()?;
        Some(Self { cpu_micros: ticks * TICK_MICROS, resident_kib })
    }
}
