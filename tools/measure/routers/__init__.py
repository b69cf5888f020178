"""What ``tools/measure/compare_routers.py`` is made of."""
