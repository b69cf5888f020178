"""Takes the pictures of the README: a real session over the sample handbook.

    python tools/screenshots.py assets/screens

writes SVG files; a browser or ``rsvg-convert`` turns them into PNG.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from hga_chat.cli.prepare import prepare, start_on_documents
from hga_chat.output import Output
from hga_chat.screen.app import ChatApp
from hga_chat.screen.widgets.prompt import Prompt
from hga_chat.screen.widgets.transcript import Turn
from hga_chat.settings import load_settings

HANDBOOK = os.path.relpath(Path(__file__).parents[1] / "assets" / "samples" / "handbook.pdf")
QUESTION = "What is the wind speed at which the dome must be closed?"
SIZES = {"wide": (120, 40), "small": (80, 24)}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the application to get somewhere."""
    while not condition():
        await asyncio.sleep(0.01)


def in_state(app: ChatApp, state: str) -> bool:
    """What the title line says the application is doing."""
    return app._state.startswith(state)


def is_asked(app: ChatApp) -> bool:
    """Whether the question stands in the transcript."""
    return len(app.query(Turn)) == 1


async def take(name: str, size: tuple[int, int], folder: Path) -> None:
    """One session at one size: while it reads, and after an answer."""
    settings, output = load_settings({"no_save": True}), Output(quiet=True)
    prepared = prepare([HANDBOOK], settings, output)
    start = start_on_documents(prepared, [HANDBOOK], settings, output)
    app = ChatApp(start.open, settings.sampling())
    async with app.run_test(size=size) as pilot:
        await until(lambda: in_state(app, "reading"))
        await asyncio.sleep(12)
        app.save_screenshot(str(folder / f"{name}-reading.svg"))
        await until(lambda: in_state(app, "ready"))
        app.query_one(Prompt).text = QUESTION
        await pilot.press("enter")
        await until(lambda: is_asked(app))
        await until(lambda: in_state(app, "ready"))
        await asyncio.sleep(0.5)
        app.save_screenshot(str(folder / f"{name}-answer.svg"))
    app.engine.join()


def main() -> None:
    """Take all pictures."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        asyncio.run(take(name, size, folder))


if __name__ == "__main__":
    main()
