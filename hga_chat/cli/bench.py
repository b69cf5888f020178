"""``bench``: what this machine does, and how close routing comes to dense attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from hga_chat.cli.options import Json, with_settings
from hga_chat.settings import Settings

app = typer.Typer(help="Measure speed and quality on this machine.", rich_markup_mode=None)


def _contexts(text: str) -> list[int]:
    """Token counts of a list such as ``4096,65536``."""
    try:
        contexts = [int(part) for part in text.split(",")]
    except ValueError:
        contexts = []
    if not contexts or min(contexts) < 1:
        raise typer.BadParameter("token counts such as 4096,65536 are needed")
    return contexts


@contextmanager
def _told_as_usage() -> Iterator[None]:
    """Values that a measurement cannot work with are the caller's to change."""
    try:
        yield
    except ValueError as error:
        from hga_chat.cli.errors import UsageError

        raise UsageError(f"{error}.") from error


@app.command("speed")
@with_settings("model", "budget", "router", "device", "device_limit", "host_budget", "quiet")
def speed(
    settings: Settings,
    context: Annotated[
        str, typer.Option("--context", help="Token counts to measure at, with commas between.")
    ] = "4096,16384,65536",
    synthetic: Annotated[
        str | None,
        typer.Option(
            "--synthetic", help="Random weights of this model's geometry instead of a model."
        ),
    ] = None,
    topics: Annotated[
        bool,
        typer.Option(
            "--topics", help="Random weights and text whose selections change slowly, as real ones."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure reading, first token, answering and memory."""
    contexts = _contexts(context)
    from hga_chat.bench import run_speed, standard_text, synthetic_text
    from hga_chat.cli.prepare import find_or_pull
    from hga_chat.output import Output, human_bytes, table
    from hga_engine.opening import prepare_model

    output = Output(quiet=settings.quiet)
    if topics and synthetic is None:
        raise typer.BadParameter("--topics goes with --synthetic")
    if synthetic is None:
        model = prepare_model(find_or_pull(settings, output), device=settings.device)
        tokens = model.tokenizer.encode(standard_text())
    else:
        model, tokens = synthetic_text(synthetic, settings.device, max(contexts), topics)
    with _told_as_usage():
        result = run_speed(model, tokens, contexts, settings.engine(), output.note)
    if as_json:
        output.json(result)
        return
    rows = [
        (
            f"{int(tokens):,}",
            f"{row['prefill_tokens_per_s']:,.0f}",
            f"{row['ttft_s']:.2f}",
            f"{row['decode_tokens_per_s']:.1f}",
            f"{row['follow_up_ttft_s']:.2f}",
            human_bytes(row["device_peak_bytes"]),
            human_bytes(row["host_peak_bytes"]),
        )
        for tokens, row in result["context"].items()
    ]
    header = (
        "context",
        "read tok/s",
        "first token s",
        "answer tok/s",
        "next first s",
        "GPU peak",
        "host peak",
    )
    output.write(f"{result['model']} on {result['device']}\n{table(header, rows)}\n")


@app.command("quality")
@with_settings("model", "context", "budget", "router", "seed", "quiet")
def quality(
    settings: Settings,
    text: Annotated[
        Path, typer.Option("--text", help="Text to measure on; longer than the context.")
    ],
    needles: Annotated[
        int, typer.Option("--needles", min=0, help="Facts to plant in the text and ask for.")
    ] = 10,
    as_json: Json = False,
) -> None:
    """Compare routed with dense attention on the same text."""
    from hga_chat.bench import run_quality
    from hga_chat.cli.prepare import find_or_pull
    from hga_chat.documents import DocumentError
    from hga_chat.output import Output

    try:
        content = text.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DocumentError(f"{text}: {error.strerror}") from error
    output = Output(quiet=settings.quiet)
    files = find_or_pull(settings, output)
    with _told_as_usage():
        result = run_quality(
            files,
            content,
            settings.context,
            needles,
            settings.seed or 0,
            settings.engine().router,
            output.note,
        )
    if as_json:
        output.json(result)
    else:
        output.write(_quality_text(result))


def _quality_text(result: dict[str, Any]) -> str:
    from hga_chat.output import table

    total = result["needles_total"]
    rows = [
        (
            f"{result['router']}, {rule} rule",
            f"{figures['gap_nats']:+.4f}",
            f"{figures['gap_last_half_nats']:+.4f}",
            f"{figures['sparsity']:.2%}",
            f"{figures['needles']} of {total}",
        )
        for rule, figures in result["rules"].items()
    ]
    rows.append(("dense", "0", "0", "100%", f"{result['needles_dense']} of {total}"))
    header = ("attention", "gap in nats", "in the last half", "tokens read", "needles")
    return (
        f"{result['model']}, {result['context']:,} tokens, dense {result['dense_nats']:.4f} nats, "
        f"budget {result['budget_tokens']:,} tokens\n{table(header, rows)}\n"
    )
