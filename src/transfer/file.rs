//! A file that is there when it is whole, and not before.
//!
//! It is written under another name beside its own, and moved there at the end,
//! on disk by then. Whoever looks sees no file, or the one that was there
//! before, or the whole one, also if the program is killed. A program that ends
//! of itself takes away what it did not finish.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

/// A file that is being written.
#[derive(Debug)]
pub struct NewFile {
    target: PathBuf,
    unfinished: PathBuf,
    may_replace: bool,
    file: BufWriter<File>,
    is_finished: bool,
}

impl NewFile {
    /// Begins a file of that name. Where there is one already, it is replaced if
    /// it may be.
    ///
    /// # Errors
    ///
    /// Where it may not, or no file can be made there.
    pub fn create(target: &Path, may_replace: bool) -> io::Result<Self> {
        refuse_other(target, may_replace)?;
        // Through a link, the file that it leads to.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let name = target.file_name().ok_or_else(|| io::Error::other("names no file"))?;
        let unfinished = format!(".{}.{}.unfinished", name.to_string_lossy(), std::process::id());
        let unfinished = target.with_file_name(unfinished);
        let file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { target, unfinished, may_replace, file, is_finished: false })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// Where the rest cannot be written, or a file of that name has come about
    /// that may not be replaced.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        refuse_other(&self.target, self.may_replace)?;
        fs::rename(&self.unfinished, &self.target)?;
        self.is_finished = true;
        // Its name is on disk with its folder.
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

/// Refuses to replace a file that may not be replaced, and what is no file.
fn refuse_other(target: &Path, may_replace: bool) -> io::Result<()> {
    match fs::metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(there) if !there.is_file() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is there, and is no file"))
        }
        Ok(_) if may_replace => Ok(()),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // It is under a name that nobody asked for, so what stays is but litter.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A folder that goes with its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("callstate-file-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<PathBuf> {
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_there_when_it_is_finished_and_not_before() {
        let folder = Folder::new();
        let name = folder.0.join("calls.csv");
        let mut file = NewFile::create(&name, false).unwrap();
        file.write_all(b"whole").unwrap();
        assert!(!name.exists());
        file.finish().unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"whole");
        assert_eq!(folder.names(), [name]);
    }

    #[test]
    fn a_file_that_is_not_finished_leaves_nothing() {
        let folder = Folder::new();
        let mut file = NewFile::create(&folder.0.join("calls.csv"), false).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert!(folder.names().is_empty());
    }

    #[test]
    fn a_file_that_came_about_meanwhile_stays() {
        let folder = Folder::new();
        let name = folder.0.join("calls.csv");
        let file = NewFile::create(&name, false).unwrap();
        fs::write(&name, "somebody else's").unwrap();
        assert_eq!(file.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&name).unwrap(), b"somebody else's");
        assert_eq!(folder.names(), [name]);
    }

    #[test]
    fn through_a_link_the_file_is_replaced_and_the_link_stays() {
        let folder = Folder::new();
        let (name, link) = (folder.0.join("calls.csv"), folder.0.join("latest.csv"));
        fs::write(&name, "as it was").unwrap();
        std::os::unix::fs::symlink(&name, &link).unwrap();
        assert!(NewFile::create(&link, false).is_err());
        let mut file = NewFile::create(&link, true).unwrap();
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&name).unwrap(), b"new");
    }
}
