//! Members against a model that keeps every session by itself.

use proptest::prelude::*;

use super::*;
use crate::capacity::budget::Budget;
use crate::ids::ShardId;
use crate::topics::registry::Registry;

const LISTED_MAX: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Enter { session: u64, member: usize, info: Option<u8>, is_update: bool },
    Leave { session: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6_u64, 0..4_usize, prop::option::of(0..3_u8), any::<bool>())
            .prop_map(|(session, member, info, is_update)| Step::Enter { session, member, info, is_update }),
        1 => (0..6_u64).prop_map(|session| Step::Leave { session }),
    ]
}

/// A session is of one member for its life.
fn member_of(session: u64, member: usize) -> Arc<str> {
    ["ada", "bob", "cleo", "dan"][(session as usize + member) % 4].into()
}

fn session(number: u64) -> SessionRef {
    SessionRef { home: ShardId(0), number }
}

proptest! {
    #[test]
    fn whoever_reads_the_changes_knows_who_is_there(steps in prop::collection::vec(step(), 1..80)) {
        let budget = Budget::new(1, u64::MAX >> 1);
        let registry = Registry::new(1, 1);
        let topic = registry.resolve("t");
        let mut members = Members::new(budget.of_shard(0));
        let (mut model, mut shown) = (BTreeMap::<u64, Arc<str>>::new(), BTreeMap::new());
        for (now, step) in (0..).zip(steps) {
            let result = match step {
                Step::Enter { session: number, member, info, is_update } => {
                    let member = model.get(&number).cloned().unwrap_or_else(|| member_of(number, member));
                    let info = info.map(|info| Arc::from(info.to_string().as_bytes()));
                    let entry = Entry { session: session(number), member: Arc::clone(&member), info, is_update };
                    let result = members.enter(&topic, entry, LISTED_MAX, now);
                    if result.is_ok() {
                        model.insert(number, member);
                    } else if result == Err(NotEntered::NotThere) {
                        prop_assert!(is_update && !model.contains_key(&number));
                    } else {
                        prop_assert!(!shown.contains_key(&member) && !members.list(topic.id, 9).is_empty());
                    }
                    result.map(Vec::from_iter)
                }
                Step::Leave { session: number } => {
                    let was_there = model.remove(&number).is_some();
                    let result = members.leave(topic.id, session(number));
                    prop_assert_eq!(result.is_ok(), was_there);
                    result
                }
            };
            for Change { member, value } in result.unwrap_or_default() {
                match value {
                    Some(value) => drop(shown.insert(member, value)),
                    None => prop_assert!(shown.remove(&member).is_some(), "nobody leaves that was not there"),
                }
            }
            members.check().map_err(TestCaseError::fail)?;
            let mut there: Vec<_> = model.values().cloned().collect();
            there.sort();
            there.dedup();
            prop_assert_eq!(members.count(topic.id), there.len() as u64);
            let listed = members.list(topic.id, 9);
            prop_assert_eq!(listed.len(), there.len().min(LISTED_MAX));
            prop_assert_eq!(listed.len(), shown.len());
            for listed in listed {
                let sessions = model.values().filter(|member| **member == listed.member).count();
                prop_assert_eq!(sessions as u32, listed.connections);
                let info = listed.info.map(|info| format!("\"info\":{},", str::from_utf8(&info).unwrap()));
                let expected = format!("{{{}\"connections\":{sessions},", info.unwrap_or_default());
                prop_assert!(shown[&listed.member].starts_with(&expected), "{} {}", shown[&listed.member], expected);
            }
        }
        for number in model.keys() {
            members.leave(topic.id, session(*number)).unwrap();
        }
        prop_assert!(members.topics.is_empty());
        prop_assert_eq!(budget.of_shard(0).used(), 0);
    }
}
