//! Packet types, the fixed header and the limits (MQTT 3.1.1, section 2.2).

use bytes::{BufMut, BytesMut};

/// The largest value that the remaining length can carry, in bytes (MQTT 3.1.1, 2.2.3).
pub const MAX_REMAINING: u32 = 268_435_455;

/// The longest trailer of a release, in bytes: one HMAC-SHA-256 tag.
pub const MAX_TRAILER: u64 = 32;

/// The longest a fixed header can be, in bytes.
pub const MAX_FIXED_HEADER: usize = 5;

/// A control packet's type: the high half of its first byte.
///
/// 0 and 15 are reserved in MQTT 3.1.1 and defined by the thesis (section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // the standard's names
pub enum Kind {
    /// Opens a key agreement: client to server on tier 1, server to client on tier 2.
    Push = 0,
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    /// Answers a PUSH, and carries every typed message after the key agreement.
    Response = 15,
}

impl Kind {
    /// The type in a packet's first byte. Every value of the high half is a type.
    pub fn of(first: u8) -> Self {
        match first >> 4 {
            0 => Self::Push,
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            _ => Self::Response,
        }
    }

    /// The flags this type must carry; `None` for PUBLISH, whose flags mean something.
    fn flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }

    /// The remaining length this type must have, where the standard leaves no choice.
    fn fixed_length(self) -> Option<u32> {
        match self {
            Self::Connack | Self::Puback | Self::Pubrec | Self::Pubrel | Self::Pubcomp | Self::Unsuback => {
                Some(2)
            }
            Self::Pingreq | Self::Pingresp | Self::Disconnect => Some(0),
            _ => None,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Push => "PUSH",
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Response => "RESPONSE",
        })
    }
}

/// How large what may be, in bytes. Checked as soon as the length is read, before room is made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Payload of PUSH and RESPONSE; remaining length of CONNECT, SUBSCRIBE, SUBACK and UNSUBSCRIBE.
    pub control: u32,
    /// Remaining length of a PUBLISH that is no release.
    pub ordinary: u32,
    /// Header of a release.
    pub header: u32,
    /// Body of a release, without header and trailer.
    pub body: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { control: 64 * 1024, ordinary: 256 * 1024, header: 64 * 1024, body: 255 * 1024 * 1024 }
    }
}

/// A packet's first two to five bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHeader {
    /// The packet's type.
    pub kind: Kind,
    /// The low half of the first byte. Means something in PUBLISH only.
    pub flags: u8,
    /// Bytes after this header.
    pub remaining: u32,
}

impl FixedHeader {
    /// Reads a header from the front of `input` and says how many bytes it took. `None`: the header is not complete.
    ///
    /// # Errors
    /// Flags that the type does not allow, a length of more than four bytes or in a longer form than needed, a length that
    /// the type does not allow.
    pub fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some((&first, rest)) = input.split_first() else { return Ok(None) };
        let (kind, flags) = (Kind::of(first), first & 0x0F);
        check_flags(kind, flags)?;
        let Some((remaining, used)) = parse_length(rest)? else { return Ok(None) };
        match kind.fixed_length() {
            Some(wanted) if wanted != remaining => Err(FrameError::Length { kind, length: remaining }),
            _ => Ok(Some((Self { kind, flags, remaining }, 1 + used))),
        }
    }

    /// Appends the header to `out`, its length in the shortest form. A length above [`MAX_REMAINING`] is the caller's
    /// error to find; only its low 28 bits would be written.
    pub fn encode(self, out: &mut BytesMut) {
        out.put_u8((self.kind as u8) << 4 | (self.flags & 0x0F));
        let mut left = self.remaining & MAX_REMAINING;
        loop {
            let low = (left & 0x7F) as u8;
            left >>= 7;
            out.put_u8(if left > 0 { low | 0x80 } else { low });
            if left == 0 {
                return;
            }
        }
    }

    /// Quality of service of a PUBLISH: 0, 1 or 2.
    pub fn qos(self) -> u8 {
        self.flags >> 1 & 0b11
    }

    /// Whether a PUBLISH says that it was sent before.
    pub fn dup(self) -> bool {
        self.flags & 0b1000 != 0
    }

    /// Whether a PUBLISH is to be retained, or comes from what was retained.
    pub fn retain(self) -> bool {
        self.flags & 0b0001 != 0
    }
}

/// What makes a stream of bytes unusable. The connection it came from must be closed: there is no way back into step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are in the messages
pub enum FrameError {
    #[error("the peer sent a {kind} packet with flags {flags:#06b}, which MQTT 3.1.1 forbids")]
    Flags { kind: Kind, flags: u8 },
    #[error("the peer sent a remaining length of more than four bytes, which MQTT forbids")]
    LengthTooLong,
    #[error("the peer wrote a remaining length with superfluous bytes; the shortest form is required")]
    LengthNotShortest,
    #[error("the peer sent a {kind} packet with {length} bytes, which that type cannot have")]
    Length { kind: Kind, length: u32 },
    #[error("the peer sent a {kind} packet of {length} bytes; the limit is {limit} bytes")]
    TooLarge { kind: Kind, length: u64, limit: u64 },
    #[error("the peer sent a {kind} packet without a payload")]
    Empty { kind: Kind },
    #[error("the peer sent packet identifier 0, which MQTT forbids")]
    PacketIdZero,
    #[error(
        "the peer published below trireme/fw/, but the topic is not trireme/fw/<Topic>/<MD> with valid names"
    )]
    ReleaseTopic,
    #[error(
        "the peer published a release of {remaining} bytes, too few for its topic, identifier and header"
    )]
    ReleaseTooShort { remaining: u32 },
    #[error(
        "the peer published a release with a header of {length} bytes; between 1 and {limit} are allowed"
    )]
    ReleaseHeader { length: u32, limit: u32 },
}

fn check_flags(kind: Kind, flags: u8) -> Result<(), FrameError> {
    let fine = match kind.flags() {
        Some(wanted) => flags == wanted,
        // QoS 3 does not exist, and what is sent at QoS 0 is never sent again (3.3.1).
        None => flags & 0b0110 != 0b0110 && (flags & 0b1000 == 0 || flags & 0b0110 != 0),
    };
    if fine { Ok(()) } else { Err(FrameError::Flags { kind, flags }) }
}

fn parse_length(input: &[u8]) -> Result<Option<(u32, usize)>, FrameError> {
    let mut value = 0;
    for (index, &byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return match (index, byte) {
                (1.., 0) => Err(FrameError::LengthNotShortest),
                _ => Ok(Some((value, index + 1))),
            };
        }
    }
    if input.len() >= 4 { Err(FrameError::LengthTooLong) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(remaining: u32) -> FixedHeader {
        FixedHeader { kind: Kind::Publish, flags: 0b0010, remaining }
    }

    #[test]
    fn lengths_at_every_border_are_those_of_the_standard() {
        // Table 2.4 of MQTT 3.1.1.
        let table: [(u32, &[u8]); 9] = [
            (0, &[0x00]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (MAX_REMAINING, &[0xFF, 0xFF, 0xFF, 0x7F]),
            (321, &[0xC1, 0x02]),
        ];
        for (length, bytes) in table {
            let mut out = BytesMut::new();
            publish(length).encode(&mut out);
            assert_eq!(&out[1..], bytes, "{length}");
            assert_eq!(FixedHeader::parse(&out), Ok(Some((publish(length), out.len()))));
            for cut in 0..out.len() {
                assert_eq!(FixedHeader::parse(&out[..cut]), Ok(None), "{length} cut at {cut}");
            }
        }
    }

    #[test]
    fn overlong_and_endless_lengths_are_refused() {
        for bytes in [&[0x32, 0x80, 0x00][..], &[0x32, 0xFF, 0x80, 0x00], &[0x32, 0x80, 0x80, 0x80, 0x00]] {
            assert_eq!(FixedHeader::parse(bytes), Err(FrameError::LengthNotShortest));
        }
        assert_eq!(FixedHeader::parse(&[0x32, 0xFF, 0xFF, 0xFF, 0xFF]), Err(FrameError::LengthTooLong));
    }

    #[test]
    fn every_type_takes_only_the_flags_of_the_standard() {
        for first in 0..=255_u8 {
            let (kind, flags) = (Kind::of(first), first & 0x0F);
            assert_eq!(kind as u8, first >> 4);
            let allowed: &[u8] = match kind {
                Kind::Publish => &[0, 1, 2, 3, 4, 5, 10, 11, 12, 13],
                Kind::Pubrel | Kind::Subscribe | Kind::Unsubscribe => &[2],
                _ => &[0],
            };
            assert_eq!(check_flags(kind, flags).is_ok(), allowed.contains(&flags), "{first:#x}");
        }
    }

    #[test]
    fn packets_of_a_fixed_size_have_no_other() {
        assert_eq!(
            FixedHeader::parse(&[0xC0, 1]),
            Err(FrameError::Length { kind: Kind::Pingreq, length: 1 })
        );
        assert_eq!(FixedHeader::parse(&[0x40, 3]), Err(FrameError::Length { kind: Kind::Puback, length: 3 }));
        assert!(FixedHeader::parse(&[0x40, 2]).is_ok());
    }
}
