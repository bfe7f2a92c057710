//! Which containers are this updater's own.
//!
//! Labels are readable by everything that may ask the engine, and a container inherits those of its image, so
//! a label alone proves nothing. Every container that this updater makes carries a seal: an HMAC-SHA256
//! (RFC 2104) over the container's name and our labels, with a secret that never leaves the state folder.
//! Only what a valid seal covers is read. Everything else is treated as somebody else's container: it is never
//! acted on, removed or waited for.
//!
//! The label is `1 <64 hexadecimal digits> <labels covered, comma list>`. It names what it covers, so that a
//! label inherited from the image neither counts nor breaks the seal.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::{Container, ContainerSpec, label};
use crate::update::job::JobId;

/// Keeps these codes apart from any other use of the same secret, and one format from the next.
const DOMAIN: &[u8] = b"processgit-updater container labels";
const VERSION: &str = "1";

/// Seals containers, and recognises its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Seal([u8; 32]);

/// The labels of a container that this updater has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours<'a>(BTreeMap<&'a str, &'a str>);

impl Seal {
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// Of a state folder that does not exist yet: there is no container of its own.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Seals the labels of ours that the container is to carry, under the name it is to have.
    #[must_use]
    pub fn put_on(&self, mut spec: ContainerSpec) -> ContainerSpec {
        let is_ours = |(name, _): &(&String, &String)| name.starts_with(label::OURS) && *name != label::SEAL;
        let labels = spec.labels.iter().filter(is_ours).map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let code = hex::encode(self.code(&spec.name, &labels).finalize().into_bytes());
        let covered: Vec<_> = labels.keys().map(|name| &name[label::OURS.len()..]).collect();
        let seal = format!("{VERSION} {code} {}", covered.join(","));
        spec.labels.insert(label::SEAL.to_owned(), seal);
        spec
    }

    /// The labels that are proven to be ours; `None` when this updater has not made the container.
    pub fn read<'a>(&self, container: &'a Container) -> Option<Ours<'a>> {
        self.proven(&container.name, &container.labels)
    }

    /// The container belongs to this job. Of a job that a version without seals has begun (`sealed` is false),
    /// a container without any seal counts too, if it has exactly the name that such a job gives.
    pub fn read_of<'a>(&self, container: &'a Container, job: &JobId, sealed: bool) -> Option<Ours<'a>> {
        let ours = match self.read(container) {
            None if !sealed => unsealed(container)?,
            other => other?,
        };
        let of = ours.job().or_else(|| ours.label(label::DEPUTY_OF)?.parse().ok())?;
        (of == *job).then_some(ours)
    }

    fn proven<'a>(&self, container: &str, labels: &'a BTreeMap<String, String>) -> Option<Ours<'a>> {
        let mut words = labels.get(label::SEAL)?.splitn(3, ' ');
        let (version, code, covered) = (words.next()?, words.next()?, words.next()?);
        let mut proven = BTreeMap::new();
        for name in covered.split(',') {
            let (name, value) = labels.get_key_value(&format!("{}{name}", label::OURS))?;
            proven.insert(name.as_str(), value.as_str());
        }
        let code = hex::decode(code).ok().filter(|_| version == VERSION)?;
        // Compared in constant time.
        self.code(container, &proven).verify_slice(&code).ok()?;
        Some(Ours(proven))
    }

    /// Every part is preceded by its length, so that no two contents are encoded alike.
    fn code(&self, container: &str, labels: &BTreeMap<&str, &str>) -> Hmac<Sha256> {
        // Any length of key is accepted (RFC 2104, section 2); the empty one stands for the case that cannot be.
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).unwrap_or_else(|_| Hmac::new(&Default::default()));
        let mut add = |part: &[u8]| {
            code.update(&(part.len() as u64).to_be_bytes());
            code.update(part);
        };
        add(DOMAIN);
        add(VERSION.as_bytes());
        add(container.as_bytes());
        for (name, value) in labels {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        code
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(secret)")
    }
}

impl<'a> Ours<'a> {
    pub fn label(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied().filter(|value| !value.is_empty())
    }

    pub fn role(&self) -> &'a str {
        self.label(label::ROLE).unwrap_or_default()
    }

    /// The job that it belongs to.
    pub fn job(&self) -> Option<JobId> {
        self.label(label::JOB)?.parse().ok()
    }
}

/// As versions without seals have labelled it, under the name that they gave.
fn unsealed(container: &Container) -> Option<Ours<'_>> {
    let labels = container.labels.iter().filter(|(name, _)| name.starts_with(label::OURS));
    let ours = Ours(labels.map(|(name, value)| (name.as_str(), value.as_str())).collect());
    let job = ours.job().or_else(|| ours.label(label::DEPUTY_OF)?.parse().ok())?;
    let is_named_so = match ours.role() {
        CLAIM => container.name.starts_with(CLAIM_NAME),
        role => container.name == name_of(role, &job),
    };
    (is_named_so && !ours.0.contains_key(label::SEAL)).then_some(ours)
}

/// The role of a claim, and the beginning of its name.
pub const CLAIM: &str = "claim";
pub const CLAIM_NAME: &str = "processgit-updater-claim-";

/// The name of a job's container, by its role.
pub fn name_of(role: &str, job: &JobId) -> String {
    format!("processgit-updater-{role}-{}", job.digits())
}

/// Their names, for people; of very many the first.
pub fn few(containers: &[&Container]) -> String {
    let named: Vec<_> = containers.iter().take(MOST_NAMED).map(|c| c.name.as_str()).collect();
    match containers.len().saturating_sub(MOST_NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

const MOST_NAMED: usize = 20;

/// It carries a label of ours, rightly or not.
pub fn says_to_be_ours(container: &Container) -> bool {
    container.labels.keys().any(|name| name.starts_with(label::OURS))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Labels = BTreeMap<String, String>;

    const NAME: &str = "made";

    fn sealed() -> Labels {
        let labels = [(label::JOB, "job_0123456789abcdef"), (label::ROLE, "claim"), (label::NOTE, "{}"), ("team", "x")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Seal::new([1; 32]).put_on(ContainerSpec { name: NAME.into(), labels, ..ContainerSpec::default() }).labels
    }

    fn with(change: impl FnOnce(&mut Labels)) -> Labels {
        let mut labels = sealed();
        change(&mut labels);
        labels
    }

    fn set(labels: &mut Labels, name: &str, value: &str) {
        labels.insert(name.to_owned(), value.to_owned());
    }

    #[test]
    fn only_what_was_sealed_is_read() {
        let seal = Seal::new([1; 32]);
        let labels = sealed();
        let ours = seal.proven(NAME, &labels).unwrap();
        assert_eq!((ours.role(), ours.label(label::NOTE), ours.label("team")), ("claim", Some("{}"), None));
        assert_eq!(ours.job(), Some("job_0123456789abcdef".parse().unwrap()));

        // A label inherited from the image is not read, and is no obstacle.
        let inherited = with(|l| set(l, label::OWNER, "the image's"));
        assert_eq!(seal.proven(NAME, &inherited).unwrap().label(label::OWNER), None);
        // Compose's labels are not ours to vouch for.
        assert!(seal.proven(NAME, &with(|l| set(l, "team", "y"))).is_some());
    }

    #[test]
    fn what_was_changed_or_copied_is_not_ours() {
        let seal = Seal::new([1; 32]);
        assert_eq!(seal.proven("copy", &sealed()), None, "under another name");
        assert_eq!(Seal::new([2; 32]).proven(NAME, &sealed()), None, "another updater's");
        let code = sealed()[label::SEAL].clone();
        let rows: Vec<(&str, Labels)> = vec![
            ("another note", with(|l| set(l, label::NOTE, "{\"plan\":1}"))),
            ("another job", with(|l| set(l, label::JOB, "job_fedcba9876543210"))),
            ("a label taken away", with(|l| drop(l.remove(label::NOTE)))),
            (
                "two labels exchanged",
                with(|l| {
                    set(l, label::ROLE, "{}");
                    set(l, label::NOTE, "claim");
                }),
            ),
            ("no seal", with(|l| drop(l.remove(label::SEAL)))),
            ("an empty seal", with(|l| set(l, label::SEAL, ""))),
            ("a seal of another format", with(|l| set(l, label::SEAL, &code.replacen('1', "2", 1)))),
            ("one label fewer is covered", with(|l| set(l, label::SEAL, code.trim_end_matches(",role")))),
            (
                "one label more is covered",
                with(|l| {
                    set(l, label::OWNER, "x");
                    set(l, label::SEAL, &format!("{code},owner"));
                }),
            ),
            ("half a code", with(|l| set(l, label::SEAL, "1 00ff job,note,role"))),
            ("no code", with(|l| set(l, label::SEAL, "1  job,note,role"))),
        ];
        for (what, labels) in rows {
            assert_eq!(seal.proven(NAME, &labels), None, "{what}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Seal::new([65; 32])), "Seal(secret)");
    }
}
