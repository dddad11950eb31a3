"""One verdict on whether the records are fit to train on, and Data Docs that show it to people.

    verdict = validate(videos, queries, pairs, params.validate_, Path("reports/data_docs"))
    if not verdict.success:
        raise UserError(failure_text(verdict))

A critical expectation that fails makes the verdict a failure; warnings are shown only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo.params import ValidateParams
from tpo.progress import progress
from tpo.records import PreferencePair, Query, Record, Video
from tpo.validation.suites import Severity, Suite, suites

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


class ValidationVerdict(Record):
    success: bool
    outcomes: tuple[Outcome, ...]


def validate(
    videos: Sequence[Video],
    queries: Sequence[Query],
    pairs: Sequence[PreferencePair],
    params: ValidateParams,
    data_docs: Path,
) -> ValidationVerdict:
    """Run every suite and write a static site with the results into the folder `data_docs` (`index.html` first).

    Never raises for bad data: an empty or broken set is a verdict too.
    """
    with progress(2, "validate", "steps") as bar:
        context = _context(data_docs)
        checks = suites(videos, queries, pairs, params)
        bar.total = 2 + len(checks)
        bar.update()
        outcomes = []
        for suite in checks:
            outcomes += _run(context, suite)
            bar.update()
        context.clean_data_docs()
        context.build_data_docs()
        bar.update()
    success = all(outcome.passed for outcome in outcomes if outcome.severity == "critical")
    return ValidationVerdict(success=success, outcomes=tuple(outcomes))


def failure_text(verdict: ValidationVerdict) -> str:
    """The failed critical expectations with the ids of offending records, for a `UserError`."""
    failed = [outcome for outcome in verdict.outcomes if outcome.severity == "critical" and not outcome.passed]
    return "\n".join(
        [
            f"The data is not fit to train on: {len(failed)} of {len(verdict.outcomes)} expectations failed.",
            *(f"  {outcome.suite}: {outcome.name}: {_found(outcome)}" for outcome in failed),
            "Look the ids up in the JSON Lines files of data/, mend or remove what they come from, and run again.",
        ]
    )


def _found(outcome: Outcome) -> str:
    if outcome.error is not None:
        return f"could not be checked: {outcome.error}"
    if outcome.unexpected_ids:
        more = ", …" if outcome.unexpected_count > len(outcome.unexpected_ids) else ""
        return f"broken by {outcome.unexpected_count} record(s): {', '.join(outcome.unexpected_ids)}{more}"
    observed = "nothing" if outcome.observed is None else f"{outcome.observed:g}"
    return f"expected {outcome.expected}, found {observed}"


def _context(data_docs: Path) -> "EphemeralDataContext":
    """A context that lives in memory alone: no project folder, no cloud, one site, no progress bars."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(data_docs.absolute())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"data_docs": site},
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
