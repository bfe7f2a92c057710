//! Challenges, and who may be told our credentials. Pure.

use std::collections::BTreeMap;

use url::Url;

/// Token services that belong to a registry though their host is not its own.
const KNOWN_REALMS: [(&str, &str); 2] = [("registry-1.docker.io", "auth.docker.io"), ("nvcr.io", "authn.nvidia.com")];
/// Under these a neighbour is somebody else: whoever comes may have a name there.
const SHARED_SUFFIXES: [&str; 14] = [
    "amazonaws.com",
    "azurewebsites.net",
    "cloudapp.net",
    "cloudfront.net",
    "co.jp",
    "co.nz",
    "co.uk",
    "com.au",
    "com.br",
    "duckdns.org",
    "github.io",
    "herokuapp.com",
    "ngrok.io",
    "org.uk",
];

/// One `WWW-Authenticate` header (RFC 9110, 11.6.1).
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Lower case.
    pub scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    pub fn parse(value: &str) -> Option<Self> {
        let (scheme, mut rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        let mut parameters = BTreeMap::new();
        while let Some((key, after)) = rest.split_once('=') {
            let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
            let after = after.trim_start();
            let (value, remainder) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            parameters.insert(key, value.trim().to_owned());
            rest = remainder;
        }
        (!scheme.is_empty()).then(|| Self { scheme: scheme.to_ascii_lowercase(), parameters })
    }

    pub fn get(&self, key: &str) -> &str {
        self.parameters.get(key).map_or("", String::as_str)
    }
}

/// The registry's credentials may be told to the token service that it names: it is the registry's own host
/// (as of GHCR, Quay, Harbor, Gitea), belongs to it by name (Docker Hub), or is a neighbour under the registry's
/// own domain (`registry.gitlab.com` and `gitlab.com`). A registry could otherwise have them sent anywhere.
pub fn is_own_realm(registry: &Url, realm: &Url) -> bool {
    let (Some(ours), Some(theirs)) = (registry.host_str(), realm.host_str()) else { return false };
    // Never less protected than the registry itself.
    if realm.scheme() != "https" && realm.scheme() != registry.scheme() {
        return false;
    }
    if ours == theirs || KNOWN_REALMS.contains(&(ours, theirs)) {
        return true;
    }
    let is_address = |url: &Url| !matches!(url.host(), Some(url::Host::Domain(_)));
    if is_address(registry) || is_address(realm) {
        return false;
    }
    let below = |name: &str, domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let own = |domain: &str| domain.contains('.') && !SHARED_SUFFIXES.contains(&domain);
    let parent = ours.split_once('.').map_or("", |(_, parent)| parent);
    // Up to the registry's own domain and down again, or below the registry itself.
    (own(parent) && (theirs == parent || below(theirs, parent))) || (own(ours) && below(theirs, ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);
        let table: [Row<'_>; 7] = [
            (
                r#"Bearer realm="https://a/t",service="s",scope="x:y:pull,push""#,
                "bearer",
                &[("realm", "https://a/t"), ("service", "s"), ("scope", "x:y:pull,push")],
            ),
            (
                r#"bearer realm="r", service=plain, scope="c""#,
                "bearer",
                &[("realm", "r"), ("service", "plain"), ("scope", "c")],
            ),
            (r#"Basic realm="Registry Realm""#, "basic", &[("realm", "Registry Realm")]),
            ("Basic", "basic", &[]),
            (r#"Bearer realm="open"#, "", &[]),
            ("", "", &[]),
            ("Bearer =,=", "bearer", &[("", "=")]),
        ];
        for (header, scheme, parameters) in table {
            let got = Challenge::parse(header);
            let scheme_got = got.as_ref().map_or("", |c| &c.scheme);
            assert_eq!(scheme_got, scheme, "{header}");
            for (key, value) in parameters.iter().filter(|(key, _)| !key.is_empty()) {
                assert_eq!(got.as_ref().map(|c| c.get(key)), Some(*value), "{header}: {key}");
            }
        }
    }

    #[test]
    fn credentials_go_to_the_registrys_own_token_service_only() {
        for (registry, realm, told) in [
            // How the registries that people use name theirs.
            ("https://ghcr.io", "https://ghcr.io/token", true),
            ("https://quay.io", "https://quay.io/v2/auth", true),
            ("https://registry-1.docker.io", "https://auth.docker.io/token", true),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            ("https://registry.example.com", "https://gitlab.example.com/jwt/auth", true),
            ("https://gitlab.example.com:5050", "https://gitlab.example.com/jwt/auth", true),
            ("https://git.example.com", "https://git.example.com/v2/token", true),
            ("https://harbor.example.com", "https://harbor.example.com/service/token", true),
            ("https://registry.digitalocean.com", "https://api.digitalocean.com/v2/registry/auth", true),
            ("https://us.icr.io", "https://icr.io/oauth/token", true),
            ("https://x.azurecr.io", "https://x.azurecr.io/oauth2/token", true),
            ("https://nvcr.io", "https://authn.nvidia.com/token", true),
            ("https://example.com", "https://auth.example.com/token", true),
            ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token", true),
            ("http://nas.lan:5000", "http://nas.lan:5001/token", true),
            // Anybody else.
            ("https://ghcr.io", "https://evil.example/token", false),
            ("https://ghcr.io", "https://evil.io/token", false),
            ("https://registry-1.docker.io", "https://auth.docker.io.evil.example/token", false),
            ("https://registry.example.com", "https://evilexample.com/token", false),
            ("https://a.github.io", "https://evil.github.io/token", false),
            ("https://a.co.uk", "https://evil.co.uk/token", false),
            ("https://1.dkr.ecr.eu.amazonaws.com", "https://evil.amazonaws.com/token", false),
            ("https://10.0.0.7:5000", "https://10.0.0.8/token", false),
            ("https://10.0.0.7:5000", "https://9.0.0.7/token", false),
            ("https://localhost", "https://evil.localhost/token", false),
            // Not even to the registry's own host without TLS, where the registry has it.
            ("https://ghcr.io", "http://ghcr.io/token", false),
            ("https://registry.example.com", "http://gitlab.example.com/token", false),
            ("https://ghcr.io", "data:text/plain,x", false),
        ] {
            let url = |text: &str| Url::parse(text).unwrap();
            assert_eq!(is_own_realm(&url(registry), &url(realm)), told, "{registry} names {realm}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_challenge_panics(text: String) {
            let _ = Challenge::parse(&text);
            let _ = Challenge::parse(&format!("Bearer {text}"));
        }
    }
}
