//! What a client may do. Pure decisions, taken before anything reaches the router of ordinary traffic, which some valid
//! packets bring down.

use zeroize::Zeroizing;

use crate::decode::Packet;
use crate::encode::Connack;
use crate::frame::{FrameError, Kind};
use crate::packet::{AnyConnect, PacketError, Publish, Will};
use crate::topics;

/// What a server asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The longest client identifier, in bytes.
    pub client_id: usize,
    /// In seconds: taken for a keep-alive of 0, which would never let a dead client go, and for any above.
    pub keep_alive: u16,
    /// The most filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub filters: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self { client_id: 128, keep_alive: 1800, filters: 64 }
    }
}

/// A client that may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// `None`: the server has to choose one; the session is clean then.
    pub client_id: Option<String>,
    /// Clean Session.
    pub clean: bool,
    /// In seconds, never 0. A client silent for one and a half times that is gone (MQTT 3.1.1, 3.1.2.10).
    pub keep_alive: u16,
    /// To be published by the front if the client vanishes, never by the router.
    pub will: Option<OwnedWill>,
    /// User name; nothing is proven by it alone.
    pub username: Option<String>,
    /// Its password, unchecked.
    pub password: Option<Password>,
}

/// A client's password. Wiped after use, and not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// These bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// Its bytes: up to 65,535, and any.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// A will that may be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedWill {
    /// A valid topic outside Trireme's namespace.
    pub topic: String,
    /// Up to 65,535 bytes.
    pub payload: Vec<u8>,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the will is to be retained.
    pub retain: bool,
}

/// Decides on a CONNECT.
///
/// # Errors
/// The packet is not well formed, of another version, or asks for what is not allowed. See [`Refusal::connack`].
pub fn connect(body: &[u8], rules: &Rules) -> Result<Admission, Refusal> {
    let connect =
        match AnyConnect::parse(body).map_err(|error| Refusal::Malformed { kind: Kind::Connect, error })? {
            AnyConnect::V4(connect) => connect,
            AnyConnect::V5 => return Err(Refusal::Version5),
            AnyConnect::Other { level } => return Err(Refusal::Version { level }),
        };
    let client_id = match connect.client_id {
        "" if connect.clean => None,
        "" => return Err(Refusal::NoClientId),
        id => Some(client_id(id, rules)?.to_owned()),
    };
    let keep_alive = match connect.keep_alive {
        0 => rules.keep_alive,
        seconds => seconds.min(rules.keep_alive),
    };
    Ok(Admission {
        client_id,
        clean: connect.clean,
        keep_alive: keep_alive.max(1),
        will: connect.will.map(will).transpose()?,
        username: connect.username.map(str::to_owned),
        password: connect.password.map(Password::new),
    })
}

/// Decides on an ordinary PUBLISH. One into Trireme's namespace ends the connection, whoever sends it: what a manufacturer
/// publishes there never comes this way.
///
/// # Errors
/// Not well formed, or to a topic that clients must leave alone.
pub fn publish(packet: &Packet) -> Result<Publish<'_>, Refusal> {
    let publish = Publish::parse(packet.fixed(), packet.body())
        .map_err(|error| Refusal::Malformed { kind: Kind::Publish, error })?;
    ordinary_topic(publish.topic)?;
    Ok(publish)
}

/// Why a connection is ended. The messages are for the operator's log; the client sees a code at most.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are in the messages
pub enum Refusal {
    #[error("connection ended: {0}")]
    Frame(#[from] FrameError),
    #[error("connection ended: the client's {kind} packet is malformed: {error}")]
    Malformed { kind: Kind, error: PacketError },
    #[error(
        "connection refused: the client began with a {kind} packet instead of CONNECT; is this an MQTT client?"
    )]
    ConnectFirst { kind: Kind },
    #[error("connection ended: the client sent CONNECT twice")]
    SecondConnect,
    #[error("connection refused: the client speaks MQTT 5; configure it for MQTT 3.1.1")]
    Version5,
    #[error(
        "connection refused: the client speaks protocol level {level}; configure it for MQTT 3.1.1 (level 4)"
    )]
    Version { level: u8 },
    #[error("connection refused: a client without an identifier must ask for a clean session")]
    NoClientId,
    #[error(
        "connection refused: client identifier {id:?} contains {character:?}; + # $ / and control characters are not \
             allowed here"
    )]
    ClientId { id: String, character: char },
    #[error("connection refused: the client identifier has {length} bytes; at most {limit} are allowed")]
    ClientIdTooLong { length: usize, limit: usize },
    #[error("connection ended: {topic:?} is not a topic that can be published to")]
    Topic { topic: String },
    #[error(
        "connection ended: the client published to {topic:?}, but topics that begin with $ are the server's"
    )]
    ServerTopic { topic: String },
    #[error(
        "connection ended: the client published to {topic:?}; below trireme/ only releases of manufacturers that \
             opened a session are accepted, at QoS 1"
    )]
    Namespace { topic: String },
    #[error("connection ended: the client sent a {kind} packet, which only a server sends")]
    Direction { kind: Kind },
    #[error("connection ended: the client sent RESPONSE although neither side had sent PUSH")]
    ResponseUnasked,
    #[error("connection ended: the client does not read what it is sent; {queued} bytes were waiting for it")]
    Stalled { queued: usize },
}

impl Refusal {
    /// What CONNACK says to a client that is not let in; `None`: the connection is closed without a word.
    pub fn connack(&self) -> Option<Connack> {
        match self {
            Self::Version5 => Some(Connack::UnsupportedVersion5),
            Self::Version { .. } => Some(Connack::UnacceptableProtocol),
            Self::NoClientId | Self::ClientId { .. } | Self::ClientIdTooLong { .. } => {
                Some(Connack::IdentifierRejected)
            }
            _ => None,
        }
    }
}

fn client_id<'a>(id: &'a str, rules: &Rules) -> Result<&'a str, Refusal> {
    if id.len() > rules.client_id {
        return Err(Refusal::ClientIdTooLong { length: id.len(), limit: rules.client_id });
    }
    // The router makes topics and group names of identifiers, and two clients with a wildcard in theirs stop it.
    match id.chars().find(|c| matches!(c, '+' | '#' | '$' | '/') || c.is_control()) {
        Some(character) => Err(Refusal::ClientId { id: topics::shorten(id), character }),
        None => Ok(id),
    }
}

fn will(will: Will<'_>) -> Result<OwnedWill, Refusal> {
    ordinary_topic(will.topic)?;
    let Will { topic, payload, qos, retain } = will;
    Ok(OwnedWill { topic: topic.to_owned(), payload: payload.to_owned(), qos, retain })
}

fn ordinary_topic(topic: &str) -> Result<(), Refusal> {
    if !topics::is_topic(topic) {
        Err(Refusal::Topic { topic: topics::shorten(topic) })
    } else if topics::in_namespace(topic) {
        Err(Refusal::Namespace { topic: topics::shorten(topic) })
    } else if topic.starts_with('$') {
        Err(Refusal::ServerTopic { topic: topics::shorten(topic) })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect_body(flags: u8, keep_alive: u8, id: &str) -> Vec<u8> {
        let head =
            [b"\x00\x04MQTT\x04".as_slice(), &[flags, 0, keep_alive], &(id.len() as u16).to_be_bytes()]
                .concat();
        [&head, id.as_bytes()].concat()
    }

    fn admit(flags: u8, keep_alive: u8, id: &str) -> Result<Admission, Refusal> {
        connect(&connect_body(flags, keep_alive, id), &Rules { client_id: 10, keep_alive: 100, filters: 1 })
    }

    #[test]
    fn client_ids_that_hurt_the_router_are_refused() {
        for (id, character) in [("a+b", '+'), ("#", '#'), ("$x", '$'), ("a/b", '/'), ("a\nb", '\n')] {
            let refusal = admit(0, 60, id).unwrap_err();
            assert_eq!(refusal, Refusal::ClientId { id: id.into(), character });
            assert_eq!(refusal.connack(), Some(Connack::IdentifierRejected));
        }
        assert_eq!(
            admit(2, 60, "ünïcode-_").unwrap_err(),
            Refusal::ClientIdTooLong { length: 11, limit: 10 }
        );
        assert_eq!(admit(0, 60, "gw-1.a_B").unwrap().client_id.as_deref(), Some("gw-1.a_B"));
    }

    #[test]
    fn a_client_without_an_identifier_needs_a_clean_session() {
        assert_eq!(admit(2, 60, "").unwrap().client_id, None);
        assert_eq!(admit(0, 60, "").unwrap_err(), Refusal::NoClientId);
    }

    #[test]
    fn keep_alive_is_bounded_and_never_off() {
        for (asked, granted) in [(0, 100), (1, 1), (100, 100), (101, 100)] {
            assert_eq!(admit(2, asked, "a").unwrap().keep_alive, granted, "{asked}");
        }
        let off = Rules { keep_alive: 0, ..Rules::default() };
        assert_eq!(connect(&connect_body(2, 0, "a"), &off).unwrap().keep_alive, 1);
    }

    #[test]
    fn other_versions_get_an_answer_in_their_own_form() {
        let v5 = connect(b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01a", &Rules::default()).unwrap_err();
        assert_eq!(v5.connack(), Some(Connack::UnsupportedVersion5));
        let v3 = connect(b"\x00\x06MQIsdp\x03\x02\x00\x00\x00\x01a", &Rules::default()).unwrap_err();
        assert_eq!(v3.connack(), Some(Connack::UnacceptableProtocol));
    }

    #[test]
    fn wills_cannot_enter_the_namespace() {
        for (topic, fine) in
            [("bye", true), ("trireme/fw/a/b", false), ("a/#", false), ("$SYS/x", false), ("", false)]
        {
            let mut body = connect_body(0x06, 60, "a");
            body.extend_from_slice(&(topic.len() as u16).to_be_bytes());
            body.extend_from_slice(topic.as_bytes());
            body.extend_from_slice(b"\x00\x01x");
            assert_eq!(connect(&body, &Rules::default()).is_ok(), fine, "{topic}");
        }
    }

    #[test]
    fn messages_do_not_repeat_more_of_a_strangers_text_than_needed() {
        let topic = format!("trireme/{}", "\u{1b}[31m".repeat(1000));
        let text = ordinary_topic(&topic).unwrap_err().to_string();
        assert!(text.len() < 600 && !text.contains('\u{1b}'), "{text}");
    }
}
