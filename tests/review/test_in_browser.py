"""The review page in a real Chromium: three pairs by keyboard, harmful texts, a reload, and what mix makes of it."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, chromium
from reviewed_project import EVIL, HEBREW, LONG, ROOT, make_project, served

from tpo.curation.reviews import read_reviews, standing
from tpo.records import PreferencePair, Reason, Rejection, Review, ReviewVerdict
from tpo.review.journal import ReviewJournal
from tpo.review.pairs import letter_of_chosen
from tpo.store import read_records

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(500),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH"),
]


def text_of(page: Page, selector: str) -> str:
    found: str = page.value(f"document.querySelector({json.dumps(selector)}).textContent")
    return found


def a_review(pair_id: str, reviewer: str) -> Review:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    verdict = ReviewVerdict.ACCEPT
    return Review(pair_id=pair_id, reviewer=reviewer, verdict=verdict, chosen_shown_as="A", unblinded=False, at=at)


def wait_for_question(page: Page, question: str) -> None:
    page.wait_for(f"document.querySelector('#card h2')?.textContent === {json.dumps(question)}")


def wait_for_frames(page: Page) -> None:
    page.wait_for("document.querySelector('.large')?.naturalWidth && document.querySelector('.thumb img').naturalWidth")


def test_three_pairs_reviewed_by_keyboard_are_on_disk_after_a_reload_and_honoured_by_mix(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    pairs = make_project(project, 6)
    with served(project) as running, chromium(tmp_path / "profile") as page:
        page.open(running.address)
        wait_for_question(page, pairs[0].question)
        wait_for_frames(page)
        assert page.value("location.href") == f"{running.origin}/"
        assert page.value("document.querySelector('.origin')") is None
        page.press("1" if letter_of_chosen(pairs[0].id, "anna") == "A" else "2")
        page.wait_for("document.querySelector('.origin')")
        assert "accept" in text_of(page, ".yours")

        page.press("n")
        wait_for_question(page, EVIL)
        letter = letter_of_chosen(pairs[1].id, "anna")
        assert text_of(page, f"[aria-label='Answer {letter}'] .text") == LONG
        assert EVIL in text_of(page, ".captions")
        page.press("a" if letter == "B" else "b")
        page.wait_for("document.querySelector('.yours')?.textContent.includes('reject')")

        page.press("n")
        wait_for_question(page, HEBREW)
        question, around = (f"getComputedStyle(document.querySelector('{one}'))" for one in ("#card h2", "#card"))
        assert page.value(f"[{question}.direction, {question}.unicodeBidi, {around}.direction]") == [
            "rtl", "isolate", "ltr",
        ]  # fmt: skip
        page.press("t")
        page.wait_for("document.querySelector('.yours')?.textContent.includes('tie')")
        running.process.kill()

    # The browser is gone and so is the server, neither in good order.
    said = standing(read_reviews(project / "data/review/verdicts.jsonl"))
    assert said == {
        pairs[0].id: {"anna": "accept"},
        pairs[1].id: {"anna": "reject"},
        pairs[2].id: {"anna": "tie"},
    }
    ReviewJournal(project / "data/review/verdicts.jsonl").append(a_review(pairs[0].id, "ben"))
    with served(project) as running, chromium(tmp_path / "another profile") as page:
        page.open(running.address)
        page.wait_for("document.querySelector('.yours')?.textContent.includes('accept')")
        page.wait_for("[...document.querySelectorAll('.row .sign')].slice(0, 4).map((one) => one.title).join()"
                      " === 'accept,reject,tie,'")  # fmt: skip
        page.wait_for("document.getElementById('who').textContent.includes('same as \u2068ben\u2069 on 100 % of 1')")
        page.call("Page.reload")
        page.wait_for("document.querySelector('.yours')?.textContent.includes('accept')")

        page.value("document.getElementById('tab-items').click()")
        page.wait_for("document.querySelectorAll('.option').length === 2")
        wait_for_frames(page)
        assert EVIL in text_of(page, "#card h2")
        assert page.value("getComputedStyle(document.querySelector('.bar')).width") != "0px"
        assert page.value("document.title") == "tpo review"
        assert page.value("document.querySelectorAll('main script, main img[src=x]').length") == 0
        assert page.problems == []

    environment = os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "prefect")}
    subprocess.run([sys.executable, "-m", "flows.mix"], cwd=project, env=environment, check=True, capture_output=True)
    set_aside = {one.item: one.reason for one in read_records(project / "data/pairs/rejected.jsonl", Rejection)}
    assert set_aside == {pairs[1].id: Reason.REVIEW_REJECT, pairs[2].id: Reason.REVIEW_TIE}
    trained_on = {pair.id for pair in read_records(project / "data/pairs/pairs.jsonl", PreferencePair)}
    assert trained_on == {pair.id for pair in pairs} - set_aside.keys()
    assert len(read_reviews(project / "data/pairs/reviews.jsonl")) == 4
