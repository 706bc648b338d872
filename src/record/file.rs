//! Lines into a file that is rotated, or into standard output. A line is in one file and whole, whatever happens to the
//! disk: a write that ends in the middle of one is taken back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::settings::FileSettings;

/// Lines that are written together.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) text: Vec<u8>,
    /// Where each ends, its line break included.
    pub(super) ends: Vec<usize>,
}

/// A file of lines.
#[derive(Debug)]
pub(super) struct LineFile {
    settings: FileSettings,
    open: Option<Open>,
    /// A rotation failed and was told.
    stuck: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Device and number: somebody may move or remove the file.
    identity: (u64, u64),
    /// `None` of what has no length, such as a pipe or a device.
    length: Option<u64>,
}

/// Standard output, where what was written cannot be taken back.
#[derive(Debug, Default)]
pub(super) struct LineStream {
    /// The last line was cut off.
    cut: bool,
}

// === impls ===

impl Lines {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Writes lines from one on until there is an error; gives how many bytes and whole lines were taken.
    fn write(&self, from: usize, to: usize, out: &mut impl Write) -> (usize, usize, io::Result<()>) {
        let begin = from.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0);
        let end = to.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(begin);
        let mut rest = self.text.get(begin..end).unwrap_or_default();
        let outcome = loop {
            if rest.is_empty() {
                break Ok(());
            }
            match out.write(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let taken = end.saturating_sub(rest.len());
        let lines = self.ends.iter().skip(from).take_while(|end| **end <= taken).count();
        (taken.saturating_sub(begin), lines, outcome)
    }
}

impl LineFile {
    /// Opens it, so that a path that cannot be written to fails the start.
    pub(super) fn start(settings: FileSettings) -> io::Result<Self> {
        let open = Some(Open::at(&settings.path)?);
        Ok(Self { settings, open, stuck: false })
    }

    /// Writes all lines. An error is tried again once with the file opened anew; gives how many were taken.
    pub(super) fn write(&mut self, lines: &Lines) -> (usize, io::Result<()>) {
        let mut taken = 0;
        let mut again = true;
        loop {
            match self.write_from(lines, taken) {
                Ok(count) => return (taken.saturating_add(count), Ok(())),
                Err((count, error)) => {
                    taken = taken.saturating_add(count);
                    self.open = None;
                    if !again {
                        return (taken, Err(error));
                    }
                    again = false;
                }
            }
        }
    }

    fn write_from(&mut self, lines: &Lines, from: usize) -> Result<usize, (usize, io::Error)> {
        let mut taken = 0;
        let mut from = from;
        while from < lines.ends.len() {
            let fits = self.fits(lines, from).map_err(|error| (taken, error))?;
            let Some(open) = &mut self.open else { return Err((taken, io::ErrorKind::NotFound.into())) };
            let (bytes, whole, outcome) = lines.write(from, fits, &mut open.file);
            taken = taken.saturating_add(whole);
            if let Some(length) = &mut open.length {
                let begin = from.checked_sub(1).and_then(|last| lines.ends.get(last)).copied().unwrap_or(0);
                let last = from.saturating_add(whole).checked_sub(1).and_then(|last| lines.ends.get(last));
                let whole_bytes = last.copied().unwrap_or(begin).saturating_sub(begin);
                *length = length.saturating_add(whole_bytes as u64);
                if whole_bytes < bytes {
                    // Where this fails too, the line break that opening puts behind a cut line keeps the next one whole.
                    let _cut = open.file.set_len(*length);
                }
            }
            outcome.map_err(|error| (taken, error))?;
            from = fits;
        }
        Ok(taken)
    }

    /// Up to which line the file takes them, rotated where it takes none.
    fn fits(&mut self, lines: &Lines, from: usize) -> io::Result<usize> {
        let moved = match &self.open {
            Some(open) => identity(&self.settings.path).is_none_or(|now| now != open.identity),
            None => true,
        };
        if moved {
            self.open = Some(Open::at(&self.settings.path)?);
        }
        let all = lines.ends.len();
        let begin = from.checked_sub(1).and_then(|last| lines.ends.get(last)).copied().unwrap_or(0);
        loop {
            let Some(Open { length: Some(length), .. }) = self.open else { return Ok(all) };
            if self.settings.max_bytes == 0 {
                return Ok(all);
            }
            let room = self.settings.max_bytes.saturating_sub(length);
            let fit = lines.ends.iter().skip(from);
            let fit = fit.take_while(|end| end.saturating_sub(begin) as u64 <= room).count();
            if fit > 0 {
                return Ok(from.saturating_add(fit));
            }
            if length == 0 {
                // A line that is larger than a file may be gets one of its own.
                return Ok(from.saturating_add(1));
            }
            if let Err(error) = self.rotate() {
                // Too large a file is better than no record.
                if !self.stuck {
                    self.stuck = true;
                    let path = self.settings.path.display();
                    tracing::warn!(%error, %path, "records cannot be rotated; the file grows");
                }
                return Ok(all);
            }
            self.stuck = false;
        }
    }

    /// `x` becomes `x.1`, which was moved to `x.2` before, and so on; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let older = |number: u32| -> PathBuf {
            let mut name = self.settings.path.clone().into_os_string();
            name.push(format!(".{number}"));
            name.into()
        };
        let path = &self.settings.path;
        let kept = self.settings.max_files.saturating_sub(1);
        for number in (1..kept).rev() {
            match fs::rename(older(number), older(number.saturating_add(1))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if kept == 0 {
            fs::remove_file(path)?;
        } else {
            fs::rename(path, older(1))?;
        }
        self.open = None;
        self.open = Some(Open::at(path)?);
        Ok(())
    }

    /// Makes what was written survive the machine.
    pub(super) fn sync(&self) {
        if let Some(open) = &self.open {
            // What cannot be synced, such as a pipe, needs it no more than what was told already.
            let _best = open.file.sync_data();
        }
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let metadata = file.metadata()?;
        let mut length = metadata.is_file().then_some(metadata.len());
        if let Some(length) = &mut length
            && *length > 0
            && !ends_in_line_break(path)?
        {
            // A process that was killed may leave half a line; it must not swallow the next one.
            file.write_all(b"\n")?;
            *length = length.saturating_add(1);
        }
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()), length })
    }
}

fn ends_in_line_break(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl LineStream {
    /// Writes all lines; gives how many were taken.
    pub(super) fn write(&mut self, lines: &Lines) -> (usize, io::Result<()>) {
        let mut out = io::stdout().lock();
        if self.cut {
            if let Err(error) = out.write_all(b"\n") {
                return (0, Err(error));
            }
            self.cut = false;
        }
        // The standard library keeps what comes behind the last line break, and every line has one.
        let (bytes, whole, outcome) = lines.write(0, lines.ends.len(), &mut out);
        let whole_bytes = whole.checked_sub(1).and_then(|last| lines.ends.get(last)).copied().unwrap_or(0);
        self.cut = whole_bytes < bytes;
        (whole, outcome.and_then(|()| out.flush()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Lines {
        let mut lines = Lines::default();
        for text in texts {
            lines.text.extend_from_slice(text.as_bytes());
            lines.text.push(b'\n');
            lines.ends.push(lines.text.len());
        }
        lines
    }

    fn at(path: &Path, max_bytes: u64, max_files: u32) -> LineFile {
        LineFile::start(FileSettings { path: path.to_owned(), max_bytes, max_files }).unwrap()
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn rotates_between_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let mut file = at(&path, 8, 3);
        let (taken, outcome) = file.write(&lines(&["one", "two", "three", "a line of its own", "x", "y"]));
        outcome.unwrap();
        assert_eq!(taken, 6);
        assert_eq!(read(&path), "x\ny\n");
        assert_eq!(read(&dir.path().join("r.1")), "a line of its own\n");
        // `one` and `two` were in the oldest, which is gone.
        assert_eq!(read(&dir.path().join("r.2")), "three\n");
        assert!(!dir.path().join("r.3").exists());
        let mut alone = at(&dir.path().join("s"), 4, 1);
        alone.write(&lines(&["one", "two"])).1.unwrap();
        assert_eq!(read(&dir.path().join("s")), "two\n");
    }

    #[test]
    fn a_cut_line_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        fs::write(&path, "whole\nhal").unwrap();
        at(&path, 0, 1).write(&lines(&["next"])).1.unwrap();
        assert_eq!(read(&path), "whole\nhal\nnext\n");
    }

    #[test]
    fn a_file_that_was_moved_or_removed_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("r");
        let mut file = at(&path, 0, 1);
        file.write(&lines(&["one"])).1.unwrap();
        fs::rename(&path, inner.join("moved")).unwrap();
        file.write(&lines(&["two"])).1.unwrap();
        assert_eq!((read(&inner.join("moved")), read(&path)), ("one\n".into(), "two\n".into()));
        fs::remove_dir_all(&inner).unwrap();
        let (taken, outcome) = file.write(&lines(&["three"]));
        assert_eq!((taken, outcome.unwrap_err().kind()), (0, io::ErrorKind::NotFound));
        fs::create_dir(&inner).unwrap();
        file.write(&lines(&["four"])).1.unwrap();
        assert_eq!(read(&path), "four\n");
    }

    #[test]
    fn a_full_disk_takes_nothing() {
        let mut file = at(Path::new("/dev/full"), 100, 2);
        let (taken, outcome) = file.write(&lines(&["one", "two"]));
        assert_eq!((taken, outcome.unwrap_err().kind()), (0, io::ErrorKind::StorageFull));
    }
}
