//! What an update would do, looked at without any effect.

use std::sync::Arc;

use semver::Version;

use super::running::{self, Running};
use super::{Check, CheckRequest, Inner, Request, Updater, settle, survey};
use crate::release::{Channel, Release, SourceError};
use crate::text;

impl Updater {
    /// What an update would do, without any effect.
    pub async fn check(&self, request: CheckRequest) -> Check {
        let mut check = Check { trust: self.trust(), ..Check::default() };
        if let Err(refused) = self.look_at(request, &mut check).await {
            check.refusal = Some(refused.to_string());
            check.refusals = refused.0;
        }
        check.cleaned()
    }

    /// Fills in what is found, as far as it comes.
    async fn look_at(&self, request: CheckRequest, check: &mut Check) -> Result<(), survey::Refused> {
        let Inner { ports, options, .. } = &*self.inner;
        let deployment = survey::deployment(ports, options).await;
        if let Ok(deployment) = &deployment {
            check.describe_running(deployment, &options.version_key);
        }
        if request.fresh {
            ports.releases.forget();
        }
        let runs = deployment.as_ref().ok().and_then(|deployment| deployment.running.version());
        let named = request.tag.is_some();
        let tag = match request.tag {
            Some(tag) => tag,
            None => {
                let newest = self.newest(request.channel, runs).await?;
                check.warnings.clone_from(&newest.remarks);
                check.release = Some(newest.clone());
                if is_older(&newest, runs) {
                    check.up_to_date = true;
                    return Ok(());
                }
                newest.tag
            }
        };
        let candidate = survey::candidate(ports, &tag).await?;
        check.describe(&candidate);
        if let Some(job) = settle::in_the_way(self.needs_you().iter().map(Arc::as_ref)) {
            return Err(settle::refusal(job).into());
        }
        let deployment = deployment?.knowing(&candidate.manifest);
        check.describe_running(&deployment, &options.version_key);
        // Nothing needs to be done, so nothing is refused either.
        let runs_it = !named && deployment.runs(&candidate.manifest.image.digest);
        let wanted = Request {
            target_tag: tag,
            allow_downgrade: request.allow_downgrade,
            accept_drift: request.accept_drift,
            retry: false,
            accept_unwell: request.accept_unwell,
        };
        let planned = async {
            let (wish, refusals) = survey::wish::update(ports, options, &wanted, &candidate, &deployment).await?;
            survey::assemble::plan(ports, options, &deployment, wish, refusals).await
        };
        let plan = match planned.await {
            Ok(plan) => plan,
            Err(refused) if runs_it => {
                check.up_to_date = true;
                check.warnings.push(format!("an update would be refused: {refused}"));
                return Ok(());
            }
            Err(refused) => return Err(refused),
        };
        check.allowed = true;
        check.up_to_date = plan.no_op;
        check.changes = plan.changes;
        check.drift = plan.drift;
        check.warnings.extend(plan.warnings);
        Ok(())
    }

    /// The newest release of the channel. What is remembered may be from before the update to what runs.
    async fn newest(&self, channel: Channel, runs: Option<&Version>) -> Result<Release, SourceError> {
        let newest = self.latest(channel).await?;
        if !is_older(&newest, runs) {
            return Ok(newest);
        }
        self.forget_releases();
        self.latest(channel).await
    }
}

/// The release is of an older version than the one that runs.
fn is_older(release: &Release, runs: Option<&Version>) -> bool {
    let version = running::version(&release.tag);
    version.zip(runs).is_some_and(|(version, runs)| version.cmp_precedence(runs).is_lt())
}

impl Check {
    /// With the words of publishers and servers as they may be shown.
    fn cleaned(mut self) -> Self {
        let texts = [&mut self.refusal, &mut self.migration, &mut self.running_unknown, &mut self.not_applied];
        let lists = [
            &mut self.changes,
            &mut self.drift,
            &mut self.warnings,
            &mut self.breaking_changes,
            &mut self.deprecations,
        ];
        let all = texts.into_iter().flatten().chain(lists.into_iter().flatten());
        all.for_each(|text| *text = text::clean(text).into_owned());
        self
    }

    fn describe_running(&mut self, deployment: &survey::Deployment, key: &str) {
        let image = &deployment.container.image_ref;
        self.running_version = deployment.version_text();
        self.running_image = Some(image.clone());
        self.running_unknown = match &deployment.running {
            Running::Known { .. } => None,
            Running::Unknown(why) => Some(why.to_string()),
        };
        let value = running::not_applied(image, deployment.env_value.as_deref());
        self.not_applied = value.map(|value| format!("{key}={value}"));
    }

    fn describe(&mut self, candidate: &survey::Candidate) {
        let manifest = &candidate.manifest;
        self.release = Some(candidate.release.clone());
        self.verified = vec![candidate.verified.clone()];
        self.target_version = Some(manifest.version.to_string());
        self.target_image = Some(manifest.image_reference());
        self.target_digest = Some(manifest.image.digest.clone());
        let command = manifest.migration.command.as_ref().filter(|_| manifest.migration.required);
        self.migration = command.map(shell_words::join);
        self.estimated_downtime_seconds = manifest.migration.estimated_downtime_seconds;
        self.breaking_changes.clone_from(&manifest.breaking_changes);
        self.deprecations.clone_from(&manifest.deprecations);
    }
}
