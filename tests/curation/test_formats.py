"""Preference pairs go out in other tools' formats and come back the same; what is no pair is named and left out."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tpo.cli import app
from tpo.curation.formats import FORMS, import_pairs, read_rows, row_of, write_rows
from tpo.errors import UserError
from tpo.records import Granularity, PreferencePair, Query, QuestionType, Reason, Rejection, Video, ViewKind
from tpo.store import Manifest, publish, read_manifest, read_records

ROOT = Path(__file__).resolve().parents[2]


def a_video(path: str, name: str = "a") -> Video:
    return Video(
        id=name * 64, path=path, size_bytes=1, duration_s=40.0, fps=2, num_frames=80, width=64, height=64,
        last_frame_s=39.5, longest_frame_s=0.5, rotation_deg=0, codec="h264", is_vfr=False, has_audio=False,
        num_restarts=1, brightness=90.0, change=3.0,
    )  # fmt: skip


VIDEOS = [a_video("walks/a walk.mp4"), a_video("b.mp4", "b")]
HOSTILE = [
    ('He said "no", and\nleft; then,\r\n"", maybe', "=cmd()|' /C calc'!A0", "-1+1"),
    ("  outer spaces  ", "\tyes ", " no\u2028or so"),
    ("😀 ünï, 漢字?", "{{ 7 * 7 }} <script>", "'; DROP TABLE pairs;--"),
    ("What is a <video> or an <image> tag?", "An <audio> tag.", "</s><|im_end|>"),
    ("Long?", "x" * 200_000, "short"),
    ("Old\rline ends", "a\rb", "a\r"),
]


def pairs() -> list[PreferencePair]:
    """Ours, with everything that the formats hold."""
    made = []
    for number, (question, chosen, rejected) in enumerate(HOSTILE):
        video = VIDEOS[number % 2]
        made.append(
            PreferencePair.model_validate(
                {
                    "id": str(number), "video_id": video.id, "query_id": str(number), "granularity": "localized",
                    "question_type": "descriptive", "question": question, "chosen": chosen, "rejected": rejected,
                    "view": {"video_id": video.id, "kind": "dense", "timestamps_s": [0.0]}, "chosen_tokens": None,
                    "rejected_tokens": None, "chosen_view": None, "rejected_view": None, "segment": None,
                    "model_id": "m", "verdicts": [], "judge": "rule",
                }
            )
        )  # fmt: skip
    return made


def plain(text: str) -> str:
    for name in ("video", "image", "audio"):
        text = text.replace(f"<{name}>", f"< {name}>")
    return text


@pytest.mark.parametrize("form", FORMS)
def test_pairs_go_out_and_come_back_the_same(form: str, tmp_path: Path) -> None:
    by_id = {video.id: video for video in VIDEOS}
    out = [row_of(number, pair, by_id[pair.video_id]) for number, pair in enumerate(pairs(), start=1)]
    (tmp_path / "file").write_bytes(write_rows(out, form).encode())
    rows, rejections = read_rows(tmp_path / "file", form)
    assert rejections == []
    found, missing = import_pairs(rows, VIDEOS, 8, "file")
    assert missing == []
    # Words that a tool would count as placeholders are made plain, once and for all.
    assert [(p.video_id, plain(p.question), plain(p.chosen), plain(p.rejected)) for p in found] == [
        (p.video_id, plain(p.question), plain(p.chosen), plain(p.rejected)) for p in pairs()
    ]
    assert {(p.granularity, p.question_type) for p in found} == {(Granularity.LOCALIZED, QuestionType.DESCRIPTIVE)}
    assert (found[0].view.kind, len(found[0].view.timestamps_s)) == (ViewKind.DENSE, 8)
    assert (found[0].verdicts, found[0].chosen_view, found[0].model_id) == ((), None, "imported from file")


# As the tools' own pages show them, with videos of ours.
DOCUMENTED = {
    "llava-next": [
        {
            "id": "1", "video": "b.mp4", "prompt": "<video>\nWhat happens?", "answer": "A man walks.",
            "chosen": "A man walks.", "rejected": "A dog runs.", "chosen_score": 5,
        }
    ],
    "llama-factory": [
        {
            "conversations": [{"from": "human", "value": "<video>What happens?"}],
            "chosen": {"from": "gpt", "value": "A man walks."},
            "rejected": {"from": "gpt", "value": "A dog runs."},
            "videos": ["b.mp4"],
        }
    ],
    "ms-swift": [
        {
            "messages": [
                {"role": "system", "content": "You help."},
                {"role": "user", "content": "<video>What happens?"},
                {"role": "assistant", "content": "A man walks."},
            ],
            "rejected_response": "A dog runs.",
            "videos": ["b.mp4"],
        }
    ],
    "trl": [
        {
            "prompt": [{"role": "user", "content": "What happens?"}],
            "chosen": [{"role": "assistant", "content": "A man walks."}],
            "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "A dog runs."}]}],
            "videos": ["b.mp4"],
        }
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", DOCUMENTED)
@pytest.mark.parametrize("in_lines", [True, False])
def test_the_tools_own_examples_are_read_as_list_and_as_lines(form: str, in_lines: bool, tmp_path: Path) -> None:
    records = DOCUMENTED[form]
    text = "\n".join(map(json.dumps, records)) if in_lines else json.dumps(records)
    (tmp_path / "file").write_text(text)
    (row,), rejections = read_rows(tmp_path / "file", form)
    assert rejections == []
    assert (row.video, row.question, row.chosen, row.rejected) == (
        "b.mp4", "What happens?", "A man walks.", "A dog runs.",
    )  # fmt: skip


def changed(form: str, **changes: object) -> dict[str, object]:
    return DOCUMENTED[form][0] | changes


def said(text: object, *more: dict[str, str]) -> list[dict[str, object]]:
    return [{"role": "assistant", "content": [*more, {"type": "text", "text": text}]}]


BAD = {
    "no object": ("llava-next", 7, Reason.BAD_ROW),
    "no video": ("llava-next", changed("llava-next", video=None), Reason.BAD_ROW),
    "an empty answer": ("llava-next", changed("llava-next", chosen=" "), Reason.EMPTY_ANSWER),
    "equal answers": ("llava-next", changed("llava-next", rejected=" A man walks."), Reason.IDENTICAL_ANSWERS),
    "no question": ("llava-next", changed("llava-next", prompt="<video>\n"), Reason.BAD_ROW),
    "two videos in the prompt": ("llava-next", changed("llava-next", prompt="<video>a<video>"), Reason.BAD_ROW),
    "two videos": ("llama-factory", changed("llama-factory", videos=["a", "b"]), Reason.BAD_ROW),
    "several turns": (
        "llama-factory",
        changed("llama-factory", conversations=[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]),
        Reason.BAD_ROW,
    ),
    "no rejected answer": ("ms-swift", changed("ms-swift", rejected_response=None), Reason.BAD_ROW),
    "turns that are no objects": ("ms-swift", changed("ms-swift", messages=["a", "b"]), Reason.BAD_ROW),
    "no text in a part": ("trl", changed("trl", chosen=said(5)), Reason.BAD_ROW),
    "two videos in parts": (
        "trl",
        changed("trl", prompt=[{"role": "user", "content": [{"type": "video"}] * 2 + [{"type": "text", "text": "q"}]}]),
        Reason.BAD_ROW,
    ),
    "an answer with a picture": ("trl", changed("trl", chosen=said("x", {"type": "image"})), Reason.BAD_ROW),
    "an empty video": ("llava-next", changed("llava-next", video=" "), Reason.BAD_ROW),
    "half of a character": ("llava-next", changed("llava-next", chosen="\ud83d"), Reason.BAD_ROW),
    "the wrong role": ("trl", changed("trl", chosen=[{"role": "user", "content": "x"}]), Reason.BAD_ROW),
}


@pytest.mark.parametrize("case", BAD)
def test_a_row_that_is_no_pair_is_set_aside_by_its_number(case: str, tmp_path: Path) -> None:
    form, record, reason = BAD[case]
    good = json.dumps(DOCUMENTED[form][0])
    (tmp_path / "data.jsonl").write_text(f"{good}\n{json.dumps(record)}\n{{not json\n{good}\n")
    rows, rejections = read_rows(tmp_path / "data.jsonl", form)
    assert [row.number for row in rows] == [1, 4]
    assert [(one.item, one.reason) for one in rejections] == [
        ("data.jsonl#2", reason),
        ("data.jsonl#3", Reason.BAD_ROW),
    ]


@pytest.mark.parametrize("bomb", ['{"id": ' + "1" * 5000 + "}", '{"id": ' + "[" * 200_000], ids=["digits", "depth"])
def test_json_that_python_will_not_read_is_one_bad_row(bomb: str, tmp_path: Path) -> None:
    good = json.dumps(DOCUMENTED["trl"][0])
    (tmp_path / "data.jsonl").write_text(f"{good}\n{bomb}\n{good}\n")
    rows, rejections = read_rows(tmp_path / "data.jsonl", "trl")
    assert [row.number for row in rows] == [1, 3]
    assert [(one.item, one.reason) for one in rejections] == [("data.jsonl#2", Reason.BAD_ROW)]
    (tmp_path / "list.json").write_text(f"[{bomb}]")
    with pytest.raises(UserError, match="begins like a JSON list"):
        read_rows(tmp_path / "list.json", "trl")


def test_what_is_said_of_a_row_is_short(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps(changed("llava-next", chosen="", rejected="x" * 100_000)))
    _, (rejection,) = read_rows(tmp_path / "data.jsonl", "llava-next")
    assert (rejection.reason, len(rejection.detail) < 500) == (Reason.EMPTY_ANSWER, True)


def write_csv(folder: Path, text: str) -> Path:
    (folder / "dataset.csv").write_text(text, encoding="utf-8", newline="")
    return folder / "dataset.csv"


def test_a_table_is_read_by_the_names_that_people_give_columns(tmp_path: Path) -> None:
    file = write_csv(
        tmp_path,
        '\ufeffvideo_path,Prompt,chosen_response,rejected_response,index\r\nb.mp4,"a ""b"",\r\nc","x,y",z,1\r\n'
        "b.mp4,q,x\r\nb.mp4,,x,y,3\r\n",
    )
    (row,), rejections = read_rows(file, "csv")
    assert (row.video, row.question, row.chosen, row.rejected) == ("b.mp4", 'a "b",\r\nc', "x,y", "z")
    assert [(one.item, one.reason) for one in rejections] == [
        ("dataset.csv#2", Reason.BAD_ROW),
        ("dataset.csv#3", Reason.BAD_ROW),
    ]


def test_a_table_whose_quotes_are_broken_is_refused_with_the_line(tmp_path: Path) -> None:
    file = write_csv(tmp_path, 'video,question,chosen,rejected\nb.mp4,q,x,y\nb.mp4,q,"x" z,y\n')
    with pytest.raises(UserError, match=r"dataset\.csv, line 3: no CSV"):
        read_rows(file, "csv")


def test_columns_that_are_not_known_are_listed_with_those_that_are(tmp_path: Path) -> None:
    file = write_csv(tmp_path, "clip,frage,chosen,rejected,score\nb.mp4,q,x,y,5\n")
    with pytest.raises(UserError) as caught:
        read_rows(file, "csv")
    for told in (
        "has the columns clip, frage, chosen, rejected, score",
        "Not known: clip, frage, score",
        "Missing: video, question",
        "video: video, video_path,",
        "--column NAME=OURS",
    ):
        assert told in str(caught.value)
    (row,), _ = read_rows(file, "csv", {"clip": "video", "frage": "question", "score": ""})
    assert (row.video, row.question) == ("b.mp4", "q")
    with pytest.raises(UserError, match=r"--column nosuch: .* has the columns clip, frage"):
        read_rows(file, "csv", {"nosuch": "video"})


def test_a_video_is_found_by_path_or_by_a_name_that_only_it_has(tmp_path: Path) -> None:
    videos = [*VIDEOS, a_video("c/twin.mp4", "c"), a_video("d/twin.mp4", "d")]
    names = ["walks/a walk.mp4", "a walk.mp4", "a walk", "/data/raw/b.mp4", "c/twin.mp4", "twin.mp4", "gone.mp4"]
    lines = [f"{name},question {number},x,y" for number, name in enumerate(names)]
    rows, _ = read_rows(write_csv(tmp_path, "video,question,chosen,rejected\n" + "\n".join(lines)), "csv")
    found, rejections = import_pairs([*rows, rows[0]], videos, 4, "dataset.csv")
    assert [pair.video_id[0] for pair in found] == ["a", "a", "a", "b", "c"]
    assert [(one.item, one.reason) for one in rejections] == [
        ("dataset.csv#6", Reason.VIDEO_MISSING),
        ("dataset.csv#7", Reason.VIDEO_MISSING),
        ("dataset.csv#1", Reason.DUPLICATE),
    ]


def test_what_trl_is_given_is_conversational_to_it(tmp_path: Path) -> None:
    from datasets import load_dataset
    from trl.data_utils import is_conversational

    rows = [row_of(number, pair, VIDEOS[0]) for number, pair in enumerate(pairs()[:3])]
    (tmp_path / "trl.jsonl").write_text(write_rows(rows, "trl"), encoding="utf-8")
    data = load_dataset("json", data_files=str(tmp_path / "trl.jsonl"), cache_dir=str(tmp_path / "cache"))["train"]
    assert is_conversational(data[0])
    assert [part["type"] for part in data[0]["prompt"][0]["content"]] == ["video", "text"]
    assert data[1]["chosen"][0]["content"][0]["text"] == HOSTILE[1][1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a catalog, and pairs to export."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    catalog = Manifest(stage="ingest", item="files", items_in=2, items_out=2, set_aside={}, seconds=0)
    publish(tmp_path / "data/catalog", {"videos.jsonl": VIDEOS}, catalog)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pairs_are_imported_in_the_place_of_the_judges(project: Path) -> None:
    write_csv(project, "video,question,chosen,rejected,note\nb.mp4,q,x,y,hm\nb.mp4,q2,x,x,hm\nz.mp4,q3,x,y,hm\n")
    done = CliRunner().invoke(app, ["pairs", "import", "dataset.csv", "--form", "csv", "--column", "note="])
    assert done.exit_code == 0, done.output
    assert "data/judged: 1 of 3 rows; set aside: 1 identical_answers, 1 video_missing." in done.output
    assert "dvc repro -s mix validate train evaluate register" in done.output, "without -s, our own would be made again"
    (pair,) = read_records(project / "data/judged/pairs.jsonl", PreferencePair)
    assert (pair.question, pair.video_id) == ("q", VIDEOS[1].id)
    assert len(read_records(project / "data/judged/rejected.jsonl", Rejection)) == 2
    facts = read_manifest(project / "data/judged").facts
    assert facts["imported_from"] == "dataset.csv"
    assert facts["sha256"] == hashlib.sha256((project / "dataset.csv").read_bytes()).hexdigest()
    assert read_records(project / "data/queries/queries.jsonl", Query) == []
    assert json.loads((project / "data/queries/decontamination.json").read_text())["status"] == "not checked"
    write_csv(project, "video,question,chosen,rejected\nz.mp4,q3,x,y\n")
    failed = CliRunner().invoke(app, ["pairs", "import", "dataset.csv", "--form", "csv"])
    assert isinstance(failed.exception, UserError)
    told = str(failed.exception)
    assert "No row of dataset.csv is a pair about a video of the catalog. Set aside: 1 video_missing" in told
    assert "first dataset.csv#1: 'z.mp4' is not in the catalog" in told
    assert read_records(project / "data/judged/pairs.jsonl", PreferencePair) == [pair], "what was there is kept"


@pytest.mark.parametrize("form", FORMS)
def test_pairs_are_exported_with_those_held_out_beside_them(project: Path, form: str) -> None:
    mixed = Manifest(stage="mix", item="pairs", items_in=6, items_out=6, set_aside={}, seconds=0)
    publish(project / "data/pairs", {"pairs.jsonl": pairs()[:4], "held_out.jsonl": pairs()[4:]}, mixed)
    done = CliRunner().invoke(app, ["pairs", "export", "out/mine.json", "--form", form])
    assert done.exit_code == 0, done.output
    assert len(read_rows(project / "out/mine.json", form)[0]) == 4
    assert len(read_rows(project / "out/mine_held_out.json", form)[0]) == 2
    if form == "llama-factory":
        told = json.loads((project / "out/dataset_info.json").read_text())
        assert {name: entry["file_name"] for name, entry in told.items()} == {
            "mine": "mine.json", "mine_held_out": "mine_held_out.json",
        }  # fmt: skip
        assert told["mine"]["ranking"] is True


def export(*arguments: str) -> str:
    """What was wrong; empty = nothing."""
    done = CliRunner().invoke(app, ["pairs", "export", *arguments, "--form", "llama-factory"])
    assert done.exception is None or isinstance(done.exception, UserError), done.exception
    return str(done.exception or "")


def test_data_sets_that_llama_factory_knows_of_stay_known(project: Path) -> None:
    mixed = Manifest(stage="mix", item="pairs", items_in=1, items_out=1, set_aside={}, seconds=0)
    publish(project / "data/pairs", {"pairs.jsonl": pairs()[:1], "held_out.jsonl": []}, mixed)
    info = project / "dataset_info.json"
    info.write_text('{"alpaca": {"file_name": "alpaca.json"}}')
    assert export("mine.json") == ""
    assert json.loads(info.read_text()).keys() == {"alpaca", "mine"}
    assert "Give the pairs another name" in export("dataset_info.json")
    info.write_text("[not json")
    assert "cannot be read as JSON" in export("mine.json")
    assert info.read_text() == "[not json"


def test_pairs_older_than_the_catalog_are_not_exported(project: Path) -> None:
    mixed = Manifest(stage="mix", item="pairs", items_in=1, items_out=1, set_aside={}, seconds=0)
    catalog = Manifest(stage="ingest", item="files", items_in=1, items_out=1, set_aside={}, seconds=0)
    publish(project / "data/pairs", {"pairs.jsonl": pairs()[:1], "held_out.jsonl": []}, mixed)
    publish(project / "data/catalog", {"videos.jsonl": VIDEOS[1:]}, catalog)
    assert "The video of pair 0 in data/pairs is not in data/catalog" in export("mine.json")
