//! The server's loop: accepts connections, bounds what each may cost, stops gracefully.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::long::LongAnswers;
use crate::settings::Listen;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// The kernel's queue of connections that are not yet accepted.
const BACKLOG: i32 = 1024;
/// How long a request's headers may take, and how long a connection may idle between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most of a request that is buffered, in bytes: request line and headers.
const HEADER_CAP: usize = 64 * 1024;
/// How long requests that are being answered may still take when the process stops.
const GRACE: Duration = Duration::from_secs(10);
/// A connection that is older is closed after its current answer, so that a client that never reads
/// cannot keep its seat.
const MAX_AGE: Duration = Duration::from_secs(600);
/// How long that current answer may take: longer than any route's own deadline. Long answers say so
/// themselves, see [`LongAnswers`].
const LONGEST_ANSWER: Duration = Duration::from_secs(150);
/// The pause after `accept` failed, for want of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the API's address cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address}: {source}; set PROCESSGIT_UPDATER_LISTEN to a free address")]
    Address { address: String, source: io::Error },
    #[error("cannot listen on {}: another process answers there already", .0.display())]
    Answered(PathBuf),
    #[error("cannot listen on {}: it exists and is no socket; remove it or name another path", .0.display())]
    NoSocket(PathBuf),
}

/// A bound address. Dropping it removes the socket's file.
pub struct Listener {
    kind: Kind,
    /// As a client would write it: `127.0.0.1:9000`, `unix:/path`.
    address: String,
    _file: Option<SocketFile>,
}

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds `listen`. Must be called within a tokio runtime; blocks no longer than a few system calls.
    ///
    /// # Errors
    /// The address is taken or not ours, or the path holds something else than a stale socket.
    pub fn bind(listen: &Listen) -> Result<Self, BindError> {
        match listen {
            Listen::Tcp(address) => {
                bind_tcp(*address).map_err(|source| BindError::Address { address: address.to_string(), source })
            }
            Listen::Unix(path) => bind_unix(path),
        }
    }

    /// Where clients reach it; the port is the real one where 0 was asked for.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// `[::]` serves both families. Where the machine has no IPv6 it means all of IPv4.
fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let bound = match bind_stream(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() => {
            // The first error is the telling one: the port may simply be taken.
            bind_stream((Ipv4Addr::UNSPECIFIED, address.port()).into()).map_err(|_| error)
        }
        bound => bound,
    }?;
    let listener = TcpListener::from_std(bound.into())?;
    let address = listener.local_addr()?.to_string();
    Ok(Listener { kind: Kind::Tcp(listener), address, _file: None })
}

fn bind_stream(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind_unix(path: &Path) -> Result<Listener, BindError> {
    remove_stale(path)?;
    let address = format!("unix:{}", path.display());
    let bind = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Before `listen` nobody can connect, so nobody slips in before the mode is right.
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        socket.listen(BACKLOG)?;
        let inode = fs::metadata(path)?.ino();
        Ok((UnixListener::from_std(socket.into())?, SocketFile { path: path.to_owned(), inode }))
    };
    match bind() {
        Ok((listener, file)) => Ok(Listener { kind: Kind::Unix(listener), address, _file: Some(file) }),
        Err(source) => Err(BindError::Address { address, source }),
    }
}

/// Removes the socket that a killed process left behind, and nothing else.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let fault = |source| BindError::Address { address: format!("unix:{}", path.display()), source };
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(fault)?,
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NoSocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(fault),
        Err(error) => Err(fault(error)),
        Ok(_) => Err(BindError::Answered(path.to_owned())),
    }
}

/// The file of a Unix socket; removed in the end if it is still the one that was made.
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Answers with `router` until `shutdown`; then no connection is accepted any more, and requests that are
/// being answered have 10 s to end.
pub async fn serve(listener: Listener, router: Router, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener.kind, &seats, &router, &shutdown, &connections) => accepted,
        };
        if let Err(error) = accepted {
            tracing::warn!("a connection to {} cannot be accepted: {error}", listener.address);
            sleep(ACCEPT_PAUSE).await;
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Takes the next connection, once there is a seat for it.
async fn accept(
    listener: &Kind,
    seats: &Arc<Semaphore>,
    router: &Router,
    shutdown: &CancellationToken,
    connections: &TaskTracker,
) -> io::Result<()> {
    let seat = seats.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (router, shutdown) = (router.clone(), shutdown.clone());
    match listener {
        Kind::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // Answers are small and complete: waiting for more to send only costs time.
            let _ = stream.set_nodelay(true);
            connections.spawn(async move {
                connection(stream, router, shutdown).await;
                drop(seat);
            });
        }
        Kind::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            connections.spawn(async move {
                connection(stream, router, shutdown).await;
                drop(seat);
            });
        }
    }
    Ok(())
}

/// Answers one connection's requests until it ends, is too old, or the process stops.
async fn connection<S>(stream: S, router: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let long = LongAnswers::default();
    let marked = long.clone();
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(marked.clone());
        request
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_CAP)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut served = pin!(served);
    // How a connection ends is the client's business: it hangs up, or was too slow. Nothing to report.
    tokio::select! {
        _ = served.as_mut() => return,
        () = shutdown.cancelled() => {}
        () = sleep(MAX_AGE) => {}
    }
    served.as_mut().graceful_shutdown();
    tokio::select! {
        _ = served => {}
        () = async { long.none().await; sleep(LONGEST_ANSWER).await } => {}
        () = async { shutdown.cancelled().await; sleep(GRACE).await } => {}
    }
}
