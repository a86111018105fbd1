//! What a person wants to see of a long random load that fails: the part of it that is needed.

/// Drops from `load` whatever `fails` does not need, until no single element can go: long runs first,
/// then shorter ones (after ddmin; Zeller and Hildebrandt, IEEE TSE 28(2), 2002).
///
/// `load` itself is taken to fail. Calls `fails` some `n log n` times for `n` elements.
pub fn shrink<T: Clone>(load: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut load = load.to_vec();
    let mut run = load.len();
    while run > 0 {
        let (mut at, mut shrunk) = (0, false);
        while at < load.len() {
            let mut rest = load.clone();
            rest.drain(at..(at + run).min(load.len()));
            if fails(&rest) {
                load = rest;
                shrunk = true;
            } else {
                at += run;
            }
        }
        if !shrunk {
            run /= 2;
        }
    }
    load
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        let load: Vec<u32> = (0..100).collect();
        let needs = |needed: &'static [u32]| {
            move |load: &[u32]| needed.iter().all(|one| load.contains(one))
        };
        for needed in [&[][..], &[0], &[99], &[3, 70], &[7, 8, 9], &[0, 31, 64, 99]] {
            assert_eq!(shrink(&load, needs(needed)), needed);
        }
    }

    #[test]
    fn of_a_load_of_which_all_is_needed_nothing_goes() {
        let mut tries = 0;
        let all = shrink(&[5; 64], |load| {
            tries += 1;
            load.len() == 64
        });
        assert_eq!(all.len(), 64);
        assert!(tries < 64 * 2 + 7, "{tries}");
    }
}
