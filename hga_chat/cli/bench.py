"""``bench``: measure speed, memory, and the quality of routed beside dense attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from hga_chat import engine_access
from hga_chat.cli.options import Json, with_settings
from hga_chat.settings import Settings

if TYPE_CHECKING:
    from hga_chat.output import Output
    from hga_engine.config import RouterName
    from hga_engine.opening import LoadedModel

app = typer.Typer(help="Measure speed, memory and quality on this machine.", rich_markup_mode=None)


Contexts = Annotated[
    str, typer.Option("--context", help="Context lengths to measure at, separated by commas.")
]
Synthetic = Annotated[
    str | None,
    typer.Option(
        "--synthetic", help="Use random weights in this model's shapes, without downloading it."
    ),
]


def _numbers(text: str) -> list[int]:
    """Parse a list such as ``4096,65536``."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(f"expected numbers such as 4096,65536, not {text!r}")
    return numbers


@contextmanager
def _value_errors_as_usage_errors() -> Iterator[None]:
    """Report a ValueError as a usage error."""
    try:
        yield
    except ValueError as error:
        from hga_chat.errors import UsageError

        raise UsageError(f"{error}.") from error


def _model_and_text(
    settings: Settings,
    output: "Output",
    context: int,
    synthetic: str | None,
    *,
    topics: bool = False,
) -> "tuple[LoadedModel, list[int]]":
    """Return a model that is ready for sessions of ``context`` tokens, and tokens to measure on."""
    from hga_chat.bench import standard_text, synthetic_text
    from hga_chat.cli.prepare import find_or_pull

    config = settings.engine()
    config = replace(config, cache=replace(config.cache, context=context))
    access = engine_access.access
    if synthetic is None:
        files, _ = find_or_pull(settings, output)
        model = access.load_model(files, config, settings.device, output.progress)
        tokens = model.tokenizer.encode(standard_text())
    else:
        model, tokens = synthetic_text(synthetic, settings.device, context, topics)
        access.compile_kernels(model, config, output.progress)
    output.clear_progress()
    return model, tokens


@app.command("speed")
@with_settings("model", "budget", "router", "device", "device_limit", "host_budget", "quiet")
def speed(
    settings: Settings,
    context: Contexts = "4096,16384,65536",
    synthetic: Synthetic = None,
    topics: Annotated[
        bool,
        typer.Option(
            "--topics",
            help="With --synthetic: weights and text whose selections change slowly from token to "
            "token, as in trained models.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure prefill and decode speed, time to first token and memory."""
    contexts = _numbers(context)
    from hga_chat.bench import run_speed
    from hga_chat.output import Output, human_bytes, table

    output = Output(quiet=settings.quiet)
    if topics and synthetic is None:
        raise typer.BadParameter("--topics needs --synthetic")
    model, tokens = _model_and_text(settings, output, max(contexts), synthetic, topics=topics)
    with _value_errors_as_usage_errors():
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
        "prefill tok/s",
        "TTFT s",
        "decode tok/s",
        "next TTFT s",
        "GPU peak",
        "host peak",
    )
    output.write(f"{result['model']} on {result['device']}\n{table(header, rows)}\n")


@app.command("memory")
@with_settings("model", "budget", "router", "device", "device_limit", "host_budget", "quiet")
def memory(
    settings: Settings,
    context: Contexts = "4096,16384",
    synthetic: Synthetic = None,
    as_json: Json = False,
) -> None:
    """Compare predicted memory with what is really used."""
    contexts = _numbers(context)
    from hga_chat.bench import run_memory
    from hga_chat.output import Output, human_bytes, table

    output = Output(quiet=settings.quiet)
    load = partial(_model_and_text, settings, output, max(contexts), synthetic)
    with _value_errors_as_usage_errors():
        result = run_memory(load, contexts, settings.engine(), output.note)
    if as_json:
        output.json(result)
        return
    columns = (
        "host_predicted_bytes",
        "host_bytes",
        "device_predicted_bytes",
        "device_bytes",
        "kv_host_bytes",
        "kv_device_bytes",
        "index_bytes",
    )
    rows = [
        (f"{int(tokens):,}", *(human_bytes(row[column]) for column in columns))
        for tokens, row in result["context"].items()
    ]
    header = (
        "context",
        "host predicted",
        "host",
        "GPU predicted",
        "GPU",
        "K/V on host",
        "K/V on GPU",
        "index",
    )
    output.write(f"{result['model']} on {result['device']}\n{table(header, rows)}\n")


@app.command("quality")
@with_settings(
    "model", "context", "budget", "router", "device", "device_limit", "host_budget", "seed", "quiet"
)
def quality(
    settings: Settings,
    text: Annotated[
        list[str],
        typer.Option("--text", help="File to measure on, longer than the context. Repeatable."),
    ],
    needles: Annotated[
        int, typer.Option("--needles", min=0, help="Facts to plant in each text and ask about.")
    ] = 10,
    tasks: Annotated[
        int,
        typer.Option(
            "--tasks",
            min=0,
            help="Also plant this many RULER-style tasks of each family; 'known' is the share of "
            "the right answer that greedy decoding predicts.",
        ),
    ] = 0,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Seeds for each text, counting up from --seed.")
    ] = 1,
    routers: Annotated[
        str | None,
        typer.Option("--routers", help="Routers to compare, such as hga,paper. Default: --router."),
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option("--budgets", help="Budgets to compare, such as 1024,4096. Default: --budget."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Plot the gap against tokens attended, as .png and .svg."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare routed attention with dense attention on the same texts."""
    plan_routers = _routers(routers or settings.router)
    plan_budgets = _numbers(budgets) if budgets else [settings.budget]
    _check_plot(plot)
    from hga_chat.bench import QualityPlan, run_quality, write_plot
    from hga_chat.cli.prepare import find_or_pull
    from hga_chat.output import Output

    contents = [_content(path) for path in text]
    output = Output(quiet=settings.quiet)
    files, settings = find_or_pull(settings, output)
    assert settings.context is not None
    model = engine_access.access.load_model(
        files, settings.engine(), settings.device, output.progress
    )
    output.clear_progress()
    first = settings.seed or 0
    plan = QualityPlan(
        context=settings.context,
        needles=needles,
        tasks=tasks,
        seeds=tuple(range(first, first + seeds)),
        routers=plan_routers,
        budgets=tuple(plan_budgets),
    )
    with _value_errors_as_usage_errors():
        result = run_quality(model, contents, plan, settings.engine(), output.note)
    if plot is not None:
        title = f"{result['model']}, {result['context']:,} tokens"
        for path in write_plot(result["runs"], title, plot):
            output.note(f"Written: {path}")
    if as_json:
        output.json(result)
    else:
        output.write(quality_text(result))


def _routers(text: str) -> "tuple[RouterName, ...]":
    """Parse a list of routers such as ``hga,paper``."""
    names = text.split(",")
    if not set(names) <= {"hga", "paper", "dense"}:
        raise typer.BadParameter("--routers takes hga, paper and dense, separated by commas")
    return tuple(cast("RouterName", name) for name in names)


def _check_plot(path: Path | None) -> None:
    """Raise ``UsageError`` before the measurement if the plot cannot be written."""
    from hga_chat.errors import UsageError

    if path is None:
        return
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'hga-chat[plot]'.")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: the folder {path.parent} does not exist.")


def _content(path: str) -> str:
    """Return the text of a file or folder, in any supported format."""
    from hga_chat.documents import load_documents

    documents = load_documents([path]).documents
    return "\n".join(section.text for document in documents for section in document.sections)


def _task_shares(figures: dict[str, Any]) -> str:
    return f"{figures['score']:.0%} ({figures['answer_known']:.0%})"


def quality_text(result: dict[str, Any]) -> str:
    """Return the figures as a table."""
    from hga_chat.output import table

    total = result["needles_total"]
    families = list(result["tasks_dense"])
    rows = [
        (
            f"{run['router']}, {run['budget_tokens']:,} tokens, {run['rule']} rule",
            f"{run['gap_nats']:+.4f}",
            f"{run['gap_interval'][0]:+.4f} to {run['gap_interval'][1]:+.4f}",
            f"{run['gap_last_half_nats']:+.4f}",
            f"{run['greedy_agreement']:.1%}",
            f"{run['sparsity']:.2%}",
            f"{run['sparsity_last_half']:.2%}",
            f"{run['recall']['attended']:.1%}" if run["recall"] else "100%",
            f"{run['copies_gap_nats']:+.4f}",
            f"{run['needles']} of {total}",
            *(_task_shares(run["tasks"][family]) for family in families),
        )
        for run in result["runs"]
    ]
    dense = ("dense", "0", "", "0", "100%", "100%", "100%", "100%", "0")
    scores = (_task_shares(result["tasks_dense"][family]) for family in families)
    rows.append((*dense, f"{result['needles_dense']} of {total}", *scores))
    header = (
        "attention",
        "gap in nats",
        "95% interval",
        "in the last half",
        "same choice",
        "tokens attended",
        "in the last half",
        "mass attended",
        "copies",
        "needles",
        *(f"{family} (known)" for family in families),
    )
    return (
        f"{result['model']}, {result['context']:,} tokens, {result['texts']} texts, "
        f"{len(result['seeds'])} seeds, dense {result['dense_nats']:.4f} nats\n"
        f"{table(header, rows)}\n"
    )
