"""Speculators: rows to records, with chances of acceptance worked out from what was published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Final

from pydantic import Field

from tokopt.catalog.files import Row
from tokopt.catalog.rows import Count, Given, OptionalPositive, Positive, SourcedRow, Text
from tokopt.domain.accelerators import Precision
from tokopt.domain.llms import Attention, AttentionKind, FeedForward, LayerGroup, Llm
from tokopt.domain.speculators import (
    OWN_MODULES,
    Acceptance,
    AcceptanceBasis,
    Domain,
    Method,
    Speculator,
)
from tokopt.errors import CatalogError

_HALVINGS: Final = 60  # of the interval that a chance lies in: below a double's resolution
_Chance = Annotated[float, Field(gt=0, le=1, strict=True)]
_Tokens = Annotated[float, Field(gt=1, strict=True)]


class DraftHeadRow(Row):
    """The architecture of a drafting head: transformer layers that read the model's hidden states."""

    layers: Count = Field(default=1, description="Layers, which a draft token passes one after another")
    hidden_size: Count = Field(description="Hidden size")
    heads: Count = Field(description="Attention heads")
    kv_heads: Count = Field(description="Key-value heads")
    head_dim: Count = Field(description="Dimension of a head")
    intermediate_size: Count = Field(description="Inner size of the gated feed-forward part")
    draft_vocabulary: Count = Field(description="Tokens that it can draft")
    model_hidden_size: Annotated[Count | None, Given] = Field(
        default=None, description="Hidden size of the model that it reads, where it differs"
    )
    read_layers: Count = Field(default=3, description="Layers of the model whose hidden states it reads, side by side")


class DraftAcceptanceRow(Row):
    """How drafts are accepted for one domain: one of `cumulative`, `tokens_by_depth` and `tokens_per_step`."""

    cumulative: Annotated[tuple[_Chance, ...] | None, Given] = Field(
        default=None, description="Share of steps in which draft token 1, 2, ... and all before it are accepted"
    )
    tokens_by_depth: Annotated[dict[Count, _Tokens] | None, Given] = Field(
        default=None, description="Mean tokens that a step yields, by draft tokens a step"
    )
    tokens_per_step: Annotated[_Tokens | None, Given] = Field(
        default=None, description="Mean tokens that a step yields when `depth` are drafted"
    )
    depth: Annotated[Count | None, Given] = Field(default=None, description="Draft tokens a step of `tokens_per_step`")
    assumed: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="The figure is of another pair, or the depth is not stated"
    )
    source: Text = Field(description="Key in sources.yaml")
    note: str = Field(default="", description="What it was measured on")


class SpeculatorRow(SourcedRow):
    """One way to draft tokens for some models (speculators.yaml)."""

    title: Text = Field(description="Name as its maker writes it")
    aliases: tuple[Text, ...] = Field(default=(), description="Other names that people type, such as its repository")
    method: Method = Field(description="How it drafts")
    llms: tuple[Text, ...] = Field(default=(), description="Models that it drafts for; empty = any")
    head: Annotated[DraftHeadRow | None, Given] = Field(default=None, description="Architecture, where it is a head")
    llm: Annotated[Text | None, Given] = Field(
        default=None, description="The language model that drafts, where it is one"
    )
    precision: Annotated[Text | None, Given] = Field(
        default=None, description="Precision that the drafter is stored in; it multiplies in 16 bits"
    )
    published_parameters: OptionalPositive = Field(default=None, description="Parameters as published, for comparison")
    deepest: Annotated[int, Field(ge=1, le=16, strict=True)] = Field(
        description="Most draft tokens a step that are tried: as many as figures were published for"
    )
    acceptance: dict[Domain, DraftAcceptanceRow] = Field(min_length=1, description="How drafts are accepted by domain")
    spread: Annotated[Positive, Field(lt=1)] = Field(
        description="Share by which the tokens beyond the first of a step may be off, at 80 %"
    )
    searched_for: tuple[Domain, ...] = Field(
        default=(), description="Domains that searches try it for unasked; empty = all texts"
    )
    recommended: Annotated[bool, Field(strict=True)] = Field(
        default=True, description="Whether searches try it without being told to"
    )


def speculator_record(
    name: str, row: SpeculatorRow, *, llm: Callable[[str], Llm], precisions: Mapping[str, Precision]
) -> Speculator:
    """Return the record of one speculator.

    Args:
        name: Its name.
        row: What the catalog says.
        llm: What finds a language model by name.
        precisions: Weight precisions by name.

    Raises:
        CatalogError: The drafter does not go with the method, or acceptance is said twice or not at all.
    """
    if name == OWN_MODULES:
        raise CatalogError(f"{OWN_MODULES!r} stands for the modules that a checkpoint ships: choose another name")
    given = {"head": row.head is not None, "llm": row.llm is not None, "precision": row.precision is not None}
    needed = {
        Method.EAGLE3: ("head", "precision"),
        Method.DRAFT_MODEL: ("llm", "precision"),
        Method.NGRAM: (),
    }[row.method]
    for key, is_given in given.items():
        if is_given is not (key in needed):
            raise CatalogError(f"{key}: {'does not go' if is_given else 'missing: it goes'} with method {row.method}")
    if row.precision is not None and row.precision not in precisions:
        raise CatalogError(f"precision: {row.precision!r} is not in precisions.yaml")
    drafter = draft_head(name, row.head) if row.head else llm(row.llm) if row.llm else None
    acceptance = {}
    for domain, figures in row.acceptance.items():
        try:
            acceptance[domain] = acceptance_record(figures, row.deepest)
        except CatalogError as error:
            raise CatalogError(f"acceptance.{domain}: {error}") from None
    return Speculator(
        name=name,
        title=row.title,
        aliases=row.aliases,
        method=row.method,
        llms=row.llms,
        drafter=drafter,
        precision=precisions[row.precision] if row.precision else None,
        deepest=row.deepest,
        acceptance=acceptance,
        spread=row.spread,
        searched_for=row.searched_for,
        recommended=row.recommended,
        source=row.source,
        sources=dict(row.sources),
        observed_on=row.observed_on.isoformat(),
        note=row.note,
    )


def concerns(entry: Any, *, llm_name: str, domain: Domain | None) -> bool:
    """Whether searches try an entry, as it stands in the file, for a model and texts of a domain.

    What is malformed is taken to be: reading it will say what is wrong.
    """
    if not isinstance(entry, Mapping):
        return True
    llms, domains = entry.get("llms") or [llm_name], entry.get("searched_for") or [domain]
    return bool(entry.get("recommended", True)) and llm_name in llms and domain in domains


def draft_head(name: str, row: DraftHeadRow) -> Llm:
    """Return an EAGLE-3 head as a language model of its own, whose embedding is the model's.

    A layer reads embedding and hidden state side by side, so that its projections to queries, keys and values have
    twice the hidden size as input (Li et al., EAGLE-3, arXiv 2503.01840, §3.1; shapes of the published 8B head:
    q_proj 4096 x 8192, fc 4096 x 12288). What brings the states of `read_layers` layers down to one counts with the
    feed-forward part; it has three norms.
    """
    h, width = row.hidden_size, row.head_dim
    projections = 2 * h * (row.heads + 2 * row.kv_heads) * width + row.heads * width * h
    merge = row.read_layers * (row.model_hidden_size or h) * h
    attention = Attention(
        kind=AttentionKind.FULL,
        heads=row.heads,
        kv_heads=row.kv_heads,
        head_dim=width,
        value_dim=width,
        parameters=projections,
    )
    dense = 3 * h * row.intermediate_size + merge // row.layers
    return Llm(
        name=name,
        title=name,
        aliases=(),
        family="eagle3",
        hidden_size=h,
        vocabulary=row.draft_vocabulary,
        max_context_tokens=1 << 30,
        tied_embeddings=True,
        layers=(
            LayerGroup(
                count=row.layers,
                attention=attention,
                feed_forward=FeedForward(dense_parameters=dense),
                norm_parameters=3 * h,
            ),
        ),
        final_norm_parameters=h,
        native_precision="bf16",
        precisions=("bf16",),
    )


def acceptance_record(row: DraftAcceptanceRow, deepest: int) -> Acceptance:
    """Return chances of acceptance, position by position, from what was published.

    - `cumulative` c₁, c₂, …: p_i = c_i / c_{i-1}, as published.
    - `tokens_by_depth` A_k: A_k - A_{k-1} is the cumulative chance of position k; up to the smallest k, and wherever
      a depth is missing, chances are equal within the gap.
    - `tokens_per_step` A at depth K: the one chance p of every position with A = 1 + p + p² + … + p^K (geometric;
      Leviathan, Kalman & Matias, arXiv 2211.17192, §3.1).

    Raises:
        CatalogError: Not exactly one of them, or figures that no chances below one give.
    """
    given = [row.cumulative is not None, row.tokens_by_depth is not None, row.tokens_per_step is not None]
    if sum(given) != 1 or (row.depth is None) is not (row.tokens_per_step is None):
        raise CatalogError("exactly one of cumulative, tokens_by_depth, and tokens_per_step with its depth is needed")
    if row.cumulative is not None:
        chances = _conditional(row.cumulative)
        basis = AcceptanceBasis.PUBLISHED
    else:
        steps = row.tokens_by_depth or {row.depth or 1: row.tokens_per_step or 1.0}
        chances = _solved(steps)
        basis = AcceptanceBasis.DERIVED
    return Acceptance(
        chances=tuple(chances[min(i, len(chances) - 1)] for i in range(deepest)),
        basis=AcceptanceBasis.ASSUMED if row.assumed else basis,
        source=row.source,
        note=row.note,
    )


def _conditional(cumulative: Sequence[float]) -> list[float]:
    if any(later > before for before, later in pairwise(cumulative)):
        raise CatalogError("cumulative: a draft token cannot be accepted more often than the one before it")
    return [later / before for before, later in pairwise((1.0, *cumulative))]


def _solved(tokens: Mapping[int, float]) -> list[float]:
    """Return chances that give these mean tokens a step, equal between two depths."""
    chances: list[float] = []
    reached, yields, chain = 0, 1.0, 1.0  # depth, tokens there, cumulative chance of its last position
    for depth, wanted in sorted(tokens.items()):
        added, gap = (wanted - yields) / chain, depth - reached
        if not 0.0 < added < gap:
            raise CatalogError(f"{wanted:g} tokens a step of {depth} draft tokens: no chances from 0 to 1 give that")
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if sum(middle**k for k in range(1, gap + 1)) < added else (low, middle)
        chances += [high] * gap
        reached, yields, chain = depth, wanted, chain * high**gap
    return chances
