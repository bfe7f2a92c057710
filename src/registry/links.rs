//! Where a list goes on (RFC 8288), and which redirects are followed. Pure.

use reqwest::header::{HeaderMap, LINK};
use url::Url;

use crate::https::fault::RedirectRefused;

const REDIRECTS: usize = 5;

/// The next page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// On the registry's own origin, whatever origin the registry named.
    pub url: Url,
    /// The other origin that the registry named. It is not asked: our credentials are not for it. A registry
    /// behind a proxy often names itself by its inner address, and then its own origin has the page.
    pub elsewhere: Option<String>,
}

/// Follows a redirect unless it leaves https or goes on for too long. Credentials are dropped by the
/// client when the host or the port changes.
pub fn redirect(attempt: reqwest::redirect::Attempt) -> reqwest::redirect::Action {
    let downgrade =
        attempt.previous().last().is_some_and(|p| p.scheme() == "https") && attempt.url().scheme() != "https";
    if downgrade {
        return attempt.error(RedirectRefused::Insecure);
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error(RedirectRefused::TooMany);
    }
    attempt.follow()
}

/// The first `rel="next"` of all `Link` headers.
pub fn next(page: &Url, headers: &HeaderMap) -> Option<Next> {
    let values = headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
    let target = values.flat_map(links).find(|(_, parameters)| is_next(parameters)).map(|(target, _)| target)?;
    let named = page.join(target).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let mut url = page.clone();
    url.set_path(named.path());
    url.set_query(named.query());
    url.set_fragment(None);
    let elsewhere = (named.origin() != page.origin()).then(|| named.origin().ascii_serialization());
    (url != *page).then_some(Next { url, elsewhere })
}

/// Targets and parameters of one header: a comma may stand in a target, a `<` may not.
fn links(value: &str) -> impl Iterator<Item = (&str, &str)> {
    value.split('<').skip(1).filter_map(|link| link.split_once('>'))
}

fn is_next(parameters: &str) -> bool {
    parameters.split([';', ',']).any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        let relations = value.trim().trim_matches('"').split_ascii_whitespace();
        name.trim().eq_ignore_ascii_case("rel") && relations.into_iter().any(|rel| rel.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn following(link: &[&str]) -> Option<(String, Option<String>)> {
        let page = Url::parse("https://r.example:5000/v2/a/referrers/x?n=1").unwrap();
        let headers = link.iter().map(|value| (LINK, value.parse().unwrap())).collect();
        next(&page, &headers).map(|next| (next.url.to_string(), next.elsewhere))
    }

    #[test]
    fn the_next_page() {
        let here = |path: &str| Some((format!("https://r.example:5000{path}"), None));
        let elsewhere = |path: &str, origin: &str| Some((format!("https://r.example:5000{path}"), Some(origin.into())));
        for (link, expected) in [
            (&["</v2/a/p?last=2>; rel=\"next\""][..], here("/v2/a/p?last=2")),
            (&["<p2>; rel=next"], here("/v2/a/referrers/p2")),
            (&["<?last=2>; rel=next"], here("/v2/a/referrers/x?last=2")),
            (&["<https://r.example:5000/p>; rel=\"next\""], here("/p")),
            (&["</p>; REL=\"Next\""], here("/p")),
            (&["</p>; title=\"x\"; rel=\"last next\""], here("/p")),
            (&["</p?a=1,2>; rel=\"next\""], here("/p?a=1,2")),
            (&["</first>; rel=\"first\", </p>; rel=\"next\""], here("/p")),
            (&["</p>; rel=\"next\", </last>; rel=\"last\""], here("/p")),
            (&["</first>; rel=\"first\"", "</p>; rel=\"next\""], here("/p")),
            // By another scheme, host or port: asked here.
            (&["<http://r.example:5000/p>; rel=\"next\""], elsewhere("/p", "http://r.example:5000")),
            (&["<https://inner:5001/p?x=1>; rel=\"next\""], elsewhere("/p?x=1", "https://inner:5001")),
            (&["<//evil.example/p>; rel=\"next\""], elsewhere("/p", "https://evil.example")),
            (&["<https://user:secret@r.example:5000/p>; rel=\"next\""], here("/p")),
            // None.
            (&["</p>; rel=\"prev\""], None),
            (&["</p>; rel=\"nextish\""], None),
            (&["</p>"], None),
            (&["/p; rel=\"next\""], None),
            (&["</p; rel=\"next\""], None),
            (&["<ftp://r.example/p>; rel=\"next\""], None),
            (&["<>; rel=\"next\""], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(following(link), expected, "{link:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_other_origin_is_ever_asked(target: String) {
            let page = Url::parse("https://a.example/v2/").unwrap();
            if let Ok(value) = format!("<{target}>; rel=\"next\"").parse() {
                let headers = HeaderMap::from_iter([(LINK, value)]);
                if let Some(found) = next(&page, &headers) {
                    proptest::prop_assert_eq!(found.url.origin(), page.origin());
                }
            }
        }
    }
}
