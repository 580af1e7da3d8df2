"""The section `dataset` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from clickwise.errors import nearest
from clickwise.feature_spec import MISSING_NUMBERS
from clickwise.prepare.section import Section
from clickwise.recipe import require

LIMIT, LIMIT_OF_FEW, FEW_ROWS = 5, 2, 20_000


@dataclass(frozen=True, kw_only=True)
class TableConfig(Section):
    """The section `dataset` of a recipe for `name: table`.

    spec                the Feature Spec of the raw files: its folder, or the YAML file
    label_is            the value that is the positive label, or a list of several · label_above: numbers above this
                        are · neither: the label is 0 or 1, true or false. Rows without a label are left out
    test_share          of the rows of `train`, unless the spec has a mapping `test`
    validation_share    of the rows of `train`, unless the spec has a mapping `validation`
    split_by            null: rows are assigned by a hash of their number and `seed`. A column: by a hash of its value,
                        so that all rows of a user, say, stay together
    order_by            instead: the rows with the greatest values of this column, a time, are the test rows, those
                        before them validation; rows of the same moment stay together
    frequency_limit     a value keeps an id of its own if it occurs at least so often in the training rows (null: 5
                        times, or twice where there are less than 20,000); `frequency_limits` overrides it by feature.
                        All others, and what is missing, get 0
    hash_buckets        feature -> so many further ids, over which its rare and unseen values are hashed
    hash_only           features of `hash_buckets` without a vocabulary: every value is hashed
    bins                a numerical has, beside its scaled value, an id that says in which of so many bins it lies, each
                        with about as many training rows; frequent values have one of their own. 0: none
    log_numericals      numericals with a heavy tail: sign(x) · ln(1 + |x|) before they are scaled; null: those whose
                        training rows are skewed by more than 5, where that halves it
    missing             texts that stand for a missing value in a column of numbers (which becomes the mean); in other
                        columns only the empty text does
    shuffle             permute the training rows, by `seed`; the others keep their order
    max_bad_rows        so many lines of CSV that cannot be read are skipped and counted before preparation gives up
    input               with --with FOLDER: files of further raw rows, which become the mapping `input`
    """

    spec: str = ""
    label_is: str | int | float | bool | list[str | int | float | bool] | None = None
    label_above: float | None = None
    test_share: float = 0.2
    validation_share: float = 0.1
    split_by: str | None = None
    order_by: str | None = None
    frequency_limit: int | None = None
    frequency_limits: dict[str, int] = field(default_factory=dict)
    hash_buckets: dict[str, int] = field(default_factory=dict)
    hash_only: list[str] = field(default=())
    bins: int = 32
    log_numericals: list[str] | None = None
    missing: list[str] = field(default=MISSING_NUMBERS)
    shuffle: bool = True
    seed: int = 0
    max_bad_rows: int = 0
    input: list[str] = field(default=())

    def __post_init__(self) -> None:
        require(bool(self.spec or self.input), "spec", found=self.spec, expected="the folder of a Feature Spec",
                do="dataset.spec=FOLDER; clickwise spec infer FILE --out FOLDER drafts one")
        require(self.label_is != (), "label_is", found="no value", expected="at least one")
        require(self.label_is is None or self.label_above is None, "label_above", found=self.label_above,
                expected="label_is or label_above, not both")
        require(self.split_by is None or self.order_by is None, "order_by", found=self.order_by,
                expected="split_by or order_by, not both")
        for key in ("test_share", "validation_share"):
            require(0 <= getattr(self, key) < 1, key, found=getattr(self, key), expected="at least 0 and below 1")
        require(self.test_share + self.validation_share < 1, "validation_share", found=self.validation_share,
                expected=f"less than {1 - self.test_share:g}, what the test rows leave")
        for name, buckets in self.hash_buckets.items():
            require(1 <= buckets < 2**31, f"hash_buckets.{name}", found=buckets, expected="at least 1")
            limit = self.limit(name) or LIMIT
            require(limit >= 2 or name in self.hash_only, f"hash_buckets.{name}", found=f"frequency limit {limit}",
                    expected="at least 2, so that training rows use the hashed ids too",
                    do=f"set frequency_limits.{name}, or name {name} in hash_only")
        for name in self.hash_only:
            require(name in self.hash_buckets, "hash_only", found=name, expected="features of hash_buckets",
                    do=nearest(name, self.hash_buckets))
        require(self.bins != 1 and self.bins < 2**15, "bins", found=self.bins, expected="0, or 2 and more")
        self.require_at_least(0, "bins", "seed", "max_bad_rows", "frequency_limits",
                              *(["frequency_limit"] if self.frequency_limit is not None else []))

    @property
    def positives(self) -> tuple[str | int | float | bool, ...]:
        """The values of `label_is`."""
        return () if self.label_is is None else self.label_is if isinstance(self.label_is, tuple) else (self.label_is,)

    def limit_among(self, name: str, rows: int) -> int:
        """The frequency limit of a feature where there are so many training rows."""
        limit = self.limit(name)
        return limit if limit is not None else LIMIT if rows >= FEW_ROWS else LIMIT_OF_FEW
