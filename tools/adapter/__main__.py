"""Make the adapter of the embedded model from its base model alone.

    python -m tools.adapter data --weights BASE.gguf --debian / --out texts.jsonl.xz
    python -m tools.adapter train --data texts.jsonl.xz --weights BASE.gguf --out FOLDER
    python -m tools.adapter check --data texts.jsonl.xz --weights BASE.gguf --adapter FILE

``--debian`` may be repeated, for packages that are unpacked elsewhere. Training continues from the
checkpoint in FOLDER; ``--minutes`` ends a run early, ``--from-adapter`` starts from an adapter.
Several GPUs share the steps:
``torchrun --nproc-per-node 2 -m tools.adapter train …``.
"""

import argparse
import json
import sysconfig
from pathlib import Path


def make_data(options: argparse.Namespace) -> None:
    """Collect texts, let the base model answer the prompts, and write both."""
    from tools.adapter import chats, data

    paths = sysconfig.get_paths()
    site_packages = options.site_packages or Path(paths["purelib"])
    texts = tuple(data.collect(site_packages, Path(paths["stdlib"]), options.debian))
    answers = options.chats
    if answers is not None and answers.exists():
        said = tuple(tuple(json.loads(line)) for line in answers.read_text("utf-8").splitlines())
    else:
        said = tuple(chats.answer(options.weights, chats.prompts(420), 96))
    whole = data.Data(texts, said)
    data.write(options.out, whole)
    for origin, licence in sorted(data.licences(whole).items()):
        print(f"{origin}: {licence}")
    chars = sum(len(text.text) for text in texts if not text.is_held_out)
    print(f"{len(texts)} texts, {chars:,} characters to train on, {len(said)} conversations")


def train(options: argparse.Namespace) -> None:
    """Train the adapter."""
    from tools.adapter.batches import TrainingPlan
    from tools.adapter.train import train

    given = {name: value for name, value in vars(options).items() if value is not None}
    train(TrainingPlan(**given))


def check(options: argparse.Namespace) -> None:
    """Measure and print one JSON object."""
    from tools.adapter.check import run_checks

    figures = run_checks(
        options.data,
        options.weights,
        options.adapter,
        options.context,
        options.seeds,
        options.parts,
        options.windows,
    )
    print(json.dumps(figures, indent=1))


def main() -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("data", help="collect the texts")
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("--weights", type=Path, required=True)
    making.add_argument("--site-packages", type=Path)
    making.add_argument("--debian", type=Path, action="append", default=[])
    making.add_argument("--chats", type=Path, help="answers that were made before, JSON lines")
    making.set_defaults(run=make_data)
    training = commands.add_parser("train", help="train, or go on training")
    for name in ("data", "weights", "out"):
        training.add_argument(f"--{name}", type=Path, required=True)
    training.add_argument("--total-minutes", type=float, default=17.0)
    training.add_argument("--minutes", type=float, default=1e9)
    for name in ("batch-tokens", "batches", "short-windows", "short-tokens", "workers", "seed"):
        training.add_argument(f"--{name}", type=int)
    training.add_argument("--from-adapter", type=Path, help="adapter to begin with")
    for name in ("learning-rate", "text-weight", "short-weight", "concentration-weight"):
        training.add_argument(f"--{name}", type=float)
    training.set_defaults(run=train)
    checking = commands.add_parser("check", help="measure an adapter")
    for name in ("data", "weights"):
        checking.add_argument(f"--{name}", type=Path, required=True)
    checking.add_argument("--adapter", type=Path, nargs="*", default=[])
    checking.add_argument("--context", type=int, default=65_536)
    checking.add_argument("--seeds", type=int, nargs="*", default=[0])
    checking.add_argument("--windows", type=int, default=48)
    checking.add_argument("--parts", nargs="*", default=["nats", "prompts", "needles"])
    checking.set_defaults(run=check)
    options = parser.parse_args()
    run = options.run
    del options.run
    run(options)


if __name__ == "__main__":
    main()
