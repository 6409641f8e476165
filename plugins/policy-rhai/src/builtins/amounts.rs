//! Durations and shares, as people write them.

use rhai::{Dynamic, Engine};

use super::{Fallible, text, whole, wrong};

/// A share is counted in millionths, exactly.
const MILLION: i64 = 1_000_000;
/// The most digits after the point of a percentage.
const MOST_DECIMALS: usize = 4;

const UNITS: [(&str, i64); 6] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("ms", |duration: Dynamic| -> Fallible<i64> { Ok(ms(&duration)?) });
    engine.register_fn("readable", |duration: Dynamic| -> Fallible<String> { Ok(readable(ms(&duration)?)) });
    engine.register_fn("fraction", |share: Dynamic| -> Fallible<f64> {
        Ok(millionths(&share)? as f64 / MILLION as f64)
    });
    engine.register_fn("share_of", |share: Dynamic, all: Dynamic| -> Fallible<i64> {
        let all = whole(&all, "the whole")?;
        Ok(match limit(&share)? {
            Limit::Count(count) => count,
            Limit::Millionths(part) => narrow(i128::from(part) * i128::from(all) / i128::from(MILLION)),
        })
    });
    engine.register_fn("exceeds", |count: Dynamic, most: Dynamic, all: Dynamic| -> Fallible<bool> {
        let (count, limit) = sides(&count, &most, &all)?;
        Ok(count > limit)
    });
    engine.register_fn("reaches", |count: Dynamic, least: Dynamic, all: Dynamic| -> Fallible<bool> {
        let (count, limit) = sides(&count, &least, &all)?;
        Ok(count >= limit)
    });
    engine.register_fn("is_duration", |value: &str| is_duration(value));
}

/// Milliseconds of a duration: `"90s"`, `"1h 30m"`, or milliseconds already.
pub(crate) fn ms(duration: &Dynamic) -> Result<i64, String> {
    if let Ok(ms) = duration.as_int() {
        return Ok(ms);
    }
    let written = text(duration, "a duration")?;
    parse(&written)
        .ok_or_else(|| format!("{:?} is no duration: write 90s, 30m, 2h, 1d or 1h 30m", written.as_str()))
}

pub(crate) fn is_duration(text: &str) -> bool {
    parse(text).is_some()
}

pub(crate) fn is_share(text: &str) -> bool {
    percentage(text).is_some()
}

fn parse(text: &str) -> Option<i64> {
    let (mut rest, mut sum) = (text.trim_ascii(), 0_i64);
    loop {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let after = after.trim_ascii_start();
        let letters = after.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, each) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        sum = sum.checked_add(number.parse::<i64>().ok()?.checked_mul(each)?)?;
        rest = after.trim_ascii_start();
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

/// The two largest units of it.
fn readable(ms: i64) -> String {
    let mut rest = ms.unsigned_abs();
    let mut parts = Vec::new();
    for (name, each) in UNITS.into_iter().rev().filter(|(name, _)| *name != "w") {
        let each = each.unsigned_abs();
        if rest >= each && parts.len() < 2 {
            parts.push(format!("{}{name}", rest / each));
            rest %= each;
        } else if !parts.is_empty() {
            break;
        }
    }
    let sign = if ms < 0 { "-" } else { "" };
    if parts.is_empty() { "0s".into() } else { format!("{sign}{}", parts.join(" ")) }
}

/// A limit is a share of something, or a number whatever there is of it.
enum Limit {
    Count(i64),
    Millionths(i64),
}

fn limit(value: &Dynamic) -> Result<Limit, String> {
    match value.as_int() {
        Ok(count) => Ok(Limit::Count(count)),
        Err(_) => millionths(value).map(Limit::Millionths),
    }
}

/// Both sides of a comparison, as millionths of one.
fn sides(count: &Dynamic, limit_of: &Dynamic, all: &Dynamic) -> Result<(i128, i128), String> {
    // A percentage of a question is a number with decimals.
    let count = match count.as_float() {
        Ok(count) => (count * MILLION as f64).round() as i128,
        Err(_) => i128::from(whole(count, "a count")?) * i128::from(MILLION),
    };
    let all = i128::from(whole(all, "the whole")?);
    let limit = match limit(limit_of)? {
        Limit::Count(most) => i128::from(most) * i128::from(MILLION),
        Limit::Millionths(part) => i128::from(part) * all,
    };
    Ok((count, limit))
}

fn millionths(share: &Dynamic) -> Result<i64, String> {
    if let Ok(part) = share.as_float() {
        // Saturates, and a NaN is nothing.
        return Ok((part * MILLION as f64).round() as i64);
    }
    if !share.is_string() {
        return Err(wrong(share, "a share"));
    }
    let written = text(share, "a share")?;
    percentage(&written).ok_or_else(|| format!("{:?} is no percentage: write 2 % or 0.5 %", written.as_str()))
}

fn percentage(text: &str) -> Option<i64> {
    let number = text.trim_ascii().strip_suffix('%')?.trim_ascii_end();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > MOST_DECIMALS {
        return None;
    }
    let each = 10_i64.pow(MOST_DECIMALS as u32);
    let of_decimals = 10_i64.pow((MOST_DECIMALS - decimals.len()) as u32);
    let decimals = decimals.parse::<i64>().ok()?.checked_mul(of_decimals)?;
    whole.parse::<i64>().ok()?.checked_mul(each)?.checked_add(decimals)
}

fn narrow(wide: i128) -> i64 {
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [("90s", 90_000), ("30m", 1_800_000), ("2 h", 7_200_000), ("1d", 86_400_000)] {
            assert_eq!(parse(text), Some(ms), "{text}");
        }
        assert_eq!(parse(" 1h 30m "), Some(5_400_000));
        assert_eq!(parse("1w2d500ms"), Some(604_800_000 + 172_800_000 + 500));
        for text in ["", "5", "s", "1.5h", "1y", "-1s", "1h30", "99999999999999999999s", "9999999999999999d"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn percentages_are_exact() {
        assert_eq!(percentage("2 %"), Some(20_000));
        assert_eq!(percentage("0.5%"), Some(5_000));
        assert_eq!(percentage("100 %"), Some(MILLION));
        assert_eq!(percentage("0.0001 %"), Some(1));
        for text in ["2", "%", ".5 %", "1.00001 %", "-1 %", "two %"] {
            assert_eq!(percentage(text), None, "{text}");
        }
        // 7 % of 100 in floats is a little more than 7.
        let (count, limit) = sides(&7_i64.into(), &"7 %".into(), &100_i64.into()).unwrap();
        assert!(count == limit);
    }

    #[test]
    fn a_duration_is_told_in_two_units() {
        for (ms, text) in
            [(0, "0s"), (90_000, "1m 30s"), (5_400_000, "1h 30m"), (86_400_001, "1d"), (7, "7ms")]
        {
            assert_eq!(readable(ms), text);
        }
    }
}
