//! Devices that were put back to an older state and cannot go on from there.

use cairnfs_store::BlobId;

use super::{sync, two};
use crate::{Error, MergeStep, Result, Role};

#[track_caller]
fn is_refused(pulled: &Result<MergeStep>) {
    let says =
        |why: &str| why.contains("put back") && why.contains("'cairnfs rejoin NAME --force'");
    assert!(matches!(pulled, Err(Error::Rejected { why }) if says(why)), "{pulled:?}");
}

#[test]
fn who_merged_others_changes_since_the_backup_is_refused_and_nothing_is_lost() {
    let (mut a, b) = two();
    let c = a.invite(Role::Writer);
    sync(&a, &b);
    let backup = a.backup();
    a.write("first", "1");
    sync(&a, &b);
    a.put_back(backup);
    a.write("second", "2");
    // Which knows nothing of what the backup lacks.
    c.write("third", "3");
    sync(&a, &c);
    let (at_a, at_b) = (a.tree(), b.tree());
    is_refused(&a.pull(&b));
    assert_eq!(a.tree(), at_a);
    a.write("fourth", "4");
    is_refused(&a.pull(&b));
    // Not from whoever merged it either.
    for other in [&a, &c] {
        let pulled = b.pull(other);
        let says = |why: &str| why.contains("used for two different changes");
        assert!(matches!(&pulled, Err(Error::Rejected { why }) if says(why)), "{pulled:?}");
        assert_eq!(b.tree(), at_b);
    }
}

#[test]
fn what_was_done_on_top_of_what_was_forgotten_is_not_taken_for_known() {
    let (mut a, b) = two();
    let c = a.invite(Role::Writer);
    sync(&a, &b);
    let backup = a.backup();
    a.write("first", "1");
    sync(&a, &b);
    a.put_back(backup);
    // Its next operation is later than all that it has forgotten.
    for n in 0..4 {
        c.write("third", &n.to_string());
        c.mount().publish().unwrap();
    }
    sync(&a, &c);
    a.write("second", "2");
    let at_b = b.tree();
    assert_eq!(b.pull(&a).unwrap(), MergeStep::Forgotten);
    assert_eq!(b.tree(), at_b);
}

#[test]
fn who_has_given_up_the_version_where_it_and_the_others_parted_is_refused() {
    let (a, mut b) = two();
    b.write("one", "1");
    sync(&a, &b);
    let backup = b.backup();
    for n in 0..4 {
        b.write("later", &n.to_string());
        b.mount().publish().unwrap();
    }
    sync(&a, &b);
    b.put_back(backup);
    // From a version that is not here any more.
    b.forge(|_, version| version.parents = vec![BlobId([7; 32])]);
    b.write("anew", "2");
    b.mount().publish().unwrap();
    let (at_a, at_b) = (a.tree(), b.tree());
    is_refused(&b.pull(&a));
    assert_eq!(b.tree(), at_b);
    drop(a.pull(&b));
    assert_eq!(a.tree(), at_a);
}
