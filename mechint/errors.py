"""What can go wrong, as one tree. Every message says what was given, what was expected, and what to do.

```text
MechintError
├── ModelError                a model cannot be had
│   ├── UnknownModelError     no such name, folder or file, or it needs a network
│   ├── CorruptModelError     the weights are truncated, altered or unreadable
│   ├── UnsupportedModelError this architecture is not understood exactly, so it is refused
│   └── CacheError            the converted copy cannot be written: disk full, no permission
├── SiteError                 no such place in the network
├── PositionError             the positions select nothing, or not what was needed
├── InterventionError         a rewrite that cannot be carried out
│   └── NeverFiredError       a rewrite that touched nothing
├── PromptError               a prompt, or the file it is in, cannot be used
│   └── TokenError            a label that is not one token
├── ConfigError               an experiment file with missing, unknown or impossible settings
└── OutputError               a result folder that exists already, or cannot be written or read
```
"""


class MechintError(Exception):
    """The root: everything that this package raises on purpose."""


class ModelError(MechintError):
    """A model cannot be had."""


class UnknownModelError(ModelError):
    """No such name, folder or file; or it would need a network and there is none."""


class CorruptModelError(ModelError):
    """The weights are truncated, altered or unreadable."""


class UnsupportedModelError(ModelError):
    """The architecture is not understood exactly, so nothing is computed from it."""


class CacheError(ModelError):
    """The converted copy of a model cannot be written or locked."""


class SiteError(MechintError):
    """No such place in the network."""


class PositionError(MechintError):
    """The positions select nothing, or not what the caller needs."""


class InterventionError(MechintError):
    """A rewrite of an activation that cannot be carried out."""


class NeverFiredError(InterventionError):
    """A rewrite of an activation that touched nothing: it would have been a silent no-op."""


class PromptError(MechintError):
    """A prompt, or the file it is in, cannot be used."""


class TokenError(PromptError):
    """A target or distractor that is not exactly one token of this tokenizer."""


class ConfigError(MechintError):
    """An experiment file with missing, unknown or impossible settings."""


class OutputError(MechintError):
    """A result folder that exists already, or that cannot be written or read."""
