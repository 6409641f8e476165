//! A configuration's text, and what is wrong with it: always with file, line and key.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The text of one file.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    pub(crate) text: String,
}

impl Source {
    /// Line of a byte, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    /// A path of the configuration: relative ones start at its folder.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(text)
    }

    pub(crate) fn problem(
        &self,
        at: &Range<usize>,
        key: impl Into<String>,
        what: impl Into<String>,
    ) -> Problem {
        Problem { file: self.file.clone(), line: self.line(at.start), key: key.into(), what: what.into() }
    }
}

/// One thing that is wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The configuration's file.
    pub file: PathBuf,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// The key with its table, for example `broker.listen` or `sensor[2].bundle`; empty where there is none.
    pub key: String,
    /// What is wrong, and what was expected.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

/// All that is wrong: a person corrects it in one go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// The one problem of a file that could not be looked into.
    #[must_use]
    pub fn of_file(file: &Path, what: impl Into<String>) -> Self {
        Self(vec![Problem { file: file.into(), line: 0, key: String::new(), what: what.into() }])
    }

    /// Fine, or all problems.
    ///
    /// # Errors
    /// Itself, where there are any.
    pub fn none(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
