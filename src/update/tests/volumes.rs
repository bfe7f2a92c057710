//! Which anonymous volumes go with the new version.

use super::drift;
use super::transition::plan;
use crate::engine::{Container, Mount, MountKind};
use crate::update::effects::volumes::brought;

#[test]
fn only_what_came_with_the_new_version() {
    let anonymous = |digit: &str| digit.repeat(64);
    let mount = |name: &str| Mount {
        kind: MountKind::Volume,
        name: name.to_owned(),
        source: String::new(),
        destination: format!("/{}", &name[..1]),
        writable: true,
        subpath: String::new(),
    };
    let mut plan = plan();
    plan.data.copied.push(mount(&anonymous("a")));
    plan.data.uncovered.push(mount(&anonymous("b")));
    let container = |id: &str, image: &str, volumes: &[&str]| Container {
        id: id.to_owned(),
        image_id: image.to_owned(),
        mounts: volumes.iter().map(|name| mount(name)).collect(),
        ..drift::container()
    };
    let (a, b, c) = (anonymous("a"), anonymous("b"), anonymous("c"));
    let all = [a.as_str(), &b, &c, "named"];
    let old = plan.previous.container_id.clone();
    for (id, image, brought_along) in [
        ("new", "sha256:other", vec![c.clone()]),
        ("anew", plan.previous.image_id.as_str(), vec![]),
        (old.as_str(), "sha256:other", vec![]),
    ] {
        let found = brought(&plan, &[container(id, image, &all)]);
        assert_eq!(found, brought_along.into_iter().collect(), "{id} {image}");
    }
}
