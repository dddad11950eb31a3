"""Suites of Great Expectations over records: a table of one kind of record, and what is expected of it.

    suite = of_records("pairs", pairs, at_least=50, rules=[Rule("chosen_is_not_blank", lambda pair: ...)])
    suite.measure("chosen_tokens", lengths, "ExpectColumnMaxToBeBetween", "…", "…", max_value=100)

Great Expectations compares neither columns nor records on pandas, so each rule is computed here as a column of True and
False, named like the sentence it stands for, and the suite expects True. The tables hold ids, numbers and booleans, no
text from outside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import pandas as pd

from tpo.records import Caption, PreferencePair, Query, Video

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

Severity: TypeAlias = Literal["critical", "warning", "info"]
R = TypeVar("R", Video, Caption, Query, PreferencePair)


@dataclass(frozen=True)
class Rule(Generic[R]):
    """What must hold of each record, or of at least the share `mostly` of them.

    What it means is its name, unless that needs more words.
    """

    name: str
    holds: Callable[[R], bool]
    meaning: str = ""
    severity: Severity = "critical"
    mostly: float = 1.0


@dataclass(frozen=True)
class Suite:
    """A table with one row for each record and its `id`, and the expectations, which begin empty and are added.

    An expectation has its name in `meta` and its meaning in `notes`.
    """

    name: str
    frame: pd.DataFrame
    expectations: "list[Expectation]"

    def expect(self, kind: str, name: str, meaning: str, severity: Severity, **arguments: Any) -> None:
        """Add the expectation of Great Expectations that is called `kind`."""
        from great_expectations import expectations
        from great_expectations.expectations.metadata_types import FailureSeverity

        of_kind: type[Expectation] = getattr(expectations, kind)
        self.expectations.append(
            of_kind(meta={"name": name}, notes=meaning, severity=FailureSeverity(severity), **arguments)
        )

    def measure(
        self,
        column: str,
        values: Sequence[float | None] | pd.Series,
        kind: str,
        name: str,
        meaning: str,
        **limits: float,
    ) -> None:
        """Add a column of numbers and a warning about it. None is left out; where all are none, nothing is expected."""
        self.frame[column] = pd.Series(values, dtype=float)
        if self.frame[column].notna().any():
            self.expect(kind, name, meaning, "warning", column=column, **limits)


def of_records(name: str, records: Sequence[R], at_least: int, rules: Sequence[Rule[R]]) -> Suite:
    """There are `at_least` so many records, each has an id of its own, and the rules hold."""
    frame = pd.DataFrame({"id": pd.Series([record.id for record in records], dtype=object)})
    suite = Suite(name, frame, [])
    suite.expect(
        "ExpectTableRowCountToBeBetween", "enough_rows", f"at least {at_least}", "critical", min_value=at_least
    )
    suite.expect("ExpectColumnValuesToBeUnique", "id_is_unique", "each id once", "critical", column="id")
    for rule in rules:
        frame[rule.name] = pd.Series([rule.holds(record) for record in records], dtype=bool)
        suite.expect(
            "ExpectColumnValuesToBeInSet",
            rule.name,
            rule.meaning or rule.name.replace("_", " "),
            rule.severity,
            column=rule.name,
            value_set=[True],
            mostly=rule.mostly,
        )
    return suite
