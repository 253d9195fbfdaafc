"""The wheel holds what a newcomer needs, and the checkout's commands stand by themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml

import agent_bt

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def test_one_version_everywhere() -> None:
    assert PROJECT["version"] == agent_bt.__version__


def test_pandas_is_no_requirement() -> None:
    names = [requirement.split(";")[0].lower() for requirement in requires("agent-bt") or PROJECT["dependencies"]]
    assert not [name for name in names if name.startswith("pandas")]


@pytest.mark.verify
def test_an_installed_wheel_starts_a_newcomer(tmp_path: Path) -> None:
    """Long: it builds the wheel and installs it, with its dependencies, into a new environment."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in ("prompts", "configs"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file():
                assert f"agent_bt/_shipped/{file.relative_to(ROOT)}" in names
    assert "agent_bt/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]

    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    home = tmp_path / "venv" / "bin"
    subprocess.run([str(home / "python"), "-m", "pip", "--quiet", "install", str(wheel)], check=True)
    command = str(home / "agent-bt")
    assert "Usage" in subprocess.run([command, "--help"], check=True, capture_output=True, text=True).stdout
    subprocess.run([command, "init", "--yes", str(tmp_path / "mine")], check=True)
    run = [command, "run", "backtest.yaml", "--limit", "24", "--json", "--progress", "none"]
    done = subprocess.run(run, cwd=tmp_path / "mine", check=True, capture_output=True, text=True)
    assert '"status":"done"' in done.stdout.replace(" ", "")


def make(*arguments: str, flag: str = "-n") -> str:
    """What make prints; by default what it would do, without doing it."""
    # The tests may run under make themselves: its variables would make this one a part of it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    done = subprocess.run(["make", flag, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return done.stdout


def test_make_run_ends_with_the_shipped_config() -> None:
    assert make("run").strip().splitlines()[-1].endswith("agent-bt run configs/backtest.yaml")


def test_make_test_lints_and_leaves_the_long_suites_to_make_verify() -> None:
    steps = make("test")
    for tool in (
        "ruff check",
        "ruff format --check",
        "mypy",
        "lint-imports",
        'pytest -n 2 --dist loadfile -m "not verify"',
    ):
        assert tool in steps
    assert "-m verify" in make("verify")


def test_make_help_lists_every_target() -> None:
    (targets,) = re.findall(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"))
    listed = [line.split()[1] for line in make("help", flag="-s").splitlines()]
    assert sorted(listed) == sorted(targets.split())


def test_the_hooks_before_a_commit_are_the_checks_of_make_lint() -> None:
    (recipe,) = re.findall(r"(?m)^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    checks = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == checks


def test_ci_lints_builds_the_docs_and_holds_the_floor_of_coverage() -> None:
    for file in (".ci/run", ".github/workflows/checks.yml"):
        commands = " ".join(re.findall(r"\bmake (.*)", (ROOT / file).read_text(encoding="utf-8")))
        assert {"docs", "test", "COVERAGE=--cov"} <= set(commands.split()), file
    for steps in (make("coverage"), make("test", "COVERAGE=--cov")):
        assert 'pytest -n 2 --dist loadfile -m "not verify" --cov' in steps
    assert PYPROJECT["tool"]["coverage"]["report"]["fail_under"] > 0


def test_make_without_a_python_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "pyproject.toml").touch()
    done = subprocess.run(["make", "run", "PYTHON="], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr


def test_no_file_of_the_repository_names_a_package_registry() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not files:
        pytest.skip("no git checkout")
    for name in ("Makefile", "pyproject.toml", ".ci/run", ".github/workflows/checks.yml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for word in ("--index-url", "extra-index", "find-links", "/simple"):
            assert word not in text, name
