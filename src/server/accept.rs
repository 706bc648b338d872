//! Who comes in: each connection is accepted, counted and looked at before a byte of it is read.
//!
//! ```text
//! accept ─▶ a place? ─▶ Unix: who is it? ─────────────────────▶ first bytes in time? ─▶ HTTP/2
//!             │          │     TLS: handshake, beside the others ─▶     │
//!             └──────────┴───────────────┴──── closed, counted, told now and then
//! ```
//!
//! The loop waits for nobody: a handshake is a task of its own, and a system that has no descriptors left makes it
//! pause instead of spin.

use std::future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::metrics::{Counter, Gauge, Metrics};
use crate::telemetry::names::metric;

use super::Transport;

/// Whoever has not said in this time that it speaks HTTP/2 is cut.
const GREETING: Duration = Duration::from_secs(10);
/// The preface of HTTP/2 has so many bytes.
const PREFACE: usize = 24;
/// One line about those refused in this time, with how many there were.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Where the system has no room for another connection, it is asked again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It belongs to a user and group that may not ask.
    Peer,
    /// There are as many as there may be.
    Limit,
    /// No certificate, or one that the authorities did not sign, or no TLS at all.
    Handshake,
    /// A good certificate of somebody who may not ask.
    Identity,
    /// It said nothing for too long.
    Timeout,
}

/// Whose connections to the Unix socket are taken. Without any, the mode of the file decides alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Users.
    pub uids: Vec<u32>,
    /// Groups: the one that a process runs under, its supplementary groups are not looked at.
    pub gids: Vec<u32>,
}

/// What each listener asks of who comes.
#[derive(Debug)]
pub struct Door {
    transport: Transport,
    open: Gauge,
    most: usize,
    greeting: Duration,
    refused: [Counter; Refused::ALL.len()],
    told: Occasionally,
}

/// Something that happens often is told now and then.
#[derive(Debug, Default)]
pub(super) struct Occasionally {
    last: Option<Instant>,
    since: u64,
}

/// A place among the connections, until dropped.
#[derive(Debug)]
pub(super) struct Place(Gauge);

/// A connection that has a place for as long as it is open.
#[derive(Debug)]
pub struct Counted<C> {
    connection: C,
    /// Until it has greeted.
    silence: Option<Silence>,
    _place: Place,
}

#[derive(Debug)]
struct Silence {
    missing: usize,
    ends: Pin<Box<Sleep>>,
    cut: Counter,
}

// === impls ===

impl Refused {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Peer, Self::Limit, Self::Handshake, Self::Identity, Self::Timeout];

    /// The word in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Limit => "limit",
            Self::Handshake => "handshake",
            Self::Identity => "identity",
            Self::Timeout => "timeout",
        }
    }
}

impl Peers {
    /// Whether this user or this group may ask: either is enough.
    pub fn allow(&self, uid: u32, gid: u32) -> bool {
        self.are_all() || self.uids.contains(&uid) || self.gids.contains(&gid)
    }

    fn are_all(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }
}

impl Occasionally {
    /// How many there were since the last time, this one included, when it is time to tell.
    pub(super) fn now(&mut self) -> Option<u64> {
        self.since = self.since.saturating_add(1);
        if self.last.is_some_and(|last| last.elapsed() < TELL_EVERY) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.since))
    }
}

impl Door {
    /// For so many connections at a time.
    pub fn new(transport: Transport, most: usize, metrics: &Metrics) -> Self {
        let counter =
            |why: Refused| metrics.counter(&metric::CONNECTIONS_REFUSED, &[why.name(), transport.name()]);
        Self {
            transport,
            open: metrics.gauge(&metric::CONNECTIONS, &[transport.name()]),
            most,
            greeting: GREETING,
            refused: Refused::ALL.map(counter),
            told: Occasionally::default(),
        }
    }

    /// A place, if there is one. Only the loop of one listener asks, so that looking and taking need not be one step.
    fn place(&mut self) -> Option<Place> {
        if usize::try_from(self.open.get()).is_ok_and(|open| open >= self.most) {
            let most = self.most;
            self.refuse(Refused::Limit, &format_args!("{most} are open, which is `max-connections`"));
            return None;
        }
        self.open.inc();
        Some(Place(self.open.clone()))
    }

    pub(super) fn refuse(&mut self, why: Refused, who: &dyn std::fmt::Display) {
        if let Some(counter) = self.refused.get(why as usize) {
            counter.inc();
        }
        if let Some(count) = self.told.now() {
            let (transport, reason) = (self.transport.name(), why.name());
            tracing::warn!(transport, reason, count, "refused a connection: {who}");
        }
    }

    pub(super) fn admit<C>(&self, connection: C, place: Place) -> Counted<C> {
        let cut = self.refused.get(Refused::Timeout as usize).cloned().unwrap_or_default();
        let ends = Box::pin(tokio::time::sleep(self.greeting));
        let silence = Silence { missing: PREFACE, ends, cut };
        Counted { connection, silence: Some(silence), _place: place }
    }

    /// An accept that failed says nothing about the next one, but where there are no descriptors left it fails at once,
    /// again and again.
    async fn pause(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return;
        }
        if let Some(count) = self.told.now() {
            tracing::error!(transport = self.transport.name(), count, %error, "cannot accept connections");
        }
        tokio::time::sleep(PAUSE).await;
    }

    async fn accept_unix(&mut self, listener: &UnixListener, peers: &Peers) -> Counted<UnixStream> {
        loop {
            let connection = match listener.accept().await {
                Ok((connection, _)) => connection,
                Err(error) => {
                    self.pause(&error).await;
                    continue;
                }
            };
            if !peers.are_all()
                && let Some(who) = stranger(peers, &connection)
            {
                self.refuse(Refused::Peer, &who);
                continue;
            }
            if let Some(place) = self.place() {
                return self.admit(connection, place);
            }
        }
    }

    /// With its place, before anything is read or said.
    pub(super) async fn accept_tcp(&mut self, listener: &TcpListener) -> (TcpStream, SocketAddr, Place) {
        loop {
            match listener.accept().await {
                Ok((connection, peer)) => {
                    // Answers are small; one that waits for more to send only waits.
                    let _best_effort = connection.set_nodelay(true);
                    if let Some(place) = self.place() {
                        return (connection, peer, place);
                    }
                }
                Err(error) => self.pause(&error).await,
            }
        }
    }
}

/// Who it is, if it may not ask.
fn stranger(peers: &Peers, connection: &UnixStream) -> Option<String> {
    let peer = match connection.peer_cred() {
        Ok(peer) => peer,
        Err(error) => return Some(format!("the system does not say whose it is: {error}")),
    };
    if peers.allow(peer.uid(), peer.gid()) {
        return None;
    }
    let process = peer.pid().map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    Some(format!("uid {}, gid {}, pid {process}", peer.uid(), peer.gid()))
}

/// The connections of a Unix socket.
pub fn unix(
    listener: UnixListener,
    peers: Peers,
    door: Door,
) -> impl Stream<Item = io::Result<Counted<UnixStream>>> {
    stream::unfold((listener, peers, door), |(listener, peers, mut door)| async {
        let connection = door.accept_unix(&listener, &peers).await;
        Some((Ok(connection), (listener, peers, door)))
    })
}

/// The connections of a TCP listener.
pub fn tcp(listener: TcpListener, door: Door) -> impl Stream<Item = io::Result<Counted<TcpStream>>> {
    stream::unfold((listener, door), |(listener, mut door)| async {
        let (connection, _, place) = door.accept_tcp(&listener).await;
        Some((Ok(door.admit(connection, place)), (listener, door)))
    })
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl<C> Connected for Counted<C> {
    /// Nobody asks a request where it came from, so none carries it.
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.connection).poll_read(context, buffer);
        if let Some(silence) = &mut this.silence {
            silence.missing = silence.missing.saturating_sub(buffer.filled().len().saturating_sub(before));
            if silence.missing == 0 {
                this.silence = None;
            } else if read.is_pending() && future::Future::poll(silence.ends.as_mut(), context).is_ready() {
                silence.cut.inc();
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_user_or_a_group_is_enough() {
        let peers = Peers { uids: vec![1000], gids: vec![2000] };
        assert!(peers.allow(1000, 1) && peers.allow(1, 2000));
        assert!(!peers.allow(2000, 1000) && !peers.allow(0, 0));
        assert!(Peers::default().allow(7, 7));
    }

    #[test]
    fn a_flood_is_told_once_with_its_size() {
        let mut told = Occasionally::default();
        assert_eq!(told.now(), Some(1));
        assert_eq!([told.now(), told.now()], [None, None]);
        told.last = told.last.and_then(|last| last.checked_sub(TELL_EVERY));
        assert_eq!(told.now(), Some(3));
    }

    #[tokio::test]
    async fn who_says_nothing_is_cut_and_who_greets_is_not() {
        let metrics = Metrics::new("", "");
        let mut door = Door::new(Transport::Tcp, 2, &metrics);
        door.greeting = Duration::from_millis(50);
        let refused =
            |why: Refused| metrics.counter(&metric::CONNECTIONS_REFUSED, &[why.name(), "tcp"]).get();
        let place = || Place(Gauge::default());
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = door.admit(near, place());
        far.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        let mut read = [0; 64];
        assert_eq!(near.read(&mut read).await.unwrap(), 16);
        assert_eq!(near.read(&mut read).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(refused(Refused::Timeout), 1);

        let (mut far, near) = tokio::io::duplex(64);
        let mut near = door.admit(near, place());
        far.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        assert_eq!(near.read(&mut read).await.unwrap(), 24);
        assert!(near.silence.is_none(), "it may be silent now");
    }

    #[tokio::test]
    async fn there_are_as_many_as_may_be() {
        let metrics = Metrics::new("", "");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = std::pin::pin!(tcp(listener, Door::new(Transport::Tcp, 1, &metrics)));
        let _first = TcpStream::connect(address).await.unwrap();
        let first = incoming.next().await.unwrap().unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let turned_away = async {
            let mut byte = [0; 1];
            // Closed, or reset: there is nothing to read.
            assert_eq!(second.read(&mut byte).await.unwrap_or(0), 0);
        };
        tokio::select! {
            _ = incoming.next() => panic!("one is open"),
            () = turned_away => {}
        }
        let refused = metrics.counter(&metric::CONNECTIONS_REFUSED, &["limit", "tcp"]);
        assert_eq!(refused.get(), 1);
        drop(first);
        let _third = TcpStream::connect(address).await.unwrap();
        assert!(incoming.next().await.unwrap().is_ok());
        assert_eq!(
            metrics.gauge(&metric::CONNECTIONS, &["tcp"]).get(),
            0,
            "each is counted while it is open"
        );
    }
}
