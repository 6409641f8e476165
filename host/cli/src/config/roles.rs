//! Every key of every table, as data: read by the check, by the examples, and by the documentation.
//!
//! Keys of [`Reader::Role`] are those of the role crates' own `Config`, with the same defaults.

use trireme_core::RoleKind;

use super::front;
use super::schema::{Absent, Key, Kind, Reader};

/// `[node]`.
pub const NODE: &[Key] = &[
    host("name", Kind::Name, Absent::Needed, "the node's name, for logs and the status"),
    host("data", Kind::Path, Absent::Needed, "folder of the node's state; made where it is not there"),
    host(
        "admin",
        Kind::Path,
        Absent::Nothing("\"admin.sock\""),
        "administrator's Unix socket, at most 107 bytes long; admin.sock within `data` where none is named",
    ),
    host(
        "workers",
        Kind::Number(1, 256),
        Absent::Nothing("4"),
        "worker threads; twice the cores where none is named",
    ),
    host(
        "disk_reserve_mb",
        Kind::Number(0, 1_000_000),
        Absent::Default("64"),
        "MiB of disk to leave free: below that, releases are refused",
    ),
    host(
        "scrub_days",
        Kind::Number(0, 3650),
        Absent::Default("30"),
        "days in which every image is read again and checked, slowly; 0 for never",
    ),
    host(
        "log",
        Kind::Text,
        Absent::Default("\"info\""),
        "error, warn, info, debug or trace; also by part, like \"info,trireme_net=debug\"",
    ),
    host(
        "passphrase_file",
        Kind::File,
        Absent::Nothing("\"passphrase\""),
        "file with the passphrase of the private keys; new ones are encrypted under it as well. \
         $TRIREME_PASSPHRASE_FILE, where none is named",
    ),
];

/// `[trust]`.
pub const TRUST: &[Key] = &[host(
    "authority",
    Kind::FileOrFiles,
    Absent::Needed,
    "the authority's root certificate, in PEM: whom this node believes; a list, where there are several roots",
)];

pub use super::policies::{HOOKS, KEYS as POLICIES};

/// Roles in the order in which a network is built.
pub const ROLES: &[RoleKind] = &[
    RoleKind::Authority,
    RoleKind::Directory,
    RoleKind::Manufacturer,
    RoleKind::Broker,
    RoleKind::Gateway,
    RoleKind::Sensor,
];

/// All tables of a file, in the order of the examples.
pub const TABLES: &[&str] =
    &["node", "trust", "authority", "directory", "manufacturer", "broker", "gateway", "sensor", "policies"];

/// The keys of a role's table.
#[must_use]
pub fn keys(role: RoleKind) -> &'static [Key] {
    match role {
        RoleKind::Authority => AUTHORITY,
        RoleKind::Directory => DIRECTORY,
        RoleKind::Manufacturer => MANUFACTURER,
        RoleKind::Broker => BROKER,
        RoleKind::Gateway => GATEWAY,
        RoleKind::Sensor => SENSOR,
    }
}

const ID: Key = host(
    "id",
    Kind::Name,
    Absent::Nothing("\"my-id\""),
    "who this is; the certificate says it, and has to agree where this is set",
);
const CERTIFICATE: Key = host("certificate", Kind::File, Absent::Needed, "this role's certificate, in PEM");
const KEY: Key = host(
    "key",
    Kind::Key,
    Absent::Needed,
    "its private key: PKCS#8 in PEM, readable by its owner alone, under a passphrase or not; or pkcs11:… in a token",
);
const PLUGIN: Key = host(
    "plugin",
    Kind::File,
    Absent::Nothing("\"role.wasm\""),
    "a component that takes the place of the shipped one",
);
const GRANTS: Key = host(
    "grants",
    Kind::Table(GRANT_KEYS),
    Absent::Nothing("{ labels = [], links = [] }"),
    "what the plugin may do; what the shipped one may, where nothing is said",
);
const TIME_FROM: &str = "the authority's service: the time, news of revocation, renewal of the certificate";

const RENEW: Key = host(
    "renew",
    Kind::Flag,
    Absent::Default("true"),
    "whether the certificate is renewed at two thirds of its life, with a new key each time",
);
const FOLLOW_LISTS: Key = host(
    "follow_lists",
    Kind::Flag,
    Absent::Default("true"),
    "whether the authority tells news of revocation at once, over a question that it holds open",
);
const LISTS_EVERY: Key = host(
    "lists_every_s",
    Kind::Number(1, 86_400),
    Absent::Default("60"),
    "how often the authority is asked for news of revocation where it does not tell them at once, in seconds",
);

const GRANT_KEYS: &[Key] = &[
    host("labels", Kind::Texts, Absent::Nothing("[]"), "labels that it may sign or MAC under"),
    host("requests", Kind::Names, Absent::Nothing("[]"), "roles whose services it may ask"),
    host("links", Kind::Names, Absent::Nothing("[]"), "kinds of links it may open: mqtt, lan"),
    host("hooks", Kind::Names, Absent::Nothing("[]"), "hooks that it may ask"),
    host("certify", Kind::Flag, Absent::Default("false"), "whether it may have certificates issued"),
    host(
        "element",
        Kind::Flag,
        Absent::Default("false"),
        "whether it may use a sensor's secure element and slots",
    ),
];

const AUTHORITY: &[Key] = &[
    ID,
    CERTIFICATE,
    KEY,
    host("listen", Kind::Address, Absent::Needed, "where its service listens (HTTPS)"),
    host(
        "issuing_key",
        Kind::Key,
        Absent::Nothing("\"issuing/issuing.key\""),
        "an intermediate's private key, with which certificates are issued and lists signed; without it none are",
    ),
    host(
        "issuing_certificate",
        Kind::File,
        Absent::Nothing("\"issuing/issuing.pem\""),
        "the intermediate's certificate, which belongs to issuing_key, with those of its issuers below the root",
    ),
    host(
        "issued",
        Kind::Path,
        Absent::Nothing("\"issuing/register.jsonl\""),
        "what was issued with issuing_key by hand; read at each start, so that it can be revoked and renewed",
    ),
    host(
        "retired",
        Kind::Tables(RETIRED),
        Absent::Nothing("[{ key = \"issuing-1/issuing.key\", certificate = \"issuing-1/issuing.pem\" }]"),
        "earlier issuing keys, which issue nothing any more; their lists go on while certificates of theirs live",
    ),
    host(
        "renew",
        Kind::Flag,
        Absent::Default("true"),
        "whether it renews its own certificate, by issuing_key",
    ),
    role("certificate_days", Kind::Number(1, 3650), "90", "how long a certificate is valid"),
    role(
        "list_days",
        Kind::Number(1, 90),
        "7",
        "how long a revocation list is valid; a node that is cut off for longer trusts nobody until it has a new one",
    ),
    role(
        "list_every_hours",
        Kind::Number(1, 1080),
        "24",
        "how often lists are signed anew, at most half of list_days; at once when something is revoked",
    ),
    role("waiting", Kind::Number(0, 16_384), "4096", "the most questions for news of revocation held open"),
    optional(
        "register",
        Kind::Tables(REGISTER),
        "[{ role = \"manufacturer\", id = \"acme\", topic = \"acme\", models = [\"MD-01\"] }]",
        "what manufacturers are certified for; where any is listed, one that is not renews nothing",
    ),
    PLUGIN,
    GRANTS,
];

const RETIRED: &[Key] = &[
    host("key", Kind::Key, Absent::Needed, "the private key"),
    host(
        "certificate",
        Kind::File,
        Absent::Needed,
        "its certificate, with those of its issuers below the root",
    ),
];

const REGISTER: &[Key] = &[
    Key {
        absent: Absent::Needed,
        ..optional(
            "role",
            Kind::Choice(&["manufacturer", "broker", "gateway", "directory"]),
            "",
            "the node's role",
        )
    },
    Key { absent: Absent::Needed, ..optional("id", Kind::Name, "", "its identifier") },
    optional("topic", Kind::Name, "\"acme\"", "a manufacturer's topic"),
    optional("models", Kind::Names, "[\"MD-01\"]", "a manufacturer's models"),
];

const DIRECTORY: &[Key] = &[
    ID,
    CERTIFICATE,
    KEY,
    host("listen", Kind::Address, Absent::Needed, "where its service listens (HTTPS)"),
    optional("authority", Kind::Url("https"), "\"https://127.0.0.1:8443\"", TIME_FROM),
    RENEW,
    FOLLOW_LISTS,
    LISTS_EVERY,
    PLUGIN,
    GRANTS,
];

const MANUFACTURER: &[Key] = &[
    ID,
    CERTIFICATE,
    KEY,
    host(
        "models",
        Kind::Folder,
        Absent::Needed,
        "the store of its models' secrets, made by `trireme model add`",
    ),
    Key {
        absent: Absent::Needed,
        ..optional("directory", Kind::Url("https"), "", "the directory's service")
    },
    Key { absent: Absent::Needed, ..optional("authority", Kind::Url("https"), "", TIME_FROM) },
    Key {
        absent: Absent::Needed,
        ..optional("brokers", Kind::Tables(BROKERS), "", "its brokers, which it signs and announces")
    },
    role("collect_ms", MS, "60000", "from one collection of receipts to the next"),
    role("collect_soon_ms", MS, "3000", "the same while sensors are due to report on a new release"),
    role("retry_first_ms", MS, "1000", "the pause after a first failure; it doubles with each further one"),
    role("retry_most_ms", MS, "300000", "the longest pause between attempts"),
    role(
        "publish_timeout_ms",
        MS,
        "60000",
        "when a publication is answered though not every broker has it; it goes on",
    ),
    role("step_timeout_ms", MS, "30000", "how long a broker may take for one step"),
    optional(
        "expires_days",
        Kind::Number(1, 36500),
        "365",
        "days until no install of a release starts any more; never, where nothing is said",
    ),
    role(
        "refresh_before_days",
        Kind::Number(0, 36500),
        "7",
        "a release that expires is given its days again when so many are left; 0: never by itself",
    ),
    role("list_days", Kind::Number(1, 366), "30", "how long the announced list of brokers is good for"),
    role("concurrency", Kind::Number(1, 256), "8", "how many brokers are served at once"),
    role("sensors", Kind::Number(1, 1_000_000), "100000", "the most sensors of the inventory"),
    optional(
        "operators",
        Kind::Map(&Kind::Text, 64),
        "{ alice = \"04…\" }",
        "who can approve of releases, with their keys as `trireme rollout operator` shows them",
    ),
    RENEW,
    FOLLOW_LISTS,
    LISTS_EVERY,
    PLUGIN,
    GRANTS,
];

const BROKERS: &[Key] = &[
    Key { absent: Absent::Needed, ..optional("id", Kind::Name, "", "the broker's identifier") },
    Key { absent: Absent::Needed, ..optional("url", Kind::Broker, "", "where it listens") },
];

const QUOTA: &[Key] = &[BYTES, MODELS, LARGEST_IMAGE, BATCHES, RECEIPT_DAYS];

const QUOTAS: &[Key] = &[
    Key { absent: Absent::Needed, ..optional("manufacturer", Kind::Name, "", "whose quota it is") },
    BYTES,
    MODELS,
    LARGEST_IMAGE,
    BATCHES,
    RECEIPT_DAYS,
    optional(
        "largest",
        Kind::Tables(LARGEST_OF),
        "[{ model = \"MD-01\", bytes = 1048576 }]",
        "models with a limit of their own for an image",
    ),
];

const LARGEST_OF: &[Key] = &[
    Key { absent: Absent::Needed, ..optional("model", Kind::Name, "", "the model") },
    Key { absent: Absent::Needed, ..optional("bytes", IMAGE, "", "its largest image, in bytes") },
];

const BYTES: Key =
    optional("bytes", Kind::Number(1, 1 << 50), "1073741824", "the most bytes of images in all");
const MODELS: Key = optional("models", COUNT, "64", "the most models with a release");
const LARGEST_IMAGE: Key = optional("largest_image", IMAGE, "16777216", "the largest image, in bytes");
const BATCHES: Key = optional("batches", COUNT, "5000", "the most batches of receipts that wait");
const RECEIPT_DAYS: Key =
    optional("receipt_days", Kind::Number(1, 3650), "90", "the most days that a batch of receipts waits");

const SHARDS: &str =
    "instances that share its gateways, and so the cores; as many as there are cores where nothing is said";

const BROKER: &[Key] = &[
    ID,
    CERTIFICATE,
    KEY,
    host(
        "listen",
        Kind::Doors,
        Absent::Needed,
        "where it listens for MQTT: an address, or several as a list; mqtts://, ws:// and wss:// where they begin so",
    ),
    host(
        "without_certificate",
        Kind::Flag,
        Absent::Default("false"),
        "whether ordinary clients may come over TLS (mqtts, wss) without a certificate",
    ),
    host(
        "origins",
        Kind::Texts,
        Absent::Nothing("[\"https://panel.example\"]"),
        "origins of web pages that may connect over WebSocket; \"*\" for all",
    ),
    host(
        "access",
        Kind::File,
        Absent::Nothing("\"access.toml\""),
        "who may publish and subscribe which ordinary messages (docs/access.md); everybody all, where nothing is said",
    ),
    host("shards", Kind::Number(1, 64), Absent::Nothing("4"), SHARDS),
    front::CONNECTIONS,
    front::CONNECTIONS_PER_ADDRESS,
    front::HALF_OPEN_PER_ADDRESS,
    front::FRONT_PUSHES_PER_ADDRESS,
    front::FRONT_PUSHES_IN_ALL,
    front::CLIENT_QUEUE_BYTES,
    front::TOPICS,
    front::RETAINED_BYTES,
    front::BYTES_PER_FILTER,
    front::SESSIONS,
    optional("authority", Kind::Url("https"), "\"https://127.0.0.1:8443\"", TIME_FROM),
    role("largest_image", IMAGE, LARGEST, "the largest image taken, in bytes"),
    role("releases", COUNT, "4096", "the most releases kept, one for each topic and model"),
    role("deliveries", Kind::Number(1, 10_000), "64", "the most deliveries at a time"),
    role(
        "deliveries_per_manufacturer",
        Kind::Number(1, 10_000),
        "10000",
        "the most of them with releases of one manufacturer",
    ),
    role(
        "place_ms",
        MS,
        "10000",
        "for which a delivery counts as one of them; a slower one goes on beside them",
    ),
    role("slow_deliveries", Kind::Number(0, 100_000), "1024", "the most deliveries that go on beside them"),
    role(
        "spread_ms",
        Kind::Number(0, 315_360_000_000),
        "0",
        "over which deliveries of a new release begin, each at a random time",
    ),
    role("subscriptions_per_gateway", COUNT, "1024", "the most durable subscriptions of one gateway"),
    role(
        "batches_per_manufacturer",
        COUNT,
        "20000",
        "the most batches of receipts kept for one manufacturer",
    ),
    role("answer_ms", MS, "30000", "in which a peer has to answer a PUSH"),
    role("delivery_ms", MS, "3600000", "that a whole delivery may take, its acknowledgement included"),
    role("pushes_per_minute", COUNT, "60", "the most PUSHes that one link may send in a minute"),
    role("pushes_per_address", COUNT, "600", "the most PUSHes of unproven links of one address in a minute"),
    role("pushes_in_all", COUNT, "60000", "the most PUSHes from and to all unproven links in a minute"),
    role("denied_ms", MS, "600000", "after which a gateway that a policy denied is asked about again"),
    optional(
        "gateway_labels",
        Kind::Map(&LABELS, 4096),
        "{ \"gw-1*\" = { site = \"berlin\" } }",
        "labels of gateways, for policies: by name, or by its beginning",
    ),
    optional(
        "quota",
        Kind::Table(QUOTA),
        "{ bytes = 1073741824, models = 64, batches = 5000, receipt_days = 90 }",
        "what each manufacturer may keep here; what is not said is limited by the keys above alone",
    ),
    optional(
        "quotas",
        Kind::Tables(QUOTAS),
        "[{ manufacturer = \"acme\", bytes = 268435456, largest = [{ model = \"MD-01\", bytes = 1048576 }] }]",
        "the same for single manufacturers; what one of them does not say is as in quota",
    ),
    RENEW,
    FOLLOW_LISTS,
    LISTS_EVERY,
    PLUGIN,
    GRANTS,
];

/// Names with names; as many as anybody carries.
const LABELS: Kind = Kind::Map(&Kind::Name, 16);

const GATEWAY: &[Key] = &[
    ID,
    CERTIFICATE,
    KEY,
    host("lan", Kind::Address, Absent::Needed, "where its sensors find it"),
    Key {
        absent: Absent::Needed,
        ..optional("directory", Kind::Url("https"), "", "the directory's service")
    },
    optional("authority", Kind::Url("https"), "\"https://127.0.0.1:8443\"", TIME_FROM),
    role("directory_ms", MS, "3600000", "how often the directory is asked again when nothing changes"),
    role("reconnect_ms", MS, "60000", "T_R: from a disconnect to the next reconnect"),
    role("idle_ms", MS, "60000", "T_I: idle time after which it disconnects by itself"),
    role("stay_connected", Kind::Flag, "false", "never disconnects by itself"),
    role("largest_image", IMAGE, LARGEST, "the largest image taken, in bytes"),
    role("transfers", Kind::Number(1, 4096), "8", "the most transfers on the LAN at a time"),
    role("sensors", COUNT, "4096", "the most sensors known"),
    role("forget_sensor_ms", MS, "2592000000", "a sensor not seen for so long is forgotten"),
    role("announce_ms", MS, "30000", "how often a model is announced while sensors of it are behind"),
    role("offer_ms", MS, "30000", "how long a sensor may think about an offer"),
    role("install_ms", MS, "600000", "how long a sensor may take to install and report"),
    role("retry_reverted_ms", MS, "3600000", "when a release that a sensor gave up is offered to it again"),
    role("retry_reverted_times", Kind::Number(0, 1000), "3", "how often it is offered again"),
    role("denied_ms", MS, "600000", "when a sensor that a policy denied is asked about again"),
    role(
        "install_without_time",
        Kind::Flag,
        "false",
        "starts installs although the time is not proven; each is audited",
    ),
    role("receipts", COUNT, "10000", "the most receipts kept until a broker takes them"),
    optional(
        "labels",
        LABELS,
        "{ site = \"berlin\" }",
        "labels of this gateway; all of its sensors have them too",
    ),
    optional(
        "sensor_labels",
        Kind::Map(&LABELS, 4096),
        "{ \"sn-0*\" = { ring = \"canary\" } }",
        "labels of its sensors, by name, or by its beginning; they count before those that a sensor says itself",
    ),
    RENEW,
    // Gateways are many: they hear of revocation from their brokers at once, and ask themselves now and then.
    Key { absent: Absent::Default("false"), ..FOLLOW_LISTS },
    LISTS_EVERY,
    PLUGIN,
    GRANTS,
];

const SENSOR: &[Key] = &[
    host(
        "bundle",
        Kind::Path,
        Absent::Nothing("\"sn-001.bundle\""),
        "the sensor's secrets as the factory made them; used once, at the first start",
    ),
    host(
        "code",
        Kind::Text,
        Absent::Nothing("\"XXXX-XXXX-XXXX-XXXX-XXXX-XXXX-XXXX\""),
        "the bundle's one-time code; needed at the first start",
    ),
    host(
        "code_file",
        Kind::Path,
        Absent::Nothing("\"sn-001.code\""),
        "the same in a file, which is removed when the bundle was used",
    ),
    host(
        "bundles",
        Kind::Folder,
        Absent::Nothing("\"bundles\""),
        "instead of one bundle: a folder of them, each a sensor, with its code in <name>.code",
    ),
    host(
        "model",
        Kind::Text,
        Absent::Default("\"raw\""),
        "how images are taken: a shipped model, or a component's file (.wasm)",
    ),
    host(
        "model_settings",
        Kind::Map(&Kind::Text, 32),
        Absent::Nothing("{ key = \"…\" }"),
        "what the model is told, where it has settings (docs/models.md)",
    ),
    host(
        "slot_address",
        Kind::Number(0, 0x7fff_ffff_ffff_ffff),
        Absent::Default("0"),
        "where the image that runs begins in the processor's address space; for ihex and uf2",
    ),
    host(
        "slot_kb",
        Kind::Number(4, 261_120),
        Absent::Default("16384"),
        "KiB of each of the two slots; a larger image does not fit",
    ),
    host(
        "self_test",
        Kind::SelfTest,
        Absent::Default("\"pass\""),
        "how an emulated sensor's self-test of a new image ends: pass, fail, or { fail_for = \"1.3\" }",
    ),
    optional("gateway", Kind::Url("lan"), "\"lan://127.0.0.1:4100\"", "where its gateway listens"),
    role("largest_image", IMAGE, LARGEST, "the largest image taken, in bytes"),
    role("reconnect_ms", MS, "1000", "the first pause before connecting again; it doubles"),
    role("retry_ms", MS, "5000", "the first pause before a failed transfer is asked for again; it doubles"),
    role("longest_pause_ms", MS, "300000", "the longest pause of both"),
    role("hello_ms", MS, "60000", "how often it says hello on open links"),
    role("receipt_ms", MS, "10000", "how often receipts that are owed are sent again"),
    role("transfer_timeout_ms", MS, "60000", "an image that was asked for has to begin within this time"),
    role("receive_timeout_ms", MS, "3600000", "an image that began has to be whole within this time"),
    role("self_test_timeout_ms", MS, "60000", "an image on trial has to pass its test within this time"),
    optional("labels", LABELS, "{ ring = \"canary\" }", "labels that it carries, for selections"),
    optional(
        "facts",
        Kind::Map(&Kind::Integer, 16),
        "{ battery = 80 }",
        "what it knows of its condition at the start; `trireme sensor facts` says it anew",
    ),
    PLUGIN,
    GRANTS,
];

/// A duration: up to ten years.
const MS: Kind = Kind::Number(1, 315_360_000_000);
const COUNT: Kind = Kind::Number(1, 1_000_000);
const IMAGE: Kind = Kind::Number(1, trireme_core::message::LARGEST_IMAGE);
/// 255 MiB.
const LARGEST: &str = "267386880";

const fn host(name: &'static str, kind: Kind, absent: Absent, doc: &'static str) -> Key {
    Key { name, kind, absent, reader: Reader::Host, doc }
}

const fn role(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, absent: Absent::Default(default), reader: Reader::Role, doc }
}

const fn optional(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind, absent: Absent::Nothing(example), reader: Reader::Role, doc }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_image_is_the_one_of_the_protocol() {
        assert_eq!(LARGEST.parse::<u64>().unwrap(), trireme_core::message::LARGEST_IMAGE);
    }

    #[test]
    fn no_table_has_a_key_twice() {
        for role in ROLES {
            let mut names: Vec<_> = keys(*role).iter().map(|key| key.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{role}");
        }
    }
}
