"""The tiny networks print the figures of the texts that they come from."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).parent.parent / "examples" / "tiny"


@pytest.fixture
def run(device):
    """Run an example as a user does; on the stand-in, which only the tests know, in-process."""

    def run(name):
        code = f"import runpy; from tests import conftest; runpy.run_path({str(TINY / name)!r})"
        root = str(TINY.parent.parent)
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": root},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    return run


def test_one_layer(run):
    assert run("one_layer.py") == [
        "Output after training: [0.00966449 0.00786506 0.99358898 0.99211957]"
    ]


def test_hidden_layer(run):
    """The last of 16 digits depends on the machine, also in plain NumPy."""
    *errors, outputs = run("hidden_layer.py")
    wanted = {
        0: 0.49641003190272537,
        10_000: 0.008584525653247153,
        20_000: 0.00578945986250781,
        30_000: 0.004629176776769985,
        40_000: 0.00395876528027365,
        50_000: 0.003510122567861678,
    }
    found = [re.fullmatch(r"Error at step (\d+): (0\.\d+)", line).groups() for line in errors]
    assert [int(step) for step, _ in found] == list(wanted)
    assert [float(error) for _, error in found] == pytest.approx(list(wanted.values()), rel=3e-15)
    assert outputs == "Output after training: [0.00260572 0.99672209 0.99701711 0.00386759]"


def test_given_weights(run):
    assert run("given_weights.py") == ["2 and 3 give 32"]


def test_four_digits(run):
    lines = run("four_digits.py")
    assert [line.split(": ")[0] for line in lines] == list("0123")
    assert [line.split()[-1] for line in lines] == list("0123")
    assert lines[2].startswith("2: 2.00") or lines[2].startswith("2: 1.99")


def test_each_is_under_forty_lines_of_plain_xnn():
    names = sorted(path.name for path in TINY.glob("*.py"))
    assert names == ["four_digits.py", "given_weights.py", "hidden_layer.py", "one_layer.py"]
    for name in names:
        text = (TINY / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) < 40
        assert set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)) <= {"numpy", "xnn"}
