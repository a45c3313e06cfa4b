//! Stream names as clients write them: `mp4:dir/clip.f4v?token=1`.

use model::{NameError, StreamName};

/// What the prefix of a name says about the file behind it. A live stream has none, and
/// a prefix is never part of its published name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileType {
    /// No prefix, or `flv:`.
    #[default]
    Flv,
    /// `mp4:`; the name keeps its extension.
    Mp4,
    /// `mp3:`.
    Mp3,
    /// `id3:`: the tags of an MP3 file.
    Id3,
    /// `raw:`: segments in a folder.
    Raw,
}

/// A stream name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What the prefix says.
    pub file: FileType,
    /// The name under which the stream is known.
    pub name: StreamName,
    /// What stood behind the first `?`; empty when there was none.
    pub query: String,
}

impl Address {
    /// Takes a name apart.
    ///
    /// # Errors
    /// Says what is wrong with the name that is left.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let (file, name) = split_prefix(path);
        Ok(Self {
            file,
            name: StreamName::new(name)?,
            query: query.to_owned(),
        })
    }
}

/// What may be shown of a name: all but the query, which often holds a secret.
pub(crate) fn shown(text: &str) -> &str {
    text.split_once('?').map_or(text, |(path, _)| path)
}

fn split_prefix(path: &str) -> (FileType, &str) {
    const PREFIXES: [(&str, FileType); 5] = [
        ("flv:", FileType::Flv),
        ("mp4:", FileType::Mp4),
        ("mp3:", FileType::Mp3),
        ("id3:", FileType::Id3),
        ("raw:", FileType::Raw),
    ];
    PREFIXES
        .iter()
        .find_map(|(prefix, file)| path.strip_prefix(prefix).map(|name| (*file, name)))
        .unwrap_or((FileType::Flv, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (FileType, String, String) {
        let address = Address::parse(text).unwrap();
        (address.file, address.name.to_string(), address.query)
    }

    #[test]
    fn a_prefix_is_never_part_of_the_name() {
        assert_eq!(parsed("a"), (FileType::Flv, "a".into(), String::new()));
        assert_eq!(parsed("flv:a"), (FileType::Flv, "a".into(), String::new()));
        assert_eq!(
            parsed("mp4:a/b.f4v"),
            (FileType::Mp4, "a/b.f4v".into(), String::new())
        );
        assert_eq!(
            parsed("mp3:song"),
            (FileType::Mp3, "song".into(), String::new())
        );
        assert_eq!(
            parsed("id3:song"),
            (FileType::Id3, "song".into(), String::new())
        );
        assert_eq!(parsed("raw:a"), (FileType::Raw, "a".into(), String::new()));
        // Only one prefix, and only these.
        assert_eq!(parsed("mp4:mp3:a").1, "mp3:a");
        assert_eq!(parsed("ogg:a").1, "ogg:a");
    }

    #[test]
    fn the_query_begins_at_the_first_question_mark() {
        assert_eq!(
            parsed("a?k=v?w"),
            (FileType::Flv, "a".into(), "k=v?w".into())
        );
        assert_eq!(parsed("mp4:a?"), (FileType::Mp4, "a".into(), String::new()));
        assert_eq!(shown("mp4:a?secret"), "mp4:a");
    }

    #[test]
    fn a_bad_name_is_refused() {
        assert_eq!(Address::parse(""), Err(NameError::Empty));
        assert_eq!(Address::parse("?a=b"), Err(NameError::Empty));
        assert_eq!(Address::parse("mp4:"), Err(NameError::Empty));
        assert_eq!(
            Address::parse("mp4:../../etc/passwd"),
            Err(NameError::BadSegment)
        );
        assert_eq!(Address::parse("/a"), Err(NameError::BadSegment));
        assert_eq!(Address::parse("a\0"), Err(NameError::BadCharacter('\0')));
    }
}
