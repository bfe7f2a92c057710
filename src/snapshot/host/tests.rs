use std::fs;

use super::*;
use crate::engine::MountKind;

struct Bench {
    folder: tempfile::TempDir,
    mounts: Vec<DataMount>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("data");
        fs::create_dir(&source).unwrap();
        let mount = Mount {
            kind: MountKind::Bind,
            name: String::new(),
            source: source.display().to_string(),
            destination: "/data".into(),
            writable: true,
            subpath: String::new(),
        };
        let bench = Self { folder, mounts: vec![DataMount::new(mount)] };
        bench.write("kept", "kept");
        bench.write("changed", "before");
        bench.write("removed", "before");
        bench
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join("data").join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.path().join("data").join(name)).ok()
    }

    fn data(&self, keep: usize) -> HostData {
        HostData::new(self.folder.path().join("repository"), Retention { keep, max_age: None })
    }
}

fn of(job: &str, by_hand: bool) -> CopyLabel {
    CopyLabel {
        job: JobId(job.into()),
        version: Some("1.0.0".into()),
        image: "r/a:1.0.0".into(),
        image_id: "sha256:1".into(),
        repo_digest: None,
        env_value: Some("1.0.0".into()),
        by_hand,
    }
}

#[tokio::test]
async fn what_is_copied_is_told_and_put_back() {
    let bench = Bench::new();
    let data = bench.data(5);
    assert_eq!((data.off(), data.list().await), (None, Ok(vec![])));
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = told.clone();
    let report: CopyReport = Arc::new(move |progress| lock(&tells).push(progress));
    data.preflight(&bench.mounts).await.unwrap();
    data.hot(&of("one", false), &bench.mounts, report.clone()).await.unwrap();
    let copy = data.cold(&of("one", false), &bench.mounts, report).await.unwrap();
    // The root and three files, by each of the two passes.
    let told = lock(&told).clone();
    assert_eq!((told.len(), told[0].files, told[0].bytes, told[0].total_bytes), (2, 4, 16, Some(16)));
    assert!(told[1].bytes >= 16, "the second pass counts on from the first: {told:?}");

    let listed = data.list().await.unwrap();
    let [info] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((&info.id, info.consistent, info.entries, &*info.reason), (&copy.id, true, 4, "before a change"));
    assert_eq!((&info.mounts, &info.label), (&vec!["/data".to_owned()], &Some(of("one", false))));
    data.verify(&copy.id).await.unwrap();

    assert_eq!(data.distance(&copy.id, &bench.mounts).await, Ok(Distance::default()));
    bench.write("added", "12345");
    bench.write("changed", "after");
    fs::remove_file(bench.folder.path().join("data/removed")).unwrap();
    // The folder's own time is a change too.
    let distance = data.distance(&copy.id, &bench.mounts).await.unwrap();
    assert_eq!((distance.files, distance.bytes), (4, 10));

    let kept = data.restore(&of("two", false), &copy.id, &bench.mounts, &[], silent()).await.unwrap();
    assert_eq!((&*kept.id, kept.pruned.len()), ("failed-two", 0));
    assert_eq!((bench.read("added"), bench.read("changed").as_deref()), (None, Some("before")));
    data.load(&kept.id, &bench.mounts, silent()).await.unwrap();
    assert_eq!((bench.read("added").as_deref(), bench.read("removed")), (Some("12345"), None));

    let archive = bench.folder.path().join("archive");
    data.export(&copy.id, Box::new(fs::File::create(&archive).unwrap())).await.unwrap();
    assert!(fs::metadata(&archive).unwrap().len() > 100);
    data.verify("none").await.unwrap_err();
}

#[tokio::test]
async fn the_newest_stay_and_what_is_needed() {
    let bench = Bench::new();
    let data = bench.data(1);
    let mut ids = Vec::new();
    for job in ["one", "two", "three"] {
        bench.write("changed", job);
        ids.push(data.cold(&of(job, true), &bench.mounts, silent()).await.unwrap().id);
    }
    assert!(data.list().await.unwrap().iter().all(|info| info.reason == "asked for"));
    data.hot(&of("four", false), &bench.mounts, silent()).await.unwrap();
    assert_eq!(data.room(&bench.mounts).await.unwrap().unfinished, 1);
    let standing = Standing { needed: vec![ids[0].clone()], attempts: vec![] };
    data.tidy(&JobId("four".into()), &standing).await.unwrap();
    let left: Vec<String> = data.list().await.unwrap().into_iter().map(|info| info.id).collect();
    assert_eq!(left, [ids[2].clone(), ids[0].clone()]);
    assert_eq!(data.room(&bench.mounts).await.unwrap().unfinished, 0, "what a job had begun is gone");
}

/// The number of a device counts only as long as nothing can have given it another one.
#[test]
fn whose_numbers_are_the_same() {
    assert_eq!(boot().len(), 36, "a UUID");
    for (major, boot_of, mounted_on_use, expected) in [
        (8, boot(), false, true),
        (8, boot(), true, true),
        (0, boot(), false, true),
        (0, boot(), true, false),
        (8, "another".to_owned(), false, false),
    ] {
        let root = Root { path: "/".into(), device: (major, 1), inode: 2, boot: boot_of, mounted_on_use };
        assert_eq!(is_still_numbered(&root), expected, "{root:?}");
    }
}

#[test]
fn a_source_is_named_by_where_the_application_sees_it() {
    let bench = Bench::new();
    let named =
        |destination: &str| name_of(&Mount { destination: destination.into(), ..bench.mounts[0].mount.clone() });
    assert!(named("/var/lib/a b").starts_with("var-lib-a-b-"));
    assert_ne!(named("/a b"), named("/a-b"), "they differ in what a name cannot hold");
    assert_eq!(named("/data"), named("/data"));
    assert!(named(&format!("/{}", "x".repeat(200))).len() < 80);
}
