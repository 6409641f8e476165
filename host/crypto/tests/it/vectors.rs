//! The committed vectors are what the code makes. `tests/vectors/check.py` recomputes them without this code.

#[path = "../../examples/vectors.rs"]
#[allow(dead_code, reason = "it prints, here it is compared")]
mod generator;

#[test]
fn the_committed_vectors_are_what_the_code_makes() {
    let committed = include_str!("../../../../tests/vectors/trireme-1.json");
    let committed: serde_json::Value = serde_json::from_str(committed).unwrap();
    let made = generator::vectors();
    let (committed, made) = (committed.as_object().unwrap(), made.as_object().unwrap());
    assert_eq!(committed.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>());
    for (section, value) in made {
        assert_eq!(&committed[section], value, "section {section}: print the vectors anew if this was meant");
    }
}
