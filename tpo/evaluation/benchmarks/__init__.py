"""The benchmarks, each read in the layout it is downloaded in: one file a benchmark.

    items, rejections = load_benchmarks(Path("data/benchmarks"))

A new benchmark is a new file with `NAME`, `LAYOUT` and `load`, and a place in `BENCHMARKS`.
"""

from pathlib import Path

from tpo.errors import UserError
from tpo.evaluation.benchmarks import longvideobench, mlvu, videomme
from tpo.evaluation.benchmarks.rows import join
from tpo.records import Item, Rejection

BENCHMARKS = (longvideobench, mlvu, videomme)


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


def find_items(root: Path) -> tuple[list[Item], str]:
    """The items of `load_benchmarks`, or none and what it complained of: for work that does without benchmarks."""
    try:
        return load_benchmarks(root)[0], ""
    except UserError as error:
        return [], str(error)
