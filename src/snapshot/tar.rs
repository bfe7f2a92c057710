//! Members of a tar archive in the POSIX (pax) form, with the extensions by which GNU tar keeps
//! extended attributes (`SCHILY.xattr.*`) and holes (`GNU.sparse.*`, version 1.0).

use std::io::{self, Write};

use super::entry::{Extent, Time};

/// Everything in an archive is padded to this.
pub const BLOCK: usize = 512;

/// One member. Its content, `size` bytes and [`padding`], follows.
#[derive(Default)]
pub struct Member<'a> {
    pub path: &'a [u8],
    /// `0` file, `1` hard link, `2` symbolic link, `3` and `4` devices, `5` folder, `6` fifo.
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub size: u64,
    pub link: &'a [u8],
    pub device: (u32, u32),
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// Size of a file with holes; `size` is then that of its map and its data.
    pub sparse: Option<u64>,
}

impl Member<'_> {
    /// Writes the header, after an extended one where the old fields cannot hold it.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let extended = self.extended();
        if !extended.is_empty() {
            let size = extended.len() as u64;
            let header = Member { path: b"pax", kind: b'x', mode: 0o644, size, ..Member::default() };
            out.write_all(&header.block())?;
            out.write_all(&extended)?;
            out.write_all(padding(size))?;
        }
        out.write_all(&self.block())
    }

    fn extended(&self) -> Vec<u8> {
        let mut to = Vec::new();
        if let Some(real) = self.sparse {
            record(&mut to, b"GNU.sparse.major", b"1");
            record(&mut to, b"GNU.sparse.minor", b"0");
            record(&mut to, b"GNU.sparse.name", self.path);
            record(&mut to, b"GNU.sparse.realsize", real.to_string().as_bytes());
        } else if self.path.len() > 100 || !self.path.is_ascii() {
            record(&mut to, b"path", self.path);
        }
        if self.link.len() > 100 || !self.link.is_ascii() {
            record(&mut to, b"linkpath", self.link);
        }
        for (key, number, most) in
            [("uid", u64::from(self.uid), SMALL), ("gid", self.gid.into(), SMALL), ("size", self.size, LARGE)]
        {
            if number > most {
                record(&mut to, key.as_bytes(), number.to_string().as_bytes());
            }
        }
        if self.mtime.nanos > 0 || octal_time(self.mtime) != self.mtime.secs.cast_unsigned() {
            record(&mut to, b"mtime", decimal(self.mtime).as_bytes());
        }
        for (name, value) in self.xattrs {
            record(&mut to, &[b"SCHILY.xattr.", &keyword(name)[..]].concat(), value);
        }
        to
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put_bytes(&mut block[..100], self.path);
        put_octal(&mut block[100..108], self.mode.into());
        put_octal(&mut block[108..116], u64::from(self.uid).min(SMALL));
        put_octal(&mut block[116..124], u64::from(self.gid).min(SMALL));
        put_octal(&mut block[124..136], self.size.min(LARGE));
        put_octal(&mut block[136..148], octal_time(self.mtime));
        block[148..156].fill(b' ');
        block[156] = self.kind;
        put_bytes(&mut block[157..257], self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        put_octal(&mut block[329..337], self.device.0.into());
        put_octal(&mut block[337..345], self.device.1.into());
        let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
        put_octal(&mut block[148..155], sum);
        block
    }
}

/// The largest numbers of 7 and 11 octal digits.
const SMALL: u64 = 0o7_777_777;
const LARGE: u64 = 0o77_777_777_777;

/// Zeros that fill the last block of a content of this size.
pub fn padding(size: u64) -> &'static [u8] {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    let used = (size % BLOCK as u64) as usize;
    if used == 0 { &[] } else { &ZEROS[used..] }
}

/// The map in front of the data of a file with holes, padded.
pub fn sparse_map(extents: &[Extent], size: u64) -> Vec<u8> {
    let mut all = extents.to_vec();
    // A hole at the end is marked by an empty extent behind it.
    if extents.last().is_none_or(|(offset, length)| offset + length < size) {
        all.push((size, 0));
    }
    let mut map = format!("{}\n", all.len());
    for (offset, length) in all {
        map += &format!("{offset}\n{length}\n");
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

fn put_bytes(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// Octal digits, and a NUL where there is room for one more.
fn put_octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    put_bytes(field, format!("{number:0digits$o}").as_bytes());
}

fn octal_time(time: Time) -> u64 {
    u64::try_from(time.secs).unwrap_or(0).min(LARGE)
}

/// Seconds as a decimal number; before 1970 the nanoseconds, which count upwards, must be turned round.
fn decimal(time: Time) -> String {
    match (time.secs, time.nanos) {
        (secs, 0) => secs.to_string(),
        (secs @ ..0, nanos) => format!("-{}.{:09}", -(secs + 1), 1_000_000_000 - nanos),
        (secs, nanos) => format!("{secs}.{nanos:09}"),
    }
}

/// `=` would end the keyword.
fn keyword(name: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b'=' => b"%3D".to_vec(),
        b'%' => b"%25".to_vec(),
        other => vec![*other],
    };
    name.iter().flat_map(escape).collect()
}

/// A record begins with its own length, which counts itself.
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    to.extend(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        to.extend(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_decimals() {
        for (secs, nanos, expected) in [
            (0, 0, "0"),
            (5, 1, "5.000000001"),
            (-5, 0, "-5"),
            (-1, 999_999_999, "-0.000000001"),
            (-5, 500_000_000, "-4.500000000"),
        ] {
            assert_eq!(decimal(Time { secs, nanos }), expected);
        }
    }

    #[test]
    fn records_count_themselves() {
        for (length, expected) in [(1, "6 k="), (4, "9 k="), (5, "11 k="), (93, "99 k="), (94, "101 k=")] {
            let mut to = Vec::new();
            record(&mut to, b"k", &vec![b'v'; length]);
            assert!(to.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&to));
            assert_eq!(to.len().to_string(), expected.split(' ').next().unwrap());
        }
    }
}
