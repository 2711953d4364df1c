"""The report is one file that loads nothing, for every state of a run."""

import re
from html.parser import HTMLParser

from pipeline.report import Curve, curves, render
from pipeline.summary import summarise
from tests.pipeline.test_summary import built

VOID = {"meta", "line", "br"}


class Checker(HTMLParser):
    """Tags close in order, and nothing points outside."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def check(text):
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert checker.links == []
    assert "http" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text


def test_a_whole_run(tmp_path):
    recipe, nodes = built()
    path = tmp_path / "history.json"
    path.write_text('[{"loss": 2.0, "valid_accuracy": 0.5}, {"loss": 1.0, "valid_accuracy": 0.625}]')
    learning = curves(nodes, {"train:0": path, "train:1": path})
    assert learning[0].series["valid_accuracy"] == [(1.0, 0.5), (2.0, 0.625)]
    text = render(summarise(recipe, nodes), nodes, learning)
    check(text)
    for word in (
        "influence:train",
        "75.00 %",
        "74.50 %",
        "cached",
        "replication",
        "training loss",
        "25.00 % of the edges",
    ):
        assert word in text, word
    assert len(re.findall("<path ", text)) == 4
    assert text.count('class="chosen"') == 1


def test_odd_curves_and_names():
    recipe, nodes = built()
    flat = Curve("<one & only>", {"loss": [(1.0, 2.0)], "valid_accuracy": []})
    text = render(summarise(recipe, nodes), nodes, [flat])
    check(text)
    assert "&lt;one &amp; only&gt;" in text


def test_a_run_of_two_stages():
    recipe, nodes = built(only=("ingest", "split"))
    check(render(summarise(recipe, nodes), nodes, []))
