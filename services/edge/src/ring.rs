//! Sends to many sockets with one system call: io_uring(7).
//!
//! One send() of a small message costs some 7 µs here, of which a tenth or more is the system call's own way in and out and
//! the look-up of the socket. A shard that has a message for each of a thousand readers pays that a thousand times; handed
//! to the kernel in one submission it is paid once for each batch (`benches/RESULTS.md` has both in one run).
//!
//! Containers often forbid io_uring (seccomp, `kernel.io_uring_disabled`): [`Ring::open`] tells, and the shard writes to its
//! sockets one by one.

use std::io;
use std::os::fd::BorrowedFd;

/// Sends of one submission, at most. The cost of the call is spread thin by then, and their buffers still fit the cache.
pub(crate) const BATCH: usize = 64;

/// A submission queue for sends. It belongs to the thread that opened it.
#[cfg(target_os = "linux")]
pub(crate) struct Ring(io_uring::IoUring);

#[cfg(target_os = "linux")]
impl Ring {
    /// A ring, or why the kernel gives none.
    pub(crate) fn open() -> io::Result<Self> {
        let mut builder = io_uring::IoUring::builder();
        // One thread submits and takes completions, when it asks for them: no locks, no interrupts. Since Linux 6.1; on an
        // older one a plain ring does the same work for a little more.
        builder.setup_single_issuer().setup_defer_taskrun();
        let ring = builder.build(BATCH as u32).or_else(|_| io_uring::IoUring::new(BATCH as u32))?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        match probe.is_supported(io_uring::opcode::Send::CODE) {
            true => Ok(Self(ring)),
            false => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel's io_uring has no send (Linux 5.6 has)"))
            }
        }
    }

    /// Sends each job's bytes to its socket, once and without waiting for room, and gives how each went, in their order. At
    /// most [`BATCH`] jobs.
    pub(crate) fn send(&mut self, jobs: &[(BorrowedFd<'_>, &[u8])], results: &mut Vec<io::Result<usize>>) {
        use std::os::fd::AsRawFd as _;

        debug_assert!(jobs.len() <= BATCH, "more than a submission holds");
        results.clear();
        let mut queue = self.0.submission();
        for (at, (socket, bytes)) in jobs.iter().enumerate() {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let send = io_uring::opcode::Send::new(io_uring::types::Fd(socket.as_raw_fd()), bytes.as_ptr(), length)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .user_data(at as u64);
            // SAFETY: the kernel reads `bytes`, which this call borrows until it returns, and it returns only when every
            // send that was submitted has completed (below).
            #[allow(
                unsafe_code,
                reason = "one submission for a batch costs less than as many system calls: RESULTS.md"
            )]
            let pushed = unsafe { queue.push(&send) };
            pushed.expect("the queue was empty and has room for a batch");
            // Overwritten by the completion.
            results.push(Err(io::ErrorKind::Interrupted.into()));
        }
        drop(queue);
        let mut left = jobs.len();
        while left > 0 {
            // A send that must not wait is done when the call returns; `left` is waited for all the same, so that none is
            // ever under way when the buffers go.
            match self.0.submit_and_wait(left) {
                Ok(_) => {}
                // Nothing is lost: what was not submitted is still in the queue.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(e) => {
                    // The kernel answers so only to calls that this one is not: of another thread, or on no ring. To go on
                    // would leave it reading buffers that are used again.
                    tracing::error!(error = %e, "io_uring does not answer");
                    std::process::abort();
                }
            }
            for done in self.0.completion() {
                let result = match done.result() {
                    n @ 0.. => Ok(n as usize),
                    error => Err(io::Error::from_raw_os_error(-error)),
                };
                if let Some(place) = results.get_mut(done.user_data() as usize) {
                    *place = result;
                    left -= 1;
                }
            }
        }
    }
}

/// There is none on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) enum Ring {}

#[cfg(not(target_os = "linux"))]
impl Ring {
    pub(crate) fn open() -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring is Linux's"))
    }

    pub(crate) fn send(&mut self, _: &[(BorrowedFd<'_>, &[u8])], _: &mut Vec<io::Result<usize>>) {
        match *self {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use super::*;

    /// Sockets that are connected to each other: ours, theirs.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let theirs = TcpStream::connect(listener.local_addr().expect("bound")).expect("listens");
        let (ours, _) = listener.accept().expect("connects");
        ours.set_nonblocking(true).expect("a socket");
        (ours, theirs)
    }

    #[test]
    fn a_batch_reaches_each_of_its_sockets_and_tells_how_each_send_went() {
        // Where the kernel forbids it the shards write one by one, and other tests see to that.
        let Ok(mut ring) = Ring::open() else { return };
        let mut pairs: Vec<_> = (0..BATCH - 2).map(|_| pair()).collect();
        let (full, _kept) = pair();
        while io::Write::write(&mut &full, &[0; 65_536]).is_ok() {}
        let (gone, theirs) = pair();
        drop(theirs);
        // The first send to a closed socket is answered with a reset; the second fails.
        while io::Write::write(&mut &gone, b"x").is_ok() {}
        let texts: Vec<String> = (0..pairs.len()).map(|i| format!("message {i}")).collect();
        let mut results = Vec::new();
        for _ in 0..3 {
            let jobs = pairs.iter().zip(&texts).map(|((ours, _), text)| (ours.as_fd(), text.as_bytes()));
            let bad = [(full.as_fd(), &b"no room"[..]), (gone.as_fd(), &b"nobody"[..])];
            ring.send(&jobs.chain(bad).collect::<Vec<_>>(), &mut results);
            assert_eq!(results.len(), BATCH);
            for (result, text) in results.iter().zip(&texts) {
                assert_eq!(*result.as_ref().expect("sent"), text.len());
            }
            let kind = |at: usize| results[at].as_ref().expect_err("not sent").kind();
            assert_eq!(kind(BATCH - 2), io::ErrorKind::WouldBlock);
            assert_eq!(kind(BATCH - 1), io::ErrorKind::BrokenPipe);
        }
        for ((_, theirs), text) in pairs.iter_mut().zip(&texts) {
            let mut got = vec![0; 3 * text.len()];
            theirs.read_exact(&mut got).expect("all of it comes");
            assert_eq!(got, text.repeat(3).as_bytes());
        }
    }
}
