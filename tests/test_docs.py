"""What is written for people is true of the tree: links lead somewhere, and files that are named exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("app", "assets", "docs", "kernels", "quest_core", "tests", "ui")
# Documents that the reader is tested on, not written for anybody.
CORPUS = ROOT / "assets" / "corpus"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md") if CORPUS not in path.parents),
    CORPUS / "README.md",
]
SOURCES = sorted(
    path for folder in FOLDERS for kind in ("*.py", "*.js", "*.css") for path in (ROOT / folder).rglob(kind)
)
_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_NAMED = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[^`\s]*)`")
_NAMED_ALONE = re.compile(r"`([\w-]+\.(?:py|js))`")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
# In code; the file format of ggml has a page of that name, too.
_DOCUMENT = re.compile(r"\bdocs/[\w-]+\.md\b(?! in ggml)")


def prose(page: Path) -> str:
    """A page without its blocks of code, which may name what the reader is to write."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The headings of a page as addresses, as GitHub makes them."""
    headings = _HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> Iterator[str]:
    """Links to a file that is not there, or to a heading that its page has not."""
    for link in _LINK.findall(prose(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


def missing_files(page: Path) -> Iterator[str]:
    """Files and folders of the project in backticks that are not there; a name without its folder may be anywhere."""
    for name in _NAMED.findall(prose(page)):
        # NAME stands for what the reader chooses; with a star there must be one at least.
        if "NAME" not in name and not any(ROOT.glob(name.rstrip("/"))):
            yield name
    known = {path.name for path in SOURCES} | {"launch.py", "NAME.py"}
    yield from (name for name in _NAMED_ALONE.findall(prose(page)) if name not in known)


def test_links_lead_somewhere():
    assert {page: dead for page in PAGES if (dead := list(dead_links(page)))} == {}


def test_files_that_are_named_exist():
    assert {page: missing for page in PAGES if (missing := list(missing_files(page)))} == {}


def test_code_points_to_pages_that_exist():
    named = {(path, name) for path in SOURCES for name in _DOCUMENT.findall(path.read_text(encoding="utf-8"))}
    assert [f"{path.relative_to(ROOT)}: {name}" for path, name in sorted(named) if not (ROOT / name).is_file()] == []


def test_every_page_can_be_reached_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        links = (link.partition("#")[0] for link in _LINK.findall(prose(page)))
        targets = ((page.parent / link).resolve() for link in links if link.endswith(".md"))
        waiting += [target for target in targets if target.is_file()]
    assert [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page not in reached] == []
