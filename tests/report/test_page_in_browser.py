"""The report in a real Chromium: on a phone and in the dark, with harmful and endless texts."""

from pathlib import Path

import pytest
from browser import CHROMIUM, chromium

from tpo.records import PreferencePair
from tpo.report.page import write_html
from tpo.store import read_records

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH"),
]
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
BAR = "getComputedStyle(document.querySelector('figure path[style*=--blue]')).fill"


def test_the_report_fits_a_phone_changes_with_the_scheme_and_breaks_no_rule_of_its_own(
    finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = finished / "data/pairs/pairs.jsonl"
    evil = {"question": "x" * 100_000, "chosen": "<script>document.title = 'taken'</script>\u202e<b>"}
    evil["rejected"] = "\u05e9\u05dc\u05d5\u05dd <i>"  # Hebrew
    pairs = [pair.model_copy(update=evil) for pair in read_records(path, PreferencePair)]
    path.write_text("".join(pair.model_dump_json() + "\n" for pair in pairs), encoding="utf-8")
    write_html(finished)
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        looks = set()
        for width_px, scheme in ((375, "dark"), (1200, "light")):
            page.look_like(width_px, 800, scheme)
            page.open((finished / "reports/index.html").as_uri())
            page.wait_for("document.readyState === 'complete' && document.querySelector('details')")
            page.value("document.querySelector('details').open = true")
            assert page.value("document.scrollingElement.scrollWidth") <= width_px
            looks.add((page.value(BACKGROUND), page.value(BAR)))
        assert len({background for background, _ in looks}) == len({bar for _, bar in looks}) == 2
        assert page.value("document.title") == "Temporal Preference Optimization: report"
        assert page.value("document.querySelectorAll('script, img, td b').length") == 0
        charts = page.value("[...document.querySelectorAll('svg[role=img] > title')].map(title => title.textContent)")
        assert charts[:3] == ["Question types", "Answer lengths", "Durations of the videos"]
        assert charts[3:] == ["Accuracy", "Accuracy by duration"]
        ways = "[...document.querySelectorAll('details tr:nth-child(2) bdi')].map(one => getComputedStyle(one))"
        assert page.value(f"{ways}.map(one => one.direction + ' ' + one.unicodeBidi)") == [
            "ltr isolate", "ltr isolate", "rtl isolate",
        ]  # fmt: skip
        assert page.value("performance.getEntriesByType('resource').length") == 0
        assert page.problems == []
