//! Comparing bytes eight at a time.
//!
//! The compiler has all comparisons of slices and strings done by `memcmp`. The one that comes with Rust for WASM goes
//! byte by byte, and roles look up names in maps all the time; a symbol of this name takes its place.

use core::cmp::Ordering;

/// C's `memcmp`.
///
/// # Safety
/// Both pointers are those of `length` bytes that can be read.
#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "it is called by what the compiler makes of a comparison")]
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's promise; nothing writes while this runs.
    let (one, other) =
        unsafe { (core::slice::from_raw_parts(one, length), core::slice::from_raw_parts(other, length)) };
    compare(one, other) as i32
}

/// The order of two slices of the same length. Nothing in here may be compiled to a call of `memcmp`.
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "elsewhere `memcmp` is fast"))]
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let (ones, rest) = one.as_chunks::<8>();
    let (others, other_rest) = other.as_chunks::<8>();
    for (one, other) in ones.iter().zip(others) {
        let (one, other) = (u64::from_be_bytes(*one), u64::from_be_bytes(*other));
        if one != other {
            return one.cmp(&other);
        }
    }
    for (one, other) in rest.iter().zip(other_rest) {
        if one != other {
            return one.cmp(other);
        }
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn bytes_are_compared_as_ever_whatever_their_number_and_wherever_they_differ() {
        for length in 0..40 {
            let one: Vec<u8> = (0..length).map(|at: u8| at.wrapping_mul(7).wrapping_add(120)).collect();
            assert_eq!(compare(&one, &one), Ordering::Equal);
            for at in 0..usize::from(length) {
                for byte in [0, 1, 127, 128, 255] {
                    let mut other = one.clone();
                    other[at] = byte;
                    assert_eq!(compare(&one, &other), one.cmp(&other), "{length} bytes, {byte} at {at}");
                    assert_eq!(compare(&other, &one), other.cmp(&one));
                }
            }
        }
    }
}
