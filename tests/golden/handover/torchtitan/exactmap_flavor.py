"""The model of small.plan as a flavor of torchtitan's llama3."""

from torchtitan.models.llama3 import TransformerModelArgs, llama3_args
from torchtitan.models.llama3.model.args import RoPEScalingArgs

llama3_args["exactmap"] = TransformerModelArgs(
    dim=64,
    n_layers=4,
    n_heads=4,
    n_kv_heads=2,
    vocab_size=259,
    multiple_of=192,  # the feed-forward width: the factor below comes just under it
    ffn_dim_multiplier=1.1264705882352941,
    norm_eps=1e-05,
    rope_theta=10000.0,
    rope_scaling_args=RoPEScalingArgs(scaling_factor=1.0),  # rotary frequencies as they are
)
