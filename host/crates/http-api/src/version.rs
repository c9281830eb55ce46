//! Which version of HTTP a connection speaks, by its first bytes.

use std::time::Duration;

use tokio::net::TcpStream;

/// What HTTP/2 begins with. No method of HTTP/1 does.
const PREFACE: &[u8] = b"PRI ";

/// How long to wait before looking again whether more has come.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Whether it is HTTP/2; `None` if nothing says so in time.
pub(crate) async fn is_http2(stream: &TcpStream, patience: Duration) -> Option<bool> {
    let look = async {
        let mut bytes = [0; PREFACE.len()];
        loop {
            let seen = stream.peek(&mut bytes).await.ok()?;
            let begin = bytes.get(..seen).filter(|begin| !begin.is_empty())?;
            if !PREFACE.starts_with(begin) {
                return Some(false);
            }
            if begin.len() == PREFACE.len() {
                return Some(true);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(patience, look).await.ok().flatten()
}
