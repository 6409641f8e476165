//! Topics and filters (MQTT 3.1.1, section 4.7), and the release namespace `trireme/fw/<Topic>/<MD>`.

/// Everything below belongs to Trireme: plain clients neither publish nor subscribe there.
pub const NAMESPACE: &str = "trireme/";
/// Releases are published below.
pub const RELEASES: &str = "trireme/fw/";
/// The longest a Topic's or a model's name may be, in bytes.
pub const MAX_NAME: usize = 64;
/// The longest a release's topic can be, in bytes.
pub const MAX_RELEASE_TOPIC: usize = RELEASES.len() + MAX_NAME + 1 + MAX_NAME;

/// The topic of a release: one manufacturer's Topic and one of its models, both valid names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReleaseTopic {
    full: String,
    /// Where in `full` the slash between Topic and model is.
    slash: usize,
}

impl ReleaseTopic {
    /// Makes `trireme/fw/<topic>/<model>`.
    ///
    /// # Errors
    /// One of the two is not a name: `[A-Za-z0-9._-]{1,64}`.
    pub fn new(topic: &str, model: &str) -> Result<Self, NameError> {
        for name in [topic, model] {
            if !is_name(name) {
                return Err(NameError(shorten(name)));
            }
        }
        Ok(Self { full: format!("{RELEASES}{topic}/{model}"), slash: RELEASES.len() + topic.len() })
    }

    /// Reads a release's topic; `None` if it is anything else.
    pub fn parse(full: &str) -> Option<Self> {
        let (topic, model) = full.strip_prefix(RELEASES)?.split_once('/')?;
        Self::new(topic, model).ok()
    }

    /// The manufacturer's Topic.
    pub fn topic(&self) -> &str {
        self.full.get(RELEASES.len()..self.slash).unwrap_or_default()
    }

    /// The model, `MD`.
    pub fn model(&self) -> &str {
        self.full.get(self.slash + 1..).unwrap_or_default()
    }

    /// The MQTT topic, `trireme/fw/<Topic>/<MD>`.
    pub fn as_str(&self) -> &str {
        &self.full
    }
}

impl std::fmt::Display for ReleaseTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.full)
    }
}

/// A Topic or model that cannot be part of a release's topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name; use 1 to 64 of the characters A-Z a-z 0-9 . _ -")]
pub struct NameError(String);

/// What a subscription's filter asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterKind {
    /// The releases of one model. Never given to the router.
    Release(ReleaseTopic),
    /// Ordinary messages. A wide filter such as `#` is one of these and does not match releases.
    Ordinary,
    /// Answered with 0x80.
    Refused(FilterRefusal),
}

/// Why a filter gets 0x80.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterRefusal {
    /// Not a filter by section 4.7.
    #[error("the filter is not valid MQTT: a wildcard must fill its level, and # must come last")]
    Invalid,
    /// In the namespace, but no single model's releases.
    #[error(
        "only trireme/fw/<Topic>/<MD>, one model and without wildcards, can be subscribed to below trireme/"
    )]
    Namespace,
    /// `$share/…`: it can bring the router down.
    #[error("shared subscriptions are not offered here; subscribe without $share")]
    Shared,
}

/// Says what a filter asks for.
pub fn filter_kind(filter: &str) -> FilterKind {
    if !is_filter(filter) {
        FilterKind::Refused(FilterRefusal::Invalid)
    } else if let Some(release) = ReleaseTopic::parse(filter) {
        FilterKind::Release(release)
    } else if in_namespace(filter) {
        FilterKind::Refused(FilterRefusal::Namespace)
    } else if filter == "$share" || filter.starts_with("$share/") {
        FilterKind::Refused(FilterRefusal::Shared)
    } else {
        FilterKind::Ordinary
    }
}

/// Whether a topic or filter lies in Trireme's namespace.
pub fn in_namespace(topic: &str) -> bool {
    topic.starts_with(NAMESPACE)
}

/// Whether this is a name of the protocol: `[A-Za-z0-9._-]{1,64}`.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether something can be published to this topic: 1 to 65,535 bytes, no wildcard, no NUL.
pub fn is_topic(topic: &str) -> bool {
    is_text(topic) && !topic.contains(['+', '#'])
}

/// Whether this is a filter: 1 to 65,535 bytes, no NUL, `+` alone in its level, `#` alone in the last.
pub fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let fine = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            _ => !level.contains(['+', '#']),
        };
        if !fine {
            return false;
        }
    }
    is_text(filter)
}

/// Whether a valid filter matches a valid topic. A leading wildcard does not match topics that begin with `$` (4.7.2).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            // `a/#` matches `a` too.
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

/// Whether whatever matches the valid filter `inner` matches the valid filter `outer` too.
pub fn covers(outer: &str, inner: &str) -> bool {
    if inner.starts_with('$') && outer.starts_with(['+', '#']) {
        return false;
    }
    let (mut outer, mut inner) = (outer.split('/'), inner.split('/'));
    loop {
        match (outer.next(), inner.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some("#")) => return false,
            (Some("+"), Some(_)) => {}
            (Some(wide), Some(narrow)) if wide == narrow => {}
            _ => return false,
        }
    }
}

/// Whether a topic can match both valid filters.
pub fn overlap(one: &str, other: &str) -> bool {
    let apart = |wide: &str, narrow: &str| wide.starts_with(['+', '#']) && narrow.starts_with('$');
    if apart(one, other) || apart(other, one) {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(level), Some(same)) if level == same => {}
            _ => return false,
        }
    }
}

/// A stranger's text for a message: at most 80 characters of it.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn is_text(text: &str) -> bool {
    (1..=usize::from(u16::MAX)).contains(&text.len()) && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_topic_is_made_of_two_names() {
        let topic = ReleaseTopic::new("acme", "lamp-2.0").unwrap();
        assert_eq!(
            (topic.as_str(), topic.topic(), topic.model()),
            ("trireme/fw/acme/lamp-2.0", "acme", "lamp-2.0")
        );
        assert_eq!(ReleaseTopic::parse(topic.as_str()), Some(topic));

        let long = "x".repeat(MAX_NAME);
        assert_eq!(ReleaseTopic::new(&long, &long).unwrap().as_str().len(), MAX_RELEASE_TOPIC);
        for bad in ["", "a/b", "a b", "ü", "+", "#", "a\0", &"x".repeat(MAX_NAME + 1)] {
            assert!(ReleaseTopic::new(bad, "m").is_err(), "{bad:?}");
            assert!(ReleaseTopic::new("t", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_the_exact_form_is_a_release_topic() {
        for other in [
            "trireme/fw/a",
            "trireme/fw/a/",
            "trireme/fw//m",
            "trireme/fw/a/m/x",
            "trireme/fw/a/m/",
            "Trireme/fw/a/m",
            "/trireme/fw/a/m",
            "trireme/f/a/m",
            "trireme/fw/a/+",
            "",
        ] {
            assert_eq!(ReleaseTopic::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn filters_are_sorted_into_releases_ordinary_and_refused() {
        use FilterRefusal::{Invalid, Namespace, Shared};
        let release = FilterKind::Release(ReleaseTopic::new("acme", "lamp").unwrap());
        assert_eq!(filter_kind("trireme/fw/acme/lamp"), release);
        for (filter, why) in [
            ("trireme/#", Namespace),
            ("trireme/+/acme/lamp", Namespace),
            ("trireme/fw/acme/+", Namespace),
            ("trireme/fw/#", Namespace),
            ("trireme/fw/acme/lamp/x", Namespace),
            ("trireme/", Namespace),
            ("trireme/other", Namespace),
            ("$share/g/a", Shared),
            ("$share/g/trireme/fw/acme/lamp", Shared),
            ("$share", Shared),
            ("", Invalid),
            ("a#", Invalid),
            ("#/a", Invalid),
            ("a/+b", Invalid),
            ("a\0", Invalid),
        ] {
            assert_eq!(filter_kind(filter), FilterKind::Refused(why), "{filter:?}");
        }
        for filter in
            ["#", "+/fw/acme/lamp", "+/#", "trireme", "triremes/x", "/trireme/x", "$SYS/#", "$shared/x"]
        {
            assert_eq!(filter_kind(filter), FilterKind::Ordinary, "{filter:?}");
        }
    }

    #[test]
    fn matching_follows_the_standards_examples() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/uptime", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/uptime", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/b", "a", false),
            ("a", "a/b", false),
            ("A", "a", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn a_filter_covers_another_only_as_a_whole() {
        for (outer, inner, expected) in [
            ("a/#", "a/b/+", true),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/+", "a/b", true),
            ("a/+", "a/+", true),
            ("a/+", "a/#", false),
            ("a/+", "a", false),
            ("a/b", "a/+", false),
            ("a/b", "#", false),
            ("+/b", "#", false),
            ("#", "+/b", true),
            ("#", "$SYS/#", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/+/x", true),
            ("a/b/c", "a/b", false),
            ("a", "a/b", false),
        ] {
            assert_eq!(covers(outer, inner), expected, "{outer} {inner}");
        }
    }

    #[test]
    fn filters_overlap_where_a_topic_fits_both() {
        for (one, other, expected) in [
            ("a/#", "a", true),
            ("a/+/c", "a/b/+", true),
            ("+/b", "a/+", true),
            ("#", "a/secret", true),
            ("a/+", "a/b/c", false),
            ("a/b", "a/c", false),
            ("#", "$SYS/x", false),
            ("$SYS/#", "+/x", false),
            ("a/b/#", "a/+", true),
            ("a", "a/b", false),
        ] {
            assert_eq!((overlap(one, other), overlap(other, one)), (expected, expected), "{one} {other}");
        }
    }

    proptest::proptest! {
        /// What covers and overlaps is told by the topics that match.
        #[test]
        fn covering_and_overlapping_agree_with_matching(
            one in "([ab+]/){0,2}([ab+#])", other in "([ab+]/){0,2}([ab+#])", topic in "([ab]/){0,3}[ab]"
        ) {
            let (by_one, by_other) = (matches(&one, &topic), matches(&other, &topic));
            if covers(&one, &other) {
                proptest::prop_assert!(!by_other || by_one);
            }
            if by_one && by_other {
                proptest::prop_assert!(overlap(&one, &other) && overlap(&other, &one));
            }
        }
    }

    #[test]
    fn topics_have_no_wildcards_and_no_nul() {
        assert!(is_topic("a/b") && is_topic("/") && is_topic(&"a".repeat(65_535)));
        for bad in ["", "a/+", "#", "a\0b", &"a".repeat(65_536)] {
            assert!(!is_topic(bad));
        }
    }
}
