//! Strict readers for the packets that guards look into: CONNECT, SUBSCRIBE, UNSUBSCRIBE and the head of a PUBLISH.
//!
//! Each takes what follows the fixed header ([`crate::Packet::body`]) and borrows from it.

use crate::frame::FixedHeader;

/// CONNECT of MQTT 3.1.1 (section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Empty: the server is asked to choose one.
    pub client_id: &'a str,
    /// Clean Session.
    pub clean: bool,
    /// In seconds; 0: the client does not want to be watched.
    pub keep_alive: u16,
    /// What to publish if the client vanishes.
    pub will: Option<Will<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Never without a user name.
    pub password: Option<&'a [u8]>,
}

/// The will of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Not checked to be a valid topic.
    pub topic: &'a str,
    /// Up to 65,535 bytes.
    pub payload: &'a [u8],
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether the will is to be retained.
    pub retain: bool,
}

/// A CONNECT by the version of MQTT it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyConnect<'a> {
    /// MQTT 3.1.1.
    V4(Connect<'a>),
    /// MQTT 5: recognised, not read any further.
    V5,
    /// Anything else, such as MQTT 3.1 (level 3).
    Other {
        /// The protocol level claimed.
        level: u8,
    },
}

impl<'a> AnyConnect<'a> {
    /// Reads a CONNECT.
    ///
    /// # Errors
    /// It is no CONNECT of any version, or one of 3.1.1 with forbidden flags, fields missing or bytes left over.
    pub fn parse(body: &'a [u8]) -> Result<Self, PacketError> {
        let mut reader = Reader(body);
        let protocol = reader.text("protocol name")?;
        let level = reader.u8("protocol level")?;
        match (protocol, level) {
            ("MQTT", 4) => Connect::parse(reader).map(Self::V4),
            ("MQTT", 5) => Ok(Self::V5),
            ("MQTT" | "MQIsdp", _) => Ok(Self::Other { level }),
            _ => Err(PacketError::Invalid("protocol name")),
        }
    }
}

impl<'a> Connect<'a> {
    fn parse(mut reader: Reader<'a>) -> Result<Self, PacketError> {
        let flags = reader.u8("connect flags")?;
        let bit = |mask| flags & mask != 0;
        let (with_will, will_qos, will_retain) = (bit(0x04), flags >> 3 & 0b11, bit(0x20));
        let (has_password, with_username) = (bit(0x40), bit(0x80));
        let stray_will = !with_will && (will_qos != 0 || will_retain);
        if bit(0x01) || will_qos == 3 || stray_will || (has_password && !with_username) {
            return Err(PacketError::Invalid("connect flags"));
        }
        let keep_alive = reader.u16("keep alive")?;
        let client_id = reader.text("client identifier")?;
        let will = if with_will {
            let topic = reader.text("will topic")?;
            let payload = reader.field("will message")?;
            Some(Will { topic, payload, qos: will_qos, retain: will_retain })
        } else {
            None
        };
        let username = if with_username { Some(reader.text("user name")?) } else { None };
        let password = if has_password { Some(reader.field("password")?) } else { None };
        reader.end()?;
        Ok(Self { client_id, clean: bit(0x02), keep_alive, will, username, password })
    }
}

/// SUBSCRIBE (section 3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// At least one filter with the QoS asked for, in the order to be answered in. Filters are not checked.
    pub filters: Vec<(&'a str, u8)>,
}

impl<'a> Subscribe<'a> {
    /// Reads a SUBSCRIBE of at most `most` filters.
    ///
    /// # Errors
    /// Not well formed, no filter, or too many.
    pub fn parse(body: &'a [u8], most: usize) -> Result<Self, PacketError> {
        let mut reader = Reader(body);
        let packet_id = reader.packet_id()?;
        let mut filters = Vec::new();
        while !reader.0.is_empty() {
            let filter = reader.text("topic filter")?;
            let qos = reader.u8("requested QoS")?;
            if qos > 2 {
                return Err(PacketError::Invalid("requested QoS"));
            }
            bounded(&mut filters, (filter, qos), most)?;
        }
        some(&filters)?;
        Ok(Self { packet_id, filters })
    }
}

/// UNSUBSCRIBE (section 3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// At least one filter. Filters are not checked.
    pub filters: Vec<&'a str>,
}

impl<'a> Unsubscribe<'a> {
    /// Reads an UNSUBSCRIBE of at most `most` filters.
    ///
    /// # Errors
    /// Not well formed, no filter, or too many.
    pub fn parse(body: &'a [u8], most: usize) -> Result<Self, PacketError> {
        let mut reader = Reader(body);
        let packet_id = reader.packet_id()?;
        let mut filters = Vec::new();
        while !reader.0.is_empty() {
            bounded(&mut filters, reader.text("topic filter")?, most)?;
        }
        some(&filters)?;
        Ok(Self { packet_id, filters })
    }
}

/// An ordinary PUBLISH (section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Not checked to be a valid topic.
    pub topic: &'a str,
    /// `None` at QoS 0, never 0.
    pub packet_id: Option<u16>,
    /// May be empty.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// Reads a PUBLISH.
    ///
    /// # Errors
    /// Topic or packet identifier are missing or not well formed.
    pub fn parse(fixed: FixedHeader, body: &'a [u8]) -> Result<Self, PacketError> {
        let mut reader = Reader(body);
        let topic = reader.text("topic")?;
        let packet_id = if fixed.qos() > 0 { Some(reader.packet_id()?) } else { None };
        Ok(Self { topic, packet_id, payload: reader.0 })
    }
}

/// A packet whose contents break the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The packet ends within a field.
    #[error("it ends before its {0} is complete")]
    Short(&'static str),
    /// A field has a value that the standard forbids, or text that is not UTF-8 or contains NUL.
    #[error("its {0} is not valid")]
    Invalid(&'static str),
    /// Bytes follow the last field.
    #[error("it goes on after its last field")]
    Trailing,
    /// A subscription for nothing.
    #[error("it names no topic filter")]
    NoFilters,
    /// More filters than the server is ready to look at.
    #[error("it names more than {0} topic filters; send them in several packets")]
    TooManyFilters(usize),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], PacketError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(PacketError::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, PacketError> {
        self.take(1, what)?.first().copied().ok_or(PacketError::Short(what))
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, PacketError> {
        let bytes = self.take(2, what)?.try_into().map_err(|_| PacketError::Short(what))?;
        Ok(u16::from_be_bytes(bytes))
    }

    fn packet_id(&mut self) -> Result<u16, PacketError> {
        match self.u16("packet identifier")? {
            0 => Err(PacketError::Invalid("packet identifier")),
            packet_id => Ok(packet_id),
        }
    }

    fn field(&mut self, what: &'static str) -> Result<&'a [u8], PacketError> {
        let length = self.u16(what)?;
        self.take(length.into(), what)
    }

    /// UTF-8 without NUL (section 1.5.3).
    fn text(&mut self, what: &'static str) -> Result<&'a str, PacketError> {
        let text = std::str::from_utf8(self.field(what)?).map_err(|_| PacketError::Invalid(what))?;
        if text.contains('\0') { Err(PacketError::Invalid(what)) } else { Ok(text) }
    }

    fn end(self) -> Result<(), PacketError> {
        if self.0.is_empty() { Ok(()) } else { Err(PacketError::Trailing) }
    }
}

fn bounded<T>(list: &mut Vec<T>, item: T, most: usize) -> Result<(), PacketError> {
    if list.len() >= most {
        return Err(PacketError::TooManyFilters(most));
    }
    list.push(item);
    Ok(())
}

fn some<T>(list: &[T]) -> Result<(), PacketError> {
    if list.is_empty() { Err(PacketError::NoFilters) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;

    const FULL: &[u8] = b"\x00\x04MQTT\x04\xee\x00\x3c\x00\x02id\x00\x01w\x00\x03bye\x00\x01u\x00\x01p";

    #[test]
    fn a_connect_with_everything_is_read() {
        let will = Will { topic: "w", payload: b"bye", qos: 1, retain: true };
        assert_eq!(
            AnyConnect::parse(FULL),
            Ok(AnyConnect::V4(Connect {
                client_id: "id",
                clean: true,
                keep_alive: 60,
                will: Some(will),
                username: Some("u"),
                password: Some(b"p"),
            }))
        );
        for cut in 0..FULL.len() {
            assert!(AnyConnect::parse(&FULL[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(AnyConnect::parse(&[FULL, b"x"].concat()), Err(PacketError::Trailing));
    }

    #[test]
    fn forbidden_connect_flags_are_refused() {
        for flags in [0x01, 0x1C, 0x08, 0x20, 0x40, 0x24 | 0x18] {
            let mut bytes = FULL.to_vec();
            bytes[7] = flags;
            assert_eq!(AnyConnect::parse(&bytes), Err(PacketError::Invalid("connect flags")), "{flags:#x}");
        }
    }

    #[test]
    fn other_versions_of_mqtt_are_recognised() {
        assert_eq!(AnyConnect::parse(b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"), Ok(AnyConnect::V5));
        assert_eq!(
            AnyConnect::parse(b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00"),
            Ok(AnyConnect::Other { level: 3 })
        );
        assert_eq!(AnyConnect::parse(b"\x00\x04MQTT\x84\x02"), Ok(AnyConnect::Other { level: 0x84 }));
        assert_eq!(AnyConnect::parse(b"\x00\x04HTTP\x04"), Err(PacketError::Invalid("protocol name")));
    }

    #[test]
    fn subscriptions_are_read_in_order_and_bounded() {
        let bytes = b"\x00\x07\x00\x01a\x01\x00\x03b/#\x02";
        let expected = Subscribe { packet_id: 7, filters: vec![("a", 1), ("b/#", 2)] };
        assert_eq!(Subscribe::parse(bytes, 2), Ok(expected));
        assert_eq!(Subscribe::parse(bytes, 1), Err(PacketError::TooManyFilters(1)));
        assert_eq!(Subscribe::parse(b"\x00\x07", 9), Err(PacketError::NoFilters));
        assert_eq!(
            Subscribe::parse(b"\x00\x00\x00\x01a\x01", 9),
            Err(PacketError::Invalid("packet identifier"))
        );
        assert_eq!(Subscribe::parse(b"\x00\x07\x00\x01a\x03", 9), Err(PacketError::Invalid("requested QoS")));
        assert_eq!(
            Subscribe::parse(b"\x00\x07\x00\x01\xff\x01", 9),
            Err(PacketError::Invalid("topic filter"))
        );
        assert_eq!(
            Subscribe::parse(b"\x00\x07\x00\x01\x00\x01", 9),
            Err(PacketError::Invalid("topic filter"))
        );
        for cut in [0, 1, 3, 4, 5, 7, 8, 10, 11] {
            assert!(Subscribe::parse(&bytes[..cut], 9).is_err(), "cut at {cut}");
        }
        let expected = Unsubscribe { packet_id: 7, filters: vec!["a", "b/#"] };
        assert_eq!(Unsubscribe::parse(b"\x00\x07\x00\x01a\x00\x03b/#", 2), Ok(expected));
        assert_eq!(Unsubscribe::parse(b"\x00\x07", 2), Err(PacketError::NoFilters));
    }

    #[test]
    fn a_publish_has_an_identifier_above_qos_0_only() {
        let fixed = |flags| FixedHeader { kind: Kind::Publish, flags, remaining: 7 };
        let zero = Publish { topic: "a", packet_id: None, payload: b"\x00\x09hi" };
        assert_eq!(Publish::parse(fixed(0), b"\x00\x01a\x00\x09hi"), Ok(zero));
        let one = Publish { topic: "a", packet_id: Some(9), payload: b"hi" };
        assert_eq!(Publish::parse(fixed(2), b"\x00\x01a\x00\x09hi"), Ok(one));
        assert_eq!(Publish::parse(fixed(4), b"\x00\x01a\x00"), Err(PacketError::Short("packet identifier")));
    }
}
