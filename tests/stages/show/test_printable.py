"""What others wrote never drives the terminal; places that are not built are refused by name
wherever they stand."""

import io
import json
import logging
from pathlib import Path

import pytest

from stockpot import cli, open_batches, open_model
from stockpot.execution.progress import Fraction, Plain
from stockpot.planning.recipe import from_tables, load
from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.source import describe
from stockpot.stages.places import local, unread
from stockpot.stages.show.plain import table
from stockpot.stages.show.printable import printable, printable_json
from stockpot.store.store import Store

EVIL = "a\x1b[2J\x9b31m\rb\u202ec\x7f\x00\udcff\u2028d"
SHOWN = r"a\x1b[2J\x9b31m\rb\u202ec\x7f\x00\udcff\u2028d"


def test_control_characters_are_shown_and_others_are_kept():
    assert printable(EVIL) == SHOWN
    assert printable("naïve 日本 👍\nx") == "naïve 日本 👍\nx"
    assert printable("a\nb", one_line=True) == r"a\nb"
    document = {EVIL: [EVIL, "naïve"]}
    text = printable_json(json.dumps(document, ensure_ascii=False, indent=1))
    assert json.loads(text) == document
    assert printable(text) == text


def test_nothing_that_is_printed_holds_one(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stream = io.StringIO()
    show = Plain(stream, every_s=0)
    show.say(EVIL)
    show.start(EVIL, 1)
    show.update(EVIL, 0, {"s": Fraction(1, 2, f"{EVIL}\n")})
    show.stop(EVIL, 1.0, EVIL)
    text = stream.getvalue() + table((EVIL,), [(f"{EVIL}\n",)])
    assert text == printable(text)
    assert text.count("\n") == 5
    for words in (
        ["run", f"{EVIL}.toml"],
        ["soup", EVIL],
        ["plan", "x.toml", "--set", f"train.{EVIL}=1"],
        [EVIL],
    ):
        assert cli.main(words) == 2
    Path("wide.toml").write_text(f'[dataset]\nsource = "npz:{"a" * 3}\\u001b[2J"\n')
    assert cli.main(["plan", "wide.toml"]) == 2
    assert cli.main(["recipe", "wide.toml"]) == 2
    logging.getLogger("stockpot").warning("%s", EVIL)
    found = capsys.readouterr()
    assert "\\x1b[2J" in found.err
    assert printable(found.out + found.err) == found.out + found.err


def test_other_schemes_are_refused_by_name(capsys, tmp_path):
    words = [
        lambda: Store("s3://bucket/pot"),
        lambda: Store(Path("s3://bucket/pot")),
        lambda: open_batches("gs://bucket/run"),
        lambda: open_model(Path("gs://bucket/run")),
        lambda: load("https://host/x.toml"),
        lambda: describe("npz:s3://bucket/x.npz"),
        lambda: describe("s3://bucket/x.npz"),
        lambda: describe("files:abfs+ssl://x/y"),
    ]
    for call in words:
        with pytest.raises(
            BadInput, match=r"(s3|gs|https|abfs\+ssl)://\w+.* is not built yet; expected a path"
        ):
            call()
    for words_ in (
        ["run", "s3://b/x.toml"],
        ["run", "data/wordnet.toml", "--store", "s3://b/pot"],
        ["plan", "data/wordnet.toml", "--runs=gs://b/runs"],
        ["soup", "s3://b/run"],
        ["soup", "runs/x", "--batches", "s3://b/run"],
        ["soup", "runs/x", "--out", "s3://b/run"],
        ["inspect", "s3://b/run"],
        ["verify", "--all", "--store", "s3://b/pot"],
    ):
        assert cli.main(words_) == 2, words_
        (line,) = capsys.readouterr().err.splitlines()
        assert "://b/" in line, words_
        assert "is not built yet" in line, words_
        assert "fix: name a folder or file" in line
    for path in ("runs/store", "/a/b:/c", "c:/x", "a b", tmp_path / "s3:x", ""):
        assert local(path, "x") == Path(path)
    assert (
        from_tables("x", {"resources": {"scheduler": "tcp://h:1"}}).resources.scheduler
        == "tcp://h:1"
    )


def test_what_is_forbidden_is_no_damage():
    refused = unread("p", PermissionError(13, "Permission denied"), RuntimeError)
    assert (type(refused), refused.exit_code) == (BadInput, 2)
    assert isinstance(unread("p", FileNotFoundError(2, "none"), RuntimeError), RuntimeError)
    stale = OSError(116, "Stale file handle")
    assert unread("p", stale, RuntimeError) is stale
