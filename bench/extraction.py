"""Feature extraction: tokens per second beside plain full passes of both texts, and the equality of all ways.

Run `python -m bench.extraction MODEL PAIRS [--pairs 60] [--layers 20 30] [--max-length 512]`, MODEL a folder or .gguf
file, PAIRS a file of preferences. In float32 on the CPU, these take turns on ever the same few pairs; seconds are those
of the processor (all threads together), so that other work on the machine counts for little:

    plain       every text alone through the whole model, as a script with `output_hidden_states=True` does it
    batched     the same in batches of similar length
    early exit  batches, and the pass ends at the layer
    shared      batches, every prompt once, whole model or up to the layer

Tokens are those of the texts, prompt counted with each response, whatever was run of them. The ratio is of sums over
all turns; its spread over the turns is given too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from typing import Any

import numpy as np

from bench.common.report import markdown_table, put_between_markers, save_json
from cvxrelu_llm.features.extract import extract, load_model
from cvxrelu_llm.models.pooling import POOLINGS
from cvxrelu_llm.preferences.triples import load_triples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--turn", type=int, default=10, help="pairs per turn")
    parser.add_argument("--layers", type=int, nargs="+", default=[20])
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--time-limit", type=float, default=3600.0, help="seconds after which no further turn begins")
    parser.add_argument("--name", default="extraction", help="of the result file")
    options = parser.parse_args()

    model = load_model(options.model, dtype="float32", device="cpu")
    triples = load_triples(options.data)
    chosen = triples.select(np.random.default_rng(0).permutation(len(triples))[: options.pairs])
    print(f"{model.name.rpartition('/')[2]}: {model.n_layers} layers of {model.hidden_size}; {len(chosen)} pairs")
    full = {"layer": model.n_layers, "share_prefix": False}
    ways: dict[str, dict[str, Any]] = {
        "plain": full | {"batch_tokens": 1},
        "batched": full,
        "shared, whole model": {"layer": model.n_layers},
    }
    for layer in options.layers:
        ways |= {
            f"early exit at {layer}": {"layer": layer, "share_prefix": False},
            f"shared, {layer}": {"layer": layer},
        }
    seconds, tokens, runs = defaultdict(list), 0, defaultdict(lambda: np.zeros(2, dtype=int))
    start, begin = 0, time.perf_counter()
    while start < len(chosen) and time.perf_counter() - begin < options.time_limit:
        for name, way in ways.items():
            begun = time.process_time()
            found = extract(
                model, chosen[start : start + options.turn], pooling="last", max_length=options.max_length, **way
            )
            seconds[name].append(time.process_time() - begun)
            runs[name] += [int(found.stats["tokens_run"]), int(found.stats["tokens_padded"])]
        tokens += int(found.stats["tokens"])
        start += options.turn
        print(f"{start} pairs: {', '.join(f'{name} {times[-1]:.1f} s' for name, times in seconds.items())}", flush=True)
    plain = seconds["plain"]
    rows = []
    for name in ways:
        ratios = [a / b for a, b in zip(plain, seconds[name], strict=True)]
        rows.append({
            "way": name,
            "seconds": sum(seconds[name]),
            "tokens_per_second": tokens / sum(seconds[name]),
            "ratio": sum(plain) / sum(seconds[name]),
            "ratio_of_turns": [min(ratios), statistics.median(ratios), max(ratios)],
            "tokens_run": int(runs[name][0]),
            "tokens_padded": int(runs[name][1]),
        })  # fmt: skip
    differences = equalities(model, chosen[:4], options.layers[0], options.max_length)
    header = ["way", "tokens per second", "times plain", "tokens run, of plain", "padding added"]
    table = [
        [
            row["way"],
            f"{row['tokens_per_second']:.0f}",
            f"{row['ratio']:.2f}",
            f"{row['tokens_run'] / tokens:.0%}",
            f"{row['tokens_padded'] / row['tokens_run'] - 1:.0%}",
        ]
        for row in rows
    ]
    print(markdown_table(header, table))
    for row in differences:
        print(f"{row['way']:40} {row['pooling']:14} {row['relative']:.1e}")
    about = {"model": model.name.rpartition("/")[2], "pairs": min(start, len(chosen)), "tokens": tokens}
    path = save_json(options.name, {**about, "max_length": options.max_length, "rows": rows, "equality": differences})
    print(f"written {path}")
    if options.name == "extraction":
        largest = max(row["relative"] for row in differences)
        text = (
            f"{about['model']}, {about['pairs']} pairs of {options.data.rpartition('/')[2]}, {tokens} tokens, "
            f"{options.max_length} a text at most. Largest difference to each text alone, over the largest feature: "
            f"{largest:.0e}."
        )
        put_between_markers("docs/alignment.md", "extraction", f"{text}\n\n{markdown_table(header, table)}")


def equalities(model: Any, triples: Any, layer: int, max_length: int) -> list[dict[str, Any]]:
    """Largest difference to each text alone, over the largest feature, for every way and pooling."""
    ways: list[dict[str, Any]] = [
        {},
        {"padding_side": "left"},
        {"padding_side": "right"},
        {"share_prefix": False},
        {"share_prefix": False, "padding_side": "left"},
    ]
    rows = []
    for pooling in POOLINGS:
        settings: dict[str, Any] = {"layer": layer, "pooling": pooling, "max_length": max_length}
        alone = extract(model, triples, share_prefix=False, batch_tokens=1, **settings).X
        for way in ways:
            X = extract(model, triples, **settings, **way).X
            words = ", ".join(f"{key}={value}" for key, value in way.items()) or "default"
            relative = float(np.abs(X - alone).max() / np.abs(alone).max())
            rows.append(
                {"way": words, "pooling": pooling, "relative": relative, "absolute": float(np.abs(X - alone).max())}
            )
    return rows


if __name__ == "__main__":
    main()
