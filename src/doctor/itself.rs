//! The updater's own update: looked at as the deputy looks at it, by the same rules with the same options.

use super::{Doctor, Finding, LOOK, WORK, asked};
use crate::deputy;
use crate::engine::compose_config::template::Template;
use crate::engine::{Container, label};
use crate::settings::name;
use crate::update::refusal::{Code, Refusal, Refused};
use crate::update::survey::compose::{self, Resolved};
use crate::update::survey::{self, Deployment, wish};

const CHECK: &str = "self-update";
/// No release has this tag.
const PRETENDED: &str = "0.0.0-doctor";

/// What is wrong with it never makes an update of the application fail.
pub async fn check(doctor: &Doctor) -> Vec<Finding> {
    let container = match asked(LOOK, doctor.ports.deputy.possible()).await {
        Ok(container) => container,
        Err(why) => return vec![Finding::skipped(CHECK, why.to_string())],
    };
    // A container for one command is not the one that is replaced.
    if container.label(label::ONEOFF) == Some("True") {
        return vec![Finding::skipped(CHECK, "looked at by the updater that runs, not by a container for one command")];
    }
    let refusals = match asked(WORK, refusals(doctor, &container)).await {
        Ok(refusals) => refusals,
        // The operator updates it otherwise.
        Err(refused) if refused.code() == Code::NotSelected => {
            return vec![Finding::skipped(CHECK, format!("not possible: {refused}"))];
        }
        Err(Refused(refusals)) => refusals,
    };
    if refusals.is_empty() {
        return vec![Finding::ok(CHECK, "possible")];
    }
    let finding = |refusal: Refusal| {
        Finding::warning(CHECK, Refusal { what: format!("it would be refused: {}", refusal.what), ..refusal })
    };
    refusals.into_iter().map(finding).collect()
}

/// Why the deputy would refuse, whatever the release. An error also where the Compose file selects the updater's
/// version by no variable.
async fn refusals(doctor: &Doctor, container: &Container) -> Result<Vec<Refusal>, Refused> {
    let options = deputy::options_for(&doctor.settings, &container.name, &doctor.options.owner);
    let deployment = survey::deployment(&doctor.ports, &options).await?;
    let wish = wish::pretended(&deployment, PRETENDED);
    let resolved = compose::resolve(&doctor.ports, &deployment, &wish).await?;
    let mut refusals = compose::resolution_refusals(&resolved, &deployment, &wish);
    for refusal in refusals.iter_mut().filter(|refusal| refusal.code == Code::NotSelected) {
        let key = selecting(doctor, &resolved, &deployment).await;
        if let Some(key) = key.filter(|key| *key != options.version_key) {
            *refusal = refusal.clone().setting(format!("{}={key}", name::SELF_VERSION_KEY));
        } else {
            return Err(Refused(refusals));
        }
    }
    let drift = compose::drift(&resolved, &deployment, &wish, &options.others_version_key);
    refusals.extend(compose::disagreements(drift, &resolved, &deployment, &doctor.ports.env.path()));
    refusals.extend(compose::replica_refusals(&resolved, &deployment));
    Ok(refusals)
}

/// The variable that selects the image in the Compose file.
async fn selecting(doctor: &Doctor, resolved: &Resolved, deployment: &Deployment) -> Option<String> {
    let written = match &resolved.written {
        Some(written) => written.clone(),
        None => asked(WORK, doctor.ports.compose.written(&deployment.project)).await.ok()?,
    };
    let image = Template::parse(written.files["services"][&deployment.project.service]["image"].as_str()?);
    let variables = image.variables();
    Some(variables.last()?.name.clone())
}
