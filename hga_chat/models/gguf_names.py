"""What the names of GGUF files say: the quantisation, and which parts make one model."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hga_chat.models.files import ModelMissingError

PREFERRED = "Q4_K_M"
"""The quantisation that is taken of a repository if none is named."""
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})$")
_QUANT = re.compile(
    r"(?:^|[-_.])((?:UD-)?(?:I?Q\d\w*|TQ\d\w*|BF16|F16|F32|FP16|FP32|MXFP4\w*))$", re.IGNORECASE
)
_NOT_MODELS = ("mmproj", "imatrix")
"""Beginnings of names of files that accompany a model."""


@dataclass(frozen=True)
class GgufSet:
    """The files of one model: a single GGUF file, or the parts of a split one."""

    stem: str
    """The common name, without folder, part and suffix."""
    quant: str
    """Such as ``Q4_K_M``, in capitals; the stem if its name does not end in one."""
    names: tuple[str, ...]
    """The parts that exist, in order; paths with ``/``."""
    parts: int
    """The parts that there should be."""

    @property
    def is_complete(self) -> bool:
        """Whether every part exists."""
        return len(self.names) == self.parts

    def is_meant_by(self, wanted: str) -> bool:
        """Whether a person names this set: by its quantisation, its stem or one of its files."""
        text = wanted.lower()
        named = {self.quant, self.stem, *self.names, *(name.split("/")[-1] for name in self.names)}
        return text in {name.lower() for name in named}


def gguf_sets(names: Iterable[str]) -> list[GgufSet]:
    """Group the GGUF files among ``names`` into models, sorted by name."""
    found: dict[tuple[str, int], dict[int, str]] = {}
    for name in sorted(names):
        path, dot, suffix = name.rpartition(".")
        base = path.rpartition("/")[2]
        if not dot or suffix.lower() != "gguf" or base.lower().startswith(_NOT_MODELS):
            continue
        split = _SPLIT.search(path)
        part, parts = (int(split[1]), int(split[2])) if split else (1, 1)
        if 1 <= part <= parts:
            whole = path[: split.start()] if split else path
            found.setdefault((whole, parts), {})[part] = name
    sets = []
    for (whole, parts), by_part in found.items():
        stem = whole.rpartition("/")[2]
        quant = _QUANT.search(stem)
        names_in_order = tuple(by_part[part] for part in sorted(by_part))
        sets.append(GgufSet(stem, quant[1].upper() if quant else stem, names_in_order, parts))
    return sets


def choose(sets: Sequence[GgufSet], wanted: str | None, where: str) -> GgufSet:
    """Choose the model that a person means.

    Args:
        sets: The models to choose from; not empty.
        wanted: Quantisation, stem or file name in any case; None for the only one, or
            ``PREFERRED``.
        where: What holds them, for errors.

    Raises:
        ModelMissingError: None is meant, or more than one.
    """
    if wanted is None:
        meant = list(sets) if len(sets) == 1 else [s for s in sets if s.quant == PREFERRED]
        problem = f"{where} holds several models; name one"
    else:
        meant = [found for found in sets if found.is_meant_by(wanted)]
        problem = f"{where} has no {wanted}"
    if len(meant) == 1:
        return meant[0]
    if meant:
        problem = f"{where} has more than one {wanted or PREFERRED}; name the file"
        raise ModelMissingError(f"{problem}: {', '.join(found.names[0] for found in meant)}.")
    raise ModelMissingError(f"{problem}: {', '.join(found.quant for found in sets)}.")
