//! Lines of bounded length and bounded duration from a client that may mean no good.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

/// Reads one request line after the other.
pub(super) struct Lines<R> {
    stream: R,
    pending: Vec<u8>,
    /// The octets of `pending` that are known to hold no newline.
    searched: usize,
    max: usize,
}

/// Why there is no further line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    /// The client left, or the socket failed.
    Closed,
    /// The client left in the middle of a line.
    Half,
    /// The line is longer than allowed.
    TooLarge,
    /// The line began and did not end in time.
    TooSlow,
    /// No line began in time.
    Idle,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of at most `max` octets, the newline included.
    pub(super) fn new(stream: R, max: usize) -> Self {
        Self { stream, pending: Vec::new(), searched: 0, max }
    }

    /// The next line without its newline: it must begin within `idle`, and end within `whole` of
    /// its beginning.
    pub(super) async fn next(
        &mut self,
        idle: Duration,
        whole: Duration,
    ) -> Result<Vec<u8>, LineError> {
        let mut begun = !self.pending.is_empty();
        let mut deadline = Instant::now() + if begun { whole } else { idle };
        loop {
            if let Some(line) = self.take_line()? {
                return Ok(line);
            }
            let mut chunk = [0; 8192];
            let read = timeout_at(deadline, self.stream.read(&mut chunk)).await;
            match read {
                Err(_) if begun => return Err(LineError::TooSlow),
                Err(_) => return Err(LineError::Idle),
                Ok(Ok(0) | Err(_)) if begun => return Err(LineError::Half),
                Ok(Ok(0) | Err(_)) => return Err(LineError::Closed),
                Ok(Ok(count)) => self.pending.extend_from_slice(&chunk[..count]),
            }
            if !begun {
                begun = true;
                deadline = Instant::now() + whole;
            }
        }
    }

    /// Returns when the client has left; what it still sends is thrown away.
    pub(super) async fn left(&mut self) {
        let mut chunk = [0; 1024];
        while let Ok(1..) = self.stream.read(&mut chunk).await {}
    }

    fn take_line(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        let unseen = &self.pending[self.searched..];
        let end = unseen.iter().position(|octet| *octet == b'\n').map(|at| at + self.searched);
        match end {
            Some(end) if end >= self.max => Err(LineError::TooLarge),
            None if self.pending.len() >= self.max => Err(LineError::TooLarge),
            None => {
                self.searched = self.pending.len();
                Ok(None)
            }
            Some(end) => {
                let rest = self.pending.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.pop();
                self.searched = 0;
                Ok(Some(line))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn lines_and_their_ends() {
        // (what, what the client sends before it leaves, the lines, why it ends)
        let cases: &[(&str, &str, &[&str], LineError)] = &[
            ("nothing", "", &[], LineError::Closed),
            ("one", "a\n", &["a"], LineError::Closed),
            ("two at once", "a\nbc\n", &["a", "bc"], LineError::Closed),
            ("empty lines", "\n\n", &["", ""], LineError::Closed),
            ("half a line", "a\nb", &["a"], LineError::Half),
            ("as long as allowed", "1234567\n", &["1234567"], LineError::Closed),
            ("one octet too long", "12345678\n", &[], LineError::TooLarge),
            ("too long, no end", "123456789", &[], LineError::TooLarge),
        ];
        for (what, sent, want, end) in cases {
            let (mut theirs, ours) = tokio::io::duplex(64);
            theirs.write_all(sent.as_bytes()).await.unwrap();
            drop(theirs);
            let mut lines = Lines::new(ours, 8);
            for want in *want {
                let line = lines.next(LONG, LONG).await.unwrap();
                assert_eq!(line, want.as_bytes(), "{what}");
            }
            assert_eq!(lines.next(LONG, LONG).await, Err(*end), "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_must_begin_and_end_in_time() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        let mut lines = Lines::new(ours, 64);
        let (idle, whole) = (Duration::from_secs(60), Duration::from_secs(5));
        let start = Instant::now();
        assert_eq!(lines.next(idle, whole).await, Err(LineError::Idle));
        assert_eq!(start.elapsed(), idle);
        theirs.write_all(b"half").await.unwrap();
        let start = Instant::now();
        assert_eq!(lines.next(idle, whole).await, Err(LineError::TooSlow));
        assert_eq!(start.elapsed(), whole);
    }
}
