"""What a browser and a screen reader would find in a page, and whether the page is sound."""

from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "input", "hr"}
DRAWN = {"line", "path", "rect", "circle"}


class Page(HTMLParser):
    """Tables by caption, headings, links and pictures of a page; tags must close in order.

    Attributes
    ----------
    tables : caption -> list of rows, the first its head; a row is a list of texts.
    pictures : (title, description) of every SVG that is not hidden.
    words, prose : all texts a reader may meet, and those outside pictures.
    drawn : (tag, attributes) of every line, path, rect and circle.
    """

    def __init__(self, source):
        super().__init__()
        self.open, self.links, self.ids, self.headings = [], [], [], []
        self.tables, self.pictures, self.drawn, self.words, self.prose, self.titles = (
            {},
            [],
            [],
            [],
            [],
            [],
        )
        self._row = self._rows = self._caption = None
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [
            value
            for name, value in attrs.items()
            if name in ("src", "href", "xlink:href", "action")
        ]
        assert not [name for name in attrs if name.startswith("on")]
        assert tag not in ("script", "iframe", "object", "embed", "form")
        if tag in DRAWN:
            self.drawn.append((tag, attrs))
            for value in attrs.values():
                assert "nan" not in value
                assert "inf" not in value
        if tag == "svg":
            hidden = attrs.get("aria-hidden") == "true"
            assert hidden or attrs.get("role") == "img"
            if not hidden:
                self.pictures.append({})
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._row = []
        elif tag in ("td", "th"):
            assert tag == "td" or attrs["scope"] in ("row", "col")
            self._row.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert tag not in VOID
        assert self.open.pop() == tag
        if tag == "tr":
            self._rows.append(self._row)
            self._row = None
        elif tag == "table":
            assert self._caption
            assert len({len(row) for row in self._rows}) == 1
            self.tables[self._caption] = self._rows
        elif tag == "svg" and self.pictures:
            assert "svg" not in self.open

    def handle_data(self, data):
        data = data.replace("\u00a0", " ")
        if not self.open:
            assert not data.strip()
            return
        if "style" not in self.open:
            self.words.append(data)
            if "svg" not in self.open:
                self.prose.append(data)
        if (
            self._row
            and self.open
            and ("td" in self.open or "th" in self.open)
            and "svg" not in self.open
        ):
            self._row[-1] += data
        elif "caption" in self.open:
            self._caption += data
        if self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append((self.open[-1], data))
        if self.open[-1] == "title":
            self.titles.append(data)
            if self.open[-2] == "svg":
                self.pictures[-1]["title"] = data
        if self.open[-1] == "desc":
            self.pictures[-1]["desc"] = data

    def table(self, start):
        """Rows of the table whose caption starts so, without its head; None where there is none."""
        found = [rows for caption, rows in self.tables.items() if caption.startswith(start)]
        assert len(found) <= 1
        return found[0][1:] if found else None


def sound(source):
    """The page, after the checks that hold for every one."""
    page = Page(source)
    assert set(page.links) <= {"dask-report.html"}
    assert "http" not in source.replace("http-equiv", "")
    assert "url(" not in source
    assert "@import" not in source
    assert "prefers-color-scheme: dark" in source
    assert [level for level, _ in page.headings[:1]] == ["h1"]
    assert all(level == "h2" for level, _ in page.headings[1:])
    for picture in page.pictures:
        assert picture["title"]
        assert picture["desc"]
    return page
