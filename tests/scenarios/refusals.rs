//! What a reader can do wrong, and how each transport says so.

use ticker_client::{Over, Subscription};
use ticker_market::Kind;
use ticker_proto::message::Ping;
use ticker_proto::{Code, Notice, Request};

use crate::raw;
use crate::rig::{Setup, Stage, bounded, of};
use crate::screen::Screen;
use crate::transport::{At, Transport, code_of, refused};

const QUOTE: &str = "quote/alpha/A-USD";

/// Requests that cannot be done, each with its code and a message that helps.
pub(crate) async fn refused_requests(transport: &'static Transport) {
    let stage = Stage::start(transport).await;
    let good = || of(&[QUOTE]);
    let cases: Vec<(Subscription, Code, &str)> = vec![
        (of(&["quote/alpha/A-USX"]), Code::UnknownTopic, "did you mean A-USD?"),
        (of(&["quote/alfa/A-USD"]), Code::UnknownTopic, "did you mean alpha?"),
        (of(&[QUOTE, "trade/alpha/NONE"]), Code::UnknownTopic, "NONE"),
        (of(&["quote/alpha"]), Code::BadRequest, "quote/alpha"),
        (of(&["colour/alpha/A-USD"]), Code::BadRequest, "colour"),
        (of(&["deriv/alpha/A-USD"]), Code::NotImplemented, "deriv"),
        (of(&["deriv/alpha/*"]), Code::NotImplemented, "deriv"),
        (of(&[]), Code::BadRequest, "no topics"),
        (Subscription { from: Some("nonsense".into()), ..good() }, Code::BadRequest, "nonsense"),
        (Subscription { from: Some("first-".into()), ..good() }, Code::BadRequest, "first-"),
        (Subscription { fields: Some(vec!["colour".into()]), ..good() }, Code::BadRequest, "`colour`"),
        (Subscription { max_rate: Some(-1.0), ..good() }, Code::BadRequest, "max_rate is -1"),
        (Subscription { max_kbps: Some(0.5), ..good() }, Code::BadRequest, "max_kbps is 0.5"),
    ];
    for (subscription, code, says) in cases {
        refused(&stage, subscription, code, says).await;
    }
    stage.stop().await;
}

/// More topics than a session may have, named or by patterns.
pub(crate) async fn too_many_topics(transport: &'static Transport) {
    let mut setup = Setup::default();
    setup.edge.session_topics_max = 3;
    setup.fanout.session_topics_max = 3;
    let stage = Stage::with(transport, setup).await;
    let three = [QUOTE, "trade/alpha/A-USD", "status/alpha/A-USD"];
    let four = [&three[..], &["quote/alpha/B-USD"]].concat();
    refused(&stage, of(&four), Code::TooManyTopics, "at most 3").await;
    refused(&stage, of(&["*/alpha/*"]), Code::TooManyTopics, "at most 3").await;
    let screen = stage.watch(&three).await;
    drop(screen);
    stage.stop().await;
    let stage = Stage::start(transport).await;
    let patterns: Vec<String> = (0..65).map(|i| format!("quote/*/S{i}")).collect();
    let patterns = Subscription { topics: patterns, ..Subscription::default() };
    refused(&stage, patterns, Code::TooManyTopics, "64 patterns").await;
    stage.stop().await;
}

/// One session more than there may be; when one ends there is room again.
pub(crate) async fn too_many_sessions(transport: &'static Transport) {
    let mut setup = Setup::default();
    setup.edge.sessions_max = 1;
    setup.fanout.sessions_max = 1;
    let mut stage = Stage::with(transport, setup).await;
    let over = match transport.at {
        At::Edge => Over::Ws,
        At::Fanout => Over::GrpcSession,
    };
    let options = ticker_client::Options { over, ..stage.options() };
    let mut first = Screen::open(options, of(&[QUOTE])).await;
    let quote = stage.source.quote();
    stage.source.put(QUOTE, Kind::Update, quote).await;
    first.catch_up(&stage.source.record, &[QUOTE]).await;
    let error = match bounded("an answer", ticker_client::connect(stage.options(), of(&[QUOTE]))).await {
        Err(error) => error,
        Ok(mut reader) => bounded("an answer", reader.next()).await.expect_err("there is no room"),
    };
    assert_eq!(code_of(&error).0, Some(Code::TooManySessions), "{error}");
    if matches!(transport.over, Over::Ws | Over::WsProtobuf) && !transport.secure {
        let (status, body) = raw::handshake(&stage.url(), transport.over, "").await.expect_err("there is no room");
        assert_eq!(status, Code::TooManySessions.http_status());
        assert!(body.contains("too_many_sessions"), "{body}");
    }
    drop(first);
    let again = async {
        loop {
            let opened = ticker_client::connect(stage.options(), of(&[QUOTE])).await;
            if let Ok(mut reader) = opened
                && reader.next().await.is_ok()
            {
                return;
            }
        }
    };
    bounded("there is room again", again).await;
    stage.stop().await;
}

/// More requests in a second than are allowed: the rest is refused, and the session goes on.
pub(crate) async fn rate_limited(transport: &'static Transport) {
    const REQUESTS: usize = 150;
    let mut stage = Stage::start(transport).await;
    let mut screen = stage.watch(&[QUOTE]).await;
    let (answers, refusals) = (
        |s: &Screen| s.notices.iter().filter(|n| matches!(n, Notice::Pong { .. })).count(),
        |s: &Screen| {
            let is_it = |n: &&Notice| matches!(n, Notice::Error { code, .. } if code == "rate_limited");
            s.notices.iter().filter(is_it).count()
        },
    );
    for id in 0..REQUESTS {
        screen.send(Request::Ping(Ping { id: 10 + id as u64 })).await;
    }
    screen.until("every request is answered", |s| answers(s) + refusals(s) == REQUESTS).await;
    assert!(answers(&screen) >= 99 && refusals(&screen) >= 1, "{} were answered", answers(&screen));
    let quote = stage.source.quote();
    stage.source.put(QUOTE, Kind::Update, quote).await;
    screen.catch_up(&stage.source.record, &[QUOTE]).await;
    drop(screen);
    stage.stop().await;
}

/// A request beyond the limit ends with `message_too_large`, in the transport's own form.
pub(crate) async fn message_too_large(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let mut bystander = stage.watch(&[QUOTE]).await;
    raw::too_large(transport, &stage.url()).await;
    still_goes_on(&mut stage, &mut bystander).await;
    drop(bystander);
    stage.stop().await;
}

/// Bytes that mean nothing close that reader's connection, or are refused, and nobody else notices.
pub(crate) async fn garbage(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let mut bystander = stage.watch(&[QUOTE]).await;
    for seed in 0..10 {
        raw::noise(&stage.url(), seed).await;
    }
    raw::garbage(transport, &stage.url()).await;
    still_goes_on(&mut stage, &mut bystander).await;
    drop(bystander);
    stage.stop().await;
}

async fn still_goes_on(stage: &mut Stage, bystander: &mut Screen) {
    let quote = stage.source.quote();
    stage.source.put(QUOTE, Kind::Update, quote).await;
    bystander.catch_up(&stage.source.record, &[QUOTE]).await;
}
