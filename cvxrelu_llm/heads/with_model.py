"""A head beside its language model: texts scored, and generation guided, by the features it was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cvxrelu.support.errors import InputError

__all__ = ["WithLanguageModel"]


class WithLanguageModel:
    """What `ConvexRewardHead` does with a language model; InputError where it is another one."""

    feature_settings: dict[str, Any]

    if TYPE_CHECKING:

        def score(self, X: Any) -> Float[np.ndarray, " n"]:
            """Rewards of features; of the head."""
            ...

    def check_model(self, model: Any) -> None:
        """InputError unless `model`, of `load_model`, is the one whose features the head was fitted on."""
        wanted = self.feature_settings.get("fingerprint")
        if wanted is None:
            raise InputError("this head was fitted on features without a model; give features, not texts")
        if model.fingerprint != wanted:
            fitted = self.feature_settings.get("dtype")
            if fitted not in (None, model.dtype):
                raise InputError(
                    f"wrong precision for this head: {model.name!r} computes in {model.dtype}, the head was fitted on "
                    f"features of {self.feature_settings.get('model')!r} in {fitted}; load the model with "
                    f"dtype={fitted!r}"
                )
            raise InputError(
                f"wrong model for this head: {model.name!r} has fingerprint {model.fingerprint}, the head was fitted "
                f"on {self.feature_settings.get('model')!r} with {wanted}"
            )

    def score_texts(self, model: Any, texts: Sequence[tuple[Any, str]], **options: Any) -> Float[np.ndarray, " n"]:
        """Rewards of (prompt, response) texts; `model` of `load_model`, `options` of `embed` (cache, batch_tokens)."""
        from cvxrelu_llm.features.extract import embed

        self.check_model(model)
        names = ("layer", "pooling", "prompt", "template", "max_length", "max_response_length")
        settings = {name: self.feature_settings[name] for name in names if name in self.feature_settings}
        return self.score(embed(model, texts, **settings, **options))

    def scorer(self, lm: Any, tokenizer: Any) -> Any:
        """What `guide`, `sample` and `best_of_n` take; InputError where `lm` is not the model fitted on."""
        from cvxrelu_llm.generation.scorers import HiddenStateScorer
        from cvxrelu_llm.models.feature_map import FeatureMap
        from cvxrelu_llm.models.templates import as_template
        from cvxrelu_llm.models.torch_models import TorchModel

        name = getattr(lm, "name_or_path", "") or type(lm).__name__
        model = TorchModel(getattr(lm, lm.base_model_prefix), tokenizer, name=name)
        self.check_model(model)
        template = as_template(model, self.feature_settings["template"]).fingerprint
        if template != self.feature_settings.get("template_fingerprint", template):
            raise InputError(
                f"wrong template for this head: that of {name!r} is {template}, the head was fitted on "
                f"{self.feature_settings['template_fingerprint']} of {self.feature_settings.get('model')!r}"
            )
        chosen = FeatureMap.of(self.feature_settings)
        return HiddenStateScorer(self.score, layer=chosen.layers, pooling=chosen.poolings, prompt=chosen.prompt)

    def guide(self, lm: Any, tokenizer: Any, prompt: Any, **options: Any) -> Any:
        """`decoding.guide` with this head, and with the template that its features were made with."""
        return self.guide_batch(lm, tokenizer, [prompt], **options)[0]

    def guide_batch(self, lm: Any, tokenizer: Any, prompts: Sequence[Any], **options: Any) -> list[Any]:
        """`decoding.guide_batch`, likewise: a text for each prompt, several side by side."""
        from cvxrelu_llm.generation.decoding import guide_batch

        options = {"template": self.feature_settings["template"], **options}
        return guide_batch(lm, tokenizer, prompts, self.scorer(lm, tokenizer), **options)
