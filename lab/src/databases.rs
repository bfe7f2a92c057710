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
        let (own, port) = match self {
            Self::Postgres15 => (postgres("15", ""), 5432),
            Self::Postgres18 => (postgres("18", "/18/docker"), 5432),
            Self::MariaDb => (vec!["CMD [\"mariadbd\"]".into()], 3306),
            Self::Valkey => (vec!["CMD [\"valkey-server\"]".into()], 6379),
        };
        let all = [
            "ENV LANG=C.UTF-8".into(),
            "ENTRYPOINT [\"/docker-entrypoint\"]".into(),
            format!("VOLUME {data}"),
            format!("EXPOSE {port}"),
        ];
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

    /// The heading of its recipe.
    fn recipe(self) -> &'static str {
        match self {
            Self::Postgres15 | Self::Postgres18 => "PostgreSQL",
            Self::MariaDb => "MariaDB",
            Self::Valkey => "Valkey or Redis",
        }
    }

    /// The lines of its service in the Compose file, as the documentation recommends them, with its data in the volume
    /// `db`. The file `start-delay` beside the Compose file says how many seconds it waits before it starts.
    pub fn service_lines(self) -> Vec<String> {
        let recipe = recipe(self.recipe());
        let is_ours = |line: &&str| !["image:", "restart:"].iter().any(|key| line.starts_with(key));
        let own = recipe.iter().map(String::as_str).filter(is_ours);
        let line = |line: &str| match line.starts_with("  - db:") {
            true => format!("  - db:{}\n      - ./start-delay:/start-delay:ro", self.data()),
            false => line.replace("${DATABASE_PASSWORD:?}", PASSWORD),
        };
        own.map(line).collect()
    }
}

/// The service `database` in the first example below this heading of `docs/databases.md`.
fn recipe(heading: &str) -> Vec<String> {
    const PAGE: &str = include_str!("../../docs/databases.md");
    let section = PAGE.split("\n## ").find(|section| section.starts_with(heading));
    let example = section.and_then(|section| section.split("```yaml\n  database:\n").nth(1)?.split("```").next());
    let example = example.unwrap_or_else(|| panic!("docs/databases.md has no recipe for {heading}"));
    example.lines().map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned()).collect()
}
