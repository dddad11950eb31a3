"""Which language or vision model captions, asks or judges, and how it is reached."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from tpo.errors import redact
from tpo.params.section import Section


class _ChatParams(Section):
    """A model that captions, asks or judges. The paper has CogVLM2 and GPT-4o-mini; all settings are ours."""

    max_reply_tokens: int = Field(512, ge=1, description="of one reply; a longer one is set aside")
    temperature: float = Field(0, ge=0, description="0 = the most probable token each time")


class EndpointParams(_ChatParams):
    """An OpenAI-compatible server: vLLM, a provider."""

    url: str = Field(description="with the version: http://localhost:8000/v1")
    model: str = Field(description="its name at the server")
    api_key_env: str = Field(
        "OPENAI_API_KEY", pattern=r"^[A-Za-z_]\w*$", description="environment variable with the key, read nowhere else"
    )
    concurrency: int = Field(16, ge=1, description="calls in flight")
    requests_per_minute: int | None = Field(None, ge=1, description="none = as fast as they are answered")
    timeout_s: float = Field(120, gt=0, description="for one attempt")
    max_retries: int = Field(15, ge=0, description="after 429, 5xx, timeouts and cut connections: 0.5 s, then up to 8")
    reply_limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra_body: dict[str, Any] = Field({}, description="more fields of the request, as the server has them")
    usd_per_million_input_tokens: float = Field(0, ge=0)
    usd_per_million_output_tokens: float = Field(0, ge=0)
    budget_usd: float | None = Field(None, gt=0, description="of one run of the stage, which stops there")

    @field_validator("url")
    @classmethod
    def _holds_no_secret(cls, url: str) -> str:
        """DVC writes settings to dvc.lock, which is committed."""
        if redact(url) != url:
            raise ValueError("a password or key does not belong here: set the environment variable of api_key_env")
        return url


class LocalParams(_ChatParams):
    """A text or image-text model, loaded by transformers."""

    checkpoint: str = Field(description="folder or hub id")
    revision: str | None = Field(None, description="hub revision; pin it")
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    device: Literal["auto", "cpu", "cuda", "balanced"] = "auto"
    batch_size: int = Field(8, ge=1, description="replies written together")


def who(value: Any) -> str:
    """`url` makes it an endpoint, `checkpoint` a model loaded here; a name is what works without a model."""
    if isinstance(value, EndpointParams) or (isinstance(value, dict) and "url" in value):
        return "endpoint"
    return "local" if isinstance(value, LocalParams | dict) else "offline"


Chat = Annotated[EndpointParams, Tag("endpoint")] | Annotated[LocalParams, Tag("local")]
Captioner = Annotated[Chat | Annotated[Literal["sidecar"], Tag("offline")], Discriminator(who)]
ByRuleOrChat = Annotated[Chat | Annotated[Literal["rule"], Tag("offline")], Discriminator(who)]
ChatParams = EndpointParams | LocalParams
