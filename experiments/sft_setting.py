"""SFT's experiments as data: Table II, the text of §VIII-A, and the loads of the schemes.

The table and the text disagree in places. The server runs at the table's 3 GHz, not at the text's
40 GHz; devices at the text's 0.5 to 1.5 GHz with 256 cores and 4 FLOP per cycle.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxsplit.costs import EncoderShape, Order, Processor, RoundLoad, model_flops, split_flops

NUM_DEVICES = 8
BANDWIDTH_HZ = 30e6  # Table II
SCARCE_BANDWIDTH_HZ = 5e6  # the text, and the least of Fig. 9
SNR_DB = 17.0
CLOCK_HZ = (0.5e9, 1.5e9)  # of the devices, uniform between both
DEVICE_CORES, SERVER_CORES = 256, 2048
FLOP_PER_CYCLE = 4
SERVER = Processor(3e9, SERVER_CORES, FLOP_PER_CYCLE)

BATCH_SIZE = 64
ROUNDS = 20
SAMPLES_PER_DEVICE = 6250  # CIFAR-100's 50,000 shared out
LOCAL_STEPS = SAMPLES_PER_DEVICE / BATCH_SIZE  # an epoch; the last mini-batch by its samples
CUT = 5  # the device has the blocks 1 to 5
PAPER_BETA = 1 / 14.75  # §VIII-B3: without compression 14.75 times as much

#: ViT-B/16 on CIFAR-100, with adapters of rank 16 on all linear layers: 18Dr per block (§V-C).
VIT = EncoderShape.vit_base(num_outputs=100)
#: The model of Table III: 200 classes and one adapter for query, key and value, 16Dr per block.
TABLE_VIT = EncoderShape.vit_base(
    num_outputs=200, lora_targets=("qkv", "attention_output", "mlp_in", "mlp_out")
)

FL_FULL, FL_LORA, SL, PLAIN, SFT = "FL full", "FL-LoRA", "SL", "SFT uncompressed", "SFT"
SCHEMES = (FL_FULL, FL_LORA, SL, PLAIN, SFT)
COLOURS = {
    FL_FULL: "#cc79a7",
    FL_LORA: "#e69f00",
    SL: "#7f7f7f",
    PLAIN: "#56b4e9",
    SFT: "#0072b2",
}


@dataclass(frozen=True, kw_only=True)
class CountScale:
    """The scale of a figure that is counted: nothing is drawn, so that it has no seeds."""

    default_seeds: None = None


def order_of(scheme: str) -> Order:
    """Whether devices train at once or, in split learning, one after another."""
    return "sequential" if scheme == SL else "parallel"


def scheme_loads(beta: float, *, first_round: bool = False) -> dict[str, RoundLoad]:
    """What a device of each scheme sends and computes in a round of one epoch.

    FLOP are SFT's own (§V-C). Split schemes send activations and gradients of every mini-batch
    and the adapters of the device's half; federated ones send what they train, the head included.

    Args:
      beta: bits of a compressed activation or gradient over those without compression.
      first_round: whether the frozen weights come down, too, Ψ instead of Ψ^L (SFT (11)).

    Returns:
      Loads by scheme, in the order of `SCHEMES`.
    """
    value_bits = 8 * VIT.bytes_per_value
    whole, split = (
        model_flops(VIT, BATCH_SIZE, "paper"),
        split_flops(VIT, CUT, BATCH_SIZE, "paper"),
    )

    def federated(trained: int, frozen: int) -> RoundLoad:
        return RoundLoad(
            local_steps=LOCAL_STEPS,
            distribution_bits=value_bits * (trained + first_round * frozen),
            adapter_bits=value_bits * trained,
            device_forward_flop=whole.forward,
            device_backward_flop=whole.backward,
        )

    def cut(part: float) -> RoundLoad:
        bits = part * BATCH_SIZE * VIT.activation_bits
        return RoundLoad(
            local_steps=LOCAL_STEPS,
            activation_bits=bits,
            gradient_bits=bits,
            distribution_bits=float(VIT.distribution_bits(CUT, first_round=first_round)),
            adapter_bits=float(VIT.distribution_bits(CUT, first_round=False)),
            device_forward_flop=float(split.device_forward),
            device_backward_flop=float(split.device_backward),
            server_flop=float(split.server),
        )

    trained_with_lora = VIT.adapters + VIT.head_parameters
    return {
        FL_FULL: federated(VIT.parameters, 0),
        FL_LORA: federated(trained_with_lora, VIT.parameters - VIT.head_parameters),
        SL: cut(1.0),
        PLAIN: cut(1.0),
        SFT: cut(beta),
    }


def devices_with(clock_hz: jax.Array) -> Processor:
    """The devices with given clocks in Hz, [N]."""
    return Processor(clock_hz, DEVICE_CORES, FLOP_PER_CYCLE)


def draw_clocks(key: jax.Array) -> jax.Array:
    """Clocks of the devices in Hz, [N]."""
    low, high = CLOCK_HZ
    return jax.random.uniform(key, (NUM_DEVICES,), minval=low, maxval=high)


def spectral_efficiency(snr_db: jax.Array | float) -> jax.Array:
    """log2(1 + SNR) of an SNR in dB, bit/s/Hz."""
    return jnp.log2(1 + 10 ** (jnp.asarray(snr_db, jnp.result_type(float)) / 10))
