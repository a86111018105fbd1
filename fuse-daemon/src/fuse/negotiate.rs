//! What the kernel and this daemon agree on when a mount begins.

use std::{io, time::Duration};

use fuser::{InitFlags, KernelConfig};

/// How long the kernel may believe what it was told.
pub(super) const TTL: Duration = Duration::from_secs(3600);

/// The largest write in one request; more pages than this the kernel does not put in one.
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// As much as the kernel reads ahead at most, if its own limit does not come first.
const READAHEAD_BYTES_MAX: u32 = 1 << 20;

/// What is asked of the kernel where it offers it. Not asked for, with the reason:
///
/// - writeback cache: the kernel would then have its own idea of lengths and times;
/// - atomic `O_TRUNC`: it would pass by the `setattr` in which set-id bits are cleared
///   ([`set_id`](super::set_id));
/// - no umask: the kernel applies it, which is right where there are no access control lists;
/// - POSIX and BSD locks: the kernel keeps them among its own processes, which are all there are.
const WANTED: InitFlags = InitFlags::FUSE_DO_READDIRPLUS
    .union(InitFlags::FUSE_READDIRPLUS_AUTO)
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_CACHE_SYMLINKS)
    .union(InitFlags::FUSE_HANDLE_KILLPRIV_V2)
    .union(InitFlags::FUSE_ASYNC_DIO);

/// Asks for what is wanted of what is offered.
pub(super) fn agree(config: &mut KernelConfig) -> io::Result<()> {
    let refused = |what| move |bound| io::Error::other(format!("{what}: fuser takes {bound}"));
    config
        .add_capabilities(WANTED & config.capabilities())
        .map_err(|missing| io::Error::other(format!("capabilities {missing:?} are not offered")))?;
    config.set_max_write(WRITE_BYTES_MAX).map_err(refused("bytes in a write"))?;
    // The kernel offers its own limit, which may be lower and then stays.
    if let Err(offered) = config.set_max_readahead(READAHEAD_BYTES_MAX) {
        log::debug!("readahead bytes_max={offered}");
    }
    Ok(())
}
