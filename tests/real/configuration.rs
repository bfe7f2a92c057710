//! What the Compose files let the version decide, and what they would have Compose remake: refused before, and
//! nothing is touched.

use std::time::Duration;

use crate::case::Leaves::{Untouched, Whatever};
use crate::case::{Case, Stage, case};

/// Every edit of the Compose file alone is refused with these words, and without it an update is committed.
fn refused(case: Case, edits: &[(&str, &str, &[&str])]) {
    let stage = case.stage();
    let file = stage.app.compose_file();
    let original = std::fs::read_to_string(&file).unwrap();
    for (from, to, says) in edits {
        stage.app.edit(&file, |text| text.replacen(from, to, 1));
        stage.update().assert_end("rolled_back", says);
        std::fs::write(&file, &original).unwrap();
    }
    stage.assert_leaves(Untouched, Duration::ZERO);
    stage.update().assert_end("committed", &[]);
}

/// The edits change nothing of what runs: only another version would.
#[test]
fn the_version_decides_where_data_is_and_what_others_call_it() {
    let with_names = case().app(|a| {
        let lines = ["hostname: app-1.0.0", "volumes: [\"data:/data\", \"./state-1.0.0:/state\"]"];
        a.service_lines.extend(lines.map(str::to_owned));
        let name = |what: &str| format!("\"${{COMPOSE_PROJECT_NAME}}-{what}-1.0.0\"");
        a.file_lines.push(format!("volumes: {{ data: {{ name: {} }} }}", name("data")));
        a.file_lines.push(format!("networks: {{ default: {{ name: {} }} }}", name("net")));
    });
    refused(
        with_names,
        &[
            ("-data-1.0.0", "-data-${APP_VERSION}", &["volumes.data.name: ", "-data-1.0.0 -> ", "-data-1.1.0"]),
            ("state-1.0.0", "state-${APP_VERSION}", &["services.app.volumes[1].source: ", "/state-1.1.0"]),
            ("-net-1.0.0", "-net-${APP_VERSION}", &["networks.default.name: ", "-net-1.1.0"]),
            ("app-1.0.0", "app-${APP_VERSION}", &["services.app.hostname: app-1.0.0 -> app-1.1.0"]),
        ],
    );
}

/// The siblings are in that network, too.
#[test]
fn a_network_would_be_remade() {
    let says: &[&str] =
        &["definition of network", "_default", "(Removed)", "worker-1", "docker compose down && docker compose up -d"];
    refused(
        case().app(|a| a.file_lines.push("networks: { default: { labels: { edit: one } } }".into())),
        &[
            ("edit: one", "edit: two", says),
            ("edit: one }", "edit: one }, internal: true", says),
            ("edit: one }", "edit: one }, enable_ipv6: true", says),
            ("edit: one }", "edit: one }, driver_opts: { com.docker.network.driver.mtu: \"1400\" }", says),
            ("edit: one }", "edit: one }, ipam: { config: [{ subnet: 10.213.77.0/24 }] }", says),
        ],
    );
}

/// Siblings that read `.env` themselves follow, and a version that also stands elsewhere is no reason to refuse.
#[test]
fn a_sibling_with_the_whole_env_file_follows() {
    let (_, job) = case()
        .app(|a| {
            a.worker_lines.push("env_file: [.env]".into());
            a.environment.extend(["LEVEL: \"1.0.0\"", "RELEASE: app@${APP_VERSION}"].map(str::to_owned));
        })
        .before(|s: &Stage| assert!(s.app.version_in_env().is_some()))
        .ends("committed", &[], Whatever);
    let said = job.0.to_string();
    assert!(said.contains("follow APP_VERSION too") && said.contains("worker"), "{said}");
    assert!(said.contains("services.app.environment.RELEASE changes") && !said.contains("LEVEL"), "{said}");
}
