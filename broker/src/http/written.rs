//! The body of an answer that a future writes piece by piece while it is sent.
//!
//! The future runs only while the HTTP library asks for more, which it does once the piece before is on its way: so a
//! client that reads nothing holds up the writer. It ends with the answer: dropped, it drops the future.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;

/// Where the future puts its pieces: one at a time.
pub(crate) type Pieces = mpsc::Sender<Bytes>;

/// See the module's head.
pub(crate) struct Written {
    writer: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pieces: mpsc::Receiver<Bytes>,
    /// Pieces that were [taken](Written::next), to be sent first.
    first: Option<Bytes>,
}

impl Written {
    /// A body that `write` writes.
    pub(crate) fn by<F>(write: impl FnOnce(Pieces) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, pieces) = mpsc::channel(1);
        Self { writer: Some(Box::pin(write(sender))), pieces, first: None }
    }

    /// The same with this before what is still to come.
    pub(crate) fn after(self, first: Bytes) -> Self {
        Self { first: Some(first), ..self }
    }

    /// The next piece; `None`: there are no more.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Poll::Ready(piece) = self.pieces.poll_recv(cx) {
            return Poll::Ready(piece);
        }
        if let Some(writer) = &mut self.writer
            && writer.as_mut().poll(cx).is_ready()
        {
            self.writer = None;
        }
        self.pieces.poll_recv(cx)
    }
}

impl HttpBody for Written {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = match self.first.take() {
            Some(first) => Some(first),
            None => ready!(self.poll_next(cx)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn pieces_come_in_their_order_and_then_the_end() {
        let write = async |pieces: Pieces| {
            for piece in ["b", "c", "d"] {
                pieces.send(Bytes::from(piece)).await.expect("somebody reads");
                tokio::task::yield_now().await;
            }
        };
        let mut body = Written::by(move |pieces| Box::pin(async move { write(pieces).await }));
        assert_eq!(body.next().await.as_deref(), Some(&b"b"[..]));
        let all = body.after(Bytes::from("ab")).collect().await.expect("no errors").to_bytes();
        assert_eq!(all, "abcd");
    }

    #[tokio::test]
    async fn a_writer_waits_for_its_reader_and_ends_with_it() {
        let (done, ended) = tokio::sync::oneshot::channel::<()>();
        let mut body = Written::by(move |pieces| async move {
            let _done = done;
            while pieces.send(Bytes::from("x")).await.is_ok() {}
        });
        assert!(body.next().await.is_some());
        drop(body);
        assert!(ended.await.is_err(), "dropped with the body");
    }
}
