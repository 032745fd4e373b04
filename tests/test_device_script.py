"""The script for a device parses its options, measures a piece, and tells what is unequal."""

import json
import sys

import numpy as np
import pytest

from benchmarks import device
from benchmarks.harness.timing import Timed


def test_the_smallest_piece(tmp_path, monkeypatch, capsys):
    """A single fit beside itself on the CPU; the script ends with the status of what it found."""
    file = tmp_path / "device.json"
    # without the compilation that comes before warm calls
    monkeypatch.setattr(device, "timed", lambda call, *_: Timed(call(), 1.0, [1.0]))
    monkeypatch.setattr(sys, "argv", ["device", "-o", str(file), "--only", "180 rows, (t", "--repeats", "1"])
    with pytest.raises(SystemExit) as end:
        device.main()
    assert end.value.code == 0
    (record,) = json.loads(file.read_text())["records"]
    assert record["equal"]
    assert record["converged"] == 1
    assert record["differences"]["the CPU"].keys() == {"criterion", "beta", "se", "psi", "df"}
    assert "| equal |" in capsys.readouterr().out


def test_a_difference_or_a_failure_is_told():
    expected = {"criterion": np.ones(2), "beta": np.array([1.0, np.nan]), "se": np.array([0.1, 0.1])}
    moved = {"criterion": np.array([1.0, 1.0 + 1e-5]), "beta": np.array([1.0 + 1e-5, 2.0])}
    found = device.differences(moved, expected)
    assert found["criterion"] == pytest.approx(1e-5)
    # in standard errors, and what is missing on one side only
    assert found["beta"] == np.inf
    assert found["criterion"] > device.LIMITS["criterion"]
    failed = device.guarded(lambda: 1 // 0)
    assert failed["error"].startswith("ZeroDivisionError")
    assert "ZeroDivisionError" in device.table([{"piece": "failed"} | failed])
