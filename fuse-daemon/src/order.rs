//! The places of this program's locks in the order of all; those of mount-core have higher ranks.

use cairnfs_store::order::LAST;
pub(crate) use cairnfs_store::order::{Condvar, Mutex, RwLock};

cairnfs_store::places! {
    /// Never held while a bucket is opened, saved or unmounted.
    Mounts = 0, "the table of mounts";
    /// Held while contacts and connections are brought in line with who is a member, which takes all
    /// that follow.
    Contacts = 1, "who is a contact";
    /// Held while the thread that accepts is started, which the roster counts.
    Listening = 2, "the listening socket";
    /// Held while discovery is started, which looks whether all ends.
    Responder = 3, "the responder of discovery";
    /// Held while the buckets on it are brought in line with what is on the roster and its members.
    Offers = 4, "a connection's table of offers";
    /// Not taken while one of the next two is held.
    Roster = 5, "the roster";
    /// Held while a bucket is used, which takes the locks of mount-core.
    Offered = 6, "an offered bucket";
    Desk = 7, "a bucket's desk";
    Sending = LAST - 2, "the sending end of a connection";
    Tls = LAST - 1, "a connection's cipher";
    Asked = LAST, "the requests of a connection";
    Ended = LAST, "why a connection has ended";
    Heard = LAST, "when a connection was heard of";
    Whereabouts = LAST, "what a connection said of addresses";
    Outbox = LAST, "an outbox";
    Door = LAST, "the door";
    News = LAST, "the news";
    Invites = LAST, "the invitations";
    Addresses = LAST, "the addresses of peers";
    Arrivals = LAST, "the buckets that are being joined";
    Discovered = LAST, "who was discovered";
    Seats = LAST, "the verbs that are served";
    End = LAST, "the end of a mount";
    /// Held while a bucket's file of remarks is changed, which asks what is lost.
    Remarks = LAST - 1, "the remarks on buckets";
    Losses = LAST, "what mounts that ended have lost";
    NotMounted = LAST, "what could not be mounted at start";
    Outdated = LAST, "what the kernel has not heard";
}
