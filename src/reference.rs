//! Names of images: `registry/repository:tag@digest`. Pure.
//!
//! The grammar and the normal form are those of <https://github.com/distribution/reference>, which the
//! engine, Compose and BuildKit use: `acme/app`, `docker.io/acme/app` and `index.docker.io/acme/app` are
//! one repository. What an operator or a publisher wrote is kept and shown; what is compared is normal.

use std::fmt;
use std::net::Ipv6Addr;

/// Docker Hub in the normal form.
pub const DOCKER_HUB: &str = "docker.io";
/// Names of Docker Hub from which the engine itself makes [`DOCKER_HUB`].
const LEGACY_HUB: &str = "index.docker.io";
/// The host that answers for Docker Hub. For the engine it is a registry of its own, but what it holds is
/// what Docker Hub holds.
pub const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// Where Docker Hub keeps the images that have no owner.
const OFFICIAL: &str = "library/";
/// The tag that is meant where neither a tag nor a digest is written.
const DEFAULT_TAG: &str = "latest";
/// The longest repository, in bytes (`RepositoryNameTotalLengthMax`).
const REPOSITORY_MAX: usize = 255;
/// The longest host, in bytes (RFC 1035), a port beside it.
const HOST_MAX: usize = 253;
/// The longest tag, in bytes (OCI distribution specification).
const TAG_MAX: usize = 128;
/// Digest algorithms of the OCI image specification, and their digits.
const ALGORITHMS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// A reference in its parts. Two are compared by [`Reference::is_same`], never by their texts.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The name as it was written, without tag and digest.
    written: String,
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image reference: {problem}")]
pub struct ReferenceError {
    text: String,
    problem: &'static str,
}

impl Reference {
    /// Reads what stands in a Compose file's `image:` or in `docker pull`.
    ///
    /// # Errors
    /// The text says what is wrong with it. An image's id is not a reference either.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        Self::split(text).map_err(|problem| ReferenceError { text: text.to_owned(), problem })
    }

    /// The name of a repository in a registry, as a manifest names the two.
    ///
    /// # Errors
    /// The two do not make a reference, or the registry would be taken for a part of the repository.
    pub fn of(registry: &str, repository: &str) -> Result<Self, ReferenceError> {
        let name = Self::parse(&format!("{registry}/{repository}"))?;
        let problem = match is_registry(registry) {
            false => "expected host or host:port before the first slash",
            true if name.tag.is_some() || name.digest.is_some() => "expected a repository without tag and digest",
            true => return Ok(name),
        };
        Err(ReferenceError { text: format!("{registry}/{repository}"), problem })
    }

    fn split(text: &str) -> Result<Self, &'static str> {
        if is_hex(text, 64) || is_digest(text) {
            return Err("a digest without a name is an image's id");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err("the digest is not sha256: and 64 lowercase hexadecimal digits");
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("the tag is not made of letters, digits and _ . -, or is longer than 128 bytes");
        }
        let (registry, repository) = normal(name);
        if !is_domain(&registry) {
            return Err("what stands before the first slash is not host or host:port");
        }
        if repository.len() > REPOSITORY_MAX {
            return Err("the repository is longer than 255 bytes");
        }
        if !is_repository(&repository) {
            let shouted = is_repository(&repository.to_lowercase());
            return Err(if shouted {
                "the repository must be lowercase"
            } else {
                "the repository is not lowercase words joined by . _ __ or -, between single slashes"
            });
        }
        let (tag, digest) = (tag.map(str::to_owned), digest.map(str::to_owned));
        Ok(Self { written: name.to_owned(), registry, repository, tag, digest })
    }

    /// The registry, in the normal form: `docker.io`, `ghcr.io`, `[::1]:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry, in the normal form: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The name as it was written, without tag and digest: `nginx`.
    pub fn written_name(&self) -> &str {
        &self.written
    }

    /// The tag, if one is written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The tag that is meant: `latest` where neither tag nor digest is written.
    pub fn effective_tag(&self) -> Option<&str> {
        self.tag().or(if self.digest.is_some() { None } else { Some(DEFAULT_TAG) })
    }

    /// The digest, if one is written.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The full name, without tag and digest: `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The short form of the name, by which the engine lists images: `nginx`, `acme/app`, `ghcr.io/acme/app`.
    pub fn familiar_name(&self) -> &str {
        if self.registry != DOCKER_HUB {
            return &self.written;
        }
        match self.repository.strip_prefix(OFFICIAL) {
            Some(official) if !official.contains('/') => official,
            _ => &self.repository,
        }
    }

    /// The form by which the engine lists the image: `nginx:1`, `nginx@sha256:…`.
    pub fn familiar(&self) -> String {
        match (self.digest(), self.effective_tag()) {
            (Some(digest), _) => format!("{}@{digest}", self.familiar_name()),
            (None, tag) => format!("{}:{}", self.familiar_name(), tag.unwrap_or(DEFAULT_TAG)),
        }
    }

    /// Both name one repository: by the engine's rules, and where the engine takes for two what is one (the
    /// host behind Docker Hub, a host in capitals).
    pub fn is_same_repository(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    /// Both mean the same image. Where a digest is written the tag beside it decides nothing.
    pub fn is_same(&self, other: &Self) -> bool {
        let meant = match (self.digest(), other.digest()) {
            (None, None) => self.effective_tag() == other.effective_tag(),
            (ours, theirs) => ours == theirs,
        };
        meant && self.is_same_repository(other)
    }

    /// The registry that holds it, whatever it is called, and the repository there.
    fn place(&self) -> (String, String) {
        let registry = self.registry.to_ascii_lowercase();
        match registry.as_str() {
            DOCKER_HUB | LEGACY_HUB | DOCKER_HUB_HOST => (DOCKER_HUB.to_owned(), official(&self.repository)),
            _ => (registry, self.repository.clone()),
        }
    }

    /// The same repository by the one name that it has for every client: Docker Hub is `docker.io`, a host
    /// is in small letters.
    #[must_use]
    pub fn unified(&self) -> Self {
        let (registry, repository) = self.place();
        Self { written: format!("{registry}/{repository}"), registry, repository, ..self.clone() }
    }

    /// This name with another tag and without a digest.
    #[must_use]
    pub fn with_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// This name with a digest and without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }
}

/// As it was written.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Both texts mean the same image; texts that are no references (an image's id) must be equal.
pub fn is_same(a: &str, b: &str) -> bool {
    match (Reference::parse(a), Reference::parse(b)) {
        (Ok(a), Ok(b)) => a.is_same(&b),
        _ => a == b,
    }
}

/// Both texts name the same repository; what is no reference names none.
pub fn is_same_repository(a: &str, b: &str) -> bool {
    Reference::parse(a).ok().zip(Reference::parse(b).ok()).is_some_and(|(a, b)| a.is_same_repository(&b))
}

/// The version a reference names, which is its tag. A port is no tag, a digest is none either, and a
/// text without `/`, `:` and `@` is itself a tag: the value of the version's variable.
pub fn version_of(reference: &str) -> Option<&str> {
    if !reference.contains(['/', ':', '@']) {
        return is_tag(reference).then_some(reference);
    }
    Reference::parse(reference).ok()?;
    let named = reference.split_once('@').map_or(reference, |(named, _)| named);
    named.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'))
}

/// Registry and repository of a name, in the normal form; not checked yet.
fn normal(name: &str) -> (String, String) {
    let hub = |repository: &str| (DOCKER_HUB.to_owned(), official(repository));
    match name.split_once('/') {
        Some((DOCKER_HUB | LEGACY_HUB, repository)) => hub(repository),
        Some((first, repository)) if is_recognised(first) => (first.to_owned(), repository.to_owned()),
        _ => hub(name),
    }
}

/// The first part of a name is a host, and not an owner on Docker Hub.
fn is_recognised(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

/// The repository on Docker Hub.
fn official(repository: &str) -> String {
    if repository.contains('/') { repository.to_owned() } else { format!("{OFFICIAL}{repository}") }
}

/// A digest that content can be checked by: `sha256:` and 64 lowercase hexadecimal digits, or one of the
/// other algorithms of the OCI image specification.
pub fn is_digest(text: &str) -> bool {
    let known = |(algorithm, digits): &(&str, usize)| {
        text.strip_prefix(algorithm).and_then(|rest| rest.strip_prefix(':')).is_some_and(|rest| is_hex(rest, *digits))
    };
    ALGORITHMS.iter().any(known)
}

/// `sha256:` and 64 lowercase hexadecimal digits: the only digests that the engine pulls by and that the
/// signatures of an image name.
pub fn is_sha256(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| is_hex(digits, 64))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=TAG_MAX).contains(&text.len())
        && word(text.as_bytes()[0])
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// `host[:port]`, recognisable as a registry: a first part without dot, port and capitals that is not
/// `localhost` would be an owner on Docker Hub.
pub fn is_registry(text: &str) -> bool {
    let port = split_port(text).1;
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    good_port && is_domain(text) && is_recognised(text)
}

/// Path components of `[a-z0-9]+` joined by `.`, `_`, `__` or dashes, between single slashes.
pub fn is_repository(text: &str) -> bool {
    (1..=REPOSITORY_MAX).contains(&text.len()) && text.split('/').all(is_component)
}

/// `domainAndPort` of the grammar. Its hosts are a subset of DNS names, IPv4 addresses, and IPv6 addresses in
/// brackets without a zone.
fn is_domain(text: &str) -> bool {
    let (host, port) = split_port(text);
    let good_port = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good_host = match bracketed {
        Some(address) => !address.contains('.') && address.parse::<Ipv6Addr>().is_ok(),
        None => host.len() <= HOST_MAX && host.split('.').all(is_label),
    };
    good_port && good_host
}

/// Host and port; a colon within brackets is no port's.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn is_label(label: &str) -> bool {
    let edges = !label.starts_with('-') && !label.ends_with('-');
    !label.is_empty() && edges && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
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
mod tests;
