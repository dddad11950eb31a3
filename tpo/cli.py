"""`tpo` for people: look at what a run did, ask the model something, see the registry.

    tpo summary
    tpo show 3f2a90c1
    tpo review
    tpo ask clip.mp4 "What comes right after the red star?"
    tpo registry, tpo promote, tpo rollback, tpo reproduce

The pipeline itself is run by `dvc repro`.
"""

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

app = typer.Typer(
    help="Temporal Preference Optimization of video-LMMs.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.command()(status)
app.add_typer(pairs, name="pairs")
cli_registry.add_to(app)
app.command()(review)
app.command()(use)


@app.command()
def summary() -> None:
    """What the pipeline did: videos, pairs, accuracy before and after, the gate, and where to look."""
    from tpo.report.summary import collect, to_text

    typer.echo(to_text(collect(Path())))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="ID", help="id of a pair or a query, or how it begins")],
    *,
    prompts: Annotated[bool, typer.Option("--prompts", help="also what the language models were asked")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the records themselves")] = False,
) -> None:
    """Where a pair came from: video, views, captions, question, answers, verdicts, and where it went."""
    from tpo.params import load_params
    from tpo.report.trace import to_text, trace

    found = trace(Path(), name, load_params())
    typer.echo(found.model_dump_json(indent=2) if as_json else to_text(found, with_prompts=prompts))


@app.command()
def ask(
    video: Annotated[Path, typer.Argument(help="a video file")],
    question: Annotated[str, typer.Argument(help="what to ask about it")],
    model: Annotated[
        str | None,
        typer.Option(help="checkpoint folder, or NAME@ALIAS or NAME/VERSION in the registry; default: the champion"),
    ] = None,
) -> None:
    """Ask a model one question about one video."""
    if model is not None and Path(model).is_dir():
        typer.echo(_ask_checkpoint(model, video, question))
        return
    from tpo.params import load_params
    from tpo.registry.champion import CHAMPION

    target = model or f"{load_params().register_.name}@{CHAMPION}"
    if not ("@" in target or "/" in target):
        raise UserError(f"There is no folder {target!r}, and a registered model is named like NAME@champion or NAME/3.")
    from tpo.registry.ask import ask_registered, find_video

    find_video(str(video))  # before a model is loaded
    typer.echo(ask_registered(f"models:/{target}", str(video), question))


def _ask_checkpoint(checkpoint: str, video: Path, question: str) -> str:
    from tpo.models import load_model
    from tpo.params import load_params
    from tpo.registry.ask import answer_file, find_video
    from tpo.video.probe import Prober

    params = load_params()
    find_video(str(video))  # before a model is loaded
    model = load_model(params.model.of(checkpoint))
    with TemporaryDirectory() as scratch, Prober(Path(scratch)) as prober:
        frames, tokens = params.evaluate.num_frames, params.answer.max_new_tokens
        return answer_file(model, prober, str(video), question, frames, tokens)


@app.command()
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


@app.command()
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


@app.command()
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


if __name__ == "__main__":
    main()
