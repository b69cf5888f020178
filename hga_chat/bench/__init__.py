"""Measures speed, memory, and the quality of routed beside dense attention."""

from hga_chat.bench.memory import run_memory
from hga_chat.bench.plot import write_plot
from hga_chat.bench.quality import QualityPlan, run_quality
from hga_chat.bench.speed import run_speed
from hga_chat.bench.synthetic import synthetic_text
from hga_chat.bench.text import standard_text

__all__ = [
    "QualityPlan",
    "run_memory",
    "run_quality",
    "run_speed",
    "standard_text",
    "synthetic_text",
    "write_plot",
]
