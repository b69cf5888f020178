"""Takes the pictures of the README: a real session over the sample handbook.

    python tools/screenshots.py assets/screens

writes SVG files, and PNG files where Chromium is installed (with the font Fira Code).
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from hga_chat.cli.prepare import prepare, start_on_documents
from hga_chat.output import Output
from hga_chat.screen.app import ChatApp
from hga_chat.settings import load_settings

HANDBOOK = os.path.relpath(Path(__file__).parents[1] / "assets" / "samples" / "handbook")
QUESTION = "What is the code word for an immediate stop?"
WORD = 8
"""Which token of the answer is the code word, as the embedded model writes it."""
WIDE, SMALL, LARGE = (120, 40), (80, 24), (200, 60)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the application to get somewhere."""
    while not condition():
        await asyncio.sleep(0.01)


async def take(
    app: ChatApp, pilot: Pilot[None], folder: Path, name: str, size: tuple[int, int] = WIDE
) -> None:
    """One picture at one size."""
    await pilot.resize_terminal(*size)
    await pilot.pause()
    await asyncio.sleep(1.0)
    path = folder / f"{name}.svg"
    app.save_screenshot(str(path))
    print(path, flush=True)


async def session(folder: Path) -> None:
    """One session: while it reads, after answers, and what can be looked at then."""
    settings, output = load_settings({"no_save": True}), Output(quiet=True)
    prepared = prepare([HANDBOOK], settings, output)
    start = start_on_documents(prepared, [HANDBOOK], settings, output)
    app = ChatApp(start.open, settings.sampling(), "night", plain=False)
    async with app.run_test(size=WIDE) as pilot:
        await until(lambda: app.flow.state.startswith("reading"))
        await asyncio.sleep(12)
        await take(app, pilot, folder, "wide-reading")
        await take(app, pilot, folder, "small-reading", SMALL)
        await until(lambda: app.flow.state == "ready")
        app.prompt.text = QUESTION
        await pilot.press("enter")
        await until(lambda: app.flow.state == "answering")
        await until(lambda: app.flow.state == "ready")
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
        await pilot.press(*["right"] * (WORD + 1))
        await take(app, pilot, folder, "wide-word")
        await pilot.press("escape", "escape")
        app.prompt.focus()
        app.action_next_theme("day")
        await take(app, pilot, folder, "wide-day")
        app.action_next_theme("sixteen")
        await take(app, pilot, folder, "small-sixteen", SMALL)
    app.engine.join()


def as_png(path: Path) -> None:
    """Draw an SVG file at its own size."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', path.read_text())
    if chromium is None or found is None:
        return
    width, height = (round(float(number)) for number in found.groups())
    subprocess.run(
        [
            *[chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"],
            "--default-background-color=00000000",
            f"--window-size={width},{height}",
            f"--screenshot={path.with_suffix('.png')}",
            path.resolve().as_uri(),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )


def main() -> None:
    """Take all pictures."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(session(folder))
    for path in sorted(folder.glob("*.svg")):
        as_png(path)


if __name__ == "__main__":
    main()
