//! Database servers beside the application: images made of Debian's packages by `ci/databases/build`, which start as
//! the official ones do.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Lab;
use crate::engine::must_run;
use crate::shared;

/// What they are reached with.
pub const PASSWORD: &str = "laboratory-secret";
/// The database that the application uses.
pub const DATABASE: &str = "app";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Postgres15,
    Postgres18,
    MariaDb,
    Valkey,
}

impl Server {
    /// As the script calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Postgres15 => "postgres15",
            Self::Postgres18 => "postgres18",
            Self::MariaDb => "mariadb",
            Self::Valkey => "valkey",
        }
    }

    /// Where it keeps its data; the official images declare these volumes.
    pub fn data(self) -> &'static str {
        match self {
            Self::Postgres15 => "/var/lib/postgresql/data",
            Self::Postgres18 => "/var/lib/postgresql",
            Self::MariaDb => "/var/lib/mysql",
            Self::Valkey => "/data",
        }
    }

    fn instructions(self) -> Vec<String> {
        let data = self.data();
        let postgres = |major: &str, cluster: &str| {
            let path = format!("ENV PATH=/usr/lib/postgresql/{major}/bin:/usr/sbin:/usr/bin");
            vec![path, format!("ENV PGDATA={data}{cluster}"), "STOPSIGNAL SIGINT".into(), "CMD [\"postgres\"]".into()]
        };
        let own = match self {
            Self::Postgres15 => postgres("15", ""),
            Self::Postgres18 => postgres("18", "/18/docker"),
            Self::MariaDb => vec!["CMD [\"mariadbd\"]".into()],
            Self::Valkey => vec!["CMD [\"valkey-server\"]".into()],
        };
        let all = ["ENV LANG=C.UTF-8".into(), "ENTRYPOINT [\"/docker-entrypoint\"]".into(), format!("VOLUME {data}")];
        own.into_iter().chain(all).collect()
    }

    /// The image of this run.
    pub(crate) fn image(self, lab: &Lab) -> String {
        let base = shared::image(lab, self.name(), |name, label| {
            let mut import = Command::new("docker");
            import.args(["import", "--change", &format!("LABEL {label}")]);
            import.args(self.instructions().iter().flat_map(|instruction| ["--change", instruction]));
            must_run(import.arg(self.file_system()).arg(name));
        });
        let name = format!("updater-lab-{}:{}", self.name(), lab.run.id);
        shared::build(lab, &name, &format!("FROM {base}\n"));
        name
    }

    /// The file that the image is made of; about twenty seconds where it is missing, and the network.
    fn file_system(self) -> PathBuf {
        let own = std::env::current_exe().expect("the path of this program");
        // target/debug/deps/PROGRAM
        let folder = own.ancestors().nth(3).expect("the folder of all that is built").join("databases");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/lab.sh");
        must_run(Command::new(script).arg("databases").arg(&folder).arg(self.name()));
        folder.join(format!("{}.tar.zst", self.name()))
    }

    /// The lines of its service in the Compose file. Its data is in the volume `db`; the file `start-delay` beside the
    /// Compose file says how many seconds it waits before it starts.
    pub fn service_lines(self) -> Vec<String> {
        let (environment, asks) = match self {
            Self::Postgres15 | Self::Postgres18 => (
                format!("POSTGRES_PASSWORD: {PASSWORD}, POSTGRES_DB: {DATABASE}"),
                format!("pg_isready, -q, -h, 127.0.0.1, -d, {DATABASE}"),
            ),
            Self::MariaDb => (
                format!("MARIADB_ROOT_PASSWORD: {PASSWORD}, MARIADB_DATABASE: {DATABASE}"),
                format!("mariadb-admin, ping, -h, 127.0.0.1, -uroot, -p{PASSWORD}"),
            ),
            Self::Valkey => (String::new(), "valkey-cli, ping".into()),
        };
        let mut lines = vec![
            format!("environment: {{ {environment} }}"),
            format!("volumes: [\"db:{}\", \"./start-delay:/start-delay:ro\"]", self.data()),
            format!("healthcheck: {{ test: [CMD, {asks}], interval: 500ms, retries: 60 }}"),
        ];
        if self == Self::Valkey {
            lines.push("command: [valkey-server, --appendonly, \"yes\"]".into());
        }
        lines
    }
}
