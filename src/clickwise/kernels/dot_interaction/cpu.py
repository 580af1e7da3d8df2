"""`dot_interaction` at CPU speed."""

from __future__ import annotations

from clickwise.kernels.dot_interaction.reference import dot_interaction

__all__ = ["dot_interaction"]
