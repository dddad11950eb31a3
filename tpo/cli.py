"""`tpo` for people: see how a project stands, look at what a run did, ask the model something, change the champion.

    tpo status
    tpo use longva
    tpo summary, tpo show 3f2a90c1, tpo review
    tpo ask clip.mp4 "What comes right after the red star?"
    tpo registry, tpo promote, tpo rollback, tpo reproduce

The pipeline itself is run by `dvc repro`. Nothing heavy is imported before a command needs it.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from tpo import cli_registry
from tpo.cli_pairs import pairs
from tpo.cli_recipes import use
from tpo.cli_review import review
from tpo.cli_status import status
from tpo.errors import UserError

EXIT_CODES = (
    "Exit codes: 0 done. 1 there is something that you can mend, and the message says what. 2 no such command, option "
    "or value. 130 ended by Ctrl-C. Facts go to standard output, everything else to standard error; with --json, "
    "standard output is JSON."
)
app = typer.Typer(
    help="Temporal Preference Optimization of video-LMMs.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
AsJson = Annotated[bool, typer.Option("--json", help="as JSON, for programs")]
app.command(epilog="Example: tpo status --json")(status)
app.command(epilog="Example: tpo use longva --dry-run")(use)


@app.command(epilog="Example: tpo summary")
def summary(*, as_json: AsJson = False) -> None:
    """What the pipeline did: videos, pairs, accuracy before and after, the gate, and where to look."""
    from tpo.progress import waiting

    with waiting("reading what the stages left"):
        from tpo.report.summary import collect, to_text

        found = collect(Path())
    typer.echo(found.model_dump_json(indent=2) if as_json else to_text(found))


def _ids(incomplete: str) -> list[str]:
    """Ids of pairs and queries that begin so, for the shell: a line begins with its id, and is not read further."""
    begin = f'{{"id":"{incomplete}'
    found: list[str] = []
    for path in (Path("data/judged/pairs.jsonl"), Path("data/queries/queries.jsonl")):
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as file:
                found += [line[7:].partition('"')[0] for line in file if line.startswith(begin)]
    return found[:200]


@app.command(epilog="Example: tpo show 3f2a90c1 --prompts")
def show(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="id of a pair or a query, or how it begins", autocompletion=_ids)
    ],
    *,
    prompts: Annotated[bool, typer.Option("--prompts", help="also what the language models were asked")] = False,
    as_json: AsJson = False,
) -> None:
    """Where a pair came from: video, views, captions, question, answers, verdicts, and where it went."""
    from tpo.params import load_params
    from tpo.progress import waiting

    params = load_params()
    with waiting("reading what the stages left"):
        from tpo.report.trace import to_text, trace

        found = trace(Path(), name, params)
    typer.echo(found.model_dump_json(indent=2) if as_json else to_text(found, with_prompts=prompts))


app.command(epilog="Example: tpo review --reviewer anna")(review)


@app.command(epilog='Example: tpo ask clip.mp4 "What comes right after the red star?" --model models/tuned')
def ask(
    video: Annotated[Path, typer.Argument(help="a video file")],
    question: Annotated[str, typer.Argument(help="what to ask about it")],
    model: Annotated[
        str | None,
        typer.Option(help="checkpoint folder, or NAME@ALIAS or NAME/VERSION in the registry; default: the champion"),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Ask a model one question about one video."""
    from tpo.progress import waiting

    asked = model if model is not None and Path(model).is_dir() else f"models:/{_registered(model)}"
    with waiting(f"asking {asked}"):
        from tpo.registry.ask import ask_registered, find_video

        find_video(str(video))  # before a model is loaded
        if asked == model:
            answer = _ask_checkpoint(model, video, question)
        else:
            answer = ask_registered(asked, str(video), question)
    told = {"video": str(video), "question": question, "model": asked, "answer": answer}
    typer.echo(json.dumps(told, indent=2, ensure_ascii=False) if as_json else answer)


def _registered(model: str | None) -> str:
    """NAME@ALIAS or NAME/VERSION: the model that was named, or the champion."""
    from tpo.params import load_params
    from tpo.status.registered import registered

    if model is None:
        known = registered(load_params().register_.name, Path())
        if known.state == "read" and known.champion is None:
            raise UserError(
                f"{known.name!r} has no champion yet. `tpo registry` shows what is registered, and "
                "`tpo ask --model models/tuned` asks the tuned model, promoted or not."
            )
        return f"{known.name}@champion"
    if not ("@" in model or "/" in model):
        raise UserError(f"There is no folder {model!r}, and a registered model is named like NAME@champion or NAME/3.")
    return model


def _ask_checkpoint(checkpoint: str, video: Path, question: str) -> str:
    from tpo.models.load import load_model
    from tpo.params import load_params
    from tpo.registry.ask import answer_file
    from tpo.video.probe import Prober

    params = load_params()
    model = load_model(params.model.of(checkpoint))
    with TemporaryDirectory() as scratch, Prober(Path(scratch)) as prober:
        frames, tokens = params.evaluate.num_frames, params.answer.max_new_tokens
        return answer_file(model, prober, str(video), question, frames, tokens)


cli_registry.add_to(app)
app.add_typer(pairs, name="pairs")


@app.command(epilog="Example: tpo needles --haystacks 8")
def needles(
    haystacks: Annotated[int, typer.Option(min=1, help="how many of the longest held-out videos to put them into")] = 8,
) -> None:
    """Make a needle test of your own held-out videos, in the folder of benchmarks; `evaluate.needle` has it asked."""
    from tpo.evaluation.needle import NAME
    from tpo.evaluation.needle_catalog import cut_needles
    from tpo.params import load_params
    from tpo.records import PreferencePair, Query, Video
    from tpo.store import count_reasons, read_records

    params = load_params()
    folder = params.data.benchmarks / NAME
    if (folder / "needles.json").is_file():
        raise UserError(f"{folder} holds a needle test already. Delete that folder to make another one.")
    held_out = {pair.video_id for pair in read_records(Path("data/pairs/held_out.jsonl"), PreferencePair)}
    videos = [v for v in read_records(Path("data/catalog/videos.jsonl"), Video) if v.id in held_out]
    if not videos:
        raise UserError("No video is held out, and who was trained on a needle has found it. Set mix.held_out_share.")
    queries = [q for q in read_records(Path("data/queries/queries.jsonl"), Query) if q.video_id in held_out]
    set_aside = cut_needles(folder, queries, videos, params.data.videos, Path(".tpo/frames"), haystacks)
    told = ", ".join(f"{count} {reason}" for reason, count in count_reasons(set_aside).items()) or "nothing"
    typer.echo(f"{folder}: needles of {len(videos)} held-out videos; questions set aside: {told}.")
    typer.echo("Read the questions in needles.json: wrong options are right answers to other questions.")


@app.command(epilog="Example: tpo convert lmms-lab/LongVA-7B models/longva-7b")
def convert(
    src: Annotated[str, typer.Argument(help="folder or hub id of a checkpoint in the LLaVA-NeXT layout (llava_qwen)")],
    dst: Annotated[Path, typer.Argument(help="folder to write, for model.base in params.yaml")],
    vision_tower: Annotated[
        Path | None,
        typer.Option(help="folder of the vision tower as published; needed if the checkpoint has not trained its own"),
    ] = None,
    pool: Annotated[
        Literal["bilinear", "average"] | None,
        typer.Option(help="how features are pooled; default: as the checkpoint's config.json says"),
    ] = None,
) -> None:
    """Make a LLaVA-Video, LongVA or TPO checkpoint of the authors' loadable here."""
    from tpo.models import llava_next
    from tpo.models.checkpoint import download_weights, local_folder

    folder = local_folder(src, None)
    llava_next.read_original(folder)  # before gigabytes are downloaded
    download_weights(src, None, pickled_weights=False)
    llava_next.convert(folder, dst, vision_tower, pool)
    typer.echo(f"{dst}: {src} as a llava_video checkpoint. Set model.base in params.yaml to it.")


@app.command(epilog="Example: tpo export models/tuned for-vllm --form hf")
def export(
    model: Annotated[Path, typer.Argument(help="folder of a tuned model: full weights, or an adapter")],
    dst: Annotated[Path, typer.Argument(help="folder to write")],
    form: Annotated[
        Literal["hf", "llava-next", "adapter"],
        typer.Option(
            help="hf: transformers and vLLM load it; llava-next: the authors' scripts and lmms-eval do; "
            "adapter: the adapter alone, not merged into its base"
        ),
    ],
) -> None:
    """Write a tuned model for other tools. An adapter is merged into its base, in the dtype of params.yaml."""
    from tpo.models.export import export as write_theirs
    from tpo.params import load_params

    write_theirs(model, dst, form, load_params().model)
    typer.echo(f"{dst}: {model} in the form {form}.")


def main() -> None:
    """The entry point: what the user can fix is one message on stderr and exit code 1."""
    try:
        app()
    except UserError as error:
        typer.echo(f"tpo: {error}", err=True)
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None:
            raise
        typer.echo(f"tpo: {error.filename}: {error.strerror}. Is the path right, and may you use it?", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
