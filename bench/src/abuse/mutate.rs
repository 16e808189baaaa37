//! Random damage to valid bytes, reproducible from a seed.

use fastrand::Rng;

/// Changes one to four places: bits flipped, bytes replaced, inserted, removed or doubled, the end cut off.
pub(super) fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.usize(1..=4) {
        if bytes.is_empty() {
            bytes.push(rng.u8(..));
        }
        let at = rng.usize(..bytes.len());
        match rng.u8(..6) {
            0 => bytes[at] ^= 1 << rng.u8(..8),
            1 => bytes[at] = rng.u8(..),
            2 => bytes.insert(at, rng.u8(..)),
            3 => drop(bytes.remove(at)),
            4 => {
                let end = bytes.len().min(at + rng.usize(1..=32));
                bytes.extend_from_within(at..end);
            }
            _ => bytes.truncate(at),
        }
    }
}

/// Random bytes.
pub(super) fn garbage(rng: &mut Rng) -> Vec<u8> {
    (0..rng.usize(1..2000)).map(|_| rng.u8(..)).collect()
}

/// The ends of the pieces in which `len` bytes are sent: the last is `len`.
pub(super) fn ends(len: usize, rng: &mut Rng) -> Vec<usize> {
    let mut ends: Vec<_> = (0..rng.usize(..4)).map(|_| rng.usize(..=len)).collect();
    ends.push(len);
    ends.sort_unstable();
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays() {
        let run = |seed| {
            let (mut rng, mut bytes) = (Rng::with_seed(seed), b"GET / HTTP/1.1\r\n\r\n".to_vec());
            mutate(&mut bytes, &mut rng);
            let ends = ends(bytes.len(), &mut rng);
            assert_eq!(ends.last(), Some(&bytes.len()));
            (bytes, ends)
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
