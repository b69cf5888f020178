"""``bench``: what it passes on and how it shows results; the measuring itself is stood in for."""

import json

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
FIGURES = {"gap_nats": 0.00512, "gap_last_half_nats": -0.001, "sparsity": 0.0291, "needles": 3}
QUALITY = {
    "context": 2048,
    "dense_nats": 1.2311,
    "rules": {"decode": FIGURES, "prefill": FIGURES},
    "needles_dense": 5,
    "needles_total": 10,
    "model": "scripted",
    "router": "hga",
    "budget_tokens": 1024,
}


@pytest.fixture
def passed(monkeypatch, use_engine):
    """What the measuring functions were called with."""
    import hga_chat.bench

    calls = []

    def stand_in(result):
        def run(*arguments):
            calls.append(arguments[1:])
            return result

        return run

    use_engine()
    monkeypatch.setattr(hga_chat.bench, "run_speed", stand_in(SPEED))
    monkeypatch.setattr(hga_chat.bench, "run_quality", stand_in(QUALITY))
    return calls


def test_speed(cli, passed):
    flags = ("--budget", "16", "--host-budget", "1G", "--device-limit", "31G")
    ran = cli("bench", "speed", "--context", "4096,8192", *flags)
    tokens, contexts, config, _ = passed[0]
    assert len(tokens) > 8192
    assert (contexts, config.router.decode_budget) == ([4096, 8192], 16)
    assert (config.cache.host_budget_bytes, config.cache.device_limit_bytes) == (2**30, 31 * 2**30)
    assert ran.out.splitlines()[0] == "scripted on a processor"
    assert ran.out.splitlines()[2].split() == [
        *("4,096", "1,234", "3.25", "41.3", "0.12", "0", "B", "1.0", "GiB")
    ]


def test_speed_as_json(cli, passed):
    report = json.loads(cli("bench", "speed", "--json").out)
    assert report == SPEED | {"context": {"4096": SPEED["context"][4096]}}


def test_quality(cli, passed, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Some text.")
    flags = ("--context", "2048", "--needles", "4", "--seed", "7")
    ran = cli("bench", "quality", "--text", text, *flags)
    content, context, needles, seed, router, _ = passed[0]
    assert (content, context, needles, seed) == ("Some text.", 2048, 4, 7)
    assert (router.decode_budget, router.prefill_budget) == (64, 128)
    assert "hga, decode rule" in ran.out
    assert "+0.0051" in ran.out
    assert "3 of 10" in ran.out
    assert json.loads(cli("bench", "quality", "--text", text, "--json").out) == QUALITY


def test_text_that_cannot_be_read_is_exit_code_3(cli, passed, tmp_path):
    ran = cli("bench", "quality", "--text", tmp_path / "none.txt")
    assert (ran.code, ran.out) == (3, "")
    assert "none.txt: No such file" in ran.err


def test_values_that_cannot_be_measured_with_are_exit_code_2(cli, passed, monkeypatch):
    def refuse(*_):
        raise ValueError("a context must be above 384 tokens")

    monkeypatch.setattr("hga_chat.bench.run_speed", refuse)
    ran = cli("bench", "speed", "--context", "100")
    assert ran.code == 2
    assert "above 384 tokens" in ran.err
