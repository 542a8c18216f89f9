"""Fills the pages of the reference that come from the code: every command's options, and every preset.

A hook of mkdocs: `<!-- commands -->` and `<!-- presets -->` in a page are replaced.
"""

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COLUMNS = 100
"""Characters in a line of the site's code blocks."""
HEADER_END = 30
"""Lines at the head of a preset that may hold its description."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the text of every page."""
    for marker, make in (("<!-- commands -->", commands), ("<!-- presets -->", presets)):
        if marker in markdown:
            markdown = markdown.replace(marker, "\n".join(make()))
    return markdown


def commands() -> Iterator[str]:
    """A section for each command with what its --help prints."""
    from selfpab_jax.cli.main import COMMANDS

    os.environ["COLUMNS"] = str(COLUMNS)
    for command, (module, name, what) in COMMANDS.items():
        parser = getattr(import_module(f"selfpab_jax.cli.{module}"), f"{name}_parser")()
        yield f"## selfpab-jax {command}\n\n{what[0].upper()}{what[1:]}.\n"
        usage, _, options = parser.format_help().partition("\n\n")  # the usage repeats every option
        yield f"```text\n{options.strip() or usage}\n```\n"


def presets() -> Iterator[str]:
    """A section for each preset with the comment at its head."""
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()[:HEADER_END]
        header = []
        for line in lines:
            if not line.startswith("#"):
                break
            header.append(line.removeprefix("#").removeprefix(" "))
        yield f"## configs/{path.relative_to(ROOT / 'configs')}\n"
        yield "```text\n" + "\n".join(header) + "\n```\n"
