"""What can be chosen about the critique pipeline. No heavy import: a mistake is reported at once.

Defaults are those of the paper (arXiv 2603.16331), but for its confounds: `paper_prompts` brings them back.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from mechint.errors import ConfigError

_FEWEST_ALPHAS = 3


@dataclass(frozen=True)
class Shape:
    """The published shape of a model, so that its cost can be estimated without its weights."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    tied: bool = False
    """Whether the unembedding is the embedding."""

    def __post_init__(self) -> None:
        """Refuse what is no shape.

        Raises:
            ConfigError: a number that is not positive.
        """
        if bad := [name for name, value in vars(self).items() if name != "tied" and value < 1]:
            raise ConfigError(f"shape: {bad[0]} = {getattr(self, bad[0])}. Expected at least 1.")

    @property
    def block_parameters(self) -> int:
        """Weights of all blocks: attention and a gated MLP; norms and biases are left out (under 0.1 %)."""
        attention = 2 * self.d_model * self.d_head * (self.n_heads + self.n_kv_heads)
        return self.n_layers * (attention + 3 * self.d_model * self.d_mlp)

    @property
    def parameters(self) -> int:
        """Weights, embedding and unembedding included."""
        return self.block_parameters + (1 if self.tied else 2) * self.d_vocab * self.d_model


@dataclass(frozen=True)
class Machine:
    """What the estimate of time is for."""

    flops_per_second: float = 2e13
    """Multiply-adds count as two; what is reached in float32, not the number on the box."""
    bytes_per_second: float = 2e12
    """From memory: each generated token reads all weights once for its batch."""
    bytes_per_number: int = 4

    def __post_init__(self) -> None:
        """Refuse what is no machine.

        Raises:
            ConfigError: a number that is not positive and finite.
        """
        if bad := [name for name, value in vars(self).items() if not 0 < value < math.inf]:
            raise ConfigError(f"machine: {bad[0]} = {getattr(self, bad[0])}. Expected a positive number.")


@dataclass(frozen=True)
class PipelineSettings:
    """What can be chosen about the critique pipeline."""

    problems: int = 1000
    """Problems from which the vector is made."""
    select: int = 200
    """Others, on which the layer is chosen."""
    test: int = 200
    """Others, on which is reported."""
    traces_train: str = ""
    """A published file of error traces for the first two parts; by default problems and errors of our own."""
    traces_test: str = ""
    """Another for the last."""
    rule: Literal["off_by", "digit_swap", "operand_swap", "derangement"] = "off_by"
    """How an error is put into a problem of our own."""
    paper_prompts: bool = False
    """As published: the baseline's question is wrapped, the other's is not, and the baseline writes all by itself."""
    teacher_forced: bool = False
    """With too few recoveries, use the contrast on a given final answer, so that all that follows still runs."""
    think_start: str = "<think>\n"
    think_end: str = "</think>"
    think_close: str = "\n</think>\n\n"
    """What closes a thinking that ran out of tokens, in test-time scaling."""
    wait: str = "\n\nWait"
    max_new_tokens: int = 16384
    answer_tokens: int = 8192
    """After a thinking that was closed by force."""
    temperature: float = 0.0
    """Of baseline, continuation, layer effect and steering."""
    sampling_temperature: float = 0.6
    """Of error detection and test-time scaling."""
    judge: Literal["numeric", "math_verify"] = "numeric"
    """Rule that compares answers: exact fractions, or the package math-verify for LaTeX."""
    most_tokens: int = 6000
    """Longer texts are left out of the pairs."""
    fewest_pairs: int = 8
    """With fewer there is no vector."""
    folds: int = 5
    """Of the probe, by problem."""
    layers: tuple[int, ...] = ()
    """Blocks with a vector, among which one is chosen; all by default."""
    layer: int = -1
    """The block that is steered; -1: the one with the largest layer effect on the problems for choosing."""
    alphas: tuple[float, ...] = (-1.0, -0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Doses, in lengths of the vector; 0 is among them."""
    random: int = 20
    """Random directions of the vector's length, at the largest dose."""
    bbm: tuple[str, ...] = ()
    """Files of BIG-Bench Mistake in which the steered model looks for errors."""
    processbench: tuple[str, ...] = ()
    """Files of ProcessBench."""
    most_rows: int = 0
    """Rows of each such file; 0 for all."""
    stacks: int = 5
    """How often "Wait" is appended."""
    stack_alphas: tuple[float, ...] = (-1.0, 0.0, 1.0)
    """Doses of test-time scaling."""
    batch: int = 8
    """Rows written together."""
    unit_rows: int = 64
    """Problems of one unit, which is kept as a whole."""
    shape: Shape | None = None
    """Of the model, for an estimate of cost without it."""
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: a number that is too small, doses without 0, or empty think tags.
        """
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}. Expected at least {least}.")
        if len(set(self.alphas)) < _FEWEST_ALPHAS or 0.0 not in self.alphas or not max(self.alphas) > 0:
            raise ConfigError(
                f"alphas = {list(self.alphas)}. Expected {_FEWEST_ALPHAS} or more different numbers, with 0 and one "
                "above it among them."
            )
        if not all(map(math.isfinite, (*self.alphas, *self.stack_alphas))) or not self.stack_alphas:
            raise ConfigError("alphas and stack_alphas must hold finite numbers, at least one each.")
        if not self.think_end.strip() or self.think_end.strip() not in self.think_close:
            raise ConfigError(
                f"think_end = {self.think_end!r}, think_close = {self.think_close!r}. Expected a text that ends the "
                "thinking, and one that holds it."
            )
        if self.layers and (min(self.layers) < 0 or (self.layer >= 0 and self.layer not in self.layers)):
            raise ConfigError(
                f"layers = {list(self.layers)}, layer = {self.layer}. Layers count from 0, and the steered one is "
                "among them."
            )
        if self.traces_test and not self.traces_train:
            raise ConfigError("traces_test is given without traces_train. Give both, or none for problems of our own.")

    @property
    def original(self) -> str:
        """The run that the injected one is compared with."""
        return "baseline" if self.paper_prompts else "matched"

    @property
    def runs(self) -> tuple[str, ...]:
        """What is written for each problem."""
        return ("baseline", "injected") if self.paper_prompts else ("baseline", "injected", "matched")


_LEAST: dict[str, float] = {
    **dict.fromkeys(("problems", "select", "test", "folds"), 2),
    **dict.fromkeys(("max_new_tokens", "answer_tokens", "most_tokens", "batch", "unit_rows"), 1),
    **dict.fromkeys(("temperature", "sampling_temperature", "random", "most_rows", "stacks"), 0),
    "fewest_pairs": 2,
    "layer": -1,
}
