"""What words of the command line mean; what means nothing is refused by argparse, with the sentence raised here."""

from __future__ import annotations

import argparse


def seed(text: str) -> int:
    """Read a seed."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: it must be 0, 1, 2, ...")
    return int(text)


def label(text: str) -> tuple[str, str]:
    """Read a finding and the label that it gets."""
    finding, found, label = text.partition("=")
    if not (finding and found):
        raise argparse.ArgumentTypeError(f"{text!r} is not FINDING=LABEL")
    return finding, label


def share(text: str) -> tuple[int, int]:
    """Read which of how many shares is meant."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share: it must be 1/2, 2/2, 1/3, ...")
    return int(number), int(of)
