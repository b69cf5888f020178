"""Take the screenshots of README and docs in a real session over the sample handbook.

Writes SVG files, and PNG files where Chromium is installed (with the font Fira Code).

    python -m tools.assets.screenshots assets/screens
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from hga_chat.cli.prepare import prepare, start_on_documents
from hga_chat.output import Output
from hga_chat.screen.app import ChatApp
from hga_chat.settings import load_settings

HANDBOOK = os.path.relpath(Path(__file__).parents[2] / "assets" / "samples" / "handbook")
QUESTION = "What is the code word for an immediate stop?"
WORD = "lantern"
"""The answer."""
LOAD_S, READ_S, ANSWER_S, PICTURE_S = 120.0, 1800.0, 300.0, 60.0
"""Time limits, generous enough for a busy machine."""
WIDE, SMALL, LARGE = (120, 40), (80, 24), (200, 60)


async def until(app: ChatApp, what: str, condition: Callable[[], bool], limit_s: float) -> None:
    """Wait for the application to reach a state; exit with a message if it does not."""
    print(f"waiting for {what} …", file=sys.stderr, flush=True)
    end = time.monotonic() + limit_s
    while not condition():
        if app.flow.state == "failed":
            sys.exit(f"Waiting for {what}, the engine failed: {app.transcript.card}")
        if time.monotonic() > end:
            sys.exit(f"No {what} within {limit_s:.0f} s; the screen says: {app.flow.state}.")
        await asyncio.sleep(0.01)


async def take(
    app: ChatApp, pilot: Pilot[None], folder: Path, name: str, size: tuple[int, int] = WIDE
) -> None:
    """Take one screenshot at one size."""
    await pilot.resize_terminal(*size)
    await pilot.pause()
    await asyncio.sleep(1.0)
    path = folder / f"{name}.svg"
    app.save_screenshot(str(path))
    print(path, file=sys.stderr, flush=True)


async def session(folder: Path) -> None:
    """Take the screenshots of one session: during prefill, after answers, and its other views."""
    settings, output = load_settings({"no_save": True}), Output(quiet=True)
    prepared = prepare([HANDBOOK], settings, output)
    start = start_on_documents(prepared, [HANDBOOK], output)
    app = ChatApp(start.open, settings.sampling(), "night", plain=False)
    async with app.run_test(size=WIDE) as pilot:
        await until(app, "reading", lambda: app.flow.state.startswith("reading"), LOAD_S)
        await until(app, "a third of it", lambda: app.panels.map.filled > 0.33, READ_S)
        await take(app, pilot, folder, "wide-reading")
        await take(app, pilot, folder, "small-reading", SMALL)
        await until(app, "the end of reading", lambda: app.flow.state == "ready", READ_S)
        app.prompt.text = QUESTION
        await pilot.press("enter")
        await until(app, "the answer", lambda: len(app.transcript.turns) == 1, ANSWER_S)
        turn = app.transcript.turns[0]
        await until(app, "its end", lambda: turn.state == "done", ANSWER_S)
        await take(app, pilot, folder, "wide-answer")
        await take(app, pilot, folder, "small-answer", SMALL)
        await take(app, pilot, folder, "large-answer", LARGE)
        await pilot.resize_terminal(*WIDE)
        await pilot.press("ctrl+o")
        await take(app, pilot, folder, "wide-passage")
        await pilot.press("escape", "f1")
        await take(app, pilot, folder, "wide-help")
        await pilot.press("escape")
        app.transcript.choose(
            next(p for p in app.transcript.turns[-1].pieces if p.kind == "answer")
        )
        app.transcript.focus()
        begin = turn.text.index(WORD)
        tokens = range(turn.trace.tokens)
        token = next(n for n in tokens if turn.trace.span(n)[1] > begin)
        await pilot.press(*["right"] * (token + 1))
        await take(app, pilot, folder, "wide-word")
        await pilot.press("escape", "escape")
        app.prompt.focus()
        app.action_next_theme("day")
        await take(app, pilot, folder, "wide-day")
        app.action_next_theme("sixteen")
        await take(app, pilot, folder, "small-sixteen", SMALL)
    if not app.engine.join(ANSWER_S):
        sys.exit("The engine does not end.")


def as_png(path: Path) -> None:
    """Draw an SVG file at its own size as PNG."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', path.read_text())
    if chromium is None or found is None:
        print(f"{path} stays without a PNG: Chromium is not installed", file=sys.stderr)
        return
    width, height = (round(float(number)) for number in found.groups())
    # With a profile of its own it does not wait for a Chromium that is open already.
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *[chromium, "--headless=new", "--no-sandbox", "--disable-gpu"],
                *["--hide-scrollbars", f"--user-data-dir={profile}"],
                "--default-background-color=00000000",
                f"--window-size={width},{height}",
                f"--screenshot={path.with_suffix('.png')}",
                path.resolve().as_uri(),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PICTURE_S,
            check=True,
        )


def main() -> None:
    """Take all screenshots."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(session(folder))
    for path in sorted(folder.glob("*.svg")):
        as_png(path)


if __name__ == "__main__":
    main()
