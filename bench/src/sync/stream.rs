//! A plain copy of a tree through one TCP stream.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};

/// Copies the regular files and directories below `from` into the new directory `to`, as tar would
/// through a socket: for each file its path, its length, its bytes. What has come is not synced.
///
/// # Errors
///
/// What the disk or the network says.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let sending = thread::Builder::new().name("sender".into()).spawn_scoped(scope, || {
            let mut out = BufWriter::with_capacity(64 << 10, TcpStream::connect(address)?);
            send(from, &PathBuf::new(), &mut out)?;
            out.write_all(&0_u32.to_le_bytes())?;
            Ok::<_, anyhow::Error>(out.flush()?)
        })?;
        let (stream, _) = listener.accept()?;
        let received = receive(BufReader::with_capacity(64 << 10, stream), to);
        let sent = sending.join().ok().context("the sender panicked")?;
        sent.and(received)
    })
}

fn send(root: &Path, below: &Path, out: &mut BufWriter<TcpStream>) -> Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            send(root, &path, out)?;
            continue;
        }
        let name = path.to_string_lossy();
        let mut file = File::open(entry.path())?;
        out.write_all(&u32::try_from(name.len())?.to_le_bytes())?;
        out.write_all(name.as_bytes())?;
        out.write_all(&file.metadata()?.len().to_le_bytes())?;
        io::copy(&mut file, out)?;
    }
    Ok(())
}

fn receive(mut stream: BufReader<TcpStream>, to: &Path) -> Result<()> {
    let mut last_dir = PathBuf::new();
    loop {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        if u32::from_le_bytes(len) == 0 {
            return Ok(());
        }
        let mut name = vec![0; usize::try_from(u32::from_le_bytes(len))?];
        stream.read_exact(&mut name)?;
        let path = to.join(String::from_utf8(name)?);
        let dir = path.parent().context("a file lies in a directory")?;
        if dir != last_dir {
            fs::create_dir_all(dir)?;
            dir.clone_into(&mut last_dir);
        }
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes)?;
        let mut file = File::create(&path)?;
        io::copy(&mut (&mut stream).take(u64::from_le_bytes(bytes)), &mut file)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_what_the_tree_has() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/long"), vec![7; 200_000]).unwrap();
        fs::write(from.join("empty"), "").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("a/b/long")).unwrap(), vec![7; 200_000]);
        assert_eq!(fs::read(to.join("empty")).unwrap(), b"");
    }
}
