//! Long answers, page by page.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use trireme_core::Host;
use trireme_core::json;
use trireme_core::role::{Fault, LARGEST_CALL, code};

/// What a page may have: a call's limit, less its frame and the name of the next page.
const LARGEST_PAGE: usize = LARGEST_CALL - 512;
/// The most keys that a step reads.
const STEP: u32 = 256;
/// The longest name of a page.
const LONGEST_NAME: usize = 256;

/// As many of the values below `prefix` as fit an answer, and the name of the last one where there are more.
pub(crate) fn page<T: Serialize>(
    host: &dyn Host,
    prefix: &str,
    after: Option<&str>,
    read: impl Fn(&str) -> Option<T>,
) -> Result<(Vec<T>, Option<String>), Fault> {
    if after.is_some_and(|after| after.len() > LONGEST_NAME) {
        return Err(Fault::new(code::LIMIT, "no page has so long a name; take the one of the last answer"));
    }
    let (mut values, mut size) = (Vec::new(), 0);
    let mut last = after.map(|after| [prefix, after].concat());
    loop {
        let keys = host.scan(prefix, last.as_deref(), STEP);
        if keys.is_empty() {
            return Ok((values, None));
        }
        for key in keys {
            if let Some(value) = read(&key) {
                size += json::write(&value).len() + 1;
                if size > LARGEST_PAGE && !values.is_empty() {
                    let next = last.and_then(|last| last.strip_prefix(prefix).map(Into::into));
                    return Ok((values, next));
                }
                values.push(value);
            }
            last = Some(key);
        }
    }
}

/// Every key below `prefix`, a step at a time; `each` says whether to go on.
pub(crate) fn walk(host: &dyn Host, prefix: &str, mut each: impl FnMut(&str) -> bool) {
    let mut last: Option<String> = None;
    loop {
        let keys = host.scan(prefix, last.as_deref(), 1024);
        if keys.iter().any(|key| !each(key)) {
            return;
        }
        last = keys.last().cloned();
        if last.is_none() {
            return;
        }
    }
}
