//! Concurrent facts in, one tree out: merging of file trees without I/O.
