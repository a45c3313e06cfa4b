//! Whose folder it is.
//!
//! Written when a log is begun, behind its first segment, and never changed. It keeps an origin from starting
//! with the log of another, which would be two voices with one name.

use super::disk::{Disk, write_all};
use super::{Error, Owner};

pub(super) const FILE: &str = "stamp";
pub(super) const UNFINISHED: &str = "stamp-part";
const FIRST_LINE: &str = "selvage-origin-log 1";

/// What a stamp says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) owner: Owner,
    pub(super) instance: u64,
}

/// The folder's stamp, if it has one. It must be that of this name in this cluster; the
/// node's number is what it says.
pub(super) fn read(
    disk: &dyn Disk,
    names: &[String],
    owner: &Owner,
) -> Result<Option<Stamp>, Error> {
    if !names.iter().any(|name| name == FILE) {
        return Ok(None);
    }
    let bytes = disk
        .read(FILE)
        .map_err(|source| Error::io("read", FILE, source))?;
    check(&bytes, owner).map(Some)
}

/// Stamps the folder, on the disk when it returns.
pub(super) fn write(disk: &mut dyn Disk, owner: &Owner, instance: u64) -> Result<(), Error> {
    let text = format!(
        "{FIRST_LINE}\nname {}\nnode {}\ncluster {:016x}\ninstance {instance:016x}\n",
        owner.name, owner.node, owner.cluster
    );
    let text = format!("{text}sum {:08x}\n", crc32c::crc32c(text.as_bytes()));
    let failed = |source| Error::io("write", FILE, source);
    let mut file = disk.create(UNFINISHED).map_err(failed)?;
    write_all(file.as_mut(), text.as_bytes()).map_err(failed)?;
    file.sync().map_err(failed)?;
    drop(file);
    disk.rename(UNFINISHED, FILE)
        .and_then(|()| disk.sync_dir())
        .map_err(failed)
}

fn check(bytes: &[u8], owner: &Owner) -> Result<Stamp, Error> {
    let broken = |what| Error::Broken {
        file: FILE.into(),
        offset: 0,
        what,
    };
    let text = std::str::from_utf8(bytes).map_err(|_| broken("it is no text"))?;
    if text.lines().next() != Some(FIRST_LINE) {
        return Err(Error::Version {
            file: FILE.into(),
            found: text
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(64)
                .collect(),
        });
    }
    let (said, sum) = text
        .rsplit_once("sum ")
        .ok_or_else(|| broken("it has no checksum"))?;
    if u32::from_str_radix(sum.trim_end(), 16) != Ok(crc32c::crc32c(said.as_bytes())) {
        return Err(broken("its checksum is wrong"));
    }
    let text = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .ok_or_else(|| broken("a line is missing"))
    };
    let field = |name: &str, radix| {
        u64::from_str_radix(text(name)?, radix).map_err(|_| broken("a line is no number"))
    };
    let found = Owner {
        name: text("name")?.to_owned(),
        node: field("node", 10)?,
        cluster: field("cluster", 16)?,
    };
    if (&found.name, found.cluster) != (&owner.name, owner.cluster) {
        return Err(Error::Foreign {
            found,
            owner: owner.clone(),
        });
    }
    Ok(Stamp {
        owner: found,
        instance: field("instance", 16)?,
    })
}
