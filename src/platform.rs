//! Platforms of images and engines: `os/arch[/variant]`. Pure.
//!
//! Names and matching are those of <https://github.com/containerd/platforms>, by which the engine itself picks
//! the image of an index: an engine runs images of its own platform and of older variants of it, and a
//! 64-bit one also the 32-bit images of its family.

/// A platform in its normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Platform {
    os: String,
    arch: Arch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Arch {
    /// The microarchitecture level: 1 to 4.
    Amd64(u32),
    /// 32-bit x86.
    I386,
    /// Major and minor version: `v8` is (8, 0).
    Arm64(u32, u32),
    /// 32-bit: 5 to 8.
    Arm(u32),
    /// Only equals itself.
    Other { arch: String, variant: String },
}

/// `os/arch` or `os/arch/variant`, such as `linux/arm64/v8`.
pub fn is_platform(text: &str) -> bool {
    let part = |part: &str| {
        (1..=32).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
    };
    (2..=3).contains(&text.split('/').count()) && text.split('/').all(part)
}

/// The parts in one text, empty ones left out.
pub fn named(os: &str, arch: &str, variant: &str) -> String {
    [os, arch, variant].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/")
}

/// The platform of an engine that says it is made for `arch` and runs on a machine that the kernel calls
/// `machine` (`uname -m`). The engine says no variant of its own; for 32-bit ARM the machine tells it, and a
/// 32-bit engine on a 64-bit kernel can run every 32-bit image.
pub fn of_engine(os: &str, arch: &str, machine: &str) -> String {
    let os = if os.is_empty() { "linux" } else { os };
    match Arch::parse(arch, "") {
        Arch::Arm(built) => {
            let found = match Arch::parse(machine, "") {
                Arch::Arm64(..) => 8,
                Arch::Arm(version) if machine != "arm" => version,
                _ => built,
            };
            format!("{os}/arm/v{found}")
        }
        Arch::Amd64(_) => named(os, "amd64", ""),
        Arch::I386 => named(os, "386", ""),
        Arch::Arm64(..) => named(os, "arm64", ""),
        Arch::Other { arch, variant } => named(os, &arch, &variant),
    }
}

/// The engine of this platform runs images of that one. An image that names no architecture is not judged.
pub fn runs(engine: &str, image: &str) -> bool {
    let (Some(engine), Some(image)) = (Platform::parse(engine), Platform::parse(image)) else { return true };
    engine.os == image.os && engine.arch.runs(&image.arch)
}

impl Platform {
    /// `None` without an architecture.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let (os, arch) = (parts.next()?, parts.next()?);
        let os = if os == "macos" { "darwin".to_owned() } else { os.to_ascii_lowercase() };
        Some(Self { os, arch: Arch::parse(arch, parts.next().unwrap_or_default()) })
    }
}

impl Arch {
    /// Go's names, the kernel's (`uname -m`) and Debian's.
    fn parse(arch: &str, variant: &str) -> Self {
        let (arch, variant) = (arch.to_ascii_lowercase(), variant.to_ascii_lowercase());
        let version = || variant.strip_prefix('v').unwrap_or(&variant);
        let known = match arch.as_str() {
            "i386" | "i486" | "i586" | "i686" | "x86" => Some(Self::I386),
            "386" if variant.is_empty() => Some(Self::I386),
            "x86_64" | "x86-64" | "amd64" if variant.is_empty() => Some(Self::Amd64(1)),
            "x86_64" | "x86-64" | "amd64" => version().parse().ok().map(Self::Amd64),
            "aarch64" | "arm64" if variant.is_empty() => Some(Self::Arm64(8, 0)),
            "aarch64" | "arm64" => {
                let (major, minor) = version().split_once('.').unwrap_or((version(), "0"));
                major.parse().ok().zip(minor.parse().ok()).map(|(major, minor)| Self::Arm64(major, minor))
            }
            "armhf" => Some(Self::Arm(7)),
            "armel" => Some(Self::Arm(6)),
            "arm" if variant.is_empty() => Some(Self::Arm(7)),
            "arm" => version().parse().ok().map(Self::Arm),
            // `armv6l`, `armv7l`, and `armv8l` for a 32-bit process on a 64-bit kernel.
            machine => machine
                .strip_prefix("armv")
                .and_then(|rest| rest.chars().next())
                .and_then(|digit| digit.to_digit(10))
                .map(Self::Arm),
        };
        known.unwrap_or(Self::Other { arch, variant })
    }

    fn runs(&self, image: &Self) -> bool {
        match (self, image) {
            (Self::Amd64(_), Self::I386) => true,
            (Self::Amd64(ours), Self::Amd64(theirs)) => ours == theirs || (1..=*ours).contains(theirs),
            (Self::Arm(ours), Self::Arm(theirs)) => ours == theirs || (5..=*ours).contains(theirs),
            (Self::Arm64(..), Self::Arm(theirs)) => (5..=8).contains(theirs),
            (Self::Arm64(major, minor), Self::Arm64(of, theirs)) if major == of => theirs <= minor,
            // ARM v9.0 has everything of v8.5, and so on.
            (Self::Arm64(9, minor), Self::Arm64(8, theirs)) => *theirs <= (minor + 5).min(9),
            (ours, theirs) => ours == theirs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_runs_what_the_engine_itself_would_pick() {
        for (engine, image, expected) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/x86_64", true),
            ("linux/amd64", "linux/amd64/v1", true),
            ("linux/amd64", "linux/amd64/v2", false),
            ("linux/amd64/v3", "linux/amd64/v2", true),
            ("linux/amd64", "linux/386", true),
            ("linux/amd64", "linux/i386", true),
            ("linux/386", "linux/amd64", false),
            ("linux/amd64", "linux/arm64", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm64", "linux/aarch64", true),
            ("linux/arm64", "linux/arm64/v8.0", true),
            ("linux/arm64", "linux/arm64/8", true),
            ("linux/arm64", "linux/arm64/v8.2", false),
            ("linux/arm64", "linux/arm64/v9", false),
            ("linux/arm64/v9", "linux/arm64", true),
            ("linux/arm64/v9", "linux/arm64/v8.5", true),
            ("linux/arm64/v9", "linux/arm64/v8.6", false),
            // A 64-bit engine runs the 32-bit images.
            ("linux/arm64", "linux/arm/v8", true),
            ("linux/arm64", "linux/arm/v7", true),
            ("linux/arm64", "linux/arm", true),
            ("linux/arm64", "linux/arm/v6", true),
            ("linux/arm64", "linux/arm/v5", true),
            ("linux/arm64", "linux/arm/v4", false),
            // A 32-bit engine does not run the 64-bit ones, whatever its kernel.
            ("linux/arm/v8", "linux/arm64", false),
            ("linux/arm/v8", "linux/arm/v7", true),
            ("linux/arm/v8", "linux/arm", true),
            ("linux/arm/v7", "linux/arm/v7", true),
            ("linux/arm/v7", "linux/arm/7", true),
            ("linux/arm/v7", "linux/armhf", true),
            ("linux/arm/v7", "linux/armel", true),
            ("linux/arm/v7", "linux/armv7l", true),
            ("linux/arm/v7", "linux/arm", true),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v7", "linux/arm/v8", false),
            ("linux/arm/v6", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v5", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm/v6", "linux/arm", false),
            ("linux/riscv64", "linux/riscv64", true),
            ("linux/riscv64", "linux/s390x", false),
            ("linux/mips64le/hardfloat", "linux/mips64le/hardfloat", true),
            ("linux/mips64le/hardfloat", "linux/mips64le/softfloat", false),
            ("linux/arm/vx", "linux/arm/v7", false),
            // An image that names no architecture.
            ("linux/amd64", "linux", true),
            ("linux/amd64", "", true),
        ] {
            assert_eq!(runs(engine, image), expected, "{engine} runs {image}");
        }
    }

    #[test]
    fn engines_are_named_as_manifests_name_platforms() {
        for (os, arch, machine, expected) in [
            ("linux", "amd64", "x86_64", "linux/amd64"),
            ("linux", "x86_64", "x86_64", "linux/amd64"),
            ("", "amd64", "", "linux/amd64"),
            ("linux", "386", "i686", "linux/386"),
            ("linux", "386", "x86_64", "linux/386"),
            ("linux", "arm64", "aarch64", "linux/arm64"),
            ("linux", "aarch64", "aarch64", "linux/arm64"),
            ("linux", "arm", "armv7l", "linux/arm/v7"),
            ("linux", "arm", "armv6l", "linux/arm/v6"),
            ("linux", "armv6l", "armv6l", "linux/arm/v6"),
            // Raspberry Pi OS: 32-bit programs on a 64-bit kernel.
            ("linux", "arm", "aarch64", "linux/arm/v8"),
            ("linux", "arm", "armv8l", "linux/arm/v8"),
            ("linux", "arm", "", "linux/arm/v7"),
            ("linux", "arm", "arm", "linux/arm/v7"),
            ("linux", "riscv64", "riscv64", "linux/riscv64"),
            ("linux", "ppc64le", "ppc64le", "linux/ppc64le"),
            ("windows", "amd64", "x86_64", "windows/amd64"),
        ] {
            assert_eq!(of_engine(os, arch, machine), expected, "{os} {arch} on {machine}");
        }
    }

    #[test]
    fn texts() {
        assert!(is_platform("linux/amd64") && is_platform("linux/arm64/v8"));
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm64/v8/x", "Linux/amd64", "linux/a d"] {
            assert!(!is_platform(bad), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_engine_runs_its_own_platform(platform in "linux/[a-z0-9]{2,6}(/v?[0-9](\\.[0-9])?)?") {
            proptest::prop_assert!(runs(&platform, &platform), "{platform}");
        }
    }
}
