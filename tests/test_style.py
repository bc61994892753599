"""The tools agree with every line: format, lint, types."""

from __future__ import annotations

import subprocess
import sys

import pytest

from thor.runtime.settings import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("words", [("ruff", "format", "--check", "."), ("ruff", "check", "."), ("mypy",)], ids=" ".join)
def test_the_tool_has_nothing_to_say(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
