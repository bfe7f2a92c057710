//! How Compose made a container, from the labels it left there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Project, label};
use crate::update::refusal::{Code, Refusal};

/// What the operator says of the project; everything else is in the labels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Named<'a> {
    /// The service, where the label is not to be believed.
    pub service: Option<&'a str>,
    /// Services that are moved together with it.
    pub crew: &'a [String],
    pub version_key: &'a str,
}

/// The project of the container `name`.
///
/// # Errors
/// A label is missing; the text names it.
pub fn project(name: &str, labels: &BTreeMap<String, String>, named: Named<'_>) -> Result<Project, Refusal> {
    let need = |label: &str| {
        labels.get(label).cloned().ok_or_else(|| {
            let what = format!(
                "container {name} has no label {label}: it was not made by Docker Compose, and only Compose can make it anew"
            );
            Refusal::new(Code::NotByCompose, what).text("run the application by a Compose file: docker compose up -d")
        })
    };
    let working_dir = need(label::WORKING_DIR)?;
    let list = |text: &String| paths(text, &working_dir);
    let service = named.service.or_else(|| labels.get(label::SERVICE).map(String::as_str)).unwrap_or(name);
    Ok(Project {
        name: need(label::PROJECT)?,
        service: service.to_owned(),
        // A set: no service is named twice.
        crew: Vec::from_iter(BTreeSet::from_iter(named.crew.iter().filter(|other| *other != service).cloned())),
        config_files: list(&need(label::CONFIG_FILES)?),
        env_files: labels.get(label::ENVIRONMENT_FILE).map(list).unwrap_or_default(),
        working_dir,
        version_key: named.version_key.to_owned(),
        underscores: underscores(name, labels),
    })
}

/// The paths of a comma list. Compose writes absolute ones and quotes no comma, so what does not begin like a path
/// is the rest of the one before; and so is what follows a comma in the name of the project's folder.
fn paths(list: &str, folder: &str) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    let is_absolute = list.starts_with('/');
    for piece in list.split(',') {
        match paths.last_mut() {
            Some(last) if is_absolute && (!piece.starts_with('/') || is_within(folder, last)) => {
                last.push(',');
                last.push_str(piece);
            }
            _ if piece.is_empty() => {}
            _ => paths.push(piece.to_owned()),
        }
    }
    paths
}

/// The path is the beginning of the folder's name, up to a comma.
fn is_within(folder: &str, path: &str) -> bool {
    folder.strip_prefix(path).is_some_and(|rest| rest.starts_with(','))
}

/// Where Compose has chosen the container's name, it shows how it does.
fn underscores(name: &str, labels: &BTreeMap<String, String>) -> Option<bool> {
    let of = |label: &str| labels.get(label).map(String::as_str);
    let parts = [of(label::PROJECT)?, of(label::SERVICE)?, of(label::NUMBER)?];
    [true, false].into_iter().find(|underscores| parts.join(if *underscores { "_" } else { "-" }) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths() {
        for (list, expected) in [
            ("/a/b.yml", &["/a/b.yml"][..]),
            ("/a/b.yml,/a/c.yml", &["/a/b.yml", "/a/c.yml"]),
            ("/srv/x,y/b.yml", &["/srv/x,y/b.yml"]),
            ("/srv/x,y/b.yml,/srv/x, y,z/c.yml", &["/srv/x,y/b.yml", "/srv/x, y,z/c.yml"]),
            ("/srv/x,,y.yml", &["/srv/x,,y.yml"]),
            // Of earlier versions of Compose.
            ("b.yml,c.yml", &["b.yml", "c.yml"]),
            ("-", &["-"]),
            ("", &[]),
            // The folder's name ends in a comma, or has one before a slash.
            ("/srv/a,/b.yml,/srv/c.yml", &["/srv/a,/b.yml", "/srv/c.yml"]),
            ("/srv/a,/b.yml,/c.yml", &["/srv/a,/b.yml", "/c.yml"]),
        ] {
            assert_eq!(paths(list, "/srv/a,"), expected, "{list}");
        }
    }

    #[test]
    fn the_name_of_a_container_shows_how_compose_chooses_names() {
        for (name, expected) in [
            ("shop_app_1", Some(true)),
            ("shop-app-1", Some(false)),
            // Chosen by the Compose file, or of another number.
            ("shop", None),
            ("shop-app-2", None),
        ] {
            let labels = [
                (label::PROJECT, "shop"),
                (label::SERVICE, "app"),
                (label::NUMBER, "1"),
                (label::WORKING_DIR, "/srv/shop"),
                (label::CONFIG_FILES, "/srv/shop/compose.yml"),
            ];
            let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
            assert_eq!(project(name, &labels, Named::default()).unwrap().underscores, expected, "{name}");
        }
    }
}
