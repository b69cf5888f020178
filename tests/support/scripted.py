"""An engine without a model, for tests of the chat: its answers and traces are scripted."""

import json
import re
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import torch

from hga_chat.engine_access import EngineAccess
from hga_engine.attention.routed import Rule
from hga_engine.attention.trace import AttentionTotals
from hga_engine.config import (
    CacheConfig,
    EngineConfig,
    ModelConfig,
    SamplingParams,
    SessionConfig,
    resolve,
)
from hga_engine.errors import ContextFullError, SavedStateError
from hga_engine.events import (
    Event,
    Finished,
    FinishReason,
    PrefillProgress,
    TextDelta,
    Trace,
)
from hga_engine.memory.figures import MemoryFigures
from hga_engine.model.rope import for_context

GROUP = 16
WORD = re.compile(r"\s?\w+|\s|[^\w\s]")
MODEL = ModelConfig(
    architecture="llama",
    num_layers=2,
    hidden_size=8,
    num_query_heads=2,
    num_kv_heads=1,
    head_dim=4,
    intermediate_size=16,
    vocab_size=100_000,
    max_positions=65_536,
    rope_base=10_000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=True,
)


class ScriptedTokenizer:
    """One token per word, with the space before it, or sign; ids in order of appearance."""

    vocab_size = 100_000
    end_tokens = frozenset({2})

    def __init__(self) -> None:
        self._words = ["<user>", "<assistant>", "<end>"]
        self._ids = {word: number for number, word in enumerate(self._words)}

    def encode(self, text: str) -> list[int]:
        return self.encode_with_offsets(text)[0]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids, offsets = [], []
        for match in WORD.finditer(text):
            word = match.group()
            if word not in self._ids:
                self._ids[word] = len(self._words)
                self._words.append(word)
            ids.append(self._ids[word])
            offsets.append(match.span())
        return ids, offsets

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(WORD.findall(text)) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._words[number] for number in ids if number > 2)

    def opening(self, system: str | None) -> list[int]:
        return [*(self.encode(system) if system else []), 0]

    can_think = False

    def to_answer(self, *, thinking: bool = False) -> list[int]:
        return [2, 1, *self.encode("Think.")] if thinking else [2, 1]

    def opens_thought(self, *, thinking: bool = False) -> bool:
        return False

    def to_next_question(self) -> list[int]:
        return [2, 0]


@dataclass(frozen=True)
class ScriptedAnswer:
    """The engine's answer to one question, with the attention to report for it."""

    text: str
    reads: Mapping[int, float] = field(default_factory=dict)
    """Attention mass per group of the session, the same for every token of the answer."""
    reads_of_tokens: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    """Additional mass per group for single tokens of the answer, by number."""
    depends: bool = True
    """Whether it is less likely without the groups it attends to."""
    always: Sequence[int] = ()
    """Groups in the window, which every token attends to."""
    reason: FinishReason = "stop"
    hold_after: int | None = None
    """Tokens after which the answer waits for ``ScriptedEngine.release`` or the cancel event."""
    error: Exception | None = None
    """Raised after the prompt has been added, before the first token."""


class ScriptedEngine:
    """An ``EngineProtocol`` that gives its answers in the order given.

    Attributes:
        session: the token ids of the session.
        prompts: the tokens of each question.
        left_out: the groups that are left out now.
        left_out_of: the groups that were left out of each question.
        reads: the number of tokens of each prefill.
        save_error: raised by ``save``.
    """

    device_type = "cpu"

    def __init__(
        self,
        answers: Sequence[ScriptedAnswer | str] = (),
        *,
        context: int = 65_536,
        tokenizer: ScriptedTokenizer | None = None,
        hold_prefill_after: int | None = None,
        prefill_steps: int = 4,
    ) -> None:
        self.tokenizer = tokenizer or ScriptedTokenizer()
        self.config = SessionConfig(cache=CacheConfig(context=context))
        self.model_config = MODEL
        self.model_name = "scripted"
        self.fingerprint = "0" * 64
        self.session: list[int] = []
        self.prompts: list[list[int]] = []
        self.truncations: list[int] = []
        self.left_out: list[int] = []
        self.left_out_of: list[list[int]] = []
        self.release = threading.Event()
        self.reads: list[int] = []
        self.save_error: Exception | None = None
        self.closed = False
        self._answers = [ScriptedAnswer(a) if isinstance(a, str) else a for a in answers]
        self._reads: Mapping[int, float] = {}
        self._attended: set[int] = set()
        self._hold_prefill_after = hold_prefill_after
        self._prefill_steps = prefill_steps

    def open(self, config: EngineConfig) -> "ScriptedEngine":
        """Open a session with this configuration, with the state saved in its folder."""
        self.config = resolve(config, self.device_type)
        self.model_config = for_context(self.model_config, config.cache.context)
        self.closed = False
        self.session = []
        state = self._state
        if state is not None and state.exists():
            try:
                saved = json.loads(state.read_text())
            except ValueError:
                raise SavedStateError(f"{state}: is damaged.") from None
            if saved["routing"] != asdict(self.config.routing):
                raise SavedStateError(
                    "The saved K/V was made on another device or by another version."
                )
            self.session = saved["tokens"]
        return self

    @property
    def _state(self) -> Path | None:
        folder = self.config.cache.saved_dir
        return folder and folder / "state.json"

    def save(self) -> None:
        if self.save_error is not None:
            raise self.save_error
        assert self._state is not None
        self._state.parent.mkdir(exist_ok=True)
        state = {"tokens": self.session, "routing": asdict(self.config.routing)}
        self._state.write_text(json.dumps(state))

    @property
    def token_ids(self) -> list[int]:
        return list(self.session)

    @property
    def num_tokens(self) -> int:
        return len(self.session)

    def prefill(
        self, token_ids: Sequence[int], cancel: threading.Event | None = None
    ) -> Generator[PrefillProgress, None, None]:
        if not token_ids:
            return
        self._check_room(len(token_ids))
        self.reads.append(len(token_ids))
        for step in range(1, self._prefill_steps + 1):
            if self._is_cancelled(cancel, hold=step - 1 == self._hold_prefill_after):
                return
            yield PrefillProgress(step, self._prefill_steps, len(token_ids), 0.25 * step)
        if not self._is_cancelled(cancel):
            self.session.extend(token_ids)

    def answer(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingParams,
        cancel: threading.Event | None = None,
    ) -> Iterator[Event]:
        self._check_room(len(prompt_ids) + 1)
        self.prompts.append(list(prompt_ids))
        self.left_out_of.append(self.left_out)
        yield PrefillProgress(1, 2, len(prompt_ids), 0.01)
        if self._is_cancelled(cancel):
            yield self._finished("cancelled", len(prompt_ids), 0)
            return
        yield PrefillProgress(2, 2, len(prompt_ids), 0.02)
        self.session.extend(prompt_ids)
        script = self._answers.pop(0)
        self._reads = script.reads
        reads = (script.reads, *script.reads_of_tokens.values()) if script.depends else ()
        self._attended = {group for one in reads for group in one}
        if script.error is not None:
            raise script.error
        said = 0
        reason = script.reason
        for token in self.tokenizer.encode(script.text):
            if self._is_cancelled(cancel, hold=said == script.hold_after):
                reason = "cancelled"
                break
            if said == sampling.max_new_tokens:
                reason = "length"
                break
            mass = torch.zeros(len(self.session) // GROUP + 1)
            for group, share in script.reads.items():
                mass[group] = share
            for group, share in script.reads_of_tokens.get(said, {}).items():
                mass[group] += share
            always = torch.zeros_like(mass)
            always[list(script.always)] = 1.0
            self.session.append(token)
            said += 1
            trace = Trace(len(self.session) - 1, mass, 1_000.0, always if script.always else None)
            yield TextDelta(self.tokenizer.decode([token]), token, trace)
        yield self._finished(reason, len(prompt_ids), said)

    def check(self) -> None:
        """Do nothing: ``open`` has loaded and checked the saved state."""

    def logits(
        self,
        token_ids: Sequence[int],
        rule: Rule = "decode",
        totals: AttentionTotals | None = None,
        hidden_groups: Sequence[int] = (),
    ) -> Iterator[torch.Tensor]:
        """Append known text in one slice.

        Every token is equally likely, or hardly at all while groups are hidden that the last answer
        attends to.
        """
        self._check_room(len(token_ids))
        self.session.extend(token_ids)
        logits = torch.zeros(len(token_ids), self.tokenizer.vocab_size)
        size = self.config.routing.group_size
        if not self._attended.isdisjoint(group * size // GROUP for group in hidden_groups):
            logits[:, 0] = 20.0
        yield logits

    def leave_out(self, groups: Sequence[int]) -> None:
        self.left_out = list(groups)

    def page_hit_rate(self) -> float:
        return 1.0

    def set_budget(self, tokens: int) -> None:
        routing = self.config.routing
        routing = replace(routing, decode_budget=tokens // routing.group_size)
        self.config = replace(self.config, routing=routing)

    def truncate(self, tokens: int) -> None:
        self.truncations.append(tokens)
        del self.session[tokens:]

    def memory(self) -> MemoryFigures:
        return MemoryFigures(
            weights_bytes=100_000_000,
            index_bytes=1_000 * len(self.session),
            kv_device_bytes=0,
            kv_host_bytes=10_000 * len(self.session),
            kv_disk_bytes=0,
            device_peak_bytes=0,
            host_peak_bytes=900_000_000,
            host_resident_bytes=800_000_000,
            host_total_bytes=8_000_000_000,
            kv_host_capacity_bytes=655_360_000,
            kv_disk_capacity_bytes=0,
        )

    def layer_mass(self) -> torch.Tensor:
        """Return mass in which each layer attends to one of the answer's groups, in order."""
        mass = torch.zeros(MODEL.num_layers, self.config.cache.context // GROUP)
        for layer, (group, share) in enumerate(list(self._reads.items())[: MODEL.num_layers]):
            mass[layer, group] = share
        return mass

    def close(self) -> None:
        self.closed = True

    def _check_room(self, tokens: int) -> None:
        context = self.config.cache.context
        if len(self.session) + tokens > context:
            raise ContextFullError(tokens, len(self.session), context)

    def _is_cancelled(self, cancel: threading.Event | None, *, hold: bool = False) -> bool:
        while hold and not self.release.wait(0.005):
            if cancel is not None and cancel.is_set():
                break
        return cancel is not None and cancel.is_set()

    @staticmethod
    def _finished(reason: FinishReason, prompt_tokens: int, said: int) -> Finished:
        return Finished(
            reason=reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=said,
            prefill_s=0.02,
            ttft_s=0.05,
            decode_tokens_per_s=40.0,
            sparsity=0.03,
        )


class ScriptedAccess(EngineAccess):
    """Opens one scripted engine in place of every model."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.files = SimpleNamespace(name="scripted", directory=None, cache_dir=None)

    def find_model(self, name):
        return self.files

    def native_context(self, files):
        return None

    def model_config(self, files):
        return self.engine.model_config

    def parameters(self, files):
        return None

    def load_tokenizer(self, files):
        return self.engine.tokenizer

    def load_model(self, files, config, device, progress):
        progress("Loading", 1.0)
        return SimpleNamespace(
            weights=SimpleNamespace(notes=()),
            tokenizer=self.engine.tokenizer,
            name=self.engine.model_name,
            fingerprint=self.engine.fingerprint,
            device_type=self.engine.device_type,
        )

    def open_engine(self, model, config):
        return self.engine.open(config)

    def read_saved(self, folder):
        path = folder / "state.json"
        if not path.exists():
            return None
        try:
            state = json.loads(path.read_text())
        except ValueError:
            raise SavedStateError(f"{path}: is damaged.") from None
        return SimpleNamespace(tokens=len(state["tokens"]))

    def copy_saved(self, source, target, tokens, context=None):
        state = json.loads((source / "state.json").read_text())
        target.mkdir()
        shorter = {**state, "tokens": state["tokens"][:tokens]}
        (target / "state.json").write_text(json.dumps(shorter))
