"""The second backend: what holds on the first holds on it.

nnsight gives every object a method `save` when it is imported, so nothing here imports it: the tests that run on it do
so in processes of their own.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mechint as mi
from mechint.errors import ConfigError
from mechint.model.backends import behind
from tests.families import plain, tokenizer

HERE = Path(__file__).parent


@pytest.mark.skipif(importlib.util.find_spec("nnsight") is None, reason="nnsight is an extra")
@pytest.mark.parametrize("files", ["test_run.py test_weights.py test_scoring.py", "on_nnsight.py -o addopts="])
def test_what_holds_on_the_bridge_holds_on_nnsight(files: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not real", "-p", "no:cacheprovider", *files.split()],
        cwd=HERE,
        env={**os.environ, "MECHINT_TEST_BACKEND": "nnsight"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]


def test_nnsight_is_imported_only_when_it_is_chosen() -> None:
    code = """
import sys
import mechint as mi
import mechint.model.nnsight
mi.load("organism:copy-suppression")
before = "nnsight" in sys.modules
mi.load("organism:copy-suppression", backend="nnsight")
print(before, "nnsight" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.split()[-2:] == ["False", "True"]


def test_a_backend_that_does_not_exist_or_cannot_do_it_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"No backend 'nnsigth'. There are: transformer_lens, nnsight"):
        behind("nnsigth", plain("gpt2"), tokenizer(), name="tiny", source={})
    with pytest.raises(ConfigError, match='remote=True needs backend="nnsight"'):
        mi.wrap(plain("gpt2"), tokenizer(), remote=True)
    with pytest.raises(ConfigError, match="remote='local' needs"):
        mi.load("organism:copy-suppression", remote="local")
