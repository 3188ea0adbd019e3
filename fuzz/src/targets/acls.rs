//! Values of the state log `acls`, and names that filters and rules are matched with: `bytes u8 | so many bytes of name | value`.

use model::acl::{Acl, AclFilter, PatternFilter};

use crate::Input;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let bytes = usize::from(input.u8());
    let rest = input.rest();
    let (name, value) = rest.split_at(bytes.min(rest.len()));
    let Ok(acl) = Acl::decode(value) else {
        return;
    };
    assert_eq!(acl.check(), Ok(()));
    assert_eq!(Acl::decode(&acl.encode()), Ok(acl.clone()));
    let filter = |name: &str, pattern| AclFilter {
        name: Some(name.to_owned()),
        pattern,
        ..AclFilter::default()
    };
    // A rule matches a resource of its own name, and is chosen by its own fields.
    assert!(filter(&acl.name, PatternFilter::Match).matches(&acl));
    assert!(filter(&acl.name, PatternFilter::Only(acl.pattern)).matches(&acl));
    let name = String::from_utf8_lossy(name);
    // Who has the exact name also has a match.
    let is_named = filter(&name, PatternFilter::Any).matches(&acl);
    assert!(!is_named || filter(&name, PatternFilter::Match).matches(&acl));
}

/// Rules of all kinds.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = include_str!("../../../model/tests/golden/acl-v1.json");
    let seed = |value: &str| [&[3], b"foo".as_slice(), value.as_bytes()].concat();
    golden.lines().map(seed).collect()
}
