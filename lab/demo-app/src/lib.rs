//! What both applications of the laboratory need: a little HTTP, and to end as a container should.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::exit;

/// What the environment says, or the default.
pub fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Says why, and ends with 1.
pub fn die(message: &str) -> ! {
    let program = env::args().next().unwrap_or_default();
    eprintln!("{}: {message}", program.rsplit('/').next().unwrap_or_default());
    exit(1)
}

/// The first process of a container ignores SIGTERM unless it says otherwise; then every stop would take
/// the engine's whole grace period.
pub fn end_on_sigterm() {
    extern "C" fn end(_signal: libc::c_int) {
        // SAFETY: `_exit` is one of the calls a signal handler may make.
        unsafe { libc::_exit(0) }
    }
    let handler = end as extern "C" fn(libc::c_int);
    // SAFETY: the handler makes no call but `_exit`.
    unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
}

/// As much of a request as is looked at.
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: String,
}

/// `None`: a broken connection, which is the client's affair.
pub fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut text = String::new();
        reader.read_line(&mut text).ok().map(|_| text.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        match line()? {
            end if end.is_empty() => break,
            header => {
                if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().ok()?;
                }
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, body: String::from_utf8(body).ok()? })
}

/// Answers with JSON, and ends the connection.
pub fn respond(mut stream: &TcpStream, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}
