"""The bench runs on small data, and its last line is the record."""

import json
import sys

import numpy as np
import pytest

from tools import bench_select


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench_select.py", *arguments])
    bench_select.main()
    return capsys.readouterr().out.splitlines()


def test_last_line_is_json_with_every_figure(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skactiveml.pool", None)  # as where it is not installed
    size = ("--rows", "3000", "--picks", "40", "--ratio-rows", "300", "--ratio-picks", "10")
    *lines, last = run(monkeypatch, capsys, *size, "--json")
    record = json.loads(last)
    assert len(record["figures"]) == len(lines)
    assert {"what", "value", "bar", "holds"} <= set.intersection(*(set(row) for row in record["figures"]))
    assert [row["value"] for row in record["figures"] if "plain" in row["what"]] == [0, 0]
    assert "not installed" in lines[-1]
    assert record["figures"][-1]["holds"] is None
    assert record["holds"] is bench_select.all_hold(record["figures"])


def test_what_fails_outweighs_what_was_not_measured():
    def said(*each):
        return bench_select.all_hold([bench_select.figure("", 1, 1, holds) for holds in each])

    assert said(True, True) is True
    assert said(True, None) is None
    assert said(None, False, True) is False


def test_other_picks_are_told(monkeypatch, capsys):
    monkeypatch.setitem(bench_select.STRATEGIES, "k_center", bench_select.STRATEGIES["top_k"])
    monkeypatch.setitem(sys.modules, "skactiveml.pool", None)
    *_, last = run(
        monkeypatch,
        capsys,
        "--rows",
        "500",
        "--picks",
        "20",
        "--ratio-rows",
        "9",
        "--ratio-picks",
        "2",
        "--json",
    )
    record = json.loads(last)
    assert record["holds"] is False
    assert all(row["value"] > 0 for row in record["figures"] if "plain" in row["what"])


def test_nonsense_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, capsys, "--rows", "0")
    assert "need at least 2" in capsys.readouterr().err


def test_data_is_of_unit_length():
    for make in bench_select.KINDS.values():
        lengths = np.linalg.norm(make(600).embeddings, axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-6)
