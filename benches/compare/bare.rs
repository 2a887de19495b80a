//! The limit: one process that does nothing but write() the same bytes to as many sockets.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::feed::{Feed, Schedule};
use crate::publish::now_micros;
use crate::wire::Over;

/// What the bench tells the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) listen: SocketAddr,
    pub(crate) over: Over,
    pub(crate) readers: usize,
    pub(crate) events_per_second: f64,
    /// Events that go into one write.
    pub(crate) messages_per_write: usize,
    /// By send() instead of write(): the kernel's shorter way.
    pub(crate) send: bool,
}

/// A reader's socket, and how it is written to. (The standard library writes to sockets by send(), to files by write().)
enum Out {
    Write(File),
    Send(TcpStream),
}

impl Out {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Write(file) => file.write_all(bytes),
            Self::Send(socket) => socket.write_all(bytes),
        }
    }
}

/// Accepts the readers, and writes to them until it is killed or nobody is left.
pub(crate) fn run(order: Order) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    let listener = TcpListener::bind(order.listen).map_err(text)?;
    let mut sockets = Vec::with_capacity(order.readers);
    while sockets.len() < order.readers {
        let (socket, _) = listener.accept().map_err(text)?;
        match greet(socket, order.over) {
            Ok(socket) if order.send => sockets.push(Out::Send(socket)),
            Ok(socket) => sockets.push(Out::Write(File::from(OwnedFd::from(socket)))),
            // The bench looks whether it is there.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    let feed = Feed::quotes(1, order.events_per_second);
    let mut schedule = Schedule::new(feed, now_micros());
    let (mut seq, mut pending, mut out) = (1_000u64, 0, Vec::new());
    while !sockets.is_empty() {
        let now = now_micros();
        while pending < order.messages_per_write
            && let Some(event) = schedule.take(now)
        {
            pending += 1;
            seq += 1;
            let mut json = Vec::new();
            event.json(&feed, seq, now, &mut json);
            frame(order.over, seq, &json, &mut out);
        }
        if pending < order.messages_per_write {
            let wait = (schedule.next_due() - now_micros()).clamp(0, 50_000);
            std::thread::sleep(Duration::from_micros(wait as u64));
            continue;
        }
        sockets.retain_mut(|socket| socket.write_all(&out).is_ok());
        pending = 0;
        out.clear();
    }
    Ok(())
}

/// Reads the request's head and accepts it.
fn greet(mut socket: TcpStream, over: Over) -> std::io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let (mut head, mut buffer) = (Vec::new(), [0; 1024]);
    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
        match socket.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => head.extend_from_slice(&buffer[..n]),
        }
    }
    let status = if over == Over::Ws { "101 Switching Protocols" } else { "200 OK" };
    socket.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes())?;
    Ok(socket)
}

fn frame(over: Over, seq: u64, json: &[u8], out: &mut Vec<u8>) {
    if over == Over::Ws {
        out.extend_from_slice(&[0x81, 126]);
        out.extend_from_slice(&(json.len() as u16).to_be_bytes());
        out.extend_from_slice(json);
    } else {
        out.extend_from_slice(format!("id: k3f9abcd-{seq}\ndata: ").as_bytes());
        out.extend_from_slice(json);
        out.extend_from_slice(b"\n\n");
    }
}
