use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;
use crate::engine::{Healthcheck, RestartPolicy, RunState, label};

/// A server on this address that says this to everybody, and counts them.
async fn server(address: &str, answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

pub fn container(name: &str, addresses: &[&str]) -> Container {
    let network = |(n, ip): (usize, &&str)| (format!("network-{n}"), (*ip).to_owned());
    Container {
        id: "c".into(),
        name: name.into(),
        image_ref: "a:1".into(),
        image_id: "sha256:1".into(),
        state: RunState::Running,
        exit_code: 0,
        started_at: None,
        created_at: None,
        restart_count: 0,
        healthcheck: Healthcheck::None,
        healthcheck_seconds: 0,
        restart_policy: RestartPolicy::never(),
        labels: [(label::SERVICE.to_owned(), "app".to_owned())].into(),
        mounts: vec![],
        networks: addresses.iter().enumerate().map(network).collect::<BTreeMap<_, _>>(),
        network_mode: "bridge".into(),
        raw: json!({"NetworkSettings": {"Networks": {"network-0": {"Aliases": ["web"]}}}}),
    }
}

async fn ask(url: &str, container: &Container) -> Answer {
    let probe = HttpProbe::new(url.parse().unwrap(), true, Authorities::default());
    probe.ask(container, Duration::from_secs(5)).await
}

fn status(answer: &Answer) -> Option<u16> {
    if let Answer::Http { status, .. } = answer { Some(*status) } else { None }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_redirect_is_no_answer() {
    let (elsewhere, asked) = server("127.0.0.1:0", OK).await;
    let location: &'static str =
        Box::leak(format!("HTTP/1.1 302 Found\r\nlocation: http://{elsewhere}/\r\ncontent-length: 0\r\n\r\n").into());
    let (address, _) = server("127.0.0.1:0", location).await;
    let answer = ask(&format!("http://{address}/"), &container("c", &[])).await;
    assert_eq!((status(&answer), asked.load(Ordering::Relaxed)), (Some(302), 0));
}

/// Whoever else answers to the name: the container's own addresses are asked, where the URL names it or its
/// service.
#[tokio::test]
async fn the_new_container_is_asked_and_nobody_else() {
    let (own, asked) = server("127.0.0.2:0", OK).await;
    let port = own.port();
    for (url, addresses, expected) in [
        (format!("http://app:{port}/"), &["127.0.0.2"][..], Some(200)),
        (format!("http://shop-app-1:{port}/"), &["127.0.0.2"], Some(200)),
        (format!("http://web:{port}/"), &["127.0.0.2"], Some(200)),
        // An address where nothing answers comes first.
        (format!("http://app:{port}/"), &["127.0.0.3", "127.0.0.2"], Some(200)),
        // Another owner of the name would be found by looking it up.
        (format!("http://localhost:{port}/"), &["127.0.0.2"], None),
        (format!("http://app:{port}/"), &["127.0.0.3"], None),
    ] {
        let before = asked.load(Ordering::Relaxed);
        let answer = ask(&url, &container("shop-app-1", addresses)).await;
        assert_eq!(status(&answer), expected, "{url} {addresses:?}: {answer:?}");
        let was_asked = asked.load(Ordering::Relaxed) > before;
        assert_eq!(was_asked, expected.is_some(), "{url} {addresses:?}");
    }
}

/// The container that is made anew has other addresses than the one before it, under the same URL.
#[tokio::test]
async fn every_question_goes_to_the_container_that_is_asked() {
    let (own, _) = server("127.0.0.2:0", OK).await;
    let probe = HttpProbe::new(format!("http://app:{}/", own.port()).parse().unwrap(), true, Authorities::default());
    for (address, expected) in
        [("127.0.0.2", Some(200)), ("127.0.0.3", None), ("127.0.0.3", None), ("127.0.0.2", Some(200))]
    {
        let answer = probe.ask(&container("c", &[address]), Duration::from_secs(5)).await;
        assert_eq!(status(&answer), expected, "{address}: {answer:?}");
    }
}

#[tokio::test]
async fn of_a_long_answer_only_the_beginning_is_read() {
    let long: &'static str = Box::leak(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(BODY_CAP + 1000)).into());
    let (address, _) = server("127.0.0.1:0", long).await;
    let Answer::Http { status: 200, body } = ask(&format!("http://{address}/"), &container("c", &[])).await else {
        panic!("no answer");
    };
    assert_eq!(body.len(), BODY_CAP);
}

/// The engine drops what comes from a network that the container is not in.
#[tokio::test]
async fn a_network_that_cannot_be_reached_is_passed_over() {
    let (own, _) = server("127.0.0.2:0", OK).await;
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind(SocketAddr::new("127.0.0.3".parse().unwrap(), own.port())).unwrap();
    let deaf = deaf.listen(1).unwrap();
    // Whoever comes after these is not even refused.
    let waiting = [(); 4].map(|()| TcpStream::connect(deaf.local_addr().unwrap()));
    let waiting =
        futures_util::future::join_all(waiting.map(|w| tokio::time::timeout(Duration::from_millis(50), w))).await;
    assert!(waiting.iter().any(Result::is_err), "the queue is full");
    let answer = ask(&format!("http://app:{}/", own.port()), &container("c", &["127.0.0.3", "127.0.0.2"])).await;
    assert_eq!(status(&answer), Some(200), "{answer:?}");
}

/// A server-sent stream, a chunked answer without an end, an answer that is cut off.
#[tokio::test]
async fn a_body_that_never_ends_is_an_answer() {
    const ENDLESS: [&str; 3] = [
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf",
    ];
    for answer in ENDLESS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                open.push(stream);
            }
        });
        for (reads_body, limit, says) in [(false, 5000, ""), (true, 500, &answer[answer.len() - 4..])] {
            let probe = HttpProbe::new(url.clone(), reads_body, Authorities::default());
            let begun = Instant::now();
            let answer = probe.ask(&container("c", &[]), Duration::from_millis(limit)).await;
            let Answer::Http { status: 200, body } = &answer else { panic!("{answer:?}") };
            let body = String::from_utf8_lossy(body);
            assert!(reads_body || body.is_empty() && begun.elapsed() < Duration::from_secs(2), "{body}");
            assert!(body.trim_end().ends_with(says.trim()) || body.contains("one"), "{body:?} {says:?}");
        }
    }
}

#[tokio::test]
async fn kinds_of_silence() {
    let closed = TcpListener::bind("127.0.0.4:0").await.unwrap().local_addr().unwrap();
    let deaf = TcpListener::bind("127.0.0.5:0").await.unwrap();
    let (garbled, _) = server("127.0.0.6:0", "no HTTP at all\r\n\r\n").await;
    for (url, expected) in [
        (format!("http://{garbled}/"), "Other(\"invalid HTTP"),
        (format!("http://{closed}/"), "Refused"),
        ("http://no-such-name.invalid/".to_owned(), "NoSuchName"),
        (format!("http://{}/", deaf.local_addr().unwrap()), "TimedOut"),
    ] {
        let probe = HttpProbe::new(url.parse().unwrap(), false, Authorities::default());
        let answer = probe.ask(&container("c", &[]), Duration::from_millis(500)).await;
        assert!(format!("{answer:?}").starts_with(&format!("Silent({expected}")), "{url}: {answer:?}");
    }
}

const URL: &str = "PGU_HEALTH_TEST_URL";

#[tokio::test]
#[ignore = "run by the test below, with another environment"]
async fn asks_what_it_is_told() {
    let Ok(url) = std::env::var(URL) else { return };
    println!("answer {:?}", status(&ask(&url, &container("c", &[])).await));
}

#[tokio::test]
async fn no_proxy_is_asked() {
    let (address, _) = server("127.0.0.1:0", OK).await;
    let mut again = tokio::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "health::http::tests::asks_what_it_is_told", "--ignored", "--nocapture"]);
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"] {
        again.env(name, "http://127.0.0.1:1");
    }
    again.env_remove("no_proxy").env_remove("NO_PROXY");
    let said = again.env(URL, format!("http://{address}/")).output().await.unwrap().stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("answer Some(200)"), "{said}");
}
