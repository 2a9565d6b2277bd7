//! A directory in memory whose power can be cut: what was synced stays, of the rest a crash takes what it likes.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
};

use super::super::disk::{Disk, DiskFile};

/// What a disk writes whole.
const SECTOR: usize = 512;

/// A directory in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct TornDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    files: Vec<Content>,
    /// The names as they are now, and as they were when the directory was synced.
    names: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
    faults: Faults,
    /// How often the disk was asked to change something.
    asked: usize,
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// What was written since a sync was asked for: one that failed is not made good by the next, which takes what
    /// it was asked for before for what is on disk.
    dirty: Vec<Range<usize>>,
}

impl Content {
    fn sync(&mut self, fails: bool) {
        let dirty = std::mem::take(&mut self.dirty);
        if fails {
            return;
        }
        self.synced.resize(self.now.len(), 0);
        for range in dirty {
            let end = range.end.min(self.now.len());
            let range = range.start.min(end)..end;
            self.synced[range.clone()].copy_from_slice(&self.now[range]);
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// From this change on there is no power: nothing is done any more.
    pub(super) power_until: Option<usize>,
    /// So many bytes fit in all.
    pub(super) room: Option<usize>,
    /// Writes fail.
    pub(super) write: bool,
    /// Syncs fail.
    pub(super) sync: bool,
}

/// What of what was not synced is there after the power was cut.
pub(super) trait Chance {
    /// A number below `most`.
    fn below(&mut self, most: usize) -> usize;
}

/// Nothing that was not synced is there.
pub(super) struct Nothing;

impl Chance for Nothing {
    fn below(&mut self, most: usize) -> usize {
        if most == 2 { 1 } else { 0 }
    }
}

impl TornDisk {
    pub(super) fn fail(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// How often it was asked to change something.
    pub(super) fn asked(&self) -> usize {
        self.lock().asked
    }

    /// The same after its process was killed: all that was written is there.
    pub(super) fn after_kill(&self) -> Self {
        let inner = self.lock();
        let inner = Inner {
            files: inner.files.clone(),
            names: inner.names.clone(),
            synced: inner.synced.clone(),
            ..Inner::default()
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// The same after its power was cut: of what was not synced each sector is there, or as it was, or zero, or
    /// garbage; and each name that was not, too.
    pub(super) fn after_power_cut(&self, chance: &mut impl Chance) -> Self {
        let inner = self.lock();
        let mut names = inner.synced.clone();
        for (name, file) in &inner.names {
            if chance.below(2) == 0 {
                names.insert(name.clone(), *file);
            }
        }
        for name in inner.synced.keys() {
            if !inner.names.contains_key(name) && chance.below(2) == 0 {
                names.remove(name);
            }
        }
        let files = inner.files.iter().map(|file| torn(file, chance)).collect();
        Self(Arc::new(Mutex::new(Inner {
            files,
            synced: names.clone(),
            names,
            ..Inner::default()
        })))
    }

    /// Flips a bit of a file.
    pub(super) fn flip(&self, name: &str, at: usize, bit: u8) {
        let mut inner = self.lock();
        let file = inner.names[name];
        inner.files[file].now[at] ^= 1 << bit;
    }

    pub(super) fn len_of(&self, name: &str) -> usize {
        let inner = self.lock();
        inner.files[inner.names[name]].now.len()
    }

    /// It answers nobody as long as this is held.
    pub(super) fn hang(&self) -> impl Sized {
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// A file after the power was cut.
fn torn(file: &Content, chance: &mut impl Chance) -> Content {
    let Content { now, synced, .. } = file;
    let longest = now.len().max(synced.len());
    let mut bytes = synced.clone();
    if now.len() > synced.len() {
        bytes.resize(synced.len() + chance.below(longest - synced.len() + 1), 0);
    } else if now.len() < synced.len() && chance.below(2) == 0 {
        bytes.truncate(now.len());
    }
    let len = bytes.len();
    for from in (0..len).step_by(SECTOR) {
        let to = (from + SECTOR).min(len);
        let new = |at: usize| now.get(at).copied().unwrap_or_default();
        if (from..to).all(|at| synced.get(at).copied().unwrap_or_default() == new(at)) {
            continue;
        }
        match chance.below(4) {
            0 => {}
            // What was synced of a sector is written again with what was not.
            1 => (from.max(synced.len())..to).for_each(|at| bytes[at] = chance.below(256) as u8),
            _ => (from..to).for_each(|at| bytes[at] = new(at)),
        }
    }
    Content {
        now: bytes.clone(),
        synced: bytes,
        dirty: Vec::new(),
    }
}

impl Inner {
    /// The disk is asked to change something.
    fn ask(&mut self, fails: bool) -> io::Result<()> {
        self.asked += 1;
        let is_off = self
            .faults
            .power_until
            .is_some_and(|until| self.asked > until);
        if is_off || fails {
            return Err(io::Error::other("the disk fails"));
        }
        Ok(())
    }

    fn place(&self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Disk for TornDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.lock();
        let fails = inner.faults.write;
        inner.ask(fails)?;
        inner.files.push(Content::default());
        let place = inner.files.len() - 1;
        inner.names.insert(name.to_owned(), place);
        Ok(Arc::new(TornFile {
            disk: self.clone(),
            place,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let place = self.lock().place(name)?;
        Ok(Arc::new(TornFile {
            disk: self.clone(),
            place,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.ask(false)?;
        let place = inner.place(from)?;
        inner.names.remove(from);
        inner.names.insert(to.to_owned(), place);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.ask(false)?;
        let place = inner.place(name)?;
        inner.names.remove(name);
        inner.files[place].now.shrink_to_fit();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.lock();
        let fails = inner.faults.sync;
        inner.ask(fails)?;
        inner.synced = inner.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct TornFile {
    disk: TornDisk,
    place: usize,
}

impl DiskFile for TornFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files[self.place].now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.lock();
        let bytes = inner.files[self.place]
            .now
            .get(offset as usize..)
            .unwrap_or_default();
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let fails = inner.faults.write;
        inner.ask(fails)?;
        let used: usize = inner
            .names
            .values()
            .map(|file| inner.files[*file].now.len())
            .sum();
        let room = inner
            .faults
            .room
            .map_or(usize::MAX, |room| room.saturating_sub(used));
        let now = &mut inner.files[self.place].now;
        let end = offset as usize + bytes.len();
        let fits = bytes.len().min(
            room.saturating_add(now.len())
                .saturating_sub(offset as usize),
        );
        if now.len() < offset as usize + fits {
            now.resize(offset as usize + fits, 0);
        }
        let written = offset as usize..offset as usize + fits;
        now[written.clone()].copy_from_slice(&bytes[..fits]);
        inner.files[self.place].dirty.push(written);
        if offset as usize + fits < end {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.ask(false)?;
        inner.files[self.place].now.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let fails = inner.faults.sync;
        let asked = inner.ask(fails);
        inner.files[self.place].sync(asked.is_err());
        asked
    }
}
