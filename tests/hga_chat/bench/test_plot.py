import pytest

from hga_chat.bench.plot import write_plot

pytest.importorskip("matplotlib")
RUNS = [
    {
        "router": router,
        "rule": "decode",
        "sparsity": sparsity,
        "gap_nats": gap,
        "gap_interval": (gap - 0.001, gap + 0.002),
    }
    for router, sparsity, gap in [("hga", 0.05, 0.01), ("hga", 0.03, 0.02), ("paper", 0.05, 0.08)]
]


def test_both_files_are_written_and_name_every_router(tmp_path):
    png, svg = write_plot(RUNS, "A model & 2,048 tokens", tmp_path / "gap.png")
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    assert text.count("hga, decode rule") == text.count("paper, decode rule") > 0
    assert "A model &amp; 2,048 tokens" in text
