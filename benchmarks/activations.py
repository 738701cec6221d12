"""How short the streams of real activations and gradients are, from their bytes.

``python benchmarks/activations.py MODEL IMAGES`` cuts a ViT (a Hugging Face folder) after each
block, sends activations and loss gradients of real images through top-K at ratio 0.2, E = 7 and the
lossless code, checks every stream, and writes results/activations.json beside itself. IMAGES is a
parquet file with `image{bytes}` and `label`. Needs constriction, pyarrow and pillow.
"""

import io
import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet
from jaxsplit_kernels import (
    compress,
    decode,
    dequantize,
    encode,
    stochastic_quantize,
    topk_mask,
)
from PIL import Image
from safetensors.numpy import load_file

IMAGES = 256
RATIO, LEVELS = 0.2, 7
KEY = jax.random.key(0)


# -- the model -------------------------------------------------------------------------------------


def layer_norm(w, name, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def dense(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def embed(w, images):
    name = "vit.embeddings.patch_embeddings.projection"
    kernel = w[f"{name}.weight"]
    side = kernel.shape[-1]
    patches = jax.lax.conv_general_dilated(
        images, kernel, (side, side), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    tokens = (patches + w[f"{name}.bias"]).reshape(len(images), -1, kernel.shape[0])
    cls = jnp.broadcast_to(w["vit.embeddings.cls_token"], (len(images), 1, tokens.shape[-1]))
    return jnp.concatenate([cls, tokens], 1) + w["vit.embeddings.position_embeddings"]


def block(w, layer, x, heads):
    name = f"vit.encoder.layer.{layer}"
    h = layer_norm(w, f"{name}.layernorm_before", x)
    q, k, v = (
        dense(w, f"{name}.attention.attention.{part}", h).reshape(*h.shape[:2], heads, -1)
        for part in ("query", "key", "value")
    )
    mixed = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
    x = x + dense(w, f"{name}.attention.output.dense", mixed)
    h = dense(w, f"{name}.intermediate.dense", layer_norm(w, f"{name}.layernorm_after", x))
    return x + dense(w, f"{name}.output.dense", jax.nn.gelu(h, approximate=False))


def blocks(w, x, heads, start, stop):
    for layer in range(start, stop):
        x = block(w, layer, x, heads)
    return x


def logits_after(w, x, heads, start, stop):
    x = blocks(w, x, heads, start, stop)
    return dense(w, "classifier", layer_norm(w, "vit.layernorm", x[:, 0]))


def load(model, images):
    config = json.loads((Path(model) / "config.json").read_text())
    weights = {k: jnp.asarray(v) for k, v in load_file(Path(model) / "model.safetensors").items()}
    table = pyarrow.parquet.read_table(images).slice(0, 4 * IMAGES).to_pydict()
    pixels = [np.asarray(Image.open(io.BytesIO(i["bytes"])).convert("RGB")) for i in table["image"]]
    return config, weights, np.stack(pixels) / np.float32(127.5) - 1, np.array(table["label"])


# -- the streams -----------------------------------------------------------------------------------


def stream_ratio(x):
    """Bits of float32 rows [B, n] over those of their real streams, each decoded and compared."""
    q = stochastic_quantize(KEY, x, topk_mask(x, int(RATIO * x.shape[-1] + 0.5)), LEVELS)
    streams = encode(q)
    expected = np.asarray(dequantize(q))
    assert all((decode(s) == e).all() for s, e in zip(streams, expected, strict=True))
    bits = [8 * len(stream) for stream in streams]
    assert bits == compress(KEY, x, RATIO, LEVELS)[1].tolist()
    return 32 * x.size / sum(bits)


def main(model, images):
    config, weights, pixels, labels = load(model, images)
    heads, depth = config["num_attention_heads"], config["num_hidden_layers"]
    tokens = jax.jit(embed)(weights, pixels)
    record = {"images": IMAGES, "ratio": RATIO, "levels": LEVELS, "cuts": {}}
    head = jax.jit(partial(logits_after, heads=heads, start=0, stop=depth))
    record["top1"] = float((head(weights, tokens).argmax(-1) == labels).mean())
    print(f"top-1 of {len(labels)} images without compression: {record['top1']:.3f}")

    @partial(jax.jit, static_argnums=1)
    def sent_at(w, cut):
        x = blocks(w, tokens, heads, 0, cut)
        sent = compress(KEY, x.reshape(len(x), -1), RATIO, LEVELS)[0].reshape(x.shape)

        def loss(x):
            log_p = jax.nn.log_softmax(logits_after(w, x, heads, cut, depth))
            return -jnp.take_along_axis(log_p, labels[:, None], axis=-1).mean()

        right = logits_after(w, sent, heads, cut, depth).argmax(-1) == labels
        return x[:IMAGES], jax.grad(loss)(sent)[:IMAGES], right.mean()

    for cut in range(1, depth):
        x, gradient, top1 = sent_at(weights, cut)
        up, down = (stream_ratio(a.reshape(IMAGES, -1)) for a in (x, gradient))
        record["cuts"][cut] = {
            "activations": round(up, 2),
            "gradients": round(down, 2),
            "top1": round(float(top1), 4),
        }
        print(
            f"cut after block {cut}: activations {up:.1f}x, gradients {down:.1f}x shorter than "
            f"float32; top-1 with compressed activations {top1:.3f}",
            flush=True,
        )
    if min(at["activations"] for at in record["cuts"].values()) < 20:
        sys.exit("the streams of the activations are less than 20 times shorter than float32")
    results = Path(__file__).parent / "results" / "activations.json"
    results.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/activations.py MODEL_FOLDER IMAGES.parquet")
    main(*sys.argv[1:])
