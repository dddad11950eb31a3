"""Data Docs as a person opens them: from the disk, without a network."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_records import PARAMS, pair, records

from tpo.records import Checked
from tpo.validation.checkpoint import ValidationVerdict, validate

SUITES = ("videos", "captions", "queries", "pairs", "held_out", "decontamination")
HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a page shows, what it holds and what it points to."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.text = path, ""
        self.tags: set[str] = set()
        self.ids: set[str | None] = set()
        self.links: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids |= {value for name, value in attrs if name == "id"}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data

    def leads_somewhere(self, link: str) -> bool:
        target, _, anchor = link.partition("#")
        file = (self.path.parent / target).resolve() if target else self.path
        return file.is_file() and (not anchor or anchor in Page(file).ids)


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ValidationVerdict, Path]:
    """Of a set with broken records, one of which is called by a hostile name, and a warning."""
    pairs = [*(pair(number) for number in range(4)), pair(5, id=HOSTILE, chosen=""), pair(7, chosen=" ")]
    folder = tmp_path_factory.mktemp("docs") / "data_docs"
    return validate(records(pairs, questions_checked=Checked.PARTLY), PARAMS, None, folder), folder


def pages(folder: Path) -> list[Page]:
    return [Page(path) for path in sorted(folder.rglob("*.html"))]


def test_the_index_tells_the_verdict_and_everything_that_was_expected_and_found(
    docs: tuple[ValidationVerdict, Path],
) -> None:
    verdict, folder = docs
    index = Page(folder / "index.html").text
    assert f"No: 1 of {len(verdict.of('critical'))} critical expectations are broken" in index
    assert f"1 of {len(verdict.of('warning'))} warnings apply" in index
    for outcome in verdict.outcomes:
        assert outcome.name.replace("_", " ") in index
        assert outcome.expected in index
        assert outcome.found in index
    assert f"not met by 2 record(s): {HOSTILE}, p7" in index


def test_the_index_of_a_fit_set_says_yes(tmp_path: Path) -> None:
    verdict = validate(records(), PARAMS, None, tmp_path)
    index = Page(tmp_path / "index.html").text
    assert f"Yes: all {len(verdict.of('critical'))} critical expectations hold" in index
    assert "What to look at" not in index


def test_every_suite_has_its_pages_and_every_link_leads_somewhere(docs: tuple[ValidationVerdict, Path]) -> None:
    _, folder = docs
    index = Page(folder / "index.html")
    for suite in SUITES:
        (results,) = folder.glob(f"validations/{suite}/*/*/*.html")
        assert {f"expectations/{suite}.html", results.relative_to(folder).as_posix()} <= set(index.links)
        assert ("Failed" if suite in ("pairs", "decontamination") else "Succeeded") in Page(results).text
        assert "../../../../index.html" in Page(results).links
    for page in pages(folder):
        assert [link for link in page.links if not page.leads_somewhere(link)] == [], page.path


def test_no_page_has_a_script_or_loads_anything(docs: tuple[ValidationVerdict, Path]) -> None:
    for page in pages(docs[1]):
        assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}, page.path
        source = page.path.read_text()
        assert [loader for loader in ("//", "url(", "@import") if loader in source] == [], page.path
    assert {path.suffix for path in docs[1].rglob("*") if path.is_file()} == {".html"}


def test_great_expectations_pages_show_marks_where_its_icons_were(docs: tuple[ValidationVerdict, Path]) -> None:
    (results,) = docs[1].glob("validations/pairs/*/*/*.html")
    source = results.read_text()
    for icon in ("fa-check-circle", "fa-times"):
        assert f'class="fas {icon}' in source
        assert f".{icon}::before" in source


def test_what_is_expected_is_explained_on_the_suites_page(docs: tuple[ValidationVerdict, Path]) -> None:
    verdict, folder = docs
    for suite in SUITES:
        told = Page(folder / f"expectations/{suite}.html").text
        meanings = [outcome.expected for outcome in verdict.outcomes if outcome.suite == suite]
        assert [meaning for meaning in meanings if meaning not in told] == []


def test_a_later_run_leaves_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    validate(records([pair(n, chosen="") for n in range(4)]), PARAMS, None, tmp_path)
    before = {path.relative_to(tmp_path) for path in tmp_path.glob("validations/**/*.html")}
    validate(records(), PARAMS, None, tmp_path)
    after = {path.relative_to(tmp_path) for path in tmp_path.glob("validations/**/*.html")}
    assert len(before) == len(after) == len(SUITES)
    assert not before & after
    assert "Yes: all" in Page(tmp_path / "index.html").text
