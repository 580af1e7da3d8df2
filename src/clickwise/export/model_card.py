"""MODEL_CARD.md of an export: what a person should know before the model decides anything."""

from __future__ import annotations

from pathlib import Path

from clickwise.encoding import Encoding
from clickwise.feature_spec import CHANNELS
from clickwise.run.facts import FILE as FACTS
from clickwise.run.facts import RunFacts
from clickwise.run.session import Session
from clickwise.serve.signature import Signature

UNKNOWN = "not stated: say so here, or as `licence` under `metadata` in the Feature Spec of the raw rows"
NOT_SHOWN = ("_error_bound", "_groups", "_groups_skipped")


def model_card(run: Path, session: Session, signature: Signature, step: int, encoding: Encoding | None) -> str:
    """The text of the file. Figures are those that the run measured."""
    recipe, spec = session.recipe, session.dataset.spec
    facts = RunFacts.load(run) if (run / FACTS).exists() else RunFacts()
    licence = spec.metadata.get("licence", UNKNOWN)
    lines = [f"# {signature.name}", "", f"{signature.model} for click-through rates, trained by clickwise "
             f"{facts.versions.get('clickwise', '')}".rstrip() + f"; run {signature.run}, step {step:,}"
             + (f", {facts.date[:10]}" if facts.date else "") + f". Exported {signature.created[:10]}.", "",
             "## What it is for", "",
             "The probability that a person clicks on what a row describes. It knows what the rows of its training had "
             "in common and nothing else: measure it on rows of your own before you rely on it, and again as time "
             "goes on.", "",
             "## Data", "", f"* Dataset: {recipe.data.name}", f"* Licence and attribution: {licence}",
             f"* Contains raw ids: {_raw_ids(encoding)}", "", "## Metrics", ""]
    if facts.mappings:
        names = list(dict.fromkeys(name for values in facts.mappings.values() for name in values if
                                   not name.endswith(NOT_SHOWN)))
        lines += ["| mapping | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        lines += [f"| {mapping} | " + " | ".join(_figure(values.get(name)) for name in names) + " |"
                  for mapping, values in facts.mappings.items()]
    else:
        lines.append("The run measured none.")
    lines += ["", "## Inputs", "", "| channel | features |", "|---|---|"]
    lines += [f"| {channel} | {', '.join(session.reads[channel])} |" for channel in CHANNELS
              if session.reads.get(channel)]
    if signature.raw:
        lines += ["", "| raw column | type | may be missing |", "|---|---|---|"]
        lines += [f"| {name} | {column} | {'yes' if column.may_be_missing else 'no'} |"
                  for name, column in signature.raw.items()]
    dense, tables = (facts.parameters.get(key) for key in ("dense", "tables"))
    lines += ["", "## Model", "",
              f"* Trained in {recipe.train.precision}, exported in fp32; tables in {signature.rows}",
              f"* A probability differs from that of `clickwise predict` by at most {signature.tolerance:g}"]
    if dense is not None:
        lines.append(f"* {dense:,} dense parameters, {tables:,} in tables")
    return "\n".join(lines) + "\n"


def _raw_ids(encoding: Encoding | None) -> str:
    if encoding is None:
        return "no"
    keyed = sorted({name for state in encoding.tables.values() for name in state.by})
    return "yes: the vocabularies of `encoding/` hold values of the training rows" + (
        f", and its states are kept by {', '.join(keyed)}" if keyed else "")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value == int(value) and value > 1 else f"{value:.4f}"
