//! Names of images: `registry/repository:tag@digest`, by the grammar of the OCI distribution
//! specification and of Docker's references. Pure.

/// The longest `registry/repository`, in bytes (Docker's `NameTotalLengthMax`).
const NAME_MAX: usize = 255;
/// The longest tag, in bytes (OCI distribution specification).
const TAG_MAX: usize = 128;

/// The version a reference names, which is its tag. A port is no tag, a digest is none either, and a
/// text without `/`, `:` and `@` is itself a tag: the value of the version's variable.
pub fn version_of(reference: &str) -> Option<&str> {
    if is_digest(reference) {
        return None;
    }
    let (named, digest) = match reference.split_once('@') {
        Some((named, _)) => (named, true),
        None => (reference, false),
    };
    let tag = match named.rsplit_once(':') {
        Some((_, tag)) => tag,
        None if named.contains('/') || digest => return None,
        None => named,
    };
    is_tag(tag).then_some(tag)
}

/// `sha256:` and 64 lowercase hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    let hex = |digits: &str| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && hex(digits))
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=TAG_MAX).contains(&text.len())
        && word(text.as_bytes()[0])
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// `host[:port]`, recognisable as a registry: Docker takes a first component without dot and port that
/// is not `localhost` for a user on Docker Hub.
pub fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let good_port = port.is_none_or(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p > 0));
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good_host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    let recognised = host == "localhost" || port.is_some() || host.contains('.') || bracketed.is_some();
    text.len() <= NAME_MAX && good_port && good_host && recognised
}

/// Path components of `[a-z0-9]+` joined by `.`, `_`, `__` or dashes, between single slashes.
pub fn is_repository(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len()) && text.split('/').all(is_component)
}

/// `os/arch` or `os/arch/variant`, such as `linux/arm64/v8`.
pub fn is_platform(text: &str) -> bool {
    let part = |part: &str| {
        (1..=32).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
    };
    (2..=3).contains(&text.split('/').count()) && text.split('/').all(part)
}

fn is_label(label: &str) -> bool {
    let edges = !label.starts_with('-') && !label.ends_with('-');
    (1..=63).contains(&label.len()) && edges && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_component(component: &str) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = bytes.first().is_some_and(word) && bytes.last().is_some_and(word);
    // What stands between words: one dot, one or two underscores, any number of dashes.
    let separators = bytes.split(word).filter(|run| !run.is_empty());
    edges && separators.into_iter().all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_tag() {
        let digest = "0".repeat(64);
        let pinned = format!("ghcr.io/foo/bar@sha256:{digest}");
        let both = format!("ghcr.io/foo/bar:0.1.2@sha256:{digest}");
        let id = format!("sha256:{digest}");
        let table: &[(&str, Option<&str>)] = &[
            ("ghcr.io/foo/bar:0.1.2", Some("0.1.2")),
            ("registry:5000/foo/bar:0.1", Some("0.1")),
            ("registry:5000/foo/bar", None),
            ("ghcr.io/foo/bar", None),
            ("repo@sha256:abc", None),
            (&pinned, None),
            (&both, Some("0.1.2")),
            (&id, None),
            ("0.1.2", Some("0.1.2")),
            ("v0.1.2", Some("v0.1.2")),
            ("latest", Some("latest")),
            ("redis:7", Some("7")),
            ("localhost:5000/a:b", Some("b")),
            ("[::1]:5000/a:b", Some("b")),
            ("[::1]:5000/a", None),
            ("0.1.2+build", None),
            ("foo:", None),
            ("foo:a b", None),
            ("", None),
            (":", None),
            ("@", None),
        ];
        for (reference, version) in table {
            assert_eq!(version_of(reference), *version, "{reference:?}");
        }
    }

    #[test]
    fn registries() {
        for good in ["ghcr.io", "localhost", "localhost:5000", "registry:5000", "10.0.0.1:5000", "[::1]:5000", "[::1]"]
        {
            assert!(is_registry(good), "{good}");
        }
        let bad = [
            "",
            "ghcr",
            "https://ghcr.io",
            "ghcr.io/",
            "-a.b",
            "a..b",
            "a.b:",
            "a.b:0",
            "a.b:65536",
            "a.b:+1",
            "a_b.c",
            "[::g]:1",
            "a b.c",
            "user@ghcr.io",
            "ghcr.io:5000:1",
        ];
        for bad in bad {
            assert!(!is_registry(bad), "{bad}");
        }
    }

    #[test]
    fn repositories() {
        for good in ["a", "foo/bar", "a.b/c_d/e__f/g--h", "algomation-ai/processgit", "0/1"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a-", "a:b", "a@b", "../a", "a b", "a.-b"]
        {
            assert!(!is_repository(bad), "{bad}");
        }
        assert!(is_repository(&"a".repeat(255)) && !is_repository(&"a".repeat(256)));
    }

    #[test]
    fn tags_digests_and_platforms() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(is_tag("0.1.2") && is_tag("_x-Y.z") && is_tag(&"a".repeat(128)));
        assert!(!is_tag("") && !is_tag(".a") && !is_tag("-a") && !is_tag("a+b") && !is_tag(&"a".repeat(129)));
        assert!(is_digest(&format!("sha256:{hex}")));
        for bad in
            [hex.clone(), format!("sha256:{}", hex.to_uppercase()), format!("sha512:{hex}"), format!("sha256:{hex}0")]
        {
            assert!(!is_digest(&bad), "{bad}");
        }
        assert!(is_platform("linux/amd64") && is_platform("linux/arm64/v8"));
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm64/v8/x", "Linux/amd64", "linux/a d"] {
            assert!(!is_platform(bad), "{bad}");
        }
    }
}
