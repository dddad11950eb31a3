"""What lmms-eval and the benchmarks' own programs make of replies, frozen for tests/evaluation/test_parity.py.

    python bench/parity.py                              # compares with the frozen files
    python bench/parity.py --write                      # writes them anew
    python bench/parity.py --videomme ~/Video-MME --mlvu ~/MLVU --tempcompass ~/TempCompass    # official ones as well

It needs lmms-eval 0.7.3 and decord, and nothing of this package: it may run in an environment of its own, where
`pip install lmms-eval==0.7.3 decord` installs all that lmms-eval wants. The checkouts are MME-Benchmarks/Video-MME at
4e7566d (its scoring was removed later), JUNJIE99/MLVU at fd060c1 and llyx97/TempCompass. Only the functions that score
are run, and only on the rows and replies below, which are made up here. LongVideoBench has no program of its own; the
rule in lmms-eval is its authors'.
"""

import argparse
import ast
import contextlib
import importlib
import io
import json
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

FROZEN = Path(__file__).resolve().parents[1] / "tests/evaluation/parity"
RELEASE = "0.7.3"
LETTERS = "ABCDEFGH"
DRAWN = "drawn"
MLVU_DEV = ("plotQA", "needle", "ego", "count", "order", "anomaly_reco", "topic_reasoning")
MLVU_TEST = ("plotQA", "needleQA", "ego", "count", "order", "anomaly_reco", "topic_reasoning", "sportsQA", "tutorialQA")
QUESTIONS = (
    ("What comes first?", ("a dog", "a cat", "a cow", "a horse")),
    ("Which fruit is on the table at the end?", ("Apples", "Pears", "Berries", "Dates")),
    ("How many times does the man jump?", ("2", "12", "3", "13")),
    ("Who speaks after the mayor?", ("Ben Carter", "Dr. Ada Bell", "CCTV's reporter", "An Elder")),
    ("In which order do the colours appear?", ("red, blue", "blue, red", "red, green", "green, red")),
    ("Why does she leave?", ("Because it rains", "To eat", "She is called", "A bus arrives")),
    ("Which chord is played last?", ("C major", "D minor", "A minor", "F major")),
    ("What does the player do after the whistle?", ("Dribble", "A dive", "Catch the ball", "Bow")),
    ("Which step comes before cutting?", ("Drawing a line", "Adding glue", "Cleaning", "Bending")),
)
FIFTH = ("none of them", "Eggs", "23", "Emma", "green, blue", "Every reason above", "E flat major", "Exit", "Etching")
SIXTH = ("all of them", "Figs", "32", "Frank", "blue, green", "For no reason", "F sharp minor", "Fall", "Filing")
REPLIES = (
    *(
        "{L}",
        "{l}",
        "({L})",
        "{L}.",
        "{L})",
        "{L}:",
        "**{L}**",
        "{L}. {T}",
        "{L}) {T}",
        "({L}) {T}",
        "{L} {T}",
        "{T}",
        "{T}.",
    ),
    *("The answer is {L}", "the answer is {l}.", "THE ANSWER IS {L}", "The best answer is: {L}", "Answer: {L}"),
    *("The correct option is ({L}) {T}.", "The best option is {L}. {T}", "Best option: ({L}) {T}", "Best answer: {L}"),
    *("Option {L}", "I would choose ({l})", "I choose {L}", "My answer is {T}", "Based on the video, {L}", "It's {L}!"),
    *(
        "A man walks by. The answer is {L}.",
        "At first a dog runs by, so {L}",
        "CCTV shows {T}",
        "Because {T}",
        "{T} ({L})",
    ),
    *(
        "not {L} but {M}",
        "{L}, {M} and {N}",
        "{L} or {M}",
        "It is not {L}",
        "{L}. Not {M}.",
        "The answer is {L}. Wait, {M}.",
    ),
    *(
        "Reason: {M} is not shown.\n\n{L}",
        "{L}\n\nExplanation: {T} is seen at the end, {U} is not.",
        "答案是{L}",
        "정답은 {L}",
    ),
    *(
        "I cannot tell.",
        "i cannot tell from these frames",
        "",
        "  ",
        "E",
        "G",
        "The answer is F.",
        "None of the above",
        ".",
    ),
    *(
        "Sorry, but it is impossible to say what the person in this video does at the end",
        "no idea at all",
        "'{L}'",
        '"{L}."',
    ),
    *(
        "so it is rather hard to say for sure what happens here, {l}",
        "{L}{M}",
        "x{L}",
        "{L}x",
        "{T}: {L}",
        "{L},",
        " {L} \n",
    ),
    *(
        "The answer",
        "The answer {L}",
        "The best option isThe correct option is {L}",
        "{L}.{T}",
        ")",
        "){L}",
        "{L}) or {M})",
        "{L} )",
    ),
)


def questions(num_options: int) -> list[dict[str, Any]]:
    """The question and options of row after row; a gold option that turns with them."""
    more = [FIFTH, SIXTH][: num_options - 4]
    return [
        {"question": question, "options": [*options, *(extra[n] for extra in more)], "gold": (2 * n + 1) % num_options}
        for n, (question, options) in enumerate(QUESTIONS)
    ]


def replies(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Each kind of reply to several rows, each about options drawn for it, the gold one half of the time."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    made = []
    for kind in REPLIES:
        for number in rng.sample(range(len(rows)), 3 if "{" in kind else 1):
            row = rows[number]
            order = rng.sample(range(len(row["options"])), 3)
            if rng.random() < 0.5 and row["gold"] not in order[1:]:
                order[0] = row["gold"]
            first, second, third = order
            words = {"L": LETTERS[first], "l": LETTERS[first].lower(), "M": LETTERS[second], "N": LETTERS[third]}
            text = kind.format(**words, T=row["options"][first], U=row["options"][second])
            made.append({"row": number, "text": text})
    return made


def lettered(row: dict[str, Any]) -> list[str]:
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, row["options"], strict=False)]


def score_all(
    rows: list[dict[str, Any]], score: Callable[[dict[str, Any], int, str], tuple[str | None, bool | None]]
) -> list[dict[str, Any]]:
    """What `score(row, its number, text)`, a letter and a verdict, gives for each reply."""
    made = replies(rows, seed=len(rows[0]["options"]))
    scored = [(reply, score(rows[reply["row"]], reply["row"], reply["text"])) for reply in made]
    return [{**reply, "letter": letter, "correct": correct} for reply, (letter, correct) in scored]


def lmms_eval_videomme() -> dict[str, Any]:
    utils: Any = importlib.import_module("lmms_eval.tasks.videomme.utils")
    rows, results = questions(4), []

    def doc(row: dict[str, Any], number: int) -> dict[str, Any]:
        of = {"question": row["question"], "options": lettered(row), "answer": LETTERS[row["gold"]]}
        where = {"duration": "short", "domain": "Knowledge", "sub_category": "Law", "task_type": "OCR Problems"}
        return {**of, **where, "question_id": f"{number}-1", "videoID": str(number)}

    def score(row: dict[str, Any], number: int, text: str) -> tuple[str, bool]:
        found = utils.videomme_process_results(doc(row, number), [text])["videomme_perception_score"]
        results.append(found)
        return found["pred_answer"], bool(found["score"])

    scored = score_all(rows, score)
    prompts = [
        utils.videomme_doc_to_text(doc(row, n), prompt_settings("videomme", "videomme")) for n, row in enumerate(rows)
    ]
    accuracy = utils.videomme_aggregate_results(results) / 100
    return {"rows": rows, "replies": scored, "accuracy": accuracy, "prompts": prompts}


def in_categories(rows: list[dict[str, Any]], categories: Sequence[str]) -> list[dict[str, Any]]:
    return [{**row, "category": categories[number % len(categories)]} for number, row in enumerate(rows)]


def lmms_eval_mlvu(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Its rows hold the options in the question, in whatever form: only what it puts around them is its prompt."""
    utils: Any = importlib.import_module("lmms_eval.tasks.mlvu.utils")
    results = []

    def score(row: dict[str, Any], _number: int, text: str) -> tuple[str, bool]:
        doc = {"question": row["question"], "task_type": row["category"], "answer": LETTERS[row["gold"]]}
        (found,) = utils.mlvu_process_results(doc, [text]).values()
        results.append(found)
        return found["pred_answer"], found["pred_answer"] == found["answer"]

    scored = score_all(rows, score)
    prompt = utils.mlvu_doc_to_text({"question": "{question}"}, prompt_settings("mlvu", f"mlvu_{name}"))
    # It sums over a set, whose order changes from run to run, and the last digits with it.
    accuracy = round(getattr(utils, f"mlvu_aggregate_results_{name}")(results) / 100, 12)
    return {"rows": rows, "replies": scored, "accuracy": accuracy, "prompts": [prompt]}


def lmms_eval_longvideobench() -> dict[str, Any]:
    utils: Any = importlib.import_module("lmms_eval.tasks.longvideobench.utils")
    utils.random = argparse.Namespace(choice=lambda _: DRAWN)
    rows = [*questions(4)[:4], *questions(5)[4:]]
    results: list[dict[str, Any]] = []

    def doc(row: dict[str, Any], number: int) -> dict[str, Any]:
        options = {f"option{i}": row["options"][i] if i < len(row["options"]) else "N/A" for i in range(5)}
        where = {"duration_group": 15, "question_category": "TOS"}
        return {"id": str(number), "question": row["question"], "correct_choice": row["gold"], **options, **where}

    def score(row: dict[str, Any], number: int, text: str) -> tuple[str | None, bool]:
        found = utils.longvideobench_process_results(doc(row, number), [text])["lvb_acc"]
        results.append({**found, "id": str(len(results))})
        return None if found["parsed_pred"] == DRAWN else found["parsed_pred"], found["parsed_pred"] == found["answer"]

    for row in rows:
        row["gold"] %= len(row["options"])
    scored = score_all(rows, score)
    settings = prompt_settings("longvideobench", "longvideobench_val_v")
    prompts = [utils.longvideobench_doc_to_text(doc(row, n), settings) for n, row in enumerate(rows)]
    accuracy = utils.longvideobench_aggregate_results(results)  # rounded to five places
    return {"rows": rows, "replies": scored, "accuracy": accuracy, "prompts": prompts}


def lmms_eval_tempcompass() -> dict[str, Any]:
    utils: Any = importlib.import_module("lmms_eval.tasks.tempcompass.utils")
    utils.get_eval_result = lambda _prompt: ("", None)  # it would ask ChatGPT

    def doc(row: dict[str, Any], number: int) -> dict[str, Any]:
        question = "\n".join([row["question"], *lettered(row)])
        return {"question": question, "answer": lettered(row)[row["gold"]], "video_id": str(number), "dim": "order"}

    def score(row: dict[str, Any], number: int, text: str) -> tuple[None, bool | None]:
        found = utils.tempcompass_process_results_multi_choice(doc(row, number), [text])["avg_accuracy"]
        return None, bool(found["rating"]) if found["match_success"] else None

    rows = questions(4)
    settings = prompt_settings("tempcompass", "_default_template_yaml")
    prompts = [utils.tempcompass_doc_to_text_multi_choice(doc(row, n), settings) for n, row in enumerate(rows)]
    return {"rows": rows, "replies": score_all(rows, score), "prompts": prompts}


def prompt_settings(task: str, name: str) -> dict[str, Any]:
    """`lmms_eval_specific_kwargs.default` of a task's file; without the lines that name functions."""
    import yaml

    folder = Path(importlib.import_module(f"lmms_eval.tasks.{task}.utils").__file__ or "").parent
    file = folder / (name if name.endswith("_yaml") else f"{name}.yaml")
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if "!function" not in line]
    settings: dict[str, Any] = yaml.safe_load("\n".join(lines)).get("lmms_eval_specific_kwargs", {}).get("default", {})
    return settings


def functions_of(file: Path, *names: str) -> dict[str, Any]:
    """Functions and constants of a program, without running the rest of it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kept: list[ast.stmt] = [
        node
        for node in tree.body
        if (isinstance(node, ast.FunctionDef) and node.name in names)
        or (isinstance(node, ast.Assign) and isinstance(node.value, ast.List))
    ]
    typing = importlib.import_module("typing")
    found: dict[str, Any] = {**vars(typing), "re": re, "json": json, "os": os}
    exec(compile(ast.Module(kept, []), str(file), "exec"), found)  # noqa: S102 - the user names the program to run
    return found


def official_videomme(checkout: Path) -> dict[str, Any]:
    program = functions_of(
        checkout / "evaluation/eval_your_results.py", "extract_characters_regex", "eval_your_results"
    )

    def score(row: dict[str, Any], _number: int, text: str) -> tuple[str | None, bool | None]:
        letter = program["extract_characters_regex"](text)
        return letter or None, letter == LETTERS[row["gold"]] if letter else None

    rows = questions(4)
    scored = score_all(rows, score)
    asked = [
        {"task_type": "OCR Problems", "answer": LETTERS[rows[reply["row"]]["gold"]], "response": reply["text"]}
        for reply in scored
    ]
    video = {"duration_category": "short", "video_category": "Knowledge", "video_subcategory": "Law", "missing": False}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as printed:
        file = Path(folder) / "results.json"
        file.write_text(json.dumps([{**video, "questions": asked}]), encoding="utf-8")
        program["eval_your_results"](str(file), video_types="short", skip_missing=True)
    accuracy = float(re.findall(r"Overall: +([\d.]+)%", printed.getvalue())[-1]) / 100  # to three places
    return {"rows": rows, "replies": scored, "accuracy": accuracy}


def official_mlvu(checkout: Path) -> dict[str, Any]:
    file = checkout / "evaluation/multiple_choice_evaluation/choice_bench.py"
    check = functions_of(file, "check_ans")["check_ans"]
    rows = in_categories(questions(4), MLVU_DEV)

    def score(row: dict[str, Any], _number: int, text: str) -> tuple[None, bool]:
        return None, check(text, f"({LETTERS[row['gold']]}) {row['options'][row['gold']]}")

    return {"rows": rows, "replies": score_all(rows, score)}


def official_tempcompass(checkout: Path) -> dict[str, Any]:
    """Without ChatGPT: the program's `main` on a file of predictions, its verdicts where it found a letter."""
    program = functions_of(checkout / "eval_multi-choice.py", "main")
    program |= {"tqdm": list, "disable_suffix": "", "print_result": lambda _: None}

    def score(row: dict[str, Any], _number: int, text: str) -> tuple[None, bool | None]:
        asked = {"question": row["question"], "answer": lettered(row)[row["gold"]], "prediction": text}
        with tempfile.NamedTemporaryFile("w") as file:
            results: dict[str, Any] = {}
            program["main"]({"video": {"order": [asked]}}, results, file.name, True)  # noqa: FBT003 - theirs
        ((found,),) = results["video"].values()
        return None, bool(found["rating"]) if found["match_success"] else None

    rows = questions(4)
    return {"rows": rows, "replies": score_all(rows, score)}


def check(name: str, found: dict[str, Any], write: bool) -> bool:
    file = FROZEN / f"{name}.json"
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"), sort_keys=True).replace("},{", "},\n{") + "\n"
    if write:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    same = file.is_file() and file.read_text(encoding="utf-8") == text
    benchmarks = [key for key, value in found.items() if isinstance(value, dict)]
    count = sum(len(found[key]["replies"]) for key in benchmarks)
    print(f"{'same' if same else 'OTHER'}  {file.name}: {count} replies of {', '.join(benchmarks)}")
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="freeze what is found")
    official = {"videomme": official_videomme, "mlvu": official_mlvu, "tempcompass": official_tempcompass}
    for name in official:
        parser.add_argument(f"--{name}", type=Path, help="a checkout of the official program")
    arguments = parser.parse_args()
    if version("lmms-eval") != RELEASE:
        sys.exit(f"lmms-eval is {version('lmms-eval')} here, expected {RELEASE}: another release may score otherwise.")
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("HF_HOME", home)  # some of its modules read it when they are imported
        importlib.import_module("lmms_eval.models")  # it makes loggers of its own
        importlib.import_module("loguru").logger.disable("lmms_eval")
        found = {
            "lmms_eval": RELEASE,
            "longvideobench": lmms_eval_longvideobench(),
            "mlvu": lmms_eval_mlvu("dev", in_categories(questions(4), MLVU_DEV)),
            "mlvu_test": lmms_eval_mlvu("test", in_categories(questions(6), MLVU_TEST)),
            "videomme": lmms_eval_videomme(),
            "tempcompass": lmms_eval_tempcompass(),
        }
    same = [check("lmms_eval_0_7_3", found, arguments.write)]
    for name, score in official.items():
        if checkout := getattr(arguments, name):
            same.append(check(f"official_{name}", {name: score(checkout)}, arguments.write))
    print(json.dumps({"files": len(same), "files_same": sum(same)}))
    sys.exit(not all(same))


if __name__ == "__main__":
    main()
