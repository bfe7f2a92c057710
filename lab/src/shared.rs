//! Images that take a while to make: once for all tests of a program. Each run derives one of its own, so that whatever
//! is made of it carries that run's label and goes with it.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use crate::Lab;
use crate::run::{LABEL, shared_owner};

/// Makes the image `tag` with `make`, which is given its name and its label (`NAME=VALUE`), if no other test has.
pub(crate) fn image(lab: &Lab, tag: &str, make: impl FnOnce(&str, &str)) -> String {
    let owner = shared_owner();
    let name = format!("{owner}:{tag}");
    // Tests are processes of their own: one builds, the others wait for it.
    let folder = std::env::temp_dir().join(&owner);
    fs::create_dir_all(&folder).expect("a folder for a lock");
    let lock = File::create(folder.join(format!("lock-{tag}"))).expect("a lock");
    flock(&lock, FlockOperation::LockExclusive).expect("locking");
    if lab.engine.image(&name).is_none() {
        make(&name, &format!("{LABEL}={owner}"));
    }
    name
}

/// `docker build` of a file without context; the image gets this run's label.
pub(crate) fn build(lab: &Lab, name: &str, dockerfile: &str) {
    let mut build = Command::new("docker")
        .args(["build", "--quiet", "--label", &lab.run.label(), "--tag", name, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("docker");
    build.stdin.take().expect("its input").write_all(dockerfile.as_bytes()).expect("writing a Dockerfile");
    assert!(build.wait().expect("docker build").success(), "{name} cannot be built");
}
