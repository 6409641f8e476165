//! Finding a token and logging in.

use std::time::Duration;

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};

use crate::error::said;
use crate::{Found, KeyUri, TokenError, module, pin};

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Using what is there.
    Read,
    /// Making keys.
    Write,
}

/// How often a library that knows no token is asked for one, and the pause before the second time; the next ones are
/// longer. Three seconds in all.
const LOOKS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(200);

/// A session with the URI's token, logged in.
pub(crate) fn open(uri: &KeyUri, access: Access) -> Result<Session, TokenError> {
    let mut module = module::get(uri.module_path())?;
    let mut looks = 1;
    let (slot, token) = loop {
        match find(&module, uri) {
            // A token in software is not seen while another process writes to it, and a library that has seen none does
            // not look again by itself. It has no sessions that could be lost.
            Err(TokenError::NoToken { found, .. }) if found.0.is_empty() && looks < LOOKS => {
                std::thread::sleep(PAUSE * looks);
                looks += 1;
                module = module::anew(uri.module_path())?;
            }
            found => break found?,
        }
    };
    let session = match access {
        Access::Read => module.open_ro_session(slot),
        Access::Write => module.open_rw_session(slot),
    };
    let session = session.map_err(refused(uri, "open a session"))?;
    log_in(&module, slot, &token, &session, uri)?;
    Ok(session)
}

/// For errors of calls to the token.
pub(crate) fn refused(uri: &KeyUri, doing: &'static str) -> impl Fn(Error) -> TokenError {
    move |error| TokenError::Refused { token: uri.token().to_owned(), doing, why: said(&error) }
}

fn find(module: &Pkcs11, uri: &KeyUri) -> Result<(Slot, TokenInfo), TokenError> {
    let slots = module.get_slots_with_token().map_err(refused(uri, "be looked for"))?;
    // A slot that does not answer, or whose token is blank, has not the token that we look for.
    let tokens: Vec<(Slot, TokenInfo)> = slots
        .into_iter()
        .filter_map(|slot| Some((slot, module.get_token_info(slot).ok()?)))
        .filter(|(_, token)| token.token_initialized())
        .collect();
    let is_it = |token: &TokenInfo| {
        token.label() == uri.token() && uri.serial().is_none_or(|serial| serial == token.serial_number())
    };
    let mut fitting = tokens.iter().filter(|(_, token)| is_it(token));
    match (fitting.next(), fitting.next()) {
        (Some((slot, token)), None) => Ok((*slot, token.clone())),
        (None, _) => Err(TokenError::NoToken {
            token: uri.token().to_owned(),
            found: Found(tokens.iter().map(|(_, token)| token.label().to_owned()).collect()),
        }),
        (Some(_), Some(_)) => {
            let serials = tokens.iter().filter(|(_, token)| is_it(token));
            Err(TokenError::TwoTokens {
                token: uri.token().to_owned(),
                found: Found(serials.map(|(_, token)| token.serial_number().to_owned()).collect()),
            })
        }
    }
}

fn log_in(
    module: &Pkcs11,
    slot: Slot,
    info: &TokenInfo,
    session: &Session,
    uri: &KeyUri,
) -> Result<(), TokenError> {
    if !info.login_required() {
        return Ok(());
    }
    let token = || uri.token().to_owned();
    if info.user_pin_locked() {
        return Err(TokenError::PinLocked { token: token() });
    }
    if info.user_pin_final_try() {
        // A daemon that is started again and again must not be what locks a token for good.
        return Err(TokenError::LastTry { token: token() });
    }
    let pin = pin::read(uri)?;
    if pin.is_none() && !info.protected_authentication_path() {
        return Err(TokenError::NoPin { token: token() });
    }
    match session.login(UserType::User, pin.as_ref()) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
            let few_left = module
                .get_token_info(slot)
                .is_ok_and(|info| info.user_pin_final_try() || info.user_pin_locked());
            Err(TokenError::WrongPin { token: token(), few_left })
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(TokenError::PinLocked { token: token() }),
        Err(error) => Err(refused(uri, "log in")(error)),
    }
}
