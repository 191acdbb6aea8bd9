"""Strategies: which of the candidates make the batch. Pure functions: ``(candidates, k, seed) -> Picks``.

A new strategy is one file, one entry here, and one class in ``tests/mining/test_strategies.py`` that inherits
``tests/contracts/strategy_contract.py``.
"""

from __future__ import annotations

from mining.strategies.facility_location import facility_location
from mining.strategies.k_center import k_center
from mining.strategies.k_means_pp import k_means_pp
from mining.strategies.random_draw import random_draw
from mining.strategies.stratified import stratified
from mining.strategies.top_k import top_k
from mining.strategies.types import Candidates, Picks, Strategy

STRATEGIES: dict[str, Strategy] = {
    "facility_location": facility_location,
    "k_center": k_center,
    "k_means_pp": k_means_pp,
    "random": random_draw,
    "stratified": stratified,
    "top_k": top_k,
}

__all__ = ["STRATEGIES", "Candidates", "Picks", "Strategy"]
