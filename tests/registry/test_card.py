"""The model card says what is known, with intervals, and shows text from elsewhere as it is."""

import re
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tpo.registry.card import licence_of, model_card
from tpo.registry.package import DataInput

EVIL = "<script>x</script> [link](javascript:y) | *z*"


def interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


NUMBERS = {
    "num_items": 540,
    "num_videos": 90,
    **interval("accuracy_base", 0.539, 0.497, 0.581),
    **interval("accuracy_tuned", 0.878, 0.847, 0.903),
    **interval("difference", 0.339, 0.302, 0.376),
}
SAID = {"verdict": "better: +33.9 points.", "minimum_detectable_gain": 0.05}
METRICS = {
    "all": NUMBERS | SAID | {"conditions": {"text_only": NUMBERS}},
    "mlvu": NUMBERS,
    "incomplete": {"num_items": 2, "num_bad_rows": 1, "num_without_subtitles": 4},
    "intervals": {"confidence": 0.95},
    "status": {},
}


def card(**changed: Any) -> str:
    facts: dict[str, Any] = {
        "name": "demo",
        "base": "demo/checkpoint",
        "base_revision": None,
        "is_adapter": True,
        "candidate_id": "0f3a",
        "measured_with": {"num_frames": 32, "model": {"dtype": "float32"}},
        "metrics": METRICS,
        "counts": {"training pairs": 372},
        "checks": {"validation": "passed", "questions against the benchmarks'": "not checked"},
        "inputs": [DataInput(path="data/videos", dvc_hash="abc.dir", context="training")],
        "licences": {"data/videos": "not stated"},
        "origin": {"git_sha": "1234"},
    }
    return model_card(**(facts | changed))


def test_the_card_tells_what_it_is_of_what_it_was_made_and_what_was_measured() -> None:
    text = card()
    for fact in (
        "An adapter on demo/checkpoint, by Temporal Preference Optimization",
        "- 372 training pairs",
        "intervals (95 %) of differences resample whole videos",
        "- validation: passed",
        "- questions against the benchmarks': not checked",
        "- data/videos (training), DVC abc.dir",
        "| all | 540 | 53.9 [49.7, 58.1] | 87.8 [84.7, 90.3] | +33.9 [+30.2, +37.6] |",
        "| all, text only | 540 |",
        "| mlvu | 540 |",
        "better: +33.9 points.",
        "- num\\_frames: 32\n- dtype: float32",
        "- 3 planned items could not be asked.",
        "- 4 items were asked without their subtitles, which were of no use.",
        "- data/videos: not stated",
        "- git\\_sha: 1234",
    ):
        assert fact in text, fact


def test_what_was_not_asked_is_among_the_limits() -> None:
    assert "Whether a gain needs the video was not asked." not in card()
    assert "Whether a gain needs the video was not asked." in card(metrics={"all": NUMBERS})


def test_text_from_elsewhere_is_shown_as_it_is() -> None:
    page = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(
        card(base=EVIL, licences={EVIL: EVIL}, checks={"videos": EVIL}, metrics={EVIL: NUMBERS})
    )
    assert not re.search(r"<(script|a|em)\b", page)
    assert page.count("<td") == 5, "one row of five cells"
    assert "&lt;script&gt;x&lt;/script&gt; [link](javascript:y) | *z*" in page


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, "not stated"),
        ({"README.md": "---\nlicense: apache-2.0\n---\n# x"}, "apache-2.0"),
        ({"README.md": "# x\n\nlicense: mit\n"}, "not stated"),
        ({"README.md": "---\n: [\n---\n"}, "not stated"),
        ({"README.md": "# x", "LICENSE": "\n  MIT License\n\nCopyright\n"}, "MIT License"),
        ({"LICENSE": ""}, "not stated"),
    ],
)
def test_a_licence_is_read_where_it_is_stated_and_never_guessed(
    tmp_path: Path, files: dict[str, str], licence: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(tmp_path) == licence
