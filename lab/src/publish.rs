//! A whole release: image built, pushed and signed; manifest written and signed; assets offered.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::Lab;
use crate::image::{ImageSpec, own_platform};
use crate::registry::Pushed;
use crate::releases::{Offer, REPO};
use crate::signer::Layout;

/// The repository of the application's images.
pub const REPOSITORY: &str = "demo/app";

/// How the manifest is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// `release.json.sig`
    Detached,
    /// `release.json.sigstore.json`
    Bundle,
    Nothing,
}

type Edit = Box<dyn FnOnce(&mut Value)>;
type Tamper = Box<dyn FnOnce(Vec<u8>) -> Vec<u8>>;

/// A release to be; genuine and good unless told otherwise.
pub struct ReleaseSpec {
    version: String,
    tag: String,
    prerelease: bool,
    image: ImageSpec,
    existing: Option<Pushed>,
    image_tag: String,
    app_name: String,
    edits: Vec<Edit>,
    bytes: Option<Vec<u8>>,
    tamper: Option<Tamper>,
    carrier: Carrier,
    by_stranger: bool,
    image_signature: Option<Layout>,
}

/// What was offered.
#[derive(Debug, Clone)]
pub struct Published {
    pub tag: String,
    pub version: String,
    pub image: Pushed,
    /// The tag that the manifest names.
    pub image_tag: String,
    pub assets: Vec<(String, Bytes)>,
}

impl Published {
    /// `registry/repository:tag`
    pub fn tagged(&self) -> String {
        format!("{}:{}", self.image.name(), self.image_tag)
    }
}

impl ReleaseSpec {
    /// Version `1.1.0`, tag `v1.1.0`, image tag `1.1.0`.
    pub fn new(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            tag: format!("v{version}"),
            prerelease: version.contains('-'),
            image: ImageSpec::new(version),
            existing: None,
            image_tag: version.replace('+', "_"),
            app_name: "demo".to_owned(),
            edits: Vec::new(),
            bytes: None,
            tamper: None,
            carrier: Carrier::Detached,
            by_stranger: false,
            image_signature: Some(Layout::Tag),
        }
    }

    /// The same of the application with its data in PostgreSQL, which knows this schema.
    pub fn notes(version: &str, schema: u32) -> Self {
        Self { image: ImageSpec::notes(version, schema), ..Self::new(version) }
    }

    /// The application's behaviour: `crash`, `slow:2` …
    pub fn behaviour(mut self, behaviour: &str) -> Self {
        self.image.behaviour = behaviour.to_owned();
        self
    }

    /// Changes the image.
    pub fn image(mut self, change: impl FnOnce(&mut ImageSpec)) -> Self {
        change(&mut self.image);
        self
    }

    /// Offers an image that is in the registry already.
    pub fn existing_image(mut self, image: &Pushed, tag: &str) -> Self {
        self.existing = Some(image.clone());
        self.image_tag = tag.to_owned();
        self
    }

    /// The `name` in the manifest; must agree with the deployment's.
    pub fn app_name(mut self, name: &str) -> Self {
        self.app_name = name.to_owned();
        self
    }

    /// The tag in the releases API and in the manifest.
    pub fn tag(mut self, tag: &str) -> Self {
        self.tag = tag.to_owned();
        self
    }

    /// Changes the manifest before it is signed.
    pub fn manifest(mut self, edit: impl FnOnce(&mut Value) + 'static) -> Self {
        self.edits.push(Box::new(edit));
        self
    }

    /// Requires a migration: words of a command line.
    pub fn migration(self, command: &str) -> Self {
        let command = command.to_owned();
        self.manifest(move |m| m["migration"] = json!({ "required": true, "command": command }))
    }

    /// Offers these bytes, signed, instead of a manifest.
    pub fn bytes(mut self, bytes: Vec<u8>) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Changes the manifest's bytes *after* they were signed.
    pub fn tampered(mut self, tamper: impl FnOnce(Vec<u8>) -> Vec<u8> + 'static) -> Self {
        self.tamper = Some(Box::new(tamper));
        self
    }

    pub fn carrier(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }

    /// Signed by a key that the updater does not know.
    pub fn by_a_stranger(mut self) -> Self {
        self.by_stranger = true;
        self
    }

    pub fn image_signature(mut self, layout: Option<Layout>) -> Self {
        self.image_signature = layout;
        self
    }
}

pub(crate) fn publish(lab: &Lab, spec: ReleaseSpec) -> Published {
    let signer = if spec.by_stranger { &lab.stranger } else { &lab.signer };
    let image = spec.existing.clone().unwrap_or_else(|| lab.registry.push(REPOSITORY, &spec.image_tag, &spec.image));
    if let Some(layout) = spec.image_signature {
        signer.image(&image.reference(), layout);
    }
    let mut manifest = manifest(&spec, &image);
    for edit in spec.edits {
        edit(&mut manifest);
    }
    let signed = spec.bytes.unwrap_or_else(|| format!("{manifest:#}\n").into_bytes());
    let signature = match spec.carrier {
        Carrier::Detached => Some(("release.json.sig".to_owned(), signer.signature(&signed).into())),
        Carrier::Bundle => Some(("release.json.sigstore.json".to_owned(), signer.bundle(&signed).into())),
        Carrier::Nothing => None,
    };
    let offered = spec.tamper.map_or(signed.clone(), |tamper| tamper(signed));
    let assets: Vec<(String, Bytes)> =
        [("release.json".to_owned(), offered.into())].into_iter().chain(signature).collect();
    let offer = Offer { tag: spec.tag.clone(), prerelease: spec.prerelease, draft: false, assets: assets.clone() };
    lab.releases.offer(offer);
    Published { tag: spec.tag, version: spec.version, image, image_tag: spec.image_tag, assets }
}

/// A manifest as release pipelines write it.
fn manifest(spec: &ReleaseSpec, image: &Pushed) -> Value {
    json!({
        "schema_version": 1,
        "name": spec.app_name,
        "version": spec.version,
        "tag": spec.tag,
        "released_at": "2026-01-01T00:00:00Z",
        "prerelease": spec.prerelease,
        "min_upgrade_from": null,
        "image": {
            "registry": image.registry,
            "repository": image.repository,
            "tag": spec.image_tag,
            "digest": image.digest,
            "platforms": [own_platform()],
        },
        "signing": {
            "method": "cosign-keyless",
            "issuer": "https://token.actions.githubusercontent.com",
            "identity_regex": format!("^https://github\\.com/{REPO}/\\.github/workflows/release\\.yml@refs/tags/v.*$"),
        },
        "release_notes_url": format!("https://example.invalid/{REPO}/releases/{}", spec.tag),
        "migration": { "required": false },
        "breaking_changes": [],
        "deprecations": [],
    })
}
