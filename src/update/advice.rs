//! What a person has to type when a job says `failed`. Pure.

use super::plan::Plan;

/// The commands that bring the old version back by hand.
pub fn by_hand(plan: &Plan) -> String {
    let project = &plan.project;
    let mut compose =
        format!("docker compose -p {} --project-directory {}", quoted(&project.name), quoted(&project.working_dir));
    for file in &project.config_files {
        compose.push_str(&format!(" -f {}", quoted(file)));
    }
    for file in &project.env_files {
        compose.push_str(&format!(" --env-file {}", quoted(file)));
    }
    let env_file = project.env_files.last().cloned().unwrap_or_else(|| format!("{}/.env", project.working_dir));
    let key = &plan.env.key;
    let select = match &plan.env.value_before {
        Some(value) => format!("processgit-updater env set {key} {} --file {}", quoted(value), quoted(&env_file)),
        None => format!("remove the line {key}=… from {env_file}"),
    };
    format!(
        "To have the old version back by hand: (1) docker tag {} {}  (2) {select}  (3) {compose} up -d --no-deps --no-build --pull never {}",
        plan.previous.image_id,
        quoted(&plan.previous.image_ref),
        project.moved().map(quoted).collect::<Vec<_>>().join(" "),
    )
}

fn quoted(text: &str) -> String {
    shell_words::quote(text).into_owned()
}
