//! Shared bytes with their charge: it lives until the last reference to them is gone.
//!
//! Cost: one allocation; bytes of up to [`COPIED_MAX`] may be copied into it.

use std::sync::Arc;

use bytes::Bytes;

use crate::capacity::budget::{Account, Charge, Held, allocated};

/// Bytes that are charged until the last reference to them is gone.
struct Charged<T> {
    bytes: T,
    _charge: Charge,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Charged<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// What a shared buffer's owner takes besides itself: the count of its references and how it is dropped.
const COUNT_BYTES: usize = 2 * size_of::<usize>();

/// Shares `bytes`, whose buffer has room for `capacity`, and charges them until the last reference is gone. `more` is
/// what lives as long besides.
#[must_use]
pub fn shared<T>(bytes: T, capacity: usize, more: u64, account: &Arc<Account>, held: Held) -> Bytes
where
    T: AsRef<[u8]> + Send + 'static,
{
    let owner = allocated(COUNT_BYTES + size_of::<Charged<T>>());
    let charge = Charge::new(account, held, allocated(capacity) + owner + more);
    Bytes::from_owner(Charged { bytes, _charge: charge })
}

/// A copy of few bytes with their charge, in one allocation.
struct Inline<const N: usize> {
    _charge: Charge,
    len: u16,
    bytes: [u8; N],
}

impl<const N: usize> Inline<N> {
    fn share(head: &[u8], body: &[u8], charge: Charge) -> Bytes {
        let len = head.len() + body.len();
        let mut bytes = [0; N];
        bytes[..head.len()].copy_from_slice(head);
        bytes[head.len()..len].copy_from_slice(body);
        Bytes::from_owner(Self { _charge: charge, len: len as u16, bytes })
    }
}

impl<const N: usize> AsRef<[u8]> for Inline<N> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What an [`Inline`] takes besides its bytes.
const INLINE_BYTES: usize = COUNT_BYTES + size_of::<Charge>() + size_of::<u16>();

/// Up to so many bytes it costs less to copy them than to allocate an owner for them.
pub const COPIED_MAX: usize = 320 - INLINE_BYTES;

/// What [`shared_copy`] takes for `bytes` bytes, at most [`COPIED_MAX`].
#[must_use]
pub fn copied(bytes: usize) -> u64 {
    allocated(INLINE_BYTES + bytes)
}

/// Shares a copy of `head` and, behind it, `body`: together at most [`COPIED_MAX`] bytes. They are charged until the last
/// reference is gone, with `more`, which lives as long. One allocation.
#[must_use]
pub fn shared_copy(head: &[u8], body: &[u8], more: u64, account: &Arc<Account>, held: Held) -> Bytes {
    let len = head.len() + body.len();
    let charge = Charge::new(account, held, copied(len) + more);
    macro_rules! in_class {
        ($($bytes:literal)+) => {
            match len {
                $(len if len <= $bytes - INLINE_BYTES => Inline::<{ $bytes - INLINE_BYTES }>::share(head, body, charge),)+
                _ => unreachable!("longer than COPIED_MAX"),
            }
        };
    }
    in_class!(48 64 80 96 112 128 160 192 224 256 320)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::budget::Budget;

    #[test]
    fn shared_bytes_are_charged_until_the_last_reference_is_gone() {
        let budget = Budget::new(1, 1000);
        let bytes = shared(vec![1; 100], 100, 7, budget.of_shard(0), Held::Messages);
        let charged = budget.used();
        assert!(charged >= 100 + 7);
        let part = bytes.slice(50..60);
        drop(bytes);
        assert_eq!(budget.used(), charged);
        std::thread::spawn(move || drop(part)).join().unwrap();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_copy_holds_both_parts_in_one_allocation_and_is_charged_for_that() {
        let budget = Budget::new(1, 1 << 20);
        for len in 0..=COPIED_MAX {
            let all: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let (head, body) = all.split_at(len.min(4));
            let copy = shared_copy(head, body, 5, budget.of_shard(0), Held::Messages);
            assert_eq!(copy, all);
            assert_eq!(budget.used(), allocated(INLINE_BYTES + len) + 5, "{len}");
            drop(copy);
            assert_eq!(budget.used(), 0);
        }
    }
}
