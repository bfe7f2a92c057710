//! Data like an application's, for measurements: many small files, of which some change.

use std::fs;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

/// Files of 0 to twice the mean size, not compressible, in folders of about 60; flushed.
///
/// # Errors
/// The disk refuses.
pub fn make(root: &Path, files: usize, megabytes: usize) -> Result<(), Failure> {
    let mean = (megabytes << 20) / files.max(1);
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for i in 0..files {
        let folder = root.join(format!("{:02}", i / 60 % 32)).join(format!("{:04}", i / 60));
        if i % 60 == 0 {
            fs::create_dir_all(&folder)?;
        }
        let size = ((noise >> 40) as usize * 2 * mean) >> 24;
        let content: Vec<u8> = (0..size.div_ceil(8).max(1))
            .flat_map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_le_bytes()
            })
            .collect();
        fs::write(folder.join(format!("file {i}")), &content[..size])?;
    }
    rustix::fs::sync();
    Ok(())
}

/// Writes to every `step`th file.
///
/// # Errors
/// The disk refuses.
pub fn change(root: &Path, step: usize, seed: u64) -> Result<(), Failure> {
    let mut count = seed as usize % step;
    walk(root, &mut |path| {
        count += 1;
        if count.is_multiple_of(step) {
            let mut content = fs::read(path)?;
            content.extend(seed.to_le_bytes());
            content[..8].copy_from_slice(&seed.to_le_bytes());
            fs::write(path, content)?;
        }
        Ok(())
    })
}

/// The bare walk: every entry listed and looked at.
///
/// # Errors
/// An entry cannot be looked at, or `each` fails.
pub fn walk(root: &Path, each: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            walk(&entry.path(), each)?;
        } else {
            each(&entry.path())?;
        }
    }
    Ok(())
}

/// The bare walk, and every `step`th file copied.
///
/// # Errors
/// As [`walk`].
pub fn walk_and_copy(root: &Path, step: usize, to: &Path) -> Result<(), Failure> {
    let mut count = 0usize;
    walk(root, &mut |path| {
        count += 1;
        if count.is_multiple_of(step) {
            fs::copy(path, to.join(count.to_string()))?;
        }
        Ok(())
    })
}
