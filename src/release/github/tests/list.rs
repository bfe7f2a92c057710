//! Lists that are long, large, slow or broken: an answer is given from what can be had, and what is missing is said.

use super::*;

/// `page` and `per_page` of a request for the list.
fn asked_for(path: &str) -> Option<(usize, usize)> {
    let (_, query) = path.split_once("/releases?")?;
    let number = |name: &str| {
        let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|value| value.parse().ok())
    };
    Some((number("page")?, number("per_page")?))
}

/// Release number `n`, counted from the newest: `v0.0.999`, `v0.0.998` …
fn numbered(n: usize) -> Value {
    told(&format!("v0.0.{}", 999 - n), false)
}

/// One page of a list of `all` releases.
fn page(all: usize, page: usize, size: usize) -> Response {
    let first = (page - 1) * size;
    let list: Vec<Value> = (first..all.min(first + size)).map(numbered).collect();
    let next = format!("</api/v3/repos/o/n/releases?per_page={size}&page={}>; rel=\"next\"", page + 1);
    match first + size < all {
        true => ([(header::LINK, next)], axum::Json(list)).into_response(),
        false => axum::Json(list).into_response(),
    }
}

fn sizes(upstream: &Upstream) -> Vec<usize> {
    upstream.asked().iter().filter_map(|asked| asked_for(&asked.path)).map(|(_, size)| size).collect()
}

#[tokio::test]
async fn a_page_that_cannot_be_had_is_asked_for_in_smaller_ones() {
    type Refuse = fn() -> Response;
    let too_large: Refuse = || Body::from(vec![b' '; PAGE_CAP + 1]).into_response();
    let gateway: Refuse = || StatusCode::GATEWAY_TIMEOUT.into_response();
    for (what, refuse, from, expected) in [
        ("too large above 10", too_large, 30, vec![100, 30, 10, 10, 10]),
        ("504 above 10", gateway, 30, vec![100, 30, 10, 10, 10]),
        ("504 above 30", gateway, 100, vec![100, 30]),
        ("it breaks off", cut_off, 100, vec![100, 30]),
    ] {
        let upstream = Upstream::start(move |_, asked| async move {
            let (number, size) = asked_for(&asked.path).expect("the list");
            if size >= from { refuse() } else { page(25, number, size) }
        })
        .await;
        let source = upstream.source();
        let release = source.latest(Channel::Stable).await.unwrap();
        assert_eq!((release.tag.as_str(), release.remarks.len()), ("v0.0.999", 0), "{what}");
        assert_eq!(sizes(&upstream), expected, "{what}");
        age(61).await;
        source.latest(Channel::Stable).await.unwrap();
        let again = &sizes(&upstream)[expected.len()..];
        assert!(again.iter().all(|size| size == expected.last().unwrap()), "{what}: what works is kept: {again:?}");
    }
}

#[tokio::test]
async fn a_slow_page_is_raced_by_smaller_ones_and_whichever_comes_first_counts() {
    for (what, slow_from, pause, expected) in
        [("hangs above 10", 30, None, 10), ("everything takes its time", 1, Some(Duration::from_millis(700)), 100)]
    {
        let upstream = Upstream::start(move |_, asked| async move {
            let (number, size) = asked_for(&asked.path).expect("the list");
            match pause {
                _ if size < slow_from => {}
                None => pending().await,
                Some(pause) => tokio::time::sleep(pause).await,
            }
            page(8, number, size)
        })
        .await;
        let release = upstream.source().latest(Channel::Stable).await.unwrap();
        assert_eq!((release.tag.as_str(), release.remarks.len()), ("v0.0.999", 0), "{what}");
        assert!(sizes(&upstream).contains(&expected), "{what}");
    }
}

#[tokio::test]
async fn what_was_read_before_the_time_was_over_is_an_answer_and_is_kept() {
    let upstream = Upstream::start(async |_, asked: Asked| {
        // What the API calls the latest is never asked in vain here: there is no such thing.
        let Some((number, size)) = asked_for(&asked.path) else { return StatusCode::NOT_FOUND.into_response() };
        tokio::time::sleep(Duration::from_millis(250)).await;
        page(900, number, size)
    })
    .await;
    let source = upstream.source();
    let first = source.latest(Channel::Stable).await.unwrap();
    assert_eq!(first.tag, "v0.0.999");
    let remark = &first.remarks[0];
    assert!(remark.starts_with("only the newest ") && remark.contains("did not answer within"), "{remark}");
    let mut looks = 1;
    while !source.latest(Channel::Stable).await.unwrap().remarks.is_empty() {
        looks += 1;
        assert!(looks < 6, "each look reads on where the one before ended");
    }
    let pages = upstream.asked().iter().filter_map(|asked| asked_for(&asked.path)).collect::<Vec<_>>();
    let third = pages.iter().filter(|(page, size)| (*page, *size) == (3, 100)).count();
    assert_eq!(third, 1, "what was read is not asked for again: {pages:?}");
}

#[tokio::test]
async fn where_the_list_cannot_be_had_the_latest_of_the_api_helps() {
    let upstream = Upstream::start(async |_, asked: Asked| match asked.path.as_str() {
        "/api/v3/repos/o/n/releases/latest" => axum::Json(told("v1.0.0", false)).into_response(),
        _ => StatusCode::GATEWAY_TIMEOUT.into_response(),
    })
    .await;
    let release = upstream.source().latest(Channel::Stable).await.unwrap();
    assert_eq!(release.tag, "v1.0.0");
    assert!(release.remarks[0].starts_with("only the newest 0 releases"), "{:?}", release.remarks);
    assert!(release.remarks[0].contains("answers 504 Gateway Timeout"), "{:?}", release.remarks);
}

#[tokio::test]
async fn the_highest_of_what_could_be_read_is_the_answer() {
    // The second page is never to be had; the API's own latest is higher than all of the first.
    let upstream = Upstream::start(async |_, asked: Asked| match asked_for(&asked.path) {
        Some((1, size)) => page(300, 1, size),
        Some(_) => StatusCode::BAD_GATEWAY.into_response(),
        None => axum::Json(told("v2.0.0", false)).into_response(),
    })
    .await;
    let release = upstream.source().latest(Channel::Stable).await.unwrap();
    assert_eq!(release.tag, "v2.0.0");
    assert!(release.remarks[0].starts_with("only the newest 100 releases"), "{:?}", release.remarks);
}

#[tokio::test]
async fn endless_pages_end() {
    let upstream = Upstream::start(async |number, asked: Asked| match asked_for(&asked.path) {
        None if asked.path.ends_with("latest") => StatusCode::NOT_FOUND.into_response(),
        _ => {
            let link = format!("</page?{number}>; rel=\"next\"");
            ([(header::LINK, link)], axum::Json(json!([told(&format!("v1.0.{number}"), false)]))).into_response()
        }
    })
    .await;
    let source = upstream.source();
    let release = source.latest(Channel::Stable).await.unwrap();
    assert_eq!(release.tag, "v1.0.39");
    assert!(release.remarks[0].contains("no more are read"), "{:?}", release.remarks);
    let count = upstream.count();
    source.latest(Channel::Stable).await.unwrap();
    assert_eq!(upstream.count(), count, "that is no failure, so the answer is kept");
}

/// A Gitea gives fifty at once, however many are asked for, and behind a proxy it may not know its own name.
#[tokio::test]
async fn a_server_that_gives_fewer_than_asked_is_read_to_the_end() {
    let upstream = Upstream::start(async |_, asked: Asked| {
        let (number, _) = asked_for(&asked.path).expect("the list");
        let mut response = page(120, number, 50);
        if response.headers_mut().remove(header::LINK).is_some() {
            let elsewhere = HeaderValue::from_static("<http://gitea.internal/next>; rel=\"next\"");
            response.headers_mut().insert(header::LINK, elsewhere);
        }
        response
    })
    .await;
    let release = upstream.source().latest(Channel::Stable).await.unwrap();
    assert_eq!((release.tag.as_str(), release.remarks), ("v0.0.999", vec![]));
    let pages: Vec<_> = upstream.asked().iter().filter_map(|asked| asked_for(&asked.path)).collect();
    assert_eq!(pages, [(1, 100), (2, 100), (3, 100)]);
}

/// A hundred releases with fifty assets each: nothing of the assets is kept, and a page of them is small enough.
#[tokio::test]
async fn assets_of_a_list_are_passed_over() {
    // By hand: a server of a debug build is slow enough to be raced.
    let file = format!(r#"{{"name": "{}", "url": "https://api/assets/1"}}"#, "x".repeat(2000));
    let files = vec![file.as_str(); 50].join(",");
    let release = |n| format!(r#"{{"tag_name": "v0.0.{}", "assets": [{files}]}}"#, 999 - n);
    let pages =
        [100, 30, 10, 1].map(|size| (size, format!("[{}]", (0..size).map(release).collect::<Vec<_>>().join(","))));
    let pages = Arc::new(HashMap::from(pages));
    let upstream = Upstream::start(move |_, asked: Asked| {
        let page = asked_for(&asked.path).and_then(|(_, size)| pages.get(&size)).cloned().unwrap_or_default();
        std::future::ready(page.into_response())
    })
    .await;
    let release = upstream.source().latest(Channel::Stable).await.unwrap();
    assert_eq!((release.tag.as_str(), release.assets.len()), ("v0.0.999", 0));
    assert_eq!(sizes(&upstream)[..2], [100, 30]);
}

#[tokio::test]
async fn whoever_wants_a_fresh_answer_gets_one() {
    let upstream = Upstream::start(async |number, asked: Asked| {
        let release = told(if number == 0 { "v1.0.0" } else { "v1.0.1" }, false);
        let list = asked_for(&asked.path).is_some();
        axum::Json(if list { json!([release]) } else { told("v1.0.1", false) }).into_response()
    })
    .await;
    let source = upstream.source();
    assert_eq!(source.latest(Channel::Stable).await.unwrap().tag, "v1.0.0");
    source.by_tag("v1.0.1").await.unwrap();
    assert_eq!(source.latest(Channel::Stable).await.unwrap().tag, "v1.0.0", "a young answer is given again");
    source.forget();
    assert_eq!(source.latest(Channel::Stable).await.unwrap().tag, "v1.0.1");
    let before = upstream.count();
    source.by_tag("v1.0.1").await.unwrap();
    assert_eq!(upstream.count(), before + 1);
    source.by_tag("v1.0.1").await.unwrap();
    assert_eq!(upstream.count(), before + 1, "once");
}

/// What is missing may just be on its way.
#[tokio::test]
async fn a_young_release_is_asked_for_anew_each_time() {
    for (published, state, requests) in [
        (Timestamp::now() - jiff::SignedDuration::from_mins(3), "uploaded", 2),
        (Timestamp::now() - jiff::SignedDuration::from_hours(3), "uploaded", 1),
        (Timestamp::now() - jiff::SignedDuration::from_hours(3), "starter", 2),
    ] {
        let mut release = told("v1.0.0", false);
        release["published_at"] = json!(published.to_string());
        release["assets"][0]["state"] = json!(state);
        let upstream = Upstream::json(release).await;
        let source = upstream.source();
        source.by_tag("v1.0.0").await.unwrap();
        let found = source.by_tag("v1.0.0").await.unwrap();
        assert_eq!(found.assets[0].uploaded, state == "uploaded");
        assert_eq!(upstream.count(), requests, "{published} {state}");
    }
}
