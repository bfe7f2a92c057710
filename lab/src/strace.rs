//! What a process does to files, seen from outside: `strace`, attached to it, and its report read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// System calls that change files or flush them.
const CALLS: &str = "write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,copy_file_range,sendfile,\
                     openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,\
                     unlink,unlinkat,rmdir,fsync,fdatasync,syncfs,sync,sync_file_range";

/// One call that succeeded.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    pub arguments: Vec<Argument>,
    pub result: i64,
}

#[derive(Debug, Clone)]
pub enum Argument {
    /// A number, a flag.
    Word(String),
    Bytes(Vec<u8>),
    /// A descriptor, and what it stands for.
    Open(PathBuf),
}

impl Call {
    /// The path of the descriptor that is its nth argument.
    pub fn open(&self, nth: usize) -> Option<&Path> {
        match self.arguments.get(nth)? {
            Argument::Open(path) => Some(path),
            _ => None,
        }
    }

    pub fn bytes(&self, nth: usize) -> &[u8] {
        match self.arguments.get(nth) {
            Some(Argument::Bytes(bytes)) => bytes,
            other => panic!("no bytes but {other:?} in {self:?}"),
        }
    }

    pub fn number(&self, nth: usize) -> u64 {
        match self.arguments.get(nth) {
            Some(Argument::Word(word)) => word.parse().unwrap_or_else(|_| panic!("{word} in {self:?}")),
            other => panic!("no number but {other:?} in {self:?}"),
        }
    }

    pub fn word(&self, nth: usize) -> &str {
        match self.arguments.get(nth) {
            Some(Argument::Word(word)) => word,
            _ => "",
        }
    }

    /// The path that is its nth argument, below the folder that is the one before, if it has one.
    pub fn path(&self, nth: usize) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let name = Path::new(std::ffi::OsStr::from_bytes(self.bytes(nth)));
        let folder = nth.checked_sub(1).and_then(|before| self.open(before));
        folder.map_or_else(|| name.to_owned(), |folder| folder.join(name))
    }
}

/// It watches until it is dropped.
pub struct Strace {
    child: Child,
    report: PathBuf,
}

impl Strace {
    /// Watches the process and all its threads; returns when it does.
    pub fn attach(pid: u32, report: &Path) -> Self {
        let said = report.with_extension("said");
        let child = Command::new("strace")
            .args(["-f", "-y", "-xx", "-s", "16777216", "-e", &format!("trace={CALLS}"), "-o"])
            .arg(report)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(fs::File::create(&said).expect("a file for what strace says"))
            .spawn()
            .expect("strace");
        eventually("strace at its process", Duration::from_secs(20), || {
            fs::read_to_string(&said).ok().filter(|said| said.contains(" attached"))
        });
        Self { child, report: report.to_owned() }
    }

    /// Everything it has seen, in the order in which it was done.
    pub fn calls(mut self) -> Vec<Call> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("ending strace");
        self.child.wait().expect("waiting for strace");
        parse(&fs::read_to_string(&self.report).expect("strace's report"))
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls that were interrupted by other threads' are put together where they ended.
fn parse(report: &str) -> Vec<Call> {
    let mut begun = std::collections::HashMap::new();
    let mut calls = Vec::new();
    for line in report.lines() {
        let (thread, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim_start();
        if let Some(first) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, first);
            continue;
        }
        let whole = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let (_, last) = resumed.split_once(" resumed>").unwrap_or_default();
                // What began before strace came is not known.
                let Some(first) = begun.remove(thread) else { continue };
                format!("{first}{last}")
            }
            None => rest.to_owned(),
        };
        calls.extend(call(&whole).filter(|call| call.result >= 0));
    }
    calls
}

/// `name(arguments) = result`; strings and paths are in hexadecimal, so nothing in them can be misread.
fn call(text: &str) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    let result = result.split(['<', ' ']).next()?.parse().ok()?;
    Some(Call { name: name.to_owned(), arguments: arguments.split(", ").map(argument).collect(), result })
}

fn argument(text: &str) -> Argument {
    use std::os::unix::ffi::OsStringExt;
    if let Some(hex) = text.strip_prefix('"') {
        let hex = hex.strip_suffix('"').unwrap_or_else(|| panic!("cut off: {} bytes", hex.len() / 4));
        return Argument::Bytes(unescaped(hex));
    }
    match text.split_once('<') {
        Some((_, path)) => {
            let path = path.split('>').next().unwrap_or_default();
            Argument::Open(std::ffi::OsString::from_vec(unescaped(path)).into())
        }
        None => Argument::Word(text.to_owned()),
    }
}

fn unescaped(hex: &str) -> Vec<u8> {
    hex.split("\\x").skip(1).map(|digits| u8::from_str_radix(&digits[..2], 16).expect("two digits")).collect()
}
