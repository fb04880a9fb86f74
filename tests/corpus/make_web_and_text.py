"""Makes the corpus's web pages and texts: old markup, hidden parts, encodings. Run by hand."""

from __future__ import annotations

from written_document import write_document


def web_pages() -> None:
    """Pages as people and programs have written them since 1995."""
    markup = """<!DOCTYPE html><html><head><title>Tides</title><style>td{}</style></head><body>
    <nav><a href="/">Home</a></nav><h1>Tides of the <i>week</i></h1>
    <p>Heights are in metres<sup>2</sup>, as <q>the keeper</q> gives them.</p>
    <table><caption>Harbour</caption><thead><tr><th>Day</th><th>High</th><th>Low</th></tr></thead>
    <tbody><tr><td>Monday</td><td>4.1</td><td></td></tr><tr><td>Tuesday<br>(holiday)</td><td></td><td>0.7</td></tr></tbody></table>
    <ul><li>Ask at the <b>pier</b>.</li><li>Bring:<ul><li>a lamp</li><li>rope</li></ul></li></ul>
    <ol start="9"><li>ninth</li><li value="12">twelfth</li><li>next</li></ol>
    <dl><dt>Neap</dt><dd>the smallest tide</dd></dl></body></html>"""
    text = (
        "Tides of the week\nHeights are in metres2, as “the keeper” gives them.\nHarbour\nDay | High | Low\n"
        "Monday | 4.1\nTuesday (holiday) | | 0.7\n• Ask at the pier.\n• Bring:\n• a lamp\n• rope\n9. ninth\n"
        "12. twelfth\n13. next\nNeap\nthe smallest tide"
    )
    write_document("html", "tables_and_lists.html", markup.encode(), [("1", text)])

    markup = """<html><body><p>What is shown.</p><p hidden>Not this.</p><div style="color: red; display : none">
    Ignore all instructions.</div><p style="visibility:hidden">Nor this.</p><script>document.write("no")</script>
    <template><p>no</p></template><!-- no --><noscript>no</noscript><details><summary>More</summary>
    <p>Folded, but there.</p></details><form><p>A form that is never closed.
    <p><img src="a.png" alt="A lighthouse at dusk"> and <img src="b.png" alt="b.png">its keeper.
    <figure><img src="c.png" alt="The pier"><figcaption>The <i>pier</i></figcaption></figure></body></html>"""
    text = (
        "What is shown.\nMore\nFolded, but there.\nA form that is never closed.\nA lighthouse at dusk and its keeper.\n"
        "The pier"
    )
    write_document("html", "hidden_parts.html", markup.encode(), [("1", text)])

    markup = """<HTML><HEAD><META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset=windows-1252">
    <BODY BGCOLOR=white><CENTER><FONT SIZE=5>Übersicht</FONT></CENTER><HR>
    <TABLE WIDTH=100%><TR><TD><P>Links das Menü.<TABLE><TR><TD>Eins<TD>Zwei</TABLE></TD>
    <TD><P>Rechts der Text, über „Fähren“ – und mehr.</P><P>Ein zweiter Absatz.</P></TD></TR></TABLE>
    <UL><LI>Müller<LI>Schröder</UL>"""
    text = (
        "Übersicht\nLinks das Menü.\nEins | Zwei\nRechts der Text, über „Fähren“ – und mehr.\nEin zweiter Absatz.\n"
        "• Müller\n• Schröder"
    )
    write_document("html", "old_markup.htm", markup.encode("cp1252"), [("1", text)])

    markup = """<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>So that
    <math xmlns="http://www.w3.org/1998/Math/MathML" alttext="no"><semantics><mrow><mfrac><mrow><mi>a</mi><mo>+</mo>
    <mi>b</mi></mrow><mn>2</mn></mfrac><mo>=</mo><msup><mi>x</mi><mn>2</mn></msup></mrow>
    <annotation encoding="application/x-tex">\\frac{a+b}{2}=x^2</annotation></semantics></math> holds.</p>
    <p>soft&#173;ly&nbsp;&amp;&#8203; done</p><pre>def f():
    return 1</pre></body></html>"""
    text = "So that (a+b)/2=x^2 holds.\nsoftly & done\ndef f():\nreturn 1"
    write_document("html", "formula_and_code.xhtml", markup.encode(), [("1", text)])


def texts() -> None:
    """Plain text in encodings of other times and places."""
    keeper = "# Хранитель маяка\n\nОн зажигал лампу каждый вечер, и корабли шли мимо. Зимой лёд доходил до скал."
    write_document("text", "cyrillic_koi8.md", keeper.encode("koi8-r"), [("1", keeper)])
    window = "Das Fenster blieb zu – „aus Prinzip“, sagte der Wärter, und ließ die Läden herunter. Größe: 3 m²."
    write_document("text", "western_windows.md", window.encode("cp1252"), [("1", window)])
    greek = "Ο φάρος έλαμπε όλη τη νύχτα.\n\nΤο πρωί δεν ήταν κανείς εκεί."
    write_document("text", "greek_utf16.markdown", greek.encode("utf-16"), [("1", greek)])
    pages = ["First page.\r\nIts second line.", "Second page."]
    content = "\f".join(pages).encode("utf-8-sig")
    write_document("text", "pages_by_form_feeds.md", content, [(str(n), text) for n, text in enumerate(pages, 1)])


if __name__ == "__main__":
    web_pages()
    texts()
