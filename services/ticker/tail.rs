//! `ticker tail`: prints live events.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use ticker_client::market::Data;
use ticker_client::proto::{Message, Notice, Part, frame::Form, frame::encode_notice, json};
use ticker_client::{Applied, Board, Options, Over, Resume, Step, Subscription, Trust};

use crate::cli::{Tail, Transport};
use crate::output::{Lines, Paint};

/// The first and the longest wait before another attempt to connect.
const RESUME: Resume = Resume::Backoff { first_ms: 250, max_ms: 10_000 };

/// Exit code when the service broke a promise (`--verify`).
const VIOLATION: u8 = 3;

pub(crate) async fn run(args: Tail) -> anyhow::Result<ExitCode> {
    let over = match args.over {
        Transport::Ws => Over::Ws,
        Transport::WsProto => Over::WsProtobuf,
        Transport::Sse => Over::Sse,
        Transport::Ndjson => Over::Ndjson,
        Transport::Poll => Over::Poll,
        Transport::Grpc => Over::Grpc,
        Transport::GrpcSession => Over::GrpcSession,
        Transport::H3 => Over::H3,
        Transport::Wt => Over::WebTransport,
        Transport::Quic => Over::Quic,
        Transport::Rtc => Over::Rtc,
    };
    let has_datagrams = matches!(over, Over::WebTransport | Over::Quic | Over::Rtc);
    anyhow::ensure!(
        has_datagrams || args.delivery.as_deref() != Some("datagram"),
        "--delivery datagram needs datagrams: use --over wt, quic or rtc"
    );
    let options = Options {
        over,
        http: args.url.clone(),
        grpc: args.grpc.clone(),
        quic: args.quic.clone(),
        trust: trust(&args)?,
        token: args.token.clone(),
        resume: if args.no_resume { Resume::Never } else { RESUME },
        ..Options::default()
    };
    let subscription = Subscription {
        topics: args.topics.clone(),
        from: args.from.clone(),
        recent: args.recent,
        max_rate: args.max_rate,
        max_kbps: args.max_kbps,
        fields: (!args.fields.is_empty()).then(|| args.fields.clone()),
        conflate: args.no_conflate.then_some(false),
        delivery: args.delivery.clone().filter(|way| way == "datagram"),
        ..Subscription::default()
    };
    let mut reader = ticker_client::connect(options, subscription).await?;
    let mut printer = Printer::new(&args);
    let mut left = args.count.unwrap_or(u64::MAX);
    let code = loop {
        if left == 0 {
            break ExitCode::SUCCESS;
        }
        let step = tokio::select! {
            step = reader.step() => step?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot listen for Ctrl-C")?;
                break ExitCode::SUCCESS;
            }
        };
        let printed = match step {
            None => break ExitCode::SUCCESS,
            Some(step) => printer.step(step),
        };
        match printed {
            Ok(Printed::Event) => left -= 1,
            Ok(Printed::Other) => {}
            Ok(Printed::Violation) => break ExitCode::from(VIOLATION),
            // Whoever read our output has gone, as `head` does: that is a good end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error).context("cannot write the output"),
        }
    };
    if let Some(cursor) = reader.cursor()
        && io::stderr().is_terminal()
    {
        printer.note(&format!("to go on from here: --from {cursor}"));
    }
    Ok(code)
}

/// Whose certificates are good, as the flags say.
fn trust(args: &Tail) -> anyhow::Result<Trust> {
    if let Some(hash) = &args.certificate_hash {
        return Ok(Trust::from_hash(hash)?);
    }
    let Some(path) = &args.ca else { return Ok(Trust::Public) };
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Trust::from_pem(&text).with_context(|| path.display().to_string())
}

enum Printed {
    Event,
    Other,
    Violation,
}

struct Printer {
    lines: Lines<BufWriter<io::Stdout>>,
    raw: BufWriter<io::Stdout>,
    notes: Paint,
    board: Board,
    json: bool,
    notices: bool,
    verify: bool,
}

impl Printer {
    fn new(args: &Tail) -> Self {
        Self {
            lines: Lines::new(BufWriter::new(io::stdout()), Paint::of(&io::stdout())),
            raw: BufWriter::new(io::stdout()),
            notes: Paint::of(&io::stderr()),
            board: Board::new(),
            json: args.json,
            notices: args.notices,
            verify: args.verify,
        }
    }

    fn step(&mut self, step: Step) -> io::Result<Printed> {
        match step {
            Step::Message(Message::Event(part)) => self.event(*part),
            Step::Message(Message::Notice(notice)) => self.notice(notice),
            Step::Lost { error, retry } => {
                self.note(&format!("{error}; trying again in {:.1} s", retry.as_secs_f64()));
                Ok(Printed::Other)
            }
            Step::Resumed => {
                self.board.joining();
                self.note("connected again");
                Ok(Printed::Other)
            }
        }
    }

    fn event(&mut self, part: Part) -> io::Result<Printed> {
        let whole = part.part == part.parts;
        let applied = if self.verify || !self.json && matches!(part.event.data, Data::Book(_)) {
            // The board takes the message as it is; a clone of the small ones costs nothing against printing them.
            match self.board.apply(&Message::Event(Box::new(part.clone()))) {
                Ok(applied) => Some(applied),
                Err(violation) if self.verify => {
                    self.note(&format!("a promise was broken: {violation}"));
                    return Ok(Printed::Violation);
                }
                Err(_) => {
                    self.board = Board::new();
                    None
                }
            }
        } else {
            None
        };
        if self.json {
            match &part.raw {
                Some(raw) => self.raw.write_all(raw.as_bytes())?,
                None => self.raw.write_all(&as_json(&part))?,
            }
            self.raw.write_all(b"\n")?;
            self.raw.flush()?;
        } else if whole {
            let event = match &applied {
                Some(Applied::Event(event)) => event,
                _ => &part.event,
            };
            self.lines.event(event, self.board.book(&event.topic))?;
            self.lines.flush()?;
        }
        Ok(if whole { Printed::Event } else { Printed::Other })
    }

    fn notice(&mut self, notice: Notice) -> io::Result<Printed> {
        if let Err(violation) = self.board.apply(&Message::Notice(notice.clone()))
            && self.verify
        {
            self.note(&format!("a promise was broken: {violation}"));
            return Ok(Printed::Violation);
        }
        if self.notices {
            self.raw.write_all(&encode_notice(Form::Ndjson, &notice))?;
            self.raw.flush()?;
        }
        match notice {
            Notice::Gap { topic, reason } => {
                let of = topic.unwrap_or_else(|| "all topics".to_owned());
                let text = format!("events of {of} are missing here: {reason}");
                if self.json {
                    self.note(&text);
                } else {
                    self.lines.remark(&text)?;
                    self.lines.flush()?;
                }
            }
            Notice::Error { code, message, .. } => self.note(&format!("{message} ({code})")),
            Notice::Goodbye { reason, .. } => self.note(&format!("the server goes away: {reason}")),
            Notice::Subscribed { cursor, .. } if io::stderr().is_terminal() => {
                self.note(&format!("subscribed, cursor {cursor}"));
            }
            _ => {}
        }
        Ok(Printed::Other)
    }

    /// Beside the data, on stderr.
    fn note(&self, text: &str) {
        // If even stderr is gone there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{}", self.notes.dim(&format!("-- {text}")));
    }
}

/// The event as JSON, for transports that carry Protobuf.
fn as_json(part: &Part) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let number = (part.parts > 0).then_some((part.part, part.parts));
    json::write_event(&mut out, &part.event, ticker_client::proto::Fields::ALL, number, None);
    out
}
