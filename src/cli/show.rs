//! Answers of the updater as people read them.

use std::fmt::Write;

use jiff::Timestamp;

use super::client::Status;
use super::text::{between, clean, duration, moment, table};
use super::view::copied;
use crate::update::Check;
use crate::update::job::{Job, Kind, Progress, State, Step, Verified};
use crate::update::settle::Settlement;

/// How the updater is.
pub fn status(status: &Status, url: &str, now: Timestamp) -> String {
    let mut rows = vec![row("updater", format!("{} at {url}", status.version))];
    if let Some(started_at) = status.started_at {
        rows.push(row("up", duration(between(started_at, now))));
    }
    if status.stub {
        rows.push(row("stub", "every Docker operation is simulated".into()));
    }
    if !status.trust.is_empty() {
        rows.push(row("trust", status.trust.clone()));
    }
    for waiting in &status.needs_you {
        rows.push(row("needs you", format!("{0} failed: processgit-updater history {0}", waiting.job)));
    }
    rows.push(row("jobs", status.recent_jobs_count.to_string()));
    rows.push(row("active", status.active_job.as_ref().map_or("none".into(), |job| active(job, now))));
    let mut shown = table(&rows);
    if let Some(job) = &status.active_job {
        if let Some(Progress::Copy(copy)) = job.steps.last().and_then(|step| step.progress.as_ref()) {
            list(&mut shown, "copying", &[copied(copy)]);
        }
        list(&mut shown, "verified", &genuine(&job.verified));
    }
    list(&mut shown, "notices", &status.notices);
    shown
}

fn active(job: &Job, now: Timestamp) -> String {
    let since = job.steps.last().map_or(job.started_at, |step| step.started_at);
    format!("{}: {}, {} for {}", job.id, aim(job), job.state, duration(between(since, now)))
}

/// What a job is for: `update to v0.1.2`. By hand, the version is known only when it is planned.
pub fn aim(job: &Job) -> String {
    let tag = &job.target_tag;
    match job.kind {
        Kind::Update => format!("update to {tag}"),
        Kind::SelfUpdate if !tag.is_empty() => format!("update of the updater to {tag}"),
        Kind::Rollback if !tag.is_empty() => format!("rollback to {tag}"),
        kind => name(kind).to_owned(),
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Update => "update",
        Kind::Snapshot => "snapshot",
        Kind::Restore => "restore",
        Kind::Rollback => "rollback",
        Kind::SelfUpdate => "update of the updater",
    }
}

/// The jobs, newest first.
pub fn history(jobs: &[Job]) -> String {
    if jobs.is_empty() {
        return "no job yet\n".to_owned();
    }
    let head = ["started", "job", "release", "from", "state", "took", "id"].map(str::to_owned).to_vec();
    let line = |job: &Job| {
        vec![
            moment(job.started_at),
            name(job.kind).to_owned(),
            if job.target_tag.is_empty() { "-".into() } else { job.target_tag.clone() },
            job.previous_version.clone().unwrap_or_else(|| "-".into()),
            if job.needs_you { format!("{}, needs you", job.state) } else { job.state.to_string() },
            job.completed_at.map_or("-".into(), |end| duration(between(job.started_at, end))),
            job.id.to_string(),
        ]
    };
    table(&std::iter::once(head).chain(jobs.iter().map(line)).collect::<Vec<_>>())
}

/// One job in full.
pub fn job(job: &Job) -> String {
    let mut rows = vec![
        row("job", job.id.to_string()),
        row("release", job.target_tag.clone()),
        row("state", format!("{}{}", job.state, if job.stub { " (simulated)" } else { "" })),
        row("started", moment(job.started_at)),
    ];
    if job.needs_you {
        rows.push(row("needs you", format!("until processgit-updater settle {}", job.id)));
    }
    rows.extend(job.settled_at.map(|at| row("settled", moment(at))));
    if let Some(end) = job.completed_at {
        rows.push(row("took", duration(between(job.started_at, end))));
    }
    let before = named(job.previous_version.as_deref(), job.previous_image.as_deref());
    for (name, value) in [
        ("from", Some(before).filter(|_| job.previous_version.is_some() || job.previous_image.is_some())),
        ("image", job.target_image.clone()),
        ("digest", job.target_digest.clone()),
        ("error", job.error.clone()),
    ] {
        rows.extend(value.map(|value| row(name, value)));
    }
    let mut shown = table(&rows);
    let step = |step: &Step| {
        let took = step.completed_at.map_or("-".into(), |end| duration(between(step.started_at, end)));
        let error = step.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        format!("{} {took}{error}", step.state)
    };
    let steps: Vec<String> = job.steps.iter().filter(|step| !step.state.is_end()).map(step).collect();
    list(&mut shown, "verified", &genuine(&job.verified));
    list(&mut shown, "warnings", &job.warnings);
    list(&mut shown, "steps", &steps);
    shown
}

/// What settling a failed job removes, for the person who decides.
pub fn settlement(settlement: &Settlement) -> String {
    let Settlement { job, removes, released } = settlement;
    let mut shown = match job.settled_at {
        None => format!("{} failed: declare it done when the application runs as it should\n", job.id),
        Some(at) => format!("{} failed, and was settled {}\n", job.id, moment(at)),
    };
    list(&mut shown, "what is removed", removes);
    if removes.is_empty() {
        shown.push_str("it has left nothing to remove\n");
    }
    list(&mut shown, "snapshots that are then kept no longer than others", released);
    shown
}

/// What an update would do.
pub fn check(check: &Check) -> String {
    let version = match &check.running_unknown {
        None => check.running_version.as_deref(),
        Some(_) => Some("version not known"),
    };
    let mut rows = vec![row("running", named(version, check.running_image.as_deref()))];
    if let Some(setting) = &check.not_applied {
        rows.push(row(".env", format!("{setting}, which has not been applied (`docker compose up -d` would)")));
    }
    if let Some(release) = &check.release {
        let published = release.published_at.map(|at| format!(", published {}", moment(at))).unwrap_or_default();
        let kind = if release.prerelease { " (pre-release)" } else { "" };
        rows.push(row("release", format!("{}{kind}{published}", release.tag)));
        rows.push(row("notes", release.html_url.clone()));
    }
    // What an early refusal never looked at is left out.
    if check.target_version.is_some() || check.target_image.is_some() {
        rows.push(row("target", named(check.target_version.as_deref(), check.target_image.as_deref())));
        rows.push(row("migration", check.migration.clone().unwrap_or_else(|| "none".into())));
    }
    if let Some(digest) = &check.target_digest {
        rows.push(row("digest", digest.clone()));
    }
    if let Some(seconds) = check.estimated_downtime_seconds {
        rows.push(row("downtime", format!("about {}", duration(std::time::Duration::from_secs(seconds)))));
    }
    if !check.trust.is_empty() {
        rows.push(row("trust", check.trust.clone()));
    }
    let mut shown = table(&rows);
    for (title, lines) in [
        ("verified", &genuine(&check.verified)),
        ("changes", &check.changes),
        ("drift", &check.drift),
        ("warnings", &check.warnings),
        ("breaking changes", &check.breaking_changes),
        ("deprecations", &check.deprecations),
    ] {
        list(&mut shown, title, lines);
    }
    let verdict = match (&check.refusal, check.up_to_date, check.allowed) {
        (Some(refusal), ..) => format!("refused: {}", clean(refusal)),
        (None, true, _) if check.target_version.is_none() => {
            format!("up to date: {} runs, which is newer", named(check.running_version.as_deref(), None))
        }
        (None, true, _) => "up to date: this release is what runs".to_owned(),
        (None, false, true) => "ready: update would begin".to_owned(),
        (None, false, false) => "refused".to_owned(),
    };
    let _ = writeln!(shown, "\n{verdict}");
    shown
}

fn row(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), clean(&value).into_owned()]
}

fn named(version: Option<&str>, image: Option<&str>) -> String {
    match (version, image) {
        (Some(version), Some(image)) => format!("{version} ({image})"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "unknown".to_owned(),
    }
}

/// A titled list, where there is something in it.
pub fn list(shown: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(shown, "\n{title}");
    for line in lines {
        let _ = writeln!(shown, "  - {}", clean(line));
    }
}

/// What was verified, a line each: whose signature it is, who vouched, when and where.
pub fn genuine(verified: &[Verified]) -> Vec<String> {
    let line = |one: &Verified| {
        let facts = [
            one.issuer.as_ref().map(|issuer| format!("issuer {issuer}")),
            one.log_index.map(|index| format!("log entry {index}")),
            one.integrated_time.map(|at| format!("signed {}", moment(at))),
            Some(format!("found in {}", one.carrier)),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        format!("{} by {} ({})", one.subject, one.identity, facts.join(", "))
    };
    verified.iter().map(line).collect()
}

/// The part of a job's end that says why it was trusted; empty when nothing was verified.
pub fn trusted(job: &Job) -> String {
    genuine(&job.verified).iter().fold(String::new(), |text, line| format!("{text}verified: {}\n", clean(line)))
}

/// How a job ended: the success, or the text of the error.
pub fn verdict(job: &Job) -> Result<String, String> {
    let took = duration(between(job.started_at, job.completed_at.unwrap_or(job.updated_at)));
    let mut why = job.error.as_deref().map(|error| format!(": {}", clean(error))).unwrap_or_default();
    if let Some(kept) = &job.failed_snapshot {
        let _ = write!(why, "; what had been written meanwhile is kept as snapshot {}", clean(kept));
    }
    let stub = if job.stub { " (simulated)" } else { "" };
    match job.state {
        State::Committed => Ok(format!("committed: {}; it took {took}{stub}", clean(&achieved(job)))),
        State::RolledBack if job.touched == Some(false) => {
            Err(format!("not started: nothing was changed, the application was never stopped{stub}{why}"))
        }
        State::RolledBack => Err(format!("rolled_back after {took}: the application is as it was before{stub}{why}")),
        State::Failed => Err(format!("failed after {took}: a person is needed{stub}{why}")),
        State::Aborted => Err(format!("aborted after {took}: nothing was changed{stub}{why}")),
        other => Err(format!("the job has not ended: {other}")),
    }
}

fn achieved(job: &Job) -> String {
    let tag = &job.target_tag;
    let before = job.previous_version.as_deref().map(|v| format!(", before {v}")).unwrap_or_default();
    let taken = job.snapshot.as_deref().unwrap_or("(none)");
    let kept = job.snapshot.as_ref().map(|id| format!("; the data until now is kept as snapshot {id}"));
    match job.kind {
        Kind::Update => format!("{tag} runs{before}"),
        Kind::SelfUpdate => format!("the updater is {tag}{before}"),
        Kind::Snapshot => format!("snapshot {taken} was taken"),
        Kind::Restore => format!("the data is that of the snapshot, {tag} runs{before}{}", kept.unwrap_or_default()),
        Kind::Rollback => format!("{tag} runs again{before}{}", kept.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Release;
    use crate::update::job::JobId;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_323_045 + second).unwrap()
    }

    fn job(tag: &str, end: Option<State>) -> Job {
        let mut job = Job::new(JobId("job_00000000000000a1".into()), tag.into(), at(0), false);
        job.touched = Some(true);
        job.enter(State::Pulling, at(2));
        if let Some(end) = end {
            job.enter(end, at(75));
        }
        job
    }

    #[test]
    fn a_status() {
        let mut shown = Status {
            version: "0.1.0".into(),
            active_job: Some(job("v0.1.2", None)),
            recent_jobs_count: 12,
            stub: true,
            trust: "key sha256:00ff".into(),
            notices: Vec::new(),
            needs_you: Vec::new(),
            started_at: Some(at(-3600)),
        };
        insta::assert_snapshot!(status(&shown, "http://127.0.0.1:9000", at(5)), @r"
        updater  0.1.0 at http://127.0.0.1:9000
        up       1 h
        stub     every Docker operation is simulated
        trust    key sha256:00ff
        jobs     12
        active   job_00000000000000a1: update to v0.1.2, pulling for 3.0 s
        ");
        shown.active_job = None;
        shown.stub = false;
        insta::assert_snapshot!(status(&shown, "unix:/run/u.sock", at(5)), @r"
        updater  0.1.0 at unix:/run/u.sock
        up       1 h
        trust    key sha256:00ff
        jobs     12
        active   none
        ");
    }

    #[test]
    fn a_history() {
        let mut first = job("v0.1.2", Some(State::Committed));
        first.previous_version = Some("0.1.1".into());
        let mut young = job("", None);
        (young.kind, young.state) = (Kind::Snapshot, State::Planning);
        let mut back = job("v0.1.10-rc.1", Some(State::RolledBack));
        back.kind = Kind::Rollback;
        let jobs = [young, first, back];
        insta::assert_snapshot!(history(&jobs), @r"
        started               job       release       from   state        took        id
        2026-01-02 03:04:05Z  snapshot  -             -      planning     -           job_00000000000000a1
        2026-01-02 03:04:05Z  update    v0.1.2        0.1.1  committed    1 min 15 s  job_00000000000000a1
        2026-01-02 03:04:05Z  rollback  v0.1.10-rc.1  -      rolled_back  1 min 15 s  job_00000000000000a1
        ");
        assert_eq!(history(&[]), "no job yet\n");
    }

    fn verified(subject: &str, keyless: bool) -> Verified {
        Verified {
            subject: subject.into(),
            carrier: if keyless { "release.json.sigstore.json" } else { "tag sha256-00.sig" }.into(),
            identity: if keyless { "https://git.example/release.yml" } else { "key sha256:00ff" }.into(),
            issuer: keyless.then(|| "https://issuer.example".into()),
            log_index: keyless.then_some(7),
            integrated_time: keyless.then(|| at(-60)),
        }
    }

    #[test]
    fn one_job() {
        let mut shown = job("v0.1.2", Some(State::RolledBack));
        shown.steps[0].error = Some("no \u{1b}[31mroute".into());
        shown.error = shown.steps[0].error.clone();
        shown.previous_version = Some("0.1.1".into());
        shown.target_image = Some("ghcr.io/o/app:0.1.2".into());
        shown.verified = vec![verified("manifest", true), verified("image", false)];
        shown.warnings = vec!["the data is not copied".into()];
        insta::assert_snapshot!(super::job(&shown), @r"
        job      job_00000000000000a1
        release  v0.1.2
        state    rolled_back
        started  2026-01-02 03:04:05Z
        took     1 min 15 s
        from     0.1.1
        image    ghcr.io/o/app:0.1.2
        error    no �[31mroute

        verified
          - manifest by https://git.example/release.yml (issuer https://issuer.example, log entry 7, signed 2026-01-02 03:03:05Z, found in release.json.sigstore.json)
          - image by key sha256:00ff (found in tag sha256-00.sig)

        warnings
          - the data is not copied

        steps
          - pulling 1 min 13 s: no �[31mroute
        ");
        assert_eq!(
            trusted(&shown),
            "verified: manifest by https://git.example/release.yml (issuer https://issuer.example, log entry 7, \
             signed 2026-01-02 03:03:05Z, found in release.json.sigstore.json)\n\
             verified: image by key sha256:00ff (found in tag sha256-00.sig)\n"
        );
        insta::assert_snapshot!(super::job(&job("v0.1.3", None)), @r"
        job      job_00000000000000a1
        release  v0.1.3
        state    pulling
        started  2026-01-02 03:04:05Z

        steps
          - pulling -
        ");
    }

    #[test]
    fn a_full_check() {
        let full = Check {
            running_version: Some("0.1.1".into()),
            running_image: Some("ghcr.io/o/app:0.1.1".into()),
            release: Some(Release {
                tag: "v0.1.2".into(),
                name: "0.1.2".into(),
                prerelease: true,
                html_url: "https://git.example/v0.1.2".into(),
                published_at: Some(at(0)),
                remarks: vec![],
                assets: vec![],
            }),
            allowed: true,
            target_version: Some("0.1.2".into()),
            target_image: Some("ghcr.io/o/app:0.1.2".into()),
            target_digest: Some("sha256:abcd".into()),
            changes: vec!["image ghcr.io/o/app:0.1.1 → ghcr.io/o/app:0.1.2".into()],
            drift: vec!["port 3000 is published in the file only".into()],
            warnings: vec!["the HEALTHCHECK's interval exceeds the gate".into(), "\u{1b}[31mred".into()],
            migration: Some("app migrate".into()),
            estimated_downtime_seconds: Some(90),
            breaking_changes: vec!["the old API is gone".into()],
            verified: vec![verified("manifest", true)],
            trust: "keyless, the built-in public Sigstore root of 2026-10-23".into(),
            ..Check::default()
        };
        insta::assert_snapshot!(check(&full), @r"
        running    0.1.1 (ghcr.io/o/app:0.1.1)
        release    v0.1.2 (pre-release), published 2026-01-02 03:04:05Z
        notes      https://git.example/v0.1.2
        target     0.1.2 (ghcr.io/o/app:0.1.2)
        migration  app migrate
        digest     sha256:abcd
        downtime   about 1 min 30 s
        trust      keyless, the built-in public Sigstore root of 2026-10-23

        verified
          - manifest by https://git.example/release.yml (issuer https://issuer.example, log entry 7, signed 2026-01-02 03:03:05Z, found in release.json.sigstore.json)

        changes
          - image ghcr.io/o/app:0.1.1 → ghcr.io/o/app:0.1.2

        drift
          - port 3000 is published in the file only

        warnings
          - the HEALTHCHECK's interval exceeds the gate
          - �[31mred

        breaking changes
          - the old API is gone

        ready: update would begin
        ");
        let refused = Check { refusal: Some("0.1.0 is older than 0.1.1".into()), ..Check::default() };
        insta::assert_snapshot!(check(&refused), @r"
        running  unknown

        refused: 0.1.0 is older than 0.1.1
        ");
    }

    #[test]
    fn verdicts() {
        for (end, error, expected) in [
            (Some(State::Committed), None, Ok("committed: v1 runs; it took 1 min 15 s")),
            (
                Some(State::RolledBack),
                Some("no route"),
                Err("rolled_back after 1 min 15 s: the application is as it was before: no route"),
            ),
            (Some(State::Failed), Some("run x"), Err("failed after 1 min 15 s: a person is needed: run x")),
            (Some(State::Aborted), None, Err("aborted after 1 min 15 s: nothing was changed")),
            (None, None, Err("the job has not ended: pulling")),
        ] {
            let mut job = job("v1", end);
            job.error = error.map(str::to_owned);
            assert_eq!(verdict(&job), expected.map(str::to_owned).map_err(str::to_owned));
        }
    }

    #[test]
    fn what_was_achieved_by_hand() {
        for (kind, snapshot, expected) in [
            (Kind::Snapshot, Some("gen-1"), "snapshot gen-1 was taken"),
            (
                Kind::Restore,
                Some("gen-2"),
                "the data is that of the snapshot, 1.0.0 runs, before 1.1.0; the data until now is kept as snapshot gen-2",
            ),
            (Kind::Rollback, None, "1.0.0 runs again, before 1.1.0"),
        ] {
            let mut job = job("1.0.0", Some(State::Committed));
            (job.kind, job.snapshot) = (kind, snapshot.map(str::to_owned));
            job.previous_version = Some("1.1.0".into());
            assert_eq!(verdict(&job), Ok(format!("committed: {expected}; it took 1 min 15 s")));
        }
        let mut job = job("1.0.0", Some(State::RolledBack));
        job.failed_snapshot = Some("failed-1".into());
        let told = verdict(&job).unwrap_err();
        assert!(told.ends_with("what had been written meanwhile is kept as snapshot failed-1"), "{told}");
    }
}
