"""Colour ramps from cold to hot."""

from textual.color import Color, Gradient

LEVELS = 24
"""Steps of the colour ramp: few enough that neighbouring cells share a style."""


def ramp(cold: Color, hot: Color, dark: bool) -> list[Color]:
    """Return the colours of all steps, from no attention to the newest."""
    if dark:
        stops = [cold, Color.parse("#1f6a98"), Color.parse("#2fb3b0"), hot, Color.parse("#fff6d8")]
    else:
        stops = [cold, Color.parse("#b9dcea"), Color.parse("#4fa7b8"), hot, Color.parse("#7a1500")]
    gradient = Gradient(*((index / 4, stop) for index, stop in enumerate(stops)), quality=LEVELS)
    return [gradient.get_color(level / (LEVELS - 1)) for level in range(LEVELS)]


def step(level: float) -> int:
    """Return the step for a level of 0 to 1; only 0 has step 0."""
    if level <= 0:
        return 0
    return min(max(round(level * (LEVELS - 1)), 1), LEVELS - 1)
