"""Models of `transformers` on PyTorch: causal models, encoders, sentence-transformers and GGUF files."""

from __future__ import annotations

import copy
import hashlib
import inspect
import io
import json
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from cvxrelu.support.errors import InputError
from cvxrelu_llm.models.kv_cache import cache_keyword
from cvxrelu_llm.models.protocol import Forward, sharing_works

__all__ = ["TorchModel", "computes_bfloat16", "counts_positions", "evaluating", "fingerprint", "load_torch_model"]

GLANCED = 256  # entries of a tensor that are compared before its hash is believed
LONGEST = 1 << 20  # tokenizers say 1e30 where they know no limit


class _Stop(Exception):
    """Ends a forward pass once the last layer asked for is known."""


class TorchModel:
    """A `transformers` model without head; see `models.FeatureModel` for the attributes.

    The network is left as it was: it is put into evaluation mode for each pass only, and its parameters stay trainable.

    The pass is left by an exception from a hook behind the last block asked for, which works for every architecture
    whose blocks stand in one list.
    """

    def __init__(
        self, network: Any, tokenizer: Any, *, name: str, revision: str = "", pooling: str | None = None
    ) -> None:
        import torch

        self.network, self.tokenizer = network, tokenizer
        self.name, self.revision, self.pooling = name, revision, pooling
        if getattr(network.config, "is_encoder_decoder", False):
            raise InputError(f"{name}: encoder-decoder models are not supported")
        with evaluating(network):
            self.causal = _sees_the_past_only(network)
        config = network.config.get_text_config()
        self.n_layers, self.hidden_size = config.num_hidden_layers, config.hidden_size
        limits = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
        if "roberta" in str(config.model_type):  # its positions start at pad_token_id + 1
            limits[0] -= config.pad_token_id + 1
        self.max_length = min([int(limit) for limit in limits if limit and limit < LONGEST], default=LONGEST)
        self.dtype = str(network.dtype).removeprefix("torch.")
        self.device = network.device
        self.sliding_window = getattr(config, "sliding_window", None)
        self._blocks = _blocks(network, self.n_layers)
        self._positions = counts_positions(network, self.causal)
        self._torch = torch
        self._cache = cache_keyword(network)
        self.fingerprint = fingerprint(network)
        self.shares_prefix = False
        self.shares_prefix = self.causal and self._cache is not None and sharing_works(self)

    def forward(
        self,
        tokens: Int[np.ndarray, "b s"],
        mask: Bool[np.ndarray, "b t"],
        layers: Sequence[int],
        past: Any = None,
        keep: bool = False,
    ) -> Forward:
        """See `models.FeatureModel.forward`."""
        torch = self._torch
        attention_mask = torch.as_tensor(mask, device=self.device).long()
        given: dict[str, Any] = {
            "input_ids": torch.as_tensor(tokens, device=self.device),
            "attention_mask": attention_mask,
        }
        if self._positions:
            given["position_ids"] = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        if keep and past is None:
            from transformers import DynamicCache

            past = DynamicCache()  # without a configuration: whole keys and values even where attention slides
        if past is not None:
            given |= {str(self._cache): past, "use_cache": True}
        elif self.causal:
            given["use_cache"] = False
        with torch.inference_mode(), evaluating(self.network), self._captured(layers) as captured:
            with suppress(_Stop):
                captured[self.n_layers] = self.network(**given).last_hidden_state
            return Forward([captured[layer] for layer in layers], past)

    @contextmanager
    def _captured(self, layers: Sequence[int]) -> Iterator[dict[int, Any]]:
        """Collects outputs of blocks while the context lasts, and ends the pass after the last one needed."""
        captured: dict[int, Any] = {}
        last = max(layers)

        def behind(layer: int) -> Any:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                captured[layer] = output if self._torch.is_tensor(output) else output[0]
                if layer == last:
                    raise _Stop

            return hook

        handles = [self._blocks[k - 1].register_forward_hook(behind(k)) for k in {*layers} if k < self.n_layers]
        try:
            yield captured
        finally:
            for handle in handles:
                handle.remove()

    def repeat(self, past: Any, rows: Int[np.ndarray, " b"]) -> Any:
        """See `models.FeatureModel.repeat`."""
        copied = copy.copy(past)
        copied.layers = [copy.copy(layer) for layer in past.layers]  # selecting gives each new tensors
        copied.batch_select_indices(self._torch.as_tensor(rows, device=self.device))
        return copied


def _blocks(network: Any, n_layers: int) -> Any:
    from torch.nn import ModuleList

    lists = [module for module in network.modules() if isinstance(module, ModuleList) and len(module) == n_layers]
    if not lists:
        raise InputError(f"{type(network).__name__}: no list of {n_layers} blocks found, so no layer can be chosen")
    return lists[0]


def counts_positions(network: Any, causal: bool | None = None) -> bool:
    """Whether positions are given, counted over the tokens alone: causal models that take them; encoders count."""
    if "position_ids" not in inspect.signature(network.forward).parameters:
        return False
    with evaluating(network):
        return _sees_the_past_only(network) if causal is None else causal


@contextmanager
def evaluating(network: Any) -> Iterator[None]:
    """Without dropout for a while; every module goes back to the mode that it was in."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


_HASHED: weakref.WeakKeyDictionary[Any, tuple[Any, str]] = weakref.WeakKeyDictionary()


def fingerprint(network: Any) -> str:
    """Hash of configuration, weights and precision, by names in order; computed anew where these changed.

    Changes are seen by PyTorch's count of writes and by some entries of every tensor.
    """
    state: Any = [(name, t.dtype, tuple(t.shape), _version(t), _glance(t)) for name, t in network.state_dict().items()]
    state.append(json.dumps(network.config.to_dict(), sort_keys=True, default=str))
    known = _HASHED.get(network)
    if known is None or known[0] != state:
        known = _HASHED[network] = (state, _hash(network))
    return known[1]


def _glance(tensor: Any) -> bytes:
    """Some entries: writes that no version counts, through `.data` or a NumPy view, hardly leave all of them."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // GLANCED)].double().cpu().numpy().tobytes()


def _version(tensor: Any) -> int:
    """How often a tensor was written to; tensors of inference mode do not count it, and are not written to."""
    return 0 if tensor.is_inference() else tensor._version


def _hash(network: Any) -> str:
    import torch

    digest = hashlib.blake2b(digest_size=16)
    config = network.config.to_dict()
    for noise in ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"):
        config.pop(noise, None)
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# -- loading ----------------------------------------------------------------------------------------------------------
def load_torch_model(
    name: str, gguf_file: str | None, dtype: str | None, device: str | None, revision: str | None
) -> TorchModel:
    """See `models.load_model`."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError(f"language models need: pip install 'cvxrelu[llm]' ({error})") from error
    path = Path(name)
    if path.suffix.lower() == ".gguf":
        name, gguf_file = str(path.parent), path.name
        if not path.is_file():
            raise InputError(f"{path}: no such file")
    if path.exists() and not path.is_dir() and path.suffix.lower() != ".gguf":
        raise InputError(f"{path}: not the folder of a model, nor a .gguf file")
    sentence = _sentence_transformer(Path(name))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    precision = getattr(torch, dtype or ("bfloat16" if computes_bfloat16(device) else "float32"))
    given: dict[str, Any] = {"revision": revision} if revision else {}
    if gguf_file is not None:
        given["gguf_file"] = gguf_file
    if Path(name).exists():
        given["local_files_only"] = True
    source = str(Path(name) / sentence["folder"]) if sentence else name
    try:
        with _quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **given)
            network = transformers.AutoModel.from_pretrained(source, dtype=precision, **given).to(device)
            network.eval().requires_grad_(False)
    except ImportError as error:
        raise InputError(f"{name}: {error}") from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: not a model that transformers can load ({first})") from error
    commit = getattr(network.config, "_commit_hash", None) or revision or ""
    model = TorchModel(
        network,
        tokenizer,
        name=f"{name}/{gguf_file}" if gguf_file else name,
        revision=str(commit),
        pooling=sentence.get("pooling"),
    )
    if "max_length" in sentence:
        model.max_length = min(model.max_length, sentence["max_length"])
    return model


def computes_bfloat16(device: str) -> bool:
    """Whether the processor multiplies in bfloat16; elsewhere PyTorch converts to and fro, which is slower."""
    import torch

    if not device.startswith("cpu"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16 "))


def _sees_the_past_only(network: Any) -> bool:
    """Whether a change of the last token leaves all states before it as they are: tried, since no flag tells it."""
    import torch

    tokens = torch.arange(5, 13, device=network.device).remainder(network.config.get_text_config().vocab_size)
    other = tokens.clone()
    other[-1] = tokens[0]
    with torch.inference_mode():
        before, after = network(input_ids=torch.stack([tokens, other])).last_hidden_state[:, :-1].float()
    return bool((before - after).abs().max() <= 1e-3 * before.abs().max())


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Loading draws progress bars and tells of unused heads; neither is news here."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # the bar of GGUF files asks nobody
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _sentence_transformer(folder: Path) -> dict[str, Any]:
    """What a sentence-transformers folder says of its transformer, pooling and length; {} for other folders."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return {}
    found: dict[str, Any] = {"folder": ""}
    for module in json.loads(modules.read_text(encoding="utf-8")):
        kind, place = module["type"].rpartition(".")[2], folder / module["path"]
        if kind == "Transformer":
            found["folder"] = module["path"]
            settings = place / "sentence_bert_config.json"
            if settings.is_file() and (length := json.loads(settings.read_text("utf-8")).get("max_seq_length")):
                found["max_length"] = int(length)
        elif kind == "Pooling":
            settings = json.loads((place / "config.json").read_text(encoding="utf-8"))
            if settings.get("pooling_mode_mean_tokens"):
                found["pooling"] = "mean"
            elif settings.get("pooling_mode_lasttoken"):
                found["pooling"] = "last"
    return found
