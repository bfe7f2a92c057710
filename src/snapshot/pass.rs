//! A snapshot in the making: hot pass, cold pass, done. Everything it knows is on disk, so that the
//! two passes may run in two processes.

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::entry::Time;
use super::error::{Context, Error};
use super::limits::Limits;
use super::manifest::Reader;
use super::mirror::{self, Former, Summary};
use super::progress::{Counts, Meter, Progress};
use super::repository::{
    Generation, Label, Repository, TICKS, check_name, new_private_folder, remove_folder, sync_source, write_json,
};
use super::restore::open_folder;
use super::root::Source;

/// What changed this shortly before a hot pass, or later, is copied again by the cold pass. Far more
/// than the tick of the clock that stamps inodes, for file systems whose clock is another machine's.
const HOT_MARGIN: Duration = Duration::from_secs(2);

fn names_of(sources: &[Source]) -> Vec<String> {
    sources.iter().map(|source| source.name.clone()).collect()
}

/// A pass under way.
pub struct Pass<'r> {
    repository: &'r Repository,
    id: String,
    folder: PathBuf,
    sources: Vec<Source>,
    plan: Plan,
    limits: Option<Limits>,
}

/// `plan.json` of a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    label: Label,
    /// The names of the sources.
    sources: Vec<String>,
    /// Bytes copied so far, for every source.
    copied: Vec<u64>,
}

impl<'r> Pass<'r> {
    pub(super) fn begin(
        repository: &'r Repository,
        id: String,
        sources: Vec<Source>,
        label: Label,
    ) -> Result<Self, Error> {
        check_name(&id)?;
        let mut names = names_of(&sources);
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Refused(format!("two mounts have the name {:?}: give them different ones", twice[0])));
        }
        for source in &sources {
            check_name(&source.name)?;
        }
        let folder = repository.work(&id);
        new_private_folder(&folder)?;
        new_private_folder(&folder.join("tree"))?;
        let plan = Plan { label, sources: names_of(&sources), copied: vec![0; sources.len()] };
        let pass = Self { repository, id, folder, sources, plan, limits: Some(repository.limits) };
        write_json(&pass.folder.join("plan.json"), &pass.plan)?;
        Ok(pass)
    }

    pub(super) fn resume(repository: &'r Repository, id: &str, sources: Vec<Source>) -> Result<Self, Error> {
        check_name(id)?;
        let folder = repository.work(id);
        if !folder.join("manifest").exists() {
            return Err(Error::Refused(format!("snapshot {id} was begun, but no pass of it ended: discard it")));
        }
        let path = folder.join("plan.json");
        let text = fs::read(&path).at("read", &path)?;
        let plan: Plan = serde_json::from_slice(&text).map_err(io::Error::from).at("understand", &path)?;
        if plan.sources != names_of(&sources) {
            return Err(Error::Refused(format!("snapshot {id} was begun of other mounts: discard it")));
        }
        Ok(Self { repository, id: id.to_owned(), folder, sources, plan, limits: Some(repository.limits) })
    }

    /// However large: what is to be put aside before it is overwritten must not be refused.
    pub(super) fn without_limits(self) -> Self {
        Self { limits: None, ..self }
    }

    /// The name that the generation will have.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Copies while the application runs: what vanishes or changes meanwhile is the cold pass's to find.
    /// May be repeated, to shorten a cold pass that would have much to do.
    pub fn hot(&mut self, progress: &mut dyn Progress) -> Result<Counts, Error> {
        let settled_before = Time::now_less(HOT_MARGIN);
        let counts = self.run(true, settled_before, progress)?.1;
        write_json(&self.folder.join("plan.json"), &self.plan)?;
        self.repository.flush()?;
        Ok(counts)
    }

    /// Copies what changed since the hot pass, or everything if there was none, and finishes the
    /// generation. Nobody may write meanwhile: whatever changes under it is an error.
    pub fn cold(mut self, progress: &mut dyn Progress) -> Result<Generation, Error> {
        // Nobody writes, so the next write comes at least a tick later than anything seen here.
        let settled_before = Time::now_less(TICKS);
        let (summaries, _) = self.run(false, settled_before, progress)?;
        self.finish(true, &summaries)
    }

    /// Finishes with what a hot pass finds: no moment at which the application had exactly this data.
    pub fn keep_hot(mut self, progress: &mut dyn Progress) -> Result<Generation, Error> {
        let settled_before = Time::now_less(HOT_MARGIN);
        let (summaries, _) = self.run(true, settled_before, progress)?;
        self.finish(false, &summaries)
    }

    /// Throws it away.
    pub fn discard(self) -> Result<(), Error> {
        self.repository.discard(&self.id)
    }

    /// One pass over all sources: builds the trees, or brings those of the last pass up to date.
    fn run(
        &mut self,
        tolerant: bool,
        settled_before: Time,
        progress: &mut dyn Progress,
    ) -> Result<(Vec<Summary>, Counts), Error> {
        let [manifest, former, fresh] = ["manifest", "manifest.former", "manifest.new"].map(|n| self.folder.join(n));
        if former.exists() || fresh.exists() {
            let text = format!("a pass of snapshot {} died: discard it and begin anew", self.id);
            return Err(Error::Refused(text));
        }
        let again = manifest.exists();
        new_private_folder(&fresh)?;
        if again {
            // From here on the tree is no longer what this manifest says.
            fs::rename(&manifest, &former).at("rename", &former)?;
        }
        let mut meter = Meter::new(progress);
        let mut summaries = Vec::new();
        for (source, copied) in self.sources.iter().zip(&mut self.plan.copied) {
            // While somebody writes, times tell of writes through memory maps only if the file system lets them.
            let settled_before = match tolerant && !sync_source(source)? {
                true => Time::default(),
                false => settled_before,
            };
            let former = match again {
                true => Former::SameTree(Reader::open(&former.join(&source.name))?),
                false => self.repository.former(&source.name)?,
            };
            let staging = self.folder.join("staging");
            remove_folder(&staging)?;
            new_private_folder(&staging)?;
            let tree = self.folder.join("tree");
            let task = mirror::Task {
                source,
                tolerant,
                limits: self.limits,
                former,
                tree: open_folder(&tree)?,
                tree_path: &tree,
                staging: open_folder(&staging)?,
                manifest: &fresh.join(&source.name),
                settled_before,
                repository: self.repository.stat(),
            };
            let mut summary = mirror::run(task, &mut meter)?;
            remove_folder(&staging)?;
            *copied += summary.copied_bytes;
            summary.copied_bytes = *copied;
            summaries.push(summary);
        }
        fs::rename(&fresh, &manifest).at("rename into place", &manifest)?;
        remove_folder(&former)?;
        Ok((summaries, meter.counts))
    }

    fn finish(self, consistent: bool, summaries: &[Summary]) -> Result<Generation, Error> {
        let Self { repository, id, folder, sources, plan, .. } = self;
        let meta = repository.meta(&id, consistent, &plan.label, &sources, summaries);
        write_json(&folder.join("meta.json"), &meta)?;
        let path = folder.join("plan.json");
        fs::remove_file(&path).at("remove", &path)?;
        repository.flush()?;
        repository.adopt(&id)
    }
}
