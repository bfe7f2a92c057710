//! From text to [`Settings`]: every setting is read, every fault is kept, and only a set without
//! faults becomes settings.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use crate::health::{HealthTarget, VersionAt};

use super::args::{ServeArgs, default, name};
use super::{Health, Hooks, Own, Settings, Signing, Snapshot, duration, value};

/// The largest file that may hold a secret, in bytes.
const SECRET_CAP: u64 = 64 * 1024;
/// The most characters of a faulty value that are repeated.
const SHOWN: usize = 120;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is wrong with one setting, on one line: the variable, its value (unless it is a secret), and
/// what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub variable: &'static str,
    /// `None`: not set, or not to be shown.
    pub value: Option<String>,
    pub accepted: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            None => write!(f, "{}: {}", self.variable, self.accepted),
            Some(value) => {
                let shown: String = value.chars().take(SHOWN).collect();
                let more = if shown.len() < value.len() { "…" } else { "" };
                write!(f, "{}={shown:?}{more}: {}", self.variable, self.accepted)
            }
        }
    }
}

impl std::error::Error for Fault {}

impl ServeArgs {
    /// Judges the settings. Reads the files that hold secrets, so it blocks: call it before the runtime
    /// is busy. All faults are told at once, in the order of the contract's table.
    pub fn settings(self) -> Result<Settings, Vec<Fault>> {
        Settings::from(self, read_secret_file)
    }
}

impl ServeArgs {
    /// As [`ServeArgs::settings`], as far as it goes: what is faulty counts as not set, and a token that is
    /// missing is made up.
    pub fn settings_as_far_as_they_go(mut self) -> Option<(Settings, Vec<Fault>)> {
        let faults = match self.clone().settings() {
            Ok(settings) => return Some((settings, Vec::new())),
            Err(faults) => faults,
        };
        faults.iter().for_each(|fault| self.forget(fault.variable));
        if faults.iter().any(|fault| fault.variable == name::TOKEN || fault.variable == name::TOKEN_FILE) {
            self.forget(name::TOKEN_FILE);
            self.token = Some("not known".into());
        }
        // One that only contradicts another's default: then it is the other one's turn.
        let settings = self.clone().settings().or_else(|more| {
            more.iter().for_each(|fault| self.forget(fault.variable));
            self.forget(name::HEALTH_TIMEOUT);
            self.settings()
        });
        Some((settings.ok()?, faults))
    }
}

impl Settings {
    /// As [`ServeArgs::settings`], with the reading of files in other hands.
    pub fn from(args: ServeArgs, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Settings, Vec<Fault>> {
        let mut reader = Reader { read: &read, faults: Vec::new() };
        match reader.settings(args) {
            Some(settings) if reader.faults.is_empty() => Ok(settings),
            _ => Err(reader.faults),
        }
    }
}

fn read_secret_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SECRET_CAP + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SECRET_CAP {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {SECRET_CAP} bytes")));
    }
    Ok(bytes)
}

struct Reader<'a> {
    read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    faults: Vec<Fault>,
}

/// Every method answers `None` exactly when it told a fault.
impl Reader<'_> {
    fn settings(&mut self, args: ServeArgs) -> Option<Settings> {
        // Each is read before the first `?`, so that no fault hides another.
        let token = self.token(args.token, args.token_file);
        let listen = self.one(name::LISTEN, args.listen, default::LISTEN, value::listen);
        let state_dir = self.path(name::STATE_DIR, args.state_dir, default::STATE_DIR);
        let repo = self.one(name::REPO, args.repo, default::REPO, value::repo);
        let github_api = self.one(name::GITHUB_API, args.github_api, default::GITHUB_API, value::base_url);
        let github_token =
            self.secret(name::GITHUB_TOKEN, args.github_token, name::GITHUB_TOKEN_FILE, args.github_token_file);
        let app_name = self.one(name::APP_NAME, args.app_name, default::APP_NAME, value::app_name);
        let app_container =
            self.one(name::APP_CONTAINER, args.app_container, default::APP_CONTAINER, value::object_name);
        let app_service = self.maybe(name::APP_SERVICE, args.app_service, value::object_name);
        let version_key = self.one(name::VERSION_KEY, args.version_key, default::VERSION_KEY, value::variable);
        let compose_file = self.path(name::COMPOSE_FILE, args.compose_file, default::COMPOSE_FILE);
        let env_file = self.path(name::ENV_FILE, args.env_file, default::ENV_FILE);
        let target = self.one(name::HEALTH_URL, args.health_url, default::HEALTH_URL, value::health_target);
        let timeout = self.span(name::HEALTH_TIMEOUT, args.health_timeout, default::HEALTH_TIMEOUT, (SECOND, DAY));
        let interval =
            self.span(name::HEALTH_INTERVAL, args.health_interval, default::HEALTH_INTERVAL, (MILLISECOND, HOUR));
        let stable = self.span(name::HEALTH_STABLE, args.health_stable, default::HEALTH_STABLE, (Duration::ZERO, DAY));
        self.stable_within(stable, timeout);
        let version = self.maybe(name::HEALTH_VERSION, args.health_version, VersionAt::parse);
        self.version_of_an_answer(version.as_ref(), target.as_ref());
        let key = self.maybe_path(name::SIGNING_KEY, args.signing_key);
        let issuer = self.one(name::SIGNING_ISSUER, args.signing_issuer, default::SIGNING_ISSUER, value::issuer);
        let identity = self.maybe(name::SIGNING_IDENTITY_REGEX, args.signing_identity_regex, value::regex);
        let trusted_root = self.maybe_path(name::TRUSTED_ROOT, args.trusted_root);
        let refresh = self.one(
            name::TRUSTED_ROOT_REFRESH,
            args.trusted_root_refresh,
            default::TRUSTED_ROOT_REFRESH,
            value::boolean,
        );
        self.refresh_of_one_root(refresh, trusted_root.as_ref());
        let verify_image = self.one(name::VERIFY_IMAGE, args.verify_image, default::VERIFY_IMAGE, value::boolean);
        let snapshot = self.one(name::SNAPSHOT, args.snapshot, default::SNAPSHOT, value::boolean);
        let snapshot_dir = self.maybe_path(name::SNAPSHOT_DIR, args.snapshot_dir);
        let snapshot_keep = self
            .one(name::SNAPSHOT_KEEP, args.snapshot_keep, default::SNAPSHOT_KEEP, |t| value::number_within(t, 1, 1000));
        let max_age = self.maybe(name::SNAPSHOT_MAX_AGE, args.snapshot_max_age, value::age);
        let max_depth = self.one(name::SNAPSHOT_MAX_DEPTH, args.snapshot_max_depth, default::SNAPSHOT_MAX_DEPTH, |t| {
            value::number_within(t, 16, 100_000)
        });
        let max_entries =
            self.one(name::SNAPSHOT_MAX_ENTRIES, args.snapshot_max_entries, default::SNAPSHOT_MAX_ENTRIES, |t| {
                value::number_within(t, 1_000, 1_000_000_000)
            });
        let exclude =
            self.maybe(name::SNAPSHOT_EXCLUDE, args.snapshot_exclude, |t| value::list(t, value::container_path));
        let move_services = self.maybe(name::MOVE_SERVICES, args.move_services, |t| value::list(t, value::object_name));
        let stop_services = self.maybe(name::STOP_SERVICES, args.stop_services, |t| value::list(t, value::object_name));
        let data_services = self.maybe(name::DATA_SERVICES, args.data_services, |t| value::list(t, value::object_name));
        let elsewhere =
            self.maybe(name::DATA_ELSEWHERE, args.data_elsewhere, |t| value::list(t, value::name_or_address));
        let before_copy = self.maybe(name::HOOK_BEFORE_COPY, args.hook_before_copy, value::hook);
        let after_restore = self.maybe(name::HOOK_AFTER_RESTORE, args.hook_after_restore, value::hook);
        let migration_timeout =
            self.span(name::MIGRATION_TIMEOUT, args.migration_timeout, default::MIGRATION_TIMEOUT, (SECOND, 7 * DAY));
        let token_hosts =
            self.maybe(name::GITHUB_TOKEN_HOSTS, args.github_token_hosts, |t| value::list(t, value::host_port));
        let ca_file = self.maybe_path(name::CA_FILE, args.ca_file);
        let own_name = self.one(name::SELF_NAME, args.self_name, default::SELF_NAME, value::app_name);
        let own_repo = self.one(name::SELF_REPO, args.self_repo, default::SELF_REPO, value::repo);
        let own_key =
            self.one(name::SELF_VERSION_KEY, args.self_version_key, default::SELF_VERSION_KEY, value::variable);
        let own_identity = self.maybe(name::SELF_IDENTITY_REGEX, args.self_identity_regex, value::regex);
        let stub = self.one(name::STUB, args.stub, default::STUB, value::boolean);
        let debug = self.one(name::DEBUG, args.debug, default::DEBUG, value::boolean);

        let (state_dir, repo, own_repo) = (state_dir?, repo?, own_repo?);
        Some(Settings {
            token: token?,
            listen: listen?,
            github_api: github_api?,
            github_token: github_token?,
            github_token_hosts: token_hosts?.unwrap_or_default(),
            app_name: app_name?,
            app_container: app_container?,
            app_service: app_service?,
            version_key: version_key?,
            compose_file: compose_file?,
            env_file: env_file?,
            health: Health {
                target: target?,
                timeout: timeout?,
                interval: interval?,
                stable: stable?,
                version: version?,
            },
            signing: Signing {
                key: key?,
                issuer: issuer?,
                identity_regex: identity?.unwrap_or_else(|| value::default_identity(&repo)),
                trusted_root: trusted_root?,
                refreshed_root: refresh?.then(|| state_dir.join("trusted-root")),
                verify_image: verify_image?,
            },
            snapshot: Snapshot {
                on: snapshot?,
                dir: snapshot_dir?.unwrap_or_else(|| state_dir.join("snapshots")),
                keep: snapshot_keep?,
                max_age: max_age?.flatten(),
                max_depth: max_depth?,
                max_entries: max_entries?,
                exclude: exclude?.unwrap_or_default(),
            },
            move_services: move_services?.unwrap_or_default(),
            stop_services: stop_services?.unwrap_or_default(),
            data_services: data_services?.unwrap_or_default(),
            data_elsewhere: elsewhere?.unwrap_or_default(),
            hooks: Hooks { before_copy: before_copy?, after_restore: after_restore? },
            migration_timeout: migration_timeout?,
            ca_file: ca_file?,
            own: Own {
                name: own_name?,
                version_key: own_key?,
                identity_regex: own_identity?.unwrap_or_else(|| value::default_identity(&own_repo)),
                repo: own_repo,
            },
            stub: stub?,
            debug: debug?,
            state_dir,
            repo,
        })
    }

    fn fault<T>(&mut self, variable: &'static str, value: Option<String>, accepted: impl Into<String>) -> Option<T> {
        self.faults.push(Fault { variable, value, accepted: accepted.into() });
        None
    }

    /// The text of a setting: `Some(None)` where nothing is said or the text is empty.
    fn text(&mut self, variable: &'static str, raw: Option<OsString>) -> Option<Option<String>> {
        match raw.map(OsString::into_string) {
            None => Some(None),
            Some(Ok(text)) => Some(Some(text).filter(|text| !text.is_empty())),
            Some(Err(raw)) => self.fault(variable, Some(raw.to_string_lossy().into_owned()), "UTF-8 is accepted"),
        }
    }

    fn maybe<T>(
        &mut self,
        variable: &'static str,
        raw: Option<OsString>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let Some(text) = self.text(variable, raw)? else { return Some(None) };
        match parse(&text) {
            Ok(value) => Some(Some(value)),
            Err(accepted) => self.fault(variable, Some(shown(text)), accepted),
        }
    }

    fn one<T>(
        &mut self,
        variable: &'static str,
        raw: OsString,
        default: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let raw = if raw.is_empty() { OsString::from(default) } else { raw };
        self.maybe(variable, Some(raw), parse)?
    }

    fn span(
        &mut self,
        variable: &'static str,
        raw: OsString,
        default: &'static str,
        (low, high): (Duration, Duration),
    ) -> Option<Duration> {
        self.one(variable, raw, default, |text| value::duration_within(text, low, high))
    }

    /// A path, made absolute: the working folder may be another one later.
    fn path(&mut self, variable: &'static str, raw: OsString, default: &'static str) -> Option<PathBuf> {
        let raw = if raw.is_empty() { OsString::from(default) } else { raw };
        match std::path::absolute(&raw) {
            Ok(path) => Some(path),
            Err(e) => {
                let value = raw.to_string_lossy().into_owned();
                self.fault(variable, Some(value), format!("an absolute path is accepted ({e})"))
            }
        }
    }

    fn maybe_path(&mut self, variable: &'static str, raw: Option<OsString>) -> Option<Option<PathBuf>> {
        match raw.filter(|raw| !raw.is_empty()) {
            Some(raw) => self.path(variable, raw, "").map(Some),
            None => Some(None),
        }
    }

    /// A gate that must stay healthy for longer than it may take can never pass.
    fn stable_within(&mut self, stable: Option<Duration>, timeout: Option<Duration>) {
        if let (Some(stable), Some(timeout)) = (stable, timeout)
            && stable >= timeout
        {
            let accepted = format!(
                "a duration shorter than {} is accepted, which is {}",
                name::HEALTH_TIMEOUT,
                duration::show(timeout)
            );
            self.fault::<()>(name::HEALTH_STABLE, Some(duration::show(stable)), accepted);
        }
    }

    /// Only an answer over HTTP can name a version.
    fn version_of_an_answer(&mut self, version: Option<&Option<VersionAt>>, target: Option<&HealthTarget>) {
        if let (Some(Some(version)), Some(target)) = (version, target)
            && !matches!(target, HealthTarget::Http(_))
        {
            let accepted =
                format!("nothing is accepted together with {}={target}, which has no answer", name::HEALTH_URL);
            self.fault::<()>(name::HEALTH_VERSION, Some(version.to_string()), accepted);
        }
    }

    /// Only the public root is published to be refreshed; a file is used as it is.
    fn refresh_of_one_root(&mut self, refresh: Option<bool>, root: Option<&Option<PathBuf>>) {
        if let (Some(true), Some(Some(root))) = (refresh, root) {
            let accepted =
                format!("false is accepted together with {}={:?}, which is used as it is", name::TRUSTED_ROOT, root);
            self.fault::<()>(name::TRUSTED_ROOT_REFRESH, Some("true".to_owned()), accepted);
        }
    }

    fn token(&mut self, raw: Option<OsString>, file: Option<OsString>) -> Option<SecretString> {
        match self.secret(name::TOKEN, raw, name::TOKEN_FILE, file)? {
            Some(token) => Some(token),
            None => self.fault(
                name::TOKEN,
                None,
                format!("not set: the bearer token of the API is required, here or as a file in {}", name::TOKEN_FILE),
            ),
        }
    }

    /// A secret, or the file that holds it, or neither. Its text is never part of a fault.
    fn secret(
        &mut self,
        variable: &'static str,
        raw: Option<OsString>,
        file_variable: &'static str,
        file: Option<OsString>,
    ) -> Option<Option<SecretString>> {
        let raw = raw.filter(|raw| !raw.is_empty());
        let Some(path) = file.filter(|path| !path.is_empty()) else {
            let Some(raw) = raw else { return Some(None) };
            return match raw.to_str().ok_or_else(|| "UTF-8 is accepted".to_owned()).and_then(value::token) {
                Ok(token) => Some(Some(SecretString::from(token))),
                Err(accepted) => self.fault(variable, None, format!("(value not shown) {accepted}")),
            };
        };
        let shown = path.to_string_lossy().into_owned();
        if raw.is_some() {
            return self.fault(file_variable, Some(shown), format!("{variable} is set too: one of both is accepted"));
        }
        match secret_in(self.read, Path::new(&path)) {
            Ok(token) => Some(Some(SecretString::from(token))),
            Err(accepted) => self.fault(file_variable, Some(shown), accepted),
        }
    }
}

fn secret_in(read: &dyn Fn(&Path) -> io::Result<Vec<u8>>, path: &Path) -> Result<String, String> {
    let bytes = read(path).map_err(|e| format!("a readable file that holds the secret is accepted ({e})"))?;
    let text = String::from_utf8(bytes).map_err(|_| "a file of UTF-8 text is accepted".to_owned())?;
    // Editors and `echo` end a file with a newline.
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err("a file that holds the secret is accepted, this one is empty".to_owned());
    }
    value::token(text).map_err(|accepted| format!("(content not shown) {accepted}"))
}

/// An address may hold a password where none belongs.
fn shown(text: String) -> String {
    match url::Url::parse(&text) {
        Ok(url) if url.password().is_some() || !url.username().is_empty() => "(not shown)".to_owned(),
        _ => text,
    }
}
