"""What the sections `dataset` of several datasets have in common."""

from __future__ import annotations

from clickwise.recipe import require


class Section:
    """Base of a config with `frequency_limit` and `frequency_limits`, which overrides it by feature."""

    def limit(self, name: str) -> int:
        return self.frequency_limits.get(name, self.frequency_limit)

    def require_at_least(self, least: int, *keys: str) -> None:
        """Raises `recipe.Invalid` for the first setting of `keys`, or value in it, that is smaller."""
        for key in keys:
            found = getattr(self, key)
            for name, value in (found.items() if isinstance(found, dict) else [(key, found)]):
                require(value >= least, name, found=value, expected=f"{least} or more")
