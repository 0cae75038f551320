"""Prices."""

from collections.abc import Mapping

PRICES: Mapping[str, Mapping[str, float]] = {}
