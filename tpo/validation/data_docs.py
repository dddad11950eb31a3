"""Data Docs: pages that a person can read, with or without a network.

`index.html` is ours and tells what was expected, what was found and which records are at fault. It leads to Great
Expectations' own pages, two for each suite: what it expects, and what it found. No page has a script or loads anything.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpo.store import write_atomic

if TYPE_CHECKING:
    from tpo.validation.checkpoint import ValidationVerdict

TEMPLATES = Path(__file__).parent


def site(folder: Path) -> dict[str, Any]:
    """The configuration of the site in `folder`, for Great Expectations."""
    view = {"module_name": "tpo.validation.page_view", "class_name": "PageView"}
    results = {"class_name": "ValidationResultsPageRenderer", "run_info_at_end": True}
    return {
        "class_name": "SiteBuilder",
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.absolute())},
        "site_section_builders": {
            "expectations": {"view": view},
            "validations": {"view": view, "renderer": results},
            "profiling": "none",
        },
    }


def write_index(verdict: "ValidationVerdict", folder: Path) -> None:
    """Write `index.html` into the folder of a built site; all text in it is escaped.

    What the site holds besides its pages (fonts and pictures that no page shows) is removed.
    """
    import jinja2

    shutil.rmtree(folder / "static", ignore_errors=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    results = {path.relative_to(folder).parts[1]: path for path in folder.glob("validations/**/*.html")}
    html = environment.get_template("index.html.jinja").render(
        verdict=verdict,
        suites=list(dict.fromkeys(outcome.suite for outcome in verdict.outcomes)),
        results={suite: path.relative_to(folder).as_posix() for suite, path in results.items()},
    )
    write_atomic(folder / "index.html", html)
