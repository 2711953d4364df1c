"""`run.json`: no flipped bit and no cut changes what a run opens; nonsense under a valid check is
refused by type."""

import json

import pytest

from stockpot.stages.errors import BadInput, Corrupt
from stockpot.store import run_folder
from stockpot.store.run_folder import dump, read_run

DOCUMENT = {
    "format": 1,
    "name": "toy",
    "store": "/pot",
    "recipe": {"train": {"per_step": 4, "lr": 1e-3}, "graph": {"normalization": "sym"}},
    "artifacts": {"pack:train": {"stage": "pack", "key": "0" * 32, "digest": "1" * 32}},
}


def sealed(document):
    return {**document, "check": run_folder._check(document)}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "run.json").write_text(dump(sealed(DOCUMENT)))
    return tmp_path / "run.json"


def test_no_bit_and_no_cut_changes_what_is_read(path):
    data = path.read_bytes()
    assert read_run(path.parent) == DOCUMENT
    damaged = [
        data[:at] + bytes([data[at] ^ 1 << at * 5 % 8]) + data[at + 1 :] for at in range(len(data))
    ]
    refused = 0
    for changed in [*damaged, *(data[:at] for at in range(len(data)))]:
        path.write_bytes(changed)
        try:
            assert read_run(path.parent) == DOCUMENT, changed  # white space at most
        except (BadInput, Corrupt):
            refused += 1
    assert refused > 1.8 * len(data)


@pytest.mark.parametrize("name", ["format", "name", "store", "recipe", "artifacts"])
@pytest.mark.parametrize("value", [None, -1, 2**70, [], {"x": 1}, {"x": {}}, "a\0b", True])
def test_nonsense_under_a_valid_check_is_refused_by_type(path, name, value):
    for document in ({**DOCUMENT, name: value}, {k: v for k, v in DOCUMENT.items() if k != name}):
        path.write_text(json.dumps(sealed(document)))
        try:
            run = read_run(path.parent)
        except (BadInput, Corrupt):
            continue
        assert isinstance(run["store"], str)
        assert all(isinstance(entry["key"], str) for entry in run["artifacts"].values())


def test_runs_of_before_the_check_are_read_and_others_words_are_not(path):
    path.write_text(json.dumps(DOCUMENT))
    assert read_run(path.parent) == DOCUMENT
    path.write_text(json.dumps({**DOCUMENT, "chebk": sealed(DOCUMENT)["check"]}))
    with pytest.raises(BadInput, match="unknown fields: chebk"):
        read_run(path.parent)
    for text in ("[" * 50_000, "7", "null", '"x"', "\xff"):
        path.write_text(text, encoding="latin1")
        with pytest.raises(BadInput, match=r"run\.json"):
            read_run(path.parent)


def test_a_folder_in_its_place_is_one_line(path):
    path.unlink()
    path.mkdir()
    with pytest.raises(BadInput, match=r"run\.json: cannot be read: Is a directory") as caught:
        read_run(path.parent)
    assert caught.value.exit_code == 2
