//! Connections passed on, byte by byte.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::http::runtime;

/// Passes what comes to `from` on to a port of this machine, until the process ends.
pub(crate) fn start(from: (Ipv4Addr, u16), port: u16) {
    let listener = runtime().block_on(TcpListener::bind(SocketAddr::from(from)));
    let listener = listener.unwrap_or_else(|e| panic!("{from:?} cannot be listened on: {e}"));
    runtime().spawn(async move {
        while let Ok((mut incoming, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut outgoing) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                    let _ = copy_bidirectional(&mut incoming, &mut outgoing).await;
                }
            });
        }
    });
}
