//! What each kind of setting accepts. A parser's error says what would be accepted, nothing else: who
//! reports it adds the variable and the value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use url::Url;

use super::{Hook, Listen, Repo, duration};
use crate::health::HealthTarget;

/// The longest path of a Unix socket, in bytes (`sun_path` of `sockaddr_un` is 108 with its NUL).
const SOCKET_PATH: usize = 107;
/// The longest name, in bytes, of an application, container, service, owner or repository.
const NAME: usize = 128;
/// A shorter age is a slip: snapshots would go while they are wanted.
const SHORTEST_AGE: Duration = Duration::from_secs(3600);

pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "yes" | "on" => Ok(true),
        "0" | "f" | "false" | "no" | "off" => Ok(false),
        _ => Err("1, t, true, yes, on or 0, f, false, no, off are accepted".to_owned()),
    }
}

/// A duration between two others, both included.
pub fn duration_within(text: &str, low: Duration, high: Duration) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(found) if (low..=high).contains(&found) => Ok(found),
        Ok(_) => Err(format!("a duration from {} to {} is accepted", duration::show(low), duration::show(high))),
        Err(accepted) => Err(accepted),
    }
}

/// The age from which something goes; `None` for 0: age does not matter.
pub fn age(text: &str) -> Result<Option<Duration>, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Ok(None),
        Ok(age) if age >= SHORTEST_AGE => Ok(Some(age)),
        _ => Err("a duration of at least 1h is accepted, such as 12h or 30d, or 0 if age does not matter".to_owned()),
    }
}

/// What is separated by commas, white space around each not counted.
pub fn list<T>(text: &str, each: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let items: Result<Vec<T>, String> = text.split(',').map(|item| each(item.trim())).collect();
    items.map_err(|accepted| format!("a list separated by commas, of which each: {accepted}"))
}

/// Where something is mounted in a container.
pub fn container_path(text: &str) -> Result<String, String> {
    let good = text.starts_with('/')
        && text.bytes().any(|b| b != b'/')
        && !text.split('/').any(|part| part == "..")
        && !text.contains(char::is_control);
    good.then(|| text.to_owned())
        .ok_or_else(|| "an absolute path in the application's container is accepted, such as /data/media".to_owned())
}

/// `SERVICE: COMMAND WORDS`, split as a shell would; no shell runs it.
pub fn hook(text: &str) -> Result<Hook, String> {
    let accepted = || "SERVICE: COMMAND is accepted, such as db: pg_dump -f /data/dump app".to_owned();
    let (service, command) = text.split_once(':').ok_or_else(accepted)?;
    let service = object_name(service.trim()).map_err(|_| accepted())?;
    let command = shell_words::split(command).map_err(|e| format!("{} ({e})", accepted()))?;
    match command.first() {
        Some(program) if !program.is_empty() => Ok(Hook { service, command }),
        _ => Err(accepted()),
    }
}

pub fn number_within(text: &str, low: u32, high: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|n| (low..=high).contains(n));
    number.ok_or_else(|| format!("a whole number from {low} to {high} is accepted"))
}

pub fn listen(text: &str) -> Result<Listen, String> {
    let accepted = || ":9000, 127.0.0.1:9000, [::1]:9000, localhost:9000 or unix:/path are accepted".to_owned();
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.starts_with('/') && !path.ends_with('/') && path.len() <= SOCKET_PATH {
            true => Ok(Listen::Unix(PathBuf::from(path))),
            false => Err(format!("unix: and an absolute path of at most {SOCKET_PATH} bytes is accepted")),
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(accepted)?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| digits).ok_or_else(accepted)?;
    let address = match host {
        "" => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        "localhost" => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        _ => text.parse().map_err(|_| accepted())?,
    };
    Ok(Listen::Tcp(address))
}

pub fn repo(text: &str) -> Result<Repo, String> {
    let good = |part: &str| {
        let chars = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        (1..=NAME).contains(&part.len()) && chars && part != "." && part != ".."
    };
    match text.split_once('/') {
        Some((owner, name)) if good(owner) && good(name) => Ok(Repo { owner: owner.to_owned(), name: name.to_owned() }),
        _ => Err("OWNER/NAME is accepted, such as Algomation-AI/ProcessGit".to_owned()),
    }
}

/// An `http` or `https` address with a host and nothing that could hold a secret.
pub fn url(text: &str) -> Result<Url, String> {
    let parsed = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let parsed = parsed.ok_or("an address that begins with http:// or https:// is accepted")?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("an address without user and password is accepted".to_owned());
    }
    Ok(parsed)
}

/// An address that paths are put behind.
pub fn base_url(text: &str) -> Result<Url, String> {
    match url(text)? {
        url if url.query().is_none() && url.fragment().is_none() => Ok(url),
        _ => Err("an address without ? and # is accepted".to_owned()),
    }
}

/// Kept as it is written, because a certificate's issuer is compared as text.
pub fn issuer(text: &str) -> Result<String, String> {
    url(text).map(|_| text.to_owned())
}

pub fn app_name(text: &str) -> Result<String, String> {
    let good = text.len() <= NAME && !text.contains(char::is_control) && text.trim() == text;
    good.then(|| text.to_owned()).ok_or_else(|| format!("a name of at most {NAME} bytes on one line is accepted"))
}

/// `HOST` or `HOST:PORT`, in lower case and without the port that https has anyway.
pub fn host_port(text: &str) -> Result<String, String> {
    let accepted = || "a host, with :PORT if it is not 443, is accepted, such as git.example.org:3000".to_owned();
    let plain = !text.is_empty() && !text.contains(['/', '?', '#', '@', '\\']) && !text.contains(char::is_whitespace);
    let url = Url::parse(&format!("https://{text}/")).ok().filter(|_| plain).ok_or_else(accepted)?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(accepted)?;
    Ok(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// As the engine and Compose allow them: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
pub fn object_name(text: &str) -> Result<String, String> {
    let good = text.len() <= NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    good.then(|| text.to_owned())
        .ok_or_else(|| "letters, digits and _ . - are accepted, a letter or digit first".to_owned())
}

/// A service, a container or a host: by its name or its address.
pub fn name_or_address(text: &str) -> Result<String, String> {
    let address = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) => Ok(address.to_string()),
        Err(_) => object_name(text).map_err(|accepted| format!("{accepted}; or an address")),
    }
}

/// What a shell and Compose's interpolation take for a variable.
pub fn variable(text: &str) -> Result<String, String> {
    let good = text.len() <= NAME
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    good.then(|| text.to_owned())
        .ok_or_else(|| "the name of a variable is accepted: letters, digits and _, no digit first".to_owned())
}

/// What is asked whether the application works.
pub fn health_target(text: &str) -> Result<HealthTarget, String> {
    let accepted = || {
        "an address that begins with http:// or https://, tcp://HOST:PORT, or none (the container's HEALTHCHECK decides) is accepted".to_owned()
    };
    if text == "none" {
        return Ok(HealthTarget::Healthcheck);
    }
    if !text.starts_with("tcp://") {
        let is_url = text.starts_with("http://") || text.starts_with("https://");
        return if is_url { url(text).map(HealthTarget::Http) } else { Err(accepted()) };
    }
    let parsed = Url::parse(text).map_err(|_| accepted())?;
    let bare = matches!(parsed.path(), "" | "/") && parsed.query().is_none() && parsed.fragment().is_none();
    let anonymous = parsed.username().is_empty() && parsed.password().is_none();
    let host = parsed.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned());
    match (host, parsed.port()) {
        (Some(host), Some(port)) if bare && anonymous && !host.is_empty() && port > 0 => {
            Ok(HealthTarget::Tcp { host, port })
        }
        _ => Err(accepted()),
    }
}

/// Must compile alone and between anchors, as it is used.
pub fn regex(text: &str) -> Result<String, String> {
    let faulty = |e: regex::Error| {
        let reason = e.to_string().lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
        format!("a regular expression is accepted ({reason})")
    };
    Regex::new(text).map_err(faulty)?;
    Regex::new(&format!("^(?:{text})$")).map_err(faulty)?;
    Ok(text.to_owned())
}

/// The identity that signs releases where nothing else is said.
pub fn default_identity(repo: &Repo) -> String {
    let (owner, name) = (regex::escape(&repo.owner), regex::escape(&repo.name));
    format!(r"^https://github\.com/{owner}/{name}/\.github/workflows/release\.yml@refs/tags/v.*$")
}

/// What a bearer token can be: an HTTP header has to carry it.
pub fn token(text: &str) -> Result<String, String> {
    let good = text.trim() == text && text.chars().all(|c| c.is_ascii() && !c.is_ascii_control());
    good.then(|| text.to_owned()).ok_or_else(|| {
        "printable ASCII on one line is accepted, without white space at either end: an HTTP header carries it"
            .to_owned()
    })
}
