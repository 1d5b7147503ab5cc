"""`cvxrelu export`: a trained network as a file of another library."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from cvxrelu.command_line.cells import UserError
from cvxrelu.command_line.model_folder import read_model
from cvxrelu.command_line.parsing import need
from cvxrelu.network.file import PICKLES
from cvxrelu.network.relu_network import ReLUNetwork
from cvxrelu.support.files import atomic_write
from cvxrelu.support.program import OK

__all__ = ["EXPORT_HELP", "add_export_options", "run_export"]

EXPORT_HELP = (
    "write a trained network as a file of PyTorch or ONNX",
    "Write the network in MODEL for another library. It takes the numbers that `cvxrelu fit` makes of a table, in\n"
    "the order of feature_names in solution.json: dates and categories are features of their own there.",
    "  cvxrelu export model --to onnx --out model.onnx\n  cvxrelu export model --to torch --out weights.safetensors\n",
)

ENDINGS = {"torch": ".safetensors", "onnx": ".onnx"}


def run_export(options: argparse.Namespace) -> int:
    out, ending = Path(options.out), ENDINGS[options.to]
    if out.suffix in PICKLES:
        raise UserError(
            f"--out {out}: a {out.suffix} file is a pickle, which can run code where it is loaded; write "
            f"{out.with_suffix('.safetensors')} instead, and load it with safetensors.torch.load_file"
        )
    if out.suffix != ending:
        raise UserError(f"--out {out}: --to {options.to} writes a {ending} file")
    if out.exists() and not options.overwrite:
        raise UserError(f"--out {out}: the file exists; choose another, or pass --overwrite")
    source = Path(options.model)
    network = ReLUNetwork.load(source) if source.suffix == ".safetensors" else read_model(source).network
    dense = network.dense()
    d, h, c = *dense.W.shape, dense.A.shape[1]
    if options.to == "onnx":
        need(lambda: network.to_onnx(out, overwrite=options.overwrite))
        print(f"written         {out}: input X (n, {d}), output prediction; it runs in any ONNX runtime")
        return OK
    weights = {"0.weight": dense.W.T, "0.bias": dense.b, "2.weight": dense.A.T, "2.bias": dense.c}
    content = {name: np.ascontiguousarray(w, dtype=np.float32) for name, w in weights.items()}
    atomic_write(out, save(content), overwrite=options.overwrite)
    print(f"written         {out}; it loads with")
    print("    import torch\n    from safetensors.torch import load_file")
    print(f"    model = torch.nn.Sequential(torch.nn.Linear({d}, {h}), torch.nn.ReLU(), torch.nn.Linear({h}, {c}))")
    print(f"    model.load_state_dict(load_file({str(out)!r}))")
    return OK


def add_export_options(export: argparse.ArgumentParser) -> None:
    """MODEL, the library, and the file."""
    export.add_argument("model", metavar="MODEL", help="a folder that `cvxrelu fit` wrote, or a network's .safetensors")
    export.add_argument("--to", choices=tuple(ENDINGS), required=True,
                        help="torch: the weights of a torch.nn.Sequential; onnx: a graph (needs onnx)")  # fmt: skip
    export.add_argument("--out", required=True, metavar="FILE", help="a .safetensors or .onnx file to write")
    export.add_argument("--overwrite", action="store_true", help="replace the file that --out names")
