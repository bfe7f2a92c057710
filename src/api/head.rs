//! The head of a connection's first request: read before anything is spent on the connection, because it tells
//! whether its client knows the token.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::auth::{Token, bearer};

/// The most that is read before the token is seen, in bytes. Usual heads have less than one kilobyte; cookies
/// that a proxy passes on may make them longer.
pub const HEAD_CAP: usize = 16 * 1024;
/// How much is read at once.
const CHUNK: usize = 1024;
/// As many headers as hyper takes.
const HEADERS: usize = 100;

/// Who asks, by the first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visitor {
    /// Its client knows the token.
    Known,
    /// It asks for `/healthz`.
    Health,
    /// Everything else; also what is no request at all, for hyper to answer.
    Stranger,
}

/// What has come of a first request's head so far.
#[derive(Debug, Default)]
pub struct Head {
    pub bytes: Vec<u8>,
}

impl Head {
    /// Reads until the head is whole, at fault, or longer than [`HEAD_CAP`]; `None`: the client hung up before.
    /// Takes as long as the client does.
    pub async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin), token: &Token) -> io::Result<Option<Visitor>> {
        loop {
            let before = self.bytes.len();
            self.bytes.reserve(CHUNK);
            if stream.read_buf(&mut self.bytes).await? == 0 {
                return Ok(None);
            }
            if let Some(visitor) = self.grown(before, token) {
                return Ok(Some(visitor));
            }
        }
    }

    /// The same with what has already come, without waiting for more: a runtime with much to do may know of it
    /// later than others have come to take the seat.
    pub fn read_what_is_there(&mut self, mut stream: impl io::Read, token: &Token) -> Option<Visitor> {
        loop {
            let mut chunk = [0; CHUNK];
            let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
            let before = self.bytes.len();
            self.bytes.extend_from_slice(&chunk[..read]);
            if let Some(visitor) = self.grown(before, token) {
                return Some(visitor);
            }
        }
    }

    /// Without a further line there is nothing new to see: bytes that drip in cost no parsing.
    fn grown(&self, before: usize, token: &Token) -> Option<Visitor> {
        let found = self.bytes[before..].contains(&b'\n').then(|| visitor(&self.bytes, token)).flatten();
        found.or((self.bytes.len() >= HEAD_CAP).then_some(Visitor::Stranger))
    }
}

/// `None` while the head is not whole.
fn visitor(head: &[u8], token: &Token) -> Option<Visitor> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(_) => return Some(Visitor::Stranger),
    }
    let mut authorization = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("authorization"));
    if authorization.next().and_then(|header| bearer(header.value)).is_some_and(|given| token.is(given)) {
        return Some(Visitor::Known);
    }
    let path = request.path.and_then(|path| path.split('?').next());
    Some(if path == Some("/healthz") { Visitor::Health } else { Visitor::Stranger })
}

/// A connection of which something was read already.
pub struct Begun<S> {
    head: Vec<u8>,
    /// So much of the head was handed on.
    passed: usize,
    stream: S,
}

impl<S> Begun<S> {
    pub fn new(head: Vec<u8>, stream: S) -> Self {
        Self { head, passed: 0, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = self.head.get(self.passed..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let some = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..some]);
        self.passed += some;
        if self.passed == self.head.len() {
            self.head = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What is read of a client that sends `pieces` and then hangs up, and who it is.
    async fn sent(pieces: &[&[u8]]) -> Option<(Vec<u8>, Visitor)> {
        let (mut client, mut server) = tokio::io::duplex(64);
        let send = async move {
            for piece in pieces {
                // It may be cut off.
                let _ = client.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        };
        let token = Token::new(&"secret".into());
        let read = async move {
            let mut head = Head::default();
            head.read(&mut server, &token).await.unwrap().map(|visitor| (head.bytes, visitor))
        };
        tokio::join!(send, read).1
    }

    #[tokio::test]
    async fn who_it_is() {
        use Visitor::*;
        for (text, expected) in [
            ("GET /status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n", Some(Known)),
            ("GET /status HTTP/1.1\r\nauthorization: bearer secret\r\n\r\nbody", Some(Known)),
            ("GET /status HTTP/1.1\nAuthorization: Bearer secret\n\n", Some(Known)),
            ("GET /healthz HTTP/1.1\r\nAuthorization: Bearer secret\r\n\r\n", Some(Known)),
            ("GET /status HTTP/1.1\r\nAuthorization: Bearer wrong\r\n\r\n", Some(Stranger)),
            ("GET /status HTTP/1.1\r\nAuthorization: Basic c2VjcmV0\r\n\r\n", Some(Stranger)),
            ("GET /?token=secret HTTP/1.1\r\n\r\n", Some(Stranger)),
            ("GET /status HTTP/1.1\r\nX-Authorization: Bearer secret\r\n\r\n", Some(Stranger)),
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", Some(Health)),
            ("HEAD /healthz?x HTTP/1.0\r\n\r\n", Some(Health)),
            ("GET /healthz/ HTTP/1.1\r\n\r\n", Some(Stranger)),
            ("GET //healthz HTTP/1.1\r\n\r\n", Some(Stranger)),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Stranger)),
            ("\x16\x03\x01\x02\0\x01\n", Some(Stranger)),
            ("no request\r\n", Some(Stranger)),
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n", None),
            ("GET /status HTTP/1.1", None),
            ("", None),
        ] {
            let found = sent(&[text.as_bytes()]).await;
            assert_eq!(found.as_ref().map(|(_, visitor)| *visitor), expected, "{text:?}");
            assert!(found.is_none_or(|(head, _)| head == text.as_bytes()), "all that was read is handed on: {text:?}");
            let found = Head::default().read_what_is_there(text.as_bytes(), &Token::new(&"secret".into()));
            assert_eq!(found, expected, "at once: {text:?}");
        }
    }

    #[tokio::test]
    async fn a_head_may_come_in_pieces() {
        let pieces = [b"GET /status HTTP/1.1\r".as_slice(), b"\nAuthorization: Bea", b"rer secret\r\n\r", b"\nbody"];
        assert_eq!(sent(&pieces).await.map(|(_, visitor)| visitor), Some(Visitor::Known));
    }

    #[tokio::test]
    async fn no_more_than_the_cap_is_read() {
        let long = [b"GET /status HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 10 * HEAD_CAP]];
        let (head, visitor) = sent(&long).await.unwrap();
        assert_eq!(visitor, Visitor::Stranger);
        assert!(head.len() < HEAD_CAP + 2 * CHUNK, "{}", head.len());
    }
}
