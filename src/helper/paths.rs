//! Which of the host's files a helper must see so that Compose finds every path true. Pure.

use std::path::{Path, PathBuf};

use crate::engine::{Mount, MountKind, Project};

/// Folders that are never mounted whole: a helper's own program, Compose and the kernel's files are there.
const SYSTEM: [&str; 16] = [
    "/",
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/usr/lib",
    "/usr/libexec",
    "/var",
    "/var/lib",
    "/var/run",
];

/// The project's folders and files, each at its own path. `more` are files that were missed before.
///
/// # Errors
/// A folder that cannot be mounted, or a path that is none.
pub fn of_project(project: &Project, more: &[PathBuf]) -> Result<Vec<Mount>, String> {
    let folder = PathBuf::from(&project.working_dir);
    let env_folders = env_files(project).into_iter().filter_map(|file| file.parent().map(Path::to_owned));
    let mut mounts = Vec::new();
    for folder in std::iter::once(folder).chain(env_folders) {
        if !is_clean(&folder) || is_system(&folder) {
            return Err(format!(
                "the deployment is in {}, which a helper container cannot mount: move it into a folder of its own",
                folder.display()
            ));
        }
        mounts.push(bind(&folder, true));
    }
    for file in project.config_files.iter().map(Path::new) {
        if !can_be_shown(file) {
            return Err(format!(
                "the project was started with {:?}, which is no absolute path of a file: start it from a file",
                file.display()
            ));
        }
        mounts.push(bind(&beside(file), false));
    }
    mounts.extend(more.iter().filter(|file| can_be_shown(file)).map(|file| bind(&beside(file), false)));
    Ok(outermost(mounts))
}

/// What is named as a file may be any text; a whole system folder would hide the helper from itself.
pub fn can_be_shown(file: &Path) -> bool {
    is_clean(file) && !is_system(file)
}

/// Absolute, and it says where it is: labels are what whoever made the container wrote into them.
fn is_clean(path: &Path) -> bool {
    path.is_absolute() && path == normal(path)
}

/// The environment files that Compose reads for this project.
fn env_files(project: &Project) -> Vec<PathBuf> {
    if project.env_files.is_empty() {
        return vec![Path::new(&project.working_dir).join(".env")];
    }
    project.env_files.iter().map(PathBuf::from).collect()
}

/// A Compose file is read with what lies beside it (`include`, `extends`, their environment files); of a
/// system folder, and for any other file, only the file itself is shown.
fn beside(file: &Path) -> PathBuf {
    let is_yaml = file.extension().is_some_and(|e| e == "yml" || e == "yaml");
    match file.parent() {
        Some(folder) if is_yaml && !is_system(folder) => folder.to_owned(),
        _ => file.to_owned(),
    }
}

fn is_system(folder: &Path) -> bool {
    SYSTEM.iter().any(|system| Path::new(system) == folder)
}

fn bind(path: &Path, writable: bool) -> Mount {
    let path = path.display().to_string();
    Mount {
        kind: MountKind::Bind,
        name: String::new(),
        source: path.clone(),
        destination: path,
        writable,
        subpath: String::new(),
    }
}

/// Without what lies in another one. The outer one is writable if an inner one has to be.
fn outermost(mut mounts: Vec<Mount>) -> Vec<Mount> {
    mounts.sort_by_key(|m| Path::new(&m.destination).components().count());
    let mut kept: Vec<Mount> = Vec::new();
    for mount in mounts {
        match kept.iter_mut().find(|outer| Path::new(&mount.destination).starts_with(&outer.destination)) {
            Some(outer) => outer.writable |= mount.writable,
            None => kept.push(mount),
        }
    }
    kept
}

/// The paths in Compose's complaint. It says in words only which file it misses, so each of them is no more than a file
/// to be tried: whether the host has it shows when it is mounted, and whether it was the one when Compose is asked again.
pub fn named_in(complaint: &str) -> Vec<PathBuf> {
    let words = complaint.split(|c: char| c.is_whitespace() || "\"'`()[]{},;=".contains(c));
    let paths = words.map(|word| PathBuf::from(word.trim_end_matches([':', '.'])));
    let mut named: Vec<PathBuf> = paths.filter(|path| can_be_shown(path)).collect();
    named.sort();
    named.dedup();
    named
}

/// Files that a Compose file names under `env_file`, absolute. One that is `required: false` and cannot be
/// seen is left out by Compose without a word, so they are looked for beforehand. A scan of lines, not a
/// parser: what it finds too much is only shown to the helper, and what has a variable in it is passed over.
pub fn env_files_in(compose_file: &str, working_dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut within: Option<usize> = None;
    for line in compose_file.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if within.is_some_and(|start| indent < start || (indent == start && !text.starts_with('-'))) {
            within = None;
        }
        let value = match text.strip_prefix("env_file:") {
            Some(value) => {
                within = Some(indent);
                value
            }
            None if within.is_some() => text,
            None => continue,
        };
        if text.contains('$') {
            continue;
        }
        for name in value.split(|c: char| c.is_whitespace() || ",[]{}\"'".contains(c)) {
            let path = normal(&Path::new(working_dir).join(name));
            if name.contains('/') && !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// Without `.` and `..`, as text.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(folder: &str, files: &str, env_files: &str) -> Project {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Project {
            name: "p".into(),
            service: "app".into(),
            crew: vec![],
            working_dir: folder.into(),
            config_files: list(files),
            env_files: list(env_files),
            version_key: "V".into(),
            underscores: None,
        }
    }

    #[test]
    fn what_a_helper_sees_of_the_host() {
        let app = "/srv/app/docker-compose.yml";
        for (folder, files, env, more, expected) in [
            ("/srv/app", app, "", "", "/srv/app!"),
            // Several Compose files, one of them elsewhere: with what lies beside it.
            ("/srv/app", "/srv/app/a.yml /opt/more/b.yaml", "", "", "/opt/more /srv/app!"),
            ("/srv/app", "/etc/b.yml", "", "", "/etc/b.yml /srv/app!"),
            // The environment file's folder is written to.
            ("/srv/app", app, "/srv/env/prod.env", "", "/srv/app! /srv/env!"),
            ("/srv/app/sub", app, "/srv/app/x.env", "", "/srv/app!"),
            // What Compose missed: the file alone.
            ("/srv/app", app, "", "/srv/x.env /srv/app/y", "/srv/app! /srv/x.env"),
        ] {
            let more: Vec<PathBuf> = more.split_whitespace().map(PathBuf::from).collect();
            let mounts = of_project(&project(folder, files, env), &more).unwrap();
            let shown = |m: &Mount| format!("{}{}", m.destination, if m.writable { "!" } else { "" });
            let mut shown: Vec<_> = mounts.iter().map(shown).collect();
            shown.sort();
            assert_eq!(shown.join(" "), expected, "{folder} {files} {env} {more:?}");
            assert!(mounts.iter().all(|m| m.source == m.destination), "paths are true");
        }
        for folder in ["/", "/etc", "/etc/", "/srv/../etc", "relative"] {
            let refused = of_project(&project(folder, "/x/a.yml", ""), &[]).unwrap_err();
            assert!(refused.contains("move it into a folder of its own"), "{refused}");
        }
        for file in ["-", "a.yml", "/srv/../etc/a.yml", "/"] {
            let refused = of_project(&project("/srv/app", file, ""), &[]).unwrap_err();
            assert!(refused.contains("no absolute path"), "{refused}");
        }
    }

    #[test]
    fn compose_complains_of_what_it_cannot_see() {
        for (complaint, named) in [
            ("env file /srv/x.env not found: stat /srv/x.env: no such file or directory", &["/srv/x.env"][..]),
            ("compose config for app ended with exit status: 1: open /srv/b.yml: no such file", &["/srv/b.yml"]),
            (
                "in other words: `/srv/a.yml`, \"/srv/b.yml\" (and /srv/c.env).",
                &["/srv/a.yml", "/srv/b.yml", "/srv/c.env"],
            ),
            ("services.app.image must be a string", &[]),
            ("open b.yml: no such file or directory; a/b", &[]),
            ("/ and /etc and /srv/../etc/x", &[]),
        ] {
            assert_eq!(named_in(complaint), named.iter().map(PathBuf::from).collect::<Vec<_>>(), "{complaint}");
        }
    }

    #[test]
    fn environment_files_of_services() {
        let file = "
services:
  a:
    env_file: ../a.env
    image: x/y
  b:
    env_file:
    - /etc/b.env
    - path: '../opt.env'
      required: false
    # - ../commented.env
    - ${WHERE}/c.env
    volumes:
    - ../data:/data
  c:
    env_file: [ \"../a.env\", '../d/e.env' ]
  d:
    env_file:
      - { path: ../f.env, required: false }
";
        let found = env_files_in(file, "/srv/app");
        assert_eq!(
            found,
            ["/srv/a.env", "/etc/b.env", "/srv/opt.env", "/srv/d/e.env", "/srv/f.env"].map(PathBuf::from)
        );
    }
}
