"""What a plan's header says, in the types of the cost model."""

from __future__ import annotations

from exactmap.sim.cost.formats import Formats, formats_of_plan
from exactmap.sim.plan.plan import MeshDims, Plan, PlanModel
from exactmap.sim.workload.model import ModelConfig, ModelKind
from exactmap.topology.mapping import Axis, Mesh

__all__ = ["formats_of", "mesh_of", "model_of"]


def model_of(model: PlanModel) -> ModelConfig:
    """The model that a plan's header describes."""
    return ModelConfig(
        kind=ModelKind(model.kind),
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        ffn=model.ffn,
        vocab=model.vocab,
        positions=model.positions,
        tied=model.tied,
        norm_eps=model.eps,
        rope_theta=model.theta,
    )


def mesh_of(mesh: MeshDims) -> Mesh:
    """The mesh that a plan's header describes."""
    order = tuple(Axis(axis) for axis in mesh.order)
    return Mesh(tp=mesh.tp, cp=mesh.cp, ep=mesh.ep, pp=mesh.pp, dp=mesh.dp, order=order)


def formats_of(plan: Plan) -> Formats:
    """The number formats of a plan's ``precision`` line."""
    words = plan.precision
    return formats_of_plan(param=words.param, grad=words.grad, act=words.act, moment=words.moment)
