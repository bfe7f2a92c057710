//! Who holds a connection, and whose is taken away when there are too many.
//!
//! ```text
//!                                                               ┌─ the token ─▶ known
//! accept ─▶ strangers ─▶ the head of the first request is read ─┼─ /healthz  ─▶ health
//!           (the oldest one goes when there are too many)       └─ else      ─▶ others  (one answer)
//! ```
//! A newcomer never waits for a seat among the strangers: the oldest of them loses its connection instead. A good
//! client sends its first request at once, so it is a stranger for milliseconds; a connection that is held without
//! a request is the one that goes. One address has at most half of these seats, and beyond that loses its own
//! oldest connection. It is never shut out, because clients behind Docker's network all share one address.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The most connections, however many files may be open. Each stranger costs about two kilobytes of memory, each
/// of the others about twenty.
const MOST: usize = 2048;
/// The fewest, however few files may be open.
const FEWEST: usize = 64;

/// How many connections there are for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Of all kinds, those included that are just being closed.
    pub open: usize,
    /// Have not shown a whole request yet.
    pub strangers: usize,
    pub health: usize,
    /// Ask for something else without the token. More than [`super::auth`] holds back for a wrong one.
    pub others: usize,
    pub known: usize,
}

impl Shares {
    /// A quarter of the files that this process may open: the rest belongs to the job, which talks to the engine,
    /// copies data and writes the journal.
    pub fn of(open_files: u64) -> Self {
        let quarter = usize::try_from(open_files / 4).unwrap_or(MOST);
        let open = quarter.clamp(FEWEST, MOST);
        Self { open, strangers: open / 2, health: open / 32, others: open / 8, known: open / 4 }
    }
}

/// Lets this process open as many files as it is allowed to; returns how many.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// Where the system names no limit.
    const UNLIMITED: u64 = 1 << 20;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(UNLIMITED);
    let wanted = maximum.unwrap_or(UNLIMITED);
    if wanted <= current {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!("the limit on open files stays {current}, it cannot be raised to {wanted}: {error}");
            current
        }
    }
}

/// Who is at the other end, as far as seats are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An IPv4 address, or the first half of an IPv6 address: whoever has one address of a /64 has all of them.
    Address(IpAddr),
    /// A user of this machine, over the Unix socket.
    User(u32),
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        const NETWORK: u128 = !0 << 64;
        Self::Address(match address.ip().to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into(),
            v4 => v4,
        })
    }
}

/// All seats.
pub struct Seats {
    /// Taken before a connection is accepted, and given back when it is closed: no other number of open
    /// connections is possible.
    pub open: Arc<Semaphore>,
    pub strangers: Arc<Lot>,
    pub health: Semaphore,
    pub others: Semaphore,
    pub known: Semaphore,
}

impl Seats {
    pub fn new(shares: Shares) -> Self {
        Self {
            open: Arc::new(Semaphore::new(shares.open)),
            strangers: Arc::new(Lot::new(shares.strangers)),
            health: Semaphore::new(shares.health),
            others: Semaphore::new(shares.others),
            known: Semaphore::new(shares.known),
        }
    }
}

/// Seats that are taken away from those who have had theirs for longest.
pub struct Lot {
    seats: usize,
    /// Half of the seats.
    per_peer: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// By arrival.
    seats: BTreeMap<u64, (Peer, CancellationToken)>,
    of_peer: HashMap<Peer, usize>,
    arrivals: u64,
}

impl Lot {
    fn new(seats: usize) -> Self {
        Self { seats: seats.max(1), per_peer: (seats / 2).max(1), taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is always a seat: when there is none left, another one loses it.
    pub fn take(self: &Arc<Self>, peer: Peer) -> Seat {
        let mut taken = self.taken();
        if taken.of_peer.get(&peer).is_some_and(|held| *held >= self.per_peer) {
            taken.dismiss_oldest(|of| of == peer);
        } else if taken.seats.len() >= self.seats {
            taken.dismiss_oldest(|_| true);
        }
        let lost = CancellationToken::new();
        let number = taken.arrivals;
        taken.arrivals += 1;
        taken.seats.insert(number, (peer, lost.clone()));
        *taken.of_peer.entry(peer).or_default() += 1;
        Seat { lot: self.clone(), number, lost }
    }
}

impl Taken {
    fn dismiss_oldest(&mut self, is: impl Fn(Peer) -> bool) {
        let oldest = self.seats.iter().find(|(_, (peer, _))| is(*peer)).map(|(number, _)| *number);
        if let Some(lost) = oldest.and_then(|number| self.leave(number)) {
            lost.cancel();
        }
    }

    fn leave(&mut self, number: u64) -> Option<CancellationToken> {
        let (peer, lost) = self.seats.remove(&number)?;
        if let Some(held) = self.of_peer.get_mut(&peer) {
            *held -= 1;
            if *held == 0 {
                self.of_peer.remove(&peer);
            }
        }
        Some(lost)
    }
}

/// A seat in a [`Lot`], until it is dropped or lost.
pub struct Seat {
    lot: Arc<Lot>,
    number: u64,
    lost: CancellationToken,
}

impl Seat {
    /// Returns when another one has got it.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lot.taken().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        SocketAddr::new(address.parse().unwrap(), 1).into()
    }

    /// Which of the seats are lost.
    fn lost(seats: &[Seat]) -> Vec<usize> {
        (0..seats.len()).filter(|at| seats[*at].lost.is_cancelled()).collect()
    }

    #[test]
    fn most_of_the_files_are_left_to_the_job() {
        for (open_files, expected) in [
            (0, Shares { open: 64, strangers: 32, health: 2, others: 8, known: 16 }),
            (1024, Shares { open: 256, strangers: 128, health: 8, others: 32, known: 64 }),
            (1 << 20, Shares { open: 2048, strangers: 1024, health: 64, others: 256, known: 512 }),
            (u64::MAX, Shares { open: 2048, strangers: 1024, health: 64, others: 256, known: 512 }),
        ] {
            assert_eq!(Shares::of(open_files), expected, "{open_files}");
            let Shares { open, strangers, health, others, known } = expected;
            assert!(strangers + health + others + known < open, "some are always being closed");
        }
    }

    #[test]
    fn who_is_counted_together() {
        for (a, b, together) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            assert_eq!(peer(a) == peer(b), together, "{a} {b}");
        }
    }

    #[test]
    fn the_oldest_goes() {
        let lot = Arc::new(Lot::new(4));
        let mut seats: Vec<Seat> = Vec::new();
        for (address, expected) in [
            ("10.0.0.9", &[][..]),
            ("10.0.0.1", &[]),
            ("10.0.0.1", &[]),
            // More than half of the seats cost an address its own oldest one.
            ("10.0.0.1", &[1]),
            ("10.0.0.2", &[1]),
            // A full house costs the oldest one, whoever it is.
            ("10.0.0.3", &[0, 1]),
            ("10.0.0.4", &[0, 1, 2]),
        ] {
            seats.push(lot.take(peer(address)));
            assert_eq!(lost(&seats), expected, "{address}");
        }
    }

    #[test]
    fn a_seat_that_is_left_is_free() {
        let lot = Arc::new(Lot::new(4));
        let kept = vec![lot.take(peer("10.0.0.1"))];
        for address in 2..100_u8 {
            drop(lot.take(Peer::Address([10, 0, 0, address].into())));
        }
        assert_eq!(lost(&kept), [0_usize; 0]);
        drop(kept);
        assert!(lot.taken().of_peer.is_empty() && lot.taken().seats.is_empty());
    }
}
