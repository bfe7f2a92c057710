//! The flags of `serve` and the environment behind them, as text: nothing is judged here.

use std::ffi::OsString;
use std::fmt;

/// The variables' names, as deployments have them.
pub mod name {
    pub const TOKEN: &str = "PROCESSGIT_UPDATER_TOKEN";
    pub const TOKEN_FILE: &str = "PROCESSGIT_UPDATER_TOKEN_FILE";
    pub const LISTEN: &str = "PROCESSGIT_UPDATER_LISTEN";
    pub const STATE_DIR: &str = "PROCESSGIT_UPDATER_STATE_DIR";
    pub const REPO: &str = "PROCESSGIT_UPDATER_REPO";
    pub const GITHUB_API: &str = "PROCESSGIT_UPDATER_GITHUB_API";
    pub const GITHUB_TOKEN: &str = "PROCESSGIT_UPDATER_GITHUB_TOKEN";
    pub const GITHUB_TOKEN_FILE: &str = "PROCESSGIT_UPDATER_GITHUB_TOKEN_FILE";
    pub const GITHUB_TOKEN_HOSTS: &str = "PROCESSGIT_UPDATER_GITHUB_TOKEN_HOSTS";
    pub const APP_NAME: &str = "PROCESSGIT_UPDATER_APP_NAME";
    pub const APP_CONTAINER: &str = "PROCESSGIT_UPDATER_APP_CONTAINER";
    pub const APP_SERVICE: &str = "PROCESSGIT_UPDATER_APP_SERVICE";
    pub const VERSION_KEY: &str = "PROCESSGIT_UPDATER_VERSION_KEY";
    pub const COMPOSE_FILE: &str = "PROCESSGIT_UPDATER_COMPOSE_FILE";
    pub const ENV_FILE: &str = "PROCESSGIT_UPDATER_ENV_FILE";
    pub const HEALTH_URL: &str = "PROCESSGIT_UPDATER_HEALTH_URL";
    pub const HEALTH_TIMEOUT: &str = "PROCESSGIT_UPDATER_HEALTH_TIMEOUT";
    pub const HEALTH_INTERVAL: &str = "PROCESSGIT_UPDATER_HEALTH_INTERVAL";
    pub const HEALTH_STABLE: &str = "PROCESSGIT_UPDATER_HEALTH_STABLE";
    pub const HEALTH_VERSION: &str = "PROCESSGIT_UPDATER_HEALTH_VERSION";
    pub const SIGNING_KEY: &str = "PROCESSGIT_UPDATER_SIGNING_KEY";
    pub const SIGNING_ISSUER: &str = "PROCESSGIT_UPDATER_SIGNING_ISSUER";
    pub const SIGNING_IDENTITY_REGEX: &str = "PROCESSGIT_UPDATER_SIGNING_IDENTITY_REGEX";
    pub const TRUSTED_ROOT: &str = "PROCESSGIT_UPDATER_TRUSTED_ROOT";
    pub const TRUSTED_ROOT_REFRESH: &str = "PROCESSGIT_UPDATER_TRUSTED_ROOT_REFRESH";
    pub const VERIFY_IMAGE: &str = "PROCESSGIT_UPDATER_VERIFY_IMAGE";
    pub const SNAPSHOT: &str = "PROCESSGIT_UPDATER_SNAPSHOT";
    pub const SNAPSHOT_DIR: &str = "PROCESSGIT_UPDATER_SNAPSHOT_DIR";
    pub const SNAPSHOT_KEEP: &str = "PROCESSGIT_UPDATER_SNAPSHOT_KEEP";
    pub const SNAPSHOT_MAX_AGE: &str = "PROCESSGIT_UPDATER_SNAPSHOT_MAX_AGE";
    pub const SNAPSHOT_MAX_DEPTH: &str = "PROCESSGIT_UPDATER_SNAPSHOT_MAX_DEPTH";
    pub const SNAPSHOT_MAX_ENTRIES: &str = "PROCESSGIT_UPDATER_SNAPSHOT_MAX_ENTRIES";
    pub const SNAPSHOT_EXCLUDE: &str = "PROCESSGIT_UPDATER_SNAPSHOT_EXCLUDE";
    pub const MOVE_SERVICES: &str = "PROCESSGIT_UPDATER_MOVE_SERVICES";
    pub const STOP_SERVICES: &str = "PROCESSGIT_UPDATER_STOP_SERVICES";
    pub const DATA_SERVICES: &str = "PROCESSGIT_UPDATER_DATA_SERVICES";
    pub const DATA_ELSEWHERE: &str = "PROCESSGIT_UPDATER_DATA_ELSEWHERE";
    pub const HOOK_BEFORE_COPY: &str = "PROCESSGIT_UPDATER_HOOK_BEFORE_COPY";
    pub const HOOK_AFTER_RESTORE: &str = "PROCESSGIT_UPDATER_HOOK_AFTER_RESTORE";
    pub const MIGRATION_TIMEOUT: &str = "PROCESSGIT_UPDATER_MIGRATION_TIMEOUT";
    pub const CA_FILE: &str = "PROCESSGIT_UPDATER_CA_FILE";
    pub const SELF_NAME: &str = "PROCESSGIT_UPDATER_SELF_NAME";
    pub const SELF_REPO: &str = "PROCESSGIT_UPDATER_SELF_REPO";
    pub const SELF_VERSION_KEY: &str = "PROCESSGIT_UPDATER_SELF_VERSION_KEY";
    pub const SELF_IDENTITY_REGEX: &str = "PROCESSGIT_UPDATER_SELF_IDENTITY_REGEX";
    pub const STUB: &str = "PROCESSGIT_UPDATER_STUB";
    pub const DEBUG: &str = "PROCESSGIT_UPDATER_DEBUG";
}

/// What holds where nothing is said, or the empty text (compose files thread `${X:-}` through).
pub mod default {
    pub const LISTEN: &str = ":9000";
    pub const STATE_DIR: &str = "/var/lib/processgit-updater";
    pub const REPO: &str = "Algomation-AI/ProcessGit";
    pub const GITHUB_API: &str = "https://api.github.com";
    pub const APP_NAME: &str = "processgit";
    pub const APP_CONTAINER: &str = "processgit";
    pub const VERSION_KEY: &str = "PROCESSGIT_VERSION";
    pub const COMPOSE_FILE: &str = "/deploy/docker-compose.yml";
    pub const ENV_FILE: &str = "/deploy/.env";
    pub const HEALTH_URL: &str = "http://processgit:3000/api/v1/version";
    pub const HEALTH_TIMEOUT: &str = "2m";
    pub const HEALTH_INTERVAL: &str = "3s";
    pub const HEALTH_STABLE: &str = "3s";
    pub const SIGNING_ISSUER: &str = "https://token.actions.githubusercontent.com";
    pub const TRUSTED_ROOT_REFRESH: &str = "false";
    pub const VERIFY_IMAGE: &str = "true";
    pub const SNAPSHOT: &str = "on";
    pub const SNAPSHOT_KEEP: &str = "5";
    pub const SNAPSHOT_MAX_DEPTH: &str = "4096";
    pub const SNAPSHOT_MAX_ENTRIES: &str = "20000000";
    pub const MIGRATION_TIMEOUT: &str = "30m";
    pub const SELF_NAME: &str = "processgit-updater";
    pub const SELF_REPO: &str = "Algomation-AI/processgit-updater";
    pub const SELF_VERSION_KEY: &str = "PROCESSGIT_UPDATER_VERSION";
    pub const STUB: &str = "true";
    pub const DEBUG: &str = "false";
}

/// Every setting of `serve`; a flag beats the environment. Raw: [`ServeArgs::settings`] judges.
#[derive(clap::Args, Clone)]
pub struct ServeArgs {
    /// Bearer token of the HTTP API. Required, here or as a file; a flag can be read by every user of
    /// the machine, so prefer the file
    #[arg(long, env = name::TOKEN, hide_env_values = true)]
    pub(super) token: Option<OsString>,
    /// File that holds the token (Docker's convention for secrets)
    #[arg(long, env = name::TOKEN_FILE, value_name = "FILE")]
    pub(super) token_file: Option<OsString>,
    /// Address of the HTTP API: `:9000` (all interfaces), `127.0.0.1:9000`, `[::1]:9000`, `unix:/path`
    #[arg(long, env = name::LISTEN, value_name = "ADDRESS", default_value = default::LISTEN)]
    pub(super) listen: OsString,
    /// Everything the updater remembers
    #[arg(long, env = name::STATE_DIR, value_name = "FOLDER", default_value = default::STATE_DIR)]
    pub(super) state_dir: OsString,
    /// Whose releases are offered
    #[arg(long, env = name::REPO, value_name = "OWNER/NAME", default_value = default::REPO)]
    pub(super) repo: OsString,
    /// Base of the releases API: GitHub, GitHub Enterprise, Gitea or Forgejo
    #[arg(long, env = name::GITHUB_API, value_name = "URL", default_value = default::GITHUB_API)]
    pub(super) github_api: OsString,
    /// Raises the rate limit and opens private repositories; sent only to the API's own host
    #[arg(long, env = name::GITHUB_TOKEN, hide_env_values = true, value_name = "TOKEN")]
    pub(super) github_token: Option<OsString>,
    /// File that holds that token
    #[arg(long, env = name::GITHUB_TOKEN_FILE, value_name = "FILE")]
    pub(super) github_token_file: Option<OsString>,
    /// Further hosts that may see that token, HOST[:PORT], separated by commas: where a Gitea keeps its assets under
    /// another name than the API
    #[arg(long, env = name::GITHUB_TOKEN_HOSTS, value_name = "HOSTS")]
    pub(super) github_token_hosts: Option<OsString>,
    /// The `name` a manifest must carry
    #[arg(long, env = name::APP_NAME, value_name = "NAME", default_value = default::APP_NAME)]
    pub(super) app_name: OsString,
    /// The application's container
    #[arg(long, env = name::APP_CONTAINER, value_name = "NAME", default_value = default::APP_CONTAINER)]
    pub(super) app_container: OsString,
    /// Its compose service [default: read from the container's labels, else the container's name]
    #[arg(long, env = name::APP_SERVICE, value_name = "NAME")]
    pub(super) app_service: Option<OsString>,
    /// The key in `.env` that selects the version
    #[arg(long, env = name::VERSION_KEY, value_name = "KEY", default_value = default::VERSION_KEY)]
    pub(super) version_key: OsString,
    /// The compose file, as the updater sees it
    #[arg(long, env = name::COMPOSE_FILE, value_name = "FILE", default_value = default::COMPOSE_FILE)]
    pub(super) compose_file: OsString,
    /// The `.env` file, as the updater sees it
    #[arg(long, env = name::ENV_FILE, value_name = "FILE", default_value = default::ENV_FILE)]
    pub(super) env_file: OsString,
    /// Must answer 200
    #[arg(long, env = name::HEALTH_URL, value_name = "URL", default_value = default::HEALTH_URL)]
    pub(super) health_url: OsString,
    /// Deadline of the health gate
    #[arg(long, env = name::HEALTH_TIMEOUT, value_name = "DURATION", default_value = default::HEALTH_TIMEOUT)]
    pub(super) health_timeout: OsString,
    /// Longest pause between two probes
    #[arg(long, env = name::HEALTH_INTERVAL, value_name = "DURATION", default_value = default::HEALTH_INTERVAL)]
    pub(super) health_interval: OsString,
    /// How long the application must stay healthy, unbroken, before the update is committed
    #[arg(long, env = name::HEALTH_STABLE, value_name = "DURATION", default_value = default::HEALTH_STABLE)]
    pub(super) health_stable: OsString,
    /// Where the health answer names the version, which must equal the new one: a JSON pointer (`/version`; `/` is the
    /// whole answer), `text`, or `re:REGEX`
    #[arg(long, env = name::HEALTH_VERSION, value_name = "POINTER")]
    pub(super) health_version: Option<OsString>,
    /// File with a PEM public key (`cosign.pub`): signatures are checked with it instead of keyless
    #[arg(long, env = name::SIGNING_KEY, value_name = "FILE")]
    pub(super) signing_key: Option<OsString>,
    /// Keyless: the OIDC issuer that must have vouched
    #[arg(long, env = name::SIGNING_ISSUER, value_name = "URL", default_value = default::SIGNING_ISSUER)]
    pub(super) signing_issuer: OsString,
    /// Keyless: the identity that must have signed [default: the release workflow of the repository]
    #[arg(long, env = name::SIGNING_IDENTITY_REGEX, value_name = "REGEX")]
    pub(super) signing_identity_regex: Option<OsString>,
    /// `trusted_root.json` of a private Sigstore [default: the public Sigstore root, built in]
    #[arg(long, env = name::TRUSTED_ROOT, value_name = "FILE")]
    pub(super) trusted_root: Option<OsString>,
    /// Fetch the public Sigstore root anew, now and every day, over TUF; the newest one at hand is used
    /// meanwhile and whenever that fails
    #[arg(long, env = name::TRUSTED_ROOT_REFRESH, value_name = "BOOL", default_value = default::TRUSTED_ROOT_REFRESH,
          num_args = 0..=1, default_missing_value = "true")]
    pub(super) trusted_root_refresh: OsString,
    /// Also demand a signature on the image itself
    #[arg(long, env = name::VERIFY_IMAGE, value_name = "BOOL", default_value = default::VERIFY_IMAGE,
          num_args = 0..=1, default_missing_value = "true")]
    pub(super) verify_image: OsString,
    /// `off` updates without a copy of the data
    #[arg(long, env = name::SNAPSHOT, value_name = "BOOL", default_value = default::SNAPSHOT,
          num_args = 0..=1, default_missing_value = "on")]
    pub(super) snapshot: OsString,
    /// The snapshot repository [default: `snapshots` in the state folder]
    #[arg(long, env = name::SNAPSHOT_DIR, value_name = "FOLDER")]
    pub(super) snapshot_dir: Option<OsString>,
    /// Snapshots kept
    #[arg(long, env = name::SNAPSHOT_KEEP, value_name = "NUMBER", default_value = default::SNAPSHOT_KEEP)]
    pub(super) snapshot_keep: OsString,
    /// Snapshots older than this go, even if there are fewer than are kept [default: age does not matter]
    #[arg(long, env = name::SNAPSHOT_MAX_AGE, value_name = "DURATION")]
    pub(super) snapshot_max_age: Option<OsString>,
    /// Folders inside each other; data that is deeper is not copied, and the job refused
    #[arg(long, env = name::SNAPSHOT_MAX_DEPTH, value_name = "NUMBER", default_value = default::SNAPSHOT_MAX_DEPTH)]
    pub(super) snapshot_max_depth: OsString,
    /// Files and folders in one mount; a job is refused where there are more
    #[arg(long, env = name::SNAPSHOT_MAX_ENTRIES, value_name = "NUMBER",
          default_value = default::SNAPSHOT_MAX_ENTRIES)]
    pub(super) snapshot_max_entries: OsString,
    /// Paths in the application's container that are not copied, separated by commas: a rollback cannot
    /// put them back
    #[arg(long, env = name::SNAPSHOT_EXCLUDE, value_name = "PATHS")]
    pub(super) snapshot_exclude: Option<OsString>,
    /// Services of the same image that are moved together with the application's, separated by commas: made
    /// anew, judged and rolled back as one
    #[arg(long, env = name::MOVE_SERVICES, value_name = "NAMES")]
    pub(super) move_services: Option<OsString>,
    /// Services or containers, separated by commas, that are stopped and started with the application: those that write
    /// to the same data must be
    #[arg(long, env = name::STOP_SERVICES, value_name = "NAMES")]
    pub(super) stop_services: Option<OsString>,
    /// Services beside the application that hold its data, such as `db,search`: they are stopped, copied and put back
    /// with it, and run again before a migration does
    #[arg(long, env = name::DATA_SERVICES, value_name = "NAMES")]
    pub(super) data_services: Option<OsString>,
    /// Services, containers or hosts beside the application that hold its data and that you look after yourself, separated
    /// by commas: a rollback does not put it back, and says so
    #[arg(long, env = name::DATA_ELSEWHERE, value_name = "NAMES")]
    pub(super) data_elsewhere: Option<OsString>,
    /// A command in the surroundings of a service, run before the data is copied, such as
    /// `db: pg_dump -f /data/dump app`; no shell runs it
    #[arg(long, env = name::HOOK_BEFORE_COPY, value_name = "SERVICE: COMMAND")]
    pub(super) hook_before_copy: Option<OsString>,
    /// The same, run after data was put back
    #[arg(long, env = name::HOOK_AFTER_RESTORE, value_name = "SERVICE: COMMAND")]
    pub(super) hook_after_restore: Option<OsString>,
    /// How long a migration, or a hook, may take
    #[arg(long, env = name::MIGRATION_TIMEOUT, value_name = "DURATION", default_value = default::MIGRATION_TIMEOUT)]
    pub(super) migration_timeout: OsString,
    /// CA certificates in PEM, believed beside the system's: for a registry, a release server or a Sigstore
    /// with certificates of one's own
    #[arg(long, env = name::CA_FILE, value_name = "FILE")]
    pub(super) ca_file: Option<OsString>,
    /// The `name` a manifest of the updater itself must carry
    #[arg(long, env = name::SELF_NAME, value_name = "NAME", default_value = default::SELF_NAME)]
    pub(super) self_name: OsString,
    /// Whose releases are the updater's own
    #[arg(long, env = name::SELF_REPO, value_name = "OWNER/NAME", default_value = default::SELF_REPO)]
    pub(super) self_repo: OsString,
    /// The key in `.env` that selects the updater's own version
    #[arg(long, env = name::SELF_VERSION_KEY, value_name = "KEY", default_value = default::SELF_VERSION_KEY)]
    pub(super) self_version_key: OsString,
    /// Keyless: the identity that must have signed the updater [default: the release workflow of its
    /// repository]
    #[arg(long, env = name::SELF_IDENTITY_REGEX, value_name = "REGEX")]
    pub(super) self_identity_regex: Option<OsString>,
    /// Simulate every Docker operation; each job and `/status` then say `"stub": true`
    #[arg(long, env = name::STUB, value_name = "BOOL", default_value = default::STUB,
          num_args = 0..=1, default_missing_value = "true")]
    pub(super) stub: OsString,
    /// Verbose logs
    #[arg(long, env = name::DEBUG, value_name = "BOOL", default_value = default::DEBUG,
          num_args = 0..=1, default_missing_value = "true")]
    pub(super) debug: OsString,
}

/// The variables that `serve` reads.
pub fn names() -> Vec<String> {
    let command = <ServeArgs as clap::Args>::augment_args(clap::Command::new("serve"));
    command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned())).collect()
}

impl ServeArgs {
    /// As if nothing had been said of this variable.
    pub(super) fn forget(&mut self, variable: &str) {
        let texts = [
            (name::LISTEN, &mut self.listen),
            (name::STATE_DIR, &mut self.state_dir),
            (name::REPO, &mut self.repo),
            (name::GITHUB_API, &mut self.github_api),
            (name::APP_NAME, &mut self.app_name),
            (name::APP_CONTAINER, &mut self.app_container),
            (name::VERSION_KEY, &mut self.version_key),
            (name::COMPOSE_FILE, &mut self.compose_file),
            (name::ENV_FILE, &mut self.env_file),
            (name::HEALTH_URL, &mut self.health_url),
            (name::HEALTH_TIMEOUT, &mut self.health_timeout),
            (name::HEALTH_INTERVAL, &mut self.health_interval),
            (name::HEALTH_STABLE, &mut self.health_stable),
            (name::SIGNING_ISSUER, &mut self.signing_issuer),
            (name::TRUSTED_ROOT_REFRESH, &mut self.trusted_root_refresh),
            (name::VERIFY_IMAGE, &mut self.verify_image),
            (name::SNAPSHOT, &mut self.snapshot),
            (name::SNAPSHOT_KEEP, &mut self.snapshot_keep),
            (name::SNAPSHOT_MAX_DEPTH, &mut self.snapshot_max_depth),
            (name::SNAPSHOT_MAX_ENTRIES, &mut self.snapshot_max_entries),
            (name::MIGRATION_TIMEOUT, &mut self.migration_timeout),
            (name::SELF_NAME, &mut self.self_name),
            (name::SELF_REPO, &mut self.self_repo),
            (name::SELF_VERSION_KEY, &mut self.self_version_key),
            (name::STUB, &mut self.stub),
            (name::DEBUG, &mut self.debug),
        ];
        texts.into_iter().filter(|(known, _)| *known == variable).for_each(|(_, text)| text.clear());
        let others = [
            (name::TOKEN, &mut self.token),
            (name::TOKEN_FILE, &mut self.token_file),
            (name::GITHUB_TOKEN, &mut self.github_token),
            (name::GITHUB_TOKEN_FILE, &mut self.github_token_file),
            (name::GITHUB_TOKEN_HOSTS, &mut self.github_token_hosts),
            (name::APP_SERVICE, &mut self.app_service),
            (name::HEALTH_VERSION, &mut self.health_version),
            (name::SIGNING_KEY, &mut self.signing_key),
            (name::SIGNING_IDENTITY_REGEX, &mut self.signing_identity_regex),
            (name::TRUSTED_ROOT, &mut self.trusted_root),
            (name::SNAPSHOT_DIR, &mut self.snapshot_dir),
            (name::SNAPSHOT_MAX_AGE, &mut self.snapshot_max_age),
            (name::SNAPSHOT_EXCLUDE, &mut self.snapshot_exclude),
            (name::MOVE_SERVICES, &mut self.move_services),
            (name::STOP_SERVICES, &mut self.stop_services),
            (name::DATA_SERVICES, &mut self.data_services),
            (name::DATA_ELSEWHERE, &mut self.data_elsewhere),
            (name::HOOK_BEFORE_COPY, &mut self.hook_before_copy),
            (name::HOOK_AFTER_RESTORE, &mut self.hook_after_restore),
            (name::CA_FILE, &mut self.ca_file),
            (name::SELF_IDENTITY_REGEX, &mut self.self_identity_regex),
        ];
        others.into_iter().filter(|(known, _)| *known == variable).for_each(|(_, text)| *text = None);
    }

    /// The file that holds the token of the API.
    pub fn token_file(&self) -> Option<std::path::PathBuf> {
        self.token_file.clone().map(Into::into)
    }
}

/// Says nothing: secrets are in it.
impl fmt::Debug for ServeArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeArgs").finish_non_exhaustive()
    }
}
