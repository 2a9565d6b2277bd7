//! A directory of what can be had again elsewhere: what is to last is synced a little later, and nobody waits for it.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::disk::{Disk, DiskFile};
use crate::history::alarm::Alarm;

/// How long it may take until there is room for another file: with one that waits, and one that is being synced, no more
/// than one sealed segment is not synced. Tests share a machine with others, and are not about its pace.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 1 });
/// The same while a log is opened: nobody is held up by that.
const AT_FIRST: Duration = Duration::from_secs(600);

/// What is to be synced.
#[derive(Debug, Default)]
struct Jobs {
    /// One that waits.
    file: Option<Arc<dyn DiskFile>>,
    /// The names of files, too.
    names: bool,
    /// What was to be synced was not.
    has_failed: bool,
    /// Others are held up by whoever waits.
    is_urgent: bool,
    is_over: bool,
}

/// What those who ask and the one who syncs have in common.
#[derive(Debug, Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    news: Condvar,
    room: Condvar,
}

impl Queue {
    /// A file is to be synced; an error if one before was not, or if there are too many.
    fn push(&self, file: Arc<dyn DiskFile>) -> io::Result<()> {
        let jobs = self.lock();
        let is_full = |jobs: &mut Jobs| jobs.file.is_some();
        let patience = if jobs.is_urgent { PATIENCE } else { AT_FIRST };
        let waited = self.room.wait_timeout_while(jobs, patience, is_full);
        let (mut jobs, waited) = waited.expect("no holder of this lock panics");
        if waited.timed_out() {
            return Err(io::Error::other("the disk does not keep up"));
        }
        jobs.file = Some(file);
        self.news.notify_one();
        if std::mem::take(&mut jobs.has_failed) {
            return Err(io::Error::other("what was to be synced before is not"));
        }
        Ok(())
    }

    /// The names of files are to be synced. Whether that fails is said to who has a file synced next.
    fn push_names(&self) {
        self.lock().names = true;
        self.news.notify_one();
    }

    /// What is to be synced next; nothing more once it is over.
    fn take(&self) -> Option<(Option<Arc<dyn DiskFile>>, bool)> {
        let jobs = self.lock();
        let is_idle = |jobs: &mut Jobs| jobs.file.is_none() && !jobs.names && !jobs.is_over;
        let jobs = self.news.wait_while(jobs, is_idle);
        let mut jobs = jobs.expect("no holder of this lock panics");
        let job = (jobs.file.take(), std::mem::take(&mut jobs.names));
        self.room.notify_one();
        (job.0.is_some() || job.1).then_some(job)
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().expect("no holder of this lock panics")
    }
}

/// A directory whose files are synced by a thread of its own, in their order.
#[derive(Debug)]
pub(super) struct Behind {
    disk: Arc<dyn Disk>,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Behind {
    pub(super) fn over(disk: Arc<dyn Disk>) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let thread = {
            let (disk, queue) = (disk.clone(), queue.clone());
            let thread = thread::Builder::new().name("history".into());
            thread.spawn(move || sync_all(&*disk, &queue))?
        };
        Ok(Self {
            disk,
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// From now on others are held up by whoever waits for room.
    pub(super) fn is_urgent(&self) {
        self.queue.lock().is_urgent = true;
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let queue = self.queue.clone();
        Arc::new(BehindFile { file, queue })
    }
}

fn sync_all(disk: &dyn Disk, queue: &Queue) {
    let _alarm = Alarm("history");
    while let Some((file, names)) = queue.take() {
        let synced = file.map_or(Ok(()), |file| file.sync());
        let synced = synced.and_then(|()| if names { disk.sync() } else { Ok(()) });
        if let Err(error) = synced {
            tracing::error!("history cannot be synced: {error}");
            queue.lock().has_failed = true;
        }
    }
}

impl Disk for Behind {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.queue.push_names();
        Ok(())
    }
}

/// Waits for what was handed over.
impl Drop for Behind {
    fn drop(&mut self) {
        self.queue.lock().is_over = true;
        self.queue.news.notify_one();
        let thread = self.thread.lock().map(|mut thread| thread.take());
        if let Ok(Some(thread)) = thread {
            let _: Result<_, _> = thread.join();
        }
    }
}

/// A file of it.
#[derive(Debug)]
struct BehindFile {
    file: Arc<dyn DiskFile>,
    queue: Arc<Queue>,
}

impl DiskFile for BehindFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.queue.push(self.file.clone())
    }
}
