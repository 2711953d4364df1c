"""Rows of accuracy tables: a model shows one validation and one test accuracy, whatever it is
called.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stockpot.stages.show.plain import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "CEILING",
    "CHOSEN_BY",
    "Row",
    "accuracy_text",
    "chosen_words",
    "ensemble_row",
    "soup_rows",
]

CHOSEN_BY = {
    "validation": "chosen on validation",
    "recipe": "asked for by soup.method",
    "nothing": "the only model",
    None: "chosen",  # older artifacts do not say
}
"""Fact "chosen_by" of a soup, in words."""
CEILING = "a ceiling: the mean of all predictions, not one model"


@dataclass(frozen=True)
class Row:
    """One model of a table.

    Attributes
    ----------
    name : what it is called.
    valid, test : accuracy of the model itself on the validation and test records.
    cross_fitted : of a method's soups of halves of the validation records, each on the half it has
        not seen.
    remarks : words about it.
    methods : that made it, where it is a soup.
    chosen : it is the one that ships.
    """

    name: str
    valid: float | None
    test: float | None
    cross_fitted: float | None = None
    remarks: Sequence[str] = ()
    methods: Sequence[str] = field(default_factory=list)
    chosen: bool = False


def soup_rows(soup: Mapping[str, Any]) -> list[Row]:
    """A row for each soup; those of equal weights share one.

    Parameters
    ----------
    soup : "chosen", perhaps "chosen_by", and "methods" from the simplest on, each with
        "valid_accuracy" and perhaps "cross_fitted_accuracy", "test_accuracy" and "same_as".
    """
    methods: Mapping[str, Mapping[str, Any]] = soup["methods"]
    alike: dict[str, list[str]] = {}
    for name, method in methods.items():
        same = method.get("same_as") or name
        alike.setdefault(
            same if same in methods or same.startswith("ingredient:") else name, []
        ).append(name)
    rows = []
    for same, names in alike.items():
        first, chosen = methods[names[0]], soup["chosen"] in names
        remarks = (
            [f"single model {same.removeprefix('ingredient:')}"]
            if same.startswith("ingredient:")
            else []
        )
        if chosen:
            by = CHOSEN_BY[soup.get("chosen_by")]
            remarks.append(by if len(names) == 1 else f"{soup['chosen']} {by}")
        rows.append(
            Row(
                f"soup: {', '.join(names)}",
                first["valid_accuracy"],
                first.get("test_accuracy"),
                # Halves may prefer different models where all of validation prefers the same one.
                first.get("cross_fitted_accuracy") if len(names) == 1 else _agreed(methods, names),
                remarks,
                names,
                chosen,
            )
        )
    return rows


def chosen_words(soup: Mapping[str, Any]) -> str:
    """The method that ships and why it does, in words: "Chosen on validation: greedy"."""
    by = CHOSEN_BY[soup.get("chosen_by")]
    return f"{by[0].upper()}{by[1:]}: {soup['chosen']}"


def _agreed(methods: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> float | None:
    """The cross-fitted accuracy of methods that made the same soup; None where their soups of
    halves differ in it.
    """
    found = {methods[name].get("cross_fitted_accuracy") for name in names}
    return found.pop() if len(found) == 1 else None


def ensemble_row(ensemble: Mapping[str, Any] | None) -> Row | None:
    """The mean of all models' predictions; None where it is not known, or of one model."""
    if not ensemble or ensemble.get("models", 2) < 2:
        return None
    count = f"{ensemble['models']} " if "models" in ensemble else ""
    return Row(
        f"all {count}models together",
        ensemble["valid_accuracy"],
        ensemble.get("test_accuracy"),
        None,
        [CEILING],
    )


def accuracy_text(rows: Sequence[Row]) -> str:
    """The table as plain text."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f} %"

    crossed = any(row.cross_fitted is not None for row in rows)
    head = ("accuracy", "valid", *(["cross-fitted"] if crossed else []), "test", "")
    cells = [
        [
            row.name,
            percent(row.valid),
            *(
                [percent(row.cross_fitted) if row.cross_fitted is not None else ""]
                if crossed
                else []
            ),
            percent(row.test),
            "; ".join(row.remarks),
        ]
        for row in rows
    ]
    return table(head, cells, right=range(1, len(head) - 1))
