"""Where a run gets its model and its prompts from. Both are arguments of the runner, so tests bring their own."""

from typing import Any

from mechint.experiment.config import ExperimentConfig


def load_model(config: ExperimentConfig) -> Any:
    """Load the experiment's model.

    Raises:
        ModelError: it cannot be had.
    """
    if config.run.threads is not None:
        import torch

        torch.set_num_threads(config.run.threads)
    from mechint.organisms import load

    return load(config.model)


def make_prompts(config: ExperimentConfig, model: Any) -> Any:
    """Make or read the experiment's prompts: a `PromptSet`, minimal `Pairs`, or `TokenTwins`.

    Args:
        config: the experiment.
        model: whose tokenizer decides which names are one token; not needed for prompts of a file.

    Raises:
        PromptError: they cannot be had.
    """
    from mechint import prompts

    choice, seed = config.prompts, config.seed
    count = choice.n or 64
    if choice.kind == "ioi":
        return prompts.ioi(n=count, seed=seed, tokenizer=model.tokenizer)
    if choice.kind == "natural":
        return prompts.natural(n=count, seed=seed, min_words=choice.min_words or 30, joined=bool(choice.joined))
    if choice.kind == "openings":
        return prompts.CONCEPTS[str(choice.name)].openings(count, seed)
    if choice.kind == "arithmetic_errors":
        return prompts.arithmetic_errors(count, seed, rule=choice.rule or "derangement")
    if choice.kind == "two_choice":
        return prompts.two_choice(count, seed)
    if choice.kind == "error_traces":
        pairs = prompts.load_error_traces(str(choice.file)).pairs()
        pairs = pairs if choice.n is None else pairs[: choice.n]
        return pairs if choice.rule is None else prompts.derange(pairs, seed=seed)
    if choice.kind == "silent_critic":
        from mechint.organisms.critic_language import twins

        return twins(count, seed, "test")
    if choice.kind == "deeds":
        return prompts.deeds(count, seed)
    if choice.kind == "introspection":
        from mechint.prompts.introspection import English

        return English(model.tokenizer, count)
    if choice.kind == "introspection_organisms":
        from mechint.organisms.introspection_material import Invented

        return Invented(count, seed)
    if choice.kind == "neurofeedback":
        from mechint.organisms.neurofeedback import sentences

        return sentences(count, seed)
    if choice.kind == "file":
        found = prompts.read(str(choice.file))
        return found if choice.n is None else found[: choice.n]
    given = {"split": choice.split, "column": choice.column}
    wanted = {name: value for name, value in given.items() if value is not None}
    return prompts.from_dataset(str(choice.name), n=count, seed=seed, **wanted)
