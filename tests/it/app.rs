//! A scripted app: it answers whatever it is told to, and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::harness::patiently;

pub struct App {
    pub address: SocketAddr,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Script {
    status: String,
    headers: String,
    body: String,
    request: String,
    asked: usize,
    takes: Duration,
    under_way: usize,
    most: usize,
}

impl App {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address")).await
    }

    pub async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(Script::default()));
        let task = tokio::spawn(serve(listener, script.clone()));
        Self {
            address,
            script,
            task,
        }
    }

    /// From now on it answers with this; `slow` never answers.
    pub fn answer(&self, status: &str, headers: &str, body: &str) {
        let mut script = self.script.lock().expect("no panic");
        (script.status, script.headers, script.body) = (status.into(), headers.into(), body.into());
    }

    pub fn last_request(&self) -> String {
        self.script.lock().expect("no panic").request.clone()
    }

    pub fn forget(&self) {
        let mut script = self.script.lock().expect("no panic");
        script.request.clear();
        (script.asked, script.most) = (0, 0);
    }

    /// From now on each answer takes so long.
    pub fn take(&self, time: Duration) {
        self.script.lock().expect("no panic").takes = time;
    }

    /// How often it was asked, and how many questions it had at a time at most.
    pub fn asked(&self) -> (usize, usize) {
        let script = self.script.lock().expect("no panic");
        (script.asked, script.most)
    }

    /// Waits until it was asked so often.
    pub async fn until_asked(&self, times: usize) {
        patiently("the questions", async {
            while self.asked().0 < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    pub async fn stop(self) {
        self.task.abort();
        let _: Result<(), _> = self.task.await;
    }
}

async fn serve(listener: TcpListener, script: Arc<Mutex<Script>>) {
    let mut answering = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        answering.spawn(answer(stream, script.clone()));
        while answering.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
            _ => return,
        }
    }
    let takes = {
        let mut script = script.lock().expect("no panic");
        script.request = String::from_utf8_lossy(&request).into_owned();
        script.asked += 1;
        script.under_way += 1;
        script.most = script.most.max(script.under_way);
        script.takes
    };
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    let answer = {
        let mut script = script.lock().expect("no panic");
        script.under_way -= 1;
        let length = script.body.len();
        format!(
            "HTTP/1.1 {}\r\n{}Content-Length: {length}\r\nConnection: close\r\n\r\n{}",
            script.status, script.headers, script.body
        )
    };
    if answer.starts_with("HTTP/1.1 slow") {
        // Held open until the asker has had enough.
        let _: std::io::Result<usize> = stream.read(&mut [0; 1]).await;
        return;
    }
    let _: std::io::Result<()> = stream.write_all(answer.as_bytes()).await;
}
