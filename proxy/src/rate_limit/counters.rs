//! Counters of rate limits: cells by key, shared by all threads, exact, bounded in number.
//!
//! A cell is found by a keyed 64-bit hash of what is counted: the limit's identity, the window and the key's parts. No key is
//! kept; that any two of a million meet in one cell has a chance of one in thirty millions, which nobody can better who
//! doesn't know the process's own key; and a limit that is edited finds its cells again as long as these stay. Cells that say no more than a new one would are dropped when room is needed. All cells that a request
//! needs are locked together, in order, for some tens of nanoseconds: it takes from all or from none, so that of any
//! number of threads exactly as many pass as may.

use super::store::Store;
use crate::model::RateLimitStore;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, PoisonError, Weak, atomic::AtomicU64, atomic::Ordering};
#[expect(clippy::disallowed_types, reason = "held for a look-up or two, never across an await")]
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

/// Locks: more than threads, so that they seldom meet.
const SHARDS: usize = 64;
/// Cells of the process: 24 bytes each, and as much again for a table that is being doubled.
const CELLS: usize = 1_000_000;
/// Cells of a shard that are looked through for one to give up.
const CANDIDATES: usize = 16;

/// How requests are counted in one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meter {
    /// A bucket of `capacity` that fills by one each `interval` nanoseconds (GCRA: the cell has the time when it is full).
    Bucket { interval: u64, capacity: u64 },
    /// So many in each window of nanoseconds, one after the other.
    Fixed { limit: u64, window: u64 },
    /// So many in the last window, of which what lies in the one before the present is estimated from its whole.
    Sliding { limit: u64, window: u64 },
    /// So many at once.
    InFlight { limit: u64 },
}

/// What a request asks of one cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// The cell.
    pub(crate) cell: CellId,
    pub(crate) meter: Meter,
    /// How many it counts for.
    pub(crate) cost: u64,
}

impl Ask {
    /// Whether it is given back when its request is over.
    pub(crate) fn is_in_flight(&self) -> bool {
        match self.meter {
            Meter::InFlight { .. } => true,
            Meter::Bucket { .. } | Meter::Fixed { .. } | Meter::Sliding { .. } => false,
        }
    }
}

/// Which cell. Here, its lower half is what counts; a [`Store`] takes all of it, for what is hashed there has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellId(u128);

impl CellId {
    /// One that is the same in all processes.
    pub(super) fn of(number: u128) -> Self {
        Self(number)
    }

    pub(super) fn number(self) -> u128 {
        self.0
    }

    fn key(self) -> u64 {
        self.0 as u64
    }

    /// By bits that tables of this size have no use for.
    fn shard(self) -> usize {
        (self.key() >> 40) as usize % SHARDS
    }
}

/// What a cell says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether it may pass.
    pub(crate) passes: bool,
    /// How many more may, at once.
    pub(crate) remaining: u64,
    /// Nanoseconds until all that is ever allowed at once is allowed again.
    pub(crate) reset: u64,
    /// Nanoseconds until this request would pass; 0 when it does.
    pub(crate) wait: u64,
}

impl Standing {
    /// By what the tightest of several is found, the least first: those that refuse, of them the longest; else the one with
    /// the least left.
    pub(crate) fn tightness(self) -> (bool, u64, u64) {
        (self.passes, u64::MAX - self.wait, self.remaining)
    }
}

/// 16 bytes: what is counted, and when that doesn't matter any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    /// From then on it is as good as new.
    expires: u64,
    value: u64,
}

/// What the cells of one request say, in order.
pub(crate) type Standings = SmallVec<[Standing; 1]>;

type Shard = HashMap<u64, Cell, Trivial>;

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Trivial;

impl BuildHasher for Trivial {
    type Hasher = Low;
    fn build_hasher(&self) -> Low {
        Low(0)
    }
}

struct Low(u64);

impl std::hash::Hasher for Low {
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("cells are found by numbers");
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// All cells of the process.
pub(crate) struct Counters {
    #[expect(clippy::disallowed_types, reason = "held for a look-up or two, never across an await")]
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    most: usize,
    began: Instant,
    /// Nanoseconds from the Unix epoch to `began`: windows begin with the clock's. Later changes of the clock don't matter.
    epoch: u64,
    /// Cells that were given up while they still counted.
    evicted: AtomicU64,
    /// Where limits are counted that all replicas share.
    #[expect(clippy::disallowed_types, reason = "taken by compile, never by a request")]
    stores: Mutex<Vec<Weak<Store>>>,
    /// Requests that were judged without the store that they should have been counted in.
    without_store: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self::new(CELLS)
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Counters {
    /// With room for so many cells.
    fn new(most: usize) -> Self {
        let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            shards: (0..SHARDS).map(|_| Default::default()).collect(),
            hasher: RandomState::new(),
            most: most.div_ceil(SHARDS),
            began: Instant::now(),
            epoch: nanoseconds(epoch),
            evicted: AtomicU64::new(0),
            stores: Default::default(),
            without_store: AtomicU64::new(0),
        }
    }

    /// The time that cells know: nanoseconds since the Unix epoch, by a clock that never goes back.
    pub(crate) fn now(&self) -> u64 {
        self.time(Instant::now())
    }

    /// The same of a time that somebody has read.
    pub(crate) fn time(&self, now: Instant) -> u64 {
        self.epoch.saturating_add(nanoseconds(now.saturating_duration_since(self.began)))
    }

    /// The cell of what is counted, which is named so that no two names read alike.
    pub(crate) fn cell(&self, name: &[u8]) -> CellId {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(name);
        CellId(hasher.finish().into())
    }

    /// Cells in use.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Cells that were given up for want of room while they still counted.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// The one store that is reached like this.
    pub(super) fn store(&self, from: &RateLimitStore) -> Arc<Store> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|store| store.strong_count() > 0);
        if let Some(store) = stores.iter().filter_map(Weak::upgrade).find(|store| store.is_of(from)) {
            return store;
        }
        let store = Arc::new(Store::compile(from));
        stores.push(Arc::downgrade(&store));
        store
    }

    /// A request was judged without its store.
    pub(super) fn note_without_store(&self) {
        self.without_store.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were judged without their store.
    pub(crate) fn without_store(&self) -> u64 {
        self.without_store.load(Ordering::Relaxed)
    }

    /// Takes from all cells, or from none when one of them has too little: whether it did, and what each says, in order. A
    /// cell may be asked once only.
    pub(crate) fn take(&self, asks: &[impl Borrow<Ask>], now: u64) -> (bool, Standings) {
        let mut standings = Standings::new();
        if let [ask] = asks {
            let ask = ask.borrow();
            let mut shard = lock(&self.shards[ask.cell.shard()]);
            let (standing, cell) = ask.meter.ask(find(&shard, ask.cell, now), ask.cost, now);
            standings.push(standing);
            if standing.passes && ask.cost > 0 {
                self.put(&mut shard, ask.cell, cell, now);
            }
            return (standing.passes, standings);
        }
        let asks = || asks.iter().map(Borrow::borrow);
        // Always in the same order, so that nobody waits for somebody who waits for him.
        let mut needed: SmallVec<[usize; 4]> = asks().map(|ask| ask.cell.shard()).collect();
        needed.sort_unstable();
        needed.dedup();
        let locked = needed.iter().map(|shard| (*shard, lock(&self.shards[*shard])));
        let mut locked: SmallVec<[_; 4]> = locked.collect();
        let mut cells = SmallVec::<[Cell; 4]>::new();
        for ask in asks() {
            let known = locked.iter().find(|(shard, _)| *shard == ask.cell.shard());
            let known = known.and_then(|(_, shard)| find(shard, ask.cell, now));
            let (standing, cell) = ask.meter.ask(known, ask.cost, now);
            standings.push(standing);
            cells.push(cell);
        }
        let passes = standings.iter().all(|standing| standing.passes);
        if passes {
            for (ask, cell) in asks().zip(cells).filter(|(ask, _)| ask.cost > 0) {
                if let Some((_, shard)) = locked.iter_mut().find(|(shard, _)| *shard == ask.cell.shard()) {
                    self.put(shard, ask.cell, cell, now);
                }
            }
        }
        (passes, standings)
    }

    /// Gives back what was taken from a cell of [`Meter::InFlight`].
    pub(crate) fn give_back(&self, id: CellId, cost: u64) {
        let mut shard = lock(&self.shards[id.shard()]);
        if let Some(cell) = shard.get_mut(&id.key()) {
            cell.value = cell.value.saturating_sub(cost);
            if cell.value == 0 {
                shard.remove(&id.key());
            }
        }
    }

    fn put(&self, shard: &mut Shard, id: CellId, cell: Cell, now: u64) {
        if let Some(known) = shard.get_mut(&id.key()) {
            *known = cell;
            return;
        }
        // Before the table would be doubled, and when no more may come.
        if shard.len() == shard.capacity() || shard.len() >= self.most {
            shard.retain(|_, cell| cell.expires > now);
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to(shard.len() * 2);
            }
        }
        if shard.len() >= self.most {
            // Of some, the one that is nearest to being as good as new; never one that counts what is in flight.
            let seen = shard.iter().take(CANDIDATES);
            if let Some((victim, _)) = seen.min_by_key(|(_, cell)| cell.expires) {
                let victim = *victim;
                shard.remove(&victim);
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
        shard.insert(id.key(), cell);
    }
}

#[expect(clippy::disallowed_types, reason = "held for a look-up or two, never across an await")]
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find(shard: &Shard, id: CellId, now: u64) -> Option<Cell> {
    shard.get(&id.key()).copied().filter(|cell| cell.expires > now)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Meter {
    /// A bucket that holds `capacity` and fills at `limit` in each `window`.
    pub(crate) fn bucket(limit: u32, window: Duration, capacity: u32) -> Self {
        // Rounded up: rather one in a billion too few than too many.
        let interval = nanoseconds(window).div_ceil(u64::from(limit.max(1))).max(1);
        Self::Bucket { interval, capacity: capacity.max(1).into() }
    }

    /// Windows one after the other.
    pub(crate) fn fixed(limit: u32, window: Duration) -> Self {
        Self::Fixed { limit: limit.into(), window: nanoseconds(window).max(1) }
    }

    /// A window that slides.
    pub(crate) fn sliding(limit: u32, window: Duration) -> Self {
        Self::Sliding { limit: limit.into(), window: nanoseconds(window).max(1) }
    }

    /// How many may ever pass at once.
    pub(super) fn most(self) -> u64 {
        match self {
            Self::Bucket { capacity, .. } => capacity,
            Self::Fixed { limit, .. } | Self::Sliding { limit, .. } | Self::InFlight { limit } => limit,
        }
    }

    /// What a cell says, and what becomes of it if the request passes.
    fn ask(self, known: Option<Cell>, cost: u64, now: u64) -> (Standing, Cell) {
        match self {
            Self::Bucket { interval, capacity } => {
                let room = interval.saturating_mul(capacity);
                let owed = known.map_or(0, |cell| cell.expires - now);
                let wanted = interval.saturating_mul(cost);
                let then = owed.saturating_add(wanted);
                let passes = then <= room || cost == 0;
                let left = if passes { then } else { owed };
                let standing = Standing {
                    passes,
                    remaining: room.saturating_sub(left) / interval,
                    reset: left,
                    wait: if passes { 0 } else { then - room },
                };
                (standing, Cell { expires: now.saturating_add(then), value: 0 })
            }
            Self::Fixed { limit, window } => {
                let end = known.map_or((now / window + 1) * window, |cell| cell.expires);
                let counted = known.map_or(0, |cell| cell.value);
                let (passes, remaining) = counted_against(limit, counted, cost);
                let rest = end - now;
                let standing =
                    Standing { passes, remaining, reset: rest, wait: if passes { 0 } else { rest } };
                (standing, Cell { expires: end, value: counted.saturating_add(cost) })
            }
            Self::Sliding { limit, window } => sliding(limit, window, known, cost, now),
            Self::InFlight { limit } => {
                let counted = known.map_or(0, |cell| cell.value);
                let (passes, remaining) = counted_against(limit, counted, cost);
                // Nobody knows when one of them ends: in a second, perhaps.
                let wait = if passes { 0 } else { nanoseconds(Duration::from_secs(1)) };
                let standing = Standing { passes, remaining, reset: 0, wait };
                (standing, Cell { expires: u64::MAX, value: counted.saturating_add(cost) })
            }
        }
    }
}

fn counted_against(limit: u64, counted: u64, cost: u64) -> (bool, u64) {
    let passes = counted.saturating_add(cost) <= limit || cost == 0;
    let counted = if passes { counted.saturating_add(cost) } else { counted };
    (passes, limit.saturating_sub(counted))
}

/// The cell has the count of the window before in its upper half, that of the present one in its lower, and is as good as
/// new when the next one is over.
fn sliding(limit: u64, window: u64, known: Option<Cell>, cost: u64, now: u64) -> (Standing, Cell) {
    // Another thread may have been here in the next window with a clock that it read later.
    let now = known.map_or(now, |cell| now.max(cell.expires.saturating_sub(2 * window)));
    let end = (now / window + 1) * window;
    let half = u64::from(u32::MAX);
    let (before, present) = match known {
        Some(cell) if cell.expires == end + window => (cell.value >> 32, cell.value & half),
        Some(cell) if cell.expires == end => (cell.value & half, 0),
        Some(_) | None => (0, 0),
    };
    // Of the window before, as much as still lies in the last window's length; rounded up.
    let old = u128::from(before) * u128::from(end - now);
    let old = u64::try_from(old.div_ceil(u128::from(window))).unwrap_or(u64::MAX);
    let (passes, remaining) = counted_against(limit, old.saturating_add(present), cost);
    // Until so little of a window's count is left in the last window's length that it leaves room.
    let until = |end: u64, before: u64, room: u64| {
        let part = u128::from(window) * u128::from(room) / u128::from(before.max(1));
        end - window.min(u64::try_from(part).unwrap_or(window))
    };
    let wait = match limit.checked_sub(present.saturating_add(cost)) {
        _ if passes => 0,
        Some(room) => until(end, before, room).saturating_sub(now),
        None => until(end + window, present, limit.saturating_sub(cost)) - now,
    };
    let taken = if passes { present.saturating_add(cost).min(half) } else { present };
    let standing = Standing { passes, remaining, reset: end - now, wait };
    (standing, Cell { expires: end + window, value: before.min(half) << 32 | taken })
}

#[cfg(test)]
mod tests;
