"""The command line: documented, quick to start, and plain about what went wrong."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import make_docs
import pytest

from mining.cli import cli
from tests.mining.synthetic import Drive, store_of

ROOT = Path(__file__).resolve().parents[2]
MINING = [sys.executable, "-c", "from mining.cli import main; main()"]


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MINING, *arguments], capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_with_an_example(name: str) -> None:
    command = cli.commands[name]
    text = command.get_help(
        click.Context(command, info_name=name, parent=click.Context(cli, **cli.context_settings))
    )
    assert "Example: mining " + name in " ".join(text.split())
    assert f"## mining {name}\n" in (ROOT / "docs" / "commands.md").read_text()


@pytest.mark.parametrize("page", sorted(make_docs.PAGES))
def test_the_reference_pages_are_up_to_date(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == make_docs.PAGES[page](), "run python tools/make_docs.py"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom mining import cli\n"
        "print([m for m in ('torch', 'ultralytics', 'duckdb', 'cv2', 'av', 'pyarrow', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "none.toml"], "none.toml: no such config file"),
        (["run"], "Missing argument"),
        (["sql", "SELECT 1", "--store", "nowhere"], "nowhere: no store here yet, there is no such folder"),
        (["sql", "SELECT 1"], "--store"),
        (["frobnicate"], "No such command"),
        (["config"], "--schema"),
        (["status", "--config", "typo.toml"], "did you mean 'budget'"),
        (["index", "--config", "missing.toml"], "drives"),
        (["detect", "--config", "empty.toml"], "no store here yet, there is no such folder"),
        (["status", "empty"], "empty: no store here yet, it lacks mining-store.json"),
        (["status"], "give the STORE, or --config FILE"),
        (["verify", "empty", "--config", "empty.toml"], "not both"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    base = '[footage]\npaths = ["{}"]\n[[detector]]\nweights = "a.pt"\n'
    (tmp_path / "typo.toml").write_text(base.format("x") + "[select]\nbudgte = 1\n")
    (tmp_path / "missing.toml").write_text(base.format("drives"))
    (tmp_path / "empty.toml").write_text(base.format("empty"))
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_weights_are_one_line_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "drives").mkdir()
    (tmp_path / "drives" / "a.mp4").write_text("no video")
    (tmp_path / "c.toml").write_text(
        '[footage]\npaths = ["drives"]\n[[detector]]\nweights = "gone/none.onnx"\nhead = "nanodet"\n'
    )
    done = run("run", "c.toml", folder=tmp_path)
    assert done.returncode == 1
    assert "none.onnx" in done.stderr
    assert "Traceback" not in done.stderr


def test_sql_answers_in_json(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1, 0.9]))
    done = run("sql", "SELECT max(hardness) AS h FROM mined", "--store", str(store.root), "--format", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["h"] == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["status", "verify", "gc", "compact", "migrate"])
def test_a_store_is_named_by_its_folder_or_by_a_config(tmp_path: Path, name: str) -> None:
    store = store_of(tmp_path, Drive("r1", [0.1, 0.9]))
    (tmp_path / "c.toml").write_text(
        'store = "store"\n[footage]\npaths = ["x"]\n[[detector]]\nweights = "a.pt"\n'
    )
    by_folder = run(name, str(store.root), "--json")
    by_config = run(name, "--config", str(tmp_path / "c.toml"), "--json")
    assert (by_folder.returncode, by_folder.stdout) == (0, by_config.stdout)
    assert json.loads(by_folder.stdout)


@pytest.mark.parametrize(("quiet", "lines"), [((), 1), (("--quiet",), 1)])
def test_a_stage_says_what_it_did_once_on_a_terminal(
    tmp_path: Path, quiet: tuple[str, ...], lines: int
) -> None:
    """The log says it on standard error; on standard output too only where that is another place, or the log is quiet."""
    (tmp_path / "drives").mkdir()
    (tmp_path / "drives" / "a.mp4").write_text("no video")
    (tmp_path / "c.toml").write_text('[footage]\npaths = ["drives"]\n[[detector]]\nweights = "a.pt"\n')
    command = [*MINING, *quiet, "index", "--config", "c.toml"]
    screen, terminal = os.openpty()
    with subprocess.Popen(command, cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal) as job:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while part := os.read(screen, 4096):
                shown += part
        assert job.wait(timeout=60) == 0
    os.close(screen)
    assert sum("index: " in line and "unreadable" in line for line in shown.decode().splitlines()) == lines
    piped = run(*quiet, "index", "--config", "c.toml", folder=tmp_path)
    assert piped.stdout.startswith("index: nothing to do, 1 unchanged")


def test_doctor_says_what_this_machine_can_do() -> None:
    done = run("doctor", "--json")
    checks = {check["what"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0
    assert "h264" in checks["video decoders"]["found"]
    assert "cpu" in checks["devices"]["found"]


def test_doctor_names_what_a_config_lacks(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        '[footage]\npaths = ["none"]\n[[detector]]\nweights = "gone/a.onnx"\nhead = "nanodet"\n'
    )
    done = run("doctor", "--config", "c.toml", folder=tmp_path)
    assert done.returncode == 1
    assert "FAIL  footage" in done.stdout
    assert "FAIL  detector a" in done.stdout


@pytest.mark.parametrize(
    ("library", "package"),
    [("libGL.so.1", "libgl1"), ("libgthread-2.0.so.0", "libglib2.0-0"), ("libX11.so.6", "libx11-6")],
)
def test_a_missing_system_library_names_its_debian_package(library: str, package: str) -> None:
    code = (
        "import sys\nfrom mining import cli, config\n"
        f"def broken(*_): raise ImportError('{library}: cannot open shared object file')\n"
        "config.load = broken\nsys.argv = ['mining', 'status', '--config', 'x']\ncli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"apt-get install {package}" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_logs_are_json_lines(tmp_path: Path) -> None:
    (tmp_path / "drives").mkdir()
    (tmp_path / "drives" / "a.mp4").write_text("no video")
    (tmp_path / "c.toml").write_text('[footage]\npaths = ["drives"]\n[[detector]]\nweights = "a.pt"\n')
    done = run("--log-format", "json", "index", "--config", "c.toml", "--json", folder=tmp_path)
    report = json.loads(done.stdout)
    assert report["counts"]["unreadable"] == 1
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert any("index" in line["message"] for line in lines)


def test_every_package_is_in_the_wheel() -> None:
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {
        str(init.parent.relative_to(ROOT)).replace("/", ".")
        for name in ("mining", "detectors")
        for init in (ROOT / name).rglob("__init__.py")
    }
    assert there | {"mining.configs"} == listed


def test_a_file_is_never_a_table_for_the_screen(tmp_path: Path) -> None:
    store = store_of(tmp_path, Drive("r0", [0.5] * 50))
    query = ["sql", "SELECT frame_id, hardness FROM mined", "--store", str(store.root), "--output"]
    assert run(*query, str(tmp_path / "all.csv")).returncode == 0
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 51
    refused = run(*query, str(tmp_path / "all.txt"))
    assert (refused.returncode, (tmp_path / "all.txt").exists()) == (2, False)
    assert "give --format csv, json or parquet" in refused.stderr
