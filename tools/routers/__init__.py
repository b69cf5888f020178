"""What ``tools/compare_routers.py`` is made of."""
