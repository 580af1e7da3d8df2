"""The section `dataset` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clickwise.prepare.section import Section
from clickwise.recipe import require


@dataclass(frozen=True, kw_only=True)
class AmazonBooksConfig(Section):
    """The section `dataset` of a recipe for `name: amazon_books`. Files are paths or globs, plain or .gz.

    reviews, metadata   JSON lines with reviewerID, asin, unixReviewTime; JSON or Python literals with asin, categories
    min_events      users with fewer events are left out
    min_history     a sample has at least so many events before it
    history_length  events in the window of a history
    categories      of an item so many different ones, each the last of a path of its metadata, in their order; the
                    further ones are features too, category_2, …, that share the table of the first
    validation      the last but one event of every user is for validation. NOTE[DIFF] the reference trains on it and
                    has no validation
    repeats         drop: the same user, item and time counts once · keep: as often as it is there, as in the reference
    fit_on          what gives an item an id of its own: train, or all events (as in the reference)
    negatives       uniform | popularity | compat: what is drawn as an event that did not happen (data.histories)
    negatives_per_positive   samples with a drawn target for each with one that came
    time_gap        a further feature of the history: days between event and sample, by doubling
    shuffle         permute the training samples, by `seed`
    max_bad_rows    so many lines that cannot be read are skipped and counted before preparation gives up
    input           with --with FOLDER: files of further rows, reviews for example, which become the mapping `input`
    """

    reviews: list[str]
    metadata: list[str]
    min_events: int = 20
    min_history: int = 1
    history_length: int = 100
    categories: int = 1
    validation: bool = True
    repeats: Literal["drop", "keep"] = "drop"
    fit_on: Literal["train", "all"] = "train"
    negatives: Literal["uniform", "popularity", "compat"] = "popularity"
    negatives_per_positive: int = 1
    time_gap: bool = False
    shuffle: bool = True
    seed: int = 0
    max_bad_rows: int = 0
    input: list[str] = field(default=())

    def __post_init__(self) -> None:
        for key in ("reviews", "metadata"):
            require(bool(getattr(self, key)), key, found=getattr(self, key), expected="at least one file")
        self.require_at_least(1, "min_events", "history_length", "categories", "negatives_per_positive")
        self.require_at_least(0, "min_history", "seed", "max_bad_rows")

    @property
    def category_names(self) -> list[str]:
        """The features of an item's categories."""
        return ["category", *(f"category_{number}" for number in range(2, self.categories + 1))]

    @property
    def held_out(self) -> int:
        """The last events of every user that are not for training."""
        return 2 if self.validation else 1
