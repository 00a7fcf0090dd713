//! A wire between roles and a server that can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Passes bytes on to a server, until it is cut: then it swallows them, as a network does that has lost its way.
#[derive(Clone)]
pub(crate) struct Proxy {
    address: String,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// A wire to the server at `target`, on the server's own address and another port: clients of Cassandra take the
    /// address that a node tells them, and the port that they began with.
    pub(crate) fn to(target: String) -> Self {
        let (host, _) = target.rsplit_once(':').expect("host:port");
        let listener = TcpListener::bind(format!("{host}:0")).expect("a port");
        let proxy = Self {
            address: listener.local_addr().expect("an address").to_string(),
            cut: Arc::default(),
            open: Arc::default(),
        };
        let accepting = proxy.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else {
                    continue;
                };
                accepting.join(client, server);
            }
        });
        proxy
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// From now on nothing passes; connections stay open.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// New connections pass; the old ones, in which bytes were lost, are closed.
    pub(crate) fn mend(&self) {
        for stream in self.open.lock().expect("streams").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.cut.store(false, Ordering::SeqCst);
    }

    fn join(&self, client: TcpStream, server: TcpStream) {
        let pair = |a: &TcpStream, b: &TcpStream| {
            (a.try_clone().expect("a stream"), b.try_clone().expect("a stream"))
        };
        self.open.lock().expect("streams").extend([
            client.try_clone().expect("a stream"),
            server.try_clone().expect("a stream"),
        ]);
        for (from, to) in [pair(&client, &server), pair(&server, &client)] {
            let cut = Arc::clone(&self.cut);
            std::thread::spawn(move || pass(from, to, &cut));
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut buffer = vec![0_u8; 64 << 10];
    let _ = from.set_read_timeout(Some(Duration::from_secs(600)));
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if !cut.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
