"""Who and what there is in generated Outbrain logs: documents, ads, users. Everything is a function of an id."""

from __future__ import annotations

import functools

import numpy as np

from clickwise.data.synthetic.power_law import power_law
from clickwise.data.synthetic.signal import hidden_bits

SLOTS = 12  # no display has more ads
DAY_MS, DAYS = 86_400_000, 13
FIRST_MOMENT_MS = 1_465_876_799_998  # of timestamp 0: 14 June 2016, midnight in New York
CATEGORIES, TOPICS = 97, 300
COUNTRIES = ("US", "US", "US", "US", "GB", "CA", "AU", "IN", "ZA", "SG", "DE", "FR", "PH", "NZ", "IE", "MY")
STATES = {"US": ("CA", "TX", "FL", "NY", "PA", "IL", "OH", "GA", "NC", "MI", "NJ", "VA", "WA", "AZ", "SC"),
          "CA": ("ON", "QC", "BC", "AB"), "AU": ("02", "07", "04"), "GB": ("H9", "C3", "E8"), "SG": ("00",)}


class World:
    """Sizes follow the displays: 3 documents for every 20 displays, an ad for every 20; ids begin with 1."""

    def __init__(self, displays: int, seed: int, alpha: float) -> None:
        self.seed, self.alpha = seed, alpha
        self.documents = max(60, displays * 3 // 20)
        self.ads = max(3, displays // 20 // SLOTS) * SLOTS
        self.campaigns, self.advertisers = max(6, self.ads // 16), max(4, self.ads // 120)
        self.sources, self.publishers = max(8, self.documents // 200), max(4, self.documents // 2000)
        self.entities = max(40, self.documents // 2)
        self.users = max(4, displays * 7 // 10)
        self.places = geo_texts()

    def bits(self, name: str, ids: np.ndarray) -> np.ndarray:
        return hidden_bits(self.seed, f"outbrain {name}", ids)

    def unit(self, name: str, ids: np.ndarray) -> np.ndarray:
        """A number in [0, 1) per id."""
        return (self.bits(name, ids) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def one_of(self, size: int, name: str, ids: np.ndarray) -> np.ndarray:
        """0 … size−1, each as likely."""
        return (self.bits(name, ids) % np.uint64(size)).astype(np.int64)

    def ranked(self, size: int, name: str, ids: np.ndarray) -> np.ndarray:
        """0 … size−1, the first ones most likely, by the power law."""
        return power_law(size, self.alpha).quantile(self.unit(name, ids))

    def effect(self, name: str, ids: np.ndarray) -> np.ndarray:
        """A weight per id, uniform, of mean 0 and standard deviation 1."""
        return (2 * self.unit(name, ids) - 1) * np.sqrt(3)

    # ---- documents

    def category(self, document: np.ndarray) -> np.ndarray:
        return self.ranked(CATEGORIES, "category", document)

    def source(self, document: np.ndarray) -> np.ndarray:
        return self.ranked(self.sources, "source", document) + 1

    def publisher(self, source: np.ndarray) -> np.ndarray:
        return self.one_of(self.publishers, "publisher", source) + 1

    @functools.cached_property
    def _by_category(self) -> tuple[np.ndarray, np.ndarray]:
        """Documents in the order of their categories, and where each category begins."""
        document = np.arange(1, self.documents + 1)
        category = self.category(document)
        first = np.searchsorted(np.sort(category), np.arange(CATEGORIES + 1))
        return document[np.argsort(category, kind="stable")].astype(np.int32), first

    def document_of(self, category: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """A document of the category, chosen by `unit`; any document where the category has none."""
        documents, first = self._by_category
        count = first[category + 1] - first[category]
        anywhere = (unit * self.documents).astype(np.int64)
        return documents[np.where(count > 0, first[category] + (unit * count).astype(np.int64), anywhere)]

    # ---- ads

    def ad_document(self, ad: np.ndarray) -> np.ndarray:
        return self.one_of(self.documents, "landing", ad // 3) + 1

    def campaign(self, ad: np.ndarray) -> np.ndarray:
        return self.one_of(self.campaigns, "campaign", ad) + 1

    def advertiser(self, campaign: np.ndarray) -> np.ndarray:
        return self.one_of(self.advertisers, "advertiser", campaign) + 1

    # ---- users

    def interest(self, user: np.ndarray) -> np.ndarray:
        """The category that a user likes."""
        return self.ranked(CATEGORIES, "interest", user)

    def place(self, user: np.ndarray) -> np.ndarray:
        """An index into `places`."""
        return self.ranked(len(self.places), "place", user)

    def platform(self, user: np.ndarray) -> np.ndarray:
        return self.ranked(3, "platform", user) + 1

    # ---- the planted signal

    def logit(self, document: np.ndarray, user: np.ndarray, ad: np.ndarray) -> np.ndarray:
        """What the click of a display is drawn by: the ad of greatest logit + Gumbel noise is clicked."""
        campaign, category = self.campaign(ad), self.category(self.ad_document(ad))
        return (0.7 * self.effect("ad", ad) + 0.4 * self.effect("advertiser", self.advertiser(campaign))
                + 0.4 * self.effect("campaign on platform", campaign * 4 + self.platform(user))
                + 1.0 * (category == self.category(document)) + 0.8 * (category == self.interest(user)))


def geo_texts() -> list[str]:
    """Places from frequent to rare, as country>state>DMA, or shorter as in the real log."""
    texts = []
    for round_ in range(8):
        for country in COUNTRIES:
            states = STATES.get(country)
            state = states[round_ % len(states)] if states else None
            if state is None or round_ == 7:
                texts.append(country)
            else:
                texts.append(f"{country}>{state}>{500 + 17 * round_ + len(texts)}" if country == "US"
                             else f"{country}>{state}")
    return list(dict.fromkeys(texts))
