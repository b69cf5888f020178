"""Measures this machine: speed, and quality against dense attention on the same text."""

from hga_chat.bench.quality import run_quality
from hga_chat.bench.speed import run_speed
from hga_chat.bench.synthetic import synthetic_text
from hga_chat.bench.text import standard_text

__all__ = ["run_quality", "run_speed", "standard_text", "synthetic_text"]
