use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;
use crate::engine::{Healthcheck, RestartPolicy, RunState};

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

fn container(name: &str, addresses: &[&str]) -> Container {
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
        raw: serde_json::Value::Null,
    }
}

async fn ask(url: &str, container: &Container) -> Answer {
    let probe = HttpProbe::new(url.parse().unwrap(), Authorities::default());
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
    let said = again.env(URL, format!("http://{address}/")).output().await.unwrap().stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("answer Some(200)"), "{said}");
}
