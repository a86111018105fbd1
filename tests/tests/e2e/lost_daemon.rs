//! A daemon that died, or that does not answer, is told by every verb that needs it.

use std::fs;

use cairnfs_tests::Home;

/// Whatever was not saved when a daemon died is lost, and `status` does not call that safe.
#[test]
fn a_mount_whose_daemon_died_is_not_safe() {
    // A dead mount does not tell of which home it was: no other test has a bucket of this name.
    const BUCKET: &str = "mortal";
    let home = Home::new();
    home.create(BUCKET);
    let dir = home.dir("mnt");
    home.mount(BUCKET, &dir, &["--save", "interval:1h"]);
    fs::write(dir.join("f"), "never saved").unwrap();
    home.kill();
    let outcome = home.cairnfs(&["status", "--wait-safe"]).exits(9);
    assert!(outcome.stdout.starts_with("safe: no"), "{outcome}");
    let outcome = outcome.says(&[BUCKET, "its daemon died", "lost"]);
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    let json = home.cairnfs(&["status", BUCKET, "--wait-safe", "--json"]).exits(9).json();
    assert_eq!(json["safe"], false, "{json}");
    let bucket = &json["buckets"][0];
    assert_eq!(bucket["safe"], false, "{json}");
    assert_eq!(bucket["dead_mount"], true, "{json}");
    assert_eq!(bucket["health"], "failed", "{json}");
    assert!(bucket["health_reason"].is_string(), "{json}");
    // Whoever was told of it goes on.
    home.umount(&dir).ok();
    home.cairnfs(&["status", "--wait-safe"]).ok();
}
