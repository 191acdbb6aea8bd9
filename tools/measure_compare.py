"""How often does `mining compare` tell two nights apart that are alike?

    python tools/measure_compare.py [--pairs 600] [--seed 1] [--json]

Pairs of nights with drives of unequal length (20 to 300 frames), of which a drive's frames are alike and lie in one of three
slices; drives of both nights are drawn the same way. Printed is the share of pairs in which the interval of each figure leaves
out what it is without a difference; 5 % is promised. The bar: at most 8 % for the mean and for a signal, with any number of drives.
(The parts of the mean's change are ratios of small counts, and are told apart less often than promised.)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from anywhere

from mining.compare import stats

BAR = 0.08
DRIVES = (3, 4, 5, 8, 15, 40)
SLICES = np.array([0.0, 0.5, 1.0])
FIGURES = ("mean", "signal", "within", "mix", "only one side")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    print(f"{'drives':>6}" + "".join(f"{name:>15}" for name in FIGURES))
    found = {}
    for drives in DRIVES:
        p = np.array([pair(rng, drives) for _ in range(options.pairs)])
        found[drives] = (p < 0.05).mean(axis=0)
        print(f"{drives:>6}" + "".join(f"{share:>15.1%}" for share in found[drives]))
    holds = all(max(shares[:2]) <= BAR for shares in found.values())
    print(f"{'holds' if holds else 'FAILS'}: bar {BAR:.0%} for mean and signal")
    if options.json:
        shares = {str(drives): dict(zip(FIGURES, one.tolist(), strict=True)) for drives, one in found.items()}
        print(json.dumps({"pairs": options.pairs, "shares": shares, "bar": BAR, "holds": holds}))


def pair(rng: np.random.Generator, drives: int) -> list[float]:
    """Draw two nights; p of each figure."""
    drive = np.repeat(np.arange(2 * drives), rng.integers(20, 300, 2 * drives))
    of_slice = rng.integers(0, len(SLICES), 2 * drives)[drive]
    values = rng.normal(0, 0.5, 2 * drives)[drive] + rng.normal(0, 1, len(drive)) + SLICES[of_slice]
    is_after = drive >= drives
    sides = []
    for rows in (~is_after, is_after):
        parted = drive[rows], of_slice[rows], 2 * drives, len(SLICES)
        sides.append((stats.by_drive(*parted), stats.by_drive(*parted, values[rows])))
    counts, totals = zip(*sides, strict=True)
    means = [
        stats.means_of(total.sum(axis=1, keepdims=True), count.sum(axis=1, keepdims=True))
        for count, total in sides
    ]
    probability, left = stats.superiority(values, is_after, drive, 2 * drives)
    signal = stats.jackknife(np.array([probability]), [one[:, None] for one in left], null=0.5)
    return [stats.difference(*means).p[0], signal.p[0], *stats.decomposition(counts, totals).p[1:].tolist()]


if __name__ == "__main__":
    main()
