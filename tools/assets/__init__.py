"""Make the files of ``assets/`` and ``tests/data/``."""
