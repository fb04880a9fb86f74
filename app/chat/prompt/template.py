"""The model's own chat template, cut at its seams, and text to tokens without letting text become control tokens.

A template is rendered once with markers in place of the contents; what stands between the markers is the model
maker's text, in which special tokens count. Contents (documents, questions) are tokenised separately, and a
`<|im_end|>` in them stays six harmless characters and more. Because the pieces are tokenised one by one, the tokens
of a prompt's beginning never depend on what follows. Knows nothing of documents or windows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from app.chat.answers.thought_stream import CLOSING, OPENING
from app.chat.prompt.message_prompt import MessagePrompts
from app.chat.prompt.template_rendering import TemplateFault, render_template
from app.errors import UserFacingError

_MARKERS = ("@@system-3f1c@@", "@@question-3f1c@@", "@@answer-3f1c@@", "@@follow-up-3f1c@@")
# Transformers' names for a tokenizer that is all in tokenizer.json.
_GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
_PLAIN_SEAMS = ("", "\n\nQuestion: ", "\nAnswer:", "\n\nQuestion: ")


@dataclass(frozen=True)
class EncodedText:
    """Tokens of a text and the characters they stand for.

    Args:
        token_ids: the tokens.
        characters: int32 [tokens, 2], start and end of each token in the text. Together they cover it without gaps;
            tokens that are bytes of one character share it.
    """

    token_ids: tuple[int, ...]
    characters: np.ndarray


class ChatTokenizer:
    """Tokenizer and chat template of a model folder.

    Attributes:
        before_system, before_question, before_answer, after_answer: tokens of the template between the contents;
            `after_answer` ends one turn and leads to the next question.
        opens_thought: whether `before_answer` ends in `<think>`, so that the model thinks before it answers.
        before_past_answer: what stands before an answer without its thought; else as `before_answer`.
        end_of_thought: tokens that close a thought.
        stop_token_ids: tokens with which the template ends an answer.
        bos_token_ids: what every prompt begins with: one token or none.
        chat_template, template_variables: what a dialogue is rendered with; "" of a model that has no template.
        control_texts: how its control tokens are written.

    Raises:
        UserFacingError: if the folder holds no fast tokenizer, or a chat template that cannot be used.
    """

    def __init__(self, model_folder: Path) -> None:
        from tokenizers import Tokenizer

        config = _tokenizer_config(model_folder)
        try:
            tokenizer = _load_tokenizer(model_folder, config)
            self._with_control = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        except ImportError:
            raise  # which says what to install
        except Exception as error:  # transformers and tokenizers raise many kinds for a damaged file
            raise UserFacingError(
                f"The tokenizer in {model_folder} cannot be read. The model needs a tokenizer.json beside its weights."
            ) from error
        self._plain = _without_control_tokens(self._with_control)
        for backend in (self._with_control, self._plain):
            backend.no_truncation()
            backend.no_padding()
        self.chat_template = ""
        self.template_variables = _template_variables(tokenizer)
        self.control_texts = tuple(token.content for token in self._with_control.get_added_tokens_decoder().values())
        if tokenizer.chat_template:
            try:
                self.chat_template = _template_text(tokenizer)
                seams = _seams(self.chat_template, self.template_variables)
            except TemplateFault as error:
                raise UserFacingError(
                    f"The chat template in {model_folder} cannot be used: {error}. Get the model's tokenizer files "
                    "again, or take the template out of them: questions are then asked in plain text."
                ) from error
        else:
            seams = ((tokenizer.bos_token or "") + _PLAIN_SEAMS[0], *_PLAIN_SEAMS[1:], _PLAIN_SEAMS[2])
        self.before_system, self.before_question, self.before_answer, self.after_answer, past = map(
            self.encode_control, seams
        )
        self.opens_thought = seams[2].rstrip().endswith(OPENING)
        # Where no thought is opened, the next prompt should continue what is in the cache.
        self.before_past_answer = past if self.opens_thought else self.before_answer
        self.end_of_thought = self.encode_control(f"\n{CLOSING}\n\n")
        wants_bos = self._wants_bos(config, tokenizer.bos_token_id)
        self.bos_token_ids = (tokenizer.bos_token_id,) if wants_bos else ()
        if wants_bos and tokenizer.bos_token_id not in self.before_system:
            self.before_system = (tokenizer.bos_token_id, *self.before_system)
        ends = {self._end_of_turn(), tokenizer.eos_token_id} - {None}
        self.stop_token_ids = tuple(sorted(ends))

    @cached_property
    def messages(self) -> MessagePrompts:
        """The prompts of dialogues that other programs bring."""
        return MessagePrompts(self)

    def encode_control(self, text: str) -> tuple[int, ...]:
        """Tokens of what the template has written; control tokens count in it."""
        return tuple(self._with_control.encode(text, add_special_tokens=False).ids)

    def _wants_bos(self, config: dict[str, Any], bos_token_id: int | None) -> bool:
        """Whether the model was trained on texts that begin with this token, whatever its template says."""
        if isinstance(wanted := config.get("add_bos_token"), bool):
            return wanted and bos_token_id is not None
        return self._with_control.encode("", add_special_tokens=True).ids[:1] == [bos_token_id]

    def _end_of_turn(self) -> int | None:
        """The control token with which the template ends an answer, or begins what follows it; None if it has none."""
        control = self._with_control.get_added_tokens_decoder()
        for token_id in self.after_answer:
            if token_id in control and control[token_id].content.strip():
                return token_id
            # Beyond the answer's last line break stand words that an answer may hold as well.
            if self.decode([token_id], keep_control=True).strip():
                return None
        return None

    def encode(self, text: str) -> EncodedText:
        """Tokens of text from outside; none of them is a control token, whatever the text says."""
        # A lone surrogate is no text; a question mark keeps the character positions.
        encoding = self._plain.encode(text.encode("utf-8", "replace").decode("utf-8"), add_special_tokens=False)
        characters = np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2)
        # What a normaliser dropped belongs to the token after it: each starts where the last one ended.
        if len(characters):
            np.minimum(characters[1:, 0], characters[:-1, 1], out=characters[1:, 0])
            characters[0, 0], characters[-1, 1] = 0, len(text)
        return EncodedText(tuple(encoding.ids), characters)

    def encode_prompt(self, text: str) -> list[int]:
        """Tokens of a whole prompt that is continued as it stands: as `encode`, after what every prompt begins with."""
        return [*self.bos_token_ids, *self.encode(text).token_ids]

    def count(self, text: str) -> int:
        return len(self.encode(text).token_ids)

    def decode(self, token_ids: Sequence[int], keep_control: bool = False) -> str:
        """Text of tokens; control tokens are left out unless `keep_control`."""
        return self._with_control.decode(list(token_ids), skip_special_tokens=not keep_control)


def _tokenizer_config(model_folder: Path) -> dict[str, Any]:
    """What the folder's tokenizer_config.json says; nothing if it is missing or damaged."""
    try:
        config = json.loads((model_folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _load_tokenizer(model_folder: Path, config: dict[str, Any]) -> Any:
    """Transformers' tokenizer of the folder."""
    if config.get("tokenizer_class") in _GENERIC_TOKENIZERS:
        # What AutoTokenizer would choose; it looks at the model's config first, which takes it two seconds of imports.
        from transformers import PreTrainedTokenizerFast as tokenizer_class
    else:
        from transformers import AutoTokenizer as tokenizer_class
    return tokenizer_class.from_pretrained(model_folder, local_files_only=True, trust_remote_code=False)


def _without_control_tokens(tokenizer: Any) -> Any:
    """A copy that reads every added token in a text as plain characters."""
    from tokenizers import Tokenizer

    # `encode_special_tokens` spares only tokens marked special; `<think>` and the like are added but not marked.
    description = json.loads(tokenizer.to_str())
    for added in description["added_tokens"]:
        added["special"] = True
    # It only adds tokens of its own and, in some tokenizers, takes the blanks of a word out of its offsets.
    description["post_processor"] = None
    plain = Tokenizer.from_str(json.dumps(description))
    plain.encode_special_tokens = True
    return plain


def _template_text(tokenizer: Any) -> str:
    """The chat template of a tokenizer.

    Raises:
        TemplateFault: it is no text, or there are several.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise TemplateFault("there are several and none is the default") from error
    if not isinstance(template, str):
        raise TemplateFault(f"it is no text but a {type(template).__name__}")
    return template


def _template_variables(tokenizer: Any) -> dict[str, Any]:
    """What a template is told besides the messages."""
    return {
        **tokenizer.special_tokens_map,
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        # A thought that need not be would only spend time.
        "enable_thinking": False,
    }


def _seams(template: str, variables: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """The template's text around the four contents, and last what it puts before an answer of the past.

    Raises:
        TemplateFault: if it does not keep them and their order, or cannot be rendered.
    """
    system, question, answer, follow_up = _MARKERS
    with_role = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    # Some templates refuse a system message, others move it to the last question: there it opens the first question.
    merged = [{"role": "user", "content": f"{system}\n\n{question}"}]
    later = [{"role": "assistant", "content": answer}, {"role": "user", "content": follow_up}]
    conversations = [messages for first in (with_role, merged) for messages in (first, first + later)]
    renderings = render_template(template, variables, conversations)
    for short, long in (renderings[:2], renderings[2:]):
        if isinstance(short, TemplateFault) or isinstance(long, TemplateFault):
            continue
        opening = _split(short, _MARKERS[:2])
        whole = _split(long, _MARKERS)
        if opening and whole and opening[:2] == whole[:2]:
            return opening[0], opening[1], opening[2], whole[3], whole[2]
    faults = [rendering for rendering in renderings if isinstance(rendering, TemplateFault)]
    raise faults[-1] if faults else TemplateFault("it leaves out, repeats or reorders what is said")


def _split(text: str, markers: Sequence[str]) -> list[str] | None:
    """The text before, between and after the markers, or None unless each occurs once and in order."""
    parts = []
    for marker in markers:
        part, found, text = text.partition(marker)
        if not found:
            return None
        parts.append(part)
    return None if any(marker in text for marker in markers) else [*parts, text]
