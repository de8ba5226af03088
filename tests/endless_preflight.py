"""Stands for ``seqserve.preflight`` with a model that it never gets through."""

import signal

if __name__ == "__main__":
    signal.pause()
