"""Bad input in a data set, through the command line: one line, exit code 2, nothing started."""

import pytest

from pipeline.cli import main


def refused(capsys, source, verb="run"):
    code = main([verb, "data.toml", "--set", f"dataset.source={source}", "--set", "resources.memory=100GB"])
    text = capsys.readouterr().err
    assert code == 2, text
    assert text.count("\n") == 1, text
    assert text.startswith("stockpot: error: ")
    assert "fix:" in text
    return text


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.toml").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("ogb:ogbn-arxiv", "missing in"),
        ("ogb:ogbn-arxif", "nearest is ogbn-arxiv"),
        ("ogbn:arxiv", "nearest is ogb"),
        ("synthetic:communities?inside=2", "inside: expected 0.0 to 1.0, found 2.0"),
    ],
)
def test_named_wrongly(folder, capsys, source, words):
    assert words in refused(capsys, source)
    assert not (folder / "runs/store").exists()


def test_a_plan_of_what_is_not_there(capsys):
    assert main(["plan", "data.toml", "--set", "dataset.source=ogb:ogbn-arxiv", "--set", "resources.memory=100GB"]) == 0
    assert "the data is not there yet" in capsys.readouterr().out
