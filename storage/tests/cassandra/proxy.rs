//! A network between the driver and the server that loses a chosen message.
//!
//! It forwards frames of the CQL protocol (version 4: nine bytes of header, then a body) and cuts the connection at the
//! frame that it was told: a request before it reaches the server, or its answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use dwell_runtime::shutdown::{PhaseBounds, ShutdownController};
use dwell_runtime::tasks::{TaskPolicy, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// EXECUTE: a prepared statement is run.
const EXECUTE: u8 = 0x0A;
const HEADER_BYTES: usize = 9;

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The request: the server never sees it.
    Request,
    /// The answer: the server has done it.
    Answer,
}

#[derive(Debug, Default)]
struct Plan {
    next: Option<(Loss, usize)>,
    lost: usize,
}

/// A proxy before one server. It ends with its tasks.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    tasks: Tasks,
}

impl Proxy {
    /// A proxy before `host:port` on this machine.
    pub(crate) async fn before(server: &str) -> Self {
        // The driver goes where the server says it is, with the port it came to first: so the proxy lies at the same
        // address, on a port of its own.
        let (host, _) = server.rsplit_once(':').unwrap();
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let tasks = Tasks::new(ShutdownController::new(PhaseBounds::default()));
        let (server, shared, connections) = (server.to_owned(), Arc::clone(&plan), tasks.clone());
        tasks.spawn("proxy", TaskPolicy::Log, async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(upstream) = TcpStream::connect(&server).await else {
                    continue;
                };
                let plan = Arc::clone(&shared);
                connections.spawn("connection", TaskPolicy::Log, forward(client, upstream, plan));
            }
        });
        Self { address, plan, tasks }
    }

    /// Loses the request or the answer of a statement: of the next one after `skip` others.
    pub(crate) fn lose(&self, loss: Loss, skip: usize) {
        self.plan.lock().unwrap().next = Some((loss, skip));
    }

    /// How many messages were lost.
    pub(crate) fn lost(&self) -> usize {
        self.plan.lock().unwrap().lost
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

/// Forwards until either side ends or a message is to be lost; then both connections are cut.
async fn forward(client: TcpStream, server: TcpStream, plan: Arc<Mutex<Plan>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // The stream of the request whose answer is to be lost.
    let doomed: Mutex<Option<[u8; 2]>> = Mutex::new(None);
    let requests = async {
        while let Some(frame) = read_frame(&mut from_client).await {
            if frame[4] == EXECUTE {
                match plan.lock().unwrap().strikes() {
                    Some(Loss::Request) => return,
                    Some(Loss::Answer) => *doomed.lock().unwrap() = Some([frame[2], frame[3]]),
                    None => {}
                }
            }
            if to_server.write_all(&frame).await.is_err() {
                return;
            }
        }
    };
    let answers = async {
        while let Some(frame) = read_frame(&mut from_server).await {
            if *doomed.lock().unwrap() == Some([frame[2], frame[3]]) {
                return;
            }
            if to_client.write_all(&frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}

impl Plan {
    fn strikes(&mut self) -> Option<Loss> {
        let (loss, skip) = self.next.as_mut()?;
        match skip {
            0 => {
                let loss = *loss;
                self.next = None;
                self.lost += 1;
                Some(loss)
            }
            _ => {
                *skip -= 1;
                None
            }
        }
    }
}

async fn read_frame(from: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    from.read_exact(&mut frame).await.ok()?;
    let body = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]) as usize;
    frame.resize(HEADER_BYTES + body, 0);
    from.read_exact(&mut frame[HEADER_BYTES..]).await.ok()?;
    Some(frame)
}
