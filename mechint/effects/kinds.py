"""The names of what an ablated component can be set to; see `effects.baselines` for what they mean."""

from mechint.errors import ConfigError

ABLATIONS = ("zero", "mean", "resample")


def require_kind(kind: str) -> None:
    """Refuse an unknown kind of ablation.

    Examples:
        >>> require_kind("mean")

    Raises:
        ConfigError: it is none of zero, mean and resample.
    """
    if kind not in ABLATIONS:
        raise ConfigError(f"ablation = {kind!r}. Expected one of {', '.join(ABLATIONS)}.")
