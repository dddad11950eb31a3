"""The benchmarks, each read in the layout it is downloaded in: one file a benchmark.

    items, rejections = load_benchmarks(Path("data/benchmarks"))
    print(*describe(items, rejections, Path("data/benchmarks")), sep="\\n")

A new benchmark is a new file with `NAME`, `LAYOUT` and `load`, and a place in `BENCHMARKS`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tpo.errors import UserError
from tpo.evaluation.benchmarks import charades_sta, longvideobench, mlvu, mlvu_test, nextgqa, tempcompass, videomme
from tpo.evaluation.benchmarks.defects import unseen
from tpo.evaluation.benchmarks.rows import join
from tpo.records import Item, Rejection

# The folder of the needle test (`tpo.evaluation.needle`). What is in there comes from one's own videos, so ingest does
# not take it for a benchmark that must not be trained on.
NEEDLES = "needle"
BENCHMARKS = (longvideobench, mlvu, mlvu_test, videomme, nextgqa, charades_sta, tempcompass)


def load_benchmarks(root: Path) -> tuple[list[Item], list[Rejection]]:
    """Items of whichever of the benchmark folders exist below `root`, and the rows set aside.

    Raises:
        UserError: there is no benchmark folder, one lacks its questions, a file is damaged, or no row is usable.
    """
    present = [benchmark for benchmark in BENCHMARKS if (root / benchmark.NAME).is_dir()]
    if not present:
        layouts = "\n".join(f"  {benchmark.LAYOUT}" for benchmark in BENCHMARKS)
        raise UserError(f"No benchmark below {root}. Expected at least one of these, as downloaded:\n{layouts}")
    items, rejections = join(benchmark.load(root / benchmark.NAME) for benchmark in present)
    if not items:
        first = f" The first: {rejections[0].item}: {rejections[0].detail}" if rejections else ""
        raise UserError(f"No usable question below {root}: {len(rejections)} rows were set aside.{first}")
    return items, rejections


def any_benchmark(root: Path) -> bool:
    """Whether `root` has a benchmark's folder; the needle test is none."""
    return any((root / benchmark.NAME).is_dir() for benchmark in BENCHMARKS)


def find_items(root: Path) -> tuple[list[Item], str]:
    """The items of `load_benchmarks`, or none and what it complained of: for work that does without benchmarks."""
    try:
        return load_benchmarks(root)[0], ""
    except UserError as error:
        return [], str(error)


def describe(items: Sequence[Item], rejections: Sequence[Rejection], root: Path) -> list[str]:
    """What there is of each benchmark and what is not, to be said before a run: one sentence a fact.

    Whether a video is on disk is looked up here; whether it can be read takes a probe.
    """
    names = dict.fromkeys([item.benchmark for item in items] + [bad.item.split("/")[0] for bad in rejections])
    return [
        f"{name}: {fact}"
        for name in names
        for fact in _facts(
            [item for item in items if item.benchmark == name],
            [bad for bad in rejections if bad.item.startswith(f"{name}/")],
            root / name,
        )
    ]


def _facts(items: list[Item], rejections: list[Rejection], folder: Path) -> list[str]:
    videos = {item.video for item in items}
    facts = [f"{len(items)} questions about {len(videos)} videos"]
    if rejections:
        first = f"the first: {rejections[0].item}: {rejections[0].detail}"
        facts.append(f"{len(rejections)} of {len(items) + len(rejections)} rows are set aside, {first}")
    if defective := [item for item in items if item.defects]:
        reasons = Counter(reason for item in defective for reason in item.defects)
        counts = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        facts.append(f"{len(defective)} questions are defective, scores are given with and without them: {counts}")
    if others := unseen(items):
        facts.append(
            f"{len(others)} questions that are known to be defective are not, such as {others[0]}: "
            "this is another release of the file, so compare with published numbers with care"
        )
    if missing := _absent(folder, videos):
        asked = sum(item.video in missing for item in items)
        facts.append(
            f"{len(missing)} of {len(videos)} videos are not below {folder}, such as {min(missing)}: "
            f"{asked} questions will count as wrong. Download them, or the evidence is incomplete"
        )
    told = {item.video for item in items if item.subtitles}
    if told and (mute := videos - told):
        facts.append(f"{len(mute)} of {len(videos)} videos have no subtitles, such as {min(mute)}")
    subtitles = {item.subtitles for item in items if item.subtitles}
    if silent := _absent(folder, subtitles):
        facts.append(f"{len(silent)} of {len(subtitles)} subtitle files are not below {folder}, such as {min(silent)}")
    return facts


def _absent(folder: Path, names: Iterable[str]) -> set[str]:
    return {name for name in names if not (folder / name).is_file()}
