"""The documentation site: every package has its page, and what is built loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import agent_bt

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_of_docs_is_in_the_navigation() -> None:
    nav = re.search(r"(?ms)^nav:\n.*?(?=^\S(?<!-))", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert nav is not None
    named = re.findall(r"([\w./-]+\.md)$", yaml.safe_dump(yaml.safe_load(nav[0])), re.MULTILINE)
    written = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert set(named) == written | {"index.md", "contributing.md", "changelog.md"}


def test_the_reference_has_every_name_and_every_package(site_pages: ModuleType) -> None:
    page = site_pages.names_page()
    for name in agent_bt.__all__:
        assert f"[`{name}`][agent_bt." in page
    packages = {path.parent.name for path in Path(agent_bt.__file__).parent.glob("*/__init__.py")}
    assert {*site_pages.PACKAGES, "cli"} == packages
    assert "::: agent_bt.core.types\n" in site_pages.package_page("core")


def test_lists_and_indented_lines_of_docstrings_are_kept(site_pages: ModuleType) -> None:
    from markdown import markdown

    text = "Two steps:\n  1. first\n  2. second, which\n     goes on\nThen more:\n  a line\nand text.\n"
    made = markdown(text, extensions=[site_pages.DocstringLists()])
    assert "<ol>\n<li>first</li>\n<li>second, which\n     goes on</li>\n</ol>" in made
    assert "<p>Then more:<br />\n  a line\nand text.</p>" in made


def test_links_into_docs_become_links_of_the_site(site_pages: ModuleType) -> None:
    assert site_pages.site_links("![a](docs/report.png) [b](docs/sweep.md) docs/x.md") == (
        "![a](report.png) [b](sweep.md) docs/x.md"
    )


@pytest.mark.verify
def test_the_built_site_is_whole_and_loads_nothing_from_elsewhere(tmp_path: Path, site_pages: ModuleType) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    for page in pages.values():
        assert not re.search(r"""(?i)<(script|img|link|iframe)[^>]*(src|href)=["']?(https?:)?//""", page)
    for name in agent_bt.__all__:
        path = f"{getattr(agent_bt, name).__module__}.{name}"
        assert f'id="{path}"' in pages[f"reference/{path.split('.')[1]}.html"]
