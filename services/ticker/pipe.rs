//! Connections in memory: the services of `ticker up` speak the same gRPC as over the network, without the network.

use std::io;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Bytes that one direction of a pipe holds: then whoever writes waits, as with a socket.
const PIPE_BYTES: usize = 1 << 20;

/// Connections that wait to be accepted. Ingest and edge make one each; a few more after a failure.
const ACCEPT_MAX: usize = 16;

/// HTTP/2 flow control, as the services ask for it over the network.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The connecting side. Clones lead to the same listener.
#[derive(Clone)]
pub(crate) struct Connector {
    accept: mpsc::Sender<io::Result<DuplexStream>>,
}

/// A listener in memory, and how to connect to it.
pub(crate) fn listen() -> (Connector, ReceiverStream<io::Result<DuplexStream>>) {
    let (accept, incoming) = mpsc::channel(ACCEPT_MAX);
    (Connector { accept }, ReceiverStream::new(incoming))
}

impl Connector {
    /// A channel that connects when it is needed, and again when the connection breaks.
    pub(crate) fn channel(&self) -> Channel {
        let accept = self.accept.clone();
        let connect = move |_| {
            let accept = accept.clone();
            async move {
                let (near, far) = tokio::io::duplex(PIPE_BYTES);
                let gone = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
                accept.send(Ok(far)).await.map_err(gone)?;
                Ok::<_, io::Error>(TokioIo::new(near))
            }
        };
        // The address is never looked up: it only names the server in errors.
        Endpoint::from_static("http://fanout.in.memory")
            .initial_stream_window_size(Some(STREAM_WINDOW_BYTES))
            .initial_connection_window_size(Some(CONNECTION_WINDOW_BYTES))
            .connect_with_connector_lazy(service_fn(connect))
    }
}
