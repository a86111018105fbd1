//! The cairnfs command: FUSE, command line, sockets, signals.

fn main() {}
