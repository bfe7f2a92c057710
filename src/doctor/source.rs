//! Whom the updater trusts, where releases and images come from, and the clock, on which both depend.

use jiff::{SignedDuration, Timestamp};

use super::{Doctor, Finding, LOOK, OUTSIDE, asked};
use crate::engine::EngineFacts;
use crate::reference::{is_same, is_same_repository};
use crate::release::github::Reach;
use crate::release::{Channel, Release, SourceError};
use crate::trust::judge::TrustState;
use crate::trust::root::BUILT_IN_SINCE;
use crate::update::Request;
use crate::update::refusal::{Code, Refusal, Refused};
use crate::update::survey::wish;
use crate::update::survey::{self, Candidate, Deployment};

/// A root changes a few times a year.
const OLD_ROOT: SignedDuration = SignedDuration::from_hours(180 * 24);
/// It is fetched daily.
const STALE_ROOT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Clocks that differ by more are told.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// By so much certificates that were issued, or end, today are misjudged.
const FAR: SignedDuration = SignedDuration::from_hours(24);
/// Fewer questions left than this may not do for an update.
const FEW_LEFT: i64 = 10;

/// What was seen of the world outside.
pub struct Outside {
    reach: Result<Reach, Refused>,
    /// How far its clock is ahead.
    ahead: Option<SignedDuration>,
    latest: Result<Release, SourceError>,
    candidate: Option<Result<Candidate, Refused>>,
    images: Vec<Finding>,
}

impl Outside {
    pub async fn look(doctor: &Doctor) -> Self {
        let reach = async {
            let reach = asked(OUTSIDE, doctor.around.reach()).await;
            let date = reach.as_ref().ok().and_then(|reach| reach.date);
            let ahead = date.map(|date| date.duration_since(doctor.ports.clock.now()));
            (reach, ahead)
        };
        let ((reach, ahead), (latest, candidate)) = tokio::join!(reach, newest(doctor));
        let images = match &candidate {
            Some(Ok(candidate)) => images(doctor, candidate).await,
            _ => ["registry", "image signature"]
                .map(|check| Finding::skipped(check, "no genuine release is known"))
                .into(),
        };
        Self { reach, ahead, latest, candidate, images }
    }
}

async fn newest(doctor: &Doctor) -> (Result<Release, SourceError>, Option<Result<Candidate, Refused>>) {
    let late = || SourceError::timeout(format!("no answer within {} s", OUTSIDE.as_secs()));
    let latest = tokio::time::timeout(OUTSIDE, doctor.ports.releases.latest(Channel::Stable)).await;
    let latest = latest.unwrap_or_else(|_| Err(late()));
    let candidate = match &latest {
        Ok(release) => Some(asked(OUTSIDE, survey::candidate(&doctor.ports, &release.tag)).await),
        Err(_) => None,
    };
    (latest, candidate)
}

/// What stops a look is one thing.
fn first(refused: Refused) -> Refusal {
    refused.0.into_iter().next().unwrap_or_else(|| Refusal::new(Code::Internal, "no reason was given"))
}

/// Does the registry give what the release names, and is that signed?
async fn images(doctor: &Doctor, candidate: &Candidate) -> Vec<Finding> {
    let image = &candidate.manifest.image;
    let (registry, repository, digest) = (&image.registry, &image.repository, &image.digest);
    let (has, signed) = tokio::join!(
        asked(OUTSIDE, doctor.around.has_image(registry, repository, digest)),
        asked(OUTSIDE, doctor.ports.trust.image(registry, repository, digest))
    );
    let again = "try again; if it stays slow, look at the network or the registry";
    let name = candidate.manifest.image_reference();
    let is_there = matches!(has, Ok(true));
    let there = match has {
        Ok(true) => Finding::ok("registry", format!("{registry} has {name}, by its digest")),
        Ok(false) => Finding::bad(
            "registry",
            Refusal::new(
                Code::ImageMissing,
                format!("{registry} has no {repository}@{digest}, which {name} should be"),
            )
            .text("tell the publisher of the release"),
        ),
        Err(why) => Finding::bad("registry", first(why.or_text(again))),
    };
    let signature = match signed {
        _ if !doctor.options.verify_image => Finding::warning(
            "image signature",
            Refusal::new(
                Code::ImageNotVerified,
                "PROCESSGIT_UPDATER_VERIFY_IMAGE is off: only the manifest's signature counts",
            )
            .setting("PROCESSGIT_UPDATER_VERIFY_IMAGE=true"),
        ),
        Ok(verified) => Finding::ok("image signature", format!("{name} is signed by {}", verified.identity)),
        Err(_) if !is_there => Finding::skipped("image signature", "the registry does not give the image"),
        Err(why) => Finding::bad("image signature", first(why.or_text(again))),
    };
    vec![there, signature]
}

pub async fn check(
    doctor: &Doctor,
    outside: &Outside,
    engine_ahead: Option<SignedDuration>,
    deployment: Option<&Deployment>,
) -> Vec<Finding> {
    let now = doctor.ports.clock.now();
    let mut findings = trust(doctor.around.trust(), now);
    findings.push(clock(now, engine_ahead, outside));
    findings.push(releases(doctor, outside));
    findings.push(release(doctor, outside, deployment).await);
    findings.extend(outside.images.iter().cloned());
    findings
}

fn trust(state: Result<TrustState, String>, now: Timestamp) -> Vec<Finding> {
    match state {
        Err(why) => {
            let unknown = Finding::skipped("trusted root", "there is no policy");
            let why = Refusal::new(Code::PolicyInvalid, why).text("correct the setting that is named");
            vec![Finding::bad("trust", why), unknown]
        }
        Ok(state) => vec![Finding::ok("trust", state.policy.clone()), root(&state, now)],
    }
}

/// Its age, and whether it is kept fresh. While a refresh fails, what is at hand is used.
fn root(state: &TrustState, now: Timestamp) -> Finding {
    if !state.keyless {
        return Finding::skipped("trusted root", "signatures are checked with a key, not against a root");
    }
    if let Some(ended) = &state.ended {
        let why = Refusal::new(Code::RootEnded, ended).setting("PROCESSGIT_UPDATER_TRUSTED_ROOT_REFRESH=true");
        return Finding::bad("trusted root", why);
    }
    let age = state.since.map(|since| now.duration_since(since));
    let days = age.map_or_else(|| "an unknown number of".to_owned(), |age| (age.as_hours() / 24).to_string());
    let text = format!("{}, {days} days old", state.root);
    match age {
        Some(age) if state.refreshed && age > STALE_ROOT => Finding::warning(
            "trusted root",
            Refusal::new(
                Code::RootStale,
                format!(
                    "{text}, is what is at hand: it was not refreshed since, although PROCESSGIT_UPDATER_TRUSTED_ROOT_REFRESH is true"
                ),
            )
            .text("look into the log of `serve`; it needs https://tuf-repo-cdn.sigstore.dev"),
        ),
        Some(age) if !state.refreshed && age > OLD_ROOT => Finding::warning(
            "trusted root",
            Refusal::new(Code::RootOld, format!("{text}: keys change a few times a year"))
                .setting("PROCESSGIT_UPDATER_TRUSTED_ROOT_REFRESH=true"),
        ),
        _ => Finding::ok("trusted root", text),
    }
}

/// How far the engine's clock is ahead of ours.
pub fn ahead(facts: Option<&EngineFacts>, now: Timestamp) -> Option<SignedDuration> {
    facts.and_then(|facts| facts.time).map(|time| time.duration_since(now))
}

fn clock(now: Timestamp, engine: Option<SignedDuration>, outside: &Outside) -> Finding {
    let set = "timedatectl set-ntp true";
    let shown = now.strftime("%Y-%m-%d %H:%M:%S UTC");
    if now < BUILT_IN_SINCE {
        let text = format!("it is {shown} here, before this program was built: every certificate fails");
        return Finding::bad("clock", Refusal::new(Code::Clock, text).command(set));
    }
    let clocks = [("the release source", outside.ahead), ("the engine", engine)];
    let far = clocks.iter().filter_map(|(whose, ahead)| Some((whose, (*ahead)?)));
    let (worst, compared) = far.fold((None, Vec::new()), |(worst, mut compared), (whose, ahead)| {
        compared.push(*whose);
        match worst {
            Some((_, known)) if known_is_worse(known, ahead) => (worst, compared),
            _ => (Some((*whose, ahead)), compared),
        }
    });
    let Some((whose, ahead)) = worst else {
        return Finding::ok("clock", format!("{shown}; nobody could be asked for another"));
    };
    let seconds = ahead.as_secs();
    let text =
        format!("{shown} here, while {whose} is {} s {}", seconds.abs(), if seconds < 0 { "behind" } else { "ahead" });
    match ahead.abs() {
        off if off > FAR => {
            let seen = format!("{text}: certificates are misjudged");
            Finding::bad("clock", Refusal::new(Code::Clock, seen).command(set))
        }
        off if off > SKEW => Finding::warning("clock", Refusal::new(Code::Clock, text).command(set)),
        _ => Finding::ok("clock", format!("{shown}, in agreement with {}", compared.join(" and "))),
    }
}

fn known_is_worse(known: SignedDuration, other: SignedDuration) -> bool {
    known.abs() >= other.abs()
}

fn releases(doctor: &Doctor, outside: &Outside) -> Finding {
    let api = &doctor.settings.github_api;
    let left = match &outside.reach {
        Ok(Reach { remaining: Some(left), limit: Some(limit), .. }) => format!("; {left} of {limit} questions left"),
        _ => String::new(),
    };
    match &outside.latest {
        Err(why) if why.is_not_found() => Finding::warning(
            "releases",
            first(Refused::from(why.clone()).or_text(
                "`processgit-updater check --channel prerelease` looks at pre-releases, or correct PROCESSGIT_UPDATER_REPO",
            )),
        ),
        Err(why) => Finding::bad("releases", first(Refused::from(why.clone()).or_command(&format!("curl -sI {api}")))),
        Ok(release) => {
            let text = format!("{} is the newest of {} at {api}{left}", release.tag, doctor.settings.repo);
            let few = |reach: &Reach| reach.remaining.is_some_and(|left| left < FEW_LEFT);
            match &outside.reach {
                Ok(reach) if few(reach) => {
                    let resets = reach.resets.map_or_else(String::new, |at| format!(", until {at}"));
                    let why = Refusal::new(Code::FewRequests, text + &resets);
                    Finding::warning("releases", why.text("a token in PROCESSGIT_UPDATER_GITHUB_TOKEN raises the limit"))
                }
                _ => Finding::ok("releases", text),
            }
        }
    }
}

/// Is the newest one genuine, and would policy let it in?
async fn release(doctor: &Doctor, outside: &Outside, deployment: Option<&Deployment>) -> Finding {
    let candidate = match &outside.candidate {
        None => return Finding::skipped("newest release", "none is known"),
        Some(Err(why)) => {
            // What has no remedy of its own came and went between two questions.
            return Finding::bad("newest release", first(why.clone().or_text("try again")));
        }
        Some(Ok(candidate)) => candidate,
    };
    let tag = &candidate.release.tag;
    let signed = format!("{tag} is signed by {}", candidate.verified.identity);
    // What runs decides what may replace it; where that is not known, another check says so.
    let Some(deployment) = deployment.map(|deployment| deployment.clone().knowing(&candidate.manifest)) else {
        return Finding::ok("newest release", signed);
    };
    if deployment.running.version().is_none() {
        return Finding::ok("newest release", signed);
    }
    let request = Request { target_tag: tag.clone(), ..Request::default() };
    let judged = wish::update(&doctor.ports, &doctor.options, &request, candidate, &deployment);
    let (wish, refusals) = match asked(LOOK, judged).await {
        Ok(judged) => judged,
        Err(why) => {
            let look = format!("processgit-updater check {}", shell_words::quote(tag));
            return Finding::bad("newest release", first(why.or_command(&look)));
        }
    };
    let reference = wish.target.reference();
    let running = &deployment.container.image_ref;
    if !is_same_repository(&reference, running) {
        return Finding::bad(
            "newest release",
            Refusal::new(
                Code::OtherImage,
                format!("{tag} is image {reference}, but {running} runs: it is a release of something else"),
            )
            .text("correct PROCESSGIT_UPDATER_REPO, or the image in the Compose file"),
        );
    }
    match refusals.is_empty() {
        _ if is_same(&reference, running) => Finding::ok("newest release", format!("{signed}; it runs")),
        true => Finding::ok("newest release", format!("{signed}; it may be installed")),
        false => {
            let seen = format!("{tag} would be refused: {}", Refused(refusals));
            let look = format!("processgit-updater check {}", shell_words::quote(tag));
            Finding::warning("newest release", Refusal::new(Code::WouldBeRefused, seen).command(look))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict::{self, Bad, Ok as Good, Skipped, Warning};

    const NOW: &str = "2026-12-01T00:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    #[test]
    fn clocks() {
        let seconds = |n: i64| Some(SignedDuration::from_secs(n));
        for (at, source, engine, verdict, text) in [
            (NOW, None, None, Good, "nobody could be asked"),
            (NOW, seconds(3), seconds(-2), Good, "in agreement with the release source and the engine"),
            (NOW, seconds(61), seconds(0), Warning, "the release source is 61 s ahead"),
            (NOW, seconds(0), seconds(-3600), Warning, "the engine is 3600 s behind"),
            (NOW, seconds(90_000), None, Bad, "certificates are misjudged"),
            ("2026-10-01T00:00:00Z", None, None, Bad, "before this program was built"),
        ] {
            let unseen = || Err(SourceError::timeout(""));
            let outside = Outside {
                reach: Err(Refused(vec![])),
                ahead: source,
                latest: unseen(),
                candidate: None,
                images: vec![],
            };
            let finding = clock(at.parse().unwrap(), engine, &outside);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.seen.contains(text), "{finding:?}");
            assert_eq!(finding.remedy.is_some(), verdict != Good);
        }
    }

    #[test]
    fn roots() {
        let days = |n: i64| now().checked_sub(SignedDuration::from_hours(24 * n)).ok();
        let root_of = |since, refreshed, keyless, ended: Option<&str>| {
            let ended = ended.map(str::to_owned);
            root(
                &TrustState { root: "the root".into(), since, refreshed, keyless, ended, policy: String::new() },
                now(),
            )
        };
        let rows: [(Finding, Verdict, &str); 6] = [
            (root_of(days(39), false, true, None), Good, "the root, 39 days old"),
            (root_of(days(200), false, true, None), Warning, "200 days old: keys change"),
            (root_of(days(2), true, true, None), Good, "2 days old"),
            (root_of(days(39), true, true, None), Warning, "is what is at hand: it was not refreshed"),
            (root_of(days(1), true, true, Some("every log ended")), Bad, "every log ended"),
            (root_of(days(900), false, false, None), Skipped, "checked with a key"),
        ];
        for (finding, verdict, text) in rows {
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.seen.contains(text), "{finding:?}");
        }
    }
}
