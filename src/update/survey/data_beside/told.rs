//! What people are told of data beside the application.

use super::super::named::{Known, setting};
use super::{Cover, Covers, Holds, Store};
use crate::update::plan::{DataBeside, Plan, Purpose};
use crate::update::refusal::{Code, Refusal};

const DATA_SERVICES: &str = "PROCESSGIT_UPDATER_DATA_SERVICES";
const DATA_ELSEWHERE: &str = "PROCESSGIT_UPDATER_DATA_ELSEWHERE";

impl Store {
    /// `db (volume shop_db; the application depends on it; worker uses it too)`
    pub fn shown(&self) -> String {
        let what = match &self.holds {
            Holds::Mounts(mounts) => Some(mounts.join(", ")),
            Holds::Container => Some("no volume, so its data is in the container itself".to_owned()),
            Holds::Elsewhere => None,
        };
        let used_by = match &self.used_by[..] {
            [] => None,
            [one] => Some(format!("{one} uses it too")),
            many => Some(format!("{} use it too", many.join(", "))),
        };
        let parts: Vec<String> = what.into_iter().chain(self.because.iter().cloned()).chain(used_by).collect();
        format!("{} ({})", self.name, parts.join("; "))
    }
}

/// What becomes of data that nobody looks after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stakes {
    /// Another version runs with it, and may fail.
    AnotherVersion,
    /// A snapshot is taken without it.
    Snapshot,
    /// Earlier data is put back beside it.
    Restore,
}

impl Stakes {
    pub fn of(plan: &Plan) -> Self {
        match plan.purpose {
            Purpose::Update => Self::AnotherVersion,
            Purpose::Snapshot => Self::Snapshot,
            Purpose::Restore { .. } => Self::Restore,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::AnotherVersion => {
                "When the new version fails after it or its migration has begun, this data cannot be put back and the job ends `failed`"
            }
            Self::Snapshot => "The snapshot will not have it",
            Self::Restore => "It stays as it is now, and need not fit the data that is put back",
        }
    }
}

/// What the Plan notes of what is certain.
pub fn noted(stores: &[Store]) -> DataBeside {
    let names = |cover: Cover| {
        let some = stores.iter().filter(|store| store.is_certain && store.cover == cover);
        some.map(|store| store.name.clone()).collect()
    };
    DataBeside { uncovered: names(Cover::Nobody), declared: names(Cover::Declared), hooked: names(Cover::Hooks) }
}

/// What is said of all that is not covered: of what is certain, and of what is possible. Each with the setting to add.
pub fn told(stores: &[Store], covers: Covers<'_>, stakes: Stakes) -> Vec<Refusal> {
    certain(stores, covers, stakes).into_iter().chain(possible(stores, covers)).collect()
}

fn certain(stores: &[Store], covers: Covers<'_>, stakes: Stakes) -> Option<Refusal> {
    let uncovered: Vec<&Store> = stores.iter().filter(|store| store.is_certain && store.is_uncovered()).collect();
    if uncovered.is_empty() {
        return None;
    }
    let list: Vec<String> = uncovered.iter().map(|store| store.shown()).collect();
    let (copied, others): (Vec<&Store>, Vec<&Store>) =
        uncovered.iter().partition(|s| matches!(s.holds, Holds::Mounts(_)));
    let hooks = match (covers.before_copy, covers.hooks_run) {
        (Some(_), false) => ", and the hooks do not run, because no data of the application itself is copied",
        (Some(_), true) => ", and the hooks do not name it",
        (None, _) => "",
    };
    let what = format!("data beside the application is NOT copied: {}{hooks}. {}", list.join(", "), stakes.sentence());
    let data_services = || all(DATA_SERVICES, covers.data_services, &copied);
    let declare = |stores: &[&Store]| all(DATA_ELSEWHERE, covers.elsewhere, stores);
    let refusal = |what: String| Refusal::new(Code::DataBeside, what);
    if others.is_empty() {
        let what = format!("{what}. If you look after it yourself: {}", declare(&copied));
        return Some(refusal(what).setting(data_services()));
    }
    let no_volume = others.iter().filter(|store| store.holds == Holds::Container).map(|store| store.name.as_str());
    let no_volume: Vec<&str> = no_volume.collect();
    let hosts = others.iter().filter(|store| store.holds == Holds::Elsewhere).map(|store| store.name.as_str());
    let hosts: Vec<&str> = hosts.collect();
    let services = (!copied.is_empty()).then(|| format!("set {} to have it copied and put back", data_services()));
    let volume = (!no_volume.is_empty())
        .then(|| format!("give {} a volume and name it in {DATA_SERVICES}", no_volume.join(", ")));
    let dump = (!hosts.is_empty()).then(|| {
        format!(
            "have commands in PROCESSGIT_UPDATER_HOOK_BEFORE_COPY and PROCESSGIT_UPDATER_HOOK_AFTER_RESTORE that name {} dump and load it",
            hosts.join(", ")
        )
    });
    let ways: Vec<String> = services.into_iter().chain(volume).chain(dump).collect();
    Some(refusal(what).text(format!(
        "{}; or, if you look after it yourself, set {}",
        ways.join("; "),
        declare(&uncovered)
    )))
}

fn possible(stores: &[Store], covers: Covers<'_>) -> Option<Refusal> {
    let found: Vec<&Store> = stores.iter().filter(|store| !store.is_certain && store.is_uncovered()).collect();
    let list: Vec<String> = found.iter().map(|store| store.shown()).collect();
    (!found.is_empty()).then(|| {
        let what = format!("this may be data of the application, and is not copied: {}", list.join(", "));
        Refusal::new(Code::DataBeside, what).text(format!(
            "set {} if it is, or {} if it is not",
            all(DATA_SERVICES, covers.data_services, &found),
            all(DATA_ELSEWHERE, covers.elsewhere, &found)
        ))
    })
}

/// The setting with what it has and these.
fn all(variable: &str, had: &[String], stores: &[&Store]) -> String {
    setting(variable, had.iter().map(String::as_str).chain(stores.iter().map(|store| store.name.as_str())))
}

/// Names in `DATA_ELSEWHERE` that neither a service, a container nor a host beside the application has.
pub fn unknown<'a>(stores: &'a [Store], covers: Covers<'_>, known: Known<'a>) -> Option<Refusal> {
    let names = stores.iter().flat_map(|store| &store.names).map(String::as_str);
    known.and(names).unknown(DATA_ELSEWHERE, covers.elsewhere)
}

/// What is looked after, and by what.
pub fn covered(stores: &[Store]) -> Option<String> {
    let by = |cover: Cover, what: &str| {
        let names: Vec<&str> = stores.iter().filter(|s| s.cover == cover).map(|s| s.name.as_str()).collect();
        (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
    };
    let all = [
        by(Cover::DataServices, "copied and put back with the application"),
        by(Cover::Hooks, "dumped and loaded by the hooks"),
        by(Cover::Declared, "looked after by you, and not put back"),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}
