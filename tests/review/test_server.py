"""The review server as it is started: real processes, real videos, real requests."""

import http.client
import io
import json
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from PIL import Image
from reviewed_project import EVIL, LONG, ROOT, Running, make_project, served
from typer.testing import CliRunner

from tpo.cli import app
from tpo.curation.reviews import read_reviews, standing
from tpo.errors import UserError
from tpo.params import load_params
from tpo.records import PreferencePair, Review
from tpo.review.items import ItemShelf
from tpo.review.pairs import PairShelf, letter_of_chosen
from tpo.review.server import serve
from tpo.video.probe import Prober


class Answer:
    def __init__(self, response: http.client.HTTPResponse):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        assert self.status == 200, self.body
        return json.loads(self.body)


class Client:
    """A browser tab, as far as requests go. What `headers` names replaces what a tab says."""

    def __init__(self, running: Running):
        self.running = running
        self.host = urlsplit(running.origin).netloc
        self.usual = {"Host": self.host, "Sec-Fetch-Site": "same-origin"}
        first = self.get(f"/?token={running.token}", {"Sec-Fetch-Site": "none"})
        assert first.status == 200
        self.usual["Cookie"] = first.headers["set-cookie"].split(";")[0]

    def ask(self, method: str, path: str, headers: dict[str, str | None], body: bytes | None = None) -> Answer:
        said = {name: value for name, value in (self.usual | headers).items() if value is not None}
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request(method, path, body=body, headers=said)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str | None] | None = None, **query: object) -> Answer:
        return self.ask("GET", f"{path}?{urlencode(query)}" if query else path, headers or {})

    def say(self, pair_id: str, said: str, headers: dict[str, str | None] | None = None) -> Answer:
        usual = {"Origin": self.running.origin, "Content-Type": "application/json"}
        return self.ask(
            "POST", "/api/reviews", usual | (headers or {}), json.dumps({"pair_id": pair_id, "said": said}).encode()
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PreferencePair]]:
    folder = tmp_path_factory.mktemp("project")
    return folder, make_project(folder, 12)


@pytest.fixture(scope="module")
def tab(project: tuple[Path, list[PreferencePair]]) -> Iterator[Client]:
    with served(project[0]) as running:
        yield Client(running)


def reviews(project: tuple[Path, list[PreferencePair]]) -> list[Review]:
    return read_reviews(project[0] / "data/review/verdicts.jsonl")


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": None},
        {"Cookie": "tpo_review_1=guess"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
)
def test_nobody_reads_but_who_was_told_the_address(tab: Client, headers: dict[str, str | None]) -> None:
    for path in ("/", "/api/overview/pairs", "/api/pairs/0", "/page/app.js"):
        refused = tab.get(path, headers)
        assert refused.status == 403
        assert b"Refused" in refused.body
        assert "set-cookie" not in refused.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": None},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Cookie": None},
        {"Host": "evil.example"},
        {"Content-Length": "100000"},
    ],
)
def test_no_other_page_writes(
    tab: Client, project: tuple[Path, list[PreferencePair]], headers: dict[str, str | None]
) -> None:
    before = reviews(project)
    assert tab.say(project[1][5].id, "A", headers).status == 403
    assert reviews(project) == before


def test_a_write_that_is_none_is_refused(tab: Client, project: tuple[Path, list[PreferencePair]]) -> None:
    before = reviews(project)
    assert tab.say("no such pair", "A").status == 404
    assert tab.say(project[1][0].id, "promote").status == 400
    assert tab.get("/api/reviews").status == 405
    assert tab.get(f"/?token={tab.running.token[:-1]}", {"Cookie": None}).status == 403
    assert reviews(project) == before


@pytest.mark.parametrize(
    "path",
    [
        "/page/../../../params.yaml", "/page/%2e%2e/%2e%2e/params.yaml", "/page/..%2fserver.py", "/params.yaml",
        "/frames/..%2f..%2fvideos/0-160.jpg", "/frames/b.mp4/0-160.jpg", "/api/pairs/9999", "/api/items/9999",
    ],
)  # fmt: skip
def test_nothing_but_the_page_and_its_data_is_served(tab: Client, path: str) -> None:
    assert tab.get(path).status == 404


def test_a_frame_is_given_if_a_view_shows_it_and_no_other(tab: Client) -> None:
    card = tab.get("/api/pairs/0").json["card"]
    at_ms = [round(moment * 1000) for moment in card["frames_s"]]
    found = tab.get(f"/frames/{card['video_id']}/{at_ms[1]}-160.jpg")
    assert found.status == 200
    assert "immutable" in found.headers["cache-control"]
    assert Image.open(io.BytesIO(found.body)).format == "JPEG"
    for wrong in (f"{at_ms[1] + 1}-160", f"{at_ms[1]}-161", f"{at_ms[1]}-99999", "-1-160"):
        assert tab.get(f"/frames/{card['video_id']}/{wrong}.jpg").status == 404
    assert tab.get(f"/frames/{'0' * 64}/{at_ms[1]}-160.jpg").status == 404


def test_the_page_allows_itself_nothing_from_elsewhere_and_nothing_inline(tab: Client) -> None:
    page = tab.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert b"http://" not in page.body
    assert b"https://" not in page.body


def test_a_card_is_blind_until_there_is_a_verdict(tab: Client, project: tuple[Path, list[PreferencePair]]) -> None:
    pair = project[1][2]
    found = tab.get("/api/pairs/2").json
    assert found["origin"] is None
    for told in ("chosen_view", "difficulty", "reference", "verdicts", "without_segment"):
        assert told not in json.dumps(found)
    chosen = letter_of_chosen(pair.id, "anna")
    assert found["card"]["answers"][chosen] == pair.chosen
    said = tab.say(pair.id, chosen).json
    assert (said["mine"], said["origin"]["chosen"]) == ("accept", chosen)
    assert said["origin"]["reference_answer"] == "reference 2"
    assert said["origin"]["shown"][chosen]["kind"] == "segment"
    assert [one["preferred_shown_first"] for one in said["origin"]["judge_verdicts"]] == [True, False]
    assert tab.get("/api/pairs/2").json == said
    assert tab.say(pair.id, "undo").json["origin"] is None
    assert tab.say(pair.id, "B" if chosen == "A" else "A").json["mine"] == "reject"
    lines = [review for review in reviews(project) if review.pair_id == pair.id]
    assert [(one.verdict, one.unblinded) for one in lines] == [("accept", False), (None, True), ("reject", True)]
    assert {one.chosen_shown_as for one in lines} == {chosen}


def test_who_looks_first_is_not_blind_and_that_is_kept(tab: Client, project: tuple[Path, list[PreferencePair]]) -> None:
    pair = project[1][3]
    looked = tab.say(pair.id, "look").json
    assert looked["mine"] is None
    assert looked["origin"] is not None
    tab.say(pair.id, "tie")
    lines = [review for review in reviews(project) if review.pair_id == pair.id]
    assert [(one.verdict, one.unblinded) for one in lines] == [(None, True), ("tie", True)]


def test_the_order_of_answers_is_by_chance_and_differs_between_reviewers() -> None:
    first = [letter_of_chosen(f"{number:016x}", "anna") for number in range(400)]
    second = [letter_of_chosen(f"{number:016x}", "ben") for number in range(400)]
    assert 160 < first.count("A") < 240
    assert 160 < sum(a == b for a, b in zip(first, second, strict=True)) < 240


def test_filters_choose_pairs(tab: Client, project: tuple[Path, list[PreferencePair]]) -> None:
    choices = tab.get("/api/overview/pairs").json["choices"]
    assert choices["judge"] == ["kept", "tie"]
    kept = tab.get("/api/pairs", judge="kept").json
    assert kept == list(range(12))
    assert tab.get("/api/pairs", judge="tie").json == [12]
    assert tab.get("/api/pairs", text="CHOSEN 7").json == [7]
    assert tab.get("/api/pairs", question_type=choices["question_type"][0], judge="kept").json != kept
    assert tab.get("/api/pairs", difficulty="hard", judge="kept").json == kept
    tab.say(project[1][4].id, "bad_question")
    assert 4 in tab.get("/api/pairs", reviewed="against_judge").json
    assert 4 in tab.get("/api/pairs", reviewed="by_me").json
    assert 4 not in tab.get("/api/pairs", reviewed="not_by_me").json
    assert tab.get("/api/pairs", reviewed="divided").json == []
    assert tab.get("/api/pairs", colour="red").status == 400
    rows = tab.get("/api/pairs/rows", at="4,5").json
    assert [row["mine"] for row in rows] == ["bad_question", None]
    for bad in ("x", "-1", "99", ",".join(["1"] * 201)):
        assert tab.get("/api/pairs/rows", at=bad).status == 400


def test_what_the_judge_set_aside_can_be_reviewed_too(tab: Client) -> None:
    card = tab.get("/api/pairs/12").json["card"]
    assert sorted(card["answers"].values()) == ["dispreferred answer", "preferred answer"]
    origin = tab.say(card["id"], "tie").json["origin"]
    assert (origin["judge_outcome"], origin["judge_detail"]) == ("tie", "as good")


def test_texts_that_mean_harm_come_as_they_are_in_json(tab: Client) -> None:
    answer = tab.get("/api/pairs/1")
    assert answer.headers["content-type"] == "application/json"
    card = answer.json["card"]
    assert card["question"] == EVIL
    assert LONG in card["answers"].values()
    assert card["captions"][0]["text"] == EVIL


def test_items_are_gained_or_lost_with_what_both_models_said_and_were_shown(tab: Client) -> None:
    assert tab.get("/api/items", change="lost").json == [0]
    assert tab.get("/api/items", change="gained").json == [1]
    assert tab.get("/api/items", change="both wrong").json == []
    card = tab.get("/api/items/1").json
    assert card["options"] == ["a star", EVIL]
    assert card["said"]["base"]["option_logprobs"] == [-0.5, -2.0]
    assert [card["said"][role]["correct"] for role in ("base", "tuned")] == [False, True]
    look = tab.get("/api/items/1/look").json
    assert len(look["frames_s"]) == 32
    at_ms = round(look["frames_s"][3] * 1000)
    assert tab.get(f"/frames/{look['video_id']}/{at_ms}-540.jpg").status == 200


def test_a_needle_is_seen_in_the_frames_that_borrow_it_from_its_clip(tab: Client) -> None:
    in_the_middle, absent, alone = tab.get("/api/items", benchmark="needle").json
    rows = tab.get("/api/items/rows", at=f"{in_the_middle},{absent},{alone}").json
    assert [row["detail"] for row in rows] == [
        "depth 50%, after sampling, 8 frames",
        "needle absent, after sampling, 8 frames",
        "needle alone, after sampling, clip",
    ]
    card = tab.get(f"/api/items/{in_the_middle}").json
    assert (card["question"], card["options"], card["change"]) == (EVIL, ["a star", "a moon"], "both right")
    look = tab.get(f"/api/items/{in_the_middle}/look").json
    assert [len(look["frames_s"]), len(look["borrowed"]), len(look["needles_s"])] == [8, 2, 2]
    for position, (video_id, moment_s) in look["borrowed"].items():
        assert look["needles_s"][0][0] <= look["frames_s"][int(position)] < look["needles_s"][-1][1]
        assert video_id != look["video_id"]
        assert tab.get(f"/frames/{video_id}/{round(moment_s * 1000)}-160.jpg").status == 200
    assert tab.get(f"/api/items/{absent}/look").json["needles_s"] == []
    assert len(tab.get(f"/api/items/{alone}/look").json["needles_s"]) == 2


def test_where_no_stage_has_run_the_page_says_what_to_run(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    pairs, items = PairShelf(tmp_path, params), ItemShelf(tmp_path, params)
    assert (len(pairs), pairs.problem) == (0, "No pair was judged yet. `dvc repro` makes them.")
    assert len(items) == 0
    assert "No model was evaluated yet. `dvc repro`" in items.problem


def test_without_the_benchmark_or_its_video_the_rest_of_an_item_is_shown(
    project: tuple[Path, list[PreferencePair]], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(project[0], tmp_path / "project"))
    params = load_params(folder / "params.yaml")
    (folder / "benchmarks/longvideobench/videos/c.mp4").unlink()
    with Prober(folder / ".tpo/frames") as prober:
        assert "video_missing: there is no such file" in ItemShelf(folder, params).look(0, prober)[0].problem
        shutil.rmtree(folder / "benchmarks")
        bare = ItemShelf(folder, params)
        assert bare.card(0).said["base"].option_logprobs == (-2.0, -0.5)
        assert "No benchmark below" in bare.look(0, prober)[0].problem


def test_the_summary_is_told_in_the_terminal(
    project: tuple[Path, list[PreferencePair]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project[0])
    told = CliRunner().invoke(app, ["review", "--summary"])
    assert told.exit_code == 0
    assert "of 12 pairs that the judge kept were reviewed" in told.output
    as_json = CliRunner().invoke(app, ["review", "--summary", "--json"])
    assert json.loads(as_json.output)["num_pairs"] == 12


def test_it_listens_on_one_address_of_this_machine_alone(tab: Client) -> None:
    port = urlsplit(tab.running.origin).port
    with pytest.raises(OSError, match=r"refused|timed out"):
        socket.create_connection(("127.0.0.2", port), timeout=2)


def test_two_tabs_of_one_person_see_what_was_said_in_the_other_and_the_last_word_stands(
    tab: Client, project: tuple[Path, list[PreferencePair]]
) -> None:
    pair, other = project[1][8], Client(tab.running)
    assert tab.say(pair.id, "tie").json["mine"] == "tie"
    assert other.get("/api/pairs/8").json["mine"] == "tie"
    assert other.say(pair.id, "bad_question").json["mine"] == "bad_question"
    assert tab.get("/api/pairs/8").json["mine"] == "bad_question"
    assert [one.verdict for one in reviews(project) if one.pair_id == pair.id] == ["tie", "bad_question"]


def test_a_browser_that_dies_in_the_middle_of_a_write_leaves_nothing_and_the_server_running(
    tab: Client, project: tuple[Path, list[PreferencePair]]
) -> None:
    before = reviews(project)
    address = urlsplit(tab.running.origin)
    lines = [f"{name}: {value}" for name, value in tab.usual.items()]
    lines += [f"Origin: {tab.running.origin}", "Content-Type: application/json", "Content-Length: 60"]
    for rest in ("", '\r\n\r\n{"pair_id": "'):  # in its headers, in its body
        with socket.create_connection((address.hostname, address.port)) as dying:
            dying.sendall(("\r\n".join(["POST /api/reviews HTTP/1.1", *lines]) + rest).encode())
            at_once = struct.pack("ii", 1, 0)
            dying.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)  # ends with a reset, as a kill does
    assert tab.get("/api/pairs/0").status == 200
    assert reviews(project) == before
    assert "Traceback" not in tab.running.complaints


def test_a_port_that_is_taken_is_named(project: tuple[Path, list[PreferencePair]]) -> None:
    params = load_params(project[0] / "params.yaml")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} cannot be used: .* Give another one, or none"):
            serve(project[0], params, reviewer="anna", port=port, announce=print)


def test_a_second_person_sees_what_the_first_one_said_after_their_own_verdict(
    tab: Client, project: tuple[Path, list[PreferencePair]]
) -> None:
    pair = project[1][6]
    tab.say(pair.id, "tie")
    with served(project[0], "ben") as running:
        other = Client(running)
        assert "tie" not in json.dumps(other.get("/api/pairs/6").json)
        said = other.say(pair.id, letter_of_chosen(pair.id, "ben")).json
        assert said["origin"]["reviews"] == {"anna": "tie", "ben": "accept"}
    assert 6 in tab.get("/api/pairs", reviewed="divided").json
    summary = tab.get("/api/summary").json
    assert [(one["reviewers"], one["num_pairs"]) for one in summary["agreement"]] == [(["anna", "ben"], 1)]
    assert standing(reviews(project))[pair.id] == {"anna": "tie", "ben": "accept"}
