//! What a save costs, and what it buys.

fn main() {}
