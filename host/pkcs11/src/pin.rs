//! The pin: read when it is needed, wiped after.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use crate::{KeyUri, TokenError};

/// The most bytes of a pin.
pub(crate) const LONGEST_PIN: usize = 255;

/// The pin that the URI names, if it names one.
pub(crate) fn read(uri: &KeyUri) -> Result<Option<AuthPin>, TokenError> {
    match (uri.pin_source(), uri.pin_value()) {
        (Some(file), _) => from_file(file).map(|pin| Some(AuthPin::from(pin.as_str()))),
        (None, Some(pin)) => Ok(Some(AuthPin::from(pin))),
        (None, None) => Ok(None),
    }
}

fn from_file(file: &Path) -> Result<Zeroizing<String>, TokenError> {
    let cannot = |source| TokenError::PinFile { file: file.into(), source };
    // Mode and content of one open file: what is put in its place meanwhile does not count.
    let mut open = File::open(file).map_err(cannot)?;
    let metadata = open.metadata().map_err(cannot)?;
    if !metadata.is_file() {
        return Err(TokenError::PinFileContent { file: file.into(), why: "it is not an ordinary file" });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(TokenError::PinFileOpen { file: file.into(), mode });
    }
    // One allocation, so that no copy of the pin is left behind by one that grows; a line's end, and one byte to see
    // that there is more.
    let mut bytes = Zeroizing::new([0_u8; LONGEST_PIN + 3]);
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match open.read(rest).map_err(cannot)? {
            0 => break,
            count => length += count,
        }
    }
    let bytes = bytes.get(..length).unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let content = |why| TokenError::PinFileContent { file: file.into(), why };
    match std::str::from_utf8(bytes) {
        Err(_) => Err(content("it is not text in UTF-8")),
        Ok("") => Err(content("it is empty")),
        Ok(pin) if pin.len() > LONGEST_PIN => Err(content("it has more than 255 bytes")),
        Ok(pin) if pin.contains(['\n', '\r', '\0']) => Err(content("it has more than one line")),
        Ok(pin) => Ok(Zeroizing::new(pin.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::path::PathBuf;

    use super::*;

    fn written(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pin");
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        (folder, file)
    }

    #[test]
    fn a_pin_file_that_others_can_read_is_refused_and_the_error_says_which_mode_it_needs() {
        let (_folder, file) = written(b"secret-1234", 0o640);
        let said = from_file(&file).unwrap_err().to_string();
        assert!(said.contains("0640") && said.contains("chmod 600"), "{said}");
        assert!(!said.contains("secret-1234"));
    }

    #[test]
    fn the_end_of_the_line_is_no_part_of_the_pin() {
        for (content, pin) in [(&b"12 34"[..], "12 34"), (b"1234\n", "1234"), (b"1234\r\n", "1234")] {
            let (_folder, file) = written(content, 0o600);
            assert_eq!(from_file(&file).unwrap().as_str(), pin);
        }
        let (_folder, file) = written(&[b'7'; LONGEST_PIN], 0o400);
        assert_eq!(from_file(&file).unwrap().len(), LONGEST_PIN);
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        for content in [&b""[..], b"\n", b"1\n2\n", b"\xff\xfe", &[b'1'; LONGEST_PIN + 1], &[b'1'; 100_000]] {
            let (_folder, file) = written(content, 0o600);
            assert!(matches!(from_file(&file), Err(TokenError::PinFileContent { .. })), "{content:?}");
        }
        assert!(matches!(from_file(Path::new("/nowhere/pin")), Err(TokenError::PinFile { .. })));
        assert!(matches!(from_file(Path::new("/tmp")), Err(TokenError::PinFileContent { .. })));
    }
}
