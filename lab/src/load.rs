//! As many requests a second as the updater answers: a few connections that stay open, one request after
//! the other on each. The answers are read, not parsed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http;

/// `GET path` for that long over so many connections; answers a second.
pub fn requests_a_second(address: &str, path: &str, token: &str, connections: usize, time: Duration) -> f64 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
    let (request, answers) = (Arc::<str>::from(request), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|_| http::runtime().spawn(client(address.to_owned(), request.clone(), answers.clone(), start + time)))
        .collect();
    for client in clients {
        http::runtime().block_on(client).expect("a client of the load generator");
    }
    answers.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

async fn client(address: String, request: Arc<str>, answers: Arc<AtomicU64>, end: Instant) {
    let mut stream = TcpStream::connect(&address).await.expect("a connection to the updater");
    let mut answer = Vec::with_capacity(64 * 1024);
    while Instant::now() < end {
        stream.write_all(request.as_bytes()).await.expect("sending a request");
        answer.clear();
        while !is_complete(&answer) {
            let read = stream.read_buf(&mut answer).await.expect("reading an answer");
            assert!(read > 0, "the updater closed a connection: {:?}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "no 200: {:?}", String::from_utf8_lossy(&answer));
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// The head is there, and as much of a body as it announces.
fn is_complete(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("a length");
    answer.len() >= end + 4 + length.trim().parse::<usize>().expect("a length is a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_when_its_body_is() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        for (text, complete) in [("", false), ("HTTP/1.1 200 OK\r\n", false), (head, false)] {
            assert_eq!(is_complete(text.as_bytes()), complete, "{text:?}");
        }
        assert!(is_complete(format!("{head}body").as_bytes()));
    }
}
