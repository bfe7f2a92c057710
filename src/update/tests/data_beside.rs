//! Data beside the application: what is found, with which certainty, and who looks after it.

use serde_json::{Value, json};

use super::beside::{deployment, of};
use crate::engine::{ComposeConfig, Container, Mount, MountKind, RunState, label};
use crate::update::plan::DataBeside;
use crate::update::ports::HookSetting;
use crate::update::survey::Deployment;
use crate::update::survey::data_beside::{Cover, Covers, Stakes, Store, covered, find, noted, told, unknown};
use crate::update::survey::named::Known;

const NOTHING: Covers<'_> =
    Covers { data_services: &[], elsewhere: &[], before_copy: None, after_restore: None, hooks_run: true };

/// Everything that Compose and the engine make of these services. The application is `app`.
struct Scene {
    config: ComposeConfig,
    deployment: Deployment,
}

impl Scene {
    fn new(services: Value) -> Self {
        Self::of_project(json!({"services": services}))
    }

    fn of_project(mut project: Value) -> Self {
        project["services"]["app"]["image"] = json!("app:1");
        project["networks"]["default"] = json!({"name": "p_default"});
        let config: ComposeConfig = serde_json::from_value(project).unwrap();
        let containers: Vec<Container> = config.services.keys().map(|name| made(&config, name)).collect();
        let container = containers.iter().find(|c| c.name == "p-app-1").unwrap().clone();
        Self { config, deployment: Deployment { container, containers, ..deployment(&["p-app-1"]) } }
    }

    /// With what another hand did to one of the containers.
    fn with(mut self, name: &str, change: impl FnOnce(&mut Container)) -> Self {
        change(self.deployment.containers.iter_mut().find(|c| c.name == name).unwrap());
        self.deployment.container = self.deployment.containers.iter().find(|c| c.name == "p-app-1").unwrap().clone();
        self
    }

    /// A container of another project in this network, with a volume.
    fn and_other(mut self, name: &str, service: &str, network: &str) -> Self {
        let mut other = of(name, "other", service);
        other.networks = [(network.to_owned(), "172.30.0.9".to_owned())].into();
        other.mounts = vec![volume("other_data", "/var/lib/x")];
        self.deployment.containers.push(other);
        self
    }

    fn find(&self, covers: Covers<'_>) -> Vec<Store> {
        find(&self.config, &self.deployment, covers, |c| c.name.starts_with("ours"))
    }

    /// `db!` is certain, `db?` is possible.
    fn found(&self) -> String {
        shown(&self.find(NOTHING))
    }
}

/// What the row is about, the services, what is found.
type Row = (&'static str, Value, &'static str);

fn check(rows: Vec<Row>) {
    let wrong = rows.into_iter().filter_map(|(name, services, expected)| {
        let found = Scene::new(services).found();
        (found != expected).then(|| format!("{name}: {found:?} instead of {expected:?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn shown(stores: &[Store]) -> String {
    let one = |store: &Store| format!("{}{}", store.name, if store.is_certain { "!" } else { "?" });
    stores.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn volume(name: &str, destination: &str) -> Mount {
    Mount {
        kind: MountKind::Volume,
        name: name.into(),
        source: format!("/var/lib/docker/volumes/{name}/_data"),
        destination: destination.into(),
        writable: true,
        subpath: String::new(),
    }
}

/// The service's container, as Compose makes it.
fn made(config: &ComposeConfig, name: &str) -> Container {
    let service = config.service(name).unwrap();
    let mut c = of(&format!("p-{name}-1"), "p", name);
    c.image_ref = service.image.clone().unwrap_or_else(|| format!("{name}:1"));
    c.restart_policy.name = service.restart.clone().unwrap_or_else(|| "unless-stopped".into());
    c.mounts = service
        .volumes
        .iter()
        .map(|wanted| {
            let (kind, source) = match (wanted.kind.as_str(), &wanted.source) {
                ("bind", Some(path)) => {
                    return Mount {
                        kind: MountKind::Bind,
                        name: String::new(),
                        source: path.clone(),
                        writable: !wanted.read_only,
                        ..volume("", &wanted.target)
                    };
                }
                ("tmpfs", _) => {
                    return Mount {
                        kind: MountKind::Tmpfs,
                        name: String::new(),
                        source: String::new(),
                        ..volume("", &wanted.target)
                    };
                }
                (_, Some(key)) => ("volume", format!("p_{key}")),
                _ => ("volume", "a".repeat(64)),
            };
            assert_eq!(kind, "volume");
            Mount { writable: !wanted.read_only, ..volume(&source, &wanted.target) }
        })
        .collect();
    c.networks.clear();
    let mode = service.network_mode.clone().unwrap_or_default();
    if mode.is_empty() {
        let keys: Vec<&String> = service.networks.keys().collect();
        let names = keys
            .iter()
            .map(|key| config.networks.get(*key).and_then(|n| n.name.clone()).unwrap_or_else(|| format!("p_{key}")));
        let names: Vec<String> = if keys.is_empty() { vec!["p_default".into()] } else { names.collect() };
        c.networks = names.into_iter().map(|network| (network, String::new())).collect();
    }
    c.network_mode = match mode.strip_prefix("service:") {
        Some(other) => format!("container:p-{other}-1"),
        None if mode.is_empty() => "p_default".into(),
        None => mode,
    };
    let ports = service
        .ports
        .iter()
        .filter_map(|port| Some((format!("{}/tcp", port.target?), json!([{"HostPort": port.published}]))));
    let ports: serde_json::Map<String, Value> = ports.collect();
    c.raw = json!({"HostConfig": {"PortBindings": ports}, "Config": {}, "NetworkSettings": {}});
    c
}

/// A service with a volume of its own.
fn db() -> Value {
    json!({"volumes": [{"type": "volume", "source": "db", "target": "/var/lib/x"}]})
}

fn app(more: Value) -> Value {
    more
}

#[test]
fn what_the_application_depends_on() {
    let volumes = |list: Value| json!({"volumes": list});
    let bind = |source: &str, target: &str| volumes(json!([{"type": "bind", "source": source, "target": target}]));
    let depends = || app(json!({"depends_on": {"db": {}}}));
    let rows: Vec<Row> = vec![
        ("a volume", db(), "db!"),
        ("a folder", bind("/srv/db", "/data"), "db!"),
        ("a volume without a name", volumes(json!([{"type": "volume", "target": "/data"}])), "db!"),
        (
            "a read-only volume",
            volumes(json!([{"type": "volume", "source": "x", "target": "/data", "read_only": true}])),
            "",
        ),
        ("memory", volumes(json!([{"type": "tmpfs", "target": "/data"}])), ""),
        ("nothing", json!({}), ""),
        ("a cache without a volume", json!({"image": "docker.io/library/redis:7"}), ""),
        (
            "a cache whose image brings one",
            json!({"image": "redis:7", "volumes": [{"type": "volume", "target": "/data"}]}),
            "",
        ),
        (
            "a cache that was given one",
            json!({"image": "valkey/valkey:8", "volumes": [{"type": "volume", "source": "x", "target": "/data"}]}),
            "db!",
        ),
        ("the engine's socket", bind("/var/run/docker.sock", "/var/run/docker.sock"), ""),
        ("the host's clock", bind("/etc/localtime", "/etc/localtime"), ""),
        ("a file of configuration", bind("/deploy/nginx.conf", "/nginx.conf"), ""),
        ("a folder of configuration", bind("/deploy/conf", "/etc/nginx/conf.d"), ""),
        ("what is run at the first start", bind("/deploy/init", "/docker-entrypoint-initdb.d"), ""),
        ("logs", volumes(json!([{"type": "volume", "source": "x", "target": "/var/log/nginx"}])), ""),
        (
            "a volume at such a place is kept",
            volumes(json!([{"type": "volume", "source": "x", "target": "/etc/pihole"}])),
            "db!",
        ),
        ("a database in one file", bind("/srv/app.db", "/app.db"), "db!"),
    ];
    check(rows.into_iter().map(|(name, db, found)| (name, json!({"app": depends(), "db": db}), found)).collect());
}

#[test]
fn over_others_and_in_every_way_that_compose_counts() {
    let rows: Vec<Row> = vec![
        (
            "over a service",
            json!({"app": {"depends_on": {"api": {}}}, "api": {"depends_on": {"db": {}}}, "db": db()}),
            "db!",
        ),
        (
            "over a migration that has run",
            json!({"app": {"depends_on": {"init": {"condition": "service_completed_successfully"}}}, "init": {"depends_on": {"db": {}}}, "db": db()}),
            "db!",
        ),
        ("by a link", json!({"app": {"links": ["db:database"]}, "db": db()}), "db!"),
        ("by a namespace", json!({"app": {"network_mode": "service:db"}, "db": db()}), "db!"),
        (
            "by its volumes, which are the application's too",
            json!({"app": {"volumes_from": ["db"], "volumes": db()["volumes"]}, "db": db()}),
            "",
        ),
        (
            "a volume of the application's that another one fills",
            json!({"app": {"depends_on": {"db": {}}, "volumes": db()["volumes"]}, "db": db()}),
            "",
        ),
        (
            "one that the application only reads",
            json!({"app": {"depends_on": {"db": {}}, "volumes": [{"type": "volume", "source": "db", "target": "/x", "read_only": true}]}, "db": db()}),
            "db!",
        ),
        (
            "both ways round",
            json!({"app": {"depends_on": {"db": {}}}, "db": {"depends_on": {"app": {}}, "volumes": db()["volumes"]}}),
            "db!",
        ),
        ("a service that is not there", json!({"app": {"depends_on": {"db": {"required": false}}}}), ""),
        (
            "not the other way",
            json!({"app": {}, "worker": {"depends_on": {"app": {}}, "volumes": db()["volumes"]}}),
            "",
        ),
    ];
    check(rows);
}

#[test]
fn what_its_variables_and_arguments_name() {
    let env = |key: &str, value: &str| json!({"environment": {key: value}});
    // Nothing else leads to it: `db` is a service of its own network, too, and has a port on the host.
    let db = || {
        json!({"volumes": db()["volumes"], "ports": [{"target": 5432, "published": "15432"}],
                       "networks": {"default": {"aliases": ["database"]}}, "hostname": "pg"})
    };
    let rows: Vec<Row> = vec![
        ("an address", env("DATABASE_URL", "postgres://u:p@db:5432/app"), "db!"),
        ("a host", env("DB_HOST", "db"), "db!"),
        ("a host under a name that says no more", env("DATABASE", "db"), "db!"),
        ("a host of what is no database", env("BROKER_HOST", "db"), "db!"),
        ("a host and a port under any name", env("BACKEND", "db:1234"), "db!"),
        ("its container's name", env("DB_HOST", "p-db-1"), "db!"),
        ("an alias", env("DB_HOST", "database"), "db!"),
        ("its own host name", env("DB_HOST", "pg"), "db!"),
        ("with its network's name", env("DB_HOST", "db.p_default"), "db!"),
        ("in capitals", env("DB_HOST", "DB"), "db!"),
        ("an argument", json!({"command": ["serve", "--db", "postgres://u:p@db/app"]}), "db!"),
        ("the entrypoint", json!({"entrypoint": ["wait-for", "db:5432"]}), "db!"),
        ("over the host's port", env("DB_HOST", "host.docker.internal:15432"), "db!"),
        (
            "with the host's network",
            json!({"network_mode": "host", "environment": {"DATABASE_URL": "postgres://localhost:15432/app"}}),
            "db!",
        ),
        ("a link's other name", json!({"links": ["db:store"], "environment": {"DB_HOST": "store"}}), "db!"),
        (
            "a name of extra_hosts for the host",
            json!({"extra_hosts": ["pg.lan:host-gateway"], "environment": {"DB_HOST": "pg.lan:15432"}}),
            "db!",
        ),
        ("a search index over http", env("ELASTIC_URL", "http://db:9200"), "db!"),
        ("a store of objects over http", env("S3_ENDPOINT", "http://db:9000"), "db!"),
        ("anything over http", env("API_URL", "http://db:8080"), "db?"),
        ("mail", env("SMTP_HOST", "db"), ""),
        ("traces", env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://db:4317"), ""),
        ("a user, a name", json!({"environment": {"POSTGRES_USER": "db", "DB_NAME": "db"}}), ""),
        ("itself", env("DB_HOST", "app"), ""),
        ("this very host", env("DB_HOST", "localhost"), ""),
        ("nothing", json!({}), ""),
    ];
    check(rows.into_iter().map(|(name, app, found)| (name, json!({"app": app, "db": db()}), found)).collect());
}

#[test]
fn a_name_means_what_it_means_in_its_networks() {
    let services = |app: Value, db: Value| json!({"app": app, "db": db});
    let with = |networks: Value| json!({"networks": networks, "environment": {"DB_HOST": "db"}});
    let of = |networks: Value| json!({"networks": networks, "volumes": db()["volumes"], "ports": [{"target": 1, "published": "1"}]});
    // A service of the project that cannot be reached is nobody's database, and no host elsewhere.
    assert_eq!(Scene::new(services(with(json!({"a": {}})), of(json!({"b": {}})))).found(), "");
    assert_eq!(Scene::new(services(with(json!({"a": {}, "b": {}})), of(json!({"b": {}})))).found(), "db!");

    // Another project's container in a shared network.
    let shared = json!({"services": {"app": {"networks": {"shared": {}}, "environment": {"DATABASE_URL": "postgres://pg/app"}}},
                        "networks": {"shared": {"name": "shared", "external": true}}});
    for (container, service, network, expected) in [
        ("other-pg-1", "pg", "shared", "other-pg-1!"),
        ("pg", "server", "shared", "pg!"),
        // The name means nobody here: it may be a host elsewhere.
        ("other-pg-1", "pg", "other_default", "pg!"),
        ("other-x-1", "x", "shared", "pg!"),
    ] {
        let scene = Scene::of_project(shared.clone()).and_other(container, service, network);
        assert_eq!(scene.found(), expected, "{container} {network}");
    }
    // By an alias that only the engine knows, and by its address.
    for (host, alias) in [("database", "database"), ("172.30.0.9", "")] {
        let mut project = shared.clone();
        project["services"]["app"]["environment"] = json!({"DB_HOST": host});
        let scene = Scene::of_project(project).and_other("other-pg-1", "pg", "shared").with("other-pg-1", |c| {
            c.raw = json!({"NetworkSettings": {"Networks": {"shared": {"Aliases": [alias]}}}});
        });
        assert_eq!(scene.found(), "other-pg-1!", "{host}");
    }
    // Whoever lives in one namespace has one localhost.
    let mates = json!({"vpn": {}, "app": {"network_mode": "service:vpn", "environment": {"DATABASE_URL": "postgres://localhost/app"}},
                       "db": {"network_mode": "service:vpn", "volumes": db()["volumes"]}});
    assert_eq!(Scene::new(mates).found(), "db!");
}

#[test]
fn a_database_on_another_host() {
    let rows: &[(&str, &str, &str)] = &[
        ("DATABASE_URL", "postgres://u:p@db.example.org/app", "db.example.org!"),
        ("DB_HOST", "app.abc.eu-1.rds.amazonaws.com", "app.abc.eu-1.rds.amazonaws.com!"),
        ("DB_HOST", "10.0.0.7", "10.0.0.7!"),
        ("DB_HOST_PRIMARY", "db1.example.org", "db1.example.org!"),
        ("DB_SERVER_VERSION", "v15.3", ""),
        ("DB_HOST", "fd00::7", "fd00::7!"),
        ("DB_HOST", "host.docker.internal", "host.docker.internal!"),
        ("DB_HOST", "host.docker.internal:5432", "host.docker.internal!"),
        ("DB_HOST", "dbserver", "dbserver!"),
        ("X", "Server=sql.example.org;Database=app;User Id=sa", "sql.example.org!"),
        ("REDIS_URL", "rediss://cache.example.org:6380", "cache.example.org!"),
        ("ELASTICSEARCH_URL", "https://es.example.org", "es.example.org!"),
        // A cache that may not be there at all; web addresses; what goes there is not read again.
        ("REDIS_HOST", "redis", ""),
        ("S3_ENDPOINT", "https://s3.example.org", ""),
        ("BASE_URL", "https://app.example.org", ""),
        ("SMTP_HOST", "mail.example.org", ""),
        ("DB_HOST_COMMENT", "none", ""),
        ("DB_VERSION", "pg:15", ""),
        ("DATABASE", "app", ""),
        ("POSTGRES_DB", "shop", ""),
    ];
    for (key, value, expected) in rows {
        let scene = Scene::new(json!({"app": {"environment": {*key: value}}}));
        assert_eq!(scene.found(), *expected, "{key}={value}");
    }
    // Images bring defaults for what is not there.
    let scene =
        Scene::new(json!({"app": {}})).with("p-app-1", |c| c.raw["Config"]["Env"] = json!(["DB_HOST=postgres"]));
    assert_eq!(scene.found(), "");
    let scene = Scene::new(json!({"app": {}, "postgres": db()}))
        .with("p-app-1", |c| c.raw["Config"]["Env"] = json!(["DB_HOST=postgres"]));
    assert_eq!(scene.found(), "postgres!", "but they may be right");
}

#[test]
fn what_is_only_in_a_network_with_it() {
    let near = |more: Value| {
        let mut service = db();
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        service
    };
    let ports = json!([{"target": 443, "published": "443"}]);
    let at = |target: &str| json!({"volumes": [{"type": "volume", "source": "x", "target": target}]});
    let rows: Vec<Row> = vec![
        ("a store", json!({"app": {}, "x": near(json!({}))}), "x?"),
        ("in another network", json!({"app": {}, "x": near(json!({"networks": {"other": {}}}))}), ""),
        ("a proxy with certificates", json!({"app": {}, "x": near(json!({"ports": ports}))}), ""),
        (
            "whoever renews its certificates",
            json!({"app": {}, "x": near(json!({"ports": ports})), "certbot": near(json!({}))}),
            "",
        ),
        (
            "a database with a port on the host",
            json!({"app": {}, "x": {"ports": ports, "volumes": at("/var/lib/postgresql/data")["volumes"]}}),
            "x?",
        ),
        (
            "a worker that depends on the application",
            json!({"app": {}, "x": near(json!({"depends_on": {"app": {}}}))}),
            "",
        ),
        (
            "a proxy that names it",
            json!({"app": {}, "x": near(json!({"environment": {"BACKEND": "http://app:80"}}))}),
            "",
        ),
        (
            "a client of its database",
            json!({"app": {"depends_on": {"db": {}}}, "db": db(), "x": {"environment": {"DB_HOST": "db"}, "volumes": at("/x")["volumes"]}}),
            "db!",
        ),
        (
            "a tool with the engine's socket",
            json!({"app": {}, "x": {"volumes": [at("/x")["volumes"][0], {"type": "bind", "source": "/var/run/docker.sock", "target": "/var/run/docker.sock"}]}}),
            "",
        ),
        ("without a volume", json!({"app": {}, "x": {}}), ""),
    ];
    check(rows);
    // It does not run, or is no part of the project, or the updater's.
    let scene = || Scene::new(json!({"app": {}, "x": near(json!({}))}));
    assert_eq!(scene().with("p-x-1", |c| c.state = RunState::Exited).found(), "");
    assert_eq!(
        scene()
            .with("p-x-1", |c| {
                c.labels.insert(label::PROJECT.into(), "other".into());
            })
            .found(),
        ""
    );
    assert_eq!(scene().with("p-x-1", |c| c.name = "ours".into()).found(), "");
    assert_eq!(scene().with("p-x-1", |c| c.raw["Config"]["Env"] = json!(["PROCESSGIT_UPDATER_TOKEN=x"])).found(), "");
}

#[test]
fn what_has_ended_keeps_nothing_and_what_is_down_does() {
    let services = || json!({"app": {"depends_on": {"db": {}}}, "db": {"volumes": db()["volumes"], "restart": "no"}});
    let exited = |code| move |c: &mut Container| (c.state, c.exit_code) = (RunState::Exited, code);
    assert_eq!(Scene::new(services()).with("p-db-1", exited(0)).found(), "", "an init service");
    let mut down = services();
    down["db"]["restart"] = json!("always");
    assert_eq!(Scene::new(down).with("p-db-1", exited(137)).found(), "db!");
    assert_eq!(Scene::new(services()).with("p-db-1", |c| c.state = RunState::Created).found(), "");
    let one_off = |c: &mut Container| drop(c.labels.insert(label::ONEOFF.into(), "True".into()));
    assert_eq!(Scene::new(services()).with("p-db-1", one_off).found(), "");
}

/// A database writes somewhere, if not into a volume.
#[test]
fn a_database_without_a_volume() {
    let scene =
        |db: Value| Scene::new(json!({"app": {"environment": {"DATABASE_URL": "postgres://db/app"}}, "db": db}));
    assert_eq!(scene(json!({})).found(), "db!");
    assert!(scene(json!({})).find(NOTHING)[0].shown().contains("no volume, so its data is in the container itself"));
    let memory = json!({"volumes": [{"type": "tmpfs", "target": "/data"}]});
    assert_eq!(scene(memory).found(), "");
    let tmpfs = |c: &mut Container| c.raw["HostConfig"]["Tmpfs"] = json!({"/var/lib/postgresql/data": ""});
    assert_eq!(scene(json!({})).with("p-db-1", tmpfs).found(), "");
    let only_run = |c: &mut Container| c.raw["HostConfig"]["Tmpfs"] = json!({"/run": ""});
    assert_eq!(scene(json!({})).with("p-db-1", only_run).found(), "db!");
    assert_eq!(scene(json!({})).with("p-db-1", |c| c.raw["HostConfig"]["ReadonlyRootfs"] = json!(true)).found(), "");
    // A cache and a service of its own protocol may well have nothing to keep.
    for variable in ["REDIS_HOST", "SEARCH_HOST"] {
        assert_eq!(Scene::new(json!({"app": {"environment": {variable: "db"}}, "db": {}})).found(), "", "{variable}");
    }
}

/// `names` as settings have them.
fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn hook(text: &str) -> HookSetting {
    let (service, command) = text.split_once(": ").unwrap();
    HookSetting { service: service.into(), command: command.split(' ').map(str::to_owned).collect() }
}

#[test]
fn who_looks_after_it() {
    use Cover::{DataServices, Declared, Hooks, Nobody};
    let db = json!({"volumes": db()["volumes"], "networks": {"default": {"aliases": ["pg"]}}});
    let scene = Scene::new(json!({"app": {"depends_on": {"db": {}}}, "db": db}));
    let hooked = |before, after| (Some(hook(before)), Some(hook(after)));
    type Hooked = (Option<HookSetting>, Option<HookSetting>);
    type Names = &'static [&'static str];
    type Row = (&'static str, Names, Names, Hooked, bool, Cover);
    let rows: Vec<Row> = vec![
        ("nobody", &[], &[], (None, None), true, Nobody),
        ("by its service", &["db"], &[], (None, None), true, DataServices),
        ("by its container", &["p-db-1"], &[], (None, None), true, DataServices),
        ("another one", &["search"], &[], (None, None), true, Nobody),
        ("declared", &[], &["db"], (None, None), true, Declared),
        ("declared by an alias", &[], &["PG"], (None, None), true, Declared),
        ("both", &["db"], &["db"], (None, None), true, DataServices),
        ("hooks in it", &[], &[], hooked("db: pg_dump -f /d app", "db: pg_restore /d"), true, Hooks),
        (
            "hooks that name it",
            &[],
            &[],
            hooked("tool: dump --host=pg", "tool: load postgres://u@db:5432/app"),
            true,
            Hooks,
        ),
        ("hooks that are not run", &[], &[], hooked("db: dump", "db: load"), false, Nobody),
        ("only the way there", &[], &[], (Some(hook("db: dump")), None), true, Nobody),
        ("only the way back", &[], &[], (None, Some(hook("db: load"))), true, Nobody),
        ("one of them for another one", &[], &[], hooked("db: dump", "search: load"), true, Nobody),
        ("hooks of something else", &[], &[], hooked("app: dump", "app: load"), true, Nobody),
        ("a name in a name", &[], &[], hooked("app: dump /mydb", "app: load olddb.sql"), true, Nobody),
    ];
    for (name, data_services, elsewhere, (before, after), hooks_run, expected) in rows {
        let (data_services, elsewhere) = (list(data_services), list(elsewhere));
        let covers = Covers {
            data_services: &data_services,
            elsewhere: &elsewhere,
            before_copy: before.as_ref(),
            after_restore: after.as_ref(),
            hooks_run,
        };
        let stores = scene.find(covers);
        assert_eq!(stores.iter().map(|store| store.cover).collect::<Vec<_>>(), [expected], "{name}");
        let noted = noted(&stores);
        let of = |cover| if expected == cover { list(&["db"]) } else { vec![] };
        assert_eq!(noted, DataBeside { uncovered: of(Nobody), declared: of(Declared), hooked: of(Hooks) }, "{name}");
        assert_eq!(told(&stores, covers, Stakes::AnotherVersion).is_empty(), expected != Nobody, "{name}");
        assert_eq!(covered(&stores).is_some(), expected != Nobody, "{name}");
    }
}

/// What people read: the thing, why it is one, what becomes of it, the setting to add. No value of a variable.
#[test]
fn what_is_told() {
    let services = json!({
        "app": {"depends_on": {"db": {}}, "environment": {"DATABASE_URL": "postgres://user:s3cret@db:5432/app", "DB_HOST": "db",
                                                            "WEB": "http://wiki:80", "SQL_DSN": "host=sql.example.org dbname=x password=s3cret"}},
        "db": db(), "bucket": {"volumes": [{"type": "volume", "source": "files", "target": "/data"}]},
        "wiki": {"volumes": [{"type": "bind", "source": "/srv/wiki", "target": "/wiki"}]},
        "worker": {"environment": {"DB_HOST": "db"}}, "metrics": {"depends_on": {"db": {}}},
    });
    let scene = Scene::new(services);
    let (data_services, elsewhere) = (list(&["search"]), list(&["queue"]));
    let covers = Covers { data_services: &data_services, elsewhere: &elsewhere, ..NOTHING };
    let told: Vec<String> =
        told(&scene.find(covers), covers, Stakes::AnotherVersion).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "data beside the application is NOT copied: db (volume p_db; the application depends on it; DATABASE_URL and DB_HOST name it; metrics, worker use it too), sql.example.org (SQL_DSN names it). When the new version fails after it or its migration has begun, this data cannot be put back and the job ends `failed`. Set PROCESSGIT_UPDATER_DATA_SERVICES=search,db to have it copied and put back; have commands in PROCESSGIT_UPDATER_HOOK_BEFORE_COPY and PROCESSGIT_UPDATER_HOOK_AFTER_RESTORE that name sql.example.org dump and load it; or, if you look after it yourself, set PROCESSGIT_UPDATER_DATA_ELSEWHERE=queue,db,sql.example.org",
            "this may be data of the application, and is not copied: bucket (volume p_files; it is in network p_default with the application), wiki (folder /srv/wiki; WEB names it). Set PROCESSGIT_UPDATER_DATA_SERVICES=search,bucket,wiki if it is, or PROCESSGIT_UPDATER_DATA_ELSEWHERE=queue,bucket,wiki if it is not",
        ]
    );
}

#[test]
fn one_database_is_one_setting() {
    let scene = Scene::new(json!({"app": {"depends_on": {"db": {}}}, "db": db()}));
    let told_of = |covers, stakes| told(&scene.find(covers), covers, stakes)[0].to_string();
    let text = told_of(NOTHING, Stakes::Snapshot);
    assert_eq!(
        text,
        "data beside the application is NOT copied: db (volume p_db; the application depends on it). The snapshot will not have it. If you look after it yourself: PROCESSGIT_UPDATER_DATA_ELSEWHERE=db. Set PROCESSGIT_UPDATER_DATA_SERVICES=db"
    );
    assert!(told_of(NOTHING, Stakes::Restore).contains("It stays as it is now"));
    let before = hook("db: dump");
    let covers = Covers { before_copy: Some(&before), after_restore: Some(&before), hooks_run: false, ..NOTHING };
    assert!(
        told_of(covers, Stakes::AnotherVersion)
            .contains("the hooks do not run, because no data of the application itself is copied")
    );
}

#[test]
fn a_name_in_data_elsewhere_that_nothing_has() {
    let scene = Scene::new(
        json!({"app": {"depends_on": {"db": {}}, "environment": {"SQL_HOST": "sql.example.org"}}, "db": db(), "proxy": {}}),
    );
    for (elsewhere, expected) in [
        (&["db"][..], None),
        (&["sql.example.org", "p-db-1"], None),
        // Nothing is kept there, and it does no harm.
        (&["proxy"], None),
        (&["bd"], Some("Set PROCESSGIT_UPDATER_DATA_ELSEWHERE=db")),
        (&["db", "sql.exmaple.org"], Some("Set PROCESSGIT_UPDATER_DATA_ELSEWHERE=db,sql.example.org")),
    ] {
        let elsewhere = list(elsewhere);
        let covers = Covers { elsewhere: &elsewhere, ..NOTHING };
        let stores = scene.find(covers);
        let told =
            unknown(&stores, covers, Known::of(&scene.deployment, &scene.config)).map(|refusal| refusal.to_string());
        assert_eq!(told.is_some(), expected.is_some(), "{elsewhere:?}: {told:?}");
        assert!(told.unwrap_or_default().ends_with(expected.unwrap_or_default()), "{elsewhere:?}");
    }
}
