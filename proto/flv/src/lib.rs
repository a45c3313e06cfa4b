//! Headers of codecs in FLV form: classification of media messages, and FLV files.
