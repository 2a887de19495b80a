//! What a shard does with its readers' sockets: heads, requests, writes, ends.

use std::cmp::Reverse;

use mio::event::Event;
use ticker_proto::message::{Request, Subscribe};
use ticker_proto::{Code, Form};
use ticker_session::catalogue::Refusal;
use ticker_session::{Closing, Mode, Opening, SessionId};

use crate::conn::{Conn, Stage};
use crate::http1::{self, Asked};
use crate::params::Params;
use crate::poll::Asker;
use crate::shard::{CLOSING_MILLIS_MAX, Handover, Owner, READS_PER_PASS, Shard, Timer};
use crate::websocket::{self, Decoder, FrameError, Incoming};

impl Shard {
    pub(crate) fn on_event(&mut self, key: u32, event: &Event) {
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(key);
        }
        if event.is_writable()
            && let Some(conn) = self.conns.get_mut(key as usize)
            && conn.blocked
        {
            match conn.write_rest() {
                Ok(true) => self.unblocked(key),
                Ok(false) => {}
                Err(_) => self.drop_conn(key),
            }
        }
    }

    /// The socket took all that was left over, and takes more.
    fn unblocked(&mut self, key: u32) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        conn.blocked = false;
        if let Some(session) = conn.session {
            self.hub.writable(session);
        } else if matches!(conn.stage, Stage::Closing) {
            let _ = conn.stream.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Reads what has come, up to so much that a reader who sends without end holds up nobody.
    pub(crate) fn read(&mut self, key: u32) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for turn in 0.. {
            let Some(conn) = self.conns.get_mut(key as usize) else { break };
            if turn == READS_PER_PASS {
                // Edges are told once: the rest is not forgotten.
                self.unread.push((key, conn.generation));
                break;
            }
            match conn.read(&mut scratch) {
                Ok(None) => break,
                Ok(Some(0)) | Err(_) => {
                    self.drop_conn(key);
                    break;
                }
                Ok(Some(n)) => {
                    self.on_bytes(key, &scratch[..n]);
                }
            }
        }
        self.scratch = scratch;
    }

    /// Goes on with those who had more to say than their turn allowed.
    pub(crate) fn read_on(&mut self) {
        for (key, generation) in std::mem::take(&mut self.unread) {
            if self.conns.get(key as usize).is_some_and(|conn| conn.generation == generation) {
                self.read(key);
            }
        }
    }

    /// Bytes that were read before their turn.
    pub(crate) fn again(&mut self, key: u32, bytes: Vec<u8>) {
        if self.conns.contains(key as usize) {
            self.on_bytes(key, &bytes);
        }
    }

    fn on_bytes(&mut self, key: u32, bytes: &[u8]) {
        let conn = &mut self.conns[key as usize];
        match &mut conn.stage {
            Stage::Head => {
                conn.head.extend_from_slice(bytes);
                self.on_head(key);
            }
            Stage::Poll(_) => {
                conn.head.extend_from_slice(bytes);
                if conn.head.len() > http1::HEAD_BYTES_MAX {
                    self.drop_conn(key);
                }
            }
            Stage::WebSocket { deaf: true, .. } => {}
            Stage::WebSocket { decoder, .. } => {
                let mut decoder = std::mem::take(decoder);
                let mut incoming = Vec::new();
                let result = decoder.feed(bytes, |i| {
                    incoming.push(i);
                    true
                });
                for message in incoming {
                    self.on_message(key, message);
                }
                match self.conns.get_mut(key as usize).map(|c| &mut c.stage) {
                    Some(Stage::WebSocket { decoder: place, .. }) => *place = decoder,
                    _ => return,
                }
                if let Err(error) = result {
                    self.on_frame_error(key, error);
                }
            }
            Stage::Stream | Stage::Closing => {}
        }
    }

    /// A head has grown: is it whole?
    fn on_head(&mut self, key: u32) {
        let conn = &mut self.conns[key as usize];
        let Some((asked, length)) = http1::parse(&conn.head) else {
            if conn.head.len() > http1::HEAD_BYTES_MAX {
                self.counts.refused += 1;
                let why = format!("the head of a request has at most {} bytes", http1::HEAD_BYTES_MAX);
                self.finish(key, http1::problem(&Refusal::new(Code::MessageTooLarge, why)));
            }
            return;
        };
        if matches!(asked, Asked::Other) {
            return self.hand_over(key);
        }
        conn.head.drain(..length);
        if conn.head.is_empty() {
            conn.head = Vec::new();
        }
        if self.is_draining() {
            let refusal = Refusal::new(Code::Draining, "the edge is going away; another one will serve you");
            return self.finish(key, http1::problem(&refusal));
        }
        match asked {
            Asked::WebSocket { accept, protocol, protobuf, deflate, params } => {
                let deflate = deflate.filter(|_| self.deflate);
                let head = http1::switching(&accept, protocol, deflate);
                self.start_websocket(key, head, protobuf, deflate.is_some(), params);
            }
            Asked::Stream { ndjson, params } => self.start_stream(key, ndjson, params),
            Asked::Poll { params, keep_alive } => {
                let asker = Asker::Conn { key, keep_alive };
                self.start_poll(asker, params.subscribe, std::time::Duration::from_secs(params.wait_seconds));
            }
            Asked::Refused(refusal) => {
                self.counts.refused += 1;
                self.finish(key, http1::problem(&refusal));
            }
            Asked::Other => {}
        }
    }

    /// Opens a session that begins with one subscription; where that cannot be, nothing is left of it.
    pub(crate) fn open_session(
        &mut self,
        opening: Opening,
        subscribe: Option<Subscribe>,
    ) -> Result<SessionId, Refusal> {
        let id = self.hub.open(opening, self.now)?;
        if let Some(subscribe) = subscribe
            && let Err(refusal) = self.hub.request(id, Request::Subscribe(subscribe), self.now)
        {
            self.hub.close(id);
            return Err(refusal);
        }
        Ok(id)
    }

    fn start_stream(&mut self, key: u32, ndjson: bool, params: Params) {
        let form = if ndjson { Form::Ndjson } else { Form::Sse };
        let opening = Opening { form, mode: Mode::Stream };
        match self.open_session(opening, Some(params.subscribe)) {
            Ok(id) => self.start(key, id, Stage::Stream, http1::streaming(ndjson)),
            Err(refusal) => {
                self.counts.refused += 1;
                self.finish(key, http1::problem(&refusal));
            }
        }
    }

    fn start_websocket(&mut self, key: u32, head: Vec<u8>, protobuf: bool, deflate: bool, params: Option<Params>) {
        let form = match (protobuf, deflate) {
            (false, false) => Form::WebSocketJson,
            (true, false) => Form::WebSocketProtobuf,
            (false, true) => Form::WebSocketJsonDeflate,
            (true, true) => Form::WebSocketProtobufDeflate,
        };
        let opening = Opening { form, mode: Mode::Stream };
        match self.open_session(opening, params.map(|p| p.subscribe)) {
            Ok(id) => {
                let stage = Stage::WebSocket { decoder: Decoder::new(deflate), protobuf, deaf: false };
                self.start(key, id, stage, head);
                // A reader need not wait for the answer before it sends its first message.
                if let Some(conn) = self.conns.get_mut(key as usize) {
                    let early = std::mem::take(&mut conn.head);
                    self.again(key, early);
                }
            }
            Err(refusal) => {
                self.counts.refused += 1;
                self.finish(key, http1::problem(&refusal));
            }
        }
    }

    fn start(&mut self, key: u32, id: SessionId, stage: Stage, head: Vec<u8>) {
        self.own(id, Owner::Conn(key));
        let conn = &mut self.conns[key as usize];
        conn.session = Some(id);
        conn.stage = stage;
        if conn.append(head).is_err() {
            self.drop_conn(key);
        }
    }

    fn on_message(&mut self, key: u32, message: Incoming) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        let (Some(id), Stage::WebSocket { protobuf, .. }) = (conn.session, &conn.stage) else { return };
        let request = match message {
            Incoming::Text(text) => Request::from_json(&text),
            Incoming::Binary(bytes) if *protobuf => Request::from_protobuf(&bytes),
            Incoming::Binary(_) => {
                let why = "a binary message; this session's are JSON text (offer the subprotocol ticker.v1.proto for protobuf)";
                return self.hub.refuse(id, None, Refusal::new(Code::BadRequest, why));
            }
            Incoming::Ping(payload) => {
                let mut pong = Vec::with_capacity(payload.len() + 2);
                ticker_proto::frame::websocket_frame(&mut pong, 0xa, &payload);
                // A reader who pings without reading is not owed more pongs than fit.
                if conn.is_flushed() && conn.append(pong).is_err() {
                    self.drop_conn(key);
                }
                return;
            }
            Incoming::Pong => return,
            Incoming::Close(code) => {
                let code = code.filter(|c| (1000..5000).contains(c)).unwrap_or(1000);
                return self.finish(key, websocket::close_frame(code, ""));
            }
        };
        match request {
            Ok(request) => {
                let name = request.id();
                if let Err(refusal) = self.hub.request(id, request, self.now) {
                    self.counts.refused += 1;
                    self.hub.refuse(id, Some(name), refusal);
                }
            }
            Err(error) => {
                self.counts.refused += 1;
                self.hub.refuse(id, None, Refusal::new(Code::BadRequest, error.to_string()));
            }
        }
    }

    fn on_frame_error(&mut self, key: u32, error: FrameError) {
        self.counts.refused += 1;
        match (error, self.conns[key as usize].session) {
            (FrameError::TooLarge, Some(id)) => {
                if let Stage::WebSocket { deaf, .. } = &mut self.conns[key as usize].stage {
                    *deaf = true;
                }
                let message = format!("{error}: send smaller requests");
                self.hub.end(id, ticker_session::Ending { code: Code::MessageTooLarge, message });
            }
            _ => self.finish(key, websocket::close_frame(1002, &error.to_string())),
        }
    }

    /// The last words are on their way: the transport's own end follows them.
    pub(crate) fn close_session(&mut self, key: u32, closing: &Closing) {
        if closing.ending.code == Code::SlowConsumer {
            self.counts.slow += 1;
        }
        let last = match self.conns[key as usize].stage {
            Stage::WebSocket { .. } => {
                // The reason carries the cursor, for a reader who sees only that.
                let reason = format!("{} {}", closing.ending.code, closing.cursor);
                websocket::close_frame(closing.ending.code.websocket_close(), &reason)
            }
            _ => Vec::new(),
        };
        self.finish(key, last);
    }

    /// Says the last of a connection, and waits a moment for the reader to go: closing at once could take our words back.
    pub(crate) fn finish(&mut self, key: u32, last: Vec<u8>) {
        if let Some(id) = self.conns.get_mut(key as usize).and_then(|c| c.session.take()) {
            self.disown(id);
        }
        let deadline = self.now.plus_millis(CLOSING_MILLIS_MAX);
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        conn.stage = Stage::Closing;
        self.timers.push(Reverse((deadline, Timer::Conn(key, conn.generation))));
        match conn.append(last) {
            Ok(true) => drop(conn.stream.shutdown(std::net::Shutdown::Write)),
            Ok(false) => {}
            Err(_) => self.drop_conn(key),
        }
    }

    pub(crate) fn conn_timer(&mut self, key: u32, generation: u32) {
        let over = self
            .conns
            .get(key as usize)
            .is_some_and(|c| c.generation == generation && matches!(c.stage, Stage::Head | Stage::Closing));
        if over {
            self.drop_conn(key);
        }
    }

    pub(crate) fn drop_conn(&mut self, key: u32) {
        let Some(mut conn) = self.conns.try_remove(key as usize) else { return };
        if let Some(id) = conn.session {
            self.disown(id);
        }
        if let Stage::Poll(poll) = conn.stage {
            let poll = self.polls.remove(poll as usize);
            self.disown(poll.session);
        }
        self.deregister(&mut conn.stream);
    }

    /// Not a shard's business: the HTTP library goes on with the connection.
    fn hand_over(&mut self, key: u32) {
        let Some(mut conn) = self.conns.try_remove(key as usize) else { return };
        self.deregister(&mut conn.stream);
        let Conn { stream, head, .. } = conn;
        let handover = Handover { stream: stream.into(), head };
        if self.http.try_send(handover).is_err() {
            // Its queue is full: the connection closes, and the client tries again.
            metrics::counter!("ticker_edge_handovers_refused_total").increment(1);
        }
    }
}
