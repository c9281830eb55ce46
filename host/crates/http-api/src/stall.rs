//! A connection that gives up on a peer that has stopped reading.
//!
//! TCP lets a reader stop for ever: the sender's buffers fill and its writes wait. [`StallGuard`]
//! fails a write that has waited `limit` without one byte leaving, which ends the connection and
//! drops the answer it was writing. Any progress starts the wait anew. Reading is not its
//! business; heads and bodies have limits of their own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// `io` whose writes fail after `limit` without progress.
pub(crate) struct StallGuard<Io> {
    io: Io,
    limit: Duration,
    /// Made on the first wait: most connections never wait to write.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<Io> StallGuard<Io> {
    pub(crate) fn new(io: Io, limit: Duration) -> Self {
        Self { io, limit, timer: None, waiting: false }
    }

    /// Passes on what a write came to; counts how long it has been waiting.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.waiting {
            timer.as_mut().reset(Instant::now() + limit);
            self.waiting = true;
        }
        ready!(timer.as_mut().poll(cx));
        let message = "the client has stopped reading";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for StallGuard<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for StallGuard<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_reading_is_given_up_on() {
        let (ours, _theirs) = duplex(4);
        let began = Instant::now();
        let error = StallGuard::new(ours, LIMIT).write_all(b"more than four").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_is_not() {
        let (ours, mut theirs) = duplex(1);
        let reader = tokio::spawn(async move {
            let mut text = Vec::new();
            while text.len() < 10 {
                sleep(LIMIT / 2).await;
                text.push(theirs.read_u8().await?);
            }
            io::Result::Ok(text)
        });
        StallGuard::new(ours, LIMIT).write_all(b"0123456789").await.unwrap();
        assert_eq!(reader.await.unwrap().unwrap(), b"0123456789");
    }
}
