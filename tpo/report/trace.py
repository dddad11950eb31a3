"""From a pair back to where everything in it came from: video, views, captions, prompts, answers and verdicts.

    print(to_text(trace(Path(), "3f2a", load_params())))      # also `tpo show 3f2a`

Prompts are not stored: they are written again from the records and the settings, and are the same if their content id
is the one that the record carries. Text from outside is shown as a Python string, so that it cannot act on a terminal.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tpo.curation.judging import Candidate
from tpo.curation.model_judging import judge_request
from tpo.curation.model_queries import Prompt
from tpo.curation.queries import segments_of
from tpo.errors import UserError
from tpo.llm.chat import ChatRequest
from tpo.params import Params
from tpo.records import Answer, Branch, Caption, PreferencePair, Query, Record, Rejection, Verdict, Video, View
from tpo.store import read_stage

_FEWEST_DIGITS = 4  # of an id that is given in part


class PromptText(Record):
    """What a model was asked. `is_same` is false if captions, settings or the wording have changed since."""

    who: str
    system: str
    text: str
    is_same: bool


class Trace(Record):
    """Everything about one query; of a pair that was kept, also the pair and where it went."""

    query: Query | None
    video: Video
    captions: tuple[Caption, ...]
    answers: tuple[Answer, ...]
    pair: PreferencePair | None
    went: str
    prompts: tuple[PromptText, ...]


def trace(root: Path, name: str, params: Params) -> Trace:
    """Everything about the pair or query whose id begins with `name`.

    Raises:
        UserError: there is none, or more than one.
    """
    pairs = read_stage(root / "data/judged/pairs.jsonl", PreferencePair)
    queries = read_stage(root / "data/queries/queries.jsonl", Query)
    pair, query = _find(name, pairs, queries)
    video_id = pair.video_id if pair else query.video_id if query else ""
    video = next((one for one in read_stage(root / "data/catalog/videos.jsonl", Video) if one.id == video_id), None)
    if video is None:
        raise UserError(f"{name} is about video {video_id[:12]}, which data/catalog does not have. Run `dvc repro`.")
    captions = [one for one in read_stage(root / "data/captions/captions.jsonl", Caption) if one.video_id == video_id]
    answers: list[Answer] = []
    if query is not None:
        answers = [one for one in read_stage(root / "data/answers/answers.jsonl", Answer) if one.query_id == query.id]
    return Trace(
        query=query,
        video=video,
        captions=tuple(captions),
        answers=tuple(answers),
        pair=pair,
        went=_went(root, pair, query),
        prompts=tuple(_prompts(video, captions, query, answers, pair, params)),
    )


def _find(
    name: str, pairs: Sequence[PreferencePair], queries: Sequence[Query]
) -> tuple[PreferencePair | None, Query | None]:
    if len(name) < _FEWEST_DIGITS:
        raise UserError(f"{name!r} is too short for an id: give {_FEWEST_DIGITS} digits of it or more.")
    by_id = {query.id: query for query in queries}
    found: list[tuple[PreferencePair | None, Query | None]]
    found = [(pair, by_id.get(pair.query_id)) for pair in pairs if pair.id.startswith(name)]
    found += [(None, query) for query in queries if query.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    ids = ", ".join(pair.id if pair else query.id if query else "" for pair, query in found)
    if found:
        raise UserError(f"{len(found)} ids begin with {name!r}: {ids}. Give more of it.")
    raise UserError(
        f"No pair and no query has an id that begins with {name!r}. Ids are in data/judged/pairs.jsonl and "
        "data/queries/queries.jsonl; what was set aside is in the rejected.jsonl beside them."
    )


def _went(root: Path, pair: PreferencePair | None, query: Query | None) -> str:
    """Where the pair, or the query without one, ended."""
    if pair is not None:
        if any(one.id == pair.id for one in read_stage(root / "data/pairs/pairs.jsonl", PreferencePair)):
            return "trained on"
        if any(one.id == pair.id for one in read_stage(root / "data/pairs/held_out.jsonl", PreferencePair)):
            return "held out"
    item = pair.id if pair else query.id if query else ""
    for stage in ("pairs", "judged", "answers", "queries"):
        for rejection in read_stage(root / f"data/{stage}/rejected.jsonl", Rejection):
            if rejection.item.split("#")[0] == item:
                return f"set aside by {rejection.stage}: {rejection.reason}, {rejection.detail}"
    return "nowhere yet: the stages after it have not run"


def _prompts(
    video: Video,
    captions: Sequence[Caption],
    query: Query | None,
    answers: Sequence[Answer],
    pair: PreferencePair | None,
    params: Params,
) -> Iterator[PromptText]:
    if query is None:
        return
    if query.prompt_id is not None:
        ordered = sorted(captions, key=lambda caption: (caption.start_s, caption.end_s))
        runs = dict(segments_of(video, ordered, params.ask.captions_per_segment)) if query.segment else {}
        shown = runs.get(query.segment, ordered) if query.segment else ordered
        request = Prompt(video, shown, query.question_type, query.segment, 0).request(params.ask.max_caption_chars)
        yield _prompt("asker", request, query.prompt_id)
    verdict = next((one for one in pair.verdicts if one.prompt_id is not None), None) if pair else None
    if pair is None or verdict is None:
        return
    given = {one.branch: one for one in answers if one.text == _text_of(pair, one.branch)}
    if len(given) == len(Branch):
        candidate = Candidate(video, captions, query, given[Branch.PREFERRED], given[Branch.DISPREFERRED])
        for one in pair.verdicts:
            request = judge_request(candidate, params.judge, preferred_first=one.preferred_shown_first)
            yield _prompt(f"judge, preferred {_place(one)}", request, one.prompt_id or "")


def _text_of(pair: PreferencePair, branch: Branch) -> str:
    return pair.chosen if branch is Branch.PREFERRED else pair.rejected


def _prompt(who: str, request: ChatRequest, prompt_id: str) -> PromptText:
    text = "\n".join(part for part in request.parts if isinstance(part, str))
    return PromptText(who=who, system=request.system, text=text, is_same=request.prompt_id == prompt_id)


def to_text(found: Trace, *, with_prompts: bool = False) -> str:
    """A screenful for the terminal."""
    video, query, pair = found.video, found.query, found.pair
    lines = [f"{'Pair' if pair else 'Query'}  {(pair or query or video).id}  {found.went}"]
    lines.append(f"Video  {video.path!r}, {video.duration_s:g} s, {video.width}x{video.height}, sha256 {video.id}")
    if query is not None:
        lines += _query_lines(query)
    elif pair is not None:
        lines.append(f"Question  {pair.question!r}")
    if pair is not None:
        lines += [
            f"Chosen    {pair.chosen!r}{_shown(pair.chosen_view)}",
            f"Rejected  {pair.rejected!r}{_shown(pair.rejected_view)}",
            f"  by {pair.model_id}; trained with the {pair.view.kind} view, {len(pair.view.timestamps_s)} frames",
        ]
        lines += [f"Verdict   preferred {_place(one)}: {_verdict(one)}" for one in pair.verdicts]
        lines.append(f"  by {pair.judge}")
    else:
        lines += [f"{one.branch:<13} {one.text!r}{_shown(one.view)}" for one in found.answers]
    segment = query.segment if query else None
    lines.append(f"Captions  {len(found.captions)}" + (", * = of the segment" if segment else ""))
    for caption in found.captions:
        mark = "*" if segment and caption.start_s < segment.end_s and caption.end_s > segment.start_s else " "
        seen = f", from frames at {_times(caption.frames_s)}" if caption.frames_s else ""
        lines.append(f"{mark} {caption.start_s:.1f}-{caption.end_s:.1f} s  {caption.text!r}  ({caption.source}{seen})")
    for prompt in found.prompts if with_prompts else ():
        changed = "" if prompt.is_same else ", as it would be written now: captions, settings or wording have changed"
        lines += ["", f"Prompt of the {prompt.who}{changed}", *_indented(prompt.system), "", *_indented(prompt.text)]
    return "\n".join(lines)


def _query_lines(query: Query) -> list[str]:
    kind = f"{query.granularity}, {query.question_type}"
    where = f", from {query.segment.start_s:g}-{query.segment.end_s:g} s" if query.segment else ""
    lines = [
        f"Question  {query.question!r}  ({kind}{where}; id {query.id})",
        f"  reference answer {query.reference_answer!r}, by {query.asker}",
    ]
    if query.blind is not None:
        said = ", ".join(map(repr, query.blind.answers))
        lines.append(f"  without the video right in {query.blind.score:.0%} of {len(query.blind.answers)}: {said}")
    return lines


def _shown(view: View | None) -> str:
    if view is None:
        return "  (what it was given from is not known)"
    difficulty = "" if view.difficulty is None else f", difficulty {view.difficulty:.2f}"
    extra = f", {len(view.masked)} masked" if view.masked else ""
    extra += f", {len(view.distractors)} of another video" if view.distractors else ""
    return f"  (saw {view.kind}: {len(view.timestamps_s)} frames at {_times(view.timestamps_s)}{extra}{difficulty})"


def _times(times_s: Sequence[float]) -> str:
    shown = [f"{time_s:.1f}" for time_s in times_s]
    if len(shown) > 6:
        shown = [*shown[:3], "…", *shown[-2:]]
    return ", ".join(shown) + " s"


def _place(verdict: Verdict) -> str:
    return "first" if verdict.preferred_shown_first else "second"


def _verdict(verdict: Verdict) -> str:
    conflict = "conflict" if verdict.conflicts_with_captions else "no conflict"
    correct = "correct" if verdict.is_correct else "not correct"
    reply = f", in its words {verdict.reply!r}" if verdict.reply else ""
    return f"{verdict.preferred_is}, {conflict}, {correct}{reply}"


def _indented(text: str) -> list[str]:
    """Lines of a prompt; what is in quotes there has its line breaks escaped already."""
    return [f"  {line}" for line in text.splitlines()]
