"""A lease is one job's at a time, until it gives it back, dies, or is not heard of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mining import lease
from mining.lease import LASTS_S, FolderBoard, Leases
from mining.types import UsageError


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_one_job_holds_a_lease_until_it_drops_it(tmp_path: Path) -> None:
    one, other = Leases(FolderBoard(tmp_path)), Leases(FolderBoard(tmp_path))
    assert one.take("detect-a")
    assert not other.take("detect-a")
    assert not one.take("detect-a")
    assert other.take("detect-b")
    assert str(os.getpid()) in (other.holder("detect-a") or "")
    other.drop("detect-a")  # not its own
    assert not other.take("detect-a")
    one.drop_all()
    assert other.take("detect-a")
    other.drop_all()
    assert not list((tmp_path / "leases").glob("*.json"))


def test_of_many_that_grasp_at_it_one_gets_it(tmp_path: Path) -> None:
    lapsed = Leases(FolderBoard(tmp_path))
    for round_ in range(20):
        lapsed.take(f"x{round_}")
        age(tmp_path / "leases" / f"x{round_}.json", LASTS_S + 1)
        got: list[bool] = []
        begin = threading.Barrier(6)

        def grasp(name: str = f"x{round_}", got: list[bool] = got, begin: threading.Barrier = begin) -> None:
            mine = Leases(FolderBoard(tmp_path))
            begin.wait()
            got.append(mine.take(name))

        threads = [threading.Thread(target=grasp) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(got) == 1


def test_a_lease_of_another_host_lapses_when_it_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "leases" / "scenes.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"job": "x", "host": "another", "pid": 1, "began": "x"}))
    mine = Leases(FolderBoard(tmp_path))
    assert not mine.take("scenes")
    age(path, LASTS_S - 20)
    assert not mine.take("scenes")
    age(path, LASTS_S + 1)
    assert mine.take("scenes")


def test_a_process_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\nfrom pathlib import Path\nfrom mining.lease import FolderBoard, Leases\n"
        f"print(Leases(FolderBoard(Path({str(tmp_path)!r}))).take('a'), flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "True\n"
        mine = Leases(FolderBoard(tmp_path))
        assert not mine.take("a")
        job.kill()
    assert mine.take("a")


def test_another_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    mine = Leases(FolderBoard(tmp_path))
    assert mine.take("a")
    held = json.loads((tmp_path / "leases" / "a.json").read_text())
    (tmp_path / "leases" / "a.json").write_text(json.dumps({**held, "began": "earlier"}))
    assert Leases(FolderBoard(tmp_path)).take("a")


def test_what_is_no_lease_is_taken(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "a.json").write_text("half")
    assert Leases(FolderBoard(tmp_path)).take("a")


def test_a_lease_is_kept_as_long_as_the_job_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LASTS_S", 0.6)
    mine, other = Leases(FolderBoard(tmp_path)), Leases(FolderBoard(tmp_path))
    assert mine.take("a")
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert not other.take("a")
        time.sleep(0.05)


def test_turns_are_taken_one_after_another(tmp_path: Path) -> None:
    at_work, most = 0, 0

    def work() -> None:
        nonlocal at_work, most
        with Leases(FolderBoard(tmp_path)).turn("score"):
            at_work += 1
            most = max(most, at_work)
            time.sleep(0.1)
            at_work -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_process_is_looked_for_only_where_its_number_counts(tmp_path: Path) -> None:
    """Containers of one host may bear its name, and number their processes anew."""
    mine = Leases(FolderBoard(tmp_path))
    ended = {**mine._me, "pid": 2**22 + 1}
    assert lease.has_lapsed(ended, 1.0)
    assert not lease.has_lapsed({**ended, "machine": "another"}, 1.0)
    assert lease.has_lapsed({**ended, "machine": "another"}, LASTS_S + 1)


def test_leases_are_kept_on_after_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LASTS_S", 0.3)
    tried = threading.Semaphore(0)

    class Refusing(FolderBoard):
        def keep(self, name: str, me: lease.Holder) -> None:
            tried.release()
            raise UsageError("refused: the key has run out")

    mine = Leases(Refusing(tmp_path))
    assert mine.take("a")
    for _ in range(3):
        assert tried.acquire(timeout=30)
    mine.drop("a")
