//! What servers say instead of answering: the kind of each refusal, in the server's own words, and who sees the token.

use super::*;

struct Row {
    what: &'static str,
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    token: Option<&'static str>,
    fault: SourceFault,
    /// After the address.
    says: &'static str,
}

const TOKEN: SourceFault = SourceFault::Forbidden { has_token: true };

fn rows() -> Vec<Row> {
    let row = |what, status, body, fault, says| Row { what, status, headers: &[], body, token: Some("t"), fault, says };
    vec![
        row(
            "a wrong token",
            401,
            r#"{"message": "Bad credentials"}"#,
            SourceFault::Unauthorized { has_token: true },
            " does not accept the token (PROCESSGIT_UPDATER_GITHUB_TOKEN) (401): \"Bad credentials\"",
        ),
        Row {
            token: None,
            ..row("no token", 401, "", SourceFault::Unauthorized { has_token: false }, " wants a token (401)")
        },
        row(
            "no rights",
            403,
            r#"{"message": "Resource not accessible by personal access token"}"#,
            TOKEN,
            " refuses us (403): \"Resource not accessible by personal access token\"",
        ),
        row("a body of text", 403, "go away\n", TOKEN, " refuses us (403): \"go away\""),
        row(
            "a body that commands the terminal",
            403,
            "\u{1b}[2J\u{202e}moc.live",
            TOKEN,
            " refuses us (403): \"\u{fffd}[2J\u{fffd}moc.live\"",
        ),
        row("no body", 403, "{}", TOKEN, " refuses us (403)"),
        Row {
            headers: &[("content-type", "text/html")],
            ..row("a page", 403, "<html><body>blocked</body></html>", TOKEN, " refuses us (403)")
        },
        Row {
            headers: &[("x-github-sso", "required; url=https://github.com/orgs/o/sso?authorization_request=A")],
            ..row(
                "single sign-on",
                403,
                r#"{"message": "Resource protected by organization SAML enforcement."}"#,
                SourceFault::SingleSignOn,
                " wants single sign-on (403; required; url=https://github.com/orgs/o/sso?authorization_request=A): \
                 \"Resource protected by organization SAML enforcement.\"",
            )
        },
        row(
            "an allow list",
            403,
            r#"{"message": "Although you appear to have the correct authorization credentials, the `o` organization has an IP allow list enabled, and your IP address is not permitted to access this resource."}"#,
            TOKEN,
            " refuses us (403): \"Although you appear to have the correct authorization credentials, the `o` organization \
             has an IP allow list enabled, and your IP address is not permitted to access this resource.\"",
        ),
        row("another status", 418, "", SourceFault::Nonsense, " answers 418 I'm a teapot, expected 200"),
        row("304 out of the blue", 304, "", SourceFault::Nonsense, " answers 304 Not Modified, expected 200"),
        row(
            "no JSON",
            200,
            "hello",
            SourceFault::Nonsense,
            " answers something else than releases (expected value at line 1 column 1)",
        ),
        row(
            "another shape",
            200,
            r#"{"message": "hello"}"#,
            SourceFault::Nonsense,
            " answers something else than releases (invalid type: map, expected a sequence at line 1 column 0)",
        ),
        Row {
            headers: &[("content-type", "text/html; charset=utf-8")],
            ..row(
                "a portal",
                200,
                "<html>log in</html>",
                SourceFault::WebPage,
                " shows a web page (text/html) instead of what was asked for",
            )
        },
    ]
}

#[tokio::test]
async fn a_refusal_has_its_kind_and_the_servers_own_words() {
    for Row { what, status, headers, body, token, fault: expected, says } in rows() {
        let status = StatusCode::from_u16(status).unwrap();
        let headers =
            HeaderMap::from_iter(headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())));
        let upstream = Upstream::start(move |_, _| {
            let mut response = (status, body).into_response();
            response.headers_mut().remove(header::CONTENT_TYPE);
            response.headers_mut().extend(headers.clone());
            std::future::ready(response)
        })
        .await;
        let result = upstream.source_with(token).latest(Channel::Stable).await;
        assert_eq!(fault(&result), expected, "{what}");
        assert_eq!(text(result), format!("{}/repos/o/n/releases{says}", upstream.shown()), "{what}");
        assert_eq!(upstream.count(), 1, "{what}: not tried again");
    }
}

#[tokio::test]
async fn limits_say_when_they_end_and_which_they_are() {
    type Row<'a> = (u16, &'a [(&'static str, &'static str)], &'static str, SourceFault, &'a str);
    let first = SourceFault::RateLimit { has_token: true };
    let table: &[Row] = &[
        (
            403,
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1769860800")],
            r#"{"message": "API rate limit exceeded for 203.0.113.1."}"#,
            first.clone(),
            " limits our requests (403): the limit resets at 2026-01-31T12:00:00Z: \"API rate limit exceeded for 203.0.113.1.\"",
        ),
        (
            429,
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1769860800")],
            "",
            first.clone(),
            " limits our requests (429): the limit resets at 2026-01-31T12:00:00Z",
        ),
        (
            403,
            &[("retry-after", "60"), ("x-ratelimit-remaining", "4000")],
            "",
            SourceFault::SecondaryLimit,
            " limits our requests (403): try again in 60 s",
        ),
        (
            403,
            &[("x-ratelimit-remaining", "4000")],
            r#"{"message": "You have exceeded a limit.", "documentation_url": "https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api#about-secondary-rate-limits"}"#,
            SourceFault::SecondaryLimit,
            " limits our requests (403): try again in some minutes: \"You have exceeded a limit.\"",
        ),
        (
            429,
            &[("retry-after", "Sat, 31 Jan 2026 12:00:00 GMT")],
            "",
            first.clone(),
            " limits our requests (429): try again after Sat, 31 Jan 2026 12:00:00 GMT",
        ),
        (429, &[], "slow down", first, " limits our requests (429): try again in some minutes: \"slow down\""),
    ];
    for (status, headers, body, expected, says) in table {
        let status = StatusCode::from_u16(*status).unwrap();
        let headers =
            HeaderMap::from_iter(headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())));
        let body = *body;
        let upstream =
            Upstream::start(move |_, _| std::future::ready((status, headers.clone(), body).into_response())).await;
        let result = upstream.source_with(Some("t")).latest(Channel::Stable).await;
        assert_eq!(fault(&result), *expected, "{says}");
        assert_eq!(text(result), format!("{}{says}", upstream.shown()));
    }
}

#[tokio::test]
async fn a_short_wait_that_is_asked_for_is_waited() {
    let upstream = Upstream::start(async |number, _| match number {
        0 => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")]).into_response(),
        _ => axum::Json(told("v1.0.0", false)).into_response(),
    })
    .await;
    assert_eq!(upstream.source().by_tag("v1.0.0").await.unwrap().tag, "v1.0.0");
}

#[tokio::test]
async fn a_renamed_repository_of_the_same_api_still_sees_the_token() {
    let upstream = Upstream::start(async |_, asked: Asked| match asked.path.as_str() {
        path if path.starts_with("/api/v3/repos/o/n/releases") => {
            let moved = path.replace("/repos/o/n/", "/repositories/7/");
            (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, moved)]).into_response()
        }
        _ if asked.header("authorization") != Some("Bearer hush") => StatusCode::NOT_FOUND.into_response(),
        path if path.contains("/tags/") => axum::Json(told("v1.0.0", false)).into_response(),
        _ => axum::Json(json!([told("v1.0.0", false)])).into_response(),
    })
    .await;
    let source = upstream.source_with(Some("hush"));
    assert_eq!(source.latest(Channel::Stable).await.unwrap().tag, "v1.0.0");
    assert_eq!(source.by_tag("v1.0.0").await.unwrap().tag, "v1.0.0");
}

/// A Gitea that calls itself something else than we do: its assets are there.
#[tokio::test]
async fn a_host_that_got_no_token_is_named_and_can_be_allowed() {
    type Answers = fn(bool) -> Response;
    let page: Answers = |_| ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], "<html>log in").into_response();
    let rows: [(&str, Answers, &str); 4] = [
        ("404", |_| StatusCode::NOT_FOUND.into_response(), " answers 404; it got no token, because "),
        ("401", |_| StatusCode::UNAUTHORIZED.into_response(), " answers 401; it got no token, because "),
        (
            "403",
            |_| (StatusCode::FORBIDDEN, r#"{"message": "members only"}"#).into_response(),
            " answers 403: \"members only\"; it got no token, because ",
        ),
        ("a login page", page, " answers 200: it shows a web page (text/html); it got no token, because "),
    ];
    for (what, refuses, says) in rows {
        let elsewhere = Upstream::start(move |_, asked: Asked| async move {
            match asked.header("authorization") {
                Some("Bearer hush") => "manifest".into_response(),
                _ => refuses(false),
            }
        })
        .await;
        let upstream = Upstream::json(json!([])).await;
        let file = asset(&format!("{}/o/n/releases/download/v1/release.json", elsewhere.shown()), 8);
        let host = http::place(&elsewhere.base);
        let refused = upstream.source_with(Some("hush")).fetch(&file, 100).await;
        assert_eq!(fault(&refused), SourceFault::NoTokenThere { host: host.clone() }, "{what}");
        let told = refused.unwrap_err().told();
        assert!(told.starts_with(&format!("{}{says}{host} is not the API's host. Set ", file.url)), "{what}: {told}");
        assert!(told.contains(&format!("PROCESSGIT_UPDATER_GITHUB_TOKEN_HOSTS={host} ")), "{what}: {told}");
        let allowed = upstream.source_for(Some("hush"), &[host]);
        assert_eq!(allowed.fetch(&file, 100).await.unwrap(), "manifest", "{what}");
    }
}

#[tokio::test]
async fn a_web_page_is_no_asset() {
    let upstream = Upstream::start(async |_, asked: Asked| match asked.path.as_str() {
        "/user/login" => ([(header::CONTENT_TYPE, "text/html")], "<html>").into_response(),
        _ => (StatusCode::SEE_OTHER, [(header::LOCATION, "/user/login")]).into_response(),
    })
    .await;
    let result = upstream.source().fetch(&asset(&format!("{}/x", upstream.shown()), 8), 100).await;
    assert_eq!(fault(&result), SourceFault::WebPage);
}

/// Links to a storage carry a secret of their own, and need no token.
#[tokio::test]
async fn a_signed_link_that_fails_is_no_matter_of_the_token() {
    let storage = Upstream::start(async |_, _| (StatusCode::FORBIDDEN, "<Error>expired</Error>").into_response()).await;
    let to = storage.base.join("/signed?secret=1").unwrap().to_string();
    let upstream = Upstream::start(move |_, _| {
        std::future::ready((StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response())
    })
    .await;
    let result = upstream.source_with(Some("hush")).fetch(&asset(&format!("{}/x", upstream.shown()), 8), 100).await;
    assert_eq!(fault(&result), TOKEN);
    let told = text(result);
    assert!(told.ends_with("refuses us (403): \"<Error>expired</Error>\"") && !told.contains("secret"), "{told}");
}

#[tokio::test]
async fn who_sees_the_token() {
    let limits = Limits::default();
    let token = SecretString::from("hush");
    let sees = |api: &str, hosts: &[&str], url: &str| {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let api = Url::parse(api).unwrap();
        let http = Http::new(&api, Some(&token), &hosts, &Authorities::default(), &limits).unwrap();
        http.token_for(&Url::parse(url).unwrap()).is_some()
    };
    for (api, hosts, url, expected) in [
        ("https://api.example", &[][..], "https://api.example/x", true),
        ("https://api.example", &[], "https://api.example:443/x", true),
        ("https://api.example", &[], "https://api.example:8443/x", false),
        ("https://api.example", &[], "https://evil.example/x", false),
        ("https://api.example", &[], "https://api.example.evil/x", false),
        ("https://api.example", &[], "http://api.example/x", false),
        ("http://git.lan", &[], "https://git.lan/x", true),
        ("http://git.lan:3000", &[], "https://git.lan/x", false),
        ("http://git.lan", &[], "https://git.lan:3000/x", false),
        ("http://git.lan", &[], "https://git.lan.evil/x", false),
        ("https://api.example", &["git.example"], "https://git.example/x", true),
        ("https://api.example", &["git.example"], "http://git.example/x", false),
        ("https://api.example", &["git.example"], "https://git.example:3000/x", false),
        ("https://api.example", &["git.example:3000"], "https://git.example:3000/x", true),
        ("http://gitea:3000", &["git.lan:3000"], "http://git.lan:3000/x", true),
        ("https://api.example", &["git.example"], "https://user@git.example/x", true),
        ("https://api.example", &["git.example"], "https://git.example@evil/x", false),
    ] {
        assert_eq!(sees(api, hosts, url), expected, "{api} {hosts:?} {url}");
    }
}
