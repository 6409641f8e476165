//! SoftHSM with tokens of a test's own.
//!
//! Its library reads the environment variable `SOFTHSM2_CONF` when it is initialised, and is initialised once in a
//! process. So each test runs its body in a process of its own: the test program starts itself with that variable
//! and the name of the one test.

use std::any::type_name;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use trireme_pkcs11::KeyUri;

pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub(crate) const PIN: &str = "pin-of-the-hall";
/// The token that is there.
pub(crate) const HALL: &str = "Hall 3";

const HOME: &str = "TRIREME_PKCS11_TEST_HOME";

pub(crate) struct SoftHsm {
    home: PathBuf,
}

/// Runs the body in a process of its own, with one token.
pub(crate) fn alone<Body: FnOnce(&SoftHsm)>(body: Body) {
    if let Some(home) = std::env::var_os(HOME) {
        let softhsm = SoftHsm { home: home.into() };
        body(&softhsm);
        return fs::write(softhsm.path("finished"), "").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let softhsm = SoftHsm { home: folder.path().into() };
    softhsm.furnish();
    // crate::module::test::{{closure}}
    let name: Vec<&str> =
        type_name::<Body>().split("::").skip(1).take_while(|part| !part.contains('{')).collect();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&name.join("::"), "--exact", "--nocapture", "--test-threads=1"])
        .env(HOME, folder.path())
        .env("SOFTHSM2_CONF", softhsm.path("softhsm2.conf"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(softhsm.path("finished").exists(), "the test did not run: {name:?}: {said}");
}

impl SoftHsm {
    fn furnish(&self) {
        fs::create_dir(self.path("tokens")).unwrap();
        let tokens = self.path("tokens");
        let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        fs::write(self.path("softhsm2.conf"), text).unwrap();
        self.init_token(HALL);
        self.write_pin(PIN);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Another token. A library that runs already sees it when it looks for slots again.
    pub(crate) fn init_token(&self, label: &str) {
        let arguments = ["--init-token", "--free", "--label", label, "--so-pin", "officer", "--pin", PIN];
        let mut util = Command::new("softhsm2-util");
        util.args(arguments).env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        let output = util.output().expect("softhsm2 is installed (Debian package softhsm2)");
        assert!(output.status.success(), "{output:?}");
    }

    pub(crate) fn write_pin(&self, pin: &str) {
        let file = self.path("pin");
        fs::write(&file, format!("{pin}\n")).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    }

    /// A key in the token that is there, with the right pin.
    pub(crate) fn key(&self, object: &str) -> KeyUri {
        self.uri(&format!("token=Hall%203;object={object}"))
    }

    pub(crate) fn uri(&self, path: &str) -> KeyUri {
        let text = format!("pkcs11:{path}?module-path={MODULE}&pin-source={}", self.path("pin").display());
        text.parse().unwrap()
    }

    /// Runs a program in the test's folder.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).current_dir(&self.home).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        said
    }
}

/// The library as another part of the same process would use it.
pub(crate) struct Neighbour {
    pub(crate) session: Session,
}

impl Neighbour {
    /// Works when the library is initialised, and somebody may be logged in.
    pub(crate) fn new() -> Self {
        let module = Pkcs11::new(Path::new(MODULE)).unwrap();
        let slots = module.get_slots_with_initialized_token().unwrap();
        let is_it = |slot: &Slot| module.get_token_info(*slot).unwrap().label() == HALL;
        let slot = slots.into_iter().find(is_it).unwrap();
        let session = module.open_rw_session(slot).unwrap();
        // Refused where somebody is logged in: it counts for all.
        let _ = session.login(UserType::User, Some(&AuthPin::from(PIN)));
        Self { session }
    }

    /// A key pair such as ours would not be.
    pub(crate) fn generate(&self, odd: &Odd<'_>) -> (ObjectHandle, ObjectHandle) {
        let both =
            [Attribute::Token(true), Attribute::KeyType(KeyType::EC), Attribute::Label(odd.label.into())];
        let mut public = both.to_vec();
        public.extend([Attribute::Id(odd.id.to_vec()), Attribute::EcParams(odd.curve.to_vec())]);
        let mut private = both.to_vec();
        private.extend([
            Attribute::Id(odd.id.to_vec()),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(odd.extractable),
            Attribute::Sign(odd.signs),
        ]);
        self.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap()
    }
}

pub(crate) struct Odd<'a> {
    pub(crate) label: &'a str,
    pub(crate) id: &'a [u8],
    pub(crate) curve: &'a [u8],
    pub(crate) extractable: bool,
    pub(crate) signs: bool,
}

pub(crate) const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(crate) const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

impl<'a> Odd<'a> {
    /// Nothing odd yet.
    pub(crate) fn new(label: &'a str, id: &'a [u8]) -> Self {
        Self { label, id, curve: P256, extractable: false, signs: true }
    }
}
