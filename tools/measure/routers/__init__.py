"""The parts of ``tools/measure/compare_routers.py``."""
