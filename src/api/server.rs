//! The server's loop: accepts connections, bounds what each may cost, stops gracefully.
//!
//! Before a client has shown the token it costs a file descriptor and a task, for five seconds at most; who has a
//! seat at all is [`super::seats`]' business.

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
use secrecy::SecretString;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::auth::Token;
use super::head::{Begun, HEAD_CAP, Head, Visitor};
use super::long::LongAnswers;
use super::seats::{Peer, Seat, Seats, Shares, raise_open_files};
use crate::settings::Listen;

/// The kernel's queue of connections that are not yet accepted. It is emptied at once, whoever has a seat; its
/// length matters only for bursts.
const BACKLOG: i32 = 4096;
/// How long the head of the first request may take. The token is in it, so that good clients are told apart from
/// those who only hold a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request waits when all seats for its kind are taken.
const SEAT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests that are being answered may still take when the process stops.
const GRACE: Duration = Duration::from_secs(10);
/// The pause after `accept` failed, for want of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What is said when none becomes free.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 5\r\n\
content-length: 64\r\nconnection: close\r\n\r\n\
{\"error\":\"too many connections are open: try again\",\"code\":503}\n";

/// What a connection may cost.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// A further request may follow the first one.
    keep_alive: bool,
    /// How long a request's head may take, the idle time before it included.
    header_timeout: Duration,
    /// The most of a request that is buffered, in bytes: request line and headers.
    header_cap: usize,
    /// A connection that is older is closed after its current answer, so that a client that never reads cannot
    /// keep its seat.
    max_age: Duration,
    /// How long that current answer may take: longer than any route's own deadline. Long answers say so
    /// themselves, see [`LongAnswers`].
    longest_answer: Duration,
}

/// For clients that know the token.
const KNOWN: Terms = Terms {
    keep_alive: true,
    header_timeout: Duration::from_secs(30),
    header_cap: 64 * 1024,
    max_age: Duration::from_secs(600),
    longest_answer: Duration::from_secs(150),
};
/// For everybody else: one answer, which is small and soon there.
const STRANGER: Terms = Terms {
    keep_alive: false,
    header_timeout: HEAD_TIMEOUT,
    header_cap: HEAD_CAP,
    max_age: Duration::from_secs(5),
    longest_answer: Duration::from_secs(5),
};

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

/// What all connections share.
struct House {
    seats: Seats,
    token: Token,
    router: Router,
    shutdown: CancellationToken,
}

/// Answers with `router` until `shutdown`; then no connection is accepted any more, and requests that are
/// being answered have 10 s to end. Clients that send `token` have seats of their own, see [`super::seats`].
pub async fn serve(listener: Listener, router: Router, token: &SecretString, shutdown: CancellationToken) {
    let seats = Seats::new(Shares::of(raise_open_files()));
    let house = Arc::new(House { seats, token: Token::new(token), router, shutdown: shutdown.clone() });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener.kind, &house.seats.open) => accepted,
        };
        match accepted {
            Ok((stream, peer, open)) => {
                // Before the task is: who comes first has arrived first.
                let seat = house.seats.strangers.take(peer);
                let house = house.clone();
                connections.spawn(async move {
                    attend(stream, seat, &house).await;
                    drop(open);
                });
            }
            Err(error) => {
                tracing::warn!("a connection to {} cannot be accepted: {error}", listener.address);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

type Stream = Either<TcpStream, UnixStream>;

/// Takes the next connection. It waits only for connections that have lost their seat to be closed.
async fn accept(listener: &Kind, open: &Arc<Semaphore>) -> io::Result<(Stream, Peer, OwnedSemaphorePermit)> {
    let open = open.clone().acquire_owned().await.map_err(io::Error::other)?;
    match listener {
        Kind::Tcp(listener) => {
            let (stream, address) = listener.accept().await?;
            // Answers are small and complete: waiting for more to send only costs time.
            let _ = stream.set_nodelay(true);
            Ok((Either::Left(stream), address.into(), open))
        }
        Kind::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::User(stream.peer_cred()?.uid());
            Ok((Either::Right(stream), peer, open))
        }
    }
}

fn socket(stream: &Stream) -> SockRef<'_> {
    match stream {
        Either::Left(tcp) => SockRef::from(tcp),
        Either::Right(unix) => SockRef::from(unix),
    }
}

/// Reads the first request's head and finds the connection its seat. How a connection ends is the client's
/// business: it hangs up, is too slow, or loses its seat. Nothing to report.
async fn attend(mut stream: Stream, seat: Seat, house: &House) {
    let mut head = Head::default();
    let visitor = tokio::select! {
        biased;
        read = timeout(HEAD_TIMEOUT, head.read(&mut stream, &house.token)) => read.ok().and_then(Result::ok).flatten(),
        () = seat.lost() => head.read_what_is_there(&*socket(&stream), &house.token),
        () = house.shutdown.cancelled() => None,
    };
    let Some(visitor) = visitor else { return };
    drop(seat);
    let mut stream = Begun::new(head.bytes, stream);
    let (seats, terms) = match visitor {
        Visitor::Known => (&house.seats.known, KNOWN),
        Visitor::Health => (&house.seats.health, STRANGER),
        Visitor::Stranger => (&house.seats.others, STRANGER),
    };
    match timeout(SEAT_TIMEOUT, seats.acquire()).await {
        // In a box of its own: who is only a stranger shall not cost as much.
        Ok(Ok(_seat)) => Box::pin(converse(stream, house, terms)).await,
        _ => drop(timeout(STRANGER.longest_answer, stream.write_all(FULL)).await),
    }
}

/// Answers one connection's requests until it ends, is too old, or the process stops.
async fn converse(stream: Begun<Stream>, house: &House, terms: Terms) {
    let long = LongAnswers::default();
    let marked = long.clone();
    let service = house.router.clone().map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(marked.clone());
        request
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(terms.keep_alive)
        .header_read_timeout(terms.header_timeout)
        .max_buf_size(terms.header_cap)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut served = pin!(served);
    tokio::select! {
        _ = served.as_mut() => return,
        () = house.shutdown.cancelled() => {}
        () = sleep(terms.max_age) => {}
    }
    served.as_mut().graceful_shutdown();
    tokio::select! {
        _ = served => {}
        () = async { long.none().await; sleep(terms.longest_answer).await } => {}
        () = async { house.shutdown.cancelled().await; sleep(GRACE).await } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_when_all_seats_are_taken_is_an_error_of_the_contract() {
        let (head, body) = std::str::from_utf8(FULL).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{} bytes: {head}", body.len());
        let error: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((error["code"].as_u64(), error["error"].is_string()), (Some(503), true));
    }
}
