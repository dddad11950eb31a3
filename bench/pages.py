"""How heavy the pages are and how soon they show something, in a project in which `make demo` has run.

    python bench/pages.py                              # with 100 and with 10,000 pairs, medians of 5 visits
    python bench/pages.py --quick                      # medians of 1
    python bench/pages.py --screenshots docs/images    # the README's pictures instead

The project's pairs are repeated as often as it takes, each with an id of its own, in a copy that is thrown away; so are
verdicts. The browser is a real Chromium without a cache. First paint is the browser's own "first-contentful-paint";
"question" and "picture" are when the first pair and the first frame of its video are there to be judged. Bytes are all
that came over the wire until then, without headers.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from PIL import Image

from tpo.errors import UserError
from tpo.records import PreferencePair, content_id
from tpo.report.page import write_html
from tpo.store import MANIFEST, publish, read_manifest, read_records

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser import CHROMIUM, Page, chromium  # noqa: E402 - the tests' browser

SIZES = (100, 10_000)
SCALED = ("judged", "pairs")  # stages whose pairs are repeated
PAINT_MS = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
BYTES = "performance.getEntries().reduce((sum, one) => sum + (one.encodedBodySize ?? 0), 0)"
QUESTION, PICTURE = "document.querySelector('#card h2')", "document.querySelector('#card .large')?.naturalWidth"
# Put into each page before anything of its own: notes, frame by frame, when something is there first.
WATCH = f"""(() => {{
  window.seen = {{}};
  const look = () => {{
    if ({QUESTION}) seen.question ??= performance.now();
    if ({PICTURE}) seen.picture ??= performance.now();
    requestAnimationFrame(look);
  }};
  look();
}})()"""


@contextmanager
def project_with(num_pairs: int | None) -> Iterator[Path]:
    """A throw-away copy of the project here, with so many pairs, or as many as it has; what is large is linked."""
    if not Path("data/judged", MANIFEST).is_file() or not Path("reports/index.html").is_file():
        raise UserError(f"No finished project in {Path.cwd()}. Run `make demo` first.")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "data").mkdir()
        for name in ("params.yaml", ".tpo", "models"):
            (root / name).symlink_to(Path(name).absolute())
        shutil.copytree("reports", root / "reports", ignore=shutil.ignore_patterns("data_docs"))
        for stage in Path("data").iterdir():
            if stage.name in SCALED and num_pairs:
                repeat_pairs(stage, root / stage, num_pairs)
            elif stage.name != "review":
                (root / stage).symlink_to(stage.absolute())
        yield root


def repeat_pairs(stage: Path, to: Path, num_pairs: int) -> None:
    pairs = read_records(stage / "pairs.jsonl", PreferencePair)
    if not pairs:
        raise UserError(f"{stage} has no pairs to repeat.")
    many = [
        pair.model_copy(update={"id": content_id("repeated", number)})
        for number, pair in enumerate(islice(cycle(pairs), num_pairs))
    ]
    counted = read_manifest(stage)
    came_in = num_pairs + sum(counted.set_aside.values())
    others = {path.name: path.read_text(encoding="utf-8") for path in stage.iterdir() if path.name != MANIFEST}
    scaled = counted.model_copy(update={"items_in": came_in, "items_out": num_pairs})
    publish(to, others | {"pairs.jsonl": many}, scaled)


@contextmanager
def review_of(root: Path) -> Iterator[tuple[str, float]]:
    """`tpo review` there: its address, and the seconds from the command to the address."""
    command = [sys.executable, "-m", "tpo.cli", "review", "--no-browser", "--reviewer", "you"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    started_s = time.perf_counter()
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[-1], time.perf_counter() - started_s
        finally:
            process.terminate()


@contextmanager
def browser() -> Iterator[Page]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, chromium(Path(profile)) as page:
        yield page


def visit(page: Page, address: str, *awaited: str) -> dict[str, float]:
    """Milliseconds from the beginning of a visit to its first paint and to what is awaited, and bytes until then."""
    page.open(address)
    page.wait_for(" && ".join([f"{PAINT_MS} !== undefined", *(f"window.seen?.{name}" for name in awaited)]))
    moments = {f"{name}_ms": page.value(f"window.seen.{name}") for name in awaited}
    return {"paint_ms": page.value(PAINT_MS), **moments, "bytes": page.value(BYTES)}


def measure(num_pairs: int, visits: int) -> dict[str, float]:
    with project_with(num_pairs) as root, browser() as page:
        page.call("Network.setCacheDisabled", cacheDisabled=True)
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        page.look_like(1280, 800, "light")
        started_s = time.perf_counter()
        write_html(root)
        figures = {"report_write_s": time.perf_counter() - started_s}
        report = root / "reports/index.html"
        seen = [visit(page, report.as_uri()) for _ in range(visits)]
        figures |= {"report_bytes": report.stat().st_size, "report_paint_ms": median(one["paint_ms"] for one in seen)}
        with review_of(root) as (address, start_s):
            first = visit(page, address, "question", "picture")
            seen = [visit(page, address, "question", "picture") for _ in range(visits)]
        figures |= {"review_start_s": start_s, "review_first_question_ms": first["question_ms"]}
        figures |= {f"review_{name}": median(one[name] for one in seen) for name in first}
    return figures


def take_screenshots(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with project_with(None) as root, browser() as page:
        page.call("Emulation.setScrollbarsHidden", hidden=True)
        report = Path("reports/index.html").absolute().as_uri()
        for name, part, width_px, height_px, scheme in (
            ("report", "", 1200, 1400, "light"),
            ("report-phone-dark", "#benchmarks", 390, 844, "dark"),
        ):
            page.look_like(width_px, height_px, scheme)
            page.open(report + part)
            page.wait_for("document.readyState === 'complete'")
            keep(page, folder / f"{name}.png")
        with review_of(root) as (address, _):
            page.look_like(1280, 920, "light")
            page.open(address)
            page.wait_for(PICTURE)
            page.press("1")
            page.wait_for("document.querySelectorAll('.lane-names .mark').length === 2")
            keep(page, folder / "review.png")
            page.value("document.getElementById('tab-items').click()")
            page.wait_for("document.querySelector('[name=change]')")
            page.value(
                "document.querySelector('[name=change]').value = 'gained';"
                "document.getElementById('filters').dispatchEvent(new Event('change'))"
            )
            page.wait_for("document.querySelector('.change')?.textContent.includes('gained')")
            page.look_like(1280, 1220, "light")
            page.wait_for(PICTURE)
            keep(page, folder / "evaluation.png")


def keep(page: Page, path: Path) -> None:
    """The window as a small picture, once everything in it is there and no message is over it."""
    page.wait_for("[...document.images].every(one => one.complete || one.getBoundingClientRect().left > innerWidth)")
    page.wait_for("!document.querySelector('#told.is-shown')")
    page.value("new Promise(done => setTimeout(done, 300))")  # what fades has faded
    page.screenshot(path)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}  {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="each page is visited once")
    parser.add_argument("--screenshots", type=Path, metavar="DIR", help="write the README's pictures there, and end")
    arguments = parser.parse_args()
    if CHROMIUM is None:
        raise UserError("No Chromium on the PATH.")
    if arguments.screenshots:
        take_screenshots(arguments.screenshots)
        return
    figures: dict[str, float] = {}
    for num_pairs in SIZES:
        for name, value in measure(num_pairs, 1 if arguments.quick else 5).items():
            figures[f"{name}_{num_pairs}_pairs"] = round(value, 2)
            print(f"{num_pairs:>6,} pairs  {name:<26} {value:>12,.2f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
