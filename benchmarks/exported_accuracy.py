"""What a run measured, measured again by PyTorch and PEFT on the same sentences.

    python benchmarks/exported_accuracy.py results/fedft-fig3 [--data sst2] [--seeds 1]

Exports every policy of a finished `jaxsplit reproduce fedft-fig3`, loads it by the code in the
export's own README, and compares the accuracies with the mean head: at most one example may
differ. Writes benchmarks/results/exported_accuracy.json.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
import xarray as xr

from jaxsplit.artefacts import load_card
from jaxsplit.commands.export import ExportConfig, export
from jaxsplit.data import load
from jaxsplit.models import from_pretrained

BATCH = 128


def pytorch_accuracy(folder: Path, inputs: dict[str, np.ndarray], labels: np.ndarray) -> float:
    """Share of right answers of an exported adapter and its head, features by mean pooling."""
    names: dict = {}
    text = (folder / "README.md").read_text()
    exec(re.search(r"```python\n(.*?)```", text, flags=re.S)[1], names)
    right = 0
    for first in range(0, len(labels), BATCH):
        rows = slice(first, first + BATCH)
        tokens = {key: torch.tensor(array[rows]).long() for key, array in inputs.items()}
        with torch.no_grad():
            hidden = names["model"](**tokens).last_hidden_state
        weight = tokens["attention_mask"].float()[:, :, None]
        features = (hidden * weight).sum(1) / weight.sum(1)
        outputs = features @ names["head"]["out.weight"].T + names["head"]["out.bias"]
        right += int((outputs.argmax(-1).numpy() == labels[rows]).sum())
    return right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("--data", default="sst2")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(2)

    result = xr.load_dataset(options.result / f"{options.result.resolve().name}.nc")
    final = result.accuracy_mean_head.sel(data=options.data).isel(delay_budget=0, eval_round=-1)
    (run,) = options.result.glob(f"{options.data}-*ns")
    card = load_card(run)
    if card.pooling != "mean":
        raise SystemExit(f"{run} reads features by {card.pooling!r}; this script by mean pooling")
    dataset = load(
        options.data,
        tokenizer=from_pretrained(card.checkpoint).folder,
        max_length=card.configuration["max_length"],
    )
    record = {"test_samples": len(dataset.test_labels), "accuracies": {}}
    for policy in card.policies:
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                export(ExportConfig(run, out=Path(folder), policy=policy, seed=seed))
                theirs = pytorch_accuracy(Path(folder), dataset.test_inputs, dataset.test_labels)
            ours = float(final.sel(policy=policy, seed=seed))
            examples = round((theirs - ours) * len(dataset.test_labels))
            record["accuracies"][f"{policy}, seed {seed}"] = {
                "jaxsplit": round(ours, 6), "pytorch": round(theirs, 6), "examples": examples,
            }  # fmt: skip
            print(f"{policy:16} seed {seed}: {ours:.4f} here, {theirs:.4f} in PyTorch: {examples}")
            assert abs(examples) <= 1
    path = Path(__file__).parent / "results" / "exported_accuracy.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
