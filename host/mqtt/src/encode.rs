//! Events to bytes. Every function returns one whole packet, but [`release_head`].

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::{FixedHeader, Kind, Limits, MAX_FIXED_HEADER, MAX_REMAINING, MAX_TRAILER};
use crate::topics::ReleaseTopic;

/// Control packet 0 (thesis, section 5.4).
///
/// # Errors
/// The payload is empty or above 64 KiB.
pub fn push(payload: &[u8]) -> Result<Bytes, EncodeError> {
    control(Kind::Push, payload)
}

/// Control packet 15 (thesis, section 5.4).
///
/// # Errors
/// The payload is empty or above 64 KiB.
pub fn response(payload: &[u8]) -> Result<Bytes, EncodeError> {
    control(Kind::Response, payload)
}

/// Everything of a release that precedes its body: `body` bytes of firmware and `trailer` bytes (0 or 32) must be written
/// right after it, and nothing else before they are through.
///
/// # Errors
/// The identifier is 0, or the header, body, trailer or whole packet is larger than the protocol allows.
pub fn release_head(
    topic: &ReleaseTopic,
    packet_id: u16,
    dup: bool,
    retain: bool,
    header: &[u8],
    body: u64,
    trailer: u64,
) -> Result<Bytes, EncodeError> {
    let limits = Limits::default();
    let too_large = |what, length, limit| Err(EncodeError::TooLarge { what, length, limit });
    if packet_id == 0 {
        return Err(EncodeError::PacketIdZero);
    }
    if header.is_empty() {
        return Err(EncodeError::Empty { what: "release header" });
    }
    if header.len() > limits.header as usize {
        return too_large("release header", header.len() as u64, limits.header.into());
    }
    if body > limits.body {
        return too_large("release body", body, limits.body);
    }
    if trailer != 0 && trailer != MAX_TRAILER {
        return Err(EncodeError::Trailer { length: trailer });
    }
    let topic = topic.as_str();
    let before_body = 2 + topic.len() + 2 + 4 + header.len();
    let total = before_body as u64 + body + trailer;
    let Some(remaining) = u32::try_from(total).ok().filter(|&length| length <= MAX_REMAINING) else {
        return too_large("release", total, MAX_REMAINING.into());
    };
    let flags = u8::from(dup) << 3 | 0b0010 | u8::from(retain);
    let mut out = BytesMut::with_capacity(MAX_FIXED_HEADER + before_body);
    FixedHeader { kind: Kind::Publish, flags, remaining }.encode(&mut out);
    // Both lengths were bounded above: a release's topic has at most 140 bytes.
    out.put_u16(topic.len() as u16);
    out.put_slice(topic.as_bytes());
    out.put_u16(packet_id);
    out.put_u32(header.len() as u32);
    out.put_slice(header);
    Ok(out.freeze())
}

/// PUBACK: the QoS 1 PUBLISH with this identifier was taken.
pub fn puback(packet_id: u16) -> Bytes {
    let [high, low] = packet_id.to_be_bytes();
    Bytes::copy_from_slice(&[0x40, 2, high, low])
}

/// PUBREC: the QoS 2 PUBLISH with this identifier was taken.
pub fn pubrec(packet_id: u16) -> Bytes {
    let [high, low] = packet_id.to_be_bytes();
    Bytes::copy_from_slice(&[0x50, 2, high, low])
}

/// PUBCOMP: what was taken with PUBREC is done with.
pub fn pubcomp(packet_id: u16) -> Bytes {
    let [high, low] = packet_id.to_be_bytes();
    Bytes::copy_from_slice(&[0x70, 2, high, low])
}

/// What CONNACK says (MQTT 3.1.1, 3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connack {
    /// Come in.
    Accepted {
        /// Whether the server still has the client's session.
        session_present: bool,
    },
    /// 1: only 3.1.1 is spoken here.
    UnacceptableProtocol,
    /// 2: this client identifier is not allowed.
    IdentifierRejected,
    /// 3: try later.
    ServerUnavailable,
    /// 4: user name or password wrong.
    BadCredentials,
    /// 5: not allowed to connect.
    NotAuthorized,
    /// The answer to an MQTT 5 client, in that version's form: unsupported protocol version, 0x84.
    UnsupportedVersion5,
}

/// CONNACK.
pub fn connack(answer: Connack) -> Bytes {
    let code = match answer {
        Connack::Accepted { session_present } => {
            return Bytes::copy_from_slice(&[0x20, 2, u8::from(session_present), 0]);
        }
        Connack::UnsupportedVersion5 => return Bytes::from_static(&[0x20, 3, 0, 0x84, 0]),
        Connack::UnacceptableProtocol => 1,
        Connack::IdentifierRejected => 2,
        Connack::ServerUnavailable => 3,
        Connack::BadCredentials => 4,
        Connack::NotAuthorized => 5,
    };
    Bytes::copy_from_slice(&[0x20, 2, 0, code])
}

/// The answer to one filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Granted {
    /// Subscribed, at most once.
    Qos0 = 0,
    /// Subscribed, at least once.
    Qos1 = 1,
    /// Subscribed, exactly once.
    Qos2 = 2,
    /// Refused.
    Failure = 0x80,
}

/// SUBACK: one answer per filter, in the order of the SUBSCRIBE.
///
/// # Errors
/// No answer at all, or more than a SUBSCRIBE can have filters.
pub fn suback(packet_id: u16, answers: &[Granted]) -> Result<Bytes, EncodeError> {
    let limit = Limits::default().control;
    let length = answers.len() + 2;
    if answers.is_empty() {
        return Err(EncodeError::Empty { what: "SUBACK" });
    }
    let Some(remaining) = u32::try_from(length).ok().filter(|&length| length <= limit) else {
        return Err(EncodeError::TooLarge { what: "SUBACK", length: length as u64, limit: limit.into() });
    };
    let mut out = BytesMut::with_capacity(MAX_FIXED_HEADER + length);
    FixedHeader { kind: Kind::Suback, flags: 0, remaining }.encode(&mut out);
    out.put_u16(packet_id);
    out.extend(answers.iter().map(|&answer| answer as u8));
    Ok(out.freeze())
}

/// UNSUBACK.
pub fn unsuback(packet_id: u16) -> Bytes {
    let [high, low] = packet_id.to_be_bytes();
    Bytes::copy_from_slice(&[0xB0, 2, high, low])
}

/// PINGREQ.
pub fn pingreq() -> Bytes {
    Bytes::from_static(&[0xC0, 0])
}

/// PINGRESP.
pub fn pingresp() -> Bytes {
    Bytes::from_static(&[0xD0, 0])
}

/// DISCONNECT.
pub fn disconnect() -> Bytes {
    Bytes::from_static(&[0xE0, 0])
}

/// A packet that the protocol does not allow; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are in the messages
pub enum EncodeError {
    #[error("the {what} to be sent has {length} bytes; the limit is {limit} bytes")]
    TooLarge { what: &'static str, length: u64, limit: u64 },
    #[error("the {what} to be sent is empty")]
    Empty { what: &'static str },
    #[error("a release's trailer is absent or 32 bytes long, not {length}")]
    Trailer { length: u64 },
    #[error("a release needs a packet identifier other than 0")]
    PacketIdZero,
}

fn control(kind: Kind, payload: &[u8]) -> Result<Bytes, EncodeError> {
    let limit = Limits::default().control;
    let what = if kind == Kind::Push { "PUSH" } else { "RESPONSE" };
    if payload.is_empty() {
        return Err(EncodeError::Empty { what });
    }
    let Some(remaining) = u32::try_from(payload.len()).ok().filter(|&length| length <= limit) else {
        return Err(EncodeError::TooLarge { what, length: payload.len() as u64, limit: limit.into() });
    };
    let mut out = BytesMut::with_capacity(MAX_FIXED_HEADER + payload.len());
    FixedHeader { kind, flags: 0, remaining }.encode(&mut out);
    out.put_slice(payload);
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_the_bytes_of_the_standard() {
        assert_eq!(push(b"ab").unwrap()[..], *b"\x00\x02ab");
        assert_eq!(response(b"ab").unwrap()[..], *b"\xF0\x02ab");
        assert_eq!(puback(0x8001)[..], [0x40, 2, 0x80, 1]);
        assert_eq!(connack(Connack::Accepted { session_present: true })[..], [0x20, 2, 1, 0]);
        assert_eq!(connack(Connack::IdentifierRejected)[..], [0x20, 2, 0, 2]);
        assert_eq!(connack(Connack::UnsupportedVersion5)[..], [0x20, 3, 0, 0x84, 0]);
        let answers = [Granted::Qos1, Granted::Failure, Granted::Qos0];
        assert_eq!(suback(7, &answers).unwrap()[..], [0x90, 5, 0, 7, 1, 0x80, 0]);
        assert_eq!(unsuback(7)[..], [0xB0, 2, 0, 7]);
    }

    #[test]
    fn a_release_head_claims_the_length_of_what_follows() {
        let topic = ReleaseTopic::new("a", "b").unwrap();
        let head = release_head(&topic, 0x8000, true, true, b"hd", 300, 32).unwrap();
        // 2 + 14 + 2 + 4 + 2 + 300 + 32 = 356 = 0x64 + 2·128.
        assert_eq!(head[..], *b"\x3B\xE4\x02\x00\x0etrireme/fw/a/b\x80\x00\x00\x00\x00\x02hd");
    }

    #[test]
    fn nothing_is_encoded_that_the_other_side_would_refuse() {
        let topic = ReleaseTopic::new("a", "b").unwrap();
        let head =
            |id, header: &[u8], body, trailer| release_head(&topic, id, false, false, header, body, trailer);
        let max = Limits::default();
        assert!(head(1, &vec![0; max.header as usize], max.body, 32).is_ok());
        assert!(head(1, &vec![0; max.header as usize + 1], 0, 0).is_err());
        assert!(head(1, b"h", max.body + 1, 0).is_err());
        assert!(head(1, b"h", u64::MAX, 32).is_err());
        assert!(head(1, b"h", 1, 31).is_err());
        assert!(head(1, b"", 1, 0).is_err());
        assert!(head(0, b"h", 1, 0).is_err());
        assert!(push(b"").is_err() && response(&vec![0; 65_537]).is_err() && push(&vec![0; 65_536]).is_ok());
        assert!(suback(1, &[]).is_err() && suback(1, &vec![Granted::Qos0; 65_536]).is_err());
    }
}
