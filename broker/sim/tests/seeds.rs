//! Some hundred seeds of the simulation, one of them twice. Thousands: `cargo run --release -p sim -- --seeds 5000`.

use sim::{Params, run};

fn pass(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err(failure) = run(&Params::from_seed(seed), false) {
            panic!("{failure}");
        }
    }
}

// Split, so that they run beside each other.

#[test]
fn seeds_0() {
    pass(0..75);
}

#[test]
fn seeds_75() {
    pass(75..150);
}

#[test]
fn seeds_150() {
    pass(150..225);
}

#[test]
fn seeds_225() {
    pass(225..300);
}

#[test]
fn a_seed_replays_to_the_last_byte() {
    for seed in [3, 11, 24] {
        let twice = [(); 2].map(|()| run(&Params::from_seed(seed), false).expect("a seed that passes"));
        assert_eq!(twice[0], twice[1], "seed {seed}");
    }
    let [one, other] = [3, 4].map(|seed| run(&Params::from_seed(seed), false).expect("a seed that passes").trace);
    assert_ne!(one, other, "the trace says something");
}
