//! The file system without FUSE: tree, open files, save policies, the writer thread.
