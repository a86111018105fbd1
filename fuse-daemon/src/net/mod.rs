//! Peers: finding them, talking to them, fetching what they have and giving what they lack.

// What is below has its callers in the commits that follow.
#![allow(dead_code, unused_imports, reason = "the verbs come with a later commit")]

mod report;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use cairnfs_mount_core::{BucketId, Mount, Protection, Role};
use cairnfs_store::DeviceKey;

pub(crate) use self::report::{
    Invite, JoinProgress, PeerReport, SyncOutcome, SyncProgress, Transfer,
};
use crate::{
    exit::{Code, Failure, Result},
    home::{BucketName, Home},
};

/// How this device is to be reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct NetOptions {
    /// Where to listen; none for the port of last time, or any.
    pub(crate) listen: Option<SocketAddr>,
    /// Whether to look for peers on the local network, and to be found there.
    pub(crate) discovery: bool,
    /// What this device is called, as other members are told.
    pub(crate) device_name: String,
}

/// All that has to do with peers.
#[derive(Debug)]
pub(crate) struct Net {
    home: Home,
    device: Arc<DeviceKey>,
    options: NetOptions,
}

/// A bucket that this device has just become a member of, but that is not here yet.
#[derive(Debug)]
pub(crate) struct Joining {
    bucket: BucketId,
    suggested: String,
}

fn unfinished<T>() -> Result<T> {
    Err(Failure::new(Code::Failed, "not yet"))
}

impl Net {
    /// Starts what is needed.
    ///
    /// # Errors
    ///
    /// [`Code::InUse`] if the address that was asked for is taken.
    pub(crate) fn start(
        home: &Home,
        device: Arc<DeviceKey>,
        options: NetOptions,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { home: home.clone(), device, options }))
    }

    /// Ends all threads and connections.
    pub(crate) fn stop(&self) {}

    /// Where it listens, if it does.
    pub(crate) fn listening(&self) -> Option<SocketAddr> {
        None
    }

    /// Offers `bucket` to its members from now on, and fetches what they have.
    pub(crate) fn serve(&self, _bucket: &BucketName, _mount: &Mount) {}

    /// Undoes [`Net::serve`]; to be called before `Mount::stop`. When this returns, nothing here
    /// uses the mount any more.
    pub(crate) fn withdraw(&self, _bucket: &BucketName) {}

    /// Makes an invitation to a bucket that is served.
    ///
    /// # Errors
    ///
    /// [`Code::NotFound`] if it is not served; [`Code::Failed`] if this device may not invite.
    pub(crate) fn invite(
        &self,
        _bucket: &BucketName,
        _role: Role,
        _lifetime: Duration,
        _uses: u32,
    ) -> Result<Invite> {
        unfinished()
    }

    /// Presents a ticket to the device that made it: afterwards this device is a member. What
    /// remains is to choose a name and to [`Net::finish_join`]. `say` returns whether to go on.
    ///
    /// # Errors
    ///
    /// [`Code::WrongKey`] for a ticket that is mistyped, expired, used up, or made by another
    /// device; [`Code::NoPeer`] if that device cannot be reached.
    pub(crate) fn join(
        &self,
        _ticket: &str,
        _say: &mut dyn FnMut(JoinProgress) -> bool,
    ) -> Result<Joining> {
        unfinished()
    }

    /// Makes the bucket as `name`, fetches its first version, and closes it again. The caller
    /// holds the place of `name` in the daemon's table. When this was cut off, the bucket is
    /// there and gets its first version whenever it is served next.
    ///
    /// # Errors
    ///
    /// [`Code::NoPeer`] if the device that invited is gone; as `Bucket::join`.
    pub(crate) fn finish_join(
        &self,
        _joining: Joining,
        _name: &BucketName,
        _protection: Protection<'_>,
        _say: &mut dyn FnMut(JoinProgress) -> bool,
    ) -> Result<()> {
        unfinished()
    }

    /// All devices that share a served bucket, connected or not.
    pub(crate) fn peers(&self) -> Vec<PeerReport> {
        Vec::new()
    }

    /// Publishes what was changed here, then waits until everything that was published here and
    /// there has met, for the peers that can be reached.
    ///
    /// # Errors
    ///
    /// [`Code::NoPeer`] if none can be reached; [`Code::NotFound`] if the bucket is not served;
    /// [`Code::Failed`] after `deadline`.
    pub(crate) fn sync(
        &self,
        _bucket: Option<&BucketName>,
        _deadline: Option<Instant>,
        _say: &mut dyn FnMut(SyncProgress) -> bool,
    ) -> Result<SyncOutcome> {
        unfinished()
    }
}

impl Joining {
    /// The bucket.
    pub(crate) fn bucket(&self) -> BucketId {
        self.bucket
    }

    /// What the device that invited calls it.
    pub(crate) fn suggested(&self) -> Option<BucketName> {
        self.suggested.parse().ok()
    }
}
