//! One end-to-end case: an application at 1.0.0, a release 1.1.0, and what becomes of it.

use std::path::Path;
use std::time::Duration;

use lab::Lab;
use lab::deployment::{AppSpec, Deployment};
use lab::poller::Poller;
use lab::publish::{Published, ReleaseSpec};
use lab::sidecar::{Network, Sees, Sidecar};
use lab::socket_proxy::SocketProxy;
use lab::updater::{Job, TOKEN, Updater};
use lab::world::World;
use serde_json::{Value, json};

/// What the world must look like afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// The same container, never interrupted; the engine and every file as before.
    Untouched,
    /// Perhaps a new container, but the old image, `.env`, siblings; nothing left behind.
    Restored,
    /// The new image, by digest; `.env` differs in the version alone; siblings as before.
    Updated,
    /// The test looks for itself.
    Whatever,
}

/// Everything around one case, while it runs.
pub struct Stage {
    pub app: Deployment,
    pub updater: Updater,
    pub release: Published,
    pub before: World,
    /// Between the updater and the engine, if there is one.
    pub proxy: Option<SocketProxy>,
    /// Last: dropped after those who use it.
    pub lab: Lab,
}

type Hook = Box<dyn FnOnce(&Stage)>;
type Offers = Box<dyn FnOnce(&Lab, &Deployment) -> Published>;

pub struct Case {
    app: AppSpec,
    offers: Offers,
    settings: Vec<(&'static str, &'static str)>,
    request: Value,
    before: Option<Hook>,
    during: Option<(&'static str, Hook)>,
}

/// A good application, a good release.
pub fn case() -> Case {
    Case {
        app: AppSpec::new("1.0.0"),
        offers: Box::new(|lab, _| lab.publish(ReleaseSpec::new("1.1.0"))),
        settings: vec![("HEALTH_INTERVAL", "200ms"), ("HEALTH_STABLE", "500ms")],
        request: json!({}),
        before: None,
        during: None,
    }
}

impl Case {
    pub fn app(mut self, change: impl FnOnce(&mut AppSpec)) -> Self {
        change(&mut self.app);
        self
    }

    /// The updater is a service of the same project.
    pub fn sidecar(self, sees: Sees, change: impl FnOnce(&mut Sidecar)) -> Self {
        let mut sidecar = Sidecar::new(sees);
        change(&mut sidecar);
        self.app(|app| app.sidecar = Some(sidecar))
    }

    /// Changes release 1.1.0.
    pub fn release(self, change: impl FnOnce(ReleaseSpec) -> ReleaseSpec + 'static) -> Self {
        self.offers(|lab, _| lab.publish(change(ReleaseSpec::new("1.1.0"))))
    }

    /// The gate for a release that behaves so: of one that crashes the verdict takes as long as the gate, up to 15 s.
    pub fn gate_for(self, behaviour: &str) -> Self {
        self.setting("HEALTH_TIMEOUT", if behaviour.starts_with("crash") { "5s" } else { "20s" })
    }

    /// Offers something else altogether; what is returned is asked for.
    pub fn offers(mut self, publish: impl FnOnce(&Lab, &Deployment) -> Published + 'static) -> Self {
        self.offers = Box::new(publish);
        self
    }

    /// A setting of the updater, without its prefix.
    pub fn setting(mut self, name: &'static str, value: &'static str) -> Self {
        self.settings.push((name, value));
        self
    }

    /// More fields of the request.
    pub fn request(mut self, fields: Value) -> Self {
        self.request = fields;
        self
    }

    /// Happens after the release was published and before the update is asked for.
    pub fn before(mut self, hook: impl FnOnce(&Stage) + 'static) -> Self {
        self.before = Some(Box::new(hook));
        self
    }

    /// Happens while the job is in `state`.
    pub fn during(mut self, state: &'static str, hook: impl FnOnce(&Stage) + 'static) -> Self {
        self.during = Some((state, Box::new(hook)));
        self
    }

    /// Everything is in place, and nothing is asked for yet.
    pub fn stage(self) -> Stage {
        self.set().0
    }

    fn set(self) -> (Stage, Value, Option<(&'static str, Hook)>) {
        let sidecar = self.app.sidecar.as_ref();
        let in_a_network = sidecar.is_some_and(|sidecar| sidecar.network == Network::Project);
        let lab = if in_a_network { Lab::for_containers() } else { Lab::new() };
        let filter = sidecar.and_then(|sidecar| sidecar.behind.as_ref());
        let proxy = filter.map(|filter| SocketProxy::start(&lab, filter));
        let app = lab.deploy(self.app);
        let release = (self.offers)(&lab, &app);
        let updater = Updater::start(program(), &lab, &app, &self.settings);
        let mut stage = Stage { before: World::of(&app), lab, app, updater, release, proxy };
        if let Some(hook) = self.before {
            hook(&stage);
            stage.before = World::of(&stage.app);
        }
        let mut request = self.request;
        request["target_tag"] = json!(stage.release.tag);
        (stage, request, self.during)
    }

    /// Runs the update. The job ends as `state`, its reason contains all of `says`, the world is as
    /// `leaves` demands.
    pub fn ends(self, state: &str, says: &[&str], leaves: Leaves) -> (Stage, Job) {
        let (stage, request, during) = self.set();
        let poller = Poller::patient(&stage.app.health_url);
        let id = stage.updater.begin(&request);
        if let Some((moment, hook)) = during {
            let job = stage.updater.wait_for(&id, moment);
            assert!(job.states().contains(&moment), "the job never was in state {moment}: {:#}", job.0);
            hook(&stage);
        }
        let job = stage.updater.wait_for_end(&id);
        let downtime = poller.stop().downtime();
        job.assert_end(state, says);
        stage.assert_leaves(leaves, downtime);
        stage.assert_at_rest(&job);
        (stage, job)
    }
}

impl Stage {
    /// Asks for the release that is on offer.
    pub fn update(&self) -> Job {
        self.updater.update(&self.release.tag)
    }

    /// Offers a good release and installs it: whatever happened before, the updater still works.
    pub fn assert_next_update_works(&self) {
        let next = self.lab.publish(ReleaseSpec::new("1.2.0"));
        self.updater.update(&next.tag).assert_end("committed", &[]);
        assert_eq!(self.app.running_version().as_deref(), Some("1.2.0"));
    }

    pub fn assert_leaves(&self, leaves: Leaves, downtime: Duration) {
        self.assert_leaves_in(leaves, downtime, &self.before, &World::of(&self.app));
    }

    pub fn assert_leaves_in(&self, leaves: Leaves, downtime: Duration, before: &World, after: &World) {
        let version = self.app.running_version();
        match leaves {
            Leaves::Untouched => {
                before.assert_untouched(after);
                assert_eq!(downtime, Duration::ZERO, "the application was interrupted");
            }
            Leaves::Restored => {
                before.assert_restored(after);
                assert_eq!(version.as_deref(), Some(self.app.spec.image.version.as_str()), "the old version answers");
            }
            Leaves::Updated => {
                before.assert_updated(after, &self.new_image(), &self.new_env(), &self.new_names());
                assert_eq!(version.as_deref(), Some(self.release.version.as_str()), "the new version answers");
            }
            Leaves::Whatever => {}
        }
    }

    /// The id of the image that was signed.
    fn new_image(&self) -> String {
        let image = self.lab.engine.image(&self.release.image.reference()).expect("the new image is at hand");
        image["Id"].as_str().unwrap_or_default().to_owned()
    }

    fn new_names(&self) -> [String; 2] {
        [self.release.tagged(), self.release.image.reference()]
    }

    fn new_env(&self) -> String {
        let line = |tag: &str| format!("{}={tag}\n", self.app.spec.version_key);
        self.before.env.replace(&line(&self.app.spec.image_tag), &line(&self.release.image_tag))
    }

    /// No job is active, the history knows the last one, and no secret is in the log.
    fn assert_at_rest(&self, job: &Job) {
        let status = self.updater.get("/status").expect_status(&[200], "GET /status").json();
        assert_eq!(status["active_job"], Value::Null, "{status:#}");
        let history = self.updater.get("/history").expect_status(&[200], "GET /history").json();
        assert_eq!(history["jobs"][0], job.0, "the newest job of the history");
        assert!(!self.updater.log_text().contains(TOKEN), "the token is in the log");
    }
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_processgit-updater"))
}
