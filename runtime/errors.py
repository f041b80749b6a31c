"""The runtime's errors. The command line prints any of these as one line and exits with code 2.

TranscribeError
├── ArtifactError   the artifact is missing, damaged, of another version, or computes nothing
├── AudioError      an audio file cannot be read
└── OptionError     this artifact cannot do what was asked, such as a language that it does not know
"""


class TranscribeError(Exception):
    """Root of every error that the runtime raises on purpose; the message is one line."""


class ArtifactError(TranscribeError):
    """The artifact cannot be used; the message names the file."""


class AudioError(TranscribeError):
    """An audio file cannot be read; the message names it."""


class OptionError(TranscribeError):
    """The artifact cannot do what was asked."""
