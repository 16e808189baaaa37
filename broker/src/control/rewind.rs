//! A socket that was read from before: first the bytes that were read, then what the socket still brings.
//!
//! Not responsible for what the bytes mean. Costs nothing once the early bytes are consumed; they are
//! copied once, into the reader's buffer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module's head.
#[derive(Debug)]
pub(super) struct Rewind<S> {
    early: Bytes,
    socket: S,
}

impl<S> Rewind<S> {
    /// `early` arrived before whatever `socket` brings from now on.
    pub(super) fn new(socket: S, early: Bytes) -> Self {
        Self { early, socket }
    }

    /// The socket, and the early bytes nobody read.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.socket, self.early)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let len = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..len]);
        self.early.advance(len);
        if self.early.is_empty() {
            self.early = Bytes::new(); // gives the memory back
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn early_bytes_come_first_whatever_the_buffer() {
        for buffer in 1..9 {
            let (socket, mut peer) = duplex(64);
            peer.write_all(b"later").await.unwrap();
            drop(peer);
            let mut rewind = Rewind::new(socket, Bytes::from_static(b"early, "));
            let (mut all, mut some) = (Vec::new(), vec![0; buffer]);
            loop {
                let n = rewind.read(&mut some).await.unwrap();
                if n == 0 {
                    break;
                }
                all.extend_from_slice(&some[..n]);
            }
            assert_eq!(all, b"early, later");
        }
    }

    #[tokio::test]
    async fn parts_keep_what_was_not_read_and_writes_pass() {
        let (socket, mut peer) = duplex(64);
        let mut rewind = Rewind::new(socket, Bytes::from_static(b"abc"));
        assert_eq!(rewind.read_u8().await.unwrap(), b'a');
        rewind.write_all(b"hello").await.unwrap();
        let (_socket, early) = rewind.into_parts();
        assert_eq!(&early[..], b"bc");
        let mut got = [0; 5];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
    }
}
