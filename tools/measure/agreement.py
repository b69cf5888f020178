"""Compare the engine's logits with those of transformers, for the same GGUF file.

transformers dequantises the file to float32, for which it needs the package ``accelerate``; the
engine holds it packed. Both attend to everything.

    python -m tools.measure.agreement model.gguf --text code=engine.py --text prose=book.txt
"""

import argparse
import json
from pathlib import Path

import torch

from hga_engine.config import CacheConfig, EngineConfig
from hga_engine.model.files import ModelFiles
from hga_engine.opening import open_engine, prepare_model

_AT_A_TIME = 256
"""Rows of logits compared at a time."""


def transformers_logits(path: Path, tokens: list[int], device: torch.device) -> torch.Tensor:
    """Return logits [tokens, vocab] in float32 of the file as transformers loads it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).to(device)
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens], device=device)).logits[0].cpu()
    return logits


def compare(ours: torch.Tensor, theirs: torch.Tensor, tokens: list[int]) -> dict[str, float]:
    """Return how often the largest logits agree, and divergence and loss in nats.

    Args:
        ours: [tokens, vocab].
        theirs: [tokens, vocab].
        tokens: the text.
    """
    same, divergence, losses = 0, 0.0, [0.0, 0.0]
    for first in range(0, len(tokens) - 1, _AT_A_TIME):
        rows = slice(first, min(first + _AT_A_TIME, len(tokens) - 1))
        own, other = ours[rows].log_softmax(-1), theirs[rows].log_softmax(-1)
        same += int((own.argmax(-1) == other.argmax(-1)).sum())
        divergence += float((other.exp() * (other - own)).sum())
        following = torch.tensor(tokens[rows.start + 1 : rows.stop + 1])[:, None]
        for number, table in enumerate((own, other)):
            losses[number] -= float(table.gather(1, following).sum())
    count = len(tokens) - 1
    return {
        "tokens": count,
        "same_choice": same / count,
        "divergence_nats": divergence / count,
        "nats": losses[0] / count,
        "transformers_nats": losses[1] / count,
    }


def main() -> None:
    """Print one JSON object with a row for each text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("--text", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    path = options.model.resolve()
    texts = dict(text.split("=", 1) for text in options.text)
    model = prepare_model(ModelFiles(path.stem, None, path), device=options.device)
    config = EngineConfig("dense", cache=CacheConfig(options.tokens + 64))
    tokens, ours = {}, {}
    for name, file in texts.items():
        ids = model.tokenizer.encode(Path(file).read_text("utf-8"))[: options.tokens]
        engine = open_engine(model, config)
        tokens[name] = ids
        ours[name] = torch.cat([logits.float().cpu() for logits in engine.logits(ids)])
        engine.close()
    device = model.weights.device
    del model
    found = {
        name: compare(ours[name], transformers_logits(path, ids, device), ids)
        for name, ids in tokens.items()
    }
    print(json.dumps({"model": path.name, "device": device.type, "texts": found}, indent=2))


if __name__ == "__main__":
    main()
