"""``bench``: arguments and printed results, with stubs in place of the measurements."""

import json
import re

import pytest

SPEED = {
    "device": "a processor",
    "model": "scripted",
    "context": {
        4096: {
            "prefill_tokens_per_s": 1234.5,
            "ttft_s": 3.25,
            "decode_tokens_per_s": 41.26,
            "follow_up_ttft_s": 0.125,
            "device_peak_bytes": 0,
            "host_peak_bytes": 2**30,
            "page_hit_rate": 1.0,
        }
    },
}
MEMORY = {
    "device": "a processor",
    "model": "scripted",
    "context": {
        2048: {
            "host_predicted_bytes": 3 * 2**30,
            "host_bytes": 2**31,
            "device_predicted_bytes": 0,
            "device_bytes": 0,
            "weights_bytes": 2**30,
            "index_bytes": 2**20,
            "kv_device_bytes": 0,
            "kv_host_bytes": 2**29,
            "kv_disk_bytes": 0,
        }
    },
}
FIGURES = {
    "gap_nats": 0.00512,
    "gap_interval": [0.004, 0.006],
    "gap_last_half_nats": -0.001,
    "greedy_agreement": 0.987,
    "sparsity": 0.0291,
    "sparsity_last_half": 0.0202,
    "recall": {"attended": 0.952},
    "copies_gap_nats": 0.25,
    "needles": 3,
    "tasks": {"many keys": {"score": 0.75, "answer_known": 0.5}},
}
RUN = {"router": "hga", "rule": "decode", "budget_tokens": 1024, **FIGURES}
QUALITY = {
    "context": 2048,
    "dense_nats": 1.2311,
    "rules": {"decode": FIGURES, "prefill": FIGURES},
    "needles_dense": 5,
    "needles_total": 10,
    "model": "scripted",
    "router": "hga",
    "budget_tokens": 1024,
    "texts": 1,
    "seeds": [7],
    "tasks_dense": {"many keys": {"score": 1.0, "answer_known": 1.0}},
    "runs": [RUN, RUN | {"rule": "prefill", "recall": None}],
}


@pytest.fixture
def passed(monkeypatch, use_engine):
    """Replaces the measuring functions; returns the arguments of their calls."""
    import hga_chat.bench

    calls = []

    def stand_in(result):
        def run(*arguments):
            calls.append(arguments[1:])
            return result

        return run

    use_engine()
    monkeypatch.setattr(hga_chat.bench, "run_speed", stand_in(SPEED))
    monkeypatch.setattr(hga_chat.bench, "run_memory", stand_in(MEMORY))
    monkeypatch.setattr(hga_chat.bench, "run_quality", stand_in(QUALITY))
    return calls


def test_speed(cli, passed):
    flags = ("--budget", "64", "--host-budget", "1G", "--device-limit", "31G")
    ran = cli("bench", "speed", "--context", "4096,8192", *flags)
    tokens, contexts, config, _ = passed[0]
    assert len(tokens) > 8192
    assert (contexts, config.budget_tokens) == ([4096, 8192], 64)
    assert (config.cache.host_budget_bytes, config.cache.device_limit_bytes) == (2**30, 31 * 2**30)
    assert ran.out.splitlines()[0] == "scripted on a processor"
    row = "4,096 1,234 3.25 41.3 0.12 0 B 1.0 GiB"
    assert ran.out.splitlines()[2].split() == row.split()


def test_memory(cli, passed):
    ran = cli("bench", "memory", "--context", "2048", "--device-limit", "31G")
    contexts, config, _ = passed[0]
    assert (contexts, config.cache.device_limit_bytes) == ([2048], 31 * 2**30)
    assert ran.out.splitlines()[2].split()[:5] == ["2,048", "3.0", "GiB", "2.0", "GiB"]
    assert (
        json.loads(cli("bench", "memory", "--json").out)["context"]["2048"]
        == (MEMORY["context"][2048])
    )


def test_speed_as_json(cli, passed):
    report = json.loads(cli("bench", "speed", "--json").out)
    assert report == SPEED | {"context": {"4096": SPEED["context"][4096]}}


def test_quality(cli, passed, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Some text.")
    flags = ("--context", "2048", "--needles", "4", "--seed", "7")
    ran = cli("bench", "quality", "--text", text, *flags)
    contents, plan, config, _ = passed[0]
    assert (contents, plan.context, plan.needles, plan.seeds) == (["Some text."], 2048, 4, (7,))
    assert (plan.routers, plan.budgets, plan.tasks) == (("hga",), (4096,), 0)
    assert config.budget_tokens == 4096
    lines = ran.out.splitlines()
    assert lines[0] == "scripted, 2,048 tokens, 1 texts, 1 seeds, dense 1.2311 nats"
    assert re.split(r"  +", lines[2]) == [
        "hga, 1,024 tokens, decode rule",
        "+0.0051",
        "+0.0040 to +0.0060",
        "-0.0010",
        "98.7%",
        "2.91%",
        "2.02%",
        "95.2%",
        "+0.2500",
        "3 of 10",
        "75% (50%)",
    ]
    assert lines[4].startswith("dense")
    assert json.loads(cli("bench", "quality", "--text", text, "--json").out) == QUALITY


def test_quality_of_several_texts_seeds_routers_and_budgets(cli, passed, tmp_path):
    texts = []
    for name in ("a.txt", "b.md"):
        (tmp_path / name).write_text(f"Text of {name}.")
        texts += ["--text", tmp_path / name]
    flags = ("--seeds", "3", "--seed", "5", "--tasks", "2")
    cli("bench", "quality", *texts, *flags, "--routers", "hga,paper", "--budgets", "16,64")
    contents, plan, _, _ = passed[0]
    assert contents == ["Text of a.txt.", "Text of b.md."]
    assert (plan.seeds, plan.tasks) == ((5, 6, 7), 2)
    assert (plan.routers, plan.budgets) == (("hga", "paper"), (16, 64))


def test_the_plot_shows_every_run(cli, passed, tmp_path, monkeypatch):
    drawn = []

    def stand_in(runs, title, path):
        drawn.append((runs, title))
        return [path.with_suffix(".png")]

    monkeypatch.setattr("hga_chat.bench.write_plot", stand_in)
    text = tmp_path / "text.txt"
    text.write_text("Some text.")
    ran = cli("bench", "quality", "--text", text, "--plot", tmp_path / "gap")
    assert drawn == [(QUALITY["runs"], "scripted, 2,048 tokens")]
    assert "gap.png" in ran.err


def test_an_unwritable_plot_is_reported_before_the_measurement(cli, passed, tmp_path, monkeypatch):
    ran = cli("bench", "quality", "--text", "x", "--plot", tmp_path / "none" / "gap")
    assert (ran.code, passed) == (2, [])
    assert "does not exist" in ran.err
    monkeypatch.setattr("hga_chat.cli.bench.find_spec", lambda _: None)
    ran = cli("bench", "quality", "--text", "x", "--plot", tmp_path / "gap")
    assert (ran.code, passed) == (2, [])
    assert "pip install 'hga-chat[plot]'" in ran.err


@pytest.mark.parametrize("flags", [("--routers", "hga,best"), ("--budgets", "16,many")])
def test_invalid_lists_are_exit_code_2(cli, passed, flags):
    assert cli("bench", "quality", "--text", "x", *flags).code == 2
    assert passed == []


def test_text_that_cannot_be_read_is_exit_code_3(cli, passed, tmp_path):
    ran = cli("bench", "quality", "--text", tmp_path / "none.txt")
    assert (ran.code, ran.out) == (3, "")
    assert "none.txt: no such file" in ran.err


def test_a_context_that_is_too_short_is_exit_code_2(cli, passed, monkeypatch):
    def refuse(*_):
        raise ValueError("a context must be above 384 tokens")

    monkeypatch.setattr("hga_chat.bench.run_speed", refuse)
    ran = cli("bench", "speed", "--context", "100")
    assert ran.code == 2
    assert "above 384 tokens" in ran.err
