//! Names that would do something if a shell read them. Whatever a container, a service, a project, a file or a
//! setting is called, a printed command has it as one word.

use std::sync::Arc;

use processgit_updater::command;
use processgit_updater::engine::simulated::{NoFaults, World};
use processgit_updater::engine::{RunState, label};
use processgit_updater::update::ports::Options;

use crate::bench::{Installation, Scene, add_service};
use crate::doctor::{Case, report};

/// It holds a single quote, so that a quoted word never holds it as it is.
const HOSTILE: &str = "x'; touch /pwned #$(reboot)`reboot`\"\n&";

/// Every name in a world that does not come from a setting.
fn hostile(world: &mut World) {
    world.seed.project = HOSTILE.into();
    world.containers[0].labels.insert(label::PROJECT.into(), HOSTILE.into());
    world.containers[0].labels.insert(label::WORKING_DIR.into(), format!("/srv/{HOSTILE}"));
    world.containers[0].labels.insert(label::CONFIG_FILES.into(), format!("/srv/{HOSTILE}.yml"));
    add_service(world, HOSTILE, true);
    world.containers.last_mut().unwrap().name = HOSTILE.into();
}

/// No command in this text has the hostile name as more than one word.
fn assert_harmless(what: &str, text: &str) {
    for (at, _) in text.match_indices(HOSTILE) {
        let before = &text[..at];
        let clause = before.rfind(['`', ':', '(', '.']).map_or(before, |from| &before[from + 1..]);
        let is_command =
            ["docker ", "processgit-updater ", "ls -", "df -", "install -"].iter().any(|c| clause.contains(c));
        assert!(!is_command, "{what}: a shell would read this otherwise than it is meant: {text}");
    }
}

#[test]
fn a_line_is_split_again_into_its_words() {
    for word in [HOSTILE, "", " ", "a b", "$HOME", "-x", "a\\", "~", "*", "'", "\"", "a|b", "ü"] {
        let words = ["docker", "rm", word];
        assert_eq!(shell_words::split(&command::line(words)).unwrap(), words, "{word:?}");
        assert_eq!(shell_words::split(&command::word(word)).unwrap(), [word]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_doctors_remedies_hold_every_name_as_one_word() {
    type Change = fn(&mut World);
    let rows: [(&str, Change); 4] = [
        ("as it is", hostile),
        ("stopped", |w| {
            hostile(w);
            w.containers[0].state = RunState::Exited;
        }),
        ("no .env", |w| {
            hostile(w);
            w.env = None;
        }),
        ("a forged label", |w| {
            hostile(w);
            add_service(w, "forged", false);
            let c = w.containers.last_mut().unwrap();
            c.name = format!("forged {HOSTILE}");
            c.labels.insert(label::OWNER.into(), "first".into());
            c.labels.insert(label::JOB.into(), format!("job_0000000000000001{HOSTILE}"));
        }),
    ];
    let mut named = 0;
    for (what, world) in rows {
        for options in [(|_| {}) as fn(&mut Options), |options| options.move_services = vec![HOSTILE.into()]] {
            let scene = Scene { world, options, ..Scene::default() };
            for finding in report(Case { scene: scene.clone(), ..Case::default() }).await.findings {
                let (seen, remedy) = (finding.seen, finding.remedy.map(|r| r.words().to_owned()).unwrap_or_default());
                assert!(!remedy.contains(HOSTILE), "{what}: {}: {remedy}", finding.check);
                assert_harmless(what, &seen);
                named += usize::from(remedy.contains("pwned"));
            }
            let job = Installation::ready(scene).await.run(Arc::new(NoFaults)).await;
            assert_harmless(what, &job.error.unwrap_or_default());
            job.warnings.iter().for_each(|warning| assert_harmless(what, warning));
        }
    }
    assert!(named > 2, "the name occurs in {named} remedies");
}
