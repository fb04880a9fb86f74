"""Makes the corpus's EPUBs: where chapters begin, and what they are called. Run by hand."""

from __future__ import annotations

from collections.abc import Mapping

from written_document import write_document, zipped

CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
    '<rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
RIVER = "The river had frozen over in the night, and the ferry lay fast between its two piers."
LETTER = "In the morning a letter came by sledge. Nobody in the house could read its seal."
MARKET = "On the market place a woman sold lanterns, each with a name painted on its glass."
BRIDGE = "They crossed the bridge before noon and did not look back until the hills had closed."
RETURN = "Years later the ferryman told it otherwise: there had been no ice, he said, and no letter."


def page(body: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml" '
        'xmlns:epub="http://www.idpf.org/2007/ops"><head><title>Book</title></head>'
        f"<body>{body}</body></html>"
    )


def navigation(entries: str, more: str = "") -> str:
    return page(f'<nav epub:type="toc"><h1>Contents</h1><ol>{entries}</ol></nav>{more}')


def entry(href: str, title: str, inner: str = "") -> str:
    return f'<li><a href="{href}">{title}</a>{f"<ol>{inner}</ol>" if inner else ""}</li>'


def book(
    files: Mapping[str, str],
    nav: str | None = None,
    ncx: str | None = None,
    spine: list[str] | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> bytes:
    """An EPUB; `spine` names its files in reading order, as they are in `files` if None."""
    items = "".join(
        f'<item id="f{number}" href="{name.replace(" ", "%20")}" media-type="application/xhtml+xml"/>'
        for number, name in enumerate(files)
    )
    names = list(files)
    references = "".join(f'<itemref idref="f{names.index(name)}"/>' for name in spine or names)
    extra: dict[str, str | bytes] = {}
    if nav is not None:
        items += '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
        extra["OEBPS/nav.xhtml"] = nav
    if ncx is not None:
        items += '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
        extra["OEBPS/toc.ncx"] = ncx
    for name, content in (pictures or {}).items():
        items += f'<item id="{name}" href="{name}" media-type="image/png"/>'
        extra[f"OEBPS/{name}"] = content
    package = (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata/>'
        f"<manifest>{items}</manifest><spine>{references}</spine></package>"
    )
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OEBPS/content.opf": package,
            **{f"OEBPS/{name}": content for name, content in files.items()},
            **extra,
        },
        stored="mimetype",
    )


def places_of_chapters() -> None:
    """One file with several chapters, and one chapter in several files."""
    body = (
        f'<h2 id="one">The Ice</h2><p>{RIVER}</p><h2><a id="two"></a>The Letter</h2><p>{LETTER}</p>'
        f'<p><a name="three"></a></p><h2>The Market</h2><p>{MARKET}</p>'
    )
    three = [("The Ice", f"The Ice\n{RIVER}"), ("The Letter", f"The Letter\n{LETTER}")]
    three.append(("The Market", f"The Market\n{MARKET}"))
    links = [("one", "The Ice"), ("two", "The Letter"), ("three", "The Market")]
    nav = navigation("".join(entry(f"all.xhtml#{anchor}", title) for anchor, title in links))
    write_document("epub", "anchors_in_one_file.epub", book({"all.xhtml": page(body)}, nav), three)

    points = "".join(
        f'<navPoint id="n{anchor}"><navLabel><text>{title}</text></navLabel>'
        f'<content src="all.xhtml#{anchor}"/></navPoint>'
        for anchor, title in links
    )
    ncx = (
        '<?xml version="1.0"?><ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap>'
        f"{points}</navMap><pageList><pageTarget><navLabel><text>7</text></navLabel>"
        '<content src="all.xhtml#three"/></pageTarget></pageList></ncx>'
    )
    write_document("epub", "anchors_in_an_older_book.epub", book({"all.xhtml": page(body)}, ncx=ncx), three)

    files = {
        "front.xhtml": page("<p>Printed in a small number.</p>"),
        "c1_split_000.xhtml": page(f"<h1>The Crossing</h1><p>{RIVER}</p>"),
        "c1_split_001.xhtml": page(f"<p>{LETTER}</p>"),
        "c1_split_002.xhtml": page(f"<h3>On the far side</h3><p>{MARKET}</p>"),
        "c2.xhtml": page(f"<h1>The Return</h1><p>{RETURN}</p>"),
        "c3.xhtml": page(f"<h1>An Afterword</h1><p>{BRIDGE}</p>"),
    }
    nav = navigation(entry("c1_split_000.xhtml", "The Crossing") + entry("c2.xhtml", "The Return"))
    pages = [
        ("1", "Printed in a small number."),
        ("The Crossing", f"The Crossing\n{RIVER}"),
        ("The Crossing (2)", LETTER),
        ("The Crossing (3)", f"On the far side\n{MARKET}"),
        ("The Return", f"The Return\n{RETURN}"),
        # The contents leave it out, and its heading is one of a chapter.
        ("An Afterword", f"An Afterword\n{BRIDGE}"),
    ]
    write_document("epub", "chapter_over_several_files.epub", book(files, nav), pages)


def tables_of_contents() -> None:
    """Contents within contents, none at all, and what only looks like contents."""
    body = (
        f'<h1 id="p1">Part One</h1><h2 id="c1">The Ice</h2><p>{RIVER}</p><h2 id="c2">The Letter</h2><p>{LETTER}</p>'
        f'<h1 id="p2">Part Two</h1><h2 id="c3">The Market</h2><p>{MARKET}</p>'
    )
    nav = navigation(
        entry("t.xhtml", "Part One", entry("t.xhtml#c1", "The Ice") + entry("t.xhtml#c2", "The Letter"))
        + entry("t.xhtml#p2", "Part Two", entry("t.xhtml#c3", "The Market"))
    )
    pages = [
        ("The Ice", f"Part One\nThe Ice\n{RIVER}"),
        ("The Letter", f"The Letter\n{LETTER}"),
        ("The Market", f"Part Two\nThe Market\n{MARKET}"),
    ]
    write_document("epub", "parts_and_chapters.epub", book({"t.xhtml": page(body)}, nav), pages)

    printed = f'<h1 id="c1">The Ice</h1><p>{RIVER} <span id="pg2"/>{LETTER}</p><p><span id="pg3"/>{MARKET}</p>'
    more = (
        '<nav epub:type="page-list"><ol><li><a href="t.xhtml#pg2">2</a></li><li><a href="t.xhtml#pg3">3</a></li></ol>'
        '</nav><nav epub:type="landmarks" hidden=""><ol><li><a href="t.xhtml#pg2">Start reading</a></li></ol></nav>'
    )
    nav = navigation(entry("t.xhtml#c1", "The Ice"), more)
    text = f"The Ice\n{RIVER} {LETTER}\n{MARKET}"
    write_document("epub", "list_of_printed_pages.epub", book({"t.xhtml": page(printed)}, nav), [("The Ice", text)])

    files = {
        "one.xhtml": page(f"<h1>A<small>UTUMN</small></h1><p>{RIVER}</p><h1>W<small>INTER</small></h1><p>{LETTER}</p>"),
        "two.xhtml": page(f"<p>{MARKET}</p>"),
    }
    pages = [("AUTUMN", f"AUTUMN\n{RIVER}"), ("WINTER", f"WINTER\n{LETTER}"), ("WINTER (2)", MARKET)]
    write_document("epub", "no_contents.epub", book(files), pages)

    files = {
        "text/chapter one.xhtml": page(f'<h1 id="a b">First</h1><p>{RIVER}</p>'),
        "text/chäpter-2.xhtml": page(f"<h1>Second</h1><p>{LETTER}</p>"),
    }
    nav = navigation(
        entry("text/chapter%20one.xhtml#a%20b", "The First") + entry("TEXT/ch%C3%A4pter-2.xhtml", "The Second")
    )
    pages = [("The First", f"First\n{RIVER}"), ("The Second", f"Second\n{LETTER}")]
    write_document("epub", "encoded_names.epub", book(files, nav), pages)

    files = {
        "b.xhtml": page(f"<h1>Second</h1><p>{LETTER}</p>"),
        "a.xhtml": page(f"<h1>First</h1><p>{RIVER}</p>"),
        "c.xhtml": page(f"<p>{MARKET}</p>"),
    }
    nav = navigation(entry("c.xhtml", "Third") + entry("a.xhtml", "First") + entry("b.xhtml", "Second"))
    pages = [("First", f"First\n{RIVER}"), ("Second", f"Second\n{LETTER}"), ("Third", MARKET)]
    spine = ["a.xhtml", "b.xhtml", "a.xhtml", "c.xhtml"]
    write_document("epub", "order_of_the_spine.epub", book(files, nav, spine=spine), pages)


def inside_of_chapters() -> None:
    """Notes, pictures, lists, tables, and letters that are drawn."""
    files = {
        "cover.xhtml": page('<svg><image href="c.png"/></svg>'),
        "one.xhtml": page(
            '<h1>The Ice</h1><p><img src="t.png" alt="T"/>he river had frozen<a epub:type="noteref" href="#n1">[1]</a> '
            'over.</p><ol start="3"><li>bread,</li><li>salt:<ol type="a"><li>coarse</li><li>fine</li></ol></li></ol>'
            "<table><tr><th>Pier</th><th>Depth</th></tr><tr><td>North</td><td></td></tr><tr><td>South</td>"
            '<td><p>2 fathoms</p></td></tr></table><aside id="n1" epub:type="footnote" hidden="">[1] In 1871.</aside>'
        ),
    }
    nav = navigation(entry("cover.xhtml", "Cover") + entry("one.xhtml", "The Ice"))
    text = (
        "The Ice\nThe river had frozen[1] over.\n3. bread,\n4. salt:\na. coarse\nb. fine\n"
        "Pier | Depth\nNorth\nSouth | 2 fathoms\n[1] In 1871."
    )
    write_document("epub", "notes_lists_tables.epub", book(files, nav, pictures={"t.png": b""}), [("The Ice", text)])


if __name__ == "__main__":
    places_of_chapters()
    tables_of_contents()
    inside_of_chapters()
