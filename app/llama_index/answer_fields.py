"""What may be set of an answer, for an LLM of llama-index and for a single call of it.

The fields carry the names that llama-index's own LLMs give them; ranges are checked where the app checks them
(`app.chat.answers.answer`), types here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from llama_index.core.bridge.pydantic import BaseModel, Field, ValidationError

from app.chat.answers.answer import AnswerOptions
from app.errors import UserFacingError
from quest_core.config import AttentionSetting


class AnswerFields(BaseModel):
    """How tokens are drawn and what a step reads."""

    temperature: float = Field(AnswerOptions.temperature, description="0 is greedy")
    top_p: float = Field(AnswerOptions.top_p, description="share of the probability that is drawn from")
    top_k: int = Field(AnswerOptions.top_k, description="so many tokens are drawn from; 0 for all")
    min_p: float = Field(AnswerOptions.min_p, description="least probability, as a share of the best token's")
    repetition_penalty: float = Field(AnswerOptions.repetition_penalty, description="1 is none")
    max_tokens: int = Field(AnswerOptions.max_new_tokens, ge=1, description="the longest answer, a thought included")
    seed: int | None = Field(None, description="the same seed draws the same tokens")
    stop: Sequence[Annotated[str, Field(min_length=1)]] = Field(
        (), description="texts that end an answer and are not part of it"
    )
    attention: AttentionSetting = Field(AnswerOptions.attention, description="auto, dense or quest, among others")
    token_budget: int = Field(AnswerOptions.token_budget, description="tokens that Quest reads for a new one")

    def answer_options(self, changes: Mapping[str, Any]) -> AnswerOptions:
        """The options of one call.

        Args:
            changes: fields that this call has otherwise; None leaves one as it is. `stop` may be one text.

        Raises:
            UserFacingError: no such field, or a value that is not of its type.
        """
        if unknown := sorted(set(changes) - set(AnswerFields.model_fields)):
            known = ", ".join(AnswerFields.model_fields)
            raise UserFacingError(f"The model has no setting {', '.join(unknown)}. Its settings are {known}.")
        own = {name: getattr(self, name) for name in AnswerFields.model_fields}
        given = {name: value for name, value in changes.items() if value is not None}
        try:
            fields = AnswerFields.model_validate({**own, **with_stop_texts(given)})
        except ValidationError as error:
            raise setting_error(error) from error
        values = {name: getattr(fields, name) for name in AnswerFields.model_fields}
        return AnswerOptions(max_new_tokens=values.pop("max_tokens"), **values)


def with_stop_texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields; one text to stop at becomes a list of one."""
    stop = fields.get("stop")
    return {**fields, "stop": [stop]} if isinstance(stop, str) else dict(fields)


def setting_error(error: ValidationError) -> UserFacingError:
    """What to tell of values that are not of a setting's type."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    return UserFacingError(f"The setting {name} cannot be {first['input']!r:.80}: {first['msg']}.")
