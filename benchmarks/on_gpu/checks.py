"""Stages b and f: whether kernels give what the references give, and models what they reach in float32."""

from __future__ import annotations

import contextlib
import logging
import pkgutil
import time

import torch
from on_gpu.context import Context
from on_gpu.machine import plain_torch
from on_gpu.models import RECIPES, ready, recipe_of

import clickwise.kernels
from clickwise.kernels import gpu
from clickwise.run.session import build_session
from clickwise.training_recipe import load_recipe


def self_tests(context: Context) -> None:
    """The example that every kernel must get right before it is used, and a step of every model with nothing falling
    back to plain torch."""
    said = _Said()
    logging.getLogger("clickwise").addHandler(said)
    names = [module.name for module in pkgutil.iter_modules(clickwise.kernels.__path__) if module.ispkg]
    for name in names:
        if not _has_kernels(name):
            continue
        started = time.perf_counter()
        works = gpu.kernels_for(torch.empty(0, device=context.machine.device), name) is not None
        context.row("b", f"kernel {name}, its own example", "works", works, holds=works,
                    seconds=time.perf_counter() - started, said=said.taken())
    for model in RECIPES:
        started = time.perf_counter()
        try:
            finite, error = _steps_are_finite(context, model), None
        except Exception as raised:
            finite, error = False, f"{type(raised).__name__}: {str(raised)[:300]}"
        context.machine.forget()
        warnings = said.taken()
        context.row("b", f"{model}, {context.sizes.smoke_steps} steps in bf16", "finite, nothing falls back",
                    finite and not warnings, holds=finite and not warnings, seconds=time.perf_counter() - started,
                    said=warnings, error=error)


def _steps_are_finite(context: Context, model: str) -> bool:
    batch, settings = next((batch, settings) for name, batch, settings in reversed(context.sizes.steps)
                           if name == model)
    trained = ready(recipe_of(model, min(batch, 4096), settings), context.sizes, context.machine, batches=1)
    losses = [trained.step(trained.batches[0]) for _ in range(context.sizes.smoke_steps)][-1]
    return all(bool(loss.isfinite()) for loss in losses.values())


def _has_kernels(name: str) -> bool:
    folder = next(iter(clickwise.kernels.__path__))
    return any(module.name == "triton" for module in pkgutil.iter_modules([f"{folder}/{name}"]))


class _Said(logging.Handler):
    """Warnings since they were last taken."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())

    def taken(self) -> list[str]:
        messages, self.messages = self.messages, []
        return messages


def signal(context: Context, recipe: str, settings: tuple[str, ...]) -> None:
    """Stage f: the test AUC on a planted signal, in bf16 with our kernels against float32 in plain torch."""
    auc = {}
    for way, precision, engine in (("plain torch", "fp32", "reference"), ("fast", "bf16", "fused")):
        with plain_torch() if way == "plain torch" else contextlib.nullcontext():
            trainer = build_session(load_recipe(recipe, [f"train.precision={precision}", f"embedding.engine={engine}",
                                                         f"train.device={context.machine.device}", *settings]))
            loader, started = trainer.train_loader(), time.perf_counter()
            for epoch in range(trainer.recipe.train.epochs):
                for batch in loader.epoch(epoch):
                    trainer.step(batch)
            context.machine.wait()
            seconds = time.perf_counter() - started
            auc[way] = trainer.evaluate(trainer.recipe.data.test)["auc"]
        context.row("f", f"{recipe}, {way} in {precision}", "test AUC", auc[way], seconds=seconds)
    apart = abs(auc["plain torch"] - auc["fast"])
    context.row("f", f"{recipe}, bf16 and float32 apart", "test AUC", apart, bound=context.sizes.same_auc,
                holds=apart <= context.sizes.same_auc)
