"""Prompt files: JSON lines in UTF-8, one object a prompt.

`{"id": …, "prompt": "…", "target": " Mary", "distractor": " John", "counterfactual": "…", "cluster": "…"}`; only
`prompt` and `target` are required, and a target of null says that nothing is compared.
"""

import json
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from mechint.errors import OutputError, PromptError
from mechint.prompts.prompt import Prompt, PromptSet, listed

_REQUIRED = ("prompt", "target")
_ALLOWED = ("id", "prompt", "target", "distractor", "counterfactual", "cluster")


def read(path: str | Path) -> PromptSet:
    """Return the prompts of a JSON lines file, in its order; blank lines are skipped.

    A prompt without an id is named after its line. The set is named after the file.

    Raises:
        PromptError: the file is missing, empty or no UTF-8, or lines in it cannot be used. The message has the
            numbers of the lines, the first five problems of the file.
    """
    path = Path(path)
    prompts: list[Prompt] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    # Not splitlines(): a JSON string may hold U+2028 and other separators as they are.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            prompt = _prompt(line, number)
            if prompt.id in lines:
                raise PromptError(f"id {prompt.id!r} occurs on line {lines[prompt.id]} already. Give each its own.")
        except PromptError as error:
            problems.append(f"{path}, line {number}: {error}")
        else:
            lines[prompt.id] = number
            prompts.append(prompt)
    if problems:
        raise PromptError(listed(problems))
    if not prompts:
        raise PromptError(f"{path} holds no prompts. Give one JSON object a line, at least one.")
    return PromptSet(path.stem, tuple(prompts))


def write(path: str | Path, prompts: PromptSet) -> Path:
    """Write prompts so that `read` returns them, and return the path. A file that exists is never overwritten.

    Raises:
        PromptError: there are none.
        OutputError: the file exists, or cannot be written.
    """
    path = Path(path)
    if not prompts:
        raise PromptError(f"There are no prompts in {prompts.name!r} to write.")
    objects = ({k: v for k, v in asdict(prompt).items() if v is not None or k in _REQUIRED} for prompt in prompts)
    content = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in objects)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(content)
    except FileExistsError:
        raise OutputError(f"{path} exists. Give another name: nothing is overwritten.") from None
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte-order mark, line ends as they are.

    Raises:
        PromptError: missing, unreadable, or not UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PromptError(f"There is no file {path}. Check the path; the current folder is {Path.cwd()}.") from None
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PromptError(f"{path}, line {line}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error


def _prompt(line: str, number: int) -> Prompt:
    try:
        given = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptError(f"no JSON: {error.msg} at column {error.colno}. Give one object a line.") from None
    except RecursionError:
        raise PromptError("no JSON that can be read: nested too deeply. Give one flat object a line.") from None
    if not isinstance(given, dict):
        raise PromptError(f'expected a JSON object such as {{"prompt": …, "target": …}}, not {_kind(given)}.')
    fields = cast("dict[str, Any]", given)
    _check_keys(fields)
    if isinstance(fields.get("id"), int) and not isinstance(fields["id"], bool):
        fields["id"] = str(fields["id"])
    for name, value in fields.items():
        if not isinstance(value, str) and not (value is None and name != "prompt"):
            raise PromptError(f"{name!r} is {_kind(value)}; expected text in quotation marks.")
    if fields.get("id") is None:
        fields["id"] = f"line-{number}"
    return Prompt(**fields)


def _check_keys(fields: dict[str, Any]) -> None:
    unknown = [name for name in fields if name not in _ALLOWED]
    if unknown:
        close = [match for name in unknown for match in get_close_matches(name, _ALLOWED, n=1)]
        hint = f" Did you mean {', '.join(map(repr, close))}?" if close else ""
        raise PromptError(f"unknown keys {', '.join(map(repr, unknown))}; allowed are {', '.join(_ALLOWED)}.{hint}")
    missing = [name for name in _REQUIRED if name not in fields]
    if missing:
        null = " A target of null says that nothing is compared." if "target" in missing else ""
        raise PromptError(f"{' and '.join(map(repr, missing))} missing.{null}")


def _kind(value: object) -> str:
    kinds: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "text",
        int: "a number",
        float: "a number",
        bool: "true or false",
    }
    return kinds.get(type(value), "null")
