"""Parameters of a language model, by what they are for: exact sums over its layers, in elements."""

from __future__ import annotations

from dataclasses import dataclass

from tokopt.domain.llms import Llm


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCounts:
    """Parameters of a whole model, each summed over all layers. [elements]

    Multi-token-prediction modules are not included (`Llm.mtp_parameters` each).
    """

    attention: int  # projections, their biases, and the norms inside the block
    dense_ffn: int
    shared_experts: int
    routed_experts: int
    active_routed_experts: int  # of the routed experts, those that one token passes through
    router: int
    norms: int  # outside attention, the final norm included
    embedding: int
    head: int  # 0 where it is the embedding matrix again

    @property
    def total(self) -> int:
        """All parameters that are stored. [elements]"""
        return self._always + self.routed_experts

    @property
    def active(self) -> int:
        """Parameters that one token uses: all of `total` but the experts it is not routed to. [elements]

        Embedding and head are counted whole; publishers differ on this.
        """
        return self._always + self.active_routed_experts

    @property
    def _always(self) -> int:
        layers = self.attention + self.dense_ffn + self.shared_experts + self.router + self.norms
        return layers + self.embedding + self.head


def parameter_counts(llm: Llm) -> ParameterCounts:
    """Return the parameters of a model by kind.

    With n_g layers in group g, E experts of P_e parameters of which a token uses k, hidden size h, vocabulary V:

    routed = sum_g n_g E P_e;  active routed = sum_g n_g k P_e;  embedding = V h;  head = V h, or 0 if tied

    Args:
        llm: The model; parameters of its blocks are exact, see `catalog.huggingface`. [elements]

    Returns:
        The counts. Source: the published architecture (`config.json`) of the model. [elements]
    """
    groups = llm.layers
    embedding = llm.vocabulary * llm.hidden_size
    return ParameterCounts(
        attention=sum(g.count * g.attention.parameters for g in groups),
        dense_ffn=sum(g.count * g.feed_forward.dense_parameters for g in groups),
        shared_experts=sum(g.count * g.feed_forward.shared_parameters for g in groups),
        routed_experts=sum(g.count * g.feed_forward.experts * g.feed_forward.expert_parameters for g in groups),
        active_routed_experts=sum(
            g.count * g.feed_forward.active_experts * g.feed_forward.expert_parameters for g in groups
        ),
        router=sum(g.count * g.feed_forward.router_parameters for g in groups),
        norms=sum(g.count * g.norm_parameters for g in groups) + llm.final_norm_parameters,
        embedding=embedding,
        head=0 if llm.tied_embeddings else embedding,
    )
