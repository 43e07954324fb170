"""Refusals in the shape of OpenAI's interface: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A request that is not served, with the HTTP status and what the client is told."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "error": {"message": message, "type": type, "param": param, "code": code}
        }


def unknown_model(name: str) -> ApiError:
    """A name that this engine does not answer to."""
    message = f"The model {name!r} does not exist here; GET /v1/models lists those that do."
    return ApiError(message, status=404, param="model", code="model_not_found")


def too_long(prompt_tokens: int, max_tokens: int, context_tokens: int, *, param: str) -> ApiError:
    """A prompt and answer that the context cannot hold."""
    message = (
        f"This model's context is {context_tokens} tokens, but {prompt_tokens} in the prompt and "
        f"{max_tokens} in the answer were asked for; shorten the prompt or lower max_tokens."
    )
    return ApiError(message, param=param, code="context_length_exceeded")


def beyond_any_context(chars: int, context_tokens: int, *, param: str) -> ApiError:
    """A text so long that it need not be tokenised to know."""
    message = (
        f"This model's context is {context_tokens} tokens, which {chars} characters cannot fit; shorten it."
    )
    return ApiError(message, param=param, code="context_length_exceeded")


def too_many(prompts: int, choices: int, waiting: int) -> ApiError:
    """More sequences in one request than may ever wait."""
    message = (
        f"{prompts * choices} answers (prompts times n) are more than the {waiting} that may wait here; "
    )
    if prompts == 1:
        return ApiError(f"{message}lower n.", param="n")
    return ApiError(f"{message}send fewer prompts in one request, or lower n.", param="prompt")


def overloaded() -> ApiError:
    """More requests than may wait."""
    message = "The engine has as many requests waiting as it may; try again later or elsewhere."
    return ApiError(message, status=503, type="service_unavailable", code="engine_overloaded")


def not_taken_over(why: str) -> ApiError:
    """A KV cache that was to come from another engine, and did not."""
    message = f"The KV cache did not come from the other engine: {why}."
    return ApiError(message, status=503, type="service_unavailable", code="kv_transfer_failed")


def stopping() -> ApiError:
    """The engine has been told to end, and this answer took longer than it may wait."""
    message = "The engine is stopping; ask another one."
    return ApiError(message, status=503, type="service_unavailable", code="engine_stopping")


def failed() -> ApiError:
    """A step that this answer needed has failed; the engine serves on."""
    message = "The engine could not compute this answer; its log says why."
    return ApiError(message, status=500, type="api_error", code="step_failed")


def broken() -> ApiError:
    """The engine has failed and will compute nothing more."""
    return ApiError("The engine has failed.", status=500, type="api_error", code="engine_failed")
