//! The admin listener: `/livez`, `/readyz`, `/metrics`. Not for readers, and not for the open Internet.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;

use crate::drain::Drain;
use crate::health::{ComponentState, Health};
use crate::telemetry::Metrics;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("port {} is in use ({what}): stop the other program, or choose another with --{what}", addr.port())]
    InUse {
        /// The address.
        addr: SocketAddr,
        /// What was to listen, which is also the flag that moves it.
        what: String,
    },
    /// Anything else.
    #[error("cannot listen on {addr} ({what}, set by --{what}): {why}")]
    Other {
        /// The address.
        addr: SocketAddr,
        /// What was to listen, which is also the flag that moves it.
        what: String,
        /// The operating system's reason.
        why: std::io::Error,
    },
}

impl BindError {
    /// The error for `what` (the listener's name, and its flag without dashes) at `addr`.
    pub fn new(addr: SocketAddr, what: &str, why: std::io::Error) -> Self {
        let what = what.to_owned();
        match why.kind() {
            std::io::ErrorKind::AddrInUse => BindError::InUse { addr, what },
            _ => BindError::Other { addr, what, why },
        }
    }
}

/// Listens on `addr` for `what`: the listener's name, and its flag without dashes (`admin`).
pub async fn bind(addr: SocketAddr, what: &str) -> Result<TcpListener, BindError> {
    TcpListener::bind(addr).await.map_err(|why| BindError::new(addr, what, why))
}

#[derive(Clone)]
struct Admin {
    health: Health,
    metrics: Metrics,
    drain: Drain,
}

/// The three paths, for whoever serves them elsewhere.
pub fn router(health: Health, metrics: Metrics, drain: Drain) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .with_state(Admin { health, metrics, drain })
}

/// Serves the three paths until the future is dropped: also while draining, so that whoever asks hears of it.
pub async fn serve(listener: TcpListener, health: Health, metrics: Metrics, drain: Drain) -> std::io::Result<()> {
    axum::serve(listener, router(health, metrics, drain)).await
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let mut readiness = admin.health.readiness();
    if admin.drain.is_started() {
        // A draining process answers what it has begun, and must get nothing new.
        let waiting = Some(format!("its end ({})", admin.drain.reason().unwrap_or("draining")));
        readiness.components.push(ComponentState { name: "drain".to_owned(), ready: false, waiting });
        readiness.ready = false;
    }
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(readiness))
}

async fn show_metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("open");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answers");
        text
    }

    #[tokio::test]
    async fn readiness_and_metrics_are_shown() {
        let (health, drain) = (Health::new(), Drain::new());
        let metrics = crate::telemetry::metrics().expect("installs");
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "admin").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let server = tokio::spawn(serve(listener, health.clone(), metrics, drain.clone()));
        let component = health.component("publish");
        component.set_waiting("the fanout");
        assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200"));
        let text = get(addr, "/readyz").await;
        assert!(text.starts_with("HTTP/1.1 503") && text.contains(r#""waiting":"the fanout""#), "{text}");
        component.set_ready();
        let text = get(addr, "/readyz").await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains(r#"{"name":"publish","ready":true}"#), "{text}");
        assert!(get(addr, "/metrics").await.contains("process_resident_memory_bytes"));
        drain.start("SIGTERM");
        let text = get(addr, "/readyz").await;
        assert!(text.starts_with("HTTP/1.1 503") && text.contains("SIGTERM"), "{text}");
        assert!(get(addr, "/nothing").await.starts_with("HTTP/1.1 404"));
        server.abort();
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_way_out() {
        let taken = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "admin").await.expect("a free port");
        let addr = taken.local_addr().expect("bound");
        let error = bind(addr, "admin").await.expect_err("taken").to_string();
        let expected =
            format!("port {} is in use (admin): stop the other program, or choose another with --admin", addr.port());
        assert_eq!(error, expected);
    }
}
