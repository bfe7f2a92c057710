//! `release.json`

use processgit_updater::reference::{is_sha256, version_of};
use processgit_updater::release::manifest::{MANIFEST_CAP, Manifest};

/// What is accepted can be pulled, written to `.env` and shown, without surprises.
pub fn fuzz(bytes: &[u8]) {
    let manifest = match Manifest::parse(bytes) {
        Ok(manifest) => manifest,
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("release.json"), "an error that does not say what is wrong: {text}");
            assert!(text.len() < 4096, "an error of {} bytes", text.len());
            return;
        }
    };
    assert!(bytes.len() <= MANIFEST_CAP);
    assert_eq!(manifest.tag, format!("v{}", manifest.version), "the tag is the version's");
    let image = &manifest.image;
    assert!(is_sha256(&image.digest), "{}", image.digest);
    assert_eq!(version_of(&manifest.image_reference()), Some(image.tag.as_str()), "the reference names the tag");
    let words = [&manifest.tag, &image.registry, &image.repository, &image.tag, &image.digest];
    for word in words.into_iter().chain(&image.platforms).chain(&image.additional_tags) {
        assert!(!word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic()), "{word:?} is one plain word");
    }
    if manifest.migration.required {
        let command = manifest.migration.command.as_deref().unwrap_or_default();
        assert!(command.first().is_some_and(|program| !program.is_empty()), "a migration that runs nothing");
    }
    assert_eq!(Manifest::parse(bytes).as_ref(), Ok(&manifest), "twice the same");
}
