"""Makes the pages of the documentation site that are not files of docs/: a hook of mkdocs, named in mkdocs.yml.

1. README, CONTRIBUTING and CHANGELOG of the checkout become pages; their links into docs/ become links of the site.
2. The API reference has a page that lists the names of `agent_bt`, and one page a package with all its modules, from
   their docstrings.
3. In all of them a list or an indented line may follow a line of text at once, as in docstrings.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

import agent_bt

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
PACKAGES = [found.name for found in pkgutil.iter_modules(agent_bt.__path__) if found.ispkg and found.name != "cli"]
"""Packages with a page; `cli` is described by `agent-bt --help`."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the reference into the navigation, and let docstrings have their lists."""
    config.markdown_extensions.append(DocstringLists())
    reference = ["reference/index.md", *(f"reference/{name}.md" for name in PACKAGES)]
    config.nav = [{"API reference": reference} if "API reference" in entry else entry for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    from mkdocs.structure.files import File

    pages = {page: site_links((ROOT / file).read_text(encoding="utf-8")) for page, file in PAGES.items()}
    pages["reference/index.md"] = names_page()
    pages |= {f"reference/{name}.md": package_page(name) for name in PACKAGES}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    return files


def site_links(text: str) -> str:
    """The text of a file of the checkout with its links as the site has them."""
    return re.sub(r"(\]\()docs/", r"\1", text)


def names_page() -> str:
    """The page that lists the names of the package."""
    lines = [
        "# API reference",
        "",
        "What a program imports from `agent_bt`, as in `from agent_bt import load_config, run`. The pages of the"
        " packages describe these names and everything behind them.",
        "",
        "| name | |",
        "|---|---|",
    ]
    for name in agent_bt.__all__:
        found = getattr(agent_bt, name)
        summary = (inspect.getdoc(found) or "").partition("\n")[0].replace("|", "\\|")
        lines.append(f"| [`{name}`][{found.__module__}.{name}] | {summary} |")
    return "\n".join(lines) + "\n"


def package_page(name: str) -> str:
    """The page of one package: every module of it, in alphabetical order."""
    return "\n".join([f"# agent_bt.{name}", "", *(f"::: {module}\n" for module in modules_of(f"agent_bt.{name}"))])


def modules_of(package: str) -> Iterator[str]:
    """The public modules in a package and its packages."""
    for found in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
        if not found.ispkg and not found.name.rpartition(".")[2].startswith("_"):
            yield found.name


class DocstringLists(Extension):
    """Markdown in which lists and indented lines need no empty line before them."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Run behind the extension that takes fenced code out."""
        md.preprocessors.register(_Lists(md), "docstring_lists", 20)


class _Lists(Preprocessor):
    ITEM = re.compile(r" {0,3}(?:\d+\.|[-*]) ")
    INDENTED = re.compile(r" {2,}\S")

    def run(self, lines: list[str]) -> list[str]:
        """Put an empty line before and behind a list, and end the line before an indented one with a line break."""
        made: list[str] = []
        in_list = False
        for line in lines:
            item, follows_text = self.ITEM.match(line), bool(made) and bool(made[-1].strip())
            if item and follows_text and not in_list:
                made.append("")
            elif in_list and follows_text and re.match(r"\S", line) and not item:
                made.append("")
                in_list = False
            elif self.INDENTED.match(line) and follows_text and not in_list:
                made[-1] += "  "
            in_list = bool(item) or (in_list and bool(line.strip()))
            made.append(line)
        return made
