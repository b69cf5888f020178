"""Programs for developers. Run them from the repository's root: ``python -m tools.demo``.

The top of each file says what it does; those with options list them with ``--help``.

- ``tools.demo``: load two sample documents and ask about them (``make demo``).

Files of the repository:

- ``tools.adapter``: train and check the 64K adapter of the embedded model.
- ``tools.assets.corpus``, ``tools.assets.test_pdfs``: write the test documents of ``tests/data/``.
- ``tools.assets.handbook``: render the sample handbook as PDF.
- ``tools.assets.man_page``: write the manual page from the help of the commands.
- ``tools.assets.screenshots``: take the screenshots of the README.

Measurements:

- ``tools.measure.sources``: how often the sources of an answer contain the passage that states it.
- ``tools.measure.compare_routers``: many ways of choosing groups against dense attention.
- ``tools.measure.compare_transformers``, ``tools.measure.compare_transformers_gpu``: speed beside
  transformers' dense attention.
- ``tools.measure.compile_kernels``: shared memory and registers of every GPU kernel, without a GPU.
- ``tools.measure.time_kernels``: the time of every GPU kernel against its floor.
- ``tools.measure.pdf_words``: the words found in a folder of PDFs beside poppler's ``pdftotext``.
- ``tools.measure.public_faults``: which documents of public bug reports are read right.
- ``tools.measure.panel_cost``: what the panels of the screen cost in speed.
- ``tools.measure.screen_latency``: how fast the screen reacts while an answer streams.

Attempts to break the program:

- ``tools.stress.fuzz_readers``: damaged input to every reader (``make fuzz``).
- ``tools.stress.killed_saves``: kill the engine while it saves.
- ``tools.stress.killed_sessions``: kill commands of the program.
- ``tools.stress.soak``: hours of use, checked for drift of answers and memory.
"""
