"""Csv files as programs and people write them: read as Python's csv module reads them, or refused
in one line."""

import csv
import gzip
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.dialect import sniff
from stockpot.stages.ingest.source import describe
from tests.stages.ingest.test_files import opened, read_edges

EDGES = [("b", "a"), ("c", "b"), ("a", "c")]
NAMES = ["a", "b", "c"]


def folder(root, edges, labels="id,label\na,0\nb,1\nc,0\n", name="edges.csv"):
    root.mkdir(exist_ok=True)
    content = edges if isinstance(edges, bytes) else edges.encode()
    (root / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    if labels is None:
        np.save(root / "labels.npy", np.array([0, 1, 0]))
    else:
        (root / "labels.csv").write_text(labels)
    return f"files:{root}"


def read(source, root):
    """Edges as pairs of names, or numbers, with weights; and the names."""
    with opened(source) as data:
        pairs, weight = read_edges(data, 1000)
        data.labels()
        written = []
        data.write_node_ids(lambda name: written.append(root / name) or root / name)
    names = np.arange(data.num_nodes)
    if written:
        import pyarrow as pa

        with pa.ipc.open_file(written[0]) as file:
            names = np.array(file.read_all()["id"].to_pylist(), object)
    return [tuple(pair) for pair in names[pairs.T].tolist()], weight, list(names)


ROWS = "b,a\nc,b\na,c\n"
SOUND = {
    "plain": "source,target\n" + ROWS,
    "blanks after commas": "source, target\nb, a\nc, b\na, c\n",
    "blanks everywhere": " source ,target\n b ,a\nc\t, b \n a,c  \n",
    "upper case header": "Source,Target\n" + ROWS,
    "semicolons": "source;target\n" + ROWS.replace(",", ";"),
    "tabs": "source\ttarget\n" + ROWS.replace(",", "\t"),
    "bars": "source|target\n" + ROWS.replace(",", "|"),
    "single blanks": "source target\n" + ROWS.replace(",", " "),
    "byte order mark": "\ufeffsource,target\n" + ROWS,
    "Windows line ends": ("source,target\n" + ROWS).replace("\n", "\r\n"),
    "old Mac line ends": ("source,target\n" + ROWS).replace("\n", "\r"),
    "no last line end": ("source,target\n" + ROWS).rstrip(),
    "empty lines": "\nsource,target\n\nb,a\n\n\nc,b\na,c\n\n",
    "comments before": "# from a crawl\n% of 2017\n\nsource,target\n" + ROWS,
    "quoted": '"source","target"\n"b","a"\n"c",b\na,"c"\n',
    "quoted blanks": 'source,target\n"b "," a"\nc,b\na,c\n',
    "src, dst": "dst,src\na,b\nb,c\nc,a\n",
    "gzipped": ("source,target\n" + ROWS, "edges.csv.gz"),
}


@pytest.mark.parametrize("case", SOUND)
def test_read_as_they_are_meant(tmp_path, case):
    text, name = (SOUND[case], "edges.csv") if isinstance(SOUND[case], str) else SOUND[case]
    pairs, weight, names = read(folder(tmp_path, text, name=name), tmp_path)
    assert (pairs, weight, names) == (EDGES, None, NAMES)


NUMBERED = {
    "no header": "1,0\n2,1\n0,2\n",
    "no header, weights": "1,0,0.5\n2,1,1.5\n0,2,2\n",
    "SNAP": "# Directed graph\n# FromNodeId\tToNodeId\n1\t0\n2\t1\n0\t2\n",
    "edge list": "1 0\n2 1\n0 2\n",
    "decimal commas": "source;target;weight\n1;0;0,5\n2;1;1,5\n0;2;2\n",
    "decimal commas, no header": "1;0;0,5\n2;1;1,5\n0;2;2,0\n",
    "blanks": " 1, 0\n2 ,1\n0,\t2\n",
    "exponents": "source,target,weight\n1,0,5e-1\n2,1,1.5\n0,2,+2E0\n",
}


@pytest.mark.parametrize("case", NUMBERED)
def test_numbers_are_read_as_they_are_meant(tmp_path, case):
    pairs, weight, _ = read(folder(tmp_path, NUMBERED[case], None), tmp_path)
    assert pairs == [(1, 0), (2, 1), (0, 2)]
    assert weight is None or weight.tolist() == [0.5, 1.5, 2.0]
    assert (weight is not None) == ("5" in NUMBERED[case])


REFUSED = {
    "trailing commas": (
        "source,target,\nb,a,\n",
        (
            "row 1: expected a value after the last comma, found nothing; fix: remove the comma at "
            "the end of every row"
        ),
    ),
    "pandas index": (
        ",source,target\n0,b,a\n",
        (
            "row 1: expected a name for the first column, found none: pandas writes its index so; "
            "fix: write it with f"
        ),
    ),
    "two blanks": ("source  target\nb  a\n", "expected columns source, target"),
    "UTF-16": (
        "source,target\nb,a\n".encode("utf-16"),
        "expected UTF-8 text, found UTF-16; fix: iconv -f UTF-16",
    ),
    "latin-1": (
        "source,target\nb,é\n".encode("latin-1"),
        "row 2: expected UTF-8 text, found the byte 0xe9; fix: iconv -f LATIN1",
    ),
    "latin-1 later": (
        ("source,target\n" + "b,a\n" * 20_000 + "b,é\n").encode("latin-1"),
        "expected readable csv, found: In CSV column #1: Row #20002: CSV conversion error to",
    ),
    "floats": (
        "source,target\n0.0,1.0\n",
        "found floats (1.0 for 1): pandas makes them of integers beside missing v",
    ),
    "floats, no header": (
        "0.0,1.0\n1.0,2.0\n",
        "source: expected a column of integers or strings, found floats",
    ),
    "a float later": (
        "source,target\n0,1\n1,2.0\n",
        "expected an integer, found '2.0'; fix: write target as whole num",
    ),
    "a float among names": (
        "source,target\nb,a\nc,2.0\n",
        "found a float among names in row 3: '2.0'",
    ),
    "comments between": (
        "source,target\nb,a\n# more, to come\n",
        "found what looks like a comment among names in row",
    ),
    "quotes after blanks": (
        'source, target\nb, "a"\n',
        "found a quote after a blank among names in row 2: '\"a\"'",
    ),
    "single quotes": (
        "source,target\n'b','a'\n",
        "found a name in single quotes among names in row 2: \"'b'\"; fix: ",
    ),
    "an open quote": ('source,target\n"b,a\nc,b\n', "a quote that is not closed"),
    "blanks alone": ("source,target\nb,a\n   \nc,b\n", "row 3: expected 2 fields, found 1"),
    "a name of blanks": (
        "source,target\nb,  \n",
        "target: expected ids of one type, names as in the first row, found an",
    ),
    "names without header": (
        "b,a\nc,b\n",
        "expected columns source, target (or src, dst) and perhaps weight, found b",
    ),
    "decimal commas in commas": (
        "0,1,0,5\n",
        "expected 2 or 3 columns, found 4; fix: name the columns in a first row",
    ),
    "thousands": (
        "source;target;weight\n0;1;1.000,5\n",
        "weight: expected a number, found '1.000,5'",
    ),
    "comments alone": ("# nothing\n\n", "expected readable csv with rows, found comments alone"),
    "header alone": ("source,target\n", "expected rows, found none"),
    "no gzip": (
        b"source,target\nb,a\n",
        "expected readable csv, found: Not a gzipped file",
        "edges.csv.gz",
    ),
    "gzip cut off": (
        gzip.compress(b"source,target\n" + b"b,a\n" * 99)[:-9],
        "expected readable csv, found",
        "edges.csv.gz",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(tmp_path, case):
    content, words, *name = REFUSED[case]
    numbered = (
        content[:1] in "01" or "0,1\n" in content or "0;1" in content
        if isinstance(content, str)
        else False
    )
    source = folder(
        tmp_path, b"", *([None] if numbered else []), name=name[0] if name else "edges.csv"
    )
    (tmp_path / (name[0] if name else "edges.csv")).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    with pytest.raises(BadInput) as caught:
        read(source, tmp_path)
    assert words in str(caught.value)
    assert "fix: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_blanks_in_labels_and_their_header(tmp_path):
    source = folder(tmp_path, "source,target\n" + ROWS, "id; label\n a; 1\nb ;0\nc; 1,0\n")
    with opened(source) as data:
        assert data.labels().tolist() == [1, 0, 1]
    assert describe(source).reading == "edges trimmed;labels trimmed"


word = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=6
)
names = st.lists(st.tuples(word, word), min_size=1, max_size=12)


@given(
    pairs=names,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
    blanks=st.sampled_from(["", " ", "  "]),
    before=st.sampled_from(["", "\ufeff", "# a comment\n", "\n\n"]),
    packed=st.booleans(),
)
def test_what_the_csv_module_writes_is_read_back_or_refused(
    tmp_path_factory, pairs, delimiter, quoting, end, blanks, before, packed
):
    """Never another graph: phantom nodes, lost nodes or edges that were not written."""
    root, text = tmp_path_factory.mktemp("dialect"), io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([("source", "target"), *pairs])
    content = text.getvalue()
    if blanks and quoting == csv.QUOTE_MINIMAL:
        content = content.replace(delimiter, delimiter + blanks)
        again = list(csv.reader(io.StringIO(content, newline=""), delimiter=delimiter))[1:]
        pairs = [tuple(field.strip() for field in row) for row in again]
    listed = sorted({name for pair in pairs for name in pair})
    labels = io.StringIO(newline="")
    csv.writer(labels).writerows([("id", "label"), *((name, 0) for name in listed)])
    source = folder(
        root, before + content, labels.getvalue(), "edges.csv.gz" if packed else "edges.csv"
    )
    try:
        found, _, read_names = read(source, root)
    except BadInput as error:
        refused = error
    else:
        assert found == pairs
        assert sorted(read_names) == listed
        return
    assert "\n" not in str(refused)
    assert refused.fix
    assert not all(name.isalpha() for name in listed)


def test_a_sample_that_ends_within_a_character(tmp_path):
    path = tmp_path / "edges.csv"
    path.write_text("source,target\n" + "é" * (1 << 16))
    assert sniff(path, lambda fields: True).fields == ("source", "target")
