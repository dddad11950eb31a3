"""The promotion gate: may this model become champion? Fails closed: what is not shown is refused.

    decision = decide(gather(…), params.register_, decided_at)

Pure: evidence in (`tpo.registry.evidence`), decision out. `tpo.registry.promotion` acts on it.

A candidate is held against the base model and against the registry's champion, if there is one, by the same rules. Two
kinds of proof are asked for. On the primary and on every benchmark the *interval* must lie above a limit, so that
little data refuses. Of small groups and of what stands beside (short videos, readable answers) that would refuse
merely because a group is small; there a loss must not be *shown*, nor seen beyond the margin. That choice is ours.
"""

from collections.abc import Iterator, Mapping

from tpo.params import RegisterParams
from tpo.records import GateDecision, GateRule, content_id
from tpo.registry.evidence import ALL, Evidence, Gain, Proof, measured_benchmarks
from tpo.registry.gate_against import MIN_CONFIDENCE, MIN_VIDEOS, describe, rules_against

MEASURE_AGAIN = "run `dvc repro -f evaluate`, then `dvc repro`"


def decide(evidence: Evidence, params: RegisterParams, decided_at: str) -> GateDecision:
    """Promote only if every rule passes.

    Args:
        params: the limits. `min_gain` is strict: 0 = better, so a tie refuses.
        decided_at: UTC, ISO 8601.
    """
    rules = (
        _measured(evidence, params),
        _confident(evidence.confidence),
        _complete(evidence),
        _needed(evidence, params),
        _own(evidence),
        _differs(evidence),
        _valid(evidence),
        _clean(evidence, params),
        _answers(evidence.proof),
        _not_rolled_back(evidence),
        *rules_against("base", evidence.base, params),
        *_champion(evidence, params),
    )
    failed = [rule.reason for rule in rules if not rule.passed]
    base, champion = evidence.base, evidence.registry.champion if evidence.registry else None
    if failed or base is None:
        summary = f"Refused: {'; '.join(failed)}."
    else:
        summary = f"Passed: tuned minus base is {describe(base.gains[params.primary])}."
    known = evidence.model_dump(mode="json")
    return GateDecision(
        id=content_id([rule.model_dump(mode="json") for rule in rules], known),
        promote=not failed,
        rules=rules,
        summary=summary,
        decided_at=decided_at,
        candidate_id=evidence.candidate_id,
        base_id=base.model_id if base else None,
        champion_id=champion.candidate_id if champion else None,
        evidence=known,
    )


def _measured(evidence: Evidence, params: RegisterParams) -> GateRule:
    gain = evidence.base.gains.get(params.primary) if evidence.base else None
    enough = gain is not None and gain.num_items >= 1 and gain.num_videos >= MIN_VIDEOS
    if evidence.base is None:
        reason = f"base and tuned were not compared ({'; '.join(evidence.missing) or 'nothing was evaluated'})"
    elif gain is None:
        found = ", ".join(sorted(evidence.base.gains))
        reason = f"register.primary is {params.primary!r}, and what was compared is {found}"
    elif not enough:
        reason = f"{gain.num_items} items of {gain.num_videos} videos are too few to compare on"
    else:
        reason = f"compared on {gain.num_items} items of {gain.num_videos} videos"
    videos = None if gain is None else gain.num_videos
    return GateRule(name="measured", passed=enough, value=videos, threshold=MIN_VIDEOS, reason=reason)


def _confident(confidence: float | None) -> GateRule:
    enough = confidence is not None and confidence >= MIN_CONFIDENCE
    if confidence is None:
        reason = "it is not known at which confidence the intervals were made"
    elif enough:
        reason = f"intervals are made at {100 * confidence:g} %"
    else:
        reason = (
            f"intervals were made at {100 * confidence:g} %, and the gate asks for {100 * MIN_CONFIDENCE:g} %: set "
            "evaluate.confidence to it and run `dvc repro`"
        )
    return GateRule(name="confidence", passed=enough, value=confidence, threshold=MIN_CONFIDENCE, reason=reason)


def _complete(evidence: Evidence) -> GateRule:
    missing = evidence.num_unanswered
    if missing is None:
        reason = "it is not known whether every planned item was answered"
    elif missing:
        reason = (
            f"{missing} items were not asked as planned: bad row, video missing or broken, subtitles of no use, or "
            "prompt too long"
        )
    else:
        reason = "every planned item was answered"
    return GateRule(name="complete", passed=missing == 0, value=missing, threshold=0, reason=reason)


def _needed(evidence: Evidence, params: RegisterParams) -> GateRule:
    measured = sorted(set(evidence.base.gains) - {ALL}) if evidence.base else []
    absent = sorted(set(params.needed) - set(measured))
    told = f"measured: {', '.join(measured)}" if measured else "no benchmark was measured"
    if absent:
        reason = f"register.needed asks for {', '.join(absent)}; {told}"
    elif params.needed:
        reason = f"all of register.needed ({', '.join(params.needed)}) was measured"
    else:
        reason = f"no benchmark is needed by name; {told}" if measured else told
    return GateRule(
        name="needed_benchmarks",
        passed=bool(measured) and not absent,
        value=", ".join(measured),
        threshold=", ".join(params.needed),
        reason=reason,
    )


def _own(evidence: Evidence) -> GateRule:
    """Everything is about one and the same model, and it was compared with the base that it came from."""
    measured, proof = evidence.candidate_id, evidence.proof
    base = evidence.base.model_id if evidence.base else None
    others = {"models/tuned": evidence.tuned_id, "the registered version": proof.candidate_id if proof else None}
    foreign = [f"{what} is {found or 'not known'}" for what, found in others.items() if not found or found != measured]
    if not measured:
        reason = "it is not known which weights were measured"
    elif foreign:
        reason = f"the evaluation is of {measured}, but {' and '.join(foreign)}: run `dvc repro`"
    elif not base or base != evidence.trained_from:
        trained = evidence.trained_from or "a base that is not known"
        reason = f"it was measured against {base or 'no base'}, but trained from {trained}: run `dvc repro`"
    else:
        reason = "training, evaluation and registry speak of the same model and base"
    passed = bool(measured) and not foreign and bool(base) and base == evidence.trained_from
    return GateRule(name="own_evidence", passed=passed, value=evidence.tuned_id, threshold=str(measured), reason=reason)


def _differs(evidence: Evidence) -> GateRule:
    base, candidate = evidence.base.model_id if evidence.base else None, evidence.candidate_id
    if not base or not candidate:
        reason = "it is not known whether the candidate differs from the base model"
    elif base == candidate:
        reason = "the candidate has the same weights as the base model"
    else:
        reason = "the candidate's weights differ from the base model's"
    passed = bool(base) and bool(candidate) and base != candidate
    return GateRule(name="differs_from_base", passed=passed, value=candidate, threshold=f"not {base}", reason=reason)


def _valid(evidence: Evidence) -> GateRule:
    verdict, trained = evidence.validation_passed, evidence.trained_pairs
    is_own = bool(trained) and trained == evidence.validated_pairs
    if verdict is None:
        reason = "there is no verdict on the training pairs"
    elif not verdict:
        reason = "the training pairs failed validation"
    elif not is_own:
        reason = "the verdict is about other pairs than those that were trained on: run `dvc repro`"
    else:
        reason = "the training pairs passed validation"
    return GateRule(name="validated", passed=verdict is True and is_own, value=verdict, threshold=True, reason=reason)


def _clean(evidence: Evidence, params: RegisterParams) -> GateRule:
    """No benchmark's video was trained on.

    Questions decide nothing on their own: one that a benchmark asks too gives nothing away about another video, those
    with long runs of words in common were set aside, and shorter ones are what anyone might ask. They are counted.
    """
    name, limit = "decontaminated", params.max_unchecked_share
    found = evidence.decontamination
    if found is None:
        reason = f"it is not known whether benchmarks are in the training data ({'; '.join(evidence.missing)})"
        return GateRule(name=name, passed=False, value=None, threshold=limit, reason=reason)
    unchecked = sorted((measured_benchmarks(evidence.base) if evidence.base else set()) - set(found.benchmarks))
    share = found.num_by_bytes_alone / found.num_videos if found.num_videos else 1.0
    if not found.is_validated:
        reason = "the reports on benchmarks are not those that validation read: run `dvc repro`"
    elif unchecked or not found.benchmarks:
        reason = f"the training data was not compared with {', '.join(unchecked) or 'any benchmark'}"
    elif found.num_kept:
        reason = f"{found.num_kept} videos of benchmarks were trained on (ingest.contamination.score_only)"
    elif share > limit:
        reason = (
            f"{found.num_by_bytes_alone} of {found.num_videos} videos are unusable, too short or too still to be "
            f"recognised, more than register.max_unchecked_share ({100 * limit:g} %)"
        )
    else:
        reason = (
            f"no video of {', '.join(found.benchmarks)} was trained on, {found.num_by_bytes_alone} of "
            f"{found.num_videos} compared by their bytes alone; of {found.num_questions} questions "
            f"{found.num_short_questions} are too short to be told from what anyone might ask"
        )
    passed = found.is_validated and bool(found.benchmarks) and not unchecked and not found.num_kept and share <= limit
    return GateRule(name=name, passed=passed, value=share, threshold=limit, reason=reason)


def _answers(proof: Proof | None) -> GateRule:
    if proof is None:
        reason = "it is not known whether the registered model answers"
    elif not proof.is_intact:
        reason = f"the files of version {proof.version} in the registry are not those that were registered"
    elif proof.answer is None:
        reason = f"version {proof.version}, loaded from the registry, does not answer: {proof.problem or 'not asked'}"
    else:
        reason = f"version {proof.version} loads from the registry and answers"
    return GateRule(
        name="answers_from_registry",
        passed=proof is not None and proof.is_intact and proof.answer is not None,
        value=proof.found_digest if proof else None,
        threshold=proof.registered_digest if proof else "",
        reason=reason,
    )


def _not_rolled_back(evidence: Evidence) -> GateRule:
    """What a person took back, no gate puts there again; a person may."""
    known = evidence.registry is not None and evidence.candidate_id is not None
    taken_back = evidence.registry.rolled_back.get(evidence.candidate_id or "") if evidence.registry else None
    if not known:
        reason = "it is not known whether it was champion before and rolled back"
    elif taken_back is not None:
        reason = f"it was champion before and was rolled back ({taken_back}): `tpo promote` if it is to come again"
    else:
        reason = "it was not rolled back before"
    passed = known and taken_back is None
    return GateRule(name="not_rolled_back", passed=passed, value=taken_back, threshold="", reason=reason)


def _champion(evidence: Evidence, params: RegisterParams) -> Iterator[GateRule]:
    """The rules against the champion, or the one that says why they cannot or need not be applied."""

    def single(reason: str, *, passed: bool = False) -> Iterator[GateRule]:
        value = evidence.champion.model_id if evidence.champion else None
        yield GateRule(
            name="better_than_champion", passed=passed, value=value, threshold=params.min_gain, reason=reason
        )

    if evidence.registry is None:
        return single("it is not known which model is champion")
    champion = evidence.registry.champion
    if champion is None:
        return single("the registry has no champion yet, so the base is what must be beaten", passed=True)
    if not champion.candidate_id:
        return single(f"the registry does not say which weights the champion, version {champion.version}, has")
    if champion.candidate_id == evidence.candidate_id:
        return single(f"it is the champion already (version {champion.version}), so there is nothing to promote")
    if evidence.champion is None:
        return single(
            f"the champion, version {champion.version}, was not measured beside it: set evaluate.champion to true and "
            f"{MEASURE_AGAIN}"
        )
    if evidence.champion.model_id != champion.candidate_id:
        return single(
            f"another champion was measured than the present one, version {champion.version}: {MEASURE_AGAIN}"
        )
    if evidence.base and (unlike := _unlike(evidence.base.gains, evidence.champion.gains)):
        return single(f"the champion was not asked what the base was, on {', '.join(unlike)}: {MEASURE_AGAIN}")
    return rules_against("champion", evidence.champion, params)


def _unlike(base: Mapping[str, Gain], champion: Mapping[str, Gain]) -> list[str]:
    """What only one of the two was compared on, or on another number of items or videos."""
    first, second = (
        {name: (one.num_items, one.num_videos) for name, one in gains.items()} for gains in (base, champion)
    )
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
