"""One verdict on whether the records are fit to train on, and Data Docs that show it to people.

    verdict = validate(records, params.validate_, params.mix.localized_share, Path("reports/data_docs"))
    if not verdict.success:
        raise UserError(failure_text(verdict))

A critical expectation that fails makes the verdict a failure; warnings are shown only.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo.params import ValidateParams
from tpo.progress import progress
from tpo.records import Record
from tpo.validation.data_docs import site, write_index
from tpo.validation.expectations import Severity, Suite
from tpo.validation.suites import Records, suites

if TYPE_CHECKING:
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext

_MAX_IDS = 10


class Outcome(Record):
    """What one expectation found."""

    suite: str
    name: str
    expected: str
    severity: Severity
    passed: bool
    observed: float | None
    unexpected_count: int
    unexpected_ids: tuple[str, ...]
    error: str | None

    @property
    def found(self) -> str:
        """For people: what was observed, or which records are at fault."""
        if self.error is not None:
            return f"could not be checked: {self.error}"
        if self.unexpected_ids:
            more = ", …" if self.unexpected_count > len(self.unexpected_ids) else ""
            return f"not met by {self.unexpected_count} record(s): {', '.join(self.unexpected_ids)}{more}"
        if self.observed is not None:
            return f"found {round(self.observed, 3):.10g}"
        return "met by all" if self.passed else "found nothing"


class ValidationVerdict(Record):
    success: bool
    outcomes: tuple[Outcome, ...]

    def of(self, severity: Severity) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.severity == severity]

    def broken(self, severity: Severity) -> list[Outcome]:
        return [outcome for outcome in self.of(severity) if not outcome.passed]


def validate(
    records: Records, params: ValidateParams, localized_share: float | None, data_docs: Path
) -> ValidationVerdict:
    """Run every suite and write a static site with the results into the folder `data_docs` (`index.html` first).

    Never raises for bad data: an empty or broken set is a verdict too.

    Args:
        localized_share: of the pairs, as the mix was to have it; none = as it came.
    """
    with progress(2, "validate", "steps") as bar:
        context = _context(data_docs)
        checks = suites(records, params, localized_share)
        bar.total = 2 + len(checks)
        bar.update()
        outcomes = []
        for suite in checks:
            outcomes += _run(context, suite)
            bar.update()
        success = all(outcome.passed for outcome in outcomes if outcome.severity == "critical")
        verdict = ValidationVerdict(success=success, outcomes=tuple(outcomes))
        context.clean_data_docs()
        context.build_data_docs(build_index=False)
        write_index(verdict, data_docs)
        bar.update()
    return verdict


def failure_text(verdict: ValidationVerdict) -> str:
    """The failed critical expectations with the ids of offending records, for a `UserError`."""
    broken, critical = verdict.broken("critical"), verdict.of("critical")
    return "\n".join(
        [
            f"The data is not fit to train on: {len(broken)} of {len(critical)} critical expectations failed.",
            *(f"  {outcome.suite}: {outcome.name}, {outcome.expected}: {outcome.found}" for outcome in broken),
            "Look the ids up in the JSON Lines files of data/, mend or remove what they come from, and run again.",
        ]
    )


def _context(data_docs: Path) -> "EphemeralDataContext":
    """A context that lives in memory alone: no project folder, no cloud, one site, no progress bars."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"data_docs": site(data_docs)},
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _run(context: "EphemeralDataContext", suite: Suite) -> list[Outcome]:
    """Run one suite as a checkpoint. Each has its own, because all data of a checkpoint share their parameters."""
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    source = context.data_sources.add_pandas(suite.name)
    validation = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=suite.name,
            data=source.add_dataframe_asset("records").add_batch_definition_whole_dataframe("all"),
            suite=context.suites.add(gx.ExpectationSuite(suite.name, expectations=suite.expectations)),
        )
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=suite.name,
            validation_definitions=[validation],
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": ["id"],
                "partial_unexpected_count": _MAX_IDS,
            },
        )
    )
    run = checkpoint.run(batch_parameters={"dataframe": suite.frame}, run_id=RunIdentifier(run_name="validate"))
    results = [result for of_suite in run.run_results.values() for result in of_suite.results]
    found = {outcome.name: outcome for outcome in (_outcome(suite.name, result) for result in results)}
    # Great Expectations puts failures to evaluate first; people expect the suite's order.
    return [found[(expectation.meta or {})["name"]] for expectation in suite.expectations]


def _outcome(suite: str, result: Any) -> Outcome:
    config, found, raised = result.expectation_config, result.result, result.exception_info
    # What was raised comes flat, or one entry for each metric that could not be computed.
    errors = [raised] if "exception_message" in raised else list(raised.values())
    ids = [row["id"] for row in found.get("partial_unexpected_index_list") or []]
    return Outcome(
        suite=suite,
        name=config.meta["name"],
        expected=config.notes,
        severity=config.severity.value,
        passed=bool(result.success),
        observed=found.get("observed_value"),
        unexpected_count=found.get("unexpected_count", 0),
        unexpected_ids=tuple(dict.fromkeys(ids)),
        error=next((error["exception_message"] for error in errors), None),
    )
