//! The servers, and how each is started.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use seventh::clock;

use crate::works::{Kind, Work};

/// What they all are started with.
#[derive(Debug)]
pub(crate) struct Site {
    folder: PathBuf,
    cert: PathBuf,
    key: PathBuf,
    pub(crate) seventh: PathBuf,
    server_cores: String,
    pub(crate) client_cores: String,
    cores: usize,
    groups: Arc<Mutex<Vec<u32>>>,
}

const SECRET: &str = "a-secret-of-the-comparison-of-32-bytes-or-more";
const START: Duration = Duration::from_secs(15);
/// How many streams of a connection the edge grants: what is asked for, and a few more.
const STREAMS: &str = "1100";

impl Site {
    pub(crate) fn prepare(out: &Path) -> anyhow::Result<Self> {
        let folder = fs::canonicalize(out)?;
        let seventh = fs::canonicalize("target/release/seventh")
            .context("build it first: cargo build --release")?;
        let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()])?;
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&cert, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let cores = std::thread::available_parallelism()?.get();
        let half = (cores / 2).max(1);
        Ok(Self {
            folder,
            cert,
            key,
            seventh,
            server_cores: format!("0-{}", half - 1),
            client_cores: format!("{}-{}", half.min(cores - 1), cores - 1),
            cores,
            groups: Arc::default(),
        })
    }
}

impl Site {
    /// Ends whatever was started when somebody ends this program.
    pub(crate) fn end_with_this(&self) -> anyhow::Result<()> {
        let groups = self.groups.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::spawn(move || {
            // Nobody asks for an end if it cannot be heard.
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                for leader in groups.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    kill(*leader);
                }
                std::process::exit(130);
            }
        });
        Ok(())
    }

    fn spawn(&self, mut command: Command) -> anyhow::Result<Group> {
        use std::os::unix::process::CommandExt as _;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?} does not start"))?;
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.push(child.id());
        Ok(Group(child, self.groups.clone()))
    }
}

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Seventh,
    Nchan,
    Mercure,
    Centrifugo,
    Pushpin,
    Caddy,
    Nginx,
}

/// A server that runs, with what stands behind it.
#[derive(Debug)]
pub(crate) struct Running {
    server: Group,
    _app: Option<Group>,
    /// The options of `seventh bench` that reach it.
    pub(crate) bench: Vec<String>,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.server.0.id()
    }
}

/// A process and its children, which end together.
#[derive(Debug)]
struct Group(Child, Arc<Mutex<Vec<u32>>>);

/// Ends a process and its children: it leads a group of its own.
fn kill(leader: u32) {
    let group = format!("-{leader}");
    // What is gone already needs no end.
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
}

impl Drop for Group {
    fn drop(&mut self) {
        kill(self.0.id());
        // What is gone already needs no wait.
        let _ = self.0.wait();
        self.1
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id| *id != self.0.id());
    }
}

impl Peer {
    pub(crate) const ALL: [Self; 7] = [
        Self::Seventh,
        Self::Nchan,
        Self::Mercure,
        Self::Centrifugo,
        Self::Pushpin,
        Self::Caddy,
        Self::Nginx,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seventh => "seventh",
            Self::Nchan => "nchan",
            Self::Mercure => "mercure",
            Self::Centrifugo => "centrifugo",
            Self::Pushpin => "pushpin",
            Self::Caddy => "caddy",
            Self::Nginx => "nginx",
        }
    }

    fn program(self) -> PathBuf {
        let known = match self {
            Self::Seventh => "target/release/seventh",
            Self::Nchan | Self::Nginx => "/usr/sbin/nginx",
            Self::Caddy => "benches/compare/venv/bin/caddy",
            Self::Mercure | Self::Centrifugo | Self::Pushpin => "",
        };
        if Path::new(known).exists() {
            return known.into();
        }
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths)
            .map(|path| path.join(self.name()))
            .find(|program| program.exists())
            .unwrap_or_default()
    }

    /// Why it cannot take part, if it cannot.
    pub(crate) fn missing(self) -> Option<String> {
        if self == Self::Nchan && module().is_none() {
            return Some("Debian's libnginx-mod-nchan is not installed".into());
        }
        let found = !self.program().as_os_str().is_empty();
        (!found).then(|| format!("there is no {} on the PATH", self.name()))
    }

    pub(crate) fn version(self) -> String {
        let flag = match self {
            Self::Nchan | Self::Nginx => "-v",
            Self::Caddy | Self::Mercure | Self::Centrifugo => "version",
            _ => "--version",
        };
        let output = Command::new(self.program()).arg(flag).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat());
        let text = text.unwrap_or_default();
        let line = String::from_utf8_lossy(&text);
        line.lines().next().unwrap_or_default().to_owned()
    }

    /// The version of HTTP in which it does a work: nchan has no HTTP/3, and does it over HTTP/2.
    pub(crate) fn version_for(self, work: &Work) -> &'static str {
        match (self, work.http) {
            (Self::Nchan, "3") => "2",
            (_, version) => version,
        }
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn start(self, work: &Work, site: &Site) -> anyhow::Result<Running> {
        let folder = site.folder.join(self.name());
        // What a run before left there.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let needs_app = work.kind == Kind::Proxy || matches!(self, Self::Caddy | Self::Pushpin);
        let [port, publish, app_port, plain] = ports()?;
        let app = if needs_app {
            // On the client's side: what is measured is the server.
            let cores = work.pinned.then_some(&*site.client_cores);
            let mut app = on_cores(cores, &site.seventh);
            app.args(["bench", "app", "--listen", &format!("127.0.0.1:{app_port}")]);
            let app = site.spawn(app)?;
            until_listening(app_port)?;
            Some(app)
        } else {
            None
        };
        let fill = |template: &str| {
            let workers = if work.pinned {
                site.cores / 2
            } else {
                site.cores
            };
            [
                ("{DIR}", folder.display().to_string()),
                ("{PORT}", port.to_string()),
                ("{PUBLISH}", publish.to_string()),
                ("{PLAIN}", plain.to_string()),
                ("{UPSTREAM}", format!("127.0.0.1:{app_port}")),
                ("{CERT}", site.cert.display().to_string()),
                ("{KEY}", site.key.display().to_string()),
                ("{SECRET}", SECRET.into()),
                ("{WORKERS}", workers.max(1).to_string()),
                ("{MODULES}", module().unwrap_or_default().display().to_string()),
                ("{HTTP3}", (work.http == "3").to_string()),
                ("{FLUSH}", match work.kind {
                    Kind::Proxy => String::new(),
                    _ => "flush_interval -1".into(),
                }),
                ("{TRANSPORT}", match work.kind {
                    // It replays from this one only.
                    Kind::Replay => format!(
                        "transport bolt {{\n path {}/updates.db\n size 8000\n cleanup_frequency 0.3\n }}",
                        folder.display()
                    ),
                    _ => "transport local".into(),
                }),
            ]
            .iter()
            .fold(template.to_owned(), |text, (gap, value)| text.replace(gap, value))
        };
        let write = |name: &str, template: &str| -> anyhow::Result<String> {
            let path = folder.join(name);
            fs::write(&path, fill(template))?;
            Ok(path.display().to_string())
        };
        let program = fs::canonicalize(self.program())?;
        let cores = work.pinned.then_some(&*site.server_cores);
        let mut command = on_cores(cores, &program);
        command.current_dir(&folder);
        match self {
            Self::Seventh => {
                command.args(["serve", "--https", &format!("127.0.0.1:{port}")]);
                command.args(["--control", &format!("127.0.0.1:{publish}")]);
                if needs_app {
                    command.args(["--upstream", &format!("http://127.0.0.1:{app_port}")]);
                }
                command.env("SEVENTH_TLS_CERT", &site.cert);
                command.env("SEVENTH_TLS_KEY", &site.key);
                command.env("SEVENTH_LIMITS_HTTP2_STREAMS", STREAMS);
            }
            Self::Nchan | Self::Nginx => {
                let template = match self {
                    Self::Nchan => include_str!("nchan.conf"),
                    _ => include_str!("nginx.conf"),
                };
                let config = write("nginx.conf", template)?;
                let log = folder.join("error.log");
                command.arg("-p").arg(&folder).arg("-e").arg(log);
                command.args(["-c", &config]);
            }
            Self::Mercure | Self::Caddy => {
                let template = match self {
                    Self::Mercure => include_str!("mercure.Caddyfile"),
                    _ => include_str!("caddy.Caddyfile"),
                };
                let config = write("Caddyfile", template)?;
                command.args(["run", "--config", &config, "--adapter", "caddyfile"]);
                command.env("XDG_DATA_HOME", &folder);
                command.env("XDG_CONFIG_HOME", &folder);
            }
            Self::Centrifugo => {
                let config = write("config.json", include_str!("centrifugo.json"))?;
                command.args(["-c", &config]);
            }
            Self::Pushpin => {
                for below in ["runner/certs", "run", "log"] {
                    fs::create_dir_all(folder.join(below))?;
                }
                let certs = folder.join("runner/certs");
                fs::copy(&site.cert, certs.join(format!("default_{port}.crt")))?;
                fs::copy(&site.key, certs.join(format!("default_{port}.key")))?;
                write("routes", "* {UPSTREAM}\n")?;
                let config = write("pushpin.conf", include_str!("pushpin.conf"))?;
                command.arg(format!("--config={config}"));
            }
        }
        let server = site.spawn(command)?;
        until_listening(port)?;
        Ok(Running {
            server,
            _app: app,
            bench: self.reached(port, publish, app_port)?,
        })
    }

    /// The options of `seventh bench` that reach it.
    fn reached(self, port: u16, publish: u16, app: u16) -> anyhow::Result<Vec<String>> {
        let url = format!("https://localhost:{port}");
        let plain = |port: u16| format!("http://127.0.0.1:{port}");
        let words = match self {
            Self::Caddy => vec![
                "--url".into(),
                format!("{url}/events/{{topic}}"),
                "--publish-url".into(),
                format!("{}/publish/{{topic}}", plain(app)),
            ],
            Self::Nginx => vec!["--url".into(), url],
            Self::Mercure => vec![
                "--preset".into(),
                "mercure".into(),
                "--url".into(),
                url,
                "--publish-header".into(),
                format!("authorization: Bearer {}", token()?),
            ],
            _ => {
                let mut words = vec![
                    "--preset".into(),
                    self.name().into(),
                    "--url".into(),
                    url,
                    "--publish-url".into(),
                    plain(publish),
                ];
                if self == Self::Centrifugo {
                    words.extend(["--publish-header".into(), format!("x-api-key: {SECRET}")]);
                }
                words
            }
        };
        Ok(words)
    }
}

/// Where nchan's module is.
fn module() -> Option<PathBuf> {
    let folder = PathBuf::from("/usr/lib/nginx/modules");
    folder
        .join("ngx_nchan_module.so")
        .exists()
        .then_some(folder)
}

/// A token with which Mercure lets one publish.
fn token() -> anyhow::Result<String> {
    let url = "https://localhost/.well-known/mercure";
    let now = clock::wall()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs();
    let claims = json!({
        "iss": "https://localhost",
        "aud": url,
        "sub": "urn:uuid:00000000-0000-4000-8000-000000000000",
        "jti": "urn:uuid:00000000-0000-4000-8000-000000000001",
        "client_id": "https://localhost",
        "iat": now,
        "exp": now + 86_400,
        "mercure": { "publish": ["*"] },
        "authorization_details": [{
            "type": "https://mercure.rocks/authorization-detail",
            "actions": ["publish"],
            "topics": [{ "match": "*" }],
        }],
    });
    let header = Header {
        typ: Some("at+jwt".into()),
        ..Header::new(Algorithm::HS256)
    };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    Ok(jsonwebtoken::encode(&header, &claims, &key)?)
}

/// Ports that are free now.
fn ports() -> anyhow::Result<[u16; 4]> {
    let mut listeners = Vec::new();
    let mut ports = [0; 4];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// A program on these cores only, or on all.
pub(crate) fn on_cores(cores: Option<&str>, program: &Path) -> Command {
    let Some(cores) = cores else {
        return Command::new(program);
    };
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command
}

fn until_listening(port: u16) -> anyhow::Result<()> {
    let begun = clock::now();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while begun.elapsed() < START {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("nobody listens on port {port} after {} s", START.as_secs())
}
