"""Runs inside vLLM's worker process (`worker_extension_cls`) and says which parts vLLM chose for this device.

vLLM logs these choices at INFO only, in the process of its core. It must not import vLLM: `pipeline.engines.vllm` is
the only door, and the worker has loaded it already.
"""

from typing import Any


class ChoicesOfWorker:
    """Methods that vLLM adds to its worker class; a name must not occur there."""

    model_runner: Any

    def joyfleet_choices(self) -> dict[str, str]:
        """Return the model runner, the attention backends and the sampler."""
        runner = self.model_runner
        groups = [group for of_cache in runner.attn_groups for group in of_cache]
        return {
            "runner": f"{type(runner).__name__} {'V2' if '.worker.gpu.' in type(runner).__module__ else 'V1'}",
            "attention": "+".join(sorted({group.backend.get_name() for group in groups})),
            "sampler": _sampler(runner.sampler),
        }


def _sampler(sampler: Any) -> str:  # noqa: ANN401 - vLLM's two model runners have samplers of two classes
    if hasattr(sampler, "use_flashinfer"):  # Model Runner V2
        return "gumbel, unseeded FlashInfer" if sampler.use_flashinfer else "gumbel"
    return str(getattr(sampler.topk_topp_sampler.forward, "__name__", "unknown"))
