//! Codes of faults.

/// Bytes that do not follow the format.
pub const MALFORMED: &str = "malformed";
/// A message that does not fit the state of the exchange.
pub const UNEXPECTED: &str = "unexpected";
/// A certificate that does not verify, or not for this.
pub const CERTIFICATE: &str = "certificate";
/// A certificate that was revoked, or whose issuer was: unlike an expired one it never counts again.
pub const REVOKED: &str = "revoked";
/// A signature, MAC, tag or Token that does not verify.
pub const AUTHENTICATION: &str = "authentication";
/// Authenticated, but not allowed to do this.
pub const FORBIDDEN: &str = "forbidden";
/// A version that is not above the one known.
pub const VERSION: &str = "version";
/// The same version with other bytes.
pub const CONFLICT: &str = "conflict";
/// Not known here.
pub const UNKNOWN: &str = "unknown";
/// Larger, longer or more than allowed.
pub const LIMIT: &str = "limit";
/// A policy said no, or not yet.
pub const POLICY: &str = "policy";
/// Past its date, or the time is not proven.
pub const TIME: &str = "time";
/// The plugin was not granted this.
pub const NOT_GRANTED: &str = "not-granted";
/// The network or a peer failed.
pub const NETWORK: &str = "network";
/// The disk is full or failed.
pub const STORAGE: &str = "storage";
/// An image whose bytes are not what its digest says, or are gone: it is of no use, and can be fetched again.
pub const DAMAGED: &str = "damaged";
/// The sensor's model refused the image.
pub const IMAGE: &str = "image";
/// A configuration that cannot work.
pub const CONFIGURATION: &str = "configuration";
/// A fault of the software itself.
pub const INTERNAL: &str = "internal";
/// The plugin failed in the middle of a handler and is gone. Only the host says this.
pub const TRAP: &str = "trap";
