//! A sensor whose plug is pulled at every single operation of its flash, whatever it is doing.
//!
//! Each step of an update is done once under power, to count its operations. Then it is done again for each of them, and
//! for each way in which an operation can be torn, on a device that is otherwise the same: the plug is pulled, the power
//! comes back, and the device boots. What runs then must be the old image or the new one, whole, under its own version;
//! the floor has not fallen; and the update, done once more, comes to its end.

use std::fmt;

use trireme_core::Version;
use trireme_core::model::{Device, Info, Layout, Model, NotInstalled, install};
use trireme_store::{Nor, Slot, Slots, Torn, Trial};

/// All that can become of an operation while the power goes.
const TORN: [Torn; 4] = [Torn::Before, Torn::Half, Torn::Bits, Torn::After];

/// A model under test.
pub struct Case<'a> {
    /// Its name.
    pub model: &'a str,
    /// Makes it, anew for each use, as a node does.
    pub make: &'a dyn Fn() -> Box<dyn Model + Send>,
    /// The flash.
    pub layout: Layout,
    /// What the factory put in, and its version.
    pub old: (&'a [u8], Version),
    /// What is installed.
    pub new: Update<'a>,
}

/// An image.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// As it comes to the model.
    pub file: &'a [u8],
    /// As it is in the slot afterwards, from its beginning on.
    pub content: &'a [u8],
    /// Its version.
    pub version: Version,
}

/// What became of one step, cut at each of its operations in each way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The model.
    pub model: String,
    /// The units of the flash, in bytes: erased, and written.
    pub units: (u32, u32),
    /// What the device was doing.
    pub step: &'static str,
    /// Operations of the flash in it.
    pub operations: u64,
    /// How often the plug was pulled.
    pub cuts: u64,
    /// How often the old image ran afterwards.
    pub old: u64,
    /// How often the new one ran, on trial.
    pub trial: u64,
    /// How often the new one ran and was confirmed: the floor has risen to its version.
    pub confirmed: u64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, units: (erased, written), step, operations, cuts, old, trial, confirmed } = self;
        write!(
            f,
            "| `{model}` | {erased} / {written} | {step} | {operations} | {cuts} | {old} | {trial} | {confirmed} |"
        )
    }
}

/// The head of a table of rows.
pub const HEAD: &str = "| model | erased / written at once, bytes | while it | operations | cuts | old image | new image, on trial | new image, confirmed |\n|---|---|---|---|---|---|---|---|";

/// What a device does.
type Step = fn(&Case<'_>, &mut Slots<Nor>) -> Result<(), String>;

/// Cuts all steps of an update, and of one that is given up.
///
/// # Errors
/// In words: after which cut what was not as it has to be.
pub fn explore(case: &Case<'_>) -> Result<Vec<Row>, String> {
    let mut flash = Nor::new(case.layout)?;
    flash.program(Slot::A, case.old.0);
    // What an earlier update has left in the spare slot.
    flash.program(Slot::B, case.old.0);
    let factory = Slots::made(flash, case.layout, case.old.1).map_err(|error| error.to_string())?;
    let fresh = factory.into_medium();
    let after = |flash: &Nor, steps: &[Step]| {
        let mut device = powered(case, flash.clone())?;
        steps.iter().try_for_each(|step| step(case, &mut device))?;
        Ok::<_, String>(device.into_medium())
    };
    let installed = after(&fresh, &[boot, update])?;
    let on_trial = after(&installed, &[boot])?;
    // A device is opened before it boots: what a running one does begins without a restart.
    let rows: [(&'static str, &Nor, Step); 5] = [
        ("installs", &fresh, update),
        ("boots on trial", &installed, boot),
        ("confirms", &on_trial, confirm),
        ("reverts", &on_trial, revert),
        ("gives up what was not confirmed", &on_trial, boot),
    ];
    rows.into_iter().map(|(name, before, step)| cut_everywhere(case, name, before, step)).collect()
}

fn cut_everywhere(case: &Case<'_>, name: &'static str, before: &Nor, step: Step) -> Result<Row, String> {
    let mut whole = powered(case, before.clone())?;
    step(case, &mut whole).map_err(|why| format!("{name}: {why}"))?;
    let operations = whole.medium().operations();
    let floor = whole_floor(case, before)?;
    let (mut cuts, mut old, mut trial, mut confirmed) = (0, 0, 0, 0);
    for at in 1..=operations {
        for torn in TORN {
            cuts += 1;
            let wrong = |what: String| {
                format!("{}: {name}, cut at operation {at} of {operations} ({torn:?}): {what}", case.model)
            };
            match cut(case, before, step, at, torn, floor).map_err(wrong)? {
                Runs::Old => old += 1,
                Runs::NewOnTrial => trial += 1,
                Runs::New => confirmed += 1,
            }
        }
    }
    let units = (case.layout.erase_unit, case.layout.write_unit);
    Ok(Row { model: case.model.into(), units, step: name, operations, cuts, old, trial, confirmed })
}

/// What runs.
enum Runs {
    Old,
    NewOnTrial,
    New,
}

/// One cut, and all that has to hold after it.
fn cut(
    case: &Case<'_>,
    before: &Nor,
    step: Step,
    at: u64,
    torn: Torn,
    floor: Version,
) -> Result<Runs, String> {
    let mut flash = before.clone();
    flash.power();
    flash.cut_at(at, torn);
    let mut device = Slots::on(flash, case.layout).map_err(|error| error.to_string())?;
    // Whoever works on a device without power hears of it, or was done already.
    let _ = step(case, &mut device);
    let flash = device.into_medium();
    if !flash.is_dead() {
        return Err("the plug was not pulled".into());
    }
    let mut device = powered(case, flash)?;
    boot(case, &mut device)?;
    let runs = look(case, &device)?;
    let record = device.record();
    if record.floor < floor {
        return Err(format!("the floor fell from {floor} to {}", record.floor));
    }
    // It goes on: to the new version, from wherever it is.
    match runs {
        Runs::Old => {
            update(case, &mut device)?;
            boot(case, &mut device)?;
            confirm(case, &mut device)?;
        }
        Runs::NewOnTrial => confirm(case, &mut device)?,
        Runs::New => {}
    }
    boot(case, &mut device)?;
    match look(case, &device)? {
        Runs::New => Ok(runs),
        _ => Err("the update does not come to its end afterwards".into()),
    }
}

/// Which image runs, whole and under its own version.
fn look(case: &Case<'_>, device: &Slots<Nor>) -> Result<Runs, String> {
    let (slot, version) = device.running();
    let record = device.record();
    let begins_with = |image: &[u8]| device.medium().slot(slot).starts_with(image);
    let on_trial = matches!(record.trial, Trial::Running { .. });
    if version == case.old.1 && begins_with(case.old.0) && !on_trial {
        return Ok(Runs::Old);
    }
    if version != case.new.version || !begins_with(case.new.content) {
        return Err(format!("slot {slot:?} runs as {version}, and is neither image"));
    }
    match (on_trial, record.floor == case.new.version) {
        (true, false) => Ok(Runs::NewOnTrial),
        (false, true) => Ok(Runs::New),
        _ => Err(format!("{version} runs, on trial: {on_trial}, and the floor is {}", record.floor)),
    }
}

fn whole_floor(case: &Case<'_>, flash: &Nor) -> Result<Version, String> {
    Ok(powered(case, flash.clone())?.record().floor)
}

fn powered(case: &Case<'_>, mut flash: Nor) -> Result<Slots<Nor>, String> {
    flash.power();
    Slots::on(flash, case.layout).map_err(|error| error.to_string())
}

fn update(case: &Case<'_>, device: &mut Slots<Nor>) -> Result<(), String> {
    let Update { file: image, version, .. } = case.new;
    let mut model = (case.make)();
    let mut read = |offset: u64, window: &mut [u8]| {
        let from = usize::try_from(offset).map_err(|error| error.to_string())?;
        window.copy_from_slice(image.get(from..from + window.len()).ok_or("the image is shorter")?);
        Ok::<_, String>(())
    };
    let done: Result<Info, _> = install(&mut *model, device, image.len() as u64, &mut read, |_| Ok(()));
    done.map_err(|failed| match failed {
        NotInstalled::Refused(reject) => reject.to_string(),
        NotInstalled::Unread(why) => why,
    })?;
    device.announce(version);
    model.activate(device, true).map_err(|reject| reject.to_string())
}

fn boot(_: &Case<'_>, device: &mut Slots<Nor>) -> Result<(), String> {
    device.boot().map(drop).map_err(|error| error.to_string())
}

fn confirm(case: &Case<'_>, device: &mut Slots<Nor>) -> Result<(), String> {
    (case.make)().confirm(device as &mut dyn Device).map_err(|reject| reject.to_string())
}

fn revert(case: &Case<'_>, device: &mut Slots<Nor>) -> Result<(), String> {
    (case.make)().revert(device as &mut dyn Device).map_err(|reject| reject.to_string())
}
