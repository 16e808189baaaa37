//! What the configuration grants to whom: the `[[allow]]` tables, and what a token says about topics itself.
//!
//! Grants add up: those of every table whose `principal` fits, and those of the token's own claim. Filters of a table may
//! have `{claim}` in them, which is replaced by the value of that claim of the token, if the value is one level of a topic;
//! otherwise that filter does not apply to the token.
//!
//! Not responsible for signatures (`token`), nor for keys of back ends (`authority`).
//!
//! Memory: grants without `{claim}` are made once for each set of tables that apply together, and shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use protocol::topic::check_filter;
use serde_json::{Map, Value};

use crate::access::grants::{Grants, Operation, Right};
use crate::access::lock;
use crate::config::template::{FILTER_BYTES_MAX, is_template, replace};

/// Most filters that a token may have of its own.
const OWN_FILTERS_MAX: usize = 64;
/// Sets of tables of which the grants are kept.
const SETS_MAX: usize = 1024;

/// Whom a table is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Whom {
    /// Clients without a token.
    Anonymous,
    /// Everybody with a token.
    User,
    /// Everybody whose token has this claim with this value, as a text, or in a list of texts.
    Claim {
        /// The claim's name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// One `[[allow]]` table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllowRule {
    /// Whom it is for.
    pub whom: Whom,
    /// What it grants; filters may have `{claim}` in them.
    pub grants: Grants,
    /// Where the table begins: `FILE:LINE`.
    pub source: String,
}

/// All of them. See the file's head.
#[derive(Default, Debug)]
pub struct Rules {
    allow: Vec<AllowRule>,
    /// Grants of tables that apply together, by their numbers.
    shared: Mutex<HashMap<Vec<u16>, Arc<Grants>>>,
}

impl Rules {
    /// These tables, in the order of the file.
    #[must_use]
    pub fn new(allow: Vec<AllowRule>) -> Self {
        Self { allow, shared: Mutex::default() }
    }

    /// The tables.
    #[must_use]
    pub fn allow(&self) -> &[AllowRule] {
        &self.allow
    }

    /// What clients without a token may do.
    pub(in crate::access) fn of_anonymous(&self) -> Arc<Grants> {
        self.sharing(|rule| rule.whom == Whom::Anonymous)
    }

    /// What a user with these claims may do by the tables: what others have as well, and what only this one has.
    pub(in crate::access) fn of_user(&self, claims: &Map<String, Value>) -> (Arc<Grants>, Grants) {
        let applies = |rule: &AllowRule| match &rule.whom {
            Whom::Anonymous => false,
            Whom::User => true,
            Whom::Claim { name, value } => claims.get(name).is_some_and(|own| has(own, value)),
        };
        let mut own = Grants::default();
        for rule in self.allow.iter().filter(|rule| applies(rule)) {
            for operation in Operation::ALL {
                for template in rule.grants.filters(operation).iter().filter(|filter| is_template(filter)) {
                    if let Some(filter) = fill(template, claims) {
                        own.grant(operation, filter);
                    }
                }
            }
        }
        (self.sharing(applies), own)
    }

    /// The grants without `{claim}` of the tables that apply.
    fn sharing(&self, applies: impl Fn(&AllowRule) -> bool) -> Arc<Grants> {
        let numbered = (0_u16..).zip(&self.allow);
        let numbers: Vec<u16> = numbered.filter(|(_, rule)| applies(rule)).map(|(number, _)| number).collect();
        let mut shared = lock(&self.shared);
        if let Some(grants) = shared.get(&numbers) {
            return Arc::clone(grants);
        }
        let mut all = Grants::default();
        for &number in &numbers {
            all.add(&without_templates(&self.allow[usize::from(number)].grants));
        }
        let all = Arc::new(all);
        if shared.len() < SETS_MAX {
            shared.insert(numbers, Arc::clone(&all));
        }
        all
    }
}

/// Whether a claim has a value: as a text, or in a list of texts.
fn has(claim: &Value, value: &str) -> bool {
    match claim {
        Value::String(own) => own == value,
        Value::Array(all) => all.iter().any(|own| own.as_str() == Some(value)),
        Value::Bool(own) => value == if *own { "true" } else { "false" },
        Value::Number(own) => own.to_string() == value,
        _ => false,
    }
}

fn without_templates(grants: &Grants) -> Grants {
    let mut plain = Grants::default();
    (plain.rights, plain.scopes) = (grants.rights, grants.scopes);
    for operation in Operation::ALL {
        for filter in grants.filters(operation).iter().filter(|filter| !is_template(filter)) {
            plain.grant(operation, filter.clone());
        }
    }
    plain
}

/// The filter of a template for these claims; `None`: it does not apply.
fn fill(template: &str, claims: &Map<String, Value>) -> Option<String> {
    let filled = replace(template, |name| {
        let value = match claims.get(name)? {
            Value::String(value) => value.clone(),
            Value::Number(value) if value.is_u64() => value.to_string(),
            _ => return None,
        };
        let is_level = !value.is_empty() && !value.contains(['/', '+', '#']) && !value.starts_with('$');
        is_level.then_some(value)
    })?;
    check_filter(&filled, FILTER_BYTES_MAX).is_ok().then_some(filled)
}

/// What a token grants by itself: `{"subscribe": [...], "publish": [...], "rights": [...], "respond": [...], "lease": [...]}`.
/// `None`: it is malformed, or has too many filters.
pub(in crate::access) fn own_grants(claim: &Value) -> Option<Grants> {
    let mut grants = Grants::default();
    let mut rights = Vec::new();
    for (name, values) in claim.as_object()? {
        let values: Option<Vec<&str>> = values.as_array()?.iter().map(Value::as_str).collect();
        let values = values?;
        if name == "rights" {
            for value in values {
                rights.push(Right::named(value)?);
            }
            continue;
        }
        let operation = Operation::ALL.into_iter().find(|operation| operation.as_str() == name)?;
        for filter in values {
            check_filter(filter, FILTER_BYTES_MAX).ok()?;
            grants.grant(operation, filter);
        }
    }
    grants.rights = rights.into_iter().collect();
    (grants.len() <= OWN_FILTERS_MAX).then_some(grants)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    fn rule(whom: Whom, subscribe: &[&str]) -> AllowRule {
        let mut grants = Grants::default();
        subscribe.iter().for_each(|filter| grants.grant(Operation::Subscribe, *filter));
        AllowRule { whom, grants, source: "test".to_owned() }
    }

    #[test]
    fn a_value_is_one_level_or_the_filter_does_not_apply() {
        let fill = |template: &str, sub: Value| fill(template, &claims(json!({ "sub": sub })));
        assert_eq!(fill("user/{sub}/#", json!("7")).as_deref(), Some("user/7/#"));
        assert_eq!(fill("user/x{sub}y", json!(12)).as_deref(), Some("user/x12y"));
        assert_eq!(fill("{sub}", json!("a")).as_deref(), Some("a"));
        for value in [
            json!(""),
            json!("a/b"),
            json!("+"),
            json!("#"),
            json!("a+"),
            json!("$sys"),
            json!(1.5),
            json!(null),
            json!(["a"]),
            json!("a\0"),
        ] {
            assert_eq!(fill("user/{sub}/#", value.clone()), None, "{value}");
        }
        assert_eq!(fill("{other}/#", json!("7")), None);
    }

    #[test]
    fn grants_of_tables_add_up_and_are_shared() {
        let admin = Whom::Claim { name: "role".to_owned(), value: "admin".to_owned() };
        let rules = Rules::new(vec![
            rule(Whom::Anonymous, &["public"]),
            rule(Whom::User, &["chat/+", "user/{sub}/#"]),
            rule(admin, &["#"]),
        ]);
        let (user, own) = rules.of_user(&claims(json!({"sub": "7", "role": ["dev"]})));
        assert_eq!(user.filters(Operation::Subscribe), ["chat/+".into()]);
        assert_eq!(own.filters(Operation::Subscribe), ["user/7/#".into()]);
        let (again, _) = rules.of_user(&claims(json!({"sub": "8"})));
        assert!(Arc::ptr_eq(&user, &again));
        for role in [json!("admin"), json!(["dev", "admin"])] {
            let (admin, _) = rules.of_user(&claims(json!({"sub": "7", "role": role})));
            assert_eq!(admin.filters(Operation::Subscribe), ["chat/+".into(), "#".into()]);
        }
        assert_eq!(rules.of_anonymous().filters(Operation::Subscribe), ["public".into()]);
    }

    #[test]
    fn what_a_token_grants_is_well_formed_or_the_token_is_void() {
        let own = own_grants(&json!({"subscribe": ["chat/7", "a/#"], "publish": ["chat/7"], "rights": ["history"]}));
        let own = own.expect("grants");
        assert!(own.covering(Operation::Publish, "chat/7").is_some() && own.rights.has(Right::History));
        assert_eq!(own_grants(&json!({})), Some(Grants::default()));
        let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
        for bad in [
            json!([]),
            json!("chat/7"),
            json!({"subscribe": "chat/7"}),
            json!({"subscribe": [7]}),
            json!({"subscribe": ["a+"]}),
            json!({"subscribe": [""]}),
            json!({"rights": ["everything"]}),
            json!({"write": ["a"]}),
            json!({"api": ["metrics"]}),
            json!({"subscribe": many}),
        ] {
            assert_eq!(own_grants(&bad), None, "{bad}");
        }
    }
}
