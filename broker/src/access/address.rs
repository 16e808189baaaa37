//! Who connects: how many connections each client address has, and whose word counts about it.
//!
//! Not responsible for when an address is asked for (`shard/transport/client_address.rs`) nor for how proxies write it down
//! ([`protocol::proxy`], [`protocol::head::forwarded_for`]).
//!
//! An IPv4 address is itself, however it is written; of an IPv6 address its network counts, the first 64 bits, for
//! whoever has one address of it has them all. Loopback is exempt, and so are trusted proxies, for whom their
//! clients count.
//!
//! Invariant: the sum of all counts is the number of [`AddressSlot`]s that count, and each is given back once. A
//! connection keeps four bytes; while it is on its way between threads a [`AddressLease`] keeps them for it.
//!
//! Cost: a short lock at a connection's start and at its end, on one of 64 parts of the table; nothing where no
//! address is asked for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use ipnet::IpNet;
use protocol::head::forwarded_address;

use crate::access::lock;

const STRIPE_BITS: u32 = 6;
const STRIPES: usize = 1 << STRIPE_BITS;

/// What a connection's address means for it. Whoever takes one from [`Addresses::admit`] gives it back, once, to
/// [`Addresses::release`].
#[derive(PartialEq, Eq, Default, Debug)]
#[must_use = "one that counts has to be released"]
pub struct AddressSlot(u32);

impl AddressSlot {
    /// Its address does not count, or is not known.
    pub const UNCOUNTED: Self = Self(0);
    /// It comes from a trusted proxy, which says with each request for whom it speaks.
    pub const TRUSTED: Self = Self(1);

    /// In a part of the table, the entry at this index. Above the two constants.
    fn counted(stripe: usize, entry: u32) -> Self {
        assert!(entry < (1 << (u32::BITS - STRIPE_BITS)) - 1, "more addresses than there can be connections");
        Self((entry + 1) << STRIPE_BITS | stripe as u32)
    }

    /// The place of its address in the table; `None`: it does not count.
    pub(crate) fn entry(&self) -> Option<(usize, u32)> {
        let entry = (self.0 >> STRIPE_BITS).checked_sub(1)?;
        Some((self.0 as usize % STRIPES, entry))
    }
}

/// There are as many connections of that address as there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany;

/// The addresses that have connections. Shared by all threads of a broker.
#[derive(Debug)]
pub struct Addresses {
    stripes: Box<[Mutex<Stripe>]>,
}

/// One part of the table.
#[derive(Default, Debug)]
struct Stripe {
    /// Hashed at random, for clients may choose their addresses. Nothing depends on the order.
    index_of: HashMap<Key, u32>,
    entries: Vec<Entry>,
    /// Entries without connections.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    connections: u32,
}

/// What counts as one client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Key {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl Key {
    /// `None` for loopback.
    fn of(ip: IpAddr) -> Option<Self> {
        match ip.to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V4(ip) => Some(Self::V4(ip.to_bits())),
            IpAddr::V6(ip) => Some(Self::V6((ip.to_bits() >> 64) as u64)),
        }
    }

    fn stripe(self) -> usize {
        let bits = match self {
            Self::V4(bits) => u64::from(bits),
            Self::V6(bits) => bits,
        };
        // Multiplicative hashing (Knuth): the upper bits depend on all others.
        (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - STRIPE_BITS)) as usize
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }
}

impl Addresses {
    /// Counts a connection from `ip`, of which there may be `max` at a time; `None`: as many as it likes.
    ///
    /// # Errors
    /// There are that many.
    pub fn admit(&self, ip: IpAddr, max: Option<NonZeroU32>) -> Result<AddressSlot, TooMany> {
        let (Some(key), Some(max)) = (Key::of(ip), max) else {
            return Ok(AddressSlot::UNCOUNTED);
        };
        let at = key.stripe();
        let stripe = &mut *self.stripe(at);
        if let Some(&index) = stripe.index_of.get(&key) {
            let entry = &mut stripe.entries[index as usize];
            if entry.connections >= max.get() {
                return Err(TooMany);
            }
            entry.connections += 1;
            return Ok(AddressSlot::counted(at, index));
        }
        let entry = Entry { key, connections: 1 };
        let index = match stripe.free.pop() {
            Some(index) => {
                stripe.entries[index as usize] = entry;
                index
            }
            None => {
                stripe.entries.push(entry);
                (stripe.entries.len() - 1) as u32
            }
        };
        stripe.index_of.insert(key, index);
        Ok(AddressSlot::counted(at, index))
    }

    /// A connection is over.
    pub fn release(&self, slot: AddressSlot) {
        let Some((at, index)) = slot.entry() else { return };
        let stripe = &mut *self.stripe(at);
        let entry = &mut stripe.entries[index as usize];
        entry.connections = entry.connections.checked_sub(1).expect("a slot is released once");
        if entry.connections == 0 {
            stripe.index_of.remove(&entry.key);
            stripe.free.push(index);
        }
    }

    /// Whose connection it is that has this slot, if it counts.
    #[must_use]
    pub fn client(&self, slot: &AddressSlot) -> Option<Client> {
        let (at, index) = slot.entry()?;
        Some(Client(self.stripe(at).entries[index as usize].key))
    }

    /// The place of this client in the table, as of the slots of its connections; `None`: it has none that count.
    pub(crate) fn find(&self, client: Client) -> Option<(usize, u32)> {
        let at = client.0.stripe();
        let index = self.stripe(at).index_of.get(&client.0).copied()?;
        Some((at, index))
    }

    /// How many addresses have connections that count.
    #[must_use]
    pub fn len(&self) -> usize {
        (0..STRIPES).map(|at| self.stripe(at).index_of.len()).sum()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn stripe(&self, at: usize) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[at])
    }
}

/// The slot of a connection that is on its way between a shard and the control plane, or that the control plane
/// has. Dropped with the connection, it gives the slot back.
#[derive(Default, Debug)]
pub struct AddressLease {
    addresses: Option<Arc<Addresses>>,
    slot: AtomicU32,
}

impl AddressLease {
    /// Keeps `slot`, which `addresses` gave.
    #[must_use]
    pub fn new(addresses: &Arc<Addresses>, slot: AddressSlot) -> Self {
        Self { addresses: Some(Arc::clone(addresses)), slot: AtomicU32::new(slot.0) }
    }

    /// Whether there is anything to keep: it counts, or comes from a trusted proxy.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.slot.load(Ordering::Relaxed) != AddressSlot::UNCOUNTED.0
    }

    /// Whether it comes from a trusted proxy that says with each request for whom it speaks.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.slot.load(Ordering::Relaxed) == AddressSlot::TRUSTED.0
    }

    /// Whose connection it is, if it counts.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        let slot = AddressSlot(self.slot.load(Ordering::Relaxed));
        self.addresses.as_ref()?.client(&slot)
    }

    /// The same slot for another holder; what is left does not count.
    #[must_use]
    pub fn hand_on(&self) -> Self {
        Self { addresses: self.addresses.clone(), slot: AtomicU32::new(self.take().0) }
    }

    /// Takes the slot out; what is left does not count.
    pub fn take(&self) -> AddressSlot {
        AddressSlot(self.slot.swap(AddressSlot::UNCOUNTED.0, Ordering::Relaxed))
    }
}

impl Drop for AddressLease {
    fn drop(&mut self) {
        let slot = self.take();
        if let Some(addresses) = &self.addresses {
            addresses.release(slot);
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Client(Key);

impl Client {
    /// Whose `ip` is; `None` for loopback, which is nobody's in particular.
    #[must_use]
    pub fn of(ip: IpAddr) -> Option<Self> {
        Key::of(ip).map(Self)
    }
}

/// Whether `ip` is among `proxies`.
#[must_use]
pub fn is_trusted(ip: IpAddr, proxies: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    proxies.iter().any(|network| network.contains(&ip))
}

/// For whom a trusted proxy speaks: of the members of `X-Forwarded-For`, the last that is not a trusted proxy
/// itself. What stands before a member that is no address was written by nobody who is trusted. `None`: a proxy
/// speaks for itself.
pub fn client<'a>(
    forwarded_for: impl IntoIterator<Item = &'a [u8], IntoIter: DoubleEndedIterator>,
    proxies: &[IpNet],
) -> Option<IpAddr> {
    for member in forwarded_for.into_iter().rev() {
        let ip = forwarded_address(member)?;
        if !is_trusted(ip, proxies) {
            return Some(ip);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn max(n: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(n)
    }

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let addresses = Addresses::default();
        let first = addresses.admit(ip("203.0.113.7"), max(2)).unwrap();
        let second = addresses.admit(ip("::ffff:203.0.113.7"), max(2)).unwrap();
        assert_eq!(addresses.admit(ip("203.0.113.7"), max(2)), Err(TooMany));
        let other = addresses.admit(ip("203.0.113.8"), max(2)).unwrap();
        assert_eq!(addresses.len(), 2);
        let find = |text| addresses.find(Client::of(ip(text)).expect("not loopback"));
        assert_eq!((find("203.0.113.7"), find("203.0.113.9")), (first.entry(), None));
        addresses.release(first);
        let again = addresses.admit(ip("203.0.113.7"), max(2)).unwrap();
        for slot in [second, other, again] {
            addresses.release(slot);
        }
        assert!(addresses.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let addresses = Addresses::default();
        let _one = addresses.admit(ip("2001:db8:0:1::7"), max(1)).unwrap();
        assert_eq!(addresses.admit(ip("2001:db8:0:1:ffff::"), max(1)), Err(TooMany));
        assert!(addresses.admit(ip("2001:db8:0:2::7"), max(1)).is_ok());
    }

    #[test]
    fn loopback_and_whoever_has_no_limit_do_not_count() {
        let addresses = Addresses::default();
        for text in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(addresses.admit(ip(text), max(1)), Ok(AddressSlot::UNCOUNTED), "{text}");
        }
        assert_eq!(addresses.admit(ip("203.0.113.7"), None), Ok(AddressSlot::UNCOUNTED));
        addresses.release(AddressSlot::UNCOUNTED);
        addresses.release(AddressSlot::TRUSTED);
        assert!(addresses.is_empty());
    }

    #[test]
    fn a_lease_gives_back_what_nobody_took() {
        let addresses = Arc::new(Addresses::default());
        let lease = AddressLease::new(&addresses, addresses.admit(ip("203.0.113.7"), max(1)).unwrap());
        assert!(!lease.is_trusted());
        drop(lease);
        assert!(addresses.is_empty());
        let lease = AddressLease::new(&addresses, addresses.admit(ip("203.0.113.7"), max(1)).unwrap());
        let taken = lease.take();
        drop(lease);
        assert_eq!(addresses.len(), 1);
        addresses.release(taken);
        assert!(addresses.is_empty());
        assert!(AddressLease::new(&addresses, AddressSlot::TRUSTED).is_trusted());
    }

    #[test]
    fn the_client_is_the_last_whom_no_proxy_of_ours_vouches_for() {
        let proxies = ["10.0.0.0/8", "2001:db8:ff::/48"].map(|network| network.parse().expect("a network"));
        let cases: [(&[&str], Option<&str>); 9] = [
            (&[], None),
            (&["203.0.113.7"], Some("203.0.113.7")),
            (&["1.1.1.1", "203.0.113.7"], Some("203.0.113.7")),
            (&["203.0.113.7", "10.1.2.3", "2001:db8:ff::1"], Some("203.0.113.7")),
            (&["203.0.113.7:4000", "::ffff:10.1.2.3"], Some("203.0.113.7")),
            (&["10.1.2.3", "10.1.2.4"], None),
            (&["203.0.113.7", "unknown", "10.1.2.3"], None),
            (&["unknown", "203.0.113.7"], Some("203.0.113.7")),
            (&["203.0.113.7", "unknown"], None),
        ];
        for (members, expected) in cases {
            let members = members.iter().map(|member| member.as_bytes());
            assert_eq!(client(members, &proxies), expected.map(ip), "{expected:?}");
        }
    }

    proptest! {
        /// Any order of coming and going, against plain counting.
        #[test]
        fn counts_are_kept(steps in prop::collection::vec((0u8..6, any::<bool>()), 0..200)) {
            let addresses = Addresses::default();
            let mut held: BTreeMap<u8, Vec<AddressSlot>> = BTreeMap::new();
            for (host, comes) in steps {
                let here = held.entry(host).or_default();
                let ip = IpAddr::from([203, 0, 113, host]);
                if !comes {
                    here.pop().into_iter().for_each(|slot| addresses.release(slot));
                } else {
                    match addresses.admit(ip, max(3)) {
                        Ok(slot) => here.push(slot),
                        Err(TooMany) => prop_assert_eq!(here.len(), 3),
                    }
                    prop_assert!(here.len() <= 3);
                }
                prop_assert_eq!(addresses.len(), held.values().filter(|here| !here.is_empty()).count());
            }
            held.into_values().flatten().for_each(|slot| addresses.release(slot));
            prop_assert!(addresses.is_empty());
        }
    }
}
