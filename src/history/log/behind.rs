//! A directory of what can be had again elsewhere: what is to last is synced a little later, and nobody waits for it.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use super::disk::{Disk, DiskFile};
use crate::history::alarm::Alarm;

/// How many syncs may wait: a segment is sealed only once the one before it is synced, so that no more than one is not.
const WAITING: usize = 2;

/// What is to be synced.
#[derive(Debug)]
enum Job {
    File(Arc<dyn DiskFile>),
    Names,
}

/// What those who ask and the one who syncs have in common.
#[derive(Debug)]
struct Queue {
    /// Taken when the directory is let go of, whatever files of it are open.
    jobs: Mutex<Option<SyncSender<Job>>>,
    has_failed: AtomicBool,
}

impl Queue {
    /// Hands over what is to be synced; an error if what was handed over before was not.
    fn push(&self, job: Job) -> io::Result<()> {
        let jobs = self.jobs.lock().expect("no holder of this lock panics");
        let jobs = jobs.clone();
        let sent = jobs.and_then(|jobs| jobs.send(job).ok());
        if sent.is_none() || self.has_failed.swap(false, Ordering::AcqRel) {
            return Err(io::Error::other("what was to be synced before is not"));
        }
        Ok(())
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
        let (jobs, taken) = sync_channel(WAITING);
        let queue = Arc::new(Queue {
            jobs: Mutex::new(Some(jobs)),
            has_failed: AtomicBool::new(false),
        });
        let thread = {
            let (disk, queue) = (disk.clone(), queue.clone());
            thread::Builder::new()
                .name("history".into())
                .spawn(move || sync_all(&*disk, &queue, &taken))?
        };
        Ok(Self {
            disk,
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let queue = self.queue.clone();
        Arc::new(BehindFile { file, queue })
    }
}

fn sync_all(disk: &dyn Disk, queue: &Queue, jobs: &Receiver<Job>) {
    let _alarm = Alarm("history");
    for job in jobs {
        let synced = match job {
            Job::File(file) => file.sync(),
            Job::Names => disk.sync(),
        };
        if let Err(error) = synced {
            tracing::error!("history cannot be synced: {error}");
            queue.has_failed.store(true, Ordering::Release);
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
        self.queue.push(Job::Names)
    }
}

/// Waits for what was handed over.
impl Drop for Behind {
    fn drop(&mut self) {
        let jobs = self.queue.jobs.lock().map(|mut jobs| jobs.take());
        drop(jobs);
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
        self.queue.push(Job::File(self.file.clone()))
    }
}
