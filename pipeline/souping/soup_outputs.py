"""What a soup of existing models leaves behind and says: `soup.json`, `report.html`, and a
table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.report.accuracies import Row, accuracy_text, chosen_words, ensemble_row, soup_rows
from stockpot.report.machine import machine
from stockpot.stages.show.html import page, section, table, text
from stockpot.stages.soup.sections import Souped, soup_sections, varied

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.souping.ingredients import Ingredient

__all__ = ["document_text", "soup_document", "soup_page"]

FORMAT = 1


def soup_document(
    out: Path,
    command: str,
    found: Sequence[Ingredient],
    facts: Mapping[str, Any],
    notes: Mapping[str, Any],
    scores: Mapping[str, Any],
    words: Sequence[str],
) -> dict[str, Any]:
    """The contents of `soup.json`.

    Parameters
    ----------
    facts, notes : of the stage.
    scores : test accuracy by method and "ingredient:I"; `labelled` outputs behind each.
    """
    return {
        "format": FORMAT,
        "out": str(out),
        "command": command,
        "chosen": facts["chosen"],
        "chosen_by": facts["chosen_by"],
        "methods": {
            name: {
                **method,
                "test_accuracy": scores.get(name),
                **{what: (notes.get(what) or {}).get(name) for what in ("seconds", "peak_bytes")},
            }
            for name, method in facts["methods"].items()
        },
        "ingredients": [
            {
                "file": one.label,
                "seed": one.metadata.get("seed"),
                "init_digest": one.metadata.get("init_digest"),
                **single,
                "test_accuracy": scores.get(f"ingredient:{i}"),
            }
            for i, (one, single) in enumerate(zip(found, facts["ingredients"], strict=True))
        ],
        "ensemble": {**facts["ensemble"], "test_accuracy": scores.get("ensemble")},
        **{name: facts[name] for name in ("parts", "landscape", "labelled") if name in facts},
        "test_labelled": scores.get("labelled"),
        "remarks": [*(facts.get("remarks") or []), *words],
    }


def soup_page(
    document: Mapping[str, Any],
    facts: Mapping[str, Any],
    found: Sequence[Ingredient],
    notes: Mapping[str, Any],
    scores: Mapping[str, Any],
) -> str:
    """One page that needs nothing else."""
    about = varied([one.metadata.get("config") or {} for one in found])
    names = [
        ", ".join(filter(None, (one.label, words))) for one, words in zip(found, about, strict=True)
    ]
    souped = Souped(
        {**facts, "remarks": document["remarks"]},
        notes.get("seconds") or {},
        notes.get("peak_bytes") or {},
        scores,
        document["test_labelled"],
        names,
    )
    software = table(
        ("what", "is"),
        [(text(k), text(v)) for k, v in machine().items()],
        about="Where this was made.",
        words=1,
    )
    body = [
        f"<h1>soup of {len(found)} models</h1>",
        f'<p class="result">{text(chosen_words(document))}.</p>',
        section("Soups", *soup_sections(souped)),
        section("Command", f"<pre>{text(document['command'])}</pre>", software),
    ]
    return page(f"stockpot: soup of {len(found)} models", "\n".join(body))


def document_text(document: Mapping[str, Any]) -> str:
    """What `stockpot soup` prints."""
    rows = [
        Row(one["file"], one["valid_accuracy"], one["test_accuracy"])
        for one in document["ingredients"]
    ]
    parts = [
        accuracy_text(
            [*rows, *soup_rows(document), *filter(None, [ensemble_row(document["ensemble"])])]
        )
    ]
    parts += document["remarks"]
    out = Path(document["out"])
    parts.append(
        f"written: {out / 'chosen.safetensors'}, {out / 'soup.json'}, {out / 'report.html'}"
    )
    return "\n\n".join(parts)
