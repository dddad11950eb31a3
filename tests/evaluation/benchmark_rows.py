"""Rows in the shapes in which the three benchmarks are downloaded, and how to write them; the texts are ours."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

LVB = {
    "video_id": "abc",
    "video_path": "abc.mp4",
    "id": "abc_0",
    "question": "What is on the table?",
    "question_wo_referring_query": "What is on the table?",
    "candidates": ["a cup", "a book", "a lamp", "a hat", "a plate"],
    "correct_choice": 2,
    "position": [10, 20],
    "topic_category": "KH-Knowledge-History",
    "question_category": "S2O",
    "level": "L1-Perception",
    "subtitle_path": "abc_en.json",
    "duration_group": 600,
    "starting_timestamp_for_subtitles": 12.5,
    "duration": 300.5,
    "view_count": 7,
    "type": "local",
}
MLVU = {
    "video": "movie_1.mp4",
    "duration": 480.0,
    "question": "What happens first?",
    "candidates": ["A dog barks", "A door opens", "A bell rings", "A car stops"],
    "answer": "A bell rings",
    "question_type": "order",
}
VIDEOMME = {
    "video_id": "001",
    "duration": "long",
    "domain": "Knowledge",
    "sub_category": "Technology",
    "url": "https://example.org/1",
    "videoID": "AbC-123_xyz00",
    "question_id": "001-1",
    "task_type": "OCR Problems",
    "question": "What does the sign say?",
    "options": ["A. Open.", "B. Closed.", "C. Exit.", "D. A. Smith."],
    "answer": "D",
}


def write_json(path: Path, rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_lvb(root: Path, *rows: object) -> None:
    write_json(root / "longvideobench/lvb_val.json", list(rows))
