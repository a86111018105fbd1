//! Seals, packs, logs and finds blobs, and keeps the ordered Merkle map.
