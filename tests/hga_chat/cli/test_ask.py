"""``ask`` with a scripted engine: streams, JSON, interrupts."""

import io
import json
import signal
from dataclasses import replace

import pytest

from hga_chat import engine_access
from hga_chat.conversation.verify import Effect, Verification
from hga_engine.errors import GpuMemoryError
from tests.support.scripted import ScriptedAnswer

NOTHING_KEPT = "Quit before reading finished; nothing was saved."
KEYS = {
    "answer",
    "finish_reason",
    "model",
    "documents",
    "skipped",
    "sources",
    "usage",
    "timing",
    "memory",
    "routing",
}


@pytest.fixture
def notes(tmp_path):
    """300 lines of five tokens, after a header of three."""
    path = tmp_path / "notes.txt"
    path.write_text("".join(f"line{n} holds some words\n" for n in range(1, 301)))
    return path


@pytest.fixture
def long_notes(tmp_path):
    """3,000 tokens or so: more than one part of a prefill."""
    path = tmp_path / "notes.txt"
    path.write_text("".join(f"line{n} holds some words\n" for n in range(700)))
    return path


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    (root / "a.py").write_text("value = 1\n")
    (root / "b.py").write_text("value = 2\n")
    (root / "image.bin").write_bytes(b"\x00\x01\x02" * 50)
    return root


def test_what_the_model_is_good_for_is_said_once(cli, use_engine, notes, monkeypatch):
    use_engine("Blue.", "Green.", "Red.")
    monkeypatch.setattr(engine_access.access, "parameters", lambda files: 600_000_000)
    monkeypatch.setattr("hga_chat.cli.outlook.recommend", lambda settings: None)
    said = "qwen2.5-coder-0.5b: questions about prose, little memory.\n"
    for options in ([], ["--json"]):
        ran = cli("ask", notes, "Which?", "--model", "qwen2.5-coder-0.5b", *options)
        assert (ran.code, ran.err.count(said)) == (0, 1)
    assert "questions" not in cli("ask", notes, "Which?", "--quiet").err


def test_answer_goes_to_stdout_and_sources_to_stderr(cli, use_engine, notes):
    engine = use_engine(ScriptedAnswer("It is blue.", reads={20: 0.5}))
    ran = cli("ask", notes, "Which colour?")
    assert (ran.code, ran.out) == (0, "It is blue.\n")
    assert f"100%  {notes}:" in ran.err
    assert "Sources (share" in ran.err
    assert "\x1b" not in ran.out + ran.err
    assert "\r" not in ran.out + ran.err
    assert engine.closed


def test_an_excerpt_has_the_sentence_that_the_answer_is_from(cli, use_engine, tmp_path):
    path = tmp_path / "sea.txt"
    first = "The sea was calm and the wind was low and nobody on deck had much to do that day. "
    path.write_text(first + "The captain's call sign was Albatross.\n" + "More was said. " * 200)
    use_engine(ScriptedAnswer("The call sign was Albatross.", reads={1: 0.5}))
    ran = cli("ask", path, "What was the call sign?")
    assert "The captain's call sign was Albatross." in ran.err


def test_a_context_beyond_the_native_one_is_said(cli, use_engine, notes):
    engine = use_engine("Blue.", "Blue.")
    engine.model_config = replace(engine.model_config, max_positions=32_768)
    said = "This model's native context is 32,768 tokens; YaRN x2 extends it to 65,536.\n"
    assert said in cli("ask", "--context", 65_536, notes, "Which colour?").err
    engine.model_config = replace(engine.model_config, rope_scaling=None)
    assert "native context" not in cli("ask", "--context", 32_768, notes, "Which colour?").err


def test_quiet_leaves_only_the_answer(cli, use_engine, notes):
    use_engine(ScriptedAnswer("Blue.", reads={20: 0.5}))
    ran = cli("ask", "--quiet", notes, "Which colour?")
    assert (ran.code, ran.out, ran.err) == (0, "Blue.\n", "")


def test_several_paths_come_before_the_question(cli, use_engine, notes, repository):
    engine = use_engine("Yes.")
    ran = cli("ask", notes, repository / "a.py", "Both?", "--json")
    documents = json.loads(ran.out)["documents"]
    assert [document["path"] for document in documents] == [str(notes), str(repository / "a.py")]
    assert engine.tokenizer.decode(engine.prompts[0]) == "\n\nBoth?"


def test_dash_reads_standard_input(cli, use_engine, monkeypatch):
    engine = use_engine("Yes.")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"The sea is blue.\n")))
    ran = cli("ask", "-", "Is it?")
    assert (ran.code, ran.out) == (0, "Yes.\n")
    assert "The sea is blue." in engine.tokenizer.decode(engine.session)
    assert "Ctrl+D" not in ran.err


def test_dash_on_a_terminal_says_how_to_end(cli, use_engine, monkeypatch):
    use_engine("Yes.")
    typed = io.TextIOWrapper(io.BytesIO(b"The sea is blue.\n"))
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    ran = cli("ask", "-", "Is it?")
    assert ran.out == "Yes.\n"
    assert "Ctrl+D on a new line ends it." in ran.err


def test_thinking_is_kept_apart_from_the_answer(cli, use_engine, notes):
    text = "<think>Is it?</think>\nIt is."
    engine = use_engine(text, text)
    engine.tokenizer.can_think = True
    ran = cli("ask", notes, "Is it?", "--think")
    assert ran.out == "It is.\n"
    report = json.loads(cli("ask", notes, "Is it?", "--think", "--json").out)
    assert (report["answer"], report["thought"]) == ("It is.", "Is it?")
    assert set(report) == KEYS | {"thought"}


def test_a_model_that_cannot_think_says_so(cli, use_engine, notes):
    use_engine("It is.")
    ran = cli("ask", notes, "Is it?", "--think")
    assert ran.out == "It is.\n"
    assert "cannot be asked to think" in ran.err


def test_json_is_exactly_the_documented_object(cli, use_engine, repository):
    engine = use_engine("It is 1.")
    ran = cli("ask", repository, "Which value?", "--json", "--budget", "512")
    report = json.loads(ran.out)
    assert set(report) == KEYS
    assert report["answer"] == "It is 1."
    assert report["finish_reason"] == "stop"
    assert report["model"] == {"name": "scripted", "fingerprint": "0" * 64}
    assert [document["path"] for document in report["documents"]] == ["a.py", "b.py"]
    assert all(document["sections"] == 1 for document in report["documents"])
    assert report["skipped"] == [{"path": "image.bin", "reason": "binary"}]
    tokens = sum(document["tokens"] for document in report["documents"])
    prompt, answer = len(engine.prompts[0]), len(engine.tokenizer.encode("It is 1."))
    assert report["usage"] == {
        "document_tokens": tokens,
        "prompt_tokens": prompt,
        "completion_tokens": answer,
    }
    assert engine.reads == [1 + tokens]
    assert set(report["timing"]) == {"load_s", "prefill_s", "ttft_s", "decode_tokens_per_s"}
    assert report["timing"]["decode_tokens_per_s"] == 40
    assert set(report["memory"]) == {
        "weights_bytes",
        "index_bytes",
        "kv_device_bytes",
        "kv_host_bytes",
        "kv_disk_bytes",
        "device_peak_bytes",
        "host_peak_bytes",
    }
    assert report["routing"] == {"router": "hga", "budget_tokens": 512, "sparsity": 0.03}


def test_json_sources_name_lines_and_text(cli, use_engine, notes):
    use_engine(ScriptedAnswer("Blue.", reads={20: 0.5, 40: 0.25}))
    first, second = json.loads(cli("ask", notes, "Which?", "--json").out)["sources"]
    assert set(first) == {"path", "label", "start_line", "end_line", "page", "score", "text"}
    assert (first["score"], second["score"]) == (pytest.approx(2 / 3, abs=1e-3), 0.3333)
    lines = notes.read_text().splitlines()
    assert first["text"].splitlines() == lines[first["start_line"] - 1 : first["end_line"]]
    assert first["page"] is None


def test_settings_reach_the_engine(cli, use_engine, notes):
    engine = use_engine("one two three four")
    flags = "--json --router paper --budget 64 --context 4096 --host-budget 64M --max-new-tokens 2"
    ran = cli("ask", notes, "q", *flags.split())
    assert json.loads(ran.out)["finish_reason"] == "length"
    assert engine.config.routing.kind == "paper"
    assert engine.config.routing.decode_budget == 32
    assert engine.config.cache.context == 4096
    assert engine.config.cache.host_budget_bytes == 64 * 2**20


def test_an_answer_cut_by_the_limit_says_so(cli, use_engine, notes):
    use_engine("one two three four")
    ran = cli("ask", notes, "q", "--max-new-tokens", "2")
    assert (ran.code, ran.out) == (0, "one two\n")
    assert "--max-new-tokens" in ran.err


def interrupt_at(engine, kind):
    """Send Ctrl-C when the engine first reports an event of this kind."""
    answer = engine.answer

    def interrupted(*arguments):
        for event in answer(*arguments):
            if type(event).__name__ == kind:
                signal.raise_signal(signal.SIGINT)
            yield event

    engine.answer = interrupted


def test_an_interrupt_keeps_the_partial_answer(cli, use_engine, notes):
    engine = use_engine("one two three")
    handler = signal.getsignal(signal.SIGINT)
    interrupt_at(engine, "TextDelta")
    ran = cli("ask", notes, "q")
    assert (ran.code, ran.out) == (130, "one\n")
    assert "Interrupted." in ran.err
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_interrupt_before_the_answer(cli, use_engine, notes):
    engine = use_engine("one two three")
    interrupt_at(engine, "PrefillProgress")
    ran = cli("ask", notes, "q", "--json")
    assert ran.code == 130
    report = json.loads(ran.out)
    assert (report["answer"], report["finish_reason"]) == ("", "cancelled")


def test_an_interrupted_prefill_is_not_reported_as_done(cli, use_engine, notes):
    engine = use_engine("one")
    prefill = engine.prefill

    def interrupted(token_ids, cancel):
        if not cancel.is_set():
            signal.raise_signal(signal.SIGINT)
        return prefill(token_ids, cancel)

    engine.prefill = interrupted
    ran = cli("ask", notes, "q")
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.splitlines()[-1] == NOTHING_KEPT
    ran = cli("ingest", "--no-chat", notes)
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.splitlines()[-1] == NOTHING_KEPT


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("options", [("ask", "q"), ("ingest", "--no-chat")])
def test_what_is_prefilled_by_an_interrupt_is_kept(cli, use_engine, long_notes, name, options):
    command, option = options
    engine = use_engine("one")
    prefill = engine.prefill

    def interrupted(token_ids, cancel):
        if engine.num_tokens and not cancel.is_set():
            signal.raise_signal(getattr(signal, name))
        return prefill(token_ids, cancel)

    engine.prefill = interrupted
    stopped = cli(command, long_notes, option)
    assert (stopped.code, stopped.out) == (130, "")
    engine.prefill = prefill
    engine.reads.clear()
    ran = cli(command, long_notes, option)
    assert ran.code == 0
    (pending,) = engine.reads
    progress = f"2,048 of {2048 + pending:,} tokens"
    assert f"Stopped after {progress}" in stopped.err
    assert f"{progress} are already read; reading resumes in {long_notes}" in ran.err


def test_what_is_kept_is_said_once(cli, use_engine, notes):
    use_engine("one", "two", "three")
    first, second = cli("ask", notes, "q"), cli("ask", notes, "q")
    (session,) = json.loads(cli("sessions", "list", "--json").out)["sessions"]
    kept = f"on disk, session {session['session']}. --no-save keeps nothing."
    assert kept in first.err
    assert "--no-save" not in second.err
    assert "--no-save" not in cli("ask", notes, "q", "--no-save").err


def test_a_closed_pipe_costs_the_answer_but_not_the_prefill(cli, use_engine, notes, monkeypatch):
    engine = use_engine("one two three", "one two three")

    def closed(*_):
        raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr("hga_chat.output.Output.write", closed)
        patch.setattr("hga_chat.cli.app._closed_pipe", lambda: 1)
        assert cli("ask", notes, "q").code == 1
    again = cli("ask", notes, "q")
    assert (again.code, again.out) == (0, "one two three\n")
    assert "nothing needs reading again" in again.err
    assert len(engine.reads) == 1


def test_what_does_not_fit_in_memory_is_exit_code_5(cli, use_engine, notes, monkeypatch):
    use_engine()

    def refuse(*_):
        raise GpuMemoryError({"weights": 2 << 30}, 2 << 30, 1 << 30, 4096)

    monkeypatch.setattr(engine_access.access, "open_engine", refuse)
    ran = cli("ask", notes, "q")
    assert (ran.code, ran.out) == (5, "")
    assert ran.err == (
        "hga-chat: Not enough GPU memory: 2.00 GiB needed (weights 2.00 GiB), "
        "1.00 GiB may be used.\n"
        "Use a smaller --context (now 4,096), close other programs that use the GPU, "
        "or use --device cpu.\n"
    )


def test_the_default_model_is_downloaded_on_the_first_ask(cli, use_engine, notes, monkeypatch):
    import hga_chat.models

    use_engine("Yes.", "Yes.")
    fetched = []

    def missing(name):
        raise hga_chat.models.ModelMissingError(f"{name} is not here")

    def pull(name, note, progress, confirm):
        fetched.append(name)
        return files

    access = engine_access.access
    files = access.find_model("smollm2-64k")
    monkeypatch.setattr(access, "find_model", missing)
    monkeypatch.setattr(hga_chat.models, "pull_model", pull)
    for free, name in ((5, "qwen2.5-coder-1.5b"), (3, "qwen2.5-coder-0.5b")):
        monkeypatch.setattr(
            "hga_engine.memory.probes.available_memory_bytes", lambda free=free: free << 30
        )
        ran = cli("ask", notes, "q")
        assert (ran.code, ran.out) == (0, "Yes.\n")
        assert fetched.pop() == name
        assert f"{name} is not downloaded yet" in ran.err
    other = cli("ask", notes, "q", "--model", "qwen3-30b-a3b")
    assert other.code == 1
    assert "needs an NVIDIA GPU with 32 GB" in other.err
    assert not fetched


def test_the_toy_is_called_a_toy(cli, use_engine, notes, monkeypatch):
    use_engine("Yes.", "Yes.")
    monkeypatch.setattr(engine_access.access, "parameters", lambda files: 135_000_000)
    assert "a toy for tests" in cli("ask", notes, "q", "--model", "smollm2-64k").err
    assert "a toy" not in cli("ask", notes, "q").err


def test_the_context_is_that_of_the_model_unless_more_is_asked_for(
    cli, use_engine, notes, monkeypatch
):
    engine = use_engine("Yes.", "Yes.", "Yes.")
    for native, flags, expected in (
        (32_768, [], 32_768),
        (262_144, [], 65_536),
        (32_768, ["--context", "65536"], 65_536),
    ):
        monkeypatch.setattr(engine_access.access, "native_context", lambda files, n=native: n)
        assert cli("ask", notes, "q", *flags).code == 0
        assert engine.config.cache.context == expected


def test_verification_is_printed_with_the_answer(cli, use_engine, notes, monkeypatch):
    def stand_in(conversation, turn, cancel):
        (source,) = conversation.turns[turn].sources
        return Verification(-1.5, (Effect(source, 7.25, -0.125),), 0.5)

    monkeypatch.setattr("hga_chat.conversation.verify.verify", stand_in)
    read = ScriptedAnswer("It is blue.", reads={20: 0.5})
    use_engine(read, read, ScriptedAnswer("No."))
    ran = cli("ask", "--verify", "--json", notes, "Which colour?")
    assert json.loads(ran.out)["verification"] == {
        "log_probability": -1.5,
        "drops": [7.25],
        "random_drops": [-0.125],
        "seconds": 0.5,
    }
    ran = cli("ask", "--verify", notes, "Which colour?")
    assert "without this source: 7.2;" in ran.err
    assert "without a random passage as long: -0.1" in ran.err
    ran = cli("ask", "--verify", "--json", notes, "Is there more?")
    assert json.loads(ran.out).keys() == KEYS  # nothing stands out, nothing to verify
