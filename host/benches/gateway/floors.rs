//! What a gateway costs at the least on this machine: two programs that forward to the upstream and do nothing else. Each is
//! this program again, in a process of its own on the gateway's core.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{LocalSet, spawn_local};

/// The first argument of the program that is one.
const WORD: &str = "floor";

/// Their rows.
pub const FLOORS: &[&str] = &[RELAY, PROXY];
/// Copies bytes both ways, and knows of no HTTP.
const RELAY: &str = "floor: relay of bytes";
/// Reads and writes HTTP with the library that the gateway has, a connection to the upstream for each client's.
const PROXY: &str = "floor: bare HTTP proxy";

/// The command that is this one.
pub fn command(floor: &str, listen: SocketAddr, upstream: SocketAddr) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([WORD, floor]).args([listen, upstream].map(|address| address.to_string()));
    command
}

/// Serves for ever, if that is what this program was started for.
pub fn serve_if_asked() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [word, floor, listen, upstream] = words.as_slice() else { return };
    if word != WORD {
        return;
    }
    let [listen, upstream] = [listen, upstream].map(|address| address.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, serve(floor == PROXY, listen, upstream));
}

async fn serve(is_proxy: bool, listen: SocketAddr, upstream: SocketAddr) {
    let listener = TcpListener::bind(listen).await.unwrap();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        // Either ends when one of its sides does.
        spawn_local(async move {
            let server = TcpStream::connect(upstream).await.unwrap();
            server.set_nodelay(true).unwrap();
            if is_proxy { proxy(client, server).await } else { relay(client, server).await }
        });
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream) {
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
}

async fn proxy(client: TcpStream, server: TcpStream) {
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(server)).await.unwrap();
    spawn_local(connection);
    let sender = Rc::new(Mutex::new(sender));
    let service = service_fn(move |request: Request<Incoming>| {
        let sender = Rc::clone(&sender);
        async move {
            let mut sender = sender.lock().await;
            sender.ready().await.unwrap();
            let answer: Response<Incoming> = sender.send_request(request).await.unwrap();
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new();
    connection.serve_connection(TokioIo::new(client), service).await.ok();
}
